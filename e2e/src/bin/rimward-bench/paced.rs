//! Requests that are due by the clock, each written down.
//!
//! Like `rimward_e2e::load`, which counts; here each exchange is kept, to be put in order with what else happened.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use bytes::Bytes;

use crate::client::{Client, FALLBACK, Reply, VERSION};

/// One request and what became of it.
#[derive(Debug)]
pub(crate) struct Exchange {
    /// When it was to be sent.
    pub(crate) due: Instant,
    /// When its answer was read, or it failed.
    pub(crate) ended: Instant,
    /// The revision that answered.
    pub(crate) version: String,
    /// The revision in trial that failed it before; empty if none did.
    pub(crate) fallback: String,
    /// Why there was no good answer; none if there was.
    pub(crate) failure: Option<String>,
}

impl Exchange {
    /// Whether this revision had to do with it.
    pub(crate) fn touched(&self, revision: &str) -> bool {
        self.version == revision || self.fallback == revision
    }

    /// From when it was due, in microseconds.
    pub(crate) fn latency(&self) -> f64 {
        (self.ended - self.due).as_secs_f64() * 1e6
    }
}

/// Requests under way.
#[derive(Debug)]
pub(crate) struct Paced {
    is_over: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<Result<Vec<Exchange>>>,
}

impl Paced {
    /// Begins to post `bodies` in turn to a path of `HOST:PORT`; each connection has one request at a time, and an
    /// equal share of the rate.
    pub(crate) fn start(
        authority: String,
        path: String,
        bodies: Vec<Bytes>,
        rate_per_second: u32,
        connections: u32,
    ) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let stop = is_over.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            let started = Instant::now();
            let gap = Duration::from_secs(1) / rate_per_second;
            let workers = (0..connections).map(|worker| {
                let (authority, path, bodies, stop) = (&authority, &path, &bodies, &stop);
                async move {
                    let mut client = None;
                    let mut exchanges = Vec::new();
                    let mut index = worker;
                    while !stop.load(Ordering::Relaxed) {
                        let due = started + gap * index;
                        tokio::time::sleep_until(due.into()).await;
                        let body = &bodies[index as usize % bodies.len()];
                        let outcome = one(&mut client, authority, path, body).await;
                        exchanges.push(written_down(due, outcome));
                        index += connections;
                    }
                    exchanges
                }
            });
            Ok(runtime
                .block_on(futures::future::join_all(workers))
                .into_iter()
                .flatten()
                .collect())
        });
        Self { is_over, thread }
    }

    /// Stops, and gives all that was exchanged, in order of the answers.
    pub(crate) async fn stop(self) -> Result<Vec<Exchange>> {
        self.is_over.store(true, Ordering::Relaxed);
        let joined = tokio::task::spawn_blocking(move || self.thread.join()).await?;
        let mut exchanges = joined.map_err(|_| anyhow!("the client's thread broke"))??;
        exchanges.sort_by_key(|exchange| exchange.ended);
        Ok(exchanges)
    }
}

async fn one(
    client: &mut Option<Client>,
    authority: &str,
    path: &str,
    body: &Bytes,
) -> Result<Reply> {
    let mut connected = match client.take() {
        Some(client) => client,
        None => Client::connect(authority).await?,
    };
    let reply = connected.post(path, body).await?;
    *client = Some(connected);
    Ok(reply)
}

fn written_down(due: Instant, outcome: Result<Reply>) -> Exchange {
    let ended = Instant::now();
    let (version, fallback, failure) = match outcome {
        Ok(reply) => (
            reply.header(VERSION).to_owned(),
            reply.header(FALLBACK).to_owned(),
            (!reply.status.is_success())
                .then(|| format!("{}: {}", reply.status, String::from_utf8_lossy(&reply.body))),
        ),
        Err(error) => (String::new(), String::new(), Some(format!("{error:#}"))),
    };
    Exchange {
        due,
        ended,
        version,
        fallback,
        failure,
    }
}
