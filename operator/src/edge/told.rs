//! How a session hears of its assignment on the hub: by a watch of its own, or told by the hub that it runs on.
//!
//! Owns the second: a thousand sessions on one hub need no watch each of what that hub sees anyway. Must never decide
//! what an absence means.

use std::sync::Arc;

use kube::runtime::watcher::Event;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::observe::Assignment;

/// The hub's assignment as it stands now and as it changes; none while it is not there.
pub(crate) type Told = watch::Receiver<Option<Arc<Assignment>>>;

/// Hands what is told to `on`, until shutdown.
pub(crate) async fn follow(
    mut told: Told,
    shutdown: &CancellationToken,
    mut on: impl FnMut(Event<Assignment>),
) {
    let mut last: Option<Arc<Assignment>> = None;
    told.mark_changed();
    loop {
        let changed = tokio::select! {
            () = shutdown.cancelled() => return,
            changed = told.changed() => changed,
        };
        if changed.is_err() {
            // The hub forgot the cluster; what it said last stands.
            return shutdown.cancelled().await;
        }
        let now = told.borrow_and_update().clone();
        match (&now, last.take()) {
            (Some(now), _) => on(Event::Apply((**now).clone())),
            (None, Some(last)) => on(Event::Delete((*last).clone())),
            (None, None) => {}
        }
        last = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::ResourceExt as _;
    use kube::core::DeserializeGuard;
    use rimward_crds::{ClusterAssignment, ClusterAssignmentSpec};

    fn assignment(version: &str) -> Option<Arc<Assignment>> {
        let mut object = ClusterAssignment::new("site", ClusterAssignmentSpec::default());
        object.metadata.resource_version = Some(version.to_owned());
        Some(Arc::new(DeserializeGuard(Ok(object))))
    }

    #[tokio::test]
    async fn a_session_is_told_what_stands_what_changes_and_what_goes() {
        let (hub, told) = watch::channel(assignment("1"));
        let (says, mut heard) = tokio::sync::mpsc::unbounded_channel();
        let shutdown = CancellationToken::new();
        let stop = shutdown.clone();
        let following = tokio::spawn(async move {
            follow(told, &stop, |event| {
                let said = match event {
                    Event::Apply(object) => format!("+{}", object.resource_version().unwrap()),
                    Event::Delete(object) => format!("-{}", object.resource_version().unwrap()),
                    other => format!("{other:?}"),
                };
                says.send(said).unwrap();
            })
            .await;
        });
        assert_eq!(
            heard.recv().await.unwrap(),
            "+1",
            "without waiting for a change"
        );
        hub.send_replace(assignment("2"));
        assert_eq!(heard.recv().await.unwrap(), "+2");
        hub.send_replace(None);
        assert_eq!(heard.recv().await.unwrap(), "-2");
        hub.send_replace(assignment("9"));
        assert_eq!(heard.recv().await.unwrap(), "+9");
        drop(hub);
        tokio::task::yield_now().await;
        assert!(
            heard.try_recv().is_err(),
            "a hub that forgets takes nothing away"
        );
        shutdown.cancel();
        following.await.unwrap();
    }
}
