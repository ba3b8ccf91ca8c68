//! Threads that engines run on.
//!
//! Each worker has a one-thread pool of its own: two callers on one pool are slower than one. No
//! engine here can be cancelled, so at the deadline the caller is answered and the thread is written
//! off until it ends by itself; the supervisor replaces a host with too many of them.

use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Instant;

use tokio::sync::oneshot;

use super::{BackendError, FaultCode, LoadedModel, ModelTensor, catch_panic};
use crate::host::engine::lock;
use crate::host::tensor::TensorBudget;

/// Beyond this many written-off threads nothing more is started, whatever the supervisor does.
const WRITTEN_OFF_MAX: usize = 32;

/// Room for an engine's recursion over a deep graph.
const STACK_BYTES: usize = 8 << 20;

const RUNNING: u8 = 0;
const DONE: u8 = 1;
const WRITTEN_OFF: u8 = 2;

/// What an engine keeps for one worker thread.
#[derive(Debug, Default)]
pub struct WorkerContext {
    /// rten's pool of one thread: the one that runs the jobs. After a panic, another, made when first used.
    pub(super) rten_pool: Option<Arc<rten::ThreadPool>>,
}

type Job = Box<dyn FnOnce(&mut WorkerContext) + Send>;
type Outputs = Result<Vec<(String, ModelTensor)>, BackendError>;

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

    /// Computes on a worker thread; at the deadline it answers [`FaultCode::Timeout`].
    pub async fn run(
        &self,
        model: Arc<dyn LoadedModel>,
        inputs: Vec<(String, ModelTensor)>,
        budget: Arc<TensorBudget>,
        deadline: Instant,
    ) -> Outputs {
        let (send, answer) = oneshot::channel();
        let state = Arc::new(AtomicU8::new(RUNNING));
        let (shared, job_state) = (Arc::clone(&self.0), Arc::clone(&state));
        let worker = self.worker()?;
        let back = worker.clone();
        let job: Job = Box::new(move |context| {
            let outputs =
                catch_panic(|| model.run(context, inputs, &budget)).unwrap_or_else(|words| {
                    // The pool that a panic went through is not used again.
                    *context = WorkerContext::default();
                    Err(BackendError::new(
                        FaultCode::RuntimeError,
                        format!("the engine panicked: {words}"),
                    ))
                });
            if job_state
                .compare_exchange(RUNNING, DONE, Ordering::AcqRel, Ordering::Acquire)
                .is_err()
            {
                shared.written_off.fetch_sub(1, Ordering::Relaxed);
            }
            lock(&shared.idle).push(back);
            let _ = send.send(outputs);
        });
        if worker.send(job).is_err() {
            return Err(BackendError::new(
                FaultCode::RuntimeError,
                "an inference thread has ended",
            ));
        }
        match tokio::time::timeout_at(deadline.into(), answer).await {
            Ok(Ok(outputs)) => outputs,
            Ok(Err(_)) => Err(BackendError::new(
                FaultCode::RuntimeError,
                "an inference thread has ended",
            )),
            Err(_) => {
                self.0.written_off.fetch_add(1, Ordering::Relaxed);
                if state
                    .compare_exchange(RUNNING, WRITTEN_OFF, Ordering::AcqRel, Ordering::Acquire)
                    .is_err()
                {
                    self.0.written_off.fetch_sub(1, Ordering::Relaxed);
                }
                Err(BackendError::new(
                    FaultCode::Timeout,
                    "inference took longer than the request's deadline",
                ))
            }
        }
    }

    fn worker(&self) -> Result<mpsc::Sender<Job>, BackendError> {
        if let Some(idle) = lock(&self.0.idle).pop() {
            return Ok(idle);
        }
        if self.written_off() >= WRITTEN_OFF_MAX {
            let message = format!("{WRITTEN_OFF_MAX} inference threads do not end");
            return Err(BackendError::new(FaultCode::RuntimeError, message));
        }
        let (send, jobs) = mpsc::channel::<Job>();
        std::thread::Builder::new()
            .name("inference".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || {
                let pool = Arc::new(rten::ThreadPool::with_num_threads(1));
                let mut context = WorkerContext {
                    rten_pool: Some(Arc::clone(&pool)),
                };
                // On the pool's own thread: what rten installs there then runs in place, and a request is
                // handed over once instead of twice.
                pool.run(move || {
                    // Ends when every sender is gone: the idle list's and the job's own.
                    while let Ok(job) = jobs.recv() {
                        job(&mut context);
                    }
                });
            })
            .map_err(|error| {
                BackendError::new(
                    FaultCode::RuntimeError,
                    format!("no inference thread: {error}"),
                )
            })?;
        Ok(send)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::proto::WhatRuns;

    #[derive(Debug)]
    struct Engine(fn() -> Outputs);

    impl LoadedModel for Engine {
        fn what_runs(&self) -> WhatRuns {
            WhatRuns {
                backend: String::new(),
                device: String::new(),
                precision: String::new(),
                memory_bytes: 0,
            }
        }

        fn run(
            &self,
            _: &mut WorkerContext,
            _: Vec<(String, ModelTensor)>,
            _: &Arc<TensorBudget>,
        ) -> Outputs {
            (self.0)()
        }
    }

    async fn run(workers: &Workers, timeout: Duration, engine: fn() -> Outputs) -> Outputs {
        let deadline = Instant::now() + timeout;
        workers
            .run(
                Arc::new(Engine(engine)),
                Vec::new(),
                TensorBudget::new(1),
                deadline,
            )
            .await
    }

    #[tokio::test]
    async fn a_panic_in_an_engine_is_an_error_and_the_next_job_runs() {
        let workers = Workers::default();
        let error = run(&workers, Duration::from_secs(60), || {
            panic!("index out of bounds")
        })
        .await
        .unwrap_err();
        assert_eq!(error.code, FaultCode::RuntimeError);
        assert!(error.message.contains("index out of bounds"), "{error}");
        assert!(
            run(&workers, Duration::from_secs(60), || Ok(Vec::new()))
                .await
                .is_ok()
        );
    }

    #[tokio::test]
    async fn an_engine_that_does_not_end_is_written_off_until_it_does() {
        let workers = Workers::default();
        let slow = || {
            std::thread::sleep(Duration::from_millis(400));
            Ok(Vec::new())
        };
        let error = run(&workers, Duration::from_millis(20), slow)
            .await
            .unwrap_err();
        assert_eq!(error.code, FaultCode::Timeout);
        assert_eq!(workers.written_off(), 1);
        assert!(
            run(&workers, Duration::from_secs(60), || Ok(Vec::new()))
                .await
                .is_ok()
        );
        let patience = Instant::now() + Duration::from_secs(60);
        while workers.written_off() > 0 && Instant::now() < patience {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(workers.written_off(), 0);
    }
}
