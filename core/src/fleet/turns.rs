//! In which order assignments are written.
//!
//! Owns fairness between deployments. Must never decide what is written.

use std::collections::BTreeMap;

/// Deployments take turns, so that one that goes to thousands of clusters keeps none waiting that goes to a few.
///
/// Takes, by assignment, the deployments whose entries change there; gives places in that list, first the first of each
/// deployment, then the second of each, and so on.
#[must_use]
pub fn in_turns<K: Ord>(changed: &[Vec<K>]) -> Vec<usize> {
    let mut before: BTreeMap<&K, usize> = BTreeMap::new();
    let mut ranked: Vec<(usize, usize)> = Vec::with_capacity(changed.len());
    for (at, keys) in changed.iter().enumerate() {
        let ranks = keys.iter().map(|key| {
            let rank = before.entry(key).or_default();
            *rank += 1;
            *rank
        });
        ranked.push((ranks.min().unwrap_or(usize::MAX), at));
    }
    ranked.sort_unstable();
    ranked.into_iter().map(|(_, at)| at).collect()
}

#[cfg(test)]
mod tests {
    use super::in_turns;

    #[test]
    fn a_deployment_that_goes_to_many_clusters_keeps_none_waiting_that_goes_to_a_few() {
        let mut changed = vec![vec!["everywhere"]; 1000];
        changed.push(vec!["small"]);
        changed[500].push("other");
        let order = in_turns(&changed);
        assert_eq!(order[..3], [0, 500, 1000]);
        assert_eq!(order.len(), 1001);
        assert_eq!(in_turns::<&str>(&[vec![], vec!["a"]]), [1, 0]);
    }
}
