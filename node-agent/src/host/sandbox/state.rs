//! What the host keeps for one request in a sandbox, and the limits that hold for it.
//!
//! Lives in the store, so it goes with the instance, whatever the guest did.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use wasmtime::ResourceLimiter;
use wasmtime::component::ResourceTable;

use super::guest::GuestChannel;
use crate::host::backend::{LoadedModel, WorkerContext, Workers};
use crate::host::engine::{
    CORE_INSTANCES_MAX, GUEST_MEMORY_BYTES_MAX, TABLE_ELEMENTS_MAX, TABLES_MAX,
};
use crate::host::tensor::TensorBudget;

/// Calls from one request into the host. A loop over the host's functions is stopped here; wasmtime's
/// own fuel counts each call alone.
pub(crate) const HOST_CALLS_MAX: u32 = 100_000;

/// Handles that a guest may hold at one time.
pub(crate) const HANDLES_MAX: usize = 4096;

/// Why the host stopped a guest; carried through wasmtime as the error of the trap.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stopped {
    /// The request's deadline passed.
    #[error("the deadline passed")]
    Deadline,
    /// Tensors over the budget.
    #[error("{0}")]
    TensorMemory(#[from] crate::host::tensor::OverBudget),
    /// More than [`HOST_CALLS_MAX`].
    #[error("more than {HOST_CALLS_MAX} calls into the host in one request")]
    HostCalls,
}

/// One deployment's model and settings, as its guests see them.
#[derive(Debug)]
pub struct GuestWorld {
    /// The chosen variant, loaded.
    pub model: Arc<dyn LoadedModel>,
    /// The chosen variant's own name.
    pub variant_name: String,
    /// Where its guests run.
    pub workers: Workers,
    /// `runtime.config`.
    pub config: BTreeMap<String, String>,
    /// Log lines and metrics.
    pub channel: GuestChannel,
    /// Linear memory of one instance.
    pub guest_memory_bytes_max: u64,
    /// Tensor bytes of one request.
    pub tensor_bytes_max: u64,
}

/// The data of one request's store.
#[derive(Debug)]
pub(crate) struct GuestState {
    pub(super) table: ResourceTable,
    pub(super) world: Arc<GuestWorld>,
    pub(super) budget: Arc<TensorBudget>,
    pub(super) deadline: Instant,
    pub(super) worker: WorkerContext,
    pub(super) log_lines_left: u32,
    pub(super) limits: MemoryLimits,
    host_calls_left: u32,
}

impl GuestState {
    pub(super) fn new(
        world: Arc<GuestWorld>,
        budget: Arc<TensorBudget>,
        deadline: Instant,
        worker: WorkerContext,
    ) -> Self {
        let mut table = ResourceTable::new();
        table.set_max_capacity(HANDLES_MAX);
        let limits = MemoryLimits {
            memory_bytes_max: world.guest_memory_bytes_max.min(GUEST_MEMORY_BYTES_MAX),
            refused_bytes: None,
        };
        Self {
            table,
            world,
            budget,
            deadline,
            worker,
            log_lines_left: super::guest::LOG_LINES_MAX,
            limits,
            host_calls_left: HOST_CALLS_MAX,
        }
    }

    /// Every host function begins with this.
    pub(super) fn count_call(&mut self) -> wasmtime::Result<()> {
        let Some(left) = self.host_calls_left.checked_sub(1) else {
            return Err(wasmtime::Error::new(Stopped::HostCalls));
        };
        self.host_calls_left = left;
        self.check_deadline()
    }

    /// Host calls have no epoch checks of their own.
    pub(super) fn check_deadline(&self) -> wasmtime::Result<()> {
        if Instant::now() >= self.deadline {
            return Err(wasmtime::Error::new(Stopped::Deadline));
        }
        Ok(())
    }
}

/// Linear memory and tables of one instance.
#[derive(Debug)]
pub(super) struct MemoryLimits {
    memory_bytes_max: u64,
    /// What the guest asked for when it was last refused: tells a trap for want of memory.
    pub(super) refused_bytes: Option<u64>,
}

impl MemoryLimits {
    pub(super) fn refusal(&self) -> Option<String> {
        self.refused_bytes.map(|wanted| {
            format!(
                "module asked for {wanted} bytes of memory, {} are allowed",
                self.memory_bytes_max
            )
        })
    }
}

impl ResourceLimiter for MemoryLimits {
    fn memory_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let allowed = desired as u64 <= self.memory_bytes_max;
        if !allowed {
            self.refused_bytes = Some(desired as u64);
        }
        Ok(allowed)
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(desired <= TABLE_ELEMENTS_MAX)
    }

    fn instances(&self) -> usize {
        CORE_INSTANCES_MAX as usize
    }

    fn tables(&self) -> usize {
        TABLES_MAX as usize
    }

    fn memories(&self) -> usize {
        1
    }
}
