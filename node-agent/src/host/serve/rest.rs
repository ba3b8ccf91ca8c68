//! The REST form of the Open Inference Protocol, version 2: paths, methods and status codes.
//!
//! Every error is `{"error": "…"}` and says what is wrong and where. 4xx is the client's, 5xx ours;
//! 503 passes (no version yet, queue full), and says when to come back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body, Incoming};
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::decode::{self, Mistake};
use super::encode;
use crate::host::routes::{Answered, Route, Routes, Unanswered};
use crate::host::slot::{NoAnswer, Slot};
use crate::host::tensor::TensorBudget;

/// The revision that answered.
pub const VERSION_HEADER: HeaderName = HeaderName::from_static("rimward-model-version");
/// The revision in trial that failed the request before.
pub const FALLBACK_HEADER: HeaderName = HeaderName::from_static("rimward-fallback-from");
/// Part of the binary tensor extension.
const BINARY_HEADER: HeaderName = HeaderName::from_static("inference-header-content-length");

/// Bodies of the largest size that may be here at one time.
const BODIES: u64 = 4;

/// How long a client may take to send its body.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

pub(super) type Answer = Response<Full<Bytes>>;

/// What every request is answered with.
#[derive(Clone, Debug)]
pub(super) struct Rest {
    routes: Routes,
    body_bytes_max: u64,
    /// Room for the bodies of all requests together, in KiB.
    bodies: Arc<Semaphore>,
}

impl Rest {
    pub(super) fn new(routes: Routes, body_bytes_max: u64) -> Self {
        let kibibytes = kibibytes(body_bytes_max.saturating_mul(BODIES));
        Self {
            routes,
            body_bytes_max,
            bodies: Arc::new(Semaphore::new(kibibytes as usize)),
        }
    }

    /// Room for one body of at most that size, held until the request is answered.
    fn room(&self, bytes_max: u64) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.bodies)
            .try_acquire_many_owned(kibibytes(bytes_max))
            .ok()
    }
}

fn kibibytes(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(1024))
        .unwrap_or(u32::MAX >> 4)
        .max(1)
}

/// Answers one request; never fails, an error is an answer.
pub(super) async fn answer(rest: &Rest, request: Request<Incoming>) -> Answer {
    let path = request.uri().path().to_owned();
    let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
    let read = request.method() == Method::GET || request.method() == Method::HEAD;
    let post = request.method() == Method::POST;
    match segments.as_slice() {
        ["v2"] if read => {
            ok(json!({"name": "rimward", "version": env!("CARGO_PKG_VERSION"), "extensions": []}))
        }
        ["v2", "health", "live"] if read => ok(json!({"live": true})),
        ["v2", "health", "ready"] if read => {
            let ready = !rest.routes.table().is_empty();
            status(
                if ready {
                    StatusCode::OK
                } else {
                    StatusCode::SERVICE_UNAVAILABLE
                },
                json!({"ready": ready}),
            )
        }
        ["v2", "models"] if read => {
            ok(json!({"models": rest.routes.table().keys().collect::<Vec<_>>()}))
        }
        ["v2", "models", model] if read => {
            find(rest, model, None).map_or_else(|error| error, |found| metadata(&found))
        }
        ["v2", "models", model, "versions", version] if read => {
            find(rest, model, Some(version)).map_or_else(|error| error, |found| metadata(&found))
        }
        ["v2", "models", model, "ready"] if read => ready(rest, model, None),
        ["v2", "models", model, "versions", version, "ready"] if read => {
            ready(rest, model, Some(version))
        }
        ["v2", "models", model, "infer"] if post => infer(rest, model, None, request).await,
        ["v2", "models", model, "versions", version, "infer"] if post => {
            infer(rest, model, Some(version), request).await
        }
        ["v2", "models", .., "infer"] => wrong_method("POST"),
        ["v2", "repository", ..] => error(
            StatusCode::METHOD_NOT_ALLOWED,
            "models are not loaded or unloaded here: they are declared as deployments",
        ),
        ["v2"]
        | ["v2", "health", "live" | "ready"]
        | ["v2", "models"]
        | ["v2", "models", _]
        | ["v2", "models", _, "ready"]
        | ["v2", "models", _, "versions", _]
        | ["v2", "models", _, "versions", _, "ready"] => wrong_method("GET, HEAD"),
        _ => error(
            StatusCode::NOT_FOUND,
            &format!("there is nothing at {}", clip(&path)),
        ),
    }
}

/// What a path names: an endpoint, and perhaps one version of it.
struct Found {
    model: String,
    route: Route,
    slot: Arc<Slot>,
}

fn find(rest: &Rest, model: &str, version: Option<&str>) -> Result<Found, Answer> {
    let table = rest.routes.table();
    let route = table.get(model).ok_or_else(|| {
        error(
            StatusCode::NOT_FOUND,
            &format!("there is no model named \"{}\"", clip(model)),
        )
    })?;
    let slot = match version {
        None => route.serving().cloned(),
        Some(version) => route.revision(version).cloned(),
    };
    let missing = || {
        let version = version.unwrap_or_default();
        error(
            StatusCode::NOT_FOUND,
            &format!("model \"{model}\" has no version \"{}\"", clip(version)),
        )
    };
    let slot = slot.ok_or_else(missing)?;
    let route = if version.is_some() {
        Route::pinned(Arc::clone(&slot))
    } else {
        route.clone()
    };
    Ok(Found {
        model: model.to_owned(),
        route,
        slot,
    })
}

fn metadata(found: &Found) -> Answer {
    let spec = &found.slot.spec;
    let versions: Vec<&str> = [&found.route.current, &found.route.candidate]
        .into_iter()
        .flatten()
        .map(|slot| slot.spec.revision.as_str())
        .collect();
    ok(json!({
        "name": found.model,
        "versions": versions,
        "platform": format!("{}_{}", spec.variant.format, spec.variant.backend),
        "inputs": encode::tensors(&spec.inputs),
        "outputs": encode::tensors(&spec.outputs),
        "parameters": {
            "deployment": spec.deployment,
            "package_version": spec.package_version,
            "variant": spec.variant.name,
            "backend": found.slot.runs.backend,
            "device": found.slot.runs.device,
            "precision": found.slot.runs.precision,
        },
    }))
}

fn ready(rest: &Rest, model: &str, version: Option<&str>) -> Answer {
    match find(rest, model, version) {
        Ok(found) => ok(json!({"name": found.model, "ready": true})),
        Err(answer) => answer,
    }
}

async fn infer(
    rest: &Rest,
    model: &str,
    version: Option<&str>,
    request: Request<Incoming>,
) -> Answer {
    let found = match find(rest, model, version) {
        Ok(found) => found,
        Err(answer) => return answer,
    };
    if let Some(refusal) = refuse_form(&request) {
        return refusal;
    }
    // A body of unknown length takes the room of the largest.
    let length = request
        .body()
        .size_hint()
        .exact()
        .unwrap_or(rest.body_bytes_max)
        .min(rest.body_bytes_max);
    let Some(room) = rest.room(length) else {
        return unanswered(model, &NoAnswer::QueueFull);
    };
    let body = match read_body(request, rest.body_bytes_max).await {
        Ok(body) => body,
        Err(answer) => return answer,
    };
    let Found { model, route, slot } = found;
    // Apart from the connection: a client that goes away must not look like a failure of the model.
    let task = tokio::spawn(async move {
        let _room = room;
        run(model, route, slot, body).await
    });
    task.await.unwrap_or_else(|failed| {
        error(
            StatusCode::INTERNAL_SERVER_ERROR,
            &format!("request was not finished: {failed}"),
        )
    })
}

async fn run(model: String, route: Route, slot: Arc<Slot>, body: Bytes) -> Answer {
    let began = Instant::now();
    let budget = TensorBudget::new(slot.spec.limits.tensor_bytes_max);
    let decode::Request {
        id,
        inputs,
        outputs: wanted,
    } = match decode::request(&body, &budget) {
        Ok(request) => request,
        Err(mistake @ Mistake::TooLarge { .. }) => {
            return error(StatusCode::PAYLOAD_TOO_LARGE, &mistake.to_string());
        }
        Err(mistake) => return error(StatusCode::BAD_REQUEST, &mistake.to_string()),
    };
    drop(body);
    let unknown = wanted
        .iter()
        .flatten()
        .find(|name| slot.spec.outputs.iter().all(|spec| spec.name != **name));
    if let Some(unknown) = unknown {
        let known: Vec<&str> = slot
            .spec
            .outputs
            .iter()
            .map(|spec| spec.name.as_str())
            .collect();
        let message = format!(
            "there is no output \"{}\"; the outputs are {}",
            clip(unknown),
            known.join(", ")
        );
        return error(StatusCode::BAD_REQUEST, &message);
    }
    let answered = route
        .answer(inputs, budget, began, |by, outputs| {
            encode::answer(
                &model,
                &by.spec.revision,
                id.as_deref(),
                outputs,
                wanted.as_deref(),
            )
        })
        .await;
    match answered {
        None => error(
            StatusCode::SERVICE_UNAVAILABLE,
            &format!("model \"{model}\" has no version that serves yet"),
        ),
        Some(Ok(Answered {
            answer,
            by,
            instead_of,
        })) => {
            let mut response = plain(StatusCode::OK, answer);
            name_version(&mut response, VERSION_HEADER, &by);
            if let Some(candidate) = instead_of {
                name_version(&mut response, FALLBACK_HEADER, &candidate);
            }
            response
        }
        Some(Err(Unanswered { why, by })) => {
            let mut response = unanswered(&model, &why);
            name_version(&mut response, VERSION_HEADER, &by);
            response
        }
    }
}

fn unanswered(model: &str, why: &NoAnswer) -> Answer {
    let message = format!("model \"{model}\": {why}");
    match why {
        NoAnswer::ClientMistake(_) => error(StatusCode::BAD_REQUEST, &message),
        NoAnswer::TimedOut(_) => error(StatusCode::GATEWAY_TIMEOUT, &message),
        NoAnswer::Failed(_) => error(StatusCode::INTERNAL_SERVER_ERROR, &message),
        NoAnswer::QueueFull => {
            let mut response = error(StatusCode::SERVICE_UNAVAILABLE, &message);
            response
                .headers_mut()
                .insert(RETRY_AFTER, HeaderValue::from_static("1"));
            response
        }
    }
}

fn name_version(response: &mut Answer, header: HeaderName, slot: &Slot) {
    if let Ok(value) = HeaderValue::from_str(&slot.spec.revision) {
        response.headers_mut().insert(header, value);
    }
}

/// Only JSON bodies for now; says so to clients of the binary tensor extension.
fn refuse_form(request: &Request<Incoming>) -> Option<Answer> {
    if request.headers().contains_key(BINARY_HEADER) {
        return Some(error(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "header Inference-Header-Content-Length: the binary tensor extension is not supported yet: send JSON data",
        ));
    }
    let content_type = request.headers().get(CONTENT_TYPE)?;
    let text = content_type.to_str().unwrap_or("");
    let essence = text
        .split(';')
        .next()
        .unwrap_or("")
        .trim()
        .to_ascii_lowercase();
    // curl's default is let through: it means that nothing was said.
    if matches!(
        essence.as_str(),
        "" | "application/json" | "text/json" | "application/x-www-form-urlencoded"
    ) {
        return None;
    }
    Some(error(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        &format!(
            "content type {} is not supported: send application/json",
            clip(&essence)
        ),
    ))
}

async fn read_body(request: Request<Incoming>, bytes_max: u64) -> Result<Bytes, Answer> {
    let too_large = || {
        error(
            StatusCode::PAYLOAD_TOO_LARGE,
            &format!("request body has more than {bytes_max} bytes"),
        )
    };
    let body = request.into_body();
    if body.size_hint().lower() > bytes_max {
        return Err(too_large());
    }
    let limited = Limited::new(body, usize::try_from(bytes_max).unwrap_or(usize::MAX));
    match tokio::time::timeout(BODY_TIMEOUT, limited.collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(failed)) if failed.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(failed)) => Err(error(
            StatusCode::BAD_REQUEST,
            &format!("request body ended early: {failed}"),
        )),
        Err(_) => Err(error(
            StatusCode::REQUEST_TIMEOUT,
            &format!("no whole request body within {} s", BODY_TIMEOUT.as_secs()),
        )),
    }
}

fn wrong_method(allowed: &'static str) -> Answer {
    let mut response = error(
        StatusCode::METHOD_NOT_ALLOWED,
        &format!("method not allowed here; allowed: {allowed}"),
    );
    response
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static(allowed));
    response
}

fn ok(body: Value) -> Answer {
    status(StatusCode::OK, body)
}

pub(super) fn error(code: StatusCode, message: &str) -> Answer {
    status(code, json!({"error": message}))
}

fn status(code: StatusCode, body: Value) -> Answer {
    plain(code, body.to_string().into_bytes())
}

fn plain(code: StatusCode, body: Vec<u8>) -> Answer {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = code;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// A piece of a request in an error: short.
fn clip(text: &str) -> String {
    text.chars().take(128).collect()
}
