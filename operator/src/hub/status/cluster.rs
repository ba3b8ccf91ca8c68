//! An EdgeCluster's status: what its heartbeat and its session's report say of it.

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use rimward_core::fleet::Hearing;
use rimward_crds::common::Time;
use rimward_crds::edge_cluster::CREDENTIAL_EXPIRES;
use rimward_crds::reasons::{HubReason, condition};
use rimward_crds::{ClusterAssignmentStatus, ConnectionMode, EdgeCluster, EdgeClusterStatus};

use super::{Says, conditions, find, whole_seconds};
use crate::hub::parse;
use crate::hub::push::{Ends, Known};

/// How long before its end people are told that a credential ends.
const EXPIRES_SOON: SignedDuration = SignedDuration::from_hours(30 * 24);

/// What the hub knows of a cluster's connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Connection {
    /// No session was ever there.
    NeverJoined,
    /// It beats.
    Connected,
    /// This leader has not heard it yet: what an earlier one said stands.
    Unheard,
    /// It was silent for longer than the grace.
    Offline {
        /// The grace.
        grace_seconds: u32,
    },
    /// Another cluster reports under this name.
    IdentityConflict {
        /// The UID that joined first.
        pinned: String,
        /// The UID that reports now.
        reported: String,
    },
}

/// Judges a cluster's connection. The first UID that reports is pinned by [`cluster`]. `doubted`: so many clusters fell
/// silent at once that the hub does not trust its ears.
pub(crate) fn connection(
    object: &EdgeCluster,
    report: Option<&ClusterAssignmentStatus>,
    hearing: Hearing,
    grace_seconds: u32,
    doubted: bool,
) -> Connection {
    let pinned = object
        .status
        .as_ref()
        .and_then(|status| status.cluster_uid.as_ref());
    let reported = report.and_then(|report| report.cluster_uid.as_ref());
    if let (Some(pinned), Some(reported)) = (pinned, reported)
        && pinned != reported
    {
        return Connection::IdentityConflict {
            pinned: pinned.clone(),
            reported: reported.clone(),
        };
    }
    match hearing {
        Hearing::NeverJoined => Connection::NeverJoined,
        // While the hub doubts its own ears it calls nobody offline: the next leader must doubt too.
        Hearing::Silent if doubted => Connection::Unheard,
        Hearing::Silent => Connection::Offline { grace_seconds },
        Hearing::Unheard => Connection::Unheard,
        Hearing::Heard => Connection::Connected,
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

/// What the status shall say. `push` is what the hub knows of a Push cluster's credential.
pub(crate) fn cluster(
    object: &EdgeCluster,
    report: Option<&ClusterAssignmentStatus>,
    connection: &Connection,
    push: &Known,
    now: Timestamp,
) -> EdgeClusterStatus {
    let old = object.status.clone().unwrap_or_default();
    let generation = object.metadata.generation;
    let expires = credential_expires(object, push.ends);
    let known = find(&old.conditions, condition::JOINED).is_some();
    if *connection == Connection::Unheard
        && known
        && push.problem.is_none()
        && old.observed_generation == generation
        // What was said of silence is taken back once the hub doubts its ears.
        && !was_offline(object)
    {
        // What an earlier leader said stands until there is news; the end of a credential is no word of the cluster's.
        let kept = old.conditions.iter();
        let kept = kept.filter(|it| it.type_ != condition::CREDENTIAL_EXPIRING);
        let mut conditions: Vec<_> = kept.cloned().collect();
        let ends = expires.map(|expires| expiring(object, expires, now));
        conditions.extend(super::conditions(&old.conditions, generation, now, ends));
        return EdgeClusterStatus {
            conditions: super::sorted(&conditions),
            credential_expires_time: expires.map(|expires| Time(whole_seconds(expires))),
            ..old
        };
    }
    let mut says = says(object, connection, push.problem.as_ref());
    says.extend(expires.map(|expires| expiring(object, expires, now)));
    // The words of one whose identity is in conflict are not believed.
    let report = report.filter(|_| !matches!(connection, Connection::IdentityConflict { .. }));
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
        credential_expires_time: expires.map(Time),
    }
}

/// When the credential between hub and cluster ends, as far as it is known: a pushed one says so itself, and of a
/// pulling cluster's it was noted when it was made.
pub(crate) fn credential_expires(object: &EdgeCluster, pushed: Ends) -> Option<Timestamp> {
    let expires = match (object.spec.connection.mode, pushed) {
        (ConnectionMode::Push, Ends::At(expires)) => Some(expires),
        (ConnectionMode::Push, Ends::Unsaid) => None,
        // Not read yet by this leader, or away for a moment.
        (ConnectionMode::Push, Ends::Unread) => {
            let status = object.status.as_ref()?;
            Some(status.credential_expires_time.as_ref()?.0)
        }
        (ConnectionMode::Pull, _) => {
            let annotations = object.metadata.annotations.as_ref()?;
            annotations.get(CREDENTIAL_EXPIRES)?.parse().ok()
        }
    };
    expires.map(whole_seconds)
}

fn expiring(object: &EdgeCluster, expires: Timestamp, now: Timestamp) -> Says {
    let soon = expires
        .checked_sub(EXPIRES_SOON)
        .is_ok_and(|soon| soon <= now);
    if !soon {
        let reason = HubReason::AsDesired.as_str();
        let message = format!("good until {expires}");
        return Says::new(condition::CREDENTIAL_EXPIRING, false, reason, message);
    }
    let name = object.metadata.name.as_deref().unwrap_or_default();
    let push = match object.spec.connection.mode {
        ConnectionMode::Push => " --push",
        ConnectionMode::Pull => "",
    };
    let reason = HubReason::CredentialExpiring.as_str();
    let message = format!(
        "the credential between hub and cluster is good until {expires} and no longer; \
         `kubectl rimward cluster add {name}{push}` renews it"
    );
    Says::new(condition::CREDENTIAL_EXPIRING, true, reason, message)
}

fn says(
    object: &EdgeCluster,
    connection: &Connection,
    push: Option<&(HubReason, String)>,
) -> Vec<Says> {
    let (joined, reason, message) = match connection {
        Connection::NeverJoined => (
            false,
            HubReason::NeverJoined,
            "no session has reported yet".to_owned(),
        ),
        Connection::Unheard => (
            true,
            HubReason::Unheard,
            "not heard since the hub began to listen".to_owned(),
        ),
        Connection::Connected => (true, HubReason::Connected, "its session reports".to_owned()),
        Connection::Offline { grace_seconds } => (
            true,
            HubReason::Offline,
            format!("no heartbeat for {grace_seconds} s or more"),
        ),
        Connection::IdentityConflict { pinned, reported } => (
            true,
            HubReason::IdentityConflict,
            format!(
                "the cluster with UID {reported} reports under this name, but the one with UID {pinned} joined; \
                 delete and add the EdgeCluster to take the new one"
            ),
        ),
    };
    let joined_words = (reason, message.clone());
    // Why it cannot be dialled tells more than that it is silent.
    let (reason, message) = match (connection, push) {
        (Connection::IdentityConflict { .. }, _) | (_, None) => (reason, message),
        (_, Some((reason, message))) => (*reason, message.clone()),
    };
    let available = matches!(connection, Connection::Connected);
    let stalled = matches!(
        reason,
        HubReason::IdentityConflict | HubReason::KubeconfigInvalid
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
            !good && !stalled && !matches!(connection, Connection::Offline { .. }),
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
    use super::{Connection, Ends, Known, cluster, connection, was_offline};
    use crate::hub::status::find;
    use k8s_openapi::jiff::Timestamp;
    use rimward_core::fleet::Hearing;
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

    fn after(object: &EdgeCluster, uid: &str, hearing: Hearing) -> (EdgeCluster, Connection) {
        let report = report(uid);
        let connection = connection(object, Some(&report), hearing, 300, false);
        let mut next = object.clone();
        next.status = Some(cluster(
            object,
            Some(&report),
            &connection,
            &Known::default(),
            Timestamp::UNIX_EPOCH,
        ));
        (next, connection)
    }

    fn says(object: &EdgeCluster, type_: &str) -> (String, String) {
        let status = object.status.as_ref().unwrap();
        let found = find(&status.conditions, type_).unwrap();
        (found.status.clone(), found.reason.clone())
    }

    #[test]
    fn the_first_uid_is_pinned_and_another_one_is_a_clash() {
        let (joined, _) = after(&object(), "one", Hearing::Heard);
        assert_eq!(
            joined.status.as_ref().unwrap().cluster_uid.as_deref(),
            Some("one")
        );
        assert_eq!(says(&joined, "Ready"), ("True".into(), "Connected".into()));
        let (clashing, found) = after(&joined, "two", Hearing::Heard);
        assert!(matches!(found, Connection::IdentityConflict { .. }));
        assert_eq!(
            says(&clashing, "Stalled"),
            ("True".into(), "IdentityConflict".into())
        );
        assert_eq!(says(&clashing, "Available").0, "False");
        assert_eq!(
            clashing.status.as_ref().unwrap().cluster_uid.as_deref(),
            Some("one")
        );
        let (back, _) = after(&clashing, "one", Hearing::Heard);
        assert_eq!(says(&back, "Ready").0, "True", "the right one comes back");
    }

    #[test]
    fn silence_makes_a_cluster_unavailable_but_not_stalled() {
        let (silent, _) = after(&object(), "one", Hearing::Silent);
        assert_eq!(
            says(&silent, "Available"),
            ("False".into(), "Offline".into())
        );
        assert_eq!(says(&silent, "Stalled").0, "False");
        assert!(was_offline(&silent));
        assert!(!was_offline(&object()));
    }

    #[test]
    fn a_cluster_that_this_leader_has_not_heard_keeps_what_was_said_and_so_does_one_that_is_doubted()
     {
        let (joined, _) = after(&object(), "one", Hearing::Heard);
        let (unheard, found) = after(&joined, "one", Hearing::Unheard);
        assert_eq!(found, Connection::Unheard);
        assert_eq!(unheard.status, joined.status);
        let report = report("one");
        let doubted = connection(&joined, Some(&report), Hearing::Silent, 300, true);
        assert_eq!(doubted, Connection::Unheard, "nobody is called offline");
        let (offline, _) = after(&joined, "one", Hearing::Silent);
        assert!(was_offline(&offline));
        let none = Known::default();
        let epoch = Timestamp::UNIX_EPOCH;
        let taken_back = cluster(&offline, Some(&report), &doubted, &none, epoch);
        let mut doubtful = offline.clone();
        doubtful.status = Some(taken_back);
        assert!(!was_offline(&doubtful), "the next leader is to doubt too");
        let (new, _) = after(&object(), "one", Hearing::Unheard);
        assert_eq!(says(&new, "Ready"), ("False".into(), "Unheard".into()));
    }

    #[test]
    fn a_kubeconfig_that_is_refused_stalls_its_cluster() {
        let problem = (
            HubReason::KubeconfigInvalid,
            "users[0].user.exec is refused".to_owned(),
        );
        let known = Known {
            problem: Some(problem),
            ends: Ends::Unread,
        };
        let never = Connection::NeverJoined;
        let status = cluster(&object(), None, &never, &known, Timestamp::UNIX_EPOCH);
        let stalled = find(&status.conditions, "Stalled").unwrap();
        assert_eq!(stalled.status, "True");
        assert!(stalled.message.contains("users[0].user.exec"));
        let joined = find(&status.conditions, "Joined").unwrap();
        assert_eq!(joined.reason, "NeverJoined");
    }

    /// What an object says at a time, as `expires, CredentialExpiring's status`.
    fn ends(object: &EdgeCluster, ends: Ends, now: &str) -> (Option<String>, Option<String>) {
        let known = Known {
            problem: None,
            ends,
        };
        let connection = Connection::Connected;
        let status = cluster(object, None, &connection, &known, now.parse().unwrap());
        let found = find(&status.conditions, "CredentialExpiring");
        if let Some(found) = found.filter(|found| found.status == "True") {
            assert!(
                found.message.contains("cluster add berlin"),
                "{}",
                found.message
            );
        }
        let expires = status
            .credential_expires_time
            .map(|time| time.0.to_string());
        (expires, found.map(|found| found.status.clone()))
    }

    #[test]
    fn the_end_of_a_credential_is_told_thirty_days_ahead() {
        const END: &str = "2030-03-31T00:00:00Z";
        let says = |status: &str| (Some(END.to_owned()), Some(status.to_owned()));
        let mut pull = object();
        assert_eq!(
            ends(&pull, Ends::Unread, "2030-01-01T00:00:00Z"),
            (None, None),
            "nobody knows"
        );
        let annotation = ("rimward.dev/credential-expires".to_owned(), END.to_owned());
        pull.metadata.annotations = Some([annotation].into());
        let mut push = object();
        push.spec.connection.mode = rimward_crds::ConnectionMode::Push;
        let at = Ends::At(END.parse().unwrap());
        for (object, end) in [(&pull, Ends::Unread), (&push, at)] {
            assert_eq!(ends(object, end, "2030-02-28T23:59:59Z"), says("False"));
            assert_eq!(ends(object, end, "2030-03-01T00:00:00Z"), says("True"));
            assert_eq!(ends(object, end, "2031-01-01T00:00:00Z"), says("True"));
        }
    }

    #[test]
    fn a_pushed_credential_that_is_not_read_yet_keeps_its_end_and_another_one_takes_it_away() {
        let now = "2030-01-01T00:00:00Z";
        let mut push = object();
        push.spec.connection.mode = rimward_crds::ConnectionMode::Push;
        let end: Timestamp = "2030-03-31T00:00:00Z".parse().unwrap();
        push.status = Some(rimward_crds::EdgeClusterStatus {
            credential_expires_time: Some(rimward_crds::common::Time(end)),
            ..Default::default()
        });
        assert_eq!(ends(&push, Ends::Unread, now).0, Some(end.to_string()));
        assert_eq!(ends(&push, Ends::Unsaid, now), (None, None));
    }
}
