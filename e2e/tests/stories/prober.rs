//! Asks one node what a digit is, twenty times a second, for as long as a story runs, and excuses a failure only
//! while the node itself is down: from its being killed until its first answer to a request sent after its restart.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use rimward_e2e::digits::{self, Digit};
use rimward_e2e::service::Service;
use tokio::task::JoinHandle;

const EVERY: Duration = Duration::from_millis(50);
/// A request may wait for compilers on a busy machine, not for ever.
const WITHIN: Duration = Duration::from_secs(10);
/// Failures that are kept in words.
const WORDS_MAX: usize = 20;

/// A node being asked all the time.
pub(crate) struct Prober {
    seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
}

/// What came of the asking.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) answers: u64,
    /// Failures while the node was not down.
    pub(crate) failures: Vec<String>,
    /// Failures while it was.
    pub(crate) excused: u64,
    /// From its kill to its first answer, longest.
    pub(crate) longest_down: Duration,
    power: Power,
}

#[derive(Clone, Copy, Debug, Default)]
enum Power {
    #[default]
    Up,
    Killed,
    Restarted {
        killed: Instant,
        at: Instant,
    },
}

impl Prober {
    pub(crate) fn start(host: &str, model: &str, digits: &'static [Digit]) -> Result<Self> {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (host, model, shared) = (host.to_owned(), model.to_owned(), seen.clone());
        // A connection for each request: a kept one that broke would be tried again behind our back.
        let client = reqwest::Client::builder()
            .no_proxy()
            .pool_max_idle_per_host(0)
            .timeout(WITHIN)
            .build()?;
        let task = tokio::spawn(async move {
            let mut ticks = tokio::time::interval(EVERY);
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            for digit in digits.iter().cycle() {
                ticks.tick().await;
                let sent = Instant::now();
                let answer = digits::ask(&client, &host, &model, digit).await;
                let result = match answer {
                    Ok(answer) if answer.label == digit.label => Ok(()),
                    Ok(answer) => Err(format!("{answer:?} for a {}", digit.label)),
                    Err(error) => Err(format!("{error:#}")),
                };
                lock(&shared).add(sent, result);
            }
        });
        Ok(Self { seen, task })
    }

    /// kill -9 of the node's agent, which is started again at once, as its init system would.
    pub(crate) fn kill(&self, agent: &Service) -> Result<()> {
        let killed = Instant::now();
        lock(&self.seen).power = Power::Killed;
        agent.kill();
        agent.resume()?;
        let at = Instant::now();
        lock(&self.seen).power = Power::Restarted { killed, at };
        Ok(())
    }

    pub(crate) fn seen(&self) -> Seen {
        lock(&self.seen).clone()
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Seen {
    fn add(&mut self, sent: Instant, result: Result<(), String>) {
        match (result, self.power) {
            (Ok(()), power) => {
                self.answers += 1;
                if let Power::Restarted { killed, at } = power
                    && sent >= at
                {
                    self.longest_down = self.longest_down.max(killed.elapsed());
                    self.power = Power::Up;
                }
            }
            (Err(why), Power::Up) if self.failures.len() < WORDS_MAX => self.failures.push(why),
            (Err(_), Power::Up) => {}
            (Err(_), Power::Killed | Power::Restarted { .. }) => self.excused += 1,
        }
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}
