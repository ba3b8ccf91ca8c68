//! Open-loop load: requests leave by the clock, whether or not earlier ones were answered.
//!
//! Owns counting, exactly: every request that was due is in the report once, as answered or as failed.
//! Connections are kept alive and nothing is retried, as a strict client does it. A connection that the
//! server closed is left before the next request, never after one was sent on it.
//!
//! Runs on a thread of its own, so that nothing that a story does delays it.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::mpsc;

/// An inference answer is far smaller.
const ANSWER_BYTES_MAX: usize = 4 << 20;

/// Requests that wait for a connection. One more fails: a client does not wait for ever either.
const WAITING_MAX: usize = 10_000;

/// Failures that are kept word by word; all are counted.
const FAILURES_KEPT: usize = 100;

/// Says of an answer who gave it (a version), or why it is none.
pub type Judge = fn(StatusCode, &[u8], index: u64) -> Result<String, String>;

/// What to send.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Where to, by POST.
    pub url: String,
    /// Bodies, in turn: request `n` has body `n` modulo their count, and [`Judge`] is told `n`.
    pub bodies: Vec<Bytes>,
    /// Requests a second.
    pub rate_per_second: u32,
    /// Connections, each used for one request at a time.
    pub connections: usize,
    /// How long one request may take, from its being sent.
    pub timeout: Duration,
    /// Judges the answers.
    pub judge: Judge,
}

/// Who sends.
#[derive(Debug, Clone, Copy, Default)]
pub struct Client<'a> {
    /// The network namespace that it runs in, `/proc/ID/ns/net`; this process's own, without.
    pub network: Option<&'a Path>,
    /// It makes a connection for each request.
    pub is_fresh: bool,
}

/// What became of one request.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Its place in the order of sending, from 0.
    pub index: u64,
    /// When it was due, since the start.
    pub due: Duration,
    /// From when it was due until its answer was read: a wait for a connection counts.
    pub latency: Duration,
    /// Who answered, or why nobody did.
    pub result: Result<String, String>,
}

/// What became of all.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Requests that were due, and therefore were sent or failed.
    pub total: u64,
    /// Failed ones.
    pub failed: u64,
    /// The first failures, in full.
    pub failures: Vec<Outcome>,
    /// The longest time between two good answers.
    pub silence: Duration,
    /// Good answers by who gave them.
    pub answered_by: BTreeMap<String, u64>,
    /// Connections that were opened: more than [`Plan::connections`] if the server closed some.
    pub connects: u64,
    /// Latencies of good answers, sorted, in microseconds.
    pub latencies_microseconds: Vec<u64>,
    /// When the last good answer was read.
    last_answer: Duration,
}

/// Load that is being sent.
#[derive(Debug)]
pub struct Load {
    is_over: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<Result<Report>>>,
}

impl Load {
    /// Begins to send.
    ///
    /// # Errors
    /// When the plan makes no sense.
    pub fn start(plan: Plan) -> Result<Self> {
        Self::start_as(plan, Client::default())
    }

    /// Begins to send as a certain client would.
    ///
    /// # Errors
    /// Also when its network cannot be entered: that takes root.
    pub fn start_as(plan: Plan, client: Client<'_>) -> Result<Self> {
        let open =
            |path: &Path| File::open(path).with_context(|| format!("opening {}", path.display()));
        let network = client.network.map(open).transpose()?;
        let is_fresh = client.is_fresh;
        let uri: Uri = plan
            .url
            .parse()
            .with_context(|| format!("{} is no URL", plan.url))?;
        let authority = uri
            .authority()
            .context("the URL names no host")?
            .to_string();
        if plan.bodies.is_empty() || plan.rate_per_second == 0 || plan.connections == 0 {
            return Err(anyhow!("bodies, rate and connections must not be nothing"));
        }
        let is_over = Arc::new(AtomicBool::new(false));
        let stop = is_over.clone();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let thread = std::thread::spawn(move || {
            if let Some(network) = network {
                use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
                // Of this thread alone; every socket of the load is made on it.
                move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))
                    .context("entering the pod's network")?;
            }
            runtime.block_on(send(
                Target {
                    plan,
                    uri,
                    authority,
                    is_fresh,
                },
                &stop,
            ))
        });
        Ok(Self {
            is_over,
            thread: Some(thread),
        })
    }

    /// Stops sending; what was sent is still waited for.
    pub fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }

    /// Stops sending, waits for the answers that are outstanding, and reports. Blocks.
    ///
    /// # Errors
    /// When the sending thread broke.
    pub fn stop(mut self) -> Result<Report> {
        self.end();
        let thread = self.thread.take().context("the load was stopped before")?;
        thread
            .join()
            .map_err(|_| anyhow!("the load's thread panicked"))?
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

impl Report {
    /// The latency that this share of good answers (in permille) did not exceed, in microseconds.
    #[must_use]
    pub fn latency_microseconds(&self, permille: usize) -> Option<u64> {
        let last = self.latencies_microseconds.len().checked_sub(1)?;
        self.latencies_microseconds
            .get(last * permille.min(1000) / 1000)
            .copied()
    }

    /// That no request failed.
    ///
    /// # Errors
    /// Tells how many did, and the first of them.
    pub fn check_none_failed(&self) -> Result<()> {
        match self.failures.first() {
            None => Ok(()),
            Some(first) => Err(anyhow!(
                "{} of {} requests failed; number {} at {:.3} s: {}",
                self.failed,
                self.total,
                first.index,
                first.due.as_secs_f64(),
                first.result.as_ref().err().map_or("", |why| why.as_str())
            )),
        }
    }

    fn add(&mut self, outcome: Outcome) {
        self.total += 1;
        match &outcome.result {
            Ok(who) => {
                let at = outcome.due + outcome.latency;
                if !self.answered_by.is_empty() {
                    self.silence = self.silence.max(at.saturating_sub(self.last_answer));
                }
                self.last_answer = self.last_answer.max(at);
                *self.answered_by.entry(who.clone()).or_default() += 1;
                let latency = u64::try_from(outcome.latency.as_micros()).unwrap_or(u64::MAX);
                self.latencies_microseconds.push(latency);
            }
            Err(_) => {
                self.failed += 1;
                if self.failures.len() < FAILURES_KEPT {
                    self.failures.push(outcome);
                }
            }
        }
    }
}

struct Target {
    plan: Plan,
    uri: Uri,
    authority: String,
    is_fresh: bool,
}

/// A request that is due.
#[derive(Clone, Copy)]
struct Due {
    index: u64,
    at: Instant,
}

async fn send(target: Target, is_over: &AtomicBool) -> Result<Report> {
    let target = Arc::new(target);
    let start = Instant::now();
    let (dues, queue) = mpsc::channel::<Due>(WAITING_MAX);
    let queue = Arc::new(tokio::sync::Mutex::new(queue));
    let (outcomes, mut results) = mpsc::channel(WAITING_MAX);
    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..target.plan.connections {
        workers.spawn(work(target.clone(), start, queue.clone(), outcomes.clone()));
    }
    let pacing = async {
        let mut index = 0;
        while !is_over.load(Ordering::Relaxed) {
            // By multiplication from the start: rounding never adds up.
            let offset = index * 1_000_000_000 / u64::from(target.plan.rate_per_second);
            let due = Due {
                index,
                at: start + Duration::from_nanos(offset),
            };
            tokio::time::sleep_until(due.at.into()).await;
            if dues.try_send(due).is_err() {
                let result = Err(format!("{WAITING_MAX} requests wait for a connection"));
                let latency = Duration::ZERO;
                let _ = outcomes
                    .send(Outcome {
                        index,
                        due: due.at - start,
                        latency,
                        result,
                    })
                    .await;
            }
            index += 1;
        }
        drop(dues);
        drop(outcomes);
    };
    let collecting = async {
        let mut report = Report::default();
        while let Some(outcome) = results.recv().await {
            report.add(outcome);
        }
        report
    };
    let ((), mut report) = tokio::join!(pacing, collecting);
    while let Some(connects) = workers.join_next().await {
        report.connects += connects.context("a connection's task broke")?;
    }
    report.latencies_microseconds.sort_unstable();
    Ok(report)
}

/// One connection: takes what is due until there is no more. Returns how often it connected.
async fn work(
    target: Arc<Target>,
    start: Instant,
    queue: Arc<tokio::sync::Mutex<mpsc::Receiver<Due>>>,
    outcomes: mpsc::Sender<Outcome>,
) -> u64 {
    let mut connection = None;
    let mut connects = 0;
    loop {
        let due = queue.lock().await.recv().await;
        let Some(due) = due else { return connects };
        let ask = ask(&target, due.index, &mut connection, &mut connects);
        let result = match tokio::time::timeout(target.plan.timeout, ask).await {
            Ok(result) => result,
            Err(_) => Err(format!("no answer within {:?}", target.plan.timeout)),
        };
        if result.is_err() || target.is_fresh {
            connection = None; // what a failed exchange leaves behind is of no use
        }
        let latency = due.at.elapsed();
        let outcome = Outcome {
            index: due.index,
            due: due.at - start,
            latency,
            result,
        };
        if outcomes.send(outcome).await.is_err() {
            return connects;
        }
    }
}

async fn ask(
    target: &Target,
    index: u64,
    connection: &mut Option<SendRequest<Full<Bytes>>>,
    connects: &mut u64,
) -> Result<String, String> {
    let mut kept = connection.take();
    if let Some(sender) = &mut kept
        && sender.ready().await.is_err()
    {
        kept = None; // the server closed it since the last answer
    }
    let mut sender = match kept {
        Some(sender) => sender,
        None => {
            *connects += 1;
            connect(&target.authority).await?
        }
    };
    let bodies = &target.plan.bodies;
    let body = bodies[usize::try_from(index).unwrap_or(0) % bodies.len()].clone();
    let path = target
        .uri
        .path_and_query()
        .map_or("/", |path| path.as_str());
    let request = Request::post(path)
        .header("host", &target.authority)
        .header("content-type", "application/json")
        .body(Full::new(body))
        .map_err(|error| format!("request: {error}"))?;
    let answer = sender
        .send_request(request)
        .await
        .map_err(|error| format!("sent: {error:?}"))?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX)
        .collect()
        .await;
    let body = body
        .map_err(|error| format!("answer cut off: {error}"))?
        .to_bytes();
    *connection = Some(sender);
    (target.plan.judge)(status, &body, index)
}

async fn connect(authority: &str) -> Result<SendRequest<Full<Bytes>>, String> {
    let stream = TcpStream::connect(authority)
        .await
        .map_err(|error| format!("connect: {error}"))?;
    let _ = stream.set_nodelay(true);
    let (sender, driver) = handshake(TokioIo::new(stream))
        .await
        .map_err(|error| format!("connect: {error}"))?;
    tokio::spawn(driver); // ends with the connection; what it fails with, the sender says
    Ok(sender)
}

/// Takes any 200 of the inference protocol for good; who answered is its `model_version`.
///
/// # Errors
/// Quotes the status and the body of anything else.
pub fn any_inference(status: StatusCode, body: &[u8], _index: u64) -> Result<String, String> {
    let text = || String::from_utf8_lossy(&body[..body.len().min(300)]).into_owned();
    if status != StatusCode::OK {
        return Err(format!("{status}: {}", text()));
    }
    let answer: serde_json::Value =
        serde_json::from_slice(body).map_err(|error| format!("no JSON ({error}): {}", text()))?;
    let version = answer["model_version"]
        .as_str()
        .ok_or_else(|| format!("no version: {}", text()))?;
    Ok(version.to_owned())
}

#[cfg(test)]
mod tests;
