//! What this node tells: the only writer of its status.
//!
//! Owns EdgeNode, its status, its Lease and its events, or the status file. Must never decide: a
//! picture comes in, and is written where it differs from what is there.

mod access;
mod budget;
pub mod cluster;
mod events;
#[cfg(test)]
pub(crate) mod fake_api;
pub mod file;
pub mod picture;
mod status;

pub use cluster::Cluster;
pub use picture::Picture;

#[cfg(test)]
mod tests {
    use rimward_crds::reasons::NodeReason;

    #[test]
    fn every_word_that_a_node_may_give_is_in_the_published_list() {
        let words = rimward_core::node::Reason::OWN
            .into_iter()
            .map(|reason| reason.as_str().to_owned())
            .chain(
                rimward_artifact::verify::Reason::ALL
                    .iter()
                    .map(ToString::to_string),
            )
            .chain(rimward_artifact::registry::ClientError::CATEGORIES.map(str::to_owned))
            .chain(
                crate::proto::FailReason::ALL
                    .iter()
                    .map(ToString::to_string),
            );
        let missing: Vec<String> = words
            .filter(|word| word.parse::<NodeReason>().is_err())
            .collect();
        assert!(
            missing.is_empty(),
            "not in crds/src/reasons.rs: {missing:?}"
        );
    }
}
