//! `rimward:inference/host`: log lines, settings and metrics of a module. All bounded; what is over
//! is dropped and counted, never an error that a guest could provoke.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use super::bindings::rimward::inference::host::{Host, Level};
use super::state::GuestState;
use crate::host::engine::lock;
use crate::proto::GuestMetric;

/// Log lines of one request.
pub(super) const LOG_LINES_MAX: u32 = 64;
/// The longest log line and error text.
pub(super) const TEXT_BYTES_MAX: usize = 1024;
/// Names of metrics in one deployment.
const METRICS_MAX: usize = 16;
/// The longest name of a metric.
const METRIC_NAME_BYTES_MAX: usize = 63;

/// Takes a deployment's log lines and metrics.
#[derive(Clone, Debug)]
pub struct GuestChannel {
    deployment: Arc<str>,
    revision: Arc<str>,
    metrics: Arc<Mutex<Metrics>>,
}

#[derive(Debug, Default)]
struct Metrics {
    by_name: BTreeMap<String, GuestMetric>,
    dropped: u64,
}

impl GuestChannel {
    /// For one version of a deployment.
    pub fn new(deployment: &str, revision: &str) -> Self {
        Self {
            deployment: deployment.into(),
            revision: revision.into(),
            metrics: Arc::default(),
        }
    }

    /// The metrics so far.
    pub fn metrics(&self) -> BTreeMap<String, GuestMetric> {
        lock(&self.metrics).by_name.clone()
    }

    fn record(&self, name: String, value: f64) {
        let mut metrics = lock(&self.metrics);
        let Metrics { by_name, dropped } = &mut *metrics;
        let known = by_name.contains_key(&name);
        if !value.is_finite() || !known && (!is_metric_name(&name) || by_name.len() >= METRICS_MAX)
        {
            *dropped += 1;
            return;
        }
        by_name
            .entry(name)
            .or_insert_with(|| GuestMetric::new(value))
            .add(value);
    }
}

fn is_metric_name(name: &str) -> bool {
    name.len() <= METRIC_NAME_BYTES_MAX
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

/// Cuts a guest's text to [`TEXT_BYTES_MAX`] and takes control characters out of it.
pub(super) fn clip(text: &str) -> String {
    let end = text.floor_char_boundary(TEXT_BYTES_MAX);
    text[..end]
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

impl Host for GuestState {
    fn log(&mut self, level: Level, message: String) -> wasmtime::Result<()> {
        self.count_call()?;
        let Some(left) = self.log_lines_left.checked_sub(1) else {
            return Ok(());
        };
        self.log_lines_left = left;
        let (deployment, revision) = (
            &*self.world.channel.deployment,
            &*self.world.channel.revision,
        );
        let message = clip(&message);
        match level {
            Level::Trace => tracing::trace!(target: "module", deployment, revision, "{message}"),
            Level::Debug => tracing::debug!(target: "module", deployment, revision, "{message}"),
            Level::Info => tracing::info!(target: "module", deployment, revision, "{message}"),
            Level::Warn => tracing::warn!(target: "module", deployment, revision, "{message}"),
            Level::Error => tracing::error!(target: "module", deployment, revision, "{message}"),
        }
        Ok(())
    }

    fn config(&mut self, key: String) -> wasmtime::Result<Option<String>> {
        self.count_call()?;
        Ok(self.world.config.get(&key).cloned())
    }

    fn record_metric(&mut self, name: String, value: f64) -> wasmtime::Result<()> {
        self.count_call()?;
        self.world.channel.record(name, value);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_and_surplus_metrics_are_dropped_and_counted() {
        let channel = GuestChannel::new("default/digits", "r1");
        for name in ["Upper", "1st", "", "white space"] {
            channel.record(name.to_owned(), 1.0);
        }
        channel.record("good".to_owned(), f64::NAN);
        for index in 0..20 {
            channel.record(format!("m{index}"), f64::from(index));
        }
        channel.record("m3".to_owned(), -3.0);
        let metrics = channel.metrics();
        assert_eq!(metrics.len(), METRICS_MAX);
        assert_eq!(
            metrics["m3"],
            GuestMetric {
                count: 2,
                sum: 0.0,
                min: -3.0,
                max: 3.0
            }
        );
        assert_eq!(lock(&channel.metrics).dropped, 4 + 1 + 4);
    }

    #[test]
    fn text_is_cut_at_a_character_and_loses_control_characters() {
        let text = clip(&format!("a\nb{}", "é".repeat(600)));
        assert!(text.len() <= TEXT_BYTES_MAX);
        assert!(text.starts_with("a bé"));
    }
}
