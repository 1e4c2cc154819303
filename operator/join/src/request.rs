//! What a client asks for: the join request in both versions of the protocol, as one form.
//!
//! v1 sends an encoded `WrappedJoinRequest` in the query; v0 spells everything out in the query.
//! Both become a `livekit.JoinRequest`, so that nothing behind this file knows of two versions but
//! for the number of peer connections.

use std::collections::HashMap;
use std::io::Read;

use axum::http::{HeaderMap, header};
use base64::Engine as _;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use livekit_protocol as proto;
use plenum_errors::{Code, PublicError};
use prost::Message as _;

use crate::MAX_MESSAGE_BYTES;

/// Attributes a client may bring along: a bound on the query is not a bound on their number.
const MAX_ATTRIBUTES: usize = 64;

const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_padding_mode(DecodePaddingMode::Indifferent)
    .with_decode_allow_trailing_bits(true);

/// Which join path was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    /// `/rtc`: two peer connections.
    V0,
    /// `/rtc/v1`: one.
    V1,
}

pub(crate) type Query = HashMap<String, String>;

/// The token of a request: Bearer header, or else the query.
pub(crate) fn token<'a>(headers: &'a HeaderMap, query: &'a Query) -> Result<&'a str, PublicError> {
    let bearer = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim());
    bearer
        .or_else(|| query.get("access_token").map(String::as_str))
        .filter(|token| !token.is_empty())
        .ok_or_else(|| Code::TokenMissing.into())
}

/// The join request of a request.
pub(crate) fn join_request(version: Version, query: &Query) -> Result<proto::JoinRequest, PublicError> {
    let request = match version {
        Version::V0 => from_query(query)?,
        Version::V1 => {
            let wrapped = query
                .get("join_request")
                .ok_or_else(|| malformed("the join_request parameter is missing"))?;
            unwrap(wrapped)?
        }
    };
    if request.participant_attributes.len() > MAX_ATTRIBUTES {
        return Err(malformed("more than 64 attributes"));
    }
    Ok(request)
}

fn malformed(detail: &str) -> PublicError {
    PublicError::new(Code::RequestMalformed, detail)
}

/// base64 with either alphabet, padded or not: SDKs differ.
fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let alphabet = if text.contains(['+', '/', ' ']) {
        &STANDARD
    } else {
        &URL_SAFE
    };
    // A plus that was not escaped reaches us as a space.
    let text = text.replace(' ', "+");
    GeneralPurpose::new(alphabet, LENIENT).decode(text).ok()
}

fn unwrap(text: &str) -> Result<proto::JoinRequest, PublicError> {
    use proto::wrapped_join_request::Compression;

    let bytes = decode_base64(text).ok_or_else(|| malformed("join_request is not base64"))?;
    let wrapped = proto::WrappedJoinRequest::decode(bytes.as_slice())
        .map_err(|_| malformed("join_request is not a WrappedJoinRequest"))?;
    let inner = match Compression::try_from(wrapped.compression) {
        Ok(Compression::None) => wrapped.join_request,
        Ok(Compression::Gzip) => inflate(&wrapped.join_request)?,
        Err(_) => return Err(malformed("join_request is compressed in an unknown way")),
    };
    if inner.len() > MAX_MESSAGE_BYTES {
        return Err(PublicError::new(Code::MessageTooLarge, "join_request"));
    }
    proto::JoinRequest::decode(inner.as_slice())
        .map_err(|_| malformed("join_request does not hold a JoinRequest"))
}

/// Inflates no further than the limit: a bomb costs one buffer of that size.
fn inflate(compressed: &[u8]) -> Result<Vec<u8>, PublicError> {
    let mut out = Vec::new();
    let limit = MAX_MESSAGE_BYTES as u64 + 1;
    flate2::read::GzDecoder::new(compressed)
        .take(limit)
        .read_to_end(&mut out)
        .map_err(|_| malformed("join_request is not gzip"))?;
    Ok(out)
}

fn from_query(query: &Query) -> Result<proto::JoinRequest, PublicError> {
    let text = |key: &str| query.get(key).cloned().unwrap_or_default();
    let number = |key: &str| {
        query
            .get(key)
            .and_then(|value| value.parse::<i32>().ok())
            .unwrap_or_default()
    };
    let flag = |key: &str| query.get(key).map(|value| matches!(value.as_str(), "1" | "true"));

    Ok(proto::JoinRequest {
        client_info: Some(proto::ClientInfo {
            sdk: sdk(&text("sdk")) as i32,
            version: text("version"),
            protocol: number("protocol"),
            os: text("os"),
            os_version: text("os_version"),
            device_model: text("device_model"),
            browser: text("browser"),
            browser_version: text("browser_version"),
            network: text("network"),
            other_sdks: text("other_sdks"),
            client_protocol: number("client_protocol"),
            ..proto::ClientInfo::default()
        }),
        connection_settings: Some(proto::ConnectionSettings {
            auto_subscribe: flag("auto_subscribe").unwrap_or(true),
            adaptive_stream: flag("adaptive_stream").unwrap_or(false),
            subscriber_allow_pause: flag("subscriber_allow_pause"),
            disable_ice_lite: flag("disable_ice_lite").unwrap_or(false),
            auto_subscribe_data_track: flag("auto_subscribe_data_track"),
        }),
        participant_attributes: attributes(query.get("attributes"))?,
        reconnect: flag("reconnect").unwrap_or(false),
        reconnect_reason: number("reconnect_reason"),
        participant_sid: text("sid"),
        ..proto::JoinRequest::default()
    })
}

/// A JSON object of strings, plain or in base64.
fn attributes(value: Option<&String>) -> Result<HashMap<String, String>, PublicError> {
    let Some(value) = value.filter(|value| !value.is_empty()) else {
        return Ok(HashMap::new());
    };
    let json = if value.trim_start().starts_with('{') {
        value.clone().into_bytes()
    } else {
        decode_base64(value).ok_or_else(|| malformed("attributes is neither JSON nor base64"))?
    };
    serde_json::from_slice(&json).map_err(|_| malformed("attributes is not a JSON object of strings"))
}

fn sdk(name: &str) -> proto::client_info::Sdk {
    use proto::client_info::Sdk;
    match name.to_ascii_lowercase().as_str() {
        "js" => Sdk::Js,
        "ios" | "swift" => Sdk::Swift,
        "android" => Sdk::Android,
        "flutter" => Sdk::Flutter,
        "go" => Sdk::Go,
        "unity" => Sdk::Unity,
        "reactnative" => Sdk::ReactNative,
        "rust" => Sdk::Rust,
        "python" => Sdk::Python,
        "cpp" => Sdk::Cpp,
        "unityweb" => Sdk::UnityWeb,
        "node" => Sdk::Node,
        "unreal" => Sdk::Unreal,
        "esp32" => Sdk::Esp32,
        "dotnet" => Sdk::Dotnet,
        _ => Sdk::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::engine::general_purpose::{URL_SAFE as PADDED, URL_SAFE_NO_PAD as UNPADDED};
    use std::io::Write;

    fn wrapped(inner: Vec<u8>, gzip: bool) -> Vec<u8> {
        let join_request = if gzip {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
            encoder.write_all(&inner).unwrap();
            encoder.finish().unwrap()
        } else {
            inner
        };
        proto::WrappedJoinRequest {
            compression: i32::from(gzip),
            join_request,
        }
        .encode_to_vec()
    }

    fn v1(join_request: String) -> Result<proto::JoinRequest, PublicError> {
        super::join_request(
            Version::V1,
            &Query::from([("join_request".to_owned(), join_request)]),
        )
    }

    #[test]
    fn v1_reads_every_encoding_that_sdks_use() {
        let request = proto::JoinRequest {
            reconnect: true,
            participant_sid: "PA_x".into(),
            publisher_offer: Some(proto::SessionDescription {
                sdp: "v=0\r\n".repeat(100),
                ..Default::default()
            }),
            ..Default::default()
        };
        for gzip in [false, true] {
            let bytes = wrapped(request.encode_to_vec(), gzip);
            for text in [
                PADDED.encode(&bytes),
                UNPADDED.encode(&bytes),
                base64::engine::general_purpose::STANDARD.encode(&bytes),
                base64::engine::general_purpose::STANDARD
                    .encode(&bytes)
                    .replace('+', " "),
            ] {
                assert_eq!(v1(text).unwrap(), request);
            }
        }
    }

    #[test]
    fn a_bomb_is_refused_at_the_limit() {
        let bomb = wrapped(vec![0; 64 * 1024 * 1024], true);
        assert!(bomb.len() < 128 * 1024);
        assert_eq!(v1(PADDED.encode(bomb)).unwrap_err().code, Code::MessageTooLarge);
        let plain = wrapped(vec![0; MAX_MESSAGE_BYTES + 1], false);
        assert_eq!(v1(PADDED.encode(plain)).unwrap_err().code, Code::MessageTooLarge);
    }

    #[test]
    fn garbage_is_refused_and_never_panics() {
        for text in ["", "!", "AAAA", "////", "CAES", "CAIS", "🦀"] {
            match v1(text.to_owned()) {
                Ok(_) => {}
                Err(error) => assert_eq!(error.code, Code::RequestMalformed, "{text}"),
            }
        }
        assert_eq!(
            join_request(Version::V1, &Query::new()).unwrap_err().code,
            Code::RequestMalformed
        );
    }

    #[test]
    fn v0_says_the_same_in_the_query() {
        let query: Query = [
            ("auto_subscribe", "0"),
            ("adaptive_stream", "1"),
            ("sdk", "js"),
            ("version", "2.23.0"),
            ("protocol", "16"),
            ("os", "Linux"),
            ("reconnect", "1"),
            ("sid", "PA_x"),
            ("reconnect_reason", "2"),
            ("attributes", r#"{"hand":"up"}"#),
        ]
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .into();
        let request = join_request(Version::V0, &query).unwrap();
        let info = request.client_info.unwrap();
        assert_eq!(
            (info.sdk, info.protocol, info.version.as_str()),
            (1, 16, "2.23.0")
        );
        let settings = request.connection_settings.unwrap();
        assert!(!settings.auto_subscribe && settings.adaptive_stream);
        assert!(request.reconnect && request.reconnect_reason == 2 && request.participant_sid == "PA_x");
        assert_eq!(request.participant_attributes["hand"], "up");
        assert!(
            join_request(Version::V0, &Query::new())
                .unwrap()
                .connection_settings
                .unwrap()
                .auto_subscribe
        );
    }

    #[test]
    fn the_header_comes_before_the_query() {
        let query: Query = [("access_token".to_owned(), "q".to_owned())].into();
        let mut headers = HeaderMap::new();
        assert_eq!(token(&headers, &query).unwrap(), "q");
        headers.insert(header::AUTHORIZATION, "bearer h".parse().unwrap());
        assert_eq!(token(&headers, &query).unwrap(), "h");
        assert_eq!(
            token(&HeaderMap::new(), &Query::new()).unwrap_err().code,
            Code::TokenMissing
        );
    }
}
