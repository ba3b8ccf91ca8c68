//! An EdgeCluster's status: what its heartbeat and its session's report say of it.

use k8s_openapi::jiff::Timestamp;
use rimward_core::fleet::Connection;
use rimward_crds::reasons::{HubReason, condition};
use rimward_crds::{ClusterAssignmentStatus, EdgeCluster, EdgeClusterStatus};

use super::{Says, conditions, find};
use crate::hub::parse;

/// What the hub knows of a cluster's connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Link {
    /// No session was ever there.
    NeverJoined,
    /// It beats.
    Connected,
    /// It was silent for longer than the grace.
    Offline {
        /// The grace.
        grace_seconds: u32,
    },
    /// Another cluster reports under this name.
    Clash {
        /// The UID that joined first.
        pinned: String,
        /// The UID that reports now.
        reported: String,
    },
}

/// Judges a cluster's connection. The first UID that reports is pinned by [`cluster`].
pub(crate) fn link(
    object: &EdgeCluster,
    report: Option<&ClusterAssignmentStatus>,
    connection: Connection,
    grace_seconds: u32,
) -> Link {
    let pinned = object
        .status
        .as_ref()
        .and_then(|status| status.cluster_uid.as_ref());
    let reported = report.and_then(|report| report.cluster_uid.as_ref());
    if let (Some(pinned), Some(reported)) = (pinned, reported)
        && pinned != reported
    {
        return Link::Clash {
            pinned: pinned.clone(),
            reported: reported.clone(),
        };
    }
    match connection {
        Connection::NeverJoined => Link::NeverJoined,
        Connection::Beat { age_seconds } if age_seconds >= u64::from(grace_seconds) => {
            Link::Offline { grace_seconds }
        }
        Connection::Beat { .. } => Link::Connected,
    }
}

/// Did this status say that the cluster is offline?
pub(crate) fn was_offline(object: &EdgeCluster) -> bool {
    let conditions = object.status.as_ref().map(|status| &status.conditions);
    conditions
        .and_then(|conditions| find(conditions, condition::AVAILABLE))
        .is_some_and(|available| {
            available.status == "False" && available.reason == HubReason::Offline.as_str()
        })
}

/// What the status shall say. `push` is what keeps the hub from dialling a Push cluster.
pub(crate) fn cluster(
    object: &EdgeCluster,
    report: Option<&ClusterAssignmentStatus>,
    link: &Link,
    push: Option<&(HubReason, String)>,
    now: Timestamp,
) -> EdgeClusterStatus {
    let old = object.status.clone().unwrap_or_default();
    let generation = object.metadata.generation;
    let says = says(object, link, push);
    // A clashing cluster's words are not believed.
    let report = report.filter(|_| !matches!(link, Link::Clash { .. }));
    EdgeClusterStatus {
        observed_generation: generation,
        conditions: conditions(&old.conditions, generation, now, says),
        cluster_uid: old
            .cluster_uid
            .or_else(|| report.and_then(|report| report.cluster_uid.clone())),
        versions: report
            .and_then(|report| report.versions.clone())
            .or(old.versions),
        nodes: report.and_then(|report| report.nodes.clone()).or(old.nodes),
        capabilities: report
            .and_then(|report| report.capabilities.clone())
            .or(old.capabilities),
        credential_expires_time: old.credential_expires_time,
    }
}

fn says(object: &EdgeCluster, link: &Link, push: Option<&(HubReason, String)>) -> Vec<Says> {
    let (joined, reason, message) = match link {
        Link::NeverJoined => (
            false,
            HubReason::NeverJoined,
            "no session has reported yet".to_owned(),
        ),
        Link::Connected => (true, HubReason::Connected, "its session reports".to_owned()),
        Link::Offline { grace_seconds } => (
            true,
            HubReason::Offline,
            format!("no heartbeat for {grace_seconds} s or more"),
        ),
        Link::Clash { pinned, reported } => (
            true,
            HubReason::IdentityClash,
            format!(
                "the cluster with UID {reported} reports under this name, but the one with UID {pinned} joined; \
                 delete and add the EdgeCluster to take the new one"
            ),
        ),
    };
    let joined_words = (reason, message.clone());
    // Why it cannot be dialled tells more than that it is silent.
    let (reason, message) = match (link, push) {
        (Link::Clash { .. }, _) | (_, None) => (reason, message),
        (_, Some((reason, message))) => (*reason, message.clone()),
    };
    let available = matches!(link, Link::Connected);
    let stalled = matches!(
        reason,
        HubReason::IdentityClash | HubReason::KubeconfigInvalid
    );
    let good = available && !stalled && push.is_none();
    let words = reason.as_str();
    let held = parse::held(object);
    vec![
        Says::new(
            condition::JOINED,
            joined,
            joined_words.0.as_str(),
            joined_words.1,
        ),
        Says::new(condition::AVAILABLE, available, words, message.clone()),
        match held {
            Some(why) => Says::new(condition::HELD, true, HubReason::Held.as_str(), why),
            None => Says::new(
                condition::HELD,
                false,
                HubReason::AsDesired.as_str(),
                "the site takes updates",
            ),
        },
        Says::new(condition::READY, good, words, message.clone()),
        Says::new(
            condition::RECONCILING,
            !good && !stalled && !matches!(link, Link::Offline { .. }),
            words,
            "",
        ),
        Says::new(
            condition::STALLED,
            stalled,
            words,
            if stalled { message } else { String::new() },
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::{Link, cluster, link, was_offline};
    use crate::hub::status::find;
    use k8s_openapi::jiff::Timestamp;
    use rimward_core::fleet::Connection;
    use rimward_crds::reasons::HubReason;
    use rimward_crds::{ClusterAssignmentStatus, EdgeCluster};

    fn object() -> EdgeCluster {
        serde_yaml::from_str(
            "{apiVersion: rimward.dev/v1alpha1, kind: EdgeCluster, metadata: {name: berlin, generation: 1},
              spec: {connection: {mode: Pull}}}",
        )
        .unwrap()
    }

    fn report(uid: &str) -> ClusterAssignmentStatus {
        ClusterAssignmentStatus {
            cluster_uid: Some(uid.to_owned()),
            ..ClusterAssignmentStatus::default()
        }
    }

    fn after(object: &EdgeCluster, uid: &str, age_seconds: u64) -> (EdgeCluster, Link) {
        let report = report(uid);
        let connection = Connection::Beat { age_seconds };
        let link = link(object, Some(&report), connection, 300);
        let mut next = object.clone();
        next.status = Some(cluster(
            object,
            Some(&report),
            &link,
            None,
            Timestamp::UNIX_EPOCH,
        ));
        (next, link)
    }

    fn says(object: &EdgeCluster, type_: &str) -> (String, String) {
        let status = object.status.as_ref().unwrap();
        let found = find(&status.conditions, type_).unwrap();
        (found.status.clone(), found.reason.clone())
    }

    #[test]
    fn the_first_uid_is_pinned_and_another_one_is_a_clash() {
        let (joined, _) = after(&object(), "one", 0);
        assert_eq!(
            joined.status.as_ref().unwrap().cluster_uid.as_deref(),
            Some("one")
        );
        assert_eq!(says(&joined, "Ready"), ("True".into(), "Connected".into()));
        let (clashing, found) = after(&joined, "two", 0);
        assert!(matches!(found, Link::Clash { .. }));
        assert_eq!(
            says(&clashing, "Stalled"),
            ("True".into(), "IdentityClash".into())
        );
        assert_eq!(says(&clashing, "Available").0, "False");
        assert_eq!(
            clashing.status.as_ref().unwrap().cluster_uid.as_deref(),
            Some("one")
        );
        let (back, _) = after(&clashing, "one", 0);
        assert_eq!(says(&back, "Ready").0, "True", "the right one comes back");
    }

    #[test]
    fn silence_makes_a_cluster_unavailable_but_not_stalled() {
        let (silent, _) = after(&object(), "one", 300);
        assert_eq!(
            says(&silent, "Available"),
            ("False".into(), "Offline".into())
        );
        assert_eq!(says(&silent, "Stalled").0, "False");
        assert!(was_offline(&silent));
        assert!(!was_offline(&object()));
    }

    #[test]
    fn a_kubeconfig_that_is_refused_stalls_its_cluster() {
        let problem = (
            HubReason::KubeconfigInvalid,
            "users[0].user.exec is refused".to_owned(),
        );
        let status = cluster(
            &object(),
            None,
            &Link::NeverJoined,
            Some(&problem),
            Timestamp::UNIX_EPOCH,
        );
        let stalled = find(&status.conditions, "Stalled").unwrap();
        assert_eq!(stalled.status, "True");
        assert!(stalled.message.contains("users[0].user.exec"));
        let joined = find(&status.conditions, "Joined").unwrap();
        assert_eq!(joined.reason, "NeverJoined");
    }
}
