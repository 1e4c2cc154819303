//! A worker as it runs in a pod, but for its media engine, which a script plays.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use k8s_openapi::jiff::Timestamp;
use livekit_protocol as proto;
use plenum_protocol::TOPIC;
use plenum_worker::control::report::Fixed;
use plenum_worker::control::serve::server;
use plenum_worker::control::service::Services;
use plenum_worker::control::tls;
use plenum_worker::meeting::{Meetings, MeetingsHandle};
use plenum_worker::quality::Metrics;
use plenum_worker::quality::http::Health;
use plenum_worker::room::{EndReason, RoomName};
use plenum_worker::session::api::{
    ChannelState, Command, Event, PeerState, Reliability, SectionState, SessionId,
};
use plenum_worker::signal::{Hub, HubConfig, HubHandle};
use plenum_worker_api::v1;
use prost::Message as _;
use proto::data_packet::Value as Packet;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::until;
use crate::pki::{Authority, WORKER};

/// Open calls of one connection.
const CALLS: usize = 500;

/// The worker, and its media as the script sees it.
pub(crate) struct RealWorker {
    hub: HubHandle,
    meetings: MeetingsHandle,
    events: mpsc::UnboundedSender<Event>,
    media: Arc<Mutex<Media>>,
    _directory: Directory,
}

#[derive(Default)]
struct Media {
    /// In the order of opening.
    sessions: Vec<SessionId>,
    told: HashMap<SessionId, Vec<Value>>,
}

/// Removed with the test.
struct Directory(PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl RealWorker {
    pub(super) fn start(listener: tokio::net::TcpListener, authority: &Authority, uid: &str) -> RealWorker {
        let unique = crate::gateway::mint::random_suffix().unwrap();
        let directory = Directory(std::env::temp_dir().join(format!("plenum-gateway-{unique}")));
        std::fs::create_dir_all(&directory.0).unwrap();
        let leaf = authority.server(vec![WORKER.into()], Timestamp::now()).unwrap();
        for (file, text) in [
            ("tls.crt", leaf.certificate.as_str()),
            ("tls.key", leaf.key.as_str()),
            ("ca.crt", authority.certificate()),
        ] {
            std::fs::write(directory.0.join(file), text).unwrap();
        }
        let (commands_in, commands) = mpsc::unbounded_channel::<Command>();
        let (events, events_out) = mpsc::unbounded_channel();
        let metrics = Arc::new(Metrics::new("test", None).unwrap());
        let (meetings, meetings_handle) = Meetings::new(&metrics).unwrap();
        tokio::spawn(meetings.run());
        let (hub, handle) = Hub::new(HubConfig::default(), commands_in, events_out, metrics);
        tokio::spawn(hub.run());
        let services = Services {
            hub: handle.clone(),
            meetings: meetings_handle.clone(),
            fixed: Fixed {
                worker_uid: uid.into(),
                media_port: 7882,
            },
            set_advertise: Arc::new(|_| {}),
            health: Arc::new(Health::default()),
        };
        let (to, incoming) = mpsc::channel(4);
        let config = tls::load(&directory.0).unwrap();
        tokio::spawn(tls::accept(listener, directory.0.clone(), config, to));
        tokio::spawn(server(
            services,
            ReceiverStream::new(incoming),
            CALLS,
            std::future::pending(),
        ));
        let media = Arc::new(Mutex::new(Media::default()));
        tokio::spawn(play(commands, events.clone(), media.clone()));
        RealWorker {
            hub: handle,
            meetings: meetings_handle,
            events,
            media,
            _directory: directory,
        }
    }

    /// As the controller does.
    pub(crate) async fn assign(&self, room: &str, epoch: u64) {
        let spec = v1::RoomSpec {
            name: room.into(),
            epoch,
            meeting: room.split('/').take(2).collect::<Vec<_>>().join("/"),
            ..v1::RoomSpec::default()
        };
        let spec = plenum_worker::control::convert::spec(spec).unwrap();
        self.hub.assign(spec).await.unwrap();
        self.meetings.assign(room.into(), epoch, None).await;
    }

    /// As the controller does.
    pub(crate) async fn close(&self, room: &str, epoch: u64) {
        let room = RoomName::from(room);
        self.hub.release(room, epoch, EndReason::Closed).await.unwrap();
    }

    /// Who is in that room.
    pub(crate) async fn people(&self, room: &str) -> Vec<String> {
        let listed = self
            .hub
            .list(Some(RoomName::from(room)))
            .await
            .unwrap_or_default();
        listed.into_iter().map(|one| one.info.identity).collect()
    }

    /// The session that was opened as number `index`.
    async fn session(&self, index: usize) -> SessionId {
        let opened = || self.media.lock().unwrap().sessions.get(index).copied();
        until("the media session is open", || opened().is_some()).await;
        opened().unwrap()
    }

    /// The client of that session says something on the reserved topic.
    pub(crate) async fn says(&self, index: usize, request: &Value) {
        let packet = proto::DataPacket {
            value: Some(Packet::User(proto::UserPacket {
                topic: Some(TOPIC.into()),
                payload: request.to_string().into_bytes(),
                ..Default::default()
            })),
            ..Default::default()
        };
        let event = Event::Data {
            session: self.session(index).await,
            reliability: Reliability::Reliable,
            payload: packet.encode_to_vec().into(),
        };
        self.events.send(event).unwrap();
    }

    /// Waits until the client of that session was told what `wanted` accepts.
    pub(crate) async fn told(&self, index: usize, wanted: impl Fn(&Value) -> bool) -> Value {
        let session = self.session(index).await;
        let found = || {
            let media = self.media.lock().unwrap();
            media
                .told
                .get(&session)?
                .iter()
                .find(|value| wanted(value))
                .cloned()
        };
        until("the client is told", || found().is_some()).await;
        found().unwrap()
    }
}

fn a_peer_with_a_data_channel() -> PeerState {
    PeerState {
        sections: vec![SectionState {
            mid: "0".into(),
            kind: None,
            publishes: None,
        }],
        sources: Vec::new(),
        channels: vec![ChannelState {
            id: 0,
            reliability: Reliability::Reliable,
        }],
        moves: 0,
    }
}

/// A media engine whose clients' data channels are open at once.
async fn play(
    mut commands: mpsc::UnboundedReceiver<Command>,
    events: mpsc::UnboundedSender<Event>,
    media: Arc<Mutex<Media>>,
) {
    while let Some(command) = commands.recv().await {
        match command {
            Command::Open { session, .. } | Command::Adopt { session, .. } => {
                media.lock().unwrap().sessions.push(session);
                let _ = events.send(Event::DataOpen { session });
            }
            Command::HandOver { session } => {
                let state = Some(Box::new(a_peer_with_a_data_channel()));
                let _ = events.send(Event::HandedOver { session, state });
            }
            Command::SendData {
                sessions, payload, ..
            } => {
                let Ok(packet) = proto::DataPacket::decode(payload) else {
                    continue;
                };
                let Some(Packet::User(user)) = packet.value else {
                    continue;
                };
                if user.topic.as_deref() != Some(TOPIC) {
                    continue;
                }
                if let Ok(value) = serde_json::from_slice::<Value>(&user.payload) {
                    let mut media = media.lock().unwrap();
                    for session in sessions {
                        media.told.entry(session).or_default().push(value.clone());
                    }
                }
            }
            _ => {}
        }
    }
}
