//! One host process: a task that owns it, carries messages both ways and notices its end.
//!
//! Owns the process and its socket. Must never decide what the host loads.

use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use crate::proto::channel::ChannelError;
use crate::proto::spawn::{HostProcess, Program, spawn_host};
use crate::proto::{EXIT_OVER_MEMORY, FdRole, FromHost, ToHost};

/// Messages on their way to a host; more mean that it does not read.
const OUTGOING_MAX: usize = 256;
/// How often a host must show that its loop turns, and for how long it may fail to.
const PING_PERIOD: Duration = Duration::from_secs(5);
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// How long one packet may take.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);

/// What a host's task tells the supervisor.
#[derive(Debug)]
pub enum News {
    /// The host said something.
    Message(FromHost),
    /// The process is gone, and how it ended.
    Ended(Ended),
}

/// The end of a host process.
#[derive(Debug)]
pub struct Ended {
    /// In words.
    pub words: String,
    /// It ended itself for what it held in memory.
    pub over_memory: bool,
}

/// A message with its descriptors.
#[derive(Debug)]
struct Outgoing {
    message: ToHost,
    fds: Vec<(FdRole, OwnedFd)>,
}

/// The supervisor's end of one host. Dropping it kills the process.
#[derive(Debug)]
pub(crate) struct Link {
    sender: mpsc::Sender<Outgoing>,
    task: tokio::task::JoinHandle<()>,
    stuck: Arc<Notify>,
    /// The process, for logs.
    pub pid: Option<u32>,
}

impl Drop for Link {
    fn drop(&mut self) {
        // The task owns the child, which is killed when it is dropped.
        self.task.abort();
    }
}

impl Link {
    /// Starts a host on the thread of this runtime, which must outlive it. News carry `generation`.
    ///
    /// # Errors
    /// When the process cannot be started.
    pub(crate) fn start(
        program: &Program,
        generation: u64,
        news: mpsc::Sender<(u64, News)>,
    ) -> std::io::Result<Self> {
        let host = spawn_host(program)?;
        let pid = host.child.id();
        let (sender, receiver) = mpsc::channel(OUTGOING_MAX);
        let stuck = Arc::new(Notify::new());
        let told = Arc::clone(&stuck);
        let task = tokio::task::spawn(async move {
            let ended = carry(host, receiver, &told, generation, &news).await;
            let _ = news.send((generation, News::Ended(ended))).await;
        });
        Ok(Self {
            sender,
            task,
            stuck,
            pid,
        })
    }

    /// Queues a message. Where the queue is full or the host gone, it is lost: the task notices and
    /// ends the host, which brings everything to be sent anew.
    pub(crate) fn send(&self, message: ToHost, fds: Vec<(FdRole, OwnedFd)>) {
        if let Err(error) = self.sender.try_send(Outgoing { message, fds }) {
            tracing::warn!(pid = self.pid, %error, "message to the host is lost");
            if matches!(error, mpsc::error::TrySendError::Full(_)) {
                self.stuck.notify_one();
            }
        }
    }
}

async fn carry(
    mut host: HostProcess,
    mut outgoing: mpsc::Receiver<Outgoing>,
    stuck: &Notify,
    generation: u64,
    news: &mpsc::Sender<(u64, News)>,
) -> Ended {
    let mut ping = interval(PING_PERIOD);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut heard = Instant::now();
    let words = loop {
        tokio::select! {
            received = host.channel.recv::<FromHost>() => match received {
                Ok((message, _)) => {
                    heard = Instant::now();
                    if news.send((generation, News::Message(message))).await.is_err() {
                        return Ended {
                            words: "the supervisor is gone".to_owned(),
                            over_memory: false,
                        };
                    }
                }
                Err(ChannelError::Closed) => break "host process".to_owned(),
                Err(error) => break format!("host process sent something wrong: {error}"),
            },
            Some(Outgoing { message, fds }) = outgoing.recv() => {
                if let Err(words) = send(&host, &message, &fds).await {
                    break words;
                }
            }
            () = stuck.notified() => {
                let _ = host.child.start_kill();
                break "host process did not read its messages and".to_owned();
            }
            _ = ping.tick() => {
                if heard.elapsed() > SILENCE_MAX {
                    break format!("host process did not answer for {} s", SILENCE_MAX.as_secs());
                }
                if let Err(words) = send(&host, &ToHost::Ping {}, &[]).await {
                    break words;
                }
            }
        }
    };
    // A closed socket is followed by the end of the process; one that stays is killed.
    let status = match timeout(Duration::from_secs(2), host.child.wait()).await {
        Ok(status) => status,
        Err(_) => {
            let _ = host.child.start_kill();
            host.child.wait().await
        }
    };
    let code = status.as_ref().ok().and_then(ExitStatus::code);
    Ended {
        words: match &status {
            Ok(status) => format!("{words} ended: {status}"),
            Err(error) => format!("{words} ended: {error}"),
        },
        over_memory: code == Some(i32::from(EXIT_OVER_MEMORY)),
    }
}

async fn send(
    host: &HostProcess,
    message: &ToHost,
    fds: &[(FdRole, OwnedFd)],
) -> Result<(), String> {
    let fds: Vec<_> = fds.iter().map(|(role, fd)| (*role, fd.as_fd())).collect();
    match timeout(SEND_TIMEOUT, host.channel.send(message, &fds)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(format!("host process: {error}")),
        Err(_) => Err("host process does not read its messages".to_owned()),
    }
}
