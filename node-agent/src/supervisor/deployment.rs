//! One deployment in the supervisor: its machine, and the tasks that work for it.

use rimward_core::node::{Effect, Millis, Observation, Phase, State, step};
use rimward_crds::NodeModel;
use tokio::task::JoinHandle;

use rimward_artifact::reference::Repository;

/// The order as it came, with where its package is.
#[derive(Debug, Clone)]
pub(super) struct Source {
    pub(super) entry: NodeModel,
    pub(super) repository: Repository,
}

/// A task that is stopped when this is dropped.
#[derive(Debug)]
pub(super) struct Task(JoinHandle<()>);

impl Task {
    pub(super) fn spawn(future: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(tokio::task::spawn(future))
    }

    pub(super) fn is_running(&self) -> bool {
        !self.0.is_finished()
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[derive(Debug)]
pub(super) struct Deployment {
    pub(super) machine: State,
    pub(super) source: Option<Source>,
    pub(super) staging: Option<Task>,
    pub(super) preflight: Option<Task>,
}

impl Deployment {
    pub(super) fn new(machine: State) -> Self {
        Self {
            machine,
            source: None,
            staging: None,
            preflight: None,
        }
    }

    /// Moves the machine; gives what it asks for.
    pub(super) fn step(&mut self, observation: Observation, now: Millis) -> Vec<Effect> {
        let (next, effects) = step(self.machine.clone(), observation, now);
        self.machine = next;
        effects
    }

    pub(super) fn is_staging(&self) -> bool {
        self.staging.as_ref().is_some_and(Task::is_running)
    }

    /// Its candidate is being loaded for traffic, or has it.
    pub(super) fn is_on_trial(&self) -> bool {
        self.is_in_trial() || matches!(self.machine.phase(), Phase::Starting)
    }

    pub(super) fn is_in_trial(&self) -> bool {
        matches!(self.machine.phase(), Phase::Trial { .. })
    }
}
