//! Pools: pods, services and certificates, scaling, drain, new templates, and what a controller
//! that dies leaves behind.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Pod, Secret, Service};
use kube::{Api, ResourceExt as _};
use plenum_operator::controller;
use plenum_tests::{Failure, NAMESPACE, Order, Stage, arguments, eventually};
use serde_json::{Value, json};

fn pods(stage: &Stage) -> Api<Pod> {
    Api::namespaced(stage.admin.clone(), NAMESPACE)
}

async fn names(stage: &Stage) -> BTreeSet<String> {
    let list = pods(stage).list(&kube::api::ListParams::default()).await;
    list.map(|list| list.iter().map(|pod| pod.name_any()).collect())
        .unwrap_or_default()
}

async fn wait_names(stage: &Stage, wanted: &[&str]) -> Result<(), Failure> {
    let wanted: BTreeSet<String> = wanted.iter().map(|name| (*name).to_owned()).collect();
    let outcome = eventually(&format!("pods {wanted:?}"), async || {
        (names(stage).await == wanted).then_some(())
    })
    .await;
    match outcome {
        Ok(()) => Ok(()),
        Err(error) => Err(format!("{error}; there are {:?}", names(stage).await).into()),
    }
}

async fn pool(stage: &Stage, spec: Value) -> Result<(), Failure> {
    stage.plenum("MediaWorkerPool", NAMESPACE, "edge", spec).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_has_a_service_with_one_number_and_a_certificate() -> Result<(), Failure> {
    let mut stage = Stage::new().await?;
    stage.start_controller().await?;
    pool(&stage, json!({ "replicas": 1 })).await?;
    stage.bring_up("edge-0").await?;
    stage
        .wait_ready("MediaWorkerPool", NAMESPACE, "edge", "WorkersReady")
        .await?;
    let services: Api<Service> = Api::namespaced(stage.admin.clone(), NAMESPACE);
    let spec = services.get("edge-0").await?.spec.unwrap_or_default();
    let ports = spec.ports.unwrap_or_default();
    let numbers: BTreeSet<_> = ports.iter().map(|port| port.node_port).collect();
    let protocols: Vec<_> = ports.iter().filter_map(|port| port.protocol.as_deref()).collect();
    assert_eq!((protocols, numbers.len()), (vec!["UDP", "TCP"], 1), "{ports:?}");
    assert_eq!(spec.external_traffic_policy.as_deref(), Some("Local"));
    let number = ports[0].node_port.unwrap_or_default();
    let told = Order::Configure(vec![format!("192.0.2.10:{number}")]);
    eventually("the addresses", async || {
        stage.workers["edge-0"].orders().contains(&told).then_some(())
    })
    .await?;

    let secrets: Api<Secret> = Api::namespaced(stage.admin.clone(), NAMESPACE);
    let keys = async |name: &str| -> Result<Vec<String>, Failure> {
        Ok(secrets
            .get(name)
            .await?
            .data
            .unwrap_or_default()
            .into_keys()
            .collect())
    };
    assert_eq!(keys("edge-0-tls").await?, ["ca.crt", "tls.crt", "tls.key"]);
    assert_eq!(keys("plenum-ca").await?, ["tls.crt", "tls.key"]);
    assert_eq!(keys("plenum-keys").await?, ["apiKey", "apiSecret"]);
    let gateway = keys("plenum-gateway-tls").await?;
    assert_eq!(
        gateway,
        ["ca.crt", "live-api.crt", "live-api.key", "tls.crt", "tls.key"]
    );
    let secret = secrets.get("plenum-keys").await?.data.unwrap_or_default();
    assert!(secret["apiSecret"].0.len() >= 32);
    let owner = pods(&stage)
        .get("edge-0")
        .await?
        .metadata
        .owner_references
        .unwrap_or_default();
    assert_eq!(owner.first().map(|owner| owner.name.as_str()), Some("edge"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scaling_down_spares_the_occupied_and_waits_for_the_drain() -> Result<(), Failure> {
    let mut stage = Stage::new().await?;
    stage.start_controller().await?;
    let spec = |replicas: u32| json!({ "replicas": replicas, "drain": { "timeout": "6s" } });
    pool(&stage, spec(3)).await?;
    for name in ["edge-0", "edge-1", "edge-2"] {
        stage.bring_up(name).await?;
    }
    stage
        .wait_ready("MediaWorkerPool", NAMESPACE, "edge", "WorkersReady")
        .await?;
    let wish = json!({ "workerPoolRef": { "name": "edge" } });
    stage.plenum("Meeting", NAMESPACE, "daily", wish).await?;
    let meeting = stage.wait_ready("Meeting", NAMESPACE, "daily", "Idle").await?;
    let holder = meeting["status"]["assignment"]["worker"]
        .as_str()
        .unwrap_or_default()
        .to_owned();

    // Through the scale subresource, as an autoscaler does it.
    let pools = plenum_tests::dynamic(
        &stage.admin,
        "plenum.dev/v1alpha1",
        "MediaWorkerPool",
        Some(NAMESPACE),
    );
    let patch = json!({ "spec": { "replicas": 1 } });
    pools
        .patch_scale(
            "edge",
            &kube::api::PatchParams::default(),
            &kube::api::Patch::Merge(patch),
        )
        .await?;
    wait_names(&stage, &[&holder]).await?;
    let scale = pools.get_scale("edge").await?.status.unwrap_or_default();
    assert_eq!(scale.selector.as_deref(), Some("plenum.dev/pool=edge"));
    let services: Api<Service> = Api::namespaced(stage.admin.clone(), NAMESPACE);
    eventually("the end of the other services", async || {
        let list = services.list(&kube::api::ListParams::default()).await.ok()?;
        (list.iter().map(|service| service.name_any()).collect::<Vec<_>>() == [holder.clone()]).then_some(())
    })
    .await?;

    // The last one is occupied: it drains for its time, then goes.
    let began = Instant::now();
    pool(&stage, spec(0)).await?;
    eventually("the order to drain", async || {
        stage.workers[&holder]
            .orders()
            .contains(&Order::Drain(true))
            .then_some(())
    })
    .await?;
    wait_names(&stage, &[]).await?;
    assert!(
        began.elapsed() >= Duration::from_secs(6),
        "deleted after {:?}",
        began.elapsed()
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drained_worker_is_taken_back() -> Result<(), Failure> {
    let mut stage = Stage::new().await?;
    stage.start_controller().await?;
    pool(&stage, json!({ "replicas": 1 })).await?;
    stage.bring_up("edge-0").await?;
    stage
        .plenum(
            "Meeting",
            NAMESPACE,
            "daily",
            json!({ "workerPoolRef": { "name": "edge" } }),
        )
        .await?;
    stage.wait_ready("Meeting", NAMESPACE, "daily", "Idle").await?;
    let uid = pods(&stage).get("edge-0").await?.uid();
    pool(&stage, json!({ "replicas": 0 })).await?;
    let draining = |meeting: &Value| plenum_tests::condition(meeting, "Draining").is_some();
    stage
        .wait_for("Meeting", NAMESPACE, "daily", "Draining", draining)
        .await?;
    pool(&stage, json!({ "replicas": 1 })).await?;
    stage
        .wait_for("Meeting", NAMESPACE, "daily", "no Draining", |meeting| {
            !draining(meeting)
        })
        .await?;
    // Told by the pool's controller, which sees the same change as the meeting's.
    eventually("the order to go on", async || {
        let orders = stage.workers["edge-0"].orders();
        (orders.last() == Some(&Order::Drain(false))).then_some(())
    })
    .await?;
    assert_eq!(pods(&stage).get("edge-0").await?.uid(), uid);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_template_rolls_without_a_gap() -> Result<(), Failure> {
    let mut stage = Stage::new().await?;
    stage.start_controller().await?;
    pool(&stage, json!({ "replicas": 1 })).await?;
    stage.bring_up("edge-0").await?;
    stage
        .wait_ready("MediaWorkerPool", NAMESPACE, "edge", "WorkersReady")
        .await?;
    let old = pods(&stage).get("edge-0").await?.labels().clone();
    pool(
        &stage,
        json!({ "replicas": 1, "template": { "nodeSelector": { "disk": "fast" } } }),
    )
    .await?;
    stage
        .wait_ready("MediaWorkerPool", NAMESPACE, "edge", "RollingOut")
        .await?;
    wait_names(&stage, &["edge-0", "edge-1"]).await?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    wait_names(&stage, &["edge-0", "edge-1"]).await?;
    stage.bring_up("edge-1").await?;
    wait_names(&stage, &["edge-1"]).await?;
    let new = pods(&stage).get("edge-1").await?;
    assert_ne!(
        new.labels().get("plenum.dev/template-hash"),
        old.get("plenum.dev/template-hash")
    );
    stage
        .wait_ready("MediaWorkerPool", NAMESPACE, "edge", "WorkersReady")
        .await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_buffer_grows_with_its_meetings() -> Result<(), Failure> {
    let mut stage = Stage::new().await?;
    stage.start_controller().await?;
    let buffer =
        json!({ "buffer": { "minFreeSlots": 1, "min": 1, "max": 2 }, "capacity": { "meetings": 2 } });
    pool(&stage, buffer).await?;
    wait_names(&stage, &["edge-0"]).await?;
    stage.bring_up("edge-0").await?;
    let wish = json!({ "workerPoolRef": { "name": "edge" } });
    stage.plenum("Meeting", NAMESPACE, "one", wish.clone()).await?;
    stage.wait_ready("Meeting", NAMESPACE, "one", "Idle").await?;
    wait_names(&stage, &["edge-0"]).await?;
    stage.plenum("Meeting", NAMESPACE, "two", wish).await?;
    stage.wait_ready("Meeting", NAMESPACE, "two", "Idle").await?;
    wait_names(&stage, &["edge-0", "edge-1"]).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_controller_that_dies_is_replaced_and_nothing_else_happens() -> Result<(), Failure> {
    let mut stage = Stage::new().await?;
    stage.start_controller().await?;
    pool(&stage, json!({ "replicas": 2 })).await?;
    stage.bring_up("edge-0").await?;
    stage.bring_up("edge-1").await?;
    stage
        .plenum(
            "Meeting",
            NAMESPACE,
            "daily",
            json!({ "workerPoolRef": { "name": "edge" } }),
        )
        .await?;
    stage.wait_ready("Meeting", NAMESPACE, "daily", "Idle").await?;
    stage
        .wait_ready("MediaWorkerPool", NAMESPACE, "edge", "WorkersReady")
        .await?;
    tokio::time::sleep(Duration::from_secs(2)).await;

    // A second replica waits; the first one dies without a word.
    let client = stage.server.client("controller").await?;
    let second = tokio::spawn(controller::run_with(
        client,
        arguments("controller-2", &[]),
        std::future::pending(),
    ));
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(names(&stage).await.len(), 2);
    let before = stage.server.writes().len();
    let died = Instant::now();
    stage.kill_controller();
    let leases = plenum_tests::dynamic(&stage.admin, "coordination.k8s.io/v1", "Lease", Some(NAMESPACE));
    let mut holder = Value::Null;
    while holder != json!("controller-2") {
        assert!(died.elapsed() < Duration::from_secs(20), "no new leader");
        tokio::time::sleep(Duration::from_millis(200)).await;
        holder =
            serde_json::to_value(leases.get("plenum-controller").await?)?["spec"]["holderIdentity"].clone();
    }
    println!("a new leader after {:?}", died.elapsed());
    tokio::time::sleep(Duration::from_secs(5)).await;
    let writes = stage.server.writes();
    let loud: Vec<_> = writes[before..]
        .iter()
        .filter(|write| write.resource != "leases")
        .collect();
    assert!(loud.is_empty(), "a change of leaders is no change: {loud:?}");
    assert_eq!(names(&stage).await.len(), 2);
    let releases = |order: &Order| matches!(order, Order::Release(..) | Order::Drain(_));
    assert!(
        !stage
            .workers
            .values()
            .any(|worker| worker.orders().iter().any(releases))
    );

    // And it acts.
    pool(&stage, json!({ "replicas": 3 })).await?;
    wait_names(&stage, &["edge-0", "edge-1", "edge-2"]).await?;
    second.abort();
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_is_refused_is_said() -> Result<(), Failure> {
    let mut stage = Stage::new().await?;
    let enforce = json!({ "pod-security.kubernetes.io/enforce": "restricted" });
    let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": NAMESPACE, "labels": enforce } });
    stage.apply(None, namespace).await?;
    stage.start_controller().await?;
    pool(
        &stage,
        json!({ "replicas": 1, "exposure": { "type": "HostPort" } }),
    )
    .await?;
    let object = stage
        .wait_ready("MediaWorkerPool", NAMESPACE, "edge", "WorkersRefused")
        .await?;
    let message = plenum_tests::condition(&object, "Ready").map(|ready| ready["message"].to_string());
    assert!(
        message
            .as_deref()
            .is_some_and(|message| message.contains("hostPort")),
        "{message:?}"
    );
    // The same namespace takes every pod that needs no port of the node.
    pool(&stage, json!({ "replicas": 1 })).await?;
    wait_names(&stage, &["edge-0"]).await?;
    Ok(())
}
