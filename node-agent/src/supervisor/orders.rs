//! The orders of an EdgeNode, sorted into what can be followed and what cannot.
//!
//! Owns the rule that one entry never harms another.

use std::collections::{BTreeMap, BTreeSet};

use rimward_core::node::{Order, Problem, Reason};
use rimward_crds::NodeModel;

use crate::parse::{Key, Parsed, parse};

/// Entries that are looked at; the schema allows no more.
const ENTRIES_MAX: usize = 256;

/// What was read of this node's EdgeNode.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Orders {
    /// Generation of the object; none without Kubernetes.
    pub generation: Option<i64>,
    /// The entries.
    pub models: Vec<NodeModel>,
    /// Why the site refuses updates, if it does.
    pub hold: Option<String>,
    /// What could not be read, if anything: what it said before stays in force.
    pub problem: Option<String>,
    /// Nobody has given orders yet: the object is as the agent made it. That is no order to remove
    /// anything either.
    pub silent: bool,
}

/// An entry that cannot be followed.
#[derive(Debug, Clone, PartialEq)]
pub struct Refused {
    /// The entry.
    pub entry: NodeModel,
    /// Its deployment, if that much is readable.
    pub key: Option<Key>,
    /// Why.
    pub problem: Problem,
}

/// The orders, sorted.
#[derive(Debug, Clone, Default)]
pub(super) struct Sorted {
    /// What can be followed.
    pub orders: BTreeMap<Key, Parsed>,
    /// What cannot.
    pub refused: Vec<Refused>,
}

/// Sorts entries. Of two with one endpoint name the one that already has it keeps it, else the
/// first by name.
#[must_use]
pub(super) fn sort(models: &[NodeModel], owners: &BTreeMap<String, Key>) -> Sorted {
    let mut sorted = Sorted::default();
    for (index, entry) in models.iter().enumerate() {
        let refuse = |key: Option<Key>, reason: &'static str, message: String| Refused {
            entry: entry.clone(),
            key,
            problem: Problem::new(Reason::new(reason), message),
        };
        if index >= ENTRIES_MAX {
            let message = format!("a node runs at most {ENTRIES_MAX} deployments");
            sorted.refused.push(refuse(None, "OrderInvalid", message));
            continue;
        }
        match parse(entry) {
            Err(error) => {
                let key = Key::new(&entry.namespace, &entry.name).ok();
                let refused = refuse(key, "OrderInvalid", error.to_string());
                sorted.refused.push(refused);
            }
            Ok(parsed) if sorted.orders.contains_key(&parsed.key) => {
                let message = format!("{} is ordered twice", parsed.key);
                sorted.refused.push(refuse(None, "OrderInvalid", message));
            }
            Ok(parsed) => {
                sorted.orders.insert(parsed.key.clone(), parsed);
            }
        }
    }
    take_endpoints(&mut sorted, owners);
    sorted
}

fn take_endpoints(sorted: &mut Sorted, owners: &BTreeMap<String, Key>) {
    let mut taken: BTreeMap<String, Key> = BTreeMap::new();
    let runs = |parsed: &Parsed| matches!(parsed.order, Order::Run(_));
    let owns = |parsed: &Parsed| owners.get(&parsed.entry.endpoint_name) == Some(&parsed.key);
    for parsed in sorted.orders.values().filter(|it| runs(it) && owns(it)) {
        taken.insert(parsed.entry.endpoint_name.clone(), parsed.key.clone());
    }
    let mut losers = BTreeSet::new();
    for parsed in sorted.orders.values().filter(|it| runs(it)) {
        let owner = taken
            .entry(parsed.entry.endpoint_name.clone())
            .or_insert_with(|| parsed.key.clone());
        if *owner != parsed.key {
            losers.insert(parsed.key.clone());
        }
    }
    for key in losers {
        let Some(parsed) = sorted.orders.remove(&key) else {
            continue;
        };
        let endpoint = &parsed.entry.endpoint_name;
        let owner = taken.get(endpoint).map(ToString::to_string);
        let message = format!(
            "endpointName {endpoint:?} belongs to {}",
            owner.unwrap_or_default()
        );
        sorted.refused.push(Refused {
            key: Some(key),
            problem: Problem::new(Reason::new("EndpointNameTaken"), message),
            entry: parsed.entry,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::tests::entry;

    #[test]
    fn a_bad_entry_is_refused_by_name_and_stops_no_other() {
        let mut bad = entry();
        bad.name = "other".into();
        bad.package.digest = "md5:1".into();
        let sorted = sort(&[bad, entry()], &BTreeMap::new());
        assert_eq!(sorted.orders.len(), 1);
        assert_eq!(sorted.refused[0].problem.reason.as_str(), "OrderInvalid");
        assert!(sorted.refused[0].problem.message.contains("package.digest"));
    }

    #[test]
    fn the_second_with_an_endpoint_name_is_refused_and_names_the_first() {
        let mut second = entry();
        second.name = "zeta".into();
        let both = [second.clone(), entry()];
        let sorted = sort(&both, &BTreeMap::new());
        assert!(sorted.orders.contains_key(&"shop/digits".parse().unwrap()));
        let problem = &sorted.refused[0].problem;
        assert_eq!(
            problem.message,
            "endpointName \"digits\" belongs to shop/digits"
        );
        let owners = BTreeMap::from([("digits".to_owned(), "shop/zeta".parse().unwrap())]);
        let sorted = sort(&both, &owners);
        assert!(sorted.orders.contains_key(&"shop/zeta".parse().unwrap()));
        assert_eq!(sorted.refused.len(), 1);
    }
}
