//! Refusals in the form stock clients show to their application.
//!
//! After a failed WebSocket a LiveKit client asks `validate` and hands its body to the application
//! where the status is 401 or 403, or 404 with LiveKit's own phrase in the body; of any other
//! status it reads the reason phrase at most, and a plain 404 makes it fall back to the older
//! protocol. So `validate` answers final refusals with 403, "no such room" with the phrase, and
//! what may pass by itself (503, 429) with its own status, since 403 would end the retries.

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
pub(crate) fn refuse_validate(error: &PublicError, headers: &HeaderMap) -> Response<Body> {
    let status = match error.code.http_status() {
        status @ (401 | 403 | 404 | 408 | 429 | 500..=599) => status,
        _ => 403,
    };
    answer(error, status, headers)
}

fn answer(error: &PublicError, status: u16, headers: &HeaderMap) -> Response<Body> {
    let wants_json = headers
        .get(header::ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .is_some_and(|accept| accept.contains("application/json"));
    let (content_type, body) = if wants_json {
        let body = serde_json::json!({
            "code": error.code.as_str(),
            "message": error.to_string(),
            "remedy": error.code.remedy(),
        });
        ("application/json", body.to_string())
    } else {
        ("text/plain; charset=utf-8", text_of(error))
    };
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
        let headers = HeaderMap::new();
        for code in Code::ALL {
            let error = PublicError::new(*code, "demo/standup");
            let status = refuse_validate(&error, &headers).status().as_u16();
            match code.http_status() {
                400 | 409 | 410 | 413 => assert_eq!(status, 403, "{code}"),
                other => assert_eq!(status, other, "{code}"),
            }
            assert!(text_of(&error).starts_with(code.as_str()));
        }
        assert!(text_of(&Code::MeetingNotFound.into()).contains(NO_ROOM_PHRASE));
    }
}
