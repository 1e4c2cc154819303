//! A stage for controller tests: an API server with Plenum's definitions, a controller with just
//! the rights that its documentation names, and Pods that the test brings to life.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Debug;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, Pod, Secret};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DynamicObject, ObjectMeta, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use kube::{Api, Client, ResourceExt as _};
use plenum_operator::controller;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::{ApiServer, FakeWorker};

/// Whatever goes wrong ends the test.
pub type Failure = Box<dyn Error + Send + Sync>;

/// The operator's namespace on the stage; workers are in it too.
pub const NAMESPACE: &str = "plenum";

/// Everything together.
pub struct Stage {
    /// The API server.
    pub server: ApiServer,
    /// May do everything.
    pub admin: Client,
    /// Workers brought to life, by the name of their Pod.
    pub workers: BTreeMap<String, FakeWorker>,
    controller: Option<JoinHandle<Result<(), controller::RunError>>>,
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.kill_controller();
    }
}

impl Stage {
    /// Starts the API server with definitions and rights; no controller yet.
    ///
    /// # Errors
    /// When something does not start.
    pub async fn new() -> Result<Self, Failure> {
        let server = ApiServer::start().await?;
        let admin = server.admin().await?;
        install(&admin).await?;
        let mut stage = Self {
            server,
            admin,
            workers: BTreeMap::new(),
            controller: None,
        };
        stage.namespace(NAMESPACE, &[]).await?;
        stage.grant().await?;
        Ok(stage)
    }

    /// A namespace with labels.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn namespace(&mut self, name: &str, labels: &[(&str, &str)]) -> Result<(), Failure> {
        let api: Api<Namespace> = Api::all(self.admin.clone());
        let namespace = Namespace {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                labels: Some(
                    labels
                        .iter()
                        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                        .collect(),
                ),
                ..ObjectMeta::default()
            },
            ..Namespace::default()
        };
        api.create(&PostParams::default(), &namespace).await?;
        Ok(())
    }

    /// Gives the controller the rights that its documentation names, and no others.
    async fn grant(&self) -> Result<(), Failure> {
        let blocks = documented_rights();
        let [cluster, workers, own] = blocks.as_slice() else {
            return Err(format!("three blocks of rights expected, {} found", blocks.len()).into());
        };
        let subject =
            json!([{ "kind": "User", "name": "controller", "apiGroup": "rbac.authorization.k8s.io" }]);
        let binding = |kind: &str, name: &str| {
            json!({
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": format!("{kind}Binding"),
                "metadata": { "name": name }, "subjects": subject,
                "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name },
            })
        };
        let role = |kind: &str, name: &str, rules: &Value| {
            json!({
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind,
                "metadata": { "name": name }, "rules": rules,
            })
        };
        self.apply(None, role("ClusterRole", "controller", cluster))
            .await?;
        self.apply(None, binding("ClusterRole", "controller")).await?;
        for (name, rules) in [("workers", workers), ("own", own)] {
            self.apply(Some(NAMESPACE), role("Role", name, rules)).await?;
            self.apply(Some(NAMESPACE), binding("Role", name)).await?;
        }
        Ok(())
    }

    /// Applies any object as the admin.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn apply(&self, namespace: Option<&str>, object: Value) -> Result<DynamicObject, kube::Error> {
        let text = |pointer: &str| {
            object
                .pointer(pointer)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        let api = dynamic(&self.admin, &text("/apiVersion"), &text("/kind"), namespace);
        api.patch(
            &text("/metadata/name"),
            &PatchParams::apply("test").force(),
            &Patch::Apply(&object),
        )
        .await
    }

    /// Applies a Plenum object.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn plenum(
        &self,
        kind: &str,
        namespace: &str,
        name: &str,
        spec: Value,
    ) -> Result<DynamicObject, kube::Error> {
        let object = json!({
            "apiVersion": "plenum.dev/v1alpha1", "kind": kind, "metadata": { "name": name }, "spec": spec,
        });
        self.apply(Some(namespace), object).await
    }

    /// Starts a controller. Only one at a time.
    ///
    /// # Errors
    /// When the client cannot be made.
    pub async fn start_controller(&mut self) -> Result<(), Failure> {
        self.start_controller_with(&[]).await
    }

    /// Starts a controller with more flags.
    ///
    /// # Errors
    /// When the client cannot be made.
    pub async fn start_controller_with(&mut self, flags: &[&str]) -> Result<(), Failure> {
        let client = self.server.client("controller").await?;
        let args = arguments("controller-1", flags);
        self.controller = Some(tokio::spawn(controller::run_with(
            client,
            args,
            std::future::pending(),
        )));
        Ok(())
    }

    /// Kills the controller: nothing is handed over, nothing is said.
    pub fn kill_controller(&mut self) {
        if let Some(controller) = self.controller.take() {
            controller.abort();
        }
    }

    /// Waits for the Pod, gives it an address of its own and a fake worker, and makes it ready.
    ///
    /// # Errors
    /// When the Pod does not come.
    pub async fn bring_up(&mut self, name: &str) -> Result<(), Failure> {
        let pods: Api<Pod> = Api::namespaced(self.admin.clone(), NAMESPACE);
        let pod = eventually(&format!("pod {name}"), async || {
            pods.get_opt(name).await.ok().flatten()
        })
        .await?;
        let secrets: Api<Secret> = Api::namespaced(self.admin.clone(), NAMESPACE);
        let secret = secrets.get(&format!("{name}-tls")).await?;
        let secret: BTreeMap<String, String> = secret
            .data
            .unwrap_or_default()
            .into_iter()
            .map(|(key, value)| (key, String::from_utf8_lossy(&value.0).into_owned()))
            .collect();
        let ip = IpAddr::V4(next_address());
        let worker = FakeWorker::start(SocketAddr::new(ip, 7881), &pod.uid().unwrap_or_default(), &secret)?;
        self.workers.insert(name.to_owned(), worker);
        let status = json!({ "status": {
            "phase": "Running", "podIP": ip.to_string(), "podIPs": [{ "ip": ip.to_string() }],
            "hostIP": "192.0.2.10",
            "conditions": [{ "type": "Ready", "status": "True" }],
        }});
        pods.patch_status(name, &PatchParams::default(), &Patch::Merge(status))
            .await?;
        Ok(())
    }

    /// The object as it stands.
    pub async fn get(&self, kind: &str, namespace: &str, name: &str) -> Option<Value> {
        let api = dynamic(&self.admin, "plenum.dev/v1alpha1", kind, Some(namespace));
        serde_json::to_value(api.get_opt(name).await.ok()??).ok()
    }

    /// Waits until the Ready condition has that reason; returns the object.
    ///
    /// # Errors
    /// When it does not come; says how the object stands.
    pub async fn wait_ready(
        &self,
        kind: &str,
        namespace: &str,
        name: &str,
        reason: &str,
    ) -> Result<Value, Failure> {
        self.wait_for(
            kind,
            namespace,
            name,
            &format!("Ready with reason {reason}"),
            |object| {
                condition(object, "Ready").is_some_and(|ready| ready["reason"] == reason)
                    && object.pointer("/status/observedGeneration") == object.pointer("/metadata/generation")
            },
        )
        .await
    }

    /// Waits until the object is as it should be; returns it.
    ///
    /// # Errors
    /// When it does not come; says how the object stands.
    pub async fn wait_for(
        &self,
        kind: &str,
        namespace: &str,
        name: &str,
        what: &str,
        good: impl Fn(&Value) -> bool,
    ) -> Result<Value, Failure> {
        let found = eventually(what, async || {
            self.get(kind, namespace, name)
                .await
                .filter(|object| good(object))
        })
        .await;
        match found {
            Ok(object) => Ok(object),
            Err(error) => {
                let stands = self
                    .get(kind, namespace, name)
                    .await
                    .map(|object| object["status"].clone());
                Err(format!("{kind} {namespace}/{name}: {error}; it stands as {stands:#?}").into())
            }
        }
    }
}

/// An address of loopback that no other worker of this machine's tests has.
fn next_address() -> Ipv4Addr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let [.., third, fourth] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, third.max(1), fourth, NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A condition of an object.
#[must_use]
pub fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    object
        .pointer("/status/conditions")?
        .as_array()?
        .iter()
        .find(|condition| condition["type"] == kind)
}

/// Flags of a controller on the stage.
#[must_use]
pub fn arguments(identity: &str, flags: &[&str]) -> controller::Args {
    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        args: controller::Args,
    }
    let fixed = [
        "controller",
        "--namespace",
        NAMESPACE,
        "--metrics-address",
        "127.0.0.1:0",
        "--identity",
        identity,
    ];
    <Cli as clap::Parser>::parse_from(fixed.iter().chain(flags)).args
}

/// Installs the definitions and waits until they are served.
///
/// # Errors
/// When the API server refuses them.
pub async fn install(admin: &Client) -> Result<(), Failure> {
    let api: Api<CustomResourceDefinition> = Api::all(admin.clone());
    for crd in plenum_crds::all()? {
        let name = crd.name_any();
        api.patch(&name, &PatchParams::apply("test").force(), &Patch::Apply(&crd))
            .await?;
        eventually(&format!("definition {name}"), async || {
            let status = api.get(&name).await.ok()?.status?;
            let conditions = status.conditions.unwrap_or_default();
            conditions
                .iter()
                .any(|one| one.type_ == "Established" && one.status == "True")
                .then_some(())
        })
        .await?;
    }
    Ok(())
}

/// An API for objects of any kind.
#[must_use]
pub fn dynamic(client: &Client, version: &str, kind: &str, namespace: Option<&str>) -> Api<DynamicObject> {
    let (group, version) = version.split_once('/').unwrap_or(("", version));
    let resource = kube::api::ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
    match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    }
}

/// Asks again and again, for twenty seconds.
///
/// # Errors
/// When the answer never comes.
pub async fn eventually<T: Debug>(what: &str, ask: impl AsyncFnMut() -> Option<T>) -> Result<T, Failure> {
    eventually_within(20, what, ask).await
}

/// Asks again and again, for so many seconds.
///
/// # Errors
/// When the answer never comes.
pub async fn eventually_within<T: Debug>(
    seconds: u32,
    what: &str,
    mut ask: impl AsyncFnMut() -> Option<T>,
) -> Result<T, Failure> {
    for _ in 0..seconds * 10 {
        if let Some(answer) = ask().await {
            return Ok(answer);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Err(format!("{what} did not come within {seconds} s").into())
}

/// The YAML blocks at the head of the controller: what is documented is what is tried.
fn documented_rights() -> Vec<Value> {
    let source = include_str!("../../operator/src/controller/mod.rs");
    let docs = source
        .lines()
        .map_while(|line| line.strip_prefix("//!"))
        .map(|line| line.strip_prefix(' ').unwrap_or(line));
    let docs: Vec<&str> = docs.collect();
    let text = docs.join("\n");
    text.split("```yaml\n")
        .skip(1)
        .filter_map(|block| serde_yaml::from_str(block.split("```").next()?).ok())
        .collect()
}
