//! The orders of an EdgeNode, sorted into what can be followed and what cannot.
//!
//! Owns the rule that one entry never harms another.

use std::collections::{BTreeMap, BTreeSet};

use rimward_core::node::{Order, Problem, Reason};
use rimward_crds::NodeModel;

use crate::parse::{Key, Parsed, parse};

/// Entries that are looked at; the schema allows no more.
const ENTRIES_MAX: usize = 256;

/// How much a source of orders speaks for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Covers {
    /// Nothing: nobody has given orders. What was ordered before stays in force.
    #[default]
    Nothing,
    /// The entries only: a deployment that is not among them goes on as it is. An EdgeNode is filled
    /// entry by entry, as the budget allows, and says in words what is to be removed.
    Entries,
    /// The whole node: a deployment that is not among the entries is to be removed.
    Node,
}

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
    /// What they speak for.
    pub covers: Covers,
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

impl Sorted {
    /// What a deployment is told: its order, or nothing, and then what runs goes on.
    pub(super) fn told(&self, key: &Key, covers: Covers) -> Option<Order> {
        if let Some(parsed) = self.orders.get(key) {
            return Some(parsed.order.clone());
        }
        // It was ordered, but in words that make no sense.
        let refused = self.refused.iter().any(|it| it.key.as_ref() == Some(key));
        (covers == Covers::Node && !refused).then_some(Order::Remove)
    }
}

/// Sorts entries. Of two with one endpoint name the one that already has it keeps it, else the
/// first by name. An owner that the entries say nothing of keeps it too.
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
    for (endpoint, key) in owners {
        if !sorted.orders.contains_key(key) {
            taken.insert(endpoint.clone(), key.clone());
        }
    }
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

    #[test]
    fn only_orders_for_the_whole_node_remove_what_they_do_not_name() {
        let other: Key = "shop/other".parse().unwrap();
        let sorted = sort(&[entry()], &BTreeMap::new());
        assert_eq!(sorted.told(&other, Covers::Entries), None);
        assert_eq!(sorted.told(&other, Covers::Nothing), None);
        assert_eq!(sorted.told(&other, Covers::Node), Some(Order::Remove));
        let digits = "shop/digits".parse().unwrap();
        let run = sorted.told(&digits, Covers::Entries);
        assert!(matches!(run, Some(Order::Run(_))), "{run:?}");
    }

    #[test]
    fn an_order_to_remove_says_so_whatever_the_orders_cover() {
        let mut remove = entry();
        remove.action = rimward_crds::Action::Remove;
        let sorted = sort(&[remove], &BTreeMap::new());
        let digits = "shop/digits".parse().unwrap();
        assert_eq!(sorted.told(&digits, Covers::Entries), Some(Order::Remove));
    }

    #[test]
    fn an_entry_that_makes_no_sense_removes_nothing() {
        let mut bad = entry();
        bad.package.digest = "md5:1".into();
        let sorted = sort(&[bad], &BTreeMap::new());
        let digits = "shop/digits".parse().unwrap();
        assert_eq!(sorted.told(&digits, Covers::Node), None);
    }

    #[test]
    fn a_deployment_that_the_entries_do_not_name_keeps_its_endpoint() {
        let owners = BTreeMap::from([("digits".to_owned(), "shop/zeta".parse().unwrap())]);
        let sorted = sort(&[entry()], &owners);
        let problem = &sorted.refused[0].problem;
        assert!(problem.message.contains("shop/zeta"), "{problem:?}");
    }
}
