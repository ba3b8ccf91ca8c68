//! When pods were seen to get on, by a watch of this program: to the millisecond, where an object's own times are seconds.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context as _, Result};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::runtime::watcher;
use kube::{Api, ResourceExt as _};
use tokio::task::JoinSet;

/// When a pod was first seen at each step.
#[derive(Debug, Clone, Copy)]
pub(super) struct Steps {
    pub(super) made: Instant,
    pub(super) started: Option<Instant>,
    pub(super) ready: Option<Instant>,
}

/// A watch of all pods, until dropped.
pub(super) struct Sights {
    pods: Arc<Mutex<BTreeMap<String, Steps>>>,
    client: kube::Client,
    _watch: JoinSet<()>,
}

impl Sights {
    pub(super) fn start(client: kube::Client) -> Self {
        let pods = Arc::<Mutex<BTreeMap<String, Steps>>>::default();
        let mut watch = JoinSet::new();
        watch.spawn(follow(Api::all(client.clone()), pods.clone()));
        Self {
            pods,
            client,
            _watch: watch,
        }
    }

    /// The pod whose name begins so.
    pub(super) fn of(&self, prefix: &str) -> Result<Steps> {
        let pods = self.pods.lock().unwrap_or_else(PoisonError::into_inner);
        let found = pods.iter().find(|(name, _)| name.starts_with(prefix));
        let (_, steps) = found.with_context(|| format!("no pod {prefix}… was seen"))?;
        Ok(*steps)
    }

    /// How long the kubelet pulled that pod's image, in seconds, and its bytes; nothing when it had it already.
    pub(super) async fn pull(&self, prefix: &str) -> Result<(f64, String)> {
        let events = Api::<Event>::all(self.client.clone());
        let list = events.list(&kube::api::ListParams::default()).await?;
        let of_pod = |event: &&Event| {
            let name = event.involved_object.name.as_deref().unwrap_or_default();
            name.starts_with(prefix) && event.reason.as_deref() == Some("Pulled")
        };
        let messages = list.items.iter().filter(of_pod);
        let mut pulls = messages.filter_map(|event| parse_pull(event.message.as_deref()?));
        Ok(pulls.next().unwrap_or_default())
    }
}

/// From `Successfully pulled image "X" in 1.2s (1.2s including waiting). Image size: 123 bytes.`
fn parse_pull(message: &str) -> Option<(f64, String)> {
    let (_, rest) = message.split_once("\" in ")?;
    let (took, rest) = rest.split_once(' ')?;
    let (_, size) = rest.split_once("Image size: ")?;
    let size = size.split(' ').next()?.to_owned();
    let seconds = match (took.strip_suffix("ms"), took.strip_suffix('s')) {
        (Some(it), _) => it.parse::<f64>().ok()? / 1e3,
        (None, Some(it)) => match it.split_once('m') {
            Some((minutes, it)) => minutes.parse::<f64>().ok()? * 60.0 + it.parse::<f64>().ok()?,
            None => it.parse().ok()?,
        },
        (None, None) => return None,
    };
    Some((seconds, size))
}

async fn follow(api: Api<Pod>, pods: Arc<Mutex<BTreeMap<String, Steps>>>) {
    let mut events = Box::pin(watcher::watcher(api, watcher::Config::default()));
    while let Some(event) = events.next().await {
        let pod = match event {
            Ok(watcher::Event::Apply(pod) | watcher::Event::InitApply(pod)) => pod,
            _ => continue,
        };
        let now = Instant::now();
        let status = pod.status.clone().unwrap_or_default();
        let containers = status.container_statuses.unwrap_or_default();
        let mut states = containers.iter().map(|it| it.state.as_ref());
        let runs = states.any(|it| it.is_some_and(|it| it.running.is_some()));
        let conditions = status.conditions.unwrap_or_default();
        let mut conditions = conditions.iter();
        let is_ready = conditions.any(|it| it.type_ == "Ready" && it.status == "True");
        let mut pods = pods.lock().unwrap_or_else(PoisonError::into_inner);
        let steps = pods.entry(pod.name_any()).or_insert(Steps {
            made: now,
            started: None,
            ready: None,
        });
        if runs {
            steps.started.get_or_insert(now);
        }
        if is_ready {
            steps.ready.get_or_insert(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::parse_pull;

    #[test]
    fn the_time_of_a_pull_is_read_from_the_kubelets_words() {
        let of = |took: &str| {
            let message = format!(
                "Successfully pulled image \"a/b@sha256:1\" in {took} ({took} including waiting). Image size: 123 bytes."
            );
            parse_pull(&message)
        };
        assert_eq!(of("345ms"), Some((0.345, "123".to_owned())));
        assert_eq!(of("1.5s"), Some((1.5, "123".to_owned())));
        assert_eq!(of("1m2.5s"), Some((62.5, "123".to_owned())));
        let had = "Container image \"a\" already present on machine";
        assert_eq!(parse_pull(had), None);
    }
}
