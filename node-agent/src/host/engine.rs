//! The wasmtime engine: what a module may use of WebAssembly, and how instances are pooled.
//!
//! Preflight compiles and the host loads, so both must build the very same code settings; only the
//! pool differs. The host never compiles.

use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

/// The largest linear memory of a guest, and the address space reserved for each: with more, the
/// pool's slots would reserve hundreds of GiB of address space.
pub const GUEST_MEMORY_BYTES_MAX: u64 = 64 << 20;

/// How often a running guest is looked at: the grain of its wall-clock limit.
pub const TICK: Duration = Duration::from_millis(5);

/// The most elements of a guest's table.
pub const TABLE_ELEMENTS_MAX: usize = 20_000;

/// Written pages that a free place in the pool keeps for the next guest.
const KEPT_BYTES_MAX: usize = 256 << 10;

/// Core instances of one component: the module, the shims that wit-component makes, and one spare.
pub const CORE_INSTANCES_MAX: u32 = 4;

/// Tables of one component.
pub const TABLES_MAX: u32 = 2;

/// Makes the engine for at most `instances_max` components at one time.
pub fn engine(instances_max: u32) -> wasmtime::Result<Engine> {
    let instances_max = instances_max.max(1);
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(instances_max)
        .total_core_instances(instances_max.saturating_mul(CORE_INSTANCES_MAX))
        .total_memories(instances_max)
        .total_tables(instances_max.saturating_mul(TABLES_MAX))
        .max_core_instances_per_component(CORE_INSTANCES_MAX)
        .max_memories_per_component(1)
        .max_tables_per_component(TABLES_MAX)
        .max_memories_per_module(1)
        .table_elements(TABLE_ELEMENTS_MAX)
        .max_memory_size(GUEST_MEMORY_BYTES_MAX as usize)
        .max_unused_warm_slots(4);
    if PoolingAllocationConfig::is_pagemap_scan_available() {
        // The kernel tells which pages a guest wrote: those few are restored in place, without giving
        // them back and faulting them in again for the next request.
        pool.pagemap_scan(Enabled::Yes)
            .linear_memory_keep_resident(KEPT_BYTES_MAX)
            .table_keep_resident(KEPT_BYTES_MAX);
    }
    let mut config = Config::new();
    config
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool))
        .memory_reservation(GUEST_MEMORY_BYTES_MAX)
        .memory_guard_size(64 << 10)
        .memory_may_move(false)
        .epoch_interruption(true)
        .max_wasm_stack(512 << 10)
        .wasm_component_model(true)
        .wasm_multi_memory(false)
        .wasm_relaxed_simd(false)
        .wasm_tail_call(false)
        // Answers must not differ between devices in the bits of a NaN.
        .cranelift_nan_canonicalization(true);
    Engine::new(&config)
}

/// A hash over everything that native code must agree on with the engine that runs it, in hex.
pub fn compatibility_hash(engine: &Engine) -> String {
    let mut hasher = Sha256Hasher(ring::digest::Context::new(&ring::digest::SHA256));
    engine.precompile_compatibility_hash().hash(&mut hasher);
    hex(hasher.0.finish().as_ref())
}

/// Lower-case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

struct Sha256Hasher(ring::digest::Context);

impl Hasher for Sha256Hasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Never asked for: the digest is taken from the context.
    fn finish(&self) -> u64 {
        0
    }
}

/// Ticks an engine's epoch while anything runs, and sleeps while nothing does.
#[derive(Clone, Debug)]
pub struct Ticker(Arc<TickerState>);

#[derive(Debug)]
struct TickerState {
    guests: std::sync::Mutex<Guests>,
    wake: std::sync::Condvar,
}

#[derive(Debug, Default)]
struct Guests {
    running: usize,
    /// The thread waits for one: waking a thread that does not costs a system call each request.
    ticker_waits: bool,
}

impl Ticker {
    /// Starts the thread; it ends with the engine.
    pub fn start(engine: &Engine) -> std::io::Result<Self> {
        let state = Arc::new(TickerState {
            guests: std::sync::Mutex::default(),
            wake: std::sync::Condvar::new(),
        });
        let (weak, shared) = (engine.weak(), Arc::clone(&state));
        std::thread::Builder::new()
            .name("epoch".to_owned())
            .stack_size(64 << 10)
            .spawn(move || {
                loop {
                    {
                        let mut guests = lock(&shared.guests);
                        guests.ticker_waits = guests.running == 0;
                        while guests.running == 0 {
                            guests = match shared.wake.wait(guests) {
                                Ok(guests) => guests,
                                Err(poisoned) => poisoned.into_inner(),
                            };
                        }
                        guests.ticker_waits = false;
                    }
                    std::thread::sleep(TICK);
                    let Some(engine) = weak.upgrade() else { return };
                    engine.increment_epoch();
                }
            })?;
        Ok(Self(state))
    }

    /// The epoch advances while the guard lives.
    pub fn run(&self) -> Running {
        let mut guests = lock(&self.0.guests);
        guests.running += 1;
        if guests.ticker_waits {
            self.0.wake.notify_one();
        }
        drop(guests);
        Running(Arc::clone(&self.0))
    }
}

/// Keeps the epoch advancing.
#[derive(Debug)]
pub struct Running(Arc<TickerState>);

impl Drop for Running {
    fn drop(&mut self) {
        lock(&self.0.guests).running -= 1;
    }
}

/// Locks, also after another holder panicked: all that we guard so are plain values.
pub(crate) fn lock<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    match mutex.lock() {
        Ok(guard) => guard,
        Err(poisoned) => poisoned.into_inner(),
    }
}
