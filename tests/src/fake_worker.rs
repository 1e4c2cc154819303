//! A worker at the gRPC layer only: it takes orders, reports what the test says, carries no media.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use plenum_worker_api::v1::control_server::{Control, ControlServer};
use plenum_worker_api::v1::{
    AssignRoomRequest, AssignRoomResponse, Breakouts, ConfigureRequest, ConfigureResponse,
    ReleaseRoomRequest, ReleaseRoomResponse, Report, RoomReport, RoomSpec, SetDrainingRequest,
    SetDrainingResponse, WatchRequest,
};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status};

/// An order that the worker was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// AssignRoom: name and epoch.
    Assign(String, u64),
    /// ReleaseRoom: name, epoch, reason.
    Release(String, u64, i32),
    /// SetDraining.
    Drain(bool),
    /// Configure.
    Configure(Vec<String>),
}

#[derive(Default)]
struct State {
    rooms: BTreeMap<String, RoomReport>,
    specs: BTreeMap<String, RoomSpec>,
    draining: bool,
    orders: Vec<Order>,
}

#[derive(Clone)]
struct Service {
    uid: String,
    state: Arc<Mutex<State>>,
    changed: Arc<watch::Sender<u64>>,
}

/// A running fake; ends with the value.
pub struct FakeWorker {
    service: Service,
    /// Its own, so that its end cuts every connection, as the end of a process does.
    runtime: Option<Runtime>,
}

impl Drop for FakeWorker {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl FakeWorker {
    /// Starts one for the Pod of that UID, with the certificate that the operator made for it.
    ///
    /// # Errors
    /// When the address is taken or the certificate is no good.
    pub fn start(
        address: SocketAddr,
        uid: &str,
        secret: &BTreeMap<String, String>,
    ) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let service = Service {
            uid: uid.to_owned(),
            state: Arc::default(),
            changed: Arc::new(watch::channel(0).0),
        };
        let at = |key: &str| secret.get(key).cloned().unwrap_or_default();
        let tls = ServerTlsConfig::new()
            .identity(Identity::from_pem(at("tls.crt"), at("tls.key")))
            .client_ca_root(Certificate::from_pem(at("ca.crt")));
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let router = Server::builder()
            .tls_config(tls)?
            .add_service(ControlServer::new(service.clone()));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        runtime.spawn(async move {
            if let Ok(listener) = tokio::net::TcpListener::from_std(listener) {
                // Ends with the test; what it says then is of no interest.
                let _ = router.serve_with_incoming(TcpListenerStream::new(listener)).await;
            }
        });
        Ok(Self {
            service,
            runtime: Some(runtime),
        })
    }

    /// Every order so far.
    #[must_use]
    pub fn orders(&self) -> Vec<Order> {
        self.service.lock().orders.clone()
    }

    /// The rooms it holds, with their epochs.
    #[must_use]
    pub fn rooms(&self) -> BTreeMap<String, u64> {
        self.service
            .lock()
            .rooms
            .iter()
            .map(|(name, room)| (name.clone(), room.epoch))
            .collect()
    }

    /// What it was last told of a room that it holds.
    #[must_use]
    pub fn spec(&self, room: &str) -> Option<RoomSpec> {
        self.service.lock().specs.get(room).cloned()
    }

    /// What it was last told of a meeting's breakout rooms.
    #[must_use]
    pub fn breakouts(&self, main_room: &str) -> Option<Breakouts> {
        self.spec(main_room)?.breakouts
    }

    /// Changes what it says of a room.
    pub fn set(&self, room: &str, change: impl FnOnce(&mut RoomReport)) {
        if let Some(report) = self.service.lock().rooms.get_mut(room) {
            change(report);
        }
        self.service.touch();
    }

    /// The process begins anew: it knows nothing.
    pub fn forget(&self) {
        let mut state = self.service.lock();
        state.rooms.clear();
        state.specs.clear();
        drop(state);
        self.service.touch();
    }
}

impl Service {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn touch(&self) {
        self.changed.send_modify(|version| *version += 1);
    }

    fn report(&self, partial: bool) -> Report {
        let state = self.lock();
        Report {
            partial,
            worker_uid: self.uid.clone(),
            draining: state.draining,
            participants: state.rooms.values().map(|room| room.participants).sum(),
            rooms: if partial {
                Vec::new()
            } else {
                state.rooms.values().cloned().collect()
            },
            media_port: 7882,
            ..Report::default()
        }
    }
}

#[tonic::async_trait]
impl Control for Service {
    async fn assign_room(
        &self,
        request: Request<AssignRoomRequest>,
    ) -> Result<Response<AssignRoomResponse>, Status> {
        let spec = request.into_inner().room.unwrap_or_default();
        let mut state = self.lock();
        let held = state.rooms.get(&spec.name).map_or(0, |room| room.epoch);
        if spec.epoch < held {
            return Err(Status::failed_precondition(format!(
                "EpochStale: room is at epoch {held}"
            )));
        }
        state.orders.push(Order::Assign(spec.name.clone(), spec.epoch));
        let room = state
            .rooms
            .entry(spec.name.clone())
            .or_insert_with(|| RoomReport {
                name: spec.name.clone(),
                ..RoomReport::default()
            });
        room.epoch = spec.epoch;
        let epoch = spec.epoch;
        state.specs.insert(spec.name.clone(), spec);
        drop(state);
        self.touch();
        Ok(Response::new(AssignRoomResponse {
            epoch,
            sid: "RM_fake".to_owned(),
        }))
    }

    async fn release_room(
        &self,
        request: Request<ReleaseRoomRequest>,
    ) -> Result<Response<ReleaseRoomResponse>, Status> {
        let request = request.into_inner();
        let mut state = self.lock();
        state.orders.push(Order::Release(
            request.name.clone(),
            request.epoch,
            request.reason,
        ));
        state.rooms.remove(&request.name);
        state.specs.remove(&request.name);
        drop(state);
        self.touch();
        Ok(Response::new(ReleaseRoomResponse {}))
    }

    async fn set_draining(
        &self,
        request: Request<SetDrainingRequest>,
    ) -> Result<Response<SetDrainingResponse>, Status> {
        let draining = request.into_inner().draining;
        let mut state = self.lock();
        state.draining = draining;
        state.orders.push(Order::Drain(draining));
        drop(state);
        self.touch();
        Ok(Response::new(SetDrainingResponse {}))
    }

    async fn configure(
        &self,
        request: Request<ConfigureRequest>,
    ) -> Result<Response<ConfigureResponse>, Status> {
        self.lock()
            .orders
            .push(Order::Configure(request.into_inner().advertise));
        Ok(Response::new(ConfigureResponse {
            worker_uid: self.uid.clone(),
            media_port: 7882,
        }))
    }

    type WatchStream = ReceiverStream<Result<Report, Status>>;

    async fn watch(&self, _: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let (sender, receiver) = tokio::sync::mpsc::channel(4);
        let service = self.clone();
        let mut changed = self.changed.subscribe();
        tokio::spawn(async move {
            let mut partial = false;
            while sender.send(Ok(service.report(partial))).await.is_ok() {
                let beat = tokio::time::timeout(std::time::Duration::from_millis(800), changed.changed());
                partial = beat.await.is_err();
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}
