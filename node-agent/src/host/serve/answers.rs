//! Answers and errors as HTTP responses: always JSON, an error always `{"error": "…"}`.

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Method, Response, StatusCode};
use serde_json::{Value, json};

use super::room::Room;
use crate::host::slot::NoAnswer;

pub(super) type Answer = Response<Bytes>;

/// An answer that ends a request early.
pub(super) type Refusal = Box<Answer>;

/// Why a model gives no answer, with the code that says whose fault it is.
pub(super) fn unanswered(model: &str, why: &NoAnswer) -> Answer {
    let message = format!("model \"{model}\": {why}");
    match why {
        NoAnswer::ClientMistake(_) => error(StatusCode::BAD_REQUEST, &message),
        NoAnswer::TimedOut(_) => error(StatusCode::GATEWAY_TIMEOUT, &message),
        NoAnswer::Failed(_) => error(StatusCode::INTERNAL_SERVER_ERROR, &message),
        NoAnswer::TooLarge(_) => error(StatusCode::PAYLOAD_TOO_LARGE, &message),
        NoAnswer::QueueFull | NoAnswer::NoRoom => {
            let mut response = error(StatusCode::SERVICE_UNAVAILABLE, &message);
            response
                .headers_mut()
                .insert(RETRY_AFTER, HeaderValue::from_static("1"));
            response
        }
    }
}

/// Something is at the path, but not for that method.
pub(super) fn wrong_method(method: &Method, path: &str, allowed: &'static str) -> Answer {
    let (method, path) = (clip(method.as_str()), clip(path));
    not_allowed(
        &format!("{method} is not allowed at {path}; allowed: {allowed}"),
        allowed,
    )
}

/// The model repository extension's way to load and unload.
pub(super) fn not_here(path: &str) -> Answer {
    let path = clip(path);
    not_allowed(
        &format!(
            "{path}: models are not loaded or unloaded here, they are declared as deployments"
        ),
        "",
    )
}

fn not_allowed(message: &str, allowed: &'static str) -> Answer {
    let mut response = error(StatusCode::METHOD_NOT_ALLOWED, message);
    response
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static(allowed));
    response
}

pub(super) fn ok(body: Value) -> Answer {
    status(StatusCode::OK, body)
}

pub(super) fn error(code: StatusCode, message: &str) -> Answer {
    status(code, json!({"error": message}))
}

pub(super) fn status(code: StatusCode, body: Value) -> Answer {
    plain(code, body.to_string().into_bytes())
}

pub(super) fn plain(code: StatusCode, body: Vec<u8>) -> Answer {
    let mut response = Response::new(Bytes::from(body));
    *response.status_mut() = code;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Ties room to an answer's bytes: given back once they are sent, or the connection is gone, and not
/// when they are merely handed over for sending.
pub(super) fn hold(answer: Answer, room: Room) -> Answer {
    answer.map(|bytes| Bytes::from_owner(Held { bytes, _room: room }))
}

struct Held {
    bytes: Bytes,
    _room: Room,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// A piece of a request in an error: short.
pub(super) fn clip(text: &str) -> String {
    text.chars().take(128).collect()
}

/// An error that ends a request early.
pub(super) fn refuse(code: StatusCode, message: &str) -> Refusal {
    Box::new(error(code, message))
}
