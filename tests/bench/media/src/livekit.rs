//! LiveKit's protocol, v1: one peer connection per client, offers by the client.
//!
//! Owns the messages of a joining client and its sections. Stock clients offer three sections per kind to
//! receive on, and so do these; they have no data channels.

use std::collections::HashSet;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use futures::{SinkExt, StreamExt};
use livekit_protocol as lk;
use lk::signal_request::Message as Request;
use lk::signal_response::Message as Response;
use plenum_token::{Claims, Role};
use prost::Message as _;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use crate::description::{self, Section};
use crate::error::BenchError;
use crate::front::{Front, Guest, Part, Seat, Sending};
use crate::link::{Link, Order};

/// Sections a stock client offers per kind before it knows of any track.
const PLACEHOLDERS: usize = 3;
/// The protocol version that stock clients of today speak.
const PROTOCOL: i32 = 16;
/// For the whole of a join.
const PATIENCE: Duration = Duration::from_secs(20);
const TRACK: &str = "bench-video";
const TOKEN_SECONDS: u64 = 24 * 60 * 60;
/// Where the server names no interval.
const PING: Duration = Duration::from_secs(10);

/// A server that speaks it.
#[derive(Debug, Clone)]
pub(crate) struct LiveKit {
    /// `ws://host:port`
    pub(crate) url: String,
    pub(crate) key: String,
    pub(crate) secret: String,
}

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// How far a client has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    Joining,
    Negotiated,
}

impl LiveKit {
    fn token(&self, guest: &Guest) -> Result<String, BenchError> {
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs();
        let role = match guest.part {
            Part::Publisher { .. } | Part::Member(_) => Role::Participant,
            Part::Subscriber => Role::Viewer,
        };
        let claims = Claims::for_participant(&guest.identity, &guest.room, role, now, TOKEN_SECONDS);
        Ok(plenum_token::sign(&claims, &self.key, &self.secret)?)
    }

    fn address(&self, guest: &Guest, offer: String) -> Result<String, BenchError> {
        let join = lk::JoinRequest {
            client_info: Some(lk::ClientInfo {
                sdk: lk::client_info::Sdk::Rust as i32,
                protocol: PROTOCOL,
                ..Default::default()
            }),
            connection_settings: Some(lk::ConnectionSettings {
                auto_subscribe: true,
                ..Default::default()
            }),
            publisher_offer: Some(lk::SessionDescription {
                r#type: "offer".to_owned(),
                sdp: offer,
                id: 1,
                ..Default::default()
            }),
            ..Default::default()
        };
        let wrapped = lk::WrappedJoinRequest {
            join_request: join.encode_to_vec(),
            ..Default::default()
        };
        Ok(format!(
            "{}/rtc/v1?access_token={}&join_request={}",
            self.url,
            self.token(guest)?,
            URL_SAFE.encode(wrapped.encode_to_vec())
        ))
    }
}

fn placeholders() -> Vec<Section> {
    let mut sections = vec![Section::ReceiveAudio; PLACEHOLDERS];
    sections.resize(2 * PLACEHOLDERS, Section::ReceiveVideo);
    sections
}

#[async_trait::async_trait]
impl Front for LiveKit {
    fn publisher_mid(&self) -> String {
        placeholders().len().to_string()
    }

    async fn enter(&self, guest: Guest, link: Link) -> Result<Seat, BenchError> {
        let end = Instant::now() + PATIENCE;
        let sections = placeholders();
        let address = self.address(&guest, description::offer(&link.local, 1, &sections))?;
        let identity = guest.identity.clone();
        let timed_out = |what| BenchError::TimedOut {
            identity: identity.clone(),
            what,
        };
        let (socket, _) = timeout_at(end, tokio_tungstenite::connect_async(address))
            .await
            .map_err(|_| timed_out("its WebSocket"))?
            .map_err(|e| socket_error(&identity)(e))?;
        let mut connected = link.connected.clone();
        let (report, mut progress) = watch::channel(Progress::Joining);
        let client = Client {
            socket,
            guest,
            link,
            sections,
            after: Vec::new(),
            offers: 1,
            unanswered: true,
            offer_again: false,
            small: HashSet::new(),
            report,
        };
        let mut task = tokio::spawn(client.run());
        let negotiated = async {
            let joined = progress.wait_for(|p| *p == Progress::Negotiated).await.is_ok();
            let connected = connected.wait_for(|c| *c).await.is_ok();
            joined && connected
        };
        let done = tokio::select! {
            done = timeout_at(end, negotiated) => done.unwrap_or(false),
            ended = &mut task => match ended {
                Ok(Err(error)) => return Err(error),
                _ => false,
            },
        };
        if !done {
            let joined = *progress.borrow() == Progress::Negotiated;
            task.abort();
            return Err(timed_out(if joined { "its transport" } else { "its answer" }));
        }
        // An error from now on shows as packets that are missing.
        Ok(Seat::new(tokio::spawn(async move {
            let _abort = AbortOnDrop(task.abort_handle());
            if let Ok(Err(error)) = task.await {
                crate::note(&error.to_string());
            }
        })))
    }
}

struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn socket_error(identity: &str) -> impl FnOnce(tungstenite::Error) -> BenchError + '_ {
    move |source| BenchError::Socket {
        identity: identity.to_owned(),
        source: Box::new(source),
    }
}

struct Client {
    socket: Socket,
    guest: Guest,
    link: Link,
    sections: Vec<Section>,
    /// Sections that follow our own, which stands where its packets say.
    after: Vec<Section>,
    offers: u32,
    unanswered: bool,
    offer_again: bool,
    /// Tracks of which a small picture was asked for.
    small: HashSet<String>,
    report: watch::Sender<Progress>,
}

/// The track as it is announced; `None` for who sends none.
fn announcement(part: &Part) -> Option<lk::AddTrackRequest> {
    let track = lk::AddTrackRequest {
        cid: TRACK.to_owned(),
        name: TRACK.to_owned(),
        ..Default::default()
    };
    let video = |layers| lk::AddTrackRequest {
        r#type: lk::TrackType::Video as i32,
        source: lk::TrackSource::Camera as i32,
        width: 1280,
        height: 720,
        layers,
        ..track.clone()
    };
    match part {
        Part::Subscriber => None,
        Part::Publisher { .. } => Some(video(Vec::new())),
        Part::Member(Sending::Camera) => {
            let layer = |quality, shift: u32, bitrate| lk::VideoLayer {
                quality: quality as i32,
                width: 1280 >> shift,
                height: 720 >> shift,
                bitrate,
                ..Default::default()
            };
            Some(video(vec![
                layer(lk::VideoQuality::Low, 2, 170_000),
                layer(lk::VideoQuality::Medium, 1, 500_000),
                layer(lk::VideoQuality::High, 0, 1_700_000),
            ]))
        }
        Part::Member(Sending::Voice { .. }) => Some(lk::AddTrackRequest {
            r#type: lk::TrackType::Audio as i32,
            source: lk::TrackSource::Microphone as i32,
            disable_red: true,
            ..track
        }),
    }
}

impl Client {
    async fn run(mut self) -> Result<(), BenchError> {
        let mut ping = interval(PING);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                message = self.socket.next() => {
                    let bytes = match message {
                        Some(Ok(Message::Binary(bytes))) => bytes,
                        Some(Ok(Message::Close(_))) | None => return Err(self.turned_away("the server closed")),
                        Some(Ok(_)) => continue,
                        Some(Err(e)) => return Err(socket_error(&self.guest.identity)(e)),
                    };
                    let response = lk::SignalResponse::decode(bytes)
                        .map_err(|_| self.turned_away("a message that is none"))?;
                    if let Some(message) = response.message {
                        if let Response::Join(join) = &message && join.ping_interval > 0 {
                            ping = interval(Duration::from_secs(join.ping_interval.unsigned_abs().into()));
                        }
                        self.response(message).await?;
                    }
                }
                _ = ping.tick() => self.send(Request::PingReq(lk::Ping::default())).await?,
            }
        }
    }

    fn turned_away(&self, reason: &str) -> BenchError {
        BenchError::TurnedAway {
            identity: self.guest.identity.clone(),
            reason: reason.to_owned(),
        }
    }

    async fn send(&mut self, message: Request) -> Result<(), BenchError> {
        let request = lk::SignalRequest {
            message: Some(message),
        };
        self.socket
            .send(Message::binary(request.encode_to_vec()))
            .await
            .map_err(|e| socket_error(&self.guest.identity)(e))
    }

    async fn offer(&mut self) -> Result<(), BenchError> {
        if self.unanswered {
            self.offer_again = true;
            return Ok(());
        }
        self.offers += 1;
        self.unanswered = true;
        let sdp = description::offer(&self.link.local, self.offers, &self.sections);
        self.send(Request::Offer(lk::SessionDescription {
            r#type: "offer".to_owned(),
            sdp,
            id: self.offers,
            ..Default::default()
        }))
        .await
    }

    async fn response(&mut self, message: Response) -> Result<(), BenchError> {
        match message {
            Response::Join(join) => {
                if let Some(track) = announcement(&self.guest.part) {
                    self.send(Request::AddTrack(track)).await?;
                }
                self.others(&join.other_participants).await
            }
            Response::Update(update) => self.others(&update.participants).await,
            Response::TrackPublished(_) => {
                let track = TRACK.to_owned();
                self.sections.push(match self.guest.part {
                    Part::Publisher { ssrc } => Section::SendVideo { track, ssrc },
                    Part::Member(Sending::Voice { ssrc }) => Section::SendAudio { track, ssrc },
                    Part::Member(Sending::Camera) => Section::SendSimulcast { track },
                    Part::Subscriber => return Ok(()),
                });
                self.sections.append(&mut self.after);
                self.offer().await
            }
            Response::MediaSectionsRequirement(needed) => {
                let more = [
                    (needed.num_audios, Section::ReceiveAudio),
                    (needed.num_videos, Section::ReceiveVideo),
                ];
                let first =
                    self.guest.part != Part::Subscriber && self.sections.len() == placeholders().len();
                let sections = if first {
                    &mut self.after
                } else {
                    &mut self.sections
                };
                for (count, section) in more {
                    // More than anybody has tracks is nonsense.
                    let count = count.min(64) as usize;
                    sections.extend(std::iter::repeat_n(section, count));
                }
                if first { Ok(()) } else { self.offer().await }
            }
            Response::Answer(answer) => self.answer(&answer).await,
            Response::Trickle(trickle) => {
                let init: Option<serde_json::Value> = serde_json::from_str(&trickle.candidate_init).ok();
                let line = init.as_ref().and_then(|v| v.get("candidate")?.as_str());
                if let Some(address) = line.and_then(description::candidate) {
                    self.link.order(Order::Trickled(address));
                }
                Ok(())
            }
            Response::Leave(leave) => Err(self.turned_away(&format!("Leave: {:?}", leave.reason()))),
            _ => Ok(()),
        }
    }

    /// A small picture of everybody is enough for a member with a camera.
    async fn others(&mut self, participants: &[lk::ParticipantInfo]) -> Result<(), BenchError> {
        if self.guest.part != Part::Member(Sending::Camera) {
            return Ok(());
        }
        let others = participants.iter().filter(|p| p.identity != self.guest.identity);
        let fresh: Vec<String> = others
            .flat_map(|p| &p.tracks)
            .map(|t| t.sid.clone())
            .filter(|sid| self.small.insert(sid.clone()))
            .collect();
        if fresh.is_empty() {
            return Ok(());
        }
        self.send(Request::TrackSetting(lk::UpdateTrackSettings {
            track_sids: fresh,
            quality: lk::VideoQuality::Low as i32,
            ..Default::default()
        }))
        .await
    }

    async fn answer(&mut self, answer: &lk::SessionDescription) -> Result<(), BenchError> {
        let remote = description::read(&answer.sdp).map_err(|what| BenchError::Answer {
            identity: self.guest.identity.clone(),
            what,
        })?;
        self.unanswered = false;
        let negotiated = match self.guest.part {
            Part::Publisher { .. } | Part::Member(_) => self
                .sections
                .iter()
                .any(|s| !matches!(s, Section::ReceiveAudio | Section::ReceiveVideo)),
            Part::Subscriber => remote.videos > 0,
        };
        if !self.link.order(Order::Answered(remote)) {
            return Err(BenchError::GeneratorEnded);
        }
        if std::mem::take(&mut self.offer_again) {
            return self.offer().await;
        }
        if negotiated {
            let _ = self.report.send(Progress::Negotiated);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_carries_token_and_offer() {
        let front = LiveKit {
            url: "ws://127.0.0.1:1".to_owned(),
            key: "devkey".to_owned(),
            secret: "devsecret-devsecret-devsecret-0000".to_owned(),
        };
        let guest = Guest {
            room: "bench".to_owned(),
            identity: "someone".to_owned(),
            part: Part::Subscriber,
        };
        let address = front.address(&guest, "v=0".to_owned()).unwrap();
        let (_, query) = address.split_once('?').unwrap();
        let (token, join) = query.split_once('&').unwrap();
        let token = plenum_token::peek(token.strip_prefix("access_token=").unwrap()).unwrap();
        assert_eq!(token.room, "bench");
        let join = URL_SAFE
            .decode(join.strip_prefix("join_request=").unwrap())
            .unwrap();
        let wrapped = lk::WrappedJoinRequest::decode(&join[..]).unwrap();
        let join = lk::JoinRequest::decode(&wrapped.join_request[..]).unwrap();
        assert_eq!(join.publisher_offer.unwrap().sdp, "v=0");
        assert!(join.connection_settings.unwrap().auto_subscribe);
    }

    #[test]
    fn the_publishers_section_follows_the_placeholders() {
        assert_eq!(placeholders().len(), 6);
    }
}
