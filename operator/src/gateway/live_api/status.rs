//! Kubernetes Status objects: how the live API says no.

use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use plenum_errors::PublicError;
use serde_json::{Value, json};

/// A refusal, as kubectl prints it: `Error from server (REASON): MESSAGE`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Refusal {
    pub(crate) code: u16,
    pub(crate) reason: &'static str,
    pub(crate) message: String,
    /// Fields of the request that are to blame: path and what is wrong with it.
    pub(crate) causes: Vec<(&'static str, String)>,
    pub(crate) retry_after_seconds: Option<u32>,
}

impl Refusal {
    pub(crate) fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Refusal {
        Refusal {
            code,
            reason,
            message: message.into(),
            causes: Vec::new(),
            retry_after_seconds: None,
        }
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Refusal {
        Refusal::new(400, "BadRequest", message)
    }

    pub(crate) fn not_found(resource: &str, name: &str) -> Refusal {
        Refusal::new(
            404,
            "NotFound",
            format!("{resource}.live.plenum.dev \"{name}\" not found"),
        )
    }

    pub(crate) fn method_not_allowed(what: &str) -> Refusal {
        Refusal::new(405, "MethodNotAllowed", what)
    }

    pub(crate) fn invalid(field: &'static str, message: impl Into<String>) -> Refusal {
        let message = message.into();
        Refusal {
            causes: vec![(field, message.clone())],
            ..Refusal::new(
                422,
                "Invalid",
                format!("TokenRequest is invalid: {field}: {message}"),
            )
        }
    }

    /// The Status object.
    pub(crate) fn object(&self) -> Value {
        let mut details = serde_json::Map::new();
        if !self.causes.is_empty() {
            let causes: Vec<Value> = self
                .causes
                .iter()
                .map(|(field, message)| json!({"reason": "FieldValueInvalid", "field": field, "message": message}))
                .collect();
            details.insert("causes".into(), causes.into());
        }
        if let Some(seconds) = self.retry_after_seconds {
            details.insert("retryAfterSeconds".into(), seconds.into());
        }
        json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason, "details": details, "code": self.code,
        })
    }

    pub(crate) fn response(&self) -> Response<Body> {
        let mut response = json_response(self.code, &self.object());
        if let Some(seconds) = self.retry_after_seconds {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl From<PublicError> for Refusal {
    fn from(error: PublicError) -> Refusal {
        let code = error.code.http_status();
        // The reasons that client-go knows how to treat; the catalogue's code opens the message.
        let reason = match code {
            400 => "BadRequest",
            401 => "Unauthorized",
            403 => "Forbidden",
            404 => "NotFound",
            409 => "Conflict",
            410 => "Gone",
            429 => "TooManyRequests",
            503 => "ServiceUnavailable",
            _ => "InternalError",
        };
        Refusal {
            retry_after_seconds: matches!(code, 429 | 503).then_some(2),
            ..Refusal::new(code, reason, format!("{error}; {}", error.code.remedy()))
        }
    }
}

/// A JSON answer.
pub(crate) fn json_response(code: u16, body: &Value) -> Response<Body> {
    typed_response(code, "application/json", body)
}

/// A JSON answer that calls itself something more precise.
pub(crate) fn typed_response(code: u16, content_type: &'static str, body: &Value) -> Response<Body> {
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response.headers_mut().insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("no-cache, private"),
    );
    response
}
