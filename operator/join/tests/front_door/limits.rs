//! What a client may not do.

use futures::SinkExt;
use plenum_join::{JoinConfig, MAX_MESSAGE_BYTES, ServeLimits};
use plenum_worker_api::v1::client_frame;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;

use crate::double::*;

#[tokio::test]
async fn rules_broken_on_the_socket_close_it_with_a_reason() {
    let flood = || vec![Message::Binary(vec![0x12, 0x00].into()); 20];
    let large = || vec![Message::Binary(vec![0u8; MAX_MESSAGE_BYTES + 1].into())];
    let text = || vec![Message::Text("{}".into())];
    let config = JoinConfig {
        messages_per_second: 1,
        message_burst: 10,
        ..JoinConfig::default()
    };
    let mut world = world(config, ServeLimits::default()).await;
    for (messages, code, reason) in [
        (flood(), 1008, "RateLimited"),
        (large(), 1009, "MessageTooLarge"),
        (text(), 1003, "RequestMalformed"),
    ] {
        let (mut socket, mut opened) = joined(&mut world).await;
        tokio::spawn(async move { while opened.from_client.recv().await.is_some() {} });
        for message in messages {
            let _ = socket.send(message).await;
        }
        assert_eq!(close_code(&mut socket).await, (code, reason.to_owned()));
    }
}

#[tokio::test]
async fn slow_headers_and_silent_clients_are_cut_and_sessions_are_bounded() {
    let limits = ServeLimits {
        header_read_timeout: Duration::from_millis(200),
        ..ServeLimits::default()
    };
    let config = JoinConfig {
        idle_timeout: Duration::from_millis(600),
        max_sessions: 1,
        ..JoinConfig::default()
    };
    let mut world = world(config, limits).await;
    let mut stream = TcpStream::connect(&world.address).await.unwrap();
    stream
        .write_all(b"GET /rtc HTTP/1.1\r\nhost: x\r\nx-slow: ")
        .await
        .unwrap();
    let mut rest = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(3), stream.read_to_end(&mut rest)).await;
    assert!(read.is_ok(), "a half-sent header kept its connection");

    // Not reading means not answering pings.
    let (socket, mut opened) = joined(&mut world).await;
    let path = format!("/rtc/v1?{}", v1_query(&token("demo/standup")));
    assert_eq!(connect(&world, &path, &[]).await.unwrap_err().1, "RateLimited");
    let frame = tokio::time::timeout(Duration::from_secs(3), opened.from_client.recv())
        .await
        .unwrap();
    assert!(matches!(frame.unwrap().frame, Some(client_frame::Frame::Hangup(h)) if h.may_resume));
    drop(socket);
}
