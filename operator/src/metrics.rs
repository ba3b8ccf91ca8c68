//! Prometheus metrics of both roles. Labels come from closed sets, never from objects' names.
//!
//! Owns the registry and the names. The list below is the reference that `docs/` shows.

use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// Kinds of objects that the operator watches or writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, EncodeLabelValue)]
pub(crate) enum Kind {
    /// EdgeCluster.
    EdgeCluster,
    /// Model.
    Model,
    /// ModelDeployment.
    ModelDeployment,
    /// RolloutPolicy.
    RolloutPolicy,
    /// ModelRevision.
    ModelRevision,
    /// ClusterAssignment.
    ClusterAssignment,
    /// RolloutAction.
    RolloutAction,
    /// Secret.
    Secret,
    /// EdgeNode.
    #[allow(dead_code, reason = "written by the edge role")]
    EdgeNode,
    /// Lease.
    Lease,
    /// Event.
    Event,
}

impl Kind {
    /// People write it to say what they want.
    pub(crate) fn is_of_people(self) -> bool {
        match self {
            Self::EdgeCluster
            | Self::Model
            | Self::ModelDeployment
            | Self::RolloutPolicy
            | Self::RolloutAction => true,
            Self::ModelRevision
            | Self::ClusterAssignment
            | Self::Secret
            | Self::EdgeNode
            | Self::Lease
            | Self::Event => false,
        }
    }
}

/// What kind of failure something was. The same words stand in logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum Category {
    /// The API server refused or did not answer.
    Api,
    /// Somebody else wrote first; planned again.
    Conflict,
    /// An object passes the schema, but not our types.
    Invalid,
    /// A registry refused or did not answer.
    Registry,
    /// A sync session ended.
    Session,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabel {
    kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CategoryLabel {
    category: Category,
}

/// All metrics of the process.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    plans: Counter,
    plan_seconds: Histogram,
    writes: Family<KindLabel, Counter>,
    errors: Family<CategoryLabel, Counter>,
    watch_errors: Family<KindLabel, Counter>,
    invalid: Family<KindLabel, Gauge>,
    leader: Gauge,
    queued: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("rimward");
        let plan_seconds = Histogram::new([0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 60.0]);
        let metrics = Self {
            plans: Counter::default(),
            plan_seconds: plan_seconds.clone(),
            writes: Family::default(),
            errors: Family::default(),
            watch_errors: Family::default(),
            invalid: Family::default(),
            leader: Gauge::default(),
            queued: Gauge::default(),
            registry: Registry::default(),
        };
        registry.register(
            "plans",
            "Plans made, with or without anything to do",
            metrics.plans.clone(),
        );
        registry.register_with_unit(
            "reconcile",
            "Time from observing to the last write of a plan",
            Unit::Seconds,
            plan_seconds,
        );
        registry.register(
            "writes",
            "Write requests that an API server took, by kind",
            metrics.writes.clone(),
        );
        registry.register("errors", "Failures, by category", metrics.errors.clone());
        registry.register(
            "watch_errors",
            "Watches that broke off and began again, by kind",
            metrics.watch_errors.clone(),
        );
        registry.register(
            "invalid_objects",
            "Objects that pass the schema, but not our types, by kind",
            metrics.invalid.clone(),
        );
        registry.register(
            "leader",
            "1 while this replica leads",
            metrics.leader.clone(),
        );
        registry.register(
            "queued",
            "Models that wait for or are in resolution",
            metrics.queued.clone(),
        );
        Self {
            registry,
            ..metrics
        }
    }
}

impl Metrics {
    /// A plan was made and applied in that many seconds.
    pub(crate) fn planned(&self, seconds: f64) {
        self.plans.inc();
        self.plan_seconds.observe(seconds);
    }

    /// An API server took a write.
    pub(crate) fn wrote(&self, kind: Kind) {
        self.writes.get_or_create(&KindLabel { kind }).inc();
    }

    /// Something failed.
    pub(crate) fn failed(&self, category: Category) {
        self.errors.get_or_create(&CategoryLabel { category }).inc();
    }

    /// A watch broke off.
    pub(crate) fn watch_failed(&self, kind: Kind) {
        self.watch_errors.get_or_create(&KindLabel { kind }).inc();
    }

    /// So many objects of that kind do not parse now.
    pub(crate) fn set_invalid(&self, kind: Kind, objects: usize) {
        self.invalid
            .get_or_create(&KindLabel { kind })
            .set(i64::try_from(objects).unwrap_or(i64::MAX));
    }

    /// This replica leads, or not.
    pub(crate) fn set_leader(&self, leads: bool) {
        self.leader.set(i64::from(leads));
    }

    /// So many models wait for or are in resolution.
    pub(crate) fn set_queued(&self, models: usize) {
        self.queued.set(i64::try_from(models).unwrap_or(i64::MAX));
    }

    /// The OpenMetrics text.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        // Writing into a String cannot fail; half a text is still worth more than none.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::{Category, Kind, Metrics};

    #[test]
    fn what_happened_stands_in_the_text() {
        let metrics = Metrics::default();
        metrics.planned(0.01);
        metrics.wrote(Kind::ClusterAssignment);
        metrics.failed(Category::Registry);
        metrics.set_leader(true);
        let text = metrics.text();
        for line in [
            "rimward_plans_total 1",
            "rimward_writes_total{kind=\"ClusterAssignment\"} 1",
            "rimward_errors_total{category=\"Registry\"} 1",
            "rimward_leader 1",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn the_reference_page_says_what_this_binary_exposes() {
        use rimward_crds::metrics_page::{WRITE, section, with_section};

        let metrics = Metrics::default();
        metrics.planned(0.01);
        metrics.wrote(Kind::Lease);
        metrics.failed(Category::Api);
        metrics.watch_failed(Kind::Lease);
        metrics.set_invalid(Kind::Lease, 1);
        let text = metrics.text();
        // A family without a sample shows no labels, or is not shown at all.
        let (source, _) = include_str!("metrics.rs")
            .split_once("#[cfg(test)]")
            .unwrap();
        let families = source.matches(": Family<").count();
        let section = section("rimward-operator", &text);
        let labelled = section.lines().filter(|row| row.contains(" | `"));
        assert_eq!(labelled.count(), families, "{section}");

        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/reference/metrics.md");
        let page = std::fs::read_to_string(path).unwrap_or_default();
        let expected = with_section(&page, "rimward-operator", &section);
        if std::env::var_os(WRITE).is_some() {
            std::fs::write(path, expected).unwrap();
        } else {
            assert!(
                page == expected,
                "docs/reference/metrics.md differs from the registry: run `cargo xtask gen`"
            );
        }
    }
}
