//! A private API server: etcd and kube-apiserver in a folder of their own.
//!
//! There are no nodes and no kube-controller-manager: Pods stay as the test makes them, and
//! nothing is garbage-collected. The audit log tells every write.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::api::core::v1::Namespace;
use kube::config::{AuthInfo, KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use serde_json::{Value, json};
use tokio::process::{Child, Command};

/// Why there is no API server.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The programs were never built.
    #[error("no kube-apiserver in {0}: run tests/cluster/up once, or set PLENUM_KUBE_BIN")]
    NotBuilt(String),
    /// A file or process could not be made.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// No key could be made.
    #[error(transparent)]
    Key(#[from] rcgen::Error),
    /// The client could not be made.
    #[error(transparent)]
    Client(#[from] kube::Error),
    /// The configuration could not be made.
    #[error(transparent)]
    Config(#[from] kube::config::KubeconfigError),
    /// It did not become ready.
    #[error("the API server did not become ready; its log ends with:\n{0}")]
    NotReady(String),
}

/// One write that the API server did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// `create`, `update`, `patch` or `delete`.
    pub verb: String,
    /// Resource and subresource: `meetings/status`.
    pub resource: String,
    /// Namespace and name.
    pub object: String,
    /// Who.
    pub user: String,
    /// HTTP status.
    pub code: i64,
}

/// A running API server; ends with the value.
pub struct ApiServer {
    folder: PathBuf,
    port: u16,
    _children: [Child; 2],
}

const AUDIT: &str = "apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: Metadata
  verbs: [create, update, patch, delete]
- level: None
";

impl ApiServer {
    /// Starts one.
    ///
    /// # Errors
    /// When the programs are missing or do not start.
    pub async fn start() -> Result<Self, StartError> {
        // The test's own process has no other provider.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let programs = programs()?;
        let folder = std::env::temp_dir().join(format!("plenum-api-{}-{}", std::process::id(), free_port()?));
        fs::create_dir_all(&folder)?;
        let key = rcgen::KeyPair::generate()?;
        fs::write(folder.join("sa.key"), key.serialize_pem())?;
        fs::write(folder.join("sa.pub"), key.public_key_pem())?;
        fs::write(
            folder.join("tokens"),
            "admin,admin,admin,\"system:masters\"\ncontroller,controller,controller,\n",
        )?;
        fs::write(folder.join("audit.yaml"), AUDIT)?;
        let (etcd_port, peer_port, port) = (free_port()?, free_port()?, free_port()?);
        let etcd_url = format!("http://127.0.0.1:{etcd_port}");
        let at = |name: &str| folder.join(name).display().to_string();
        let etcd = spawn(
            &programs.join("etcd"),
            &folder,
            &[
                format!("--data-dir={}", at("etcd")),
                format!("--listen-client-urls={etcd_url}"),
                format!("--advertise-client-urls={etcd_url}"),
                format!("--listen-peer-urls=http://127.0.0.1:{peer_port}"),
                "--unsafe-no-fsync".to_owned(),
            ],
        )?;
        let api = spawn(
            &programs.join("kube-apiserver"),
            &folder,
            &[
                format!("--etcd-servers={etcd_url}"),
                format!("--secure-port={port}"),
                "--bind-address=127.0.0.1".to_owned(),
                format!("--cert-dir={}", at("certs")),
                format!("--token-auth-file={}", at("tokens")),
                format!("--service-account-key-file={}", at("sa.pub")),
                format!("--service-account-signing-key-file={}", at("sa.key")),
                "--service-account-issuer=https://tests".to_owned(),
                "--service-cluster-ip-range=10.0.0.0/20".to_owned(),
                "--authorization-mode=RBAC".to_owned(),
                // Nobody makes default service accounts here.
                "--disable-admission-plugins=ServiceAccount".to_owned(),
                "--endpoint-reconciler-type=none".to_owned(),
                format!("--audit-policy-file={}", at("audit.yaml")),
                format!("--audit-log-path={}", at("audit.log")),
                "--audit-log-mode=blocking".to_owned(),
            ],
        )?;
        let server = Self {
            folder,
            port,
            _children: [etcd, api],
        };
        server.wait().await?;
        Ok(server)
    }

    async fn wait(&self) -> Result<(), StartError> {
        let client = self.admin().await?;
        for _ in 0..300 {
            // The namespace that the server itself makes last.
            let namespaces: Api<Namespace> = Api::all(client.clone());
            if matches!(namespaces.get_opt("default").await, Ok(Some(_))) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let log = fs::read_to_string(self.folder.join("kube-apiserver.log")).unwrap_or_default();
        let tail: Vec<&str> = log.lines().rev().take(10).collect();
        Err(StartError::NotReady(
            tail.into_iter().rev().collect::<Vec<_>>().join("\n"),
        ))
    }

    /// A client that may do everything.
    ///
    /// # Errors
    /// When the client cannot be made.
    pub async fn admin(&self) -> Result<Client, StartError> {
        self.client("admin").await
    }

    /// A client of the user of that token: `admin`, or `controller`, who may do what the test grants.
    ///
    /// # Errors
    /// When the client cannot be made.
    pub async fn client(&self, token: &str) -> Result<Client, StartError> {
        let kubeconfig: Kubeconfig = serde_json::from_value(json!({
            "clusters": [{ "name": "t", "cluster": {
                "server": format!("https://127.0.0.1:{}", self.port), "insecure-skip-tls-verify": true,
            }}],
            "users": [{ "name": "t", "user": {} }],
            "contexts": [{ "name": "t", "context": { "cluster": "t", "user": "t" } }],
            "current-context": "t",
        }))
        .unwrap_or_default();
        let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        config.auth_info = AuthInfo {
            token: Some(token.to_owned().into()),
            ..AuthInfo::default()
        };
        Ok(Client::try_from(config)?)
    }

    /// Every write so far that was not refused, in order.
    #[must_use]
    pub fn writes(&self) -> Vec<Write> {
        let log = fs::read_to_string(self.folder.join("audit.log")).unwrap_or_default();
        log.lines()
            .filter_map(|line| {
                let event: Value = serde_json::from_str(line).ok()?;
                let text = |pointer: &str| {
                    event
                        .pointer(pointer)
                        .and_then(Value::as_str)
                        .unwrap_or_default()
                        .to_owned()
                };
                let subresource = text("/objectRef/subresource");
                let mut resource = text("/objectRef/resource");
                if !subresource.is_empty() {
                    resource = format!("{resource}/{subresource}");
                }
                Some(Write {
                    verb: text("/verb"),
                    resource,
                    object: format!("{}/{}", text("/objectRef/namespace"), text("/objectRef/name")),
                    user: text("/user/username"),
                    code: event
                        .pointer("/responseStatus/code")
                        .and_then(Value::as_i64)
                        .unwrap_or(0),
                })
            })
            .collect()
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        // The children are killed with their handles. What is left of the folder does no harm.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn spawn(program: &Path, folder: &Path, arguments: &[String]) -> std::io::Result<Child> {
    let name = program
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default();
    let log = fs::File::create(folder.join(format!("{name}.log")))?;
    Command::new(program)
        .args(arguments)
        .stdout(log.try_clone()?)
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
}

fn programs() -> Result<PathBuf, StartError> {
    if let Some(folder) = std::env::var_os("PLENUM_KUBE_BIN") {
        return Ok(folder.into());
    }
    let cache = std::env::var_os("XDG_CACHE_HOME").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache"),
        PathBuf::from,
    );
    let folder = cache.join("plenum/bin");
    let newest = fs::read_dir(&folder)
        .into_iter()
        .flatten()
        .filter_map(Result::ok)
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("kubernetes-"))
        .filter(|entry| entry.path().join("kube-apiserver").exists())
        .max_by_key(|entry| entry.metadata().and_then(|data| data.modified()).ok());
    newest
        .map(|entry| entry.path())
        .ok_or_else(|| StartError::NotBuilt(folder.display().to_string()))
}

fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}
