//! The credential with which one session was dialled, for as long as the session runs.
//!
//! Owns noticing that it is another one, or refused, and why a cluster is not heard. Must never start a session.

use kube::Client;
use rimward_core::ids::ClusterName;
use rimward_crds::SecretKeyReference;
use rimward_crds::reasons::HubReason;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Hub, LOOK, SecretMeta, look};
use crate::cache::Guarded;
use crate::definitions::Gate;
use crate::edge::pace::Pace;

/// What a session was dialled with.
pub(super) struct Credential<'a> {
    pub(super) definitions: &'a Gate,
    pub(super) hub: &'a Hub,
    pub(super) cluster: &'a ClusterName,
    pub(super) reference: &'a SecretKeyReference,
    pub(super) bytes: &'a [u8],
    pub(super) edge: &'a Client,
}

impl Credential<'_> {
    /// Returns when the kubeconfig is another one or cannot be used any more, or when asked to stop. Meanwhile says
    /// whether the cluster's API server answers, where its heartbeat does not say so.
    pub(super) async fn until_it_changes(
        &mut self,
        secret: &mut watch::Receiver<Option<Guarded<SecretMeta>>>,
        stop: &CancellationToken,
        pace: &mut Pace,
    ) {
        let (hub, name) = (self.hub, self.cluster.as_str());
        // The first look is at once: nobody was heard yet.
        let mut read = false;
        loop {
            if read {
                match hub.kubeconfig(self.reference).await {
                    Ok(now) if now != self.bytes => return,
                    Err((HubReason::KubeconfigInvalid, _)) => return,
                    Ok(_) => read = false,
                    // The hub's own API server is slow: no reason to end a session. Asked again.
                    Err(_) => {}
                }
            }
            let heard = hub.is_heard(self.cluster);
            let problem = if let Some(words) = self.definitions.unfit() {
                Some((HubReason::DefinitionsUnfit, words))
            } else if heard {
                pace.succeeded();
                None
            } else {
                look(self.edge.apiserver_version())
                    .await
                    .err()
                    .map(|(refused, message)| {
                        // Another one may be there, and the watch of it away.
                        read |= refused;
                        (HubReason::Unreachable, format!("its API server: {message}"))
                    })
            };
            hub.set_problem(name, problem);
            tokio::select! {
                () = stop.cancelled() => return,
                changed = secret.changed() => read |= changed.is_ok(),
                () = self.definitions.turns() => {}
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }
}
