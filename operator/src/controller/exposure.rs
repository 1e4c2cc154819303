//! How clients reach a worker's media port.
//!
//! Owns the per-worker Service and the addresses that the worker tells its clients. Pure but for
//! the Service objects that go in. Invariant: nothing is advertised that does not lead to that one
//! worker.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Pod, Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use plenum_crds::{Exposure, ExposureType, NodeAddressKind};
use plenum_worker_api::MEDIA_PORT;

/// Name of the UDP port, made first: its node port is the number that TCP gets too.
pub(crate) const UDP: &str = "media-udp";
/// Name of the TCP port.
pub(crate) const TCP: &str = "media-tcp";

/// The port on the node, for the types without a Service.
pub(crate) fn node_port(exposure: &Exposure) -> u16 {
    exposure
        .media_port
        .and_then(|port| u16::try_from(port).ok())
        .unwrap_or(MEDIA_PORT)
}

/// The port that the worker itself listens on.
pub(crate) fn listen_port(exposure: &Exposure) -> u16 {
    match exposure.exposure_type {
        ExposureType::HostNetwork => node_port(exposure),
        _ => MEDIA_PORT,
    }
}

/// Type of the per-worker Service, where there is one.
pub(crate) fn service_type(exposure: &Exposure) -> Option<&'static str> {
    match exposure.exposure_type {
        ExposureType::NodePort => Some("NodePort"),
        ExposureType::LoadBalancer => Some("LoadBalancer"),
        ExposureType::ClusterIP => Some("ClusterIP"),
        ExposureType::HostPort | ExposureType::HostNetwork => None,
    }
}

/// The Service of one worker. `tcp` is the node port that UDP got: without it the Service has UDP
/// alone, so that the API server picks a number for it which TCP then takes as well.
pub(crate) fn service(
    name: &str,
    labels: &BTreeMap<String, String>,
    selector: BTreeMap<String, String>,
    owner: &OwnerReference,
    exposure: &Exposure,
    tcp: Option<i32>,
) -> Option<Service> {
    let kind = service_type(exposure)?;
    let port = |name: &str, protocol: &str, node_port: Option<i32>| ServicePort {
        name: Some(name.to_owned()),
        protocol: Some(protocol.to_owned()),
        port: i32::from(MEDIA_PORT),
        target_port: Some(IntOrString::Int(i32::from(MEDIA_PORT))),
        node_port,
        ..ServicePort::default()
    };
    // Without node ports both can be there from the start.
    let node_ports = kind == "NodePort";
    let mut ports = vec![port(UDP, "UDP", tcp.filter(|_| node_ports))];
    if tcp.is_some() || !node_ports {
        ports.push(port(TCP, "TCP", tcp.filter(|_| node_ports)));
    }
    Some(Service {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some(labels.clone()),
            annotations: Some(exposure.service_annotations.clone()).filter(|all| !all.is_empty()),
            owner_references: Some(vec![owner.clone()]),
            ..ObjectMeta::default()
        },
        spec: Some(ServiceSpec {
            type_: Some(kind.to_owned()),
            selector: Some(selector),
            ports: Some(ports),
            // Packets stay on the node they come to, with the client's own address.
            external_traffic_policy: (kind != "ClusterIP").then(|| "Local".to_owned()),
            // Media may arrive while the worker is not ready for *new* rooms.
            publish_not_ready_addresses: Some(true),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    })
}

/// The node port that the Service got for a port of that name.
pub(crate) fn node_port_of(service: &Service, name: &str) -> Option<i32> {
    let ports = service.spec.as_ref()?.ports.as_ref()?;
    ports
        .iter()
        .find(|port| port.name.as_deref() == Some(name))?
        .node_port
        .filter(|port| *port > 0)
}

/// `IP:PORT` of every way to a worker; empty while one is not known yet. `external` are the
/// ExternalIPs of the node, read only where the pool asks for them.
pub(crate) fn advertise(
    exposure: &Exposure,
    pod: &Pod,
    service: Option<&Service>,
    external: &[IpAddr],
) -> Vec<String> {
    let status = pod.status.as_ref();
    let host = status
        .and_then(|status| status.host_ip.as_deref())
        .and_then(|ip| ip.parse().ok());
    let (port, own): (Option<u16>, Vec<IpAddr>) = match exposure.exposure_type {
        ExposureType::NodePort => {
            let port = service
                .and_then(|service| node_port_of(service, UDP))
                .and_then(|port| u16::try_from(port).ok());
            (port, node(exposure, host, external))
        }
        ExposureType::HostPort | ExposureType::HostNetwork => {
            (Some(node_port(exposure)), node(exposure, host, external))
        }
        ExposureType::LoadBalancer => (Some(MEDIA_PORT), service.map(ingress).unwrap_or_default()),
        ExposureType::ClusterIP => {
            let ips = service
                .and_then(|service| service.spec.as_ref())
                .and_then(|spec| spec.cluster_ips.as_ref());
            let ips = ips.map(|ips| ips.iter().filter_map(|ip| ip.parse().ok()).collect());
            (Some(MEDIA_PORT), ips.unwrap_or_default())
        }
    };
    let Some(port) = port else { return Vec::new() };
    let explicit: Vec<IpAddr> = exposure
        .advertise
        .addresses
        .iter()
        .filter_map(|address| address.parse().ok())
        .collect();
    let addresses = if explicit.is_empty() { own } else { explicit };
    addresses
        .into_iter()
        .map(|ip| std::net::SocketAddr::new(ip, port).to_string())
        .collect()
}

fn node(exposure: &Exposure, host: Option<IpAddr>, external: &[IpAddr]) -> Vec<IpAddr> {
    match exposure.advertise.node_address {
        NodeAddressKind::InternalIP => host.into_iter().collect(),
        NodeAddressKind::ExternalIP => external.to_vec(),
    }
}

/// Addresses of a load balancer. One that has only a host name needs `advertise.addresses`.
fn ingress(service: &Service) -> Vec<IpAddr> {
    let status = service
        .status
        .as_ref()
        .and_then(|status| status.load_balancer.as_ref());
    let ingress = status.and_then(|balancer| balancer.ingress.as_ref());
    ingress
        .into_iter()
        .flatten()
        .filter_map(|one| one.ip.as_deref()?.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn exposure(value: serde_json::Value) -> Exposure {
        serde_json::from_value(value).unwrap()
    }

    fn pod() -> Pod {
        serde_json::from_value(json!({ "status": { "hostIP": "10.0.0.7", "podIP": "10.244.0.9" } })).unwrap()
    }

    #[test]
    fn a_node_port_is_advertised_with_the_nodes_address() {
        let service: Service = serde_json::from_value(json!({
            "spec": { "ports": [{ "name": "media-udp", "port": 7882, "nodePort": 31000 }] }
        }))
        .unwrap();
        let internal = exposure(json!({}));
        assert_eq!(
            advertise(&internal, &pod(), Some(&service), &[]),
            ["10.0.0.7:31000"]
        );
        assert!(
            advertise(&internal, &pod(), None, &[]).is_empty(),
            "unknown port: nothing, not a wrong one"
        );
        assert!(advertise(&internal, &Pod::default(), Some(&service), &[]).is_empty());
        let external = exposure(json!({ "advertise": { "nodeAddress": "ExternalIP" } }));
        let address = "2001:db8::1".parse().unwrap();
        assert_eq!(
            advertise(&external, &pod(), Some(&service), &[address]),
            ["[2001:db8::1]:31000"]
        );
        let nat = exposure(json!({ "advertise": { "addresses": ["203.0.113.5"] } }));
        assert_eq!(
            advertise(&nat, &pod(), Some(&service), &[]),
            ["203.0.113.5:31000"]
        );
    }

    #[test]
    fn the_other_types() {
        let host = exposure(json!({ "type": "HostPort", "mediaPort": 40000 }));
        assert_eq!(advertise(&host, &pod(), None, &[]), ["10.0.0.7:40000"]);
        assert_eq!((listen_port(&host), service_type(&host)), (7882, None));
        let network = exposure(json!({ "type": "HostNetwork", "mediaPort": 40000 }));
        assert_eq!(listen_port(&network), 40000);
        let balancer = exposure(json!({ "type": "LoadBalancer" }));
        let service: Service = serde_json::from_value(
            json!({ "status": { "loadBalancer": { "ingress": [{ "ip": "198.51.100.4" }] } } }),
        )
        .unwrap();
        assert_eq!(
            advertise(&balancer, &pod(), Some(&service), &[]),
            ["198.51.100.4:7882"]
        );
        let inside = exposure(json!({ "type": "ClusterIP" }));
        let service: Service =
            serde_json::from_value(json!({ "spec": { "clusterIPs": ["10.96.3.4"] } })).unwrap();
        assert_eq!(
            advertise(&inside, &pod(), Some(&service), &[]),
            ["10.96.3.4:7882"]
        );
    }

    #[test]
    fn udp_gets_its_number_before_tcp() {
        let owner = OwnerReference::default();
        let make = |tcp| {
            service(
                "w",
                &BTreeMap::new(),
                BTreeMap::new(),
                &owner,
                &exposure(json!({})),
                tcp,
            )
            .unwrap()
        };
        let names = |service: &Service| -> Vec<_> {
            let ports = service.spec.as_ref().unwrap().ports.as_ref().unwrap();
            ports
                .iter()
                .map(|port| (port.protocol.clone().unwrap(), port.node_port))
                .collect()
        };
        assert_eq!(names(&make(None)), [("UDP".to_owned(), None)]);
        assert_eq!(
            names(&make(Some(31000))),
            [("UDP".to_owned(), Some(31000)), ("TCP".to_owned(), Some(31000))]
        );
    }
}
