//! The REST form of the Open Inference Protocol, version 2: paths, methods and status codes.
//!
//! Every error is `{"error": "…"}` and says what is wrong and where. 4xx is the client's, 5xx ours;
//! 503 passes (no version yet, queue full), and says when to come back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::{Method, Request, StatusCode};
use hyper::body::Incoming;
use serde_json::json;

use super::answers::{Answer, Refusal, clip, error, not_here, ok, refuse, status, wrong_method};
use super::encode;
use super::infer::infer;
use super::room::Rooms;
use crate::host::routes::{Route, Routes};
use crate::host::slot::Slot;
use crate::proto::HostLimits;

/// What every request is answered with.
#[derive(Clone, Debug)]
pub(super) struct Rest {
    routes: Routes,
    pub(super) rooms: Rooms,
    pub(super) body_bytes_max: u64,
    draining: Arc<AtomicBool>,
}

impl Rest {
    pub(super) fn new(routes: Routes, limits: &HostLimits) -> Self {
        Self {
            routes,
            rooms: Rooms::new(limits.inflight_bytes_max),
            body_bytes_max: limits.body_bytes_max,
            draining: Arc::default(),
        }
    }

    /// From now on the node is told as not ready.
    pub(super) fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }
}

/// Answers one request; never fails, an error is an answer.
pub(super) async fn answer(rest: &Rest, request: Request<Incoming>) -> Answer {
    let path = request.uri().path().to_owned();
    let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
    let method = request.method().clone();
    let read = method == Method::GET || method == Method::HEAD;
    let post = method == Method::POST;
    match segments.as_slice() {
        ["v2"] if read => {
            ok(json!({"name": "rimward", "version": env!("CARGO_PKG_VERSION"), "extensions": []}))
        }
        ["v2", "health", "live"] if read => ok(json!({"live": true})),
        ["v2", "health", "ready"] if read => {
            let leaves = rest.draining.load(Ordering::Relaxed);
            let ready = !leaves && !rest.routes.table().is_empty();
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
            find(rest, model, None).map_or_else(|refusal| *refusal, |found| metadata(&found))
        }
        ["v2", "models", model, "versions", version] if read => find(rest, model, Some(version))
            .map_or_else(|refusal| *refusal, |found| metadata(&found)),
        ["v2", "models", model, "ready"] if read => ready(rest, model, None),
        ["v2", "models", model, "versions", version, "ready"] if read => {
            ready(rest, model, Some(version))
        }
        ["v2", "models", model, "infer"] if post => infer(rest, model, None, request).await,
        ["v2", "models", model, "versions", version, "infer"] if post => {
            infer(rest, model, Some(version), request).await
        }
        ["v2", "models", _, "infer"] | ["v2", "models", _, "versions", _, "infer"] => {
            wrong_method(&method, &path, "POST")
        }
        ["v2"]
        | ["v2", "health", "live" | "ready"]
        | ["v2", "models"]
        | ["v2", "models", _]
        | ["v2", "models", _, "ready"]
        | ["v2", "models", _, "versions", _]
        | ["v2", "models", _, "versions", _, "ready"] => wrong_method(&method, &path, "GET, HEAD"),
        ["v2", "repository", "models", _, "load" | "unload"] => not_here(&path),
        _ => error(
            StatusCode::NOT_FOUND,
            &format!("there is nothing at {}", clip(&path)),
        ),
    }
}

/// What a path names: an endpoint, and perhaps one version of it.
pub(super) struct Found {
    pub(super) model: String,
    pub(super) route: Route,
    pub(super) slot: Arc<Slot>,
}

pub(super) fn find(rest: &Rest, model: &str, version: Option<&str>) -> Result<Found, Refusal> {
    let table = rest.routes.table();
    let route = table.get(model).ok_or_else(|| {
        refuse(
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
        refuse(
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
        Err(refusal) => *refusal,
    }
}
