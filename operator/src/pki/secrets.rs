//! Where certificates and keys live: Secrets in the operator's and the workers' namespaces.
//!
//! Owns their names and the guarded writes. Invariants: what somebody else created is used, never
//! overwritten ([`ensure_keys`], [`load_authority`]: create, and on a conflict read); leaves are
//! the operator's own and replaced when due or when signed by another authority.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ApiResource, DynamicObject, ObjectMeta, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use kube::{Api, Client, ResourceExt as _};
use ring::rand::{SecureRandom as _, SystemRandom};
use serde_json::json;

use super::{Authority, GATEWAY, Leaf, PkiError, WORKER};

/// When a leaf must be replaced (RFC 3339).
const RENEW_AT: &str = "plenum.dev/renew-at";
/// Which authority signed it: first 16 hex digits of the SHA-256 of its certificate.
const SIGNED_BY: &str = "plenum.dev/signed-by";
/// Field manager of the leaves.
const MANAGER: &str = "plenum-pki";

/// Names of the operator's own Secrets.
#[derive(Debug, Clone)]
pub struct Names {
    /// The authority.
    pub ca: String,
    /// The gateway's certificates.
    pub gateway: String,
    /// The API key and secret that sign tokens.
    pub keys: String,
}

impl Default for Names {
    fn default() -> Self {
        Self {
            ca: "plenum-ca".into(),
            gateway: "plenum-gateway-tls".into(),
            keys: "plenum-keys".into(),
        }
    }
}

/// The authority, made if there is none.
///
/// # Errors
/// When the API server refuses, or the Secret holds something else.
pub async fn load_authority(api: &Api<Secret>, name: &str, now: Timestamp) -> Result<Authority, PkiError> {
    let secret = match api.get_opt(name).await? {
        Some(secret) => secret,
        None => {
            let (certificate, key) = Authority::generate(now)?;
            let data = [("tls.crt", certificate), ("tls.key", key)];
            create_or_get(api, &secret_of(name, "kubernetes.io/tls", data, "ca")).await?
        }
    };
    Authority::load(&text(&secret, "tls.crt")?, &text(&secret, "tls.key")?)
}

/// The API key and secret that sign tokens, made if there are none.
///
/// # Errors
/// When the API server refuses.
pub async fn ensure_keys(api: &Api<Secret>, name: &str) -> Result<(), PkiError> {
    if api.get_opt(name).await?.is_some() {
        return Ok(());
    }
    let data = [
        ("apiKey", format!("API{}", random_hex(8)?)),
        ("apiSecret", random_hex(32)?),
    ];
    create_or_get(api, &secret_of(name, "Opaque", data, "keys")).await?;
    Ok(())
}

/// The gateway's certificates: towards workers (client), and of the live API (server).
///
/// # Errors
/// When the API server refuses.
pub async fn ensure_gateway(
    api: &Api<Secret>,
    name: &str,
    service: &str,
    authority: &Authority,
    now: Timestamp,
) -> Result<Timestamp, PkiError> {
    if let Some(due) = still_good(api, name, authority, now).await? {
        return Ok(due);
    }
    let namespace = api.namespace().unwrap_or("default");
    let client = authority.client(GATEWAY, now)?;
    let sans = vec![
        format!("{service}.{namespace}.svc"),
        format!("{service}.{namespace}.svc.cluster.local"),
        service.to_owned(),
    ];
    let live = authority.server(sans, now)?;
    let data = json!({
        "tls.crt": client.certificate, "tls.key": client.key, "ca.crt": authority.certificate(),
        "live-api.crt": live.certificate, "live-api.key": live.key,
    });
    write_leaf(api, name, "gateway-tls", data, client.renew_at, authority, None).await
}

/// A worker's serving certificate, in a Secret of the pod's own.
///
/// # Errors
/// When the API server refuses.
pub async fn ensure_worker(
    api: &Api<Secret>,
    name: &str,
    labels: &BTreeMap<String, String>,
    owner: &OwnerReference,
    authority: &Authority,
    now: Timestamp,
) -> Result<Timestamp, PkiError> {
    if let Some(due) = still_good(api, name, authority, now).await? {
        return Ok(due);
    }
    let Leaf {
        certificate,
        key,
        renew_at,
    } = authority.server(vec![WORKER.to_owned()], now)?;
    let data = json!({ "tls.crt": certificate, "tls.key": key, "ca.crt": authority.certificate() });
    write_leaf(
        api,
        name,
        "worker-tls",
        data,
        renew_at,
        authority,
        Some((labels, owner)),
    )
    .await
}

/// Tells the API server which authority signed the live API's certificate. The chart creates the
/// APIService; where there is none (live API switched off), nothing is done.
///
/// # Errors
/// When the API server refuses for another reason than a missing APIService.
pub async fn patch_live_api(client: Client, name: &str, authority: &Authority) -> Result<bool, PkiError> {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(
        "apiregistration.k8s.io",
        "v1",
        "APIService",
    ));
    let api: Api<DynamicObject> = Api::all_with(client, &resource);
    let Some(current) = api.get_opt(name).await? else {
        return Ok(false);
    };
    let bundle = json!(ByteString(authority.certificate().as_bytes().to_vec()));
    if current.data.pointer("/spec/caBundle") == Some(&bundle) {
        return Ok(false);
    }
    let patch = json!({ "spec": { "caBundle": bundle, "insecureSkipTLSVerify": false } });
    api.patch(name, &PatchParams::default(), &Patch::Merge(patch))
        .await?;
    Ok(true)
}

async fn still_good(
    api: &Api<Secret>,
    name: &str,
    authority: &Authority,
    now: Timestamp,
) -> Result<Option<Timestamp>, PkiError> {
    let Some(secret) = api.get_opt(name).await? else {
        return Ok(None);
    };
    let annotations = secret.annotations();
    let due = annotations
        .get(RENEW_AT)
        .and_then(|at| at.parse::<Timestamp>().ok());
    let ours = annotations
        .get(SIGNED_BY)
        .is_some_and(|by| *by == fingerprint(authority));
    Ok(due.filter(|due| ours && *due > now && text(&secret, "tls.key").is_ok()))
}

async fn write_leaf(
    api: &Api<Secret>,
    name: &str,
    component: &str,
    data: serde_json::Value,
    renew_at: Timestamp,
    authority: &Authority,
    owned: Option<(&BTreeMap<String, String>, &OwnerReference)>,
) -> Result<Timestamp, PkiError> {
    let mut labels = common_labels(component);
    let mut metadata = json!({
        "name": name,
        "annotations": { RENEW_AT: renew_at.to_string(), SIGNED_BY: fingerprint(authority) },
    });
    if let Some((more, owner)) = owned {
        labels.extend(more.clone());
        metadata["ownerReferences"] = json!([owner]);
    }
    metadata["labels"] = json!(labels);
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "kubernetes.io/tls", "stringData": data,
    });
    api.patch(name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(secret))
        .await?;
    Ok(renew_at)
}

async fn create_or_get(api: &Api<Secret>, secret: &Secret) -> Result<Secret, PkiError> {
    match api.create(&PostParams::default(), secret).await {
        Ok(created) => Ok(created),
        // Another replica, or a user, was faster: theirs counts.
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(api.get(&secret.name_any()).await?),
        Err(error) => Err(error.into()),
    }
}

fn secret_of(name: &str, kind: &str, data: [(&str, String); 2], component: &str) -> Secret {
    Secret {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some(common_labels(component)),
            ..ObjectMeta::default()
        },
        type_: Some(kind.to_owned()),
        string_data: Some(
            data.into_iter()
                .map(|(key, value)| (key.to_owned(), value))
                .collect(),
        ),
        ..Secret::default()
    }
}

fn common_labels(component: &str) -> BTreeMap<String, String> {
    [
        ("app.kubernetes.io/name", "plenum"),
        ("app.kubernetes.io/component", component),
        ("app.kubernetes.io/managed-by", "plenum-controller"),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .collect()
}

fn text(secret: &Secret, key: &'static str) -> Result<String, PkiError> {
    let unusable = || PkiError::Unusable {
        secret: secret.name_any(),
        key,
    };
    let bytes = secret
        .data
        .as_ref()
        .and_then(|data| data.get(key))
        .ok_or_else(unusable)?;
    String::from_utf8(bytes.0.clone()).map_err(|_| unusable())
}

fn fingerprint(authority: &Authority) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, authority.certificate().as_bytes());
    hex(&digest.as_ref()[..8])
}

fn random_hex(bytes: usize) -> Result<String, PkiError> {
    let mut buffer = vec![0; bytes];
    SystemRandom::new()
        .fill(&mut buffer)
        .map_err(|_| PkiError::Random)?;
    Ok(hex(&buffer))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
