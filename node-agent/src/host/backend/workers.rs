//! Threads that requests run on, guest and engine in one go.
//!
//! Each worker is the one thread of an engine's pool of its own: two callers on one pool are slower
//! than one, and what the engine installs there then runs in place. No engine here can be cancelled,
//! so at its deadline the caller is answered and the thread is written off until it ends by itself;
//! the supervisor replaces a host with too many of them.

use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Instant;

use tokio::sync::oneshot;

use super::catch_panic;
use crate::host::engine::lock;

/// Beyond this many written-off threads nothing more is started, whatever the supervisor does.
const WRITTEN_OFF_MAX: usize = 32;

/// Niceness of a thread that works beside a candidate in trial: where there is not a processor for each, the
/// candidate has nine tenths of one, or its time limit would not be whole.
const BESIDE_NICENESS: i32 = 10;

/// The thread that starts a worker's pool only waits for it.
const STARTER_STACK_BYTES: usize = 128 << 10;

const RUNNING: u8 = 0;
const DONE: u8 = 1;
const WRITTEN_OFF: u8 = 2;

/// What an engine keeps for one worker thread.
#[derive(Clone, Debug, Default)]
pub struct WorkerContext {
    /// rten's pool of one thread: the one that runs the jobs. After a panic, another, made when first used.
    pub(super) rten_pool: Option<Arc<rten::ThreadPool>>,
}

/// Why a job gave no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JobLost {
    /// Its time is over; it may still run.
    #[error("it took longer than its deadline")]
    TimedOut,
    /// It panicked.
    #[error("it panicked: {0}")]
    Panicked(String),
    /// There is no thread for it.
    #[error("{0}")]
    NoThread(String),
}

type Job = Box<dyn FnOnce(&mut WorkerContext) + Send>;

/// A pool of worker threads, started when needed. Callers bound how many jobs run at one time.
#[derive(Clone, Debug, Default)]
pub struct Workers(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    idle: Mutex<Vec<mpsc::Sender<Job>>>,
    written_off: AtomicUsize,
}

impl Workers {
    /// Threads written off and still running.
    pub fn written_off(&self) -> usize {
        self.0.written_off.load(Ordering::Relaxed)
    }

    /// Runs a job on a worker thread; at the deadline it answers [`JobLost::TimedOut`]. One that runs `beside`
    /// another gets less of the processor, on a thread that is not used again: niceness cannot be taken back.
    pub async fn run<T: Send + 'static>(
        &self,
        deadline: Instant,
        beside: bool,
        job: impl FnOnce(&mut WorkerContext) -> T + Send + 'static,
    ) -> Result<T, JobLost> {
        let (send, answer) = oneshot::channel();
        let state = Arc::new(AtomicU8::new(RUNNING));
        let (shared, job_state) = (Arc::clone(&self.0), Arc::clone(&state));
        let worker = self.worker()?;
        let back = worker.clone();
        let job: Job = Box::new(move |context| {
            if beside && let Err(error) = rustix::process::nice(BESIDE_NICENESS) {
                tracing::debug!(%error, "niceness");
            }
            let result = catch_panic(|| job(context)).map_err(|words| {
                // The pool that a panic went through is not used again.
                *context = WorkerContext::default();
                JobLost::Panicked(words)
            });
            if job_state
                .compare_exchange(RUNNING, DONE, Ordering::AcqRel, Ordering::Acquire)
                .is_err()
            {
                shared.written_off.fetch_sub(1, Ordering::Relaxed);
            }
            if !beside {
                lock(&shared.idle).push(back);
            }
            let _ = send.send(result);
        });
        let ended = || JobLost::NoThread("a worker thread has ended".to_owned());
        worker.send(job).map_err(|_| ended())?;
        match tokio::time::timeout_at(deadline.into(), answer).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(ended()),
            Err(_) => {
                self.0.written_off.fetch_add(1, Ordering::Relaxed);
                if state
                    .compare_exchange(RUNNING, WRITTEN_OFF, Ordering::AcqRel, Ordering::Acquire)
                    .is_err()
                {
                    self.0.written_off.fetch_sub(1, Ordering::Relaxed);
                }
                Err(JobLost::TimedOut)
            }
        }
    }

    fn worker(&self) -> Result<mpsc::Sender<Job>, JobLost> {
        if let Some(idle) = lock(&self.0.idle).pop() {
            return Ok(idle);
        }
        if self.written_off() >= WRITTEN_OFF_MAX {
            let message = format!("{WRITTEN_OFF_MAX} worker threads do not end");
            return Err(JobLost::NoThread(message));
        }
        let (send, jobs) = mpsc::channel::<Job>();
        std::thread::Builder::new()
            .name("worker".to_owned())
            .stack_size(STARTER_STACK_BYTES)
            .spawn(move || {
                let pool = Arc::new(rten::ThreadPool::with_num_threads(1));
                let mut context = WorkerContext {
                    rten_pool: Some(Arc::clone(&pool)),
                };
                pool.run(move || {
                    // Ends when every sender is gone: the idle list's and the job's own.
                    while let Ok(job) = jobs.recv() {
                        job(&mut context);
                    }
                });
            })
            .map_err(|error| JobLost::NoThread(format!("no worker thread: {error}")))?;
        Ok(send)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    #[tokio::test]
    async fn a_panic_in_a_job_is_an_error_and_the_next_one_runs() {
        let workers = Workers::default();
        let lost = workers
            .run(soon(), false, |_| panic!("index out of bounds"))
            .await
            .unwrap_err();
        assert_eq!(lost, JobLost::Panicked("index out of bounds".to_owned()));
        assert_eq!(workers.run(soon(), false, |_| 7).await, Ok(7));
    }

    #[tokio::test]
    async fn a_job_that_does_not_end_is_written_off_until_it_does() {
        let workers = Workers::default();
        let (end, ended) = mpsc::channel::<()>();
        let deadline = Instant::now() + Duration::from_millis(20);
        let endless = workers.run(deadline, false, move |_| ended.recv());
        assert_eq!(endless.await, Err(JobLost::TimedOut));
        assert_eq!(workers.written_off(), 1);
        assert_eq!(workers.run(soon(), false, |_| 7).await, Ok(7));
        end.send(()).unwrap();
        let patience = soon();
        while workers.written_off() > 0 && Instant::now() < patience {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(workers.written_off(), 0);
    }

    #[tokio::test]
    async fn an_idle_worker_is_used_again() {
        let workers = Workers::default();
        let thread = |_: &mut WorkerContext| std::thread::current().id();
        let first = workers.run(soon(), false, thread).await;
        assert_eq!(workers.run(soon(), false, thread).await, first);
    }

    #[tokio::test]
    async fn what_runs_beside_another_is_nicer_and_leaves_no_other_thread_so() {
        let workers = Workers::default();
        let niceness = |_: &mut WorkerContext| rustix::process::nice(0).unwrap();
        let before = workers.run(soon(), false, niceness).await.unwrap();
        let beside = workers.run(soon(), true, niceness).await.unwrap();
        assert_eq!(beside, (before + BESIDE_NICENESS).min(19));
        for _ in 0..3 {
            assert_eq!(workers.run(soon(), false, niceness).await, Ok(before));
        }
    }
}
