//! One inference over REST: body in, versions tried, answer out.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use rimward_core::sample::Ending;

use super::answers::{Answer, Refusal, clip, error, hold, plain, refuse, unanswered};
use super::decode::{self, Mistake};
use super::encode;
use super::rest::{Found, Rest, find};
use super::room::{Full, Room, Rooms};
use crate::host::engine::lock;
use crate::host::routes::{Answered, Route, Unanswered};
use crate::host::slot::{NoAnswer, Slot, Tensors};
use crate::host::tensor::TensorBudget;

/// The revision that answered.
pub const VERSION_HEADER: HeaderName = HeaderName::from_static("rimward-model-version");
/// The revision in trial that failed or refused the request, or was slower with it.
pub const FALLBACK_HEADER: HeaderName = HeaderName::from_static("rimward-fallback-from");
/// Part of the binary tensor extension.
const BINARY_HEADER: HeaderName = HeaderName::from_static("inference-header-content-length");

/// How long a client may take to send its body.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

pub(super) async fn infer(
    rest: &Rest,
    model: &str,
    version: Option<&str>,
    request: Request<Incoming>,
) -> Answer {
    let found = match find(rest, model, version) {
        Ok(found) => found,
        Err(refusal) => return *refusal,
    };
    if let Some(refusal) = refuse_form(&request) {
        return refusal;
    }
    let mut room = rest.rooms.enter();
    let body = match read_body(model, request, &mut room, rest.body_bytes_max).await {
        Ok(body) => body,
        Err(refusal) => return *refusal,
    };
    let space = Space {
        rooms: rest.rooms.clone(),
        of_body: Mutex::new(Some(room)),
        answer_bytes_max: rest.body_bytes_max,
    };
    // Apart from the connection: a client that goes away must not look like a failure of the model.
    let task = tokio::spawn(run(found, body, space));
    task.await.unwrap_or_else(|failed| {
        error(
            StatusCode::INTERNAL_SERVER_ERROR,
            &format!("request was not finished: {failed}"),
        )
    })
}

/// A request as one version takes it.
struct Accepted {
    request: decode::Request,
    budget: Arc<TensorBudget>,
}

/// A request that a version does not take.
struct Refused {
    code: StatusCode,
    message: String,
    /// For what that version declares: another may take it.
    by_declaration: bool,
}

/// Judges a body by what a version declares: its tensor budget and its outputs.
fn accept(slot: &Slot, body: &[u8]) -> Result<Accepted, Refused> {
    let budget = TensorBudget::new(slot.spec.limits.tensor_bytes_max);
    let request = decode::request(body, &budget).map_err(|mistake| {
        let too_large = matches!(mistake, Mistake::TooLarge { .. });
        Refused {
            code: if too_large {
                StatusCode::PAYLOAD_TOO_LARGE
            } else {
                StatusCode::BAD_REQUEST
            },
            message: mistake.to_string(),
            by_declaration: too_large,
        }
    })?;
    let outputs = &slot.spec.outputs;
    let unknown = request.outputs.iter().flatten().find(|name| {
        outputs
            .iter()
            .all(|spec| spec.name.as_str() != name.as_str())
    });
    if let Some(unknown) = unknown {
        let known: Vec<&str> = outputs.iter().map(|spec| spec.name.as_str()).collect();
        return Err(Refused {
            code: StatusCode::BAD_REQUEST,
            message: format!(
                "there is no output \"{}\"; the outputs are {}",
                clip(unknown),
                known.join(", ")
            ),
            by_declaration: true,
        });
    }
    Ok(Accepted { request, budget })
}

/// A request that a version takes, and who is asked.
struct Taken {
    accepted: Accepted,
    route: Route,
    /// The version in trial, and why it refused.
    refused_by: Option<(Arc<Slot>, NoAnswer)>,
}

/// Takes a request as the serving version declares it, or else as the previous one does: then only
/// that one is asked.
fn accept_by_any(route: Route, slot: Arc<Slot>, body: &[u8]) -> Result<Taken, Refused> {
    let refused = match accept(&slot, body) {
        Ok(accepted) => {
            return Ok(Taken {
                accepted,
                route,
                refused_by: None,
            });
        }
        Err(refused) => refused,
    };
    match route.previous() {
        Some(previous) if refused.by_declaration => {
            let Ok(accepted) = accept(previous, body) else {
                return Err(refused);
            };
            let why = NoAnswer::ClientMistake(refused.message);
            Ok(Taken {
                accepted,
                route: Route::pinned(Arc::clone(previous)),
                refused_by: Some((slot, why)),
            })
        }
        _ => Err(refused),
    }
}

/// Where a request's answers are written.
struct Space {
    rooms: Rooms,
    /// What the body held, for the first answer; a second one takes room of its own.
    of_body: Mutex<Option<Room>>,
    answer_bytes_max: u64,
}

impl Space {
    fn room(&self) -> Room {
        let of_body = lock(&self.of_body).take();
        of_body.unwrap_or_else(|| self.rooms.enter())
    }
}

/// An answer's bytes, and the room that they take.
#[derive(Debug)]
struct Encoded {
    bytes: Vec<u8>,
    room: Room,
}

/// What an answer is made with.
struct Form {
    model: String,
    id: Option<String>,
    wanted: Option<Vec<String>>,
    space: Space,
}

impl Form {
    fn encode(&self, by: &Slot, outputs: &Tensors) -> Result<Encoded, NoAnswer> {
        let head = encode::Head {
            model: &self.model,
            version: &by.spec.revision,
            id: self.id.as_deref(),
        };
        let mut room = self.space.room();
        let mut json = room.collect(self.space.answer_bytes_max);
        encode::answer(&head, outputs, self.wanted.as_deref(), &mut json)?;
        let bytes = json.finish();
        Ok(Encoded { bytes, room })
    }
}

/// Answers one request whose body is here.
async fn run(found: Found, body: Vec<u8>, space: Space) -> Answer {
    let began = Instant::now();
    let Found { model, route, slot } = found;
    let Taken {
        accepted,
        route,
        refused_by,
    } = match accept_by_any(route, slot, &body) {
        Ok(taken) => taken,
        Err(Refused { code, message, .. }) => return error(code, &message),
    };
    drop(body);
    let Accepted {
        request:
            decode::Request {
                id,
                inputs,
                outputs: wanted,
            },
        budget,
    } = accepted;
    let form = Arc::new(Form {
        model: model.clone(),
        id,
        wanted,
        space,
    });
    let encode = move |by: &Slot, outputs: &Tensors| form.encode(by, outputs);
    let answered = route.answer(inputs, budget, began, encode).await;
    if let Some((candidate, why)) = &refused_by {
        let by_previous = answered.as_ref().map(|answered| match answered {
            Ok(_) => Ending::Answered,
            Err(unanswered) => unanswered.why.ending(),
        });
        candidate.count(Some(why), by_previous, Duration::ZERO);
    }
    match answered {
        None => error(
            StatusCode::SERVICE_UNAVAILABLE,
            &format!("model \"{model}\" has no version that serves yet"),
        ),
        Some(Ok(Answered {
            answer: Encoded { bytes, room },
            by,
            instead_of,
        })) => {
            let mut response = hold(plain(StatusCode::OK, bytes), room);
            name_version(&mut response, VERSION_HEADER, &by);
            if let Some(candidate) = instead_of.or(refused_by.map(|(slot, _)| slot)) {
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

async fn read_body(
    model: &str,
    request: Request<Incoming>,
    room: &mut Room,
    bytes_max: u64,
) -> Result<Vec<u8>, Refusal> {
    let refused = |full| match full {
        Full::TooLarge(bytes_max) => refuse(
            StatusCode::PAYLOAD_TOO_LARGE,
            &format!("request body has more than {bytes_max} bytes"),
        ),
        Full::NoRoom => Box::new(unanswered(model, &NoAnswer::NoRoom)),
    };
    let mut frames = request.into_body();
    if frames.size_hint().lower() > bytes_max {
        return Err(refused(Full::TooLarge(bytes_max)));
    }
    let mut body = room.collect(bytes_max);
    let read = async {
        while let Some(frame) = frames.frame().await {
            let frame = frame.map_err(|failed| {
                refuse(
                    StatusCode::BAD_REQUEST,
                    &format!("request body ended early: {failed}"),
                )
            })?;
            if let Some(data) = frame.data_ref() {
                body.add(data).map_err(refused)?;
            }
        }
        Ok::<(), Refusal>(())
    };
    let read = tokio::time::timeout(BODY_TIMEOUT, read).await;
    match read {
        Ok(read) => read.map(|()| body.finish()),
        Err(_) => Err(refuse(
            StatusCode::REQUEST_TIMEOUT,
            &format!("no whole request body within {} s", BODY_TIMEOUT.as_secs()),
        )),
    }
}
