//! Refusals in the form stock clients show to their application.
//!
//! After a failed WebSocket a LiveKit client asks `validate` and hands its body to the application
//! where the status is 401 or 403, or 404 with LiveKit's own phrase in the body; any other status
//! leaves the application without words, and a plain 404 makes the client fall back to the older
//! protocol. So `validate` answers a refused join with 403 whatever the catalogue's status, and
//! "no such room" with the phrase. A client that reconnects is another matter: there 403 would end
//! its retries, so what may pass by itself (429, 5xx) keeps its status. Whoever asks for JSON is no
//! stock client and is told the status as it is.

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use hyper::ext::ReasonPhrase;
use plenum_errors::{Code, PublicError};

/// What stock clients look for in the body of a 404.
const NO_ROOM_PHRASE: &str = "requested room does not exist";

/// The refusal in words: code, cause, detail, remedy.
pub fn text_of(error: &PublicError) -> String {
    let missing = matches!(error.code, Code::MeetingNotFound | Code::RoomNotFound);
    let phrase = if missing {
        format!(" ({NO_ROOM_PHRASE})")
    } else {
        String::new()
    };
    format!("{error}{phrase}. Remedy: {}.", error.code.remedy())
}

/// An HTTP answer for a refused request, with the catalogue's own status.
pub fn refuse(error: &PublicError, headers: &HeaderMap) -> Response<Body> {
    answer(error, error.code.http_status(), headers)
}

/// As [`refuse`], with the status that makes stock clients show the words.
pub(crate) fn refuse_validate(error: &PublicError, headers: &HeaderMap, reconnects: bool) -> Response<Body> {
    let status = match error.code.http_status() {
        status if wants_json(headers) => status,
        status @ (401 | 403 | 404) => status,
        status @ (408 | 429 | 500..=599) if reconnects => status,
        _ => 403,
    };
    answer(error, status, headers)
}

/// As [`refuse`], in the form of RFC 9457, for programs that are told what to do by the body.
pub(crate) fn problem(error: &PublicError) -> Response<Body> {
    let status = error.code.http_status();
    let body = serde_json::json!({
        "title": error.code.as_str(),
        "status": status,
        "detail": error.to_string(),
        "code": error.code.as_str(),
        "cause": error.code.cause(),
        "remedy": error.code.remedy(),
    });
    dressed(error, status, "application/problem+json", body.to_string())
}

fn wants_json(headers: &HeaderMap) -> bool {
    headers
        .get(header::ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .is_some_and(|accept| accept.contains("application/json"))
}

fn answer(error: &PublicError, status: u16, headers: &HeaderMap) -> Response<Body> {
    let (content_type, body) = if wants_json(headers) {
        let body = serde_json::json!({
            "code": error.code.as_str(),
            "message": error.to_string(),
            "remedy": error.code.remedy(),
        });
        ("application/json", body.to_string())
    } else {
        ("text/plain; charset=utf-8", text_of(error))
    };
    dressed(error, status, content_type, body)
}

fn dressed(error: &PublicError, status: u16, content_type: &'static str, body: String) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    headers.insert("plenum-error", HeaderValue::from_static(error.code.as_str()));
    if matches!(status, 429 | 503) {
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("2"));
    }
    // For statuses whose body stock clients ignore, this is the one place they read.
    if let Ok(phrase) = ReasonPhrase::try_from(error.code.as_str().as_bytes()) {
        response.extensions_mut().insert(phrase);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stock_clients_see_the_words() {
        let mut json = HeaderMap::new();
        json.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        for code in Code::ALL {
            let error = PublicError::new(*code, "demo/standup");
            let status =
                |headers: &HeaderMap, reconnects| refuse_validate(&error, headers, reconnects).status();
            let joining = status(&HeaderMap::new(), false).as_u16();
            assert!(matches!(joining, 401 | 403 | 404), "{code}: {joining}");
            let transient = matches!(code.http_status(), 408 | 429 | 500..);
            let reconnecting = status(&HeaderMap::new(), true).as_u16();
            assert_eq!(
                reconnecting,
                if transient { code.http_status() } else { joining },
                "{code}"
            );
            assert_eq!(status(&json, false).as_u16(), code.http_status(), "{code}");
            assert!(text_of(&error).starts_with(code.as_str()));
        }
        assert!(text_of(&Code::MeetingNotFound.into()).contains(NO_ROOM_PHRASE));
    }
}
