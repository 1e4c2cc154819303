//! The MediaWorkerPool: the pods that carry media.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Affinity, ResourceRequirements, Toleration, TopologySpreadConstraint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::quantity::Duration;

/// What a pool of workers should be.
#[derive(Debug, Clone, Default, PartialEq, CustomResource, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "plenum.dev",
    version = "v1alpha1",
    kind = "MediaWorkerPool",
    namespaced,
    status = "MediaWorkerPoolStatus",
    derive = "PartialEq",
    shortname = "mwp",
    category = "plenum",
    doc = "A pool of media worker pods and how clients reach them.",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    validation = Rule::new("size(self.metadata.name) <= 40")
        .message("the name of a MediaWorkerPool has at most 40 characters, because its pods' names begin with it; choose a shorter one"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Workers", type_ = "integer", json_path = ".status.replicas"),
    printcolumn(name = "Available", type_ = "integer", json_path = ".status.readyReplicas"),
    printcolumn(name = "Free", type_ = "integer", json_path = ".status.freeSlots"),
    printcolumn(name = "Draining", type_ = "integer", json_path = ".status.drainingReplicas"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Default", type_ = "boolean", json_path = ".spec.default", priority = 1),
    printcolumn(name = "Exposure", type_ = "string", json_path = ".spec.exposure.type", priority = 1),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].message", priority = 1)
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.replicas) != has(self.buffer)")
        .message("a pool needs spec.replicas (a fixed number of workers) or spec.buffer (as many as keep slots free), not both; set exactly one")
)]
pub struct MediaWorkerPoolSpec {
    /// How many workers, always.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub replicas: Option<i32>,
    /// As many workers as keep some slots free.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub buffer: Option<Buffer>,
    /// Meetings without a workerPoolRef come here, from every namespace that allowedMeetings allows.
    #[serde(default)]
    pub default: bool,
    /// What the pods ask of their node.
    #[serde(default)]
    pub template: WorkerTemplate,
    /// How much one worker takes.
    #[serde(default)]
    pub capacity: Capacity,
    /// How clients reach the workers' media port.
    #[serde(default)]
    pub exposure: Exposure,
    /// How a worker is emptied before it goes.
    #[serde(default)]
    pub drain: Drain,
    /// How workers of an older template are replaced.
    #[serde(default)]
    pub update_strategy: UpdateStrategy,
    /// Whose meetings may be placed here.
    #[serde(default)]
    pub allowed_meetings: AllowedMeetings,
}

/// As many workers as keep some slots free.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.min <= self.max")
        .message("buffer.min must not be above buffer.max; lower min or raise max")
)]
pub struct Buffer {
    /// Slots for meetings that should be free at any time.
    #[schemars(range(min = 1, max = 100_000))]
    pub min_free_slots: i32,
    /// Fewest workers.
    #[serde(default)]
    #[schemars(range(min = 0, max = 1000))]
    pub min: i32,
    /// Most workers.
    #[schemars(range(min = 1, max = 1000))]
    pub max: i32,
}

/// What the pods ask of their node. The rest of the pod is the operator's.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkerTemplate {
    /// Requests and limits of the worker's container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
    /// Labels that the node must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub node_selector: BTreeMap<String, String>,
    /// Taints that the pods tolerate.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub tolerations: Vec<Toleration>,
    /// Affinity, as in a Pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,
    /// Spread over zones or nodes, as in a Pod. A labelSelector left out means this pool's pods.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub topology_spread_constraints: Vec<TopologySpreadConstraint>,
}

/// How much one worker takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Capacity {
    /// Rooms (main and breakout) on one worker.
    #[serde(default = "Capacity::default_meetings")]
    #[schemars(range(min = 1, max = 10_000))]
    pub meetings: i32,
    /// Participants on one worker.
    #[serde(default = "Capacity::default_participants")]
    #[schemars(range(min = 1, max = 100_000))]
    pub participants: i32,
    /// Megabits per second that one worker sends.
    #[serde(default = "Capacity::default_egress")]
    #[schemars(range(min = 1, max = 400_000))]
    pub egress_mbps: i32,
}

impl Capacity {
    fn default_meetings() -> i32 {
        100
    }
    fn default_participants() -> i32 {
        1000
    }
    fn default_egress() -> i32 {
        10_000
    }
}

impl Default for Capacity {
    fn default() -> Self {
        Self {
            meetings: Self::default_meetings(),
            participants: Self::default_participants(),
            egress_mbps: Self::default_egress(),
        }
    }
}

/// How clients reach the workers' media port (UDP, and TCP with the same number).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.mediaPort) || self.type in ['HostPort', 'HostNetwork']")
        .message("exposure.mediaPort is the port on the node for the types HostPort and HostNetwork; remove it for the others"),
    validation = Rule::new("!has(self.serviceAnnotations) || self.type in ['NodePort', 'LoadBalancer', 'ClusterIP']")
        .message("exposure.serviceAnnotations needs a type with a Service (NodePort, LoadBalancer or ClusterIP); remove them or change the type")
)]
pub struct Exposure {
    /// How packets come in.
    #[serde(rename = "type", default)]
    pub exposure_type: ExposureType,
    /// The port on the node, for HostPort and HostNetwork: one worker per node. Left out: 7882.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65_535))]
    pub media_port: Option<i32>,
    /// Annotations of the per-worker Services, for cloud load balancers.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub service_annotations: BTreeMap<String, String>,
    /// Which address clients are told.
    #[serde(default)]
    pub advertise: Advertise,
}

/// How packets come in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ExposureType {
    /// A NodePort Service per worker: many workers per node, no load balancer.
    #[default]
    NodePort,
    /// A LoadBalancer Service per worker.
    LoadBalancer,
    /// A port of the node, through the container runtime.
    HostPort,
    /// The node's own network.
    HostNetwork,
    /// A ClusterIP Service per worker: clients inside the cluster, or a TURN server before it.
    ClusterIP,
}

/// Which address clients are told.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Advertise {
    /// Addresses instead of the node's or load balancer's, such as a NAT's public side. The port
    /// stays the exposure's own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 8),
        inner(length(min = 2, max = 45), regex(pattern = "^[0-9a-fA-F:.]+$")),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub addresses: Vec<String>,
    /// Which of the node's addresses, where the node's is used.
    #[serde(default)]
    pub node_address: NodeAddressKind,
}

/// Which of a node's addresses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum NodeAddressKind {
    /// The address that the pod's status.hostIP names.
    #[default]
    InternalIP,
    /// The node's ExternalIP.
    ExternalIP,
}

/// How a worker is emptied before it goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Drain {
    /// Move meetings off, or wait for their end.
    #[serde(default)]
    pub mode: DrainMode,
    /// When the worker goes all the same.
    #[serde(default = "Drain::default_timeout")]
    pub timeout: Duration,
}

impl Drain {
    fn default_timeout() -> Duration {
        Duration::from_secs(600)
    }
}

impl Default for Drain {
    fn default() -> Self {
        Self {
            mode: DrainMode::default(),
            timeout: Self::default_timeout(),
        }
    }
}

/// Move meetings off, or wait for their end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DrainMode {
    /// Meetings are moved to other workers.
    #[default]
    Migrate,
    /// Meetings end by themselves.
    Wait,
}

/// How workers of an older template are replaced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.maxSurge + self.maxUnavailable > 0")
        .message("updateStrategy.maxSurge and maxUnavailable cannot both be 0, or nothing could be replaced; set one of them to 1 or more")
)]
pub struct UpdateStrategy {
    /// Workers above the wanted number while replacing.
    #[serde(default = "UpdateStrategy::default_surge")]
    #[schemars(range(min = 0, max = 1000))]
    pub max_surge: i32,
    /// Workers below the wanted number while replacing.
    #[serde(default)]
    #[schemars(range(min = 0, max = 1000))]
    pub max_unavailable: i32,
}

impl UpdateStrategy {
    fn default_surge() -> i32 {
        1
    }
}

impl Default for UpdateStrategy {
    fn default() -> Self {
        Self {
            max_surge: Self::default_surge(),
            max_unavailable: 0,
        }
    }
}

/// Whose meetings may be placed here.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("(self.namespaces == 'Selector') == has(self.selector)")
        .message("allowedMeetings.selector goes with namespaces: Selector and only with it; add the selector, or remove it")
)]
pub struct AllowedMeetings {
    /// From which namespaces.
    #[serde(default)]
    pub namespaces: AllowedNamespaces,
    /// Labels of the namespaces, for `Selector`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<LabelSelector>,
}

/// From which namespaces meetings may come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AllowedNamespaces {
    /// The pool's own.
    #[default]
    Same,
    /// All.
    All,
    /// Those whose labels match `selector`.
    Selector,
}

/// What a pool is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MediaWorkerPoolStatus {
    /// The generation that this status speaks of; -1 until the controller has seen the object.
    #[serde(default = "crate::schema::never_observed")]
    pub observed_generation: i64,
    /// Ready, Draining; Reconciling or Stalled only while abnormal.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 16),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"])
    )]
    pub conditions: Vec<Condition>,
    /// Worker pods there are, draining ones not counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// Of them, ready for meetings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_replicas: Option<i32>,
    /// Of them, of the present template.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updated_replicas: Option<i32>,
    /// Workers being emptied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub draining_replicas: Option<i32>,
    /// Rooms that ready workers can still take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub free_slots: Option<i32>,
    /// Selector of the pool's pods, for the scale subresource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub selector: Option<String>,
}

impl Default for MediaWorkerPoolStatus {
    fn default() -> Self {
        Self {
            observed_generation: crate::schema::never_observed(),
            conditions: Vec::new(),
            replicas: None,
            ready_replicas: None,
            updated_replicas: None,
            draining_replicas: None,
            free_slots: None,
            selector: None,
        }
    }
}
