//! The Pod of a media worker.
//!
//! Owns its whole spec. Invariants: it satisfies the `restricted` Pod Security Standard (but for
//! the host types, which name a host port); it holds no API token; tenants choose resources and
//! placement, nothing else; the same pool gives the same [`template_hash`].

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Capabilities, Container, ContainerPort, EnvVar, EnvVarSource, HTTPGetAction, LocalObjectReference,
    ObjectFieldSelector, Pod, PodSecurityContext, PodSpec, Probe, ResourceFieldSelector, SeccompProfile,
    SecretVolumeSource, SecurityContext, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::{Resource as _, ResourceExt as _};
use plenum_crds::{ExposureType, MediaWorkerPool, POOL_LABEL};
use plenum_worker_api::{CONTROL_PORT, METRICS_PORT};

use super::exposure;

/// Label with the name of the Pod, for its Service.
pub(crate) const WORKER_LABEL: &str = "plenum.dev/worker";
/// Label with the hash of the template that the Pod was made from.
pub(crate) const HASH_LABEL: &str = "plenum.dev/template-hash";
/// Annotation with the time since when the worker drains (RFC 3339).
pub(crate) const DRAINING: &str = "plenum.dev/draining-since";
/// User and group of the worker's process.
const NOBODY: i64 = 65532;
/// Where the worker finds its certificate.
const TLS_DIR: &str = "/etc/plenum/tls";

/// What the operator decides for all workers.
#[derive(Debug, Clone)]
pub(crate) struct Image {
    /// Name of the image.
    pub(crate) name: String,
    /// `IfNotPresent`, `Always` or `Never`.
    pub(crate) pull_policy: String,
    /// Secrets for the registry.
    pub(crate) pull_secrets: Vec<String>,
    /// How many rooms a worker may name in its metrics.
    pub(crate) room_metrics: u32,
}

/// Labels of everything that belongs to a pool.
pub(crate) fn labels(pool: &str) -> BTreeMap<String, String> {
    [
        ("app.kubernetes.io/name", "plenum"),
        ("app.kubernetes.io/component", "worker"),
        ("app.kubernetes.io/instance", pool),
        ("app.kubernetes.io/managed-by", "plenum-controller"),
        ("app.kubernetes.io/part-of", "plenum"),
        (POOL_LABEL, pool),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .collect()
}

/// Labels of one worker.
pub(crate) fn worker_labels(pool: &str, worker: &str) -> BTreeMap<String, String> {
    let mut labels = labels(pool);
    labels.insert(WORKER_LABEL.to_owned(), worker.to_owned());
    labels
}

/// Selects a pool's pods.
pub(crate) fn selector(pool: &str) -> String {
    format!("{POOL_LABEL}={pool}")
}

/// Name of the Secret with a worker's certificate.
pub(crate) fn tls_secret(worker: &str) -> String {
    format!("{worker}-tls")
}

/// The pool as owner.
pub(crate) fn owner(pool: &MediaWorkerPool) -> OwnerReference {
    pool.controller_owner_ref(&()).unwrap_or_default()
}

/// First eight hex digits of the SHA-256 of the Pod's spec: another hash is another template.
pub(crate) fn template_hash(pool: &MediaWorkerPool, image: &Image) -> Result<String, serde_json::Error> {
    // Any fixed name will do: names are no part of the template.
    let text = serde_json::to_vec(&spec(pool, "worker", image))?;
    let digest = ring::digest::digest(&ring::digest::SHA256, &text);
    Ok(digest.as_ref()[..4]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect())
}

/// The Pod of the worker of that name.
pub(crate) fn pod(pool: &MediaWorkerPool, name: &str, image: &Image, hash: &str) -> Pod {
    let mut labels = worker_labels(&pool.name_any(), name);
    labels.insert(HASH_LABEL.to_owned(), hash.to_owned());
    Pod {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: pool.namespace(),
            labels: Some(labels),
            owner_references: Some(vec![owner(pool)]),
            ..ObjectMeta::default()
        },
        spec: Some(spec(pool, name, image)),
        ..Pod::default()
    }
}

fn spec(pool: &MediaWorkerPool, name: &str, image: &Image) -> PodSpec {
    let template = &pool.spec.template;
    let host_network = pool.spec.exposure.exposure_type == ExposureType::HostNetwork;
    let mut spread = template.topology_spread_constraints.clone();
    for constraint in spread
        .iter_mut()
        .filter(|constraint| constraint.label_selector.is_none())
    {
        constraint.label_selector = Some(LabelSelector {
            match_labels: Some([(POOL_LABEL.to_owned(), pool.name_any())].into()),
            ..LabelSelector::default()
        });
    }
    let some = |list: bool| list.then_some(());
    PodSpec {
        containers: vec![container(pool, image)],
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        host_network: some(host_network).map(|()| true),
        dns_policy: some(host_network).map(|()| "ClusterFirstWithHostNet".to_owned()),
        restart_policy: Some("Always".to_owned()),
        // Drain comes before deletion; what is left then is closing sockets.
        termination_grace_period_seconds: Some(30),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(NOBODY),
            run_as_group: Some(NOBODY),
            fs_group: Some(NOBODY),
            seccomp_profile: Some(SeccompProfile {
                type_: "RuntimeDefault".to_owned(),
                localhost_profile: None,
            }),
            ..PodSecurityContext::default()
        }),
        volumes: Some(vec![Volume {
            name: "tls".to_owned(),
            secret: Some(SecretVolumeSource {
                secret_name: Some(tls_secret(name)),
                default_mode: Some(0o440),
                ..SecretVolumeSource::default()
            }),
            ..Volume::default()
        }]),
        image_pull_secrets: Some(
            image
                .pull_secrets
                .iter()
                .map(|name| LocalObjectReference { name: name.clone() })
                .collect::<Vec<_>>(),
        )
        .filter(|all| !all.is_empty()),
        node_selector: Some(template.node_selector.clone()).filter(|all| !all.is_empty()),
        tolerations: Some(template.tolerations.clone()).filter(|all| !all.is_empty()),
        affinity: template.affinity.clone(),
        topology_spread_constraints: Some(spread).filter(|all| !all.is_empty()),
        ..PodSpec::default()
    }
}

fn container(pool: &MediaWorkerPool, image: &Image) -> Container {
    let media = exposure::listen_port(&pool.spec.exposure);
    let host = match pool.spec.exposure.exposure_type {
        ExposureType::HostPort | ExposureType::HostNetwork => {
            Some(i32::from(exposure::node_port(&pool.spec.exposure)))
        }
        _ => None,
    };
    let host_network = pool.spec.exposure.exposure_type == ExposureType::HostNetwork;
    let port = |name: &str, number: u16, protocol: &str, host: Option<i32>| ContainerPort {
        name: Some(name.to_owned()),
        container_port: i32::from(number),
        protocol: Some(protocol.to_owned()),
        // In the node's network every port is a host port: naming it keeps two workers apart.
        host_port: host.or_else(|| host_network.then(|| i32::from(number))),
        ..ContainerPort::default()
    };
    Container {
        name: "worker".to_owned(),
        image: Some(image.name.clone()),
        image_pull_policy: Some(image.pull_policy.clone()),
        args: Some(vec![
            "serve".to_owned(),
            format!("--tls-dir={TLS_DIR}"),
            format!("--media-port={media}"),
            format!("--max-sessions={}", pool.spec.capacity.participants),
            format!("--room-metrics={}", image.room_metrics),
        ]),
        env: Some(vec![
            field("POD_NAME", "metadata.name"),
            field("POD_NAMESPACE", "metadata.namespace"),
            field("PLENUM_WORKER_UID", "metadata.uid"),
            field("POD_IP", "status.podIP"),
            EnvVar {
                name: "PLENUM_POOL".to_owned(),
                value: Some(format!(
                    "{}/{}",
                    pool.namespace().unwrap_or_default(),
                    pool.name_any()
                )),
                ..EnvVar::default()
            },
            // Rounded up; 0 where nothing is asked for, which is one thread.
            EnvVar {
                name: "PLENUM_MEDIA_THREADS".to_owned(),
                value_from: Some(EnvVarSource {
                    resource_field_ref: Some(ResourceFieldSelector {
                        resource: "requests.cpu".to_owned(),
                        divisor: Some(Quantity("1".to_owned())),
                        container_name: None,
                    }),
                    ..EnvVarSource::default()
                }),
                ..EnvVar::default()
            },
        ]),
        ports: Some(vec![
            port("media-udp", media, "UDP", host),
            port("media-tcp", media, "TCP", host),
            port("control", CONTROL_PORT, "TCP", None),
            port("metrics", METRICS_PORT, "TCP", None),
        ]),
        resources: pool.spec.template.resources.clone(),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            run_as_non_root: Some(true),
            capabilities: Some(Capabilities {
                drop: Some(vec!["ALL".to_owned()]),
                add: None,
            }),
            ..SecurityContext::default()
        }),
        // Readiness asks whether it takes rooms, liveness whether the process answers at all.
        readiness_probe: Some(probe("/readyz", 2, 2)),
        liveness_probe: Some(probe("/healthz", 5, 6)),
        volume_mounts: Some(vec![VolumeMount {
            name: "tls".to_owned(),
            mount_path: TLS_DIR.to_owned(),
            read_only: Some(true),
            ..VolumeMount::default()
        }]),
        ..Container::default()
    }
}

fn field(name: &str, path: &str) -> EnvVar {
    EnvVar {
        name: name.to_owned(),
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                field_path: path.to_owned(),
                api_version: None,
            }),
            ..EnvVarSource::default()
        }),
        ..EnvVar::default()
    }
}

fn probe(path: &str, period: i32, failures: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::String("metrics".to_owned()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period),
        timeout_seconds: Some(2),
        failure_threshold: Some(failures),
        ..Probe::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn image() -> Image {
        Image {
            name: "worker:1".into(),
            pull_policy: "IfNotPresent".into(),
            pull_secrets: Vec::new(),
            room_metrics: 7,
        }
    }

    fn pool(spec: Value) -> MediaWorkerPool {
        let mut pool = MediaWorkerPool::new("edge", serde_json::from_value(spec).unwrap());
        pool.metadata.namespace = Some("plenum".into());
        pool.metadata.uid = Some("1234".into());
        pool
    }

    #[test]
    fn it_is_restricted_and_holds_no_api_token() {
        let pool = pool(json!({ "replicas": 1 }));
        let pod = serde_json::to_value(super::pod(&pool, "edge-0", &image(), "abc")).unwrap();
        let at = |pointer: &str| pod.pointer(pointer).cloned().unwrap_or(Value::Null);
        assert_eq!(at("/spec/automountServiceAccountToken"), json!(false));
        assert_eq!(at("/spec/securityContext/runAsUser"), json!(65532));
        assert_eq!(at("/spec/securityContext/runAsNonRoot"), json!(true));
        assert_eq!(
            at("/spec/securityContext/seccompProfile/type"),
            json!("RuntimeDefault")
        );
        let container = "/spec/containers/0/securityContext";
        assert_eq!(at(&format!("{container}/readOnlyRootFilesystem")), json!(true));
        assert_eq!(at(&format!("{container}/allowPrivilegeEscalation")), json!(false));
        assert_eq!(
            at(&format!("{container}/capabilities")),
            json!({ "drop": ["ALL"] })
        );
        assert_eq!(at("/spec/hostNetwork"), Value::Null);
        assert!(!pod.to_string().contains("hostPort"));
        assert_eq!(at("/metadata/ownerReferences/0/kind"), json!("MediaWorkerPool"));
        assert_eq!(at("/metadata/labels/plenum.dev~1pool"), json!("edge"));
        let env = at("/spec/containers/0/env");
        let named = json!({ "name": "PLENUM_POOL", "value": "plenum/edge" });
        assert!(env.as_array().is_some_and(|all| all.contains(&named)), "{env}");
        let cores = json!({
            "name": "PLENUM_MEDIA_THREADS",
            "valueFrom": { "resourceFieldRef": { "resource": "requests.cpu", "divisor": "1" } },
        });
        assert!(env.as_array().is_some_and(|all| all.contains(&cores)), "{env}");
        let args = at("/spec/containers/0/args");
        let capped = json!("--room-metrics=7");
        assert!(args.as_array().is_some_and(|all| all.contains(&capped)), "{args}");
    }

    #[test]
    fn the_hash_follows_the_template_and_nothing_else() {
        let hash = |spec: Value, image: &Image| template_hash(&pool(spec), image).unwrap();
        let base = hash(json!({ "replicas": 1 }), &image());
        assert_eq!(
            base,
            hash(json!({ "replicas": 5, "drain": { "timeout": "1h" } }), &image())
        );
        assert_ne!(
            base,
            hash(
                json!({ "replicas": 1, "template": { "nodeSelector": { "a": "b" } } }),
                &image()
            )
        );
        assert_ne!(
            base,
            hash(
                json!({ "replicas": 1, "exposure": { "type": "HostPort" } }),
                &image()
            )
        );
        assert_ne!(
            base,
            hash(
                json!({ "replicas": 1 }),
                &Image {
                    name: "worker:2".into(),
                    ..image()
                }
            )
        );
    }

    #[test]
    fn host_types_name_their_port() {
        let pool = pool(json!({ "replicas": 1, "exposure": { "type": "HostNetwork", "mediaPort": 40000 } }));
        let pod = serde_json::to_value(super::pod(&pool, "edge-0", &image(), "abc")).unwrap();
        assert_eq!(pod.pointer("/spec/hostNetwork"), Some(&json!(true)));
        assert_eq!(
            pod.pointer("/spec/containers/0/ports/0/hostPort"),
            Some(&json!(40000))
        );
        assert_eq!(
            pod.pointer("/spec/containers/0/ports/2/hostPort"),
            Some(&json!(7881))
        );
    }
}
