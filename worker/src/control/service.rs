//! The two services of the contract.
//!
//! Owns the translation of calls to the hub. Invariants: a `Session` stream always ends with a Closed
//! frame where the worker ended it; a stream that breaks leaves its session resumable.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use plenum_errors::{Code, PublicError};
use plenum_worker_api::v1::{self, client_frame, control_server, meeting_up, signal_server, worker_frame};
use prost::Message as _;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::authority::{Caller, require};
use super::convert;
use super::report::{self, Fixed};
use crate::meeting::MeetingsHandle;
use crate::quality::http::Health;
use crate::room::{Identity, RoomName};
use crate::signal::HubHandle;

/// Told to media when the controller has found out.
pub type SetAdvertise = Arc<dyn Fn(Vec<SocketAddr>) + Send + Sync>;

/// Both services.
#[derive(Clone)]
pub struct Services {
    /// The rooms.
    pub hub: HubHandle,
    /// What whole meetings are told.
    pub meetings: MeetingsHandle,
    /// Of reports.
    pub fixed: Fixed,
    /// To media.
    pub set_advertise: SetAdvertise,
    /// Becomes ready with the first Configure.
    pub health: Arc<Health>,
}

#[tonic::async_trait]
impl control_server::Control for Services {
    async fn assign_room(
        &self,
        request: Request<v1::AssignRoomRequest>,
    ) -> Result<Response<v1::AssignRoomResponse>, Status> {
        require(&request, &[Caller::Controller])?;
        let mut spec = request
            .into_inner()
            .room
            .ok_or_else(|| Status::invalid_argument("no room"))?;
        let epoch = spec.epoch;
        let (name, breakouts) = (spec.name.clone(), spec.breakouts.take());
        let spec = convert::spec(spec).map_err(|e| convert::status(&e))?;
        let sid = self.hub.assign(spec).await.map_err(|e| convert::status(&e))?;
        self.meetings.assign(name, epoch, breakouts).await;
        Ok(Response::new(v1::AssignRoomResponse {
            epoch,
            sid: sid.to_string(),
        }))
    }

    async fn release_room(
        &self,
        request: Request<v1::ReleaseRoomRequest>,
    ) -> Result<Response<v1::ReleaseRoomResponse>, Status> {
        require(&request, &[Caller::Controller])?;
        let request = request.into_inner();
        let reason = convert::end_reason(request.reason());
        self.hub
            .release(RoomName::from(request.name.as_str()), request.epoch, reason)
            .await
            .map_err(|e| convert::status(&e))?;
        self.meetings.release(request.name, request.epoch).await;
        Ok(Response::new(v1::ReleaseRoomResponse {}))
    }

    async fn set_draining(
        &self,
        request: Request<v1::SetDrainingRequest>,
    ) -> Result<Response<v1::SetDrainingResponse>, Status> {
        require(&request, &[Caller::Controller])?;
        let draining = request.into_inner().draining;
        self.hub
            .set_draining(draining)
            .await
            .map_err(|e| convert::status(&e))?;
        Ok(Response::new(v1::SetDrainingResponse {}))
    }

    async fn configure(
        &self,
        request: Request<v1::ConfigureRequest>,
    ) -> Result<Response<v1::ConfigureResponse>, Status> {
        require(&request, &[Caller::Controller])?;
        let mut addresses = Vec::new();
        for text in &request.into_inner().advertise {
            let address: SocketAddr = text
                .parse()
                .map_err(|_| Status::invalid_argument(format!("not an address: {text}")))?;
            addresses.push(address);
        }
        if addresses.is_empty() {
            return Err(Status::invalid_argument("no address to advertise"));
        }
        (self.set_advertise)(addresses);
        self.health.set_ready(true);
        Ok(Response::new(v1::ConfigureResponse {
            worker_uid: self.fixed.worker_uid.clone(),
            media_port: u32::from(self.fixed.media_port),
        }))
    }

    type WatchStream = ReceiverStream<Result<v1::Report, Status>>;

    async fn watch(&self, request: Request<v1::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        require(&request, &[Caller::Controller, Caller::Gateway])?;
        let (sender, receiver) = mpsc::channel(4);
        tokio::spawn(report::stream(self.fixed.clone(), self.hub.snapshots(), sender));
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

type Frames = Pin<Box<dyn Stream<Item = Result<v1::WorkerFrame, Status>> + Send>>;

/// A stream of one Closed frame.
fn refused(error: &PublicError) -> Frames {
    let closed = v1::Closed {
        code: error.code.as_str().to_owned(),
        detail: error.detail.clone(),
    };
    let frame = v1::WorkerFrame {
        seq: 1,
        frame: Some(worker_frame::Frame::Closed(closed)),
    };
    Box::pin(tokio_stream::once(Ok(frame)))
}

#[tonic::async_trait]
impl signal_server::Signal for Services {
    type SessionStream = Frames;

    async fn session(
        &self,
        request: Request<Streaming<v1::ClientFrame>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        require(&request, &[Caller::Gateway])?;
        let mut frames = request.into_inner();
        let first = frames.message().await?;
        let Some(v1::ClientFrame {
            seq,
            frame: Some(client_frame::Frame::Start(start)),
        }) = first
        else {
            let error = PublicError::new(Code::RequestMalformed, "the first frame is not Start");
            return Ok(Response::new(refused(&error)));
        };
        let session = match self.hub.enter(*start, seq).await {
            Ok(session) => session,
            Err(error) => return Ok(Response::new(refused(&error))),
        };
        let hub = self.hub.clone();
        let connection = session.connection;
        tokio::spawn(async move {
            while let Ok(Some(frame)) = frames.message().await {
                hub.frame(connection, frame).await;
            }
            hub.disconnected(connection).await;
        });
        Ok(Response::new(Box::pin(tokio_stream::StreamExt::map(
            ReceiverStream::new(session.frames),
            Ok,
        ))))
    }

    async fn check(&self, request: Request<v1::Start>) -> Result<Response<v1::CheckResponse>, Status> {
        require(&request, &[Caller::Gateway])?;
        let response = match self.hub.check(request.into_inner()).await {
            Ok(()) => v1::CheckResponse::default(),
            Err(error) => v1::CheckResponse {
                code: error.code.as_str().to_owned(),
                detail: error.detail,
            },
        };
        Ok(Response::new(response))
    }

    async fn reserve(
        &self,
        request: Request<v1::ReserveRequest>,
    ) -> Result<Response<v1::ReserveResponse>, Status> {
        require(&request, &[Caller::Gateway])?;
        let (room, reserve) = convert::reservation(request.into_inner());
        let response = match self.hub.reserve(room, reserve).await {
            Ok(may_resume) => v1::ReserveResponse {
                may_resume,
                ..Default::default()
            },
            Err(error) => v1::ReserveResponse {
                code: error.code.as_str().to_owned(),
                detail: error.detail,
                ..Default::default()
            },
        };
        Ok(Response::new(response))
    }

    type MeetingStream = Pin<Box<dyn Stream<Item = Result<v1::MeetingDown, Status>> + Send>>;

    async fn meeting(
        &self,
        request: Request<Streaming<v1::MeetingUp>>,
    ) -> Result<Response<Self::MeetingStream>, Status> {
        require(&request, &[Caller::Gateway])?;
        let mut frames = request.into_inner();
        let first = frames.message().await?;
        let Some(v1::MeetingUp {
            frame: Some(meeting_up::Frame::Attach(attach)),
        }) = first
        else {
            let error = PublicError::new(Code::RequestMalformed, "the first frame is not Attach");
            return Err(convert::status(&error));
        };
        let attached = self
            .meetings
            .attach(attach)
            .await
            .map_err(|e| convert::status(&e))?;
        let (meetings, id, mut over) = (self.meetings.clone(), attached.id, attached.over);
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = &mut over => return,
                    frame = frames.message() => match frame {
                        Ok(Some(frame)) => meetings.frame(id, frame).await,
                        Ok(None) | Err(_) => break,
                    },
                }
            }
            meetings.detach(id).await;
        });
        Ok(Response::new(Box::pin(tokio_stream::StreamExt::map(
            ReceiverStream::new(attached.frames),
            Ok,
        ))))
    }

    async fn list_participants(
        &self,
        request: Request<v1::ListParticipantsRequest>,
    ) -> Result<Response<v1::ListParticipantsResponse>, Status> {
        require(&request, &[Caller::Gateway])?;
        let name = request.into_inner().room;
        let room = (!name.is_empty()).then(|| RoomName::from(name));
        let listed = self.hub.list(room).await.map_err(|e| convert::status(&e))?;
        let participants = listed
            .into_iter()
            .map(|entry| v1::ParticipantEntry {
                room: entry.room.to_string(),
                role: entry.role.to_owned(),
                info: entry.info.encode_to_vec(),
                quality: entry.quality.to_owned(),
                speaking: entry.speaking,
                since_ms: entry.since_ms,
            })
            .collect();
        Ok(Response::new(v1::ListParticipantsResponse { participants }))
    }

    async fn remove_participant(
        &self,
        request: Request<v1::RemoveParticipantRequest>,
    ) -> Result<Response<v1::RemoveParticipantResponse>, Status> {
        require(&request, &[Caller::Gateway])?;
        let request = request.into_inner();
        let found = self
            .hub
            .expel(
                RoomName::from(request.room),
                Identity::from(request.identity),
                request.revoke,
            )
            .await
            .map_err(|e| convert::status(&e))?;
        Ok(Response::new(v1::RemoveParticipantResponse { found }))
    }

    async fn moderate(
        &self,
        request: Request<v1::ModerateRequest>,
    ) -> Result<Response<v1::ModerateResponse>, Status> {
        require(&request, &[Caller::Gateway])?;
        let done = match convert::moderation(request.into_inner()) {
            Ok((room, what)) => self.hub.moderate(room, what).await,
            Err(error) => Err(error),
        };
        let response = match done {
            Ok(info) => v1::ModerateResponse {
                info: info.map(|i| i.encode_to_vec()).unwrap_or_default(),
                ..Default::default()
            },
            Err(error) => v1::ModerateResponse {
                code: error.code.as_str().to_owned(),
                detail: error.detail,
                ..Default::default()
            },
        };
        Ok(Response::new(response))
    }
}
