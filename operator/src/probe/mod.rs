//! `plenum-operator probe`: joins a meeting as a client would and checks that media could flow.
//!
//! Owns the chart's `helm test`. It mints a token with the installation's key, opens the signalling
//! socket through the gateway, takes the worker's offer, answers it, and has the worker's media port
//! answer an ICE check; then it leaves. Invariants: it needs no right in Kubernetes; a meeting that
//! is not ready yet is waited for, a refusal of the token is final.

mod sdp;
mod stun;

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use futures::{SinkExt as _, StreamExt as _};
use livekit_protocol as lk;
use plenum_token::{Claims, Role};
use prost::Message as _;
use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{self, Message, http};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

/// Between two attempts to join, and between two ICE checks.
const RETRY: Duration = Duration::from_millis(500);
const CHECK: Duration = Duration::from_millis(200);

/// What the probe is told.
#[derive(Debug, clap::Args)]
pub struct ProbeArgs {
    /// Where the gateway is: http://HOST:PORT.
    #[arg(long, default_value = "http://plenum-gateway:7880")]
    url: String,
    /// The meeting: NAMESPACE/NAME.
    #[arg(long)]
    meeting: String,
    /// API key that signs the token.
    #[arg(long, env = "PLENUM_API_KEY")]
    api_key: String,
    /// Its secret.
    #[arg(long, env = "PLENUM_API_SECRET", hide_env_values = true)]
    api_secret: ApiSecret,
    /// When to give up.
    #[arg(long, default_value_t = 60)]
    timeout_seconds: u64,
}

/// A secret that no `Debug` output shows.
#[derive(Clone)]
struct ApiSecret(String);

impl std::fmt::Debug for ApiSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("...")
    }
}

impl std::str::FromStr for ApiSecret {
    type Err = std::convert::Infallible;
    fn from_str(secret: &str) -> Result<Self, Self::Err> {
        Ok(Self(secret.to_owned()))
    }
}

/// Why the probe failed.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The gateway refused, and will again.
    #[error("the gateway refused the join: {0}")]
    Refused(String),
    /// Nothing came in time.
    #[error("gave up after {seconds} s while waiting for {step}: {last}")]
    TimedOut {
        /// The limit.
        seconds: u64,
        /// What was waited for.
        step: &'static str,
        /// What the last attempt said.
        last: String,
    },
    /// The server said something a client could not use.
    #[error("the server's {0} cannot be used")]
    Unusable(&'static str),
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(String),
    /// The key cannot sign.
    #[error(transparent)]
    Token(#[from] plenum_token::TokenError),
}

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Joins, checks, leaves.
///
/// # Errors
/// When any step fails or the time is over.
pub async fn run(args: ProbeArgs) -> Result<(), ProbeError> {
    let deadline = Instant::now() + Duration::from_secs(args.timeout_seconds);
    let late = |step, last: String| ProbeError::TimedOut {
        seconds: args.timeout_seconds,
        step,
        last,
    };
    let random = |bytes| random_hex(bytes).ok_or(ProbeError::Unusable("source of random numbers"));

    let identity = format!("probe-{}", random(4)?);
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    let claims = Claims::for_participant(
        &identity,
        &args.meeting,
        Role::Viewer,
        now,
        args.timeout_seconds + 60,
    );
    let token = plenum_token::sign(&claims, &args.api_key, &args.api_secret.0)?;

    let begun = Instant::now();
    let mut last = String::new();
    let mut socket = loop {
        match timeout_at(deadline, join(&args.url, &token)).await {
            Ok(Ok(socket)) => break socket,
            Ok(Err(error @ ProbeError::Refused(_))) => return Err(error),
            Ok(Err(error)) => last = error.to_string(),
            Err(_) => return Err(late("the join", last)),
        }
        tracing::info!(reason = last, "not yet; trying again");
        if Instant::now() + RETRY >= deadline {
            return Err(late("the join", last));
        }
        sleep(RETRY).await;
    };
    tracing::info!(meeting = args.meeting, identity, elapsed = ?begun.elapsed(), "joined");

    let offer = timeout_at(deadline, next_offer(&mut socket))
        .await
        .map_err(|_| late("the worker's offer", String::new()))??;
    let mut server = sdp::read(&offer.sdp).ok_or(ProbeError::Unusable("session description"))?;
    let (ufrag, password) = (random(4)?, random(16)?);
    let fingerprint = random(32)?
        .to_uppercase()
        .as_bytes()
        .chunks(2)
        .map(|pair| String::from_utf8_lossy(pair).into_owned())
        .collect::<Vec<_>>()
        .join(":");
    let answer = lk::SessionDescription {
        r#type: "answer".to_owned(),
        sdp: sdp::answer(&offer.sdp, &ufrag, &password, &fingerprint),
        id: offer.id,
        ..lk::SessionDescription::default()
    };
    send(&mut socket, lk::signal_request::Message::Answer(answer)).await?;

    let udp = UdpSocket::bind(
        if server.candidates.iter().all(SocketAddr::is_ipv6) && !server.candidates.is_empty() {
            "[::]:0"
        } else {
            "0.0.0.0:0"
        },
    )
    .await
    .map_err(|error| ProbeError::Broken(error.to_string()))?;
    let answered = timeout_at(deadline, check(&udp, &mut socket, &mut server, &ufrag))
        .await
        .map_err(|_| {
            late(
                "an answer from the media port",
                format!("asked {:?}", server.candidates),
            )
        })??;
    tracing::info!(address = %answered, elapsed = ?begun.elapsed(), "the media port answers");

    let leave = lk::LeaveRequest {
        reason: lk::DisconnectReason::ClientInitiated.into(),
        ..lk::LeaveRequest::default()
    };
    send(&mut socket, lk::signal_request::Message::Leave(leave)).await?;
    // The worker may close first; both are an end.
    let _ = socket.close(None).await;
    Ok(())
}

/// Opens the socket and waits for the greeting.
async fn join(url: &str, token: &str) -> Result<Socket, ProbeError> {
    let base = url.trim_end_matches('/').replacen("http", "ws", 1);
    let mut request = format!("{base}/rtc?protocol=15&sdk=rust&version=2.0.0&auto_subscribe=1")
        .into_client_request()
        .map_err(|_| ProbeError::Refused(format!("{url} is no http:// address")))?;
    let bearer =
        http::HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| ProbeError::Unusable("token"))?;
    request.headers_mut().insert(http::header::AUTHORIZATION, bearer);
    let (mut socket, _) = connect_async(request).await.map_err(refusal)?;
    loop {
        match next(&mut socket).await? {
            lk::signal_response::Message::Join(_) => return Ok(socket),
            lk::signal_response::Message::Leave(leave) => {
                return Err(ProbeError::Broken(format!("told to leave: {:?}", leave.reason())));
            }
            _ => {}
        }
    }
}

/// A refusal for what the token says is final; a meeting or worker that is not there yet is not.
fn refusal(error: tungstenite::Error) -> ProbeError {
    let tungstenite::Error::Http(response) = error else {
        return ProbeError::Broken(error.to_string());
    };
    let body = response
        .body()
        .as_deref()
        .map(String::from_utf8_lossy)
        .unwrap_or_default();
    let said = format!("{} {body}", response.status());
    match response.status() {
        http::StatusCode::UNAUTHORIZED | http::StatusCode::FORBIDDEN | http::StatusCode::BAD_REQUEST => {
            ProbeError::Refused(said)
        }
        _ => ProbeError::Broken(said),
    }
}

async fn next(socket: &mut Socket) -> Result<lk::signal_response::Message, ProbeError> {
    loop {
        match socket.next().await {
            Some(Ok(Message::Binary(bytes))) => {
                let response =
                    lk::SignalResponse::decode(bytes).map_err(|_| ProbeError::Unusable("signal message"))?;
                if let Some(message) = response.message {
                    return Ok(message);
                }
            }
            Some(Ok(Message::Close(frame))) => {
                let why = frame.map(|frame| frame.reason.to_string()).unwrap_or_default();
                return Err(ProbeError::Broken(format!("closed by the server: {why}")));
            }
            Some(Ok(_)) => {}
            Some(Err(error)) => return Err(ProbeError::Broken(error.to_string())),
            None => return Err(ProbeError::Broken("closed by the server".to_owned())),
        }
    }
}

async fn next_offer(socket: &mut Socket) -> Result<lk::SessionDescription, ProbeError> {
    loop {
        if let lk::signal_response::Message::Offer(offer) = next(socket).await? {
            return Ok(offer);
        }
    }
}

async fn send(socket: &mut Socket, message: lk::signal_request::Message) -> Result<(), ProbeError> {
    let bytes = lk::SignalRequest {
        message: Some(message),
    }
    .encode_to_vec();
    socket
        .send(Message::Binary(bytes.into()))
        .await
        .map_err(|error| ProbeError::Broken(error.to_string()))
}

/// Asks every candidate, those that are trickled in too, until one answers.
async fn check(
    udp: &UdpSocket,
    socket: &mut Socket,
    server: &mut sdp::Offer,
    ufrag: &str,
) -> Result<SocketAddr, ProbeError> {
    let mut transaction = stun::Transaction::default();
    SystemRandom::new()
        .fill(&mut transaction)
        .map_err(|_| ProbeError::Unusable("source of random numbers"))?;
    let request = stun::request(transaction, &server.ufrag, ufrag, &server.password);
    let mut buffer = [0; 1500];
    let mut again = tokio::time::interval(CHECK);
    loop {
        tokio::select! {
            _ = again.tick() => for candidate in &server.candidates {
                // Where one address cannot be reached, another may.
                let _ = udp.send_to(&request, candidate).await;
            },
            received = udp.recv_from(&mut buffer) => if let Ok((size, from)) = received
                && stun::is_success(&buffer[..size], &transaction)
            {
                return Ok(from);
            },
            message = next(socket) => if let lk::signal_response::Message::Trickle(trickle) = message? {
                let init: serde_json::Value = serde_json::from_str(&trickle.candidate_init).unwrap_or_default();
                server.candidates.extend(init["candidate"].as_str().and_then(sdp::candidate));
            },
        }
    }
}

fn random_hex(bytes: usize) -> Option<String> {
    let mut random = vec![0; bytes];
    SystemRandom::new().fill(&mut random).ok()?;
    Some(random.iter().map(|byte| format!("{byte:02x}")).collect())
}
