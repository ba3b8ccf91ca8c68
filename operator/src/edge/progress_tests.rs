use rimward_core::fleet::{Action, Amount};
use rimward_core::selector::Selector;

use super::*;

const DEADLINE_SECONDS: u32 = 80;

fn key() -> ModelKey {
    ModelKey::parse("team", "digits").unwrap()
}

fn assigned() -> BTreeMap<ModelKey, Assigned<()>> {
    let entry = Assigned {
        revision: "digits-1".parse().unwrap(),
        attempt: 1,
        forget_verdicts_before: 0,
        action: Action::Run,
        nodes: Selector::everything(),
        max_unavailable: Amount::ONE,
        max_failures: 0,
        progress_deadline_seconds: DEADLINE_SECONDS,
        content: (),
    };
    [(key(), entry)].into()
}

fn nodes() -> BTreeSet<NodeName> {
    ["one".parse().unwrap()].into()
}

fn progress(used: &[(&str, u32)]) -> BTreeMap<ModelKey, Progress> {
    let used = used.iter().map(|(name, seconds)| {
        let used = Used {
            seconds: *seconds,
            running: true,
        };
        (name.parse().unwrap(), used)
    });
    let progress = Progress {
        revision: "digits-1".parse().unwrap(),
        attempt: 1,
        at: Timestamp(100),
        moving: nodes(),
        used: used.collect(),
        silent_before: BTreeSet::new(),
        passed: false,
        passed_before: Vec::new(),
    };
    [(key(), progress)].into()
}

fn check_due(kept: &Ledger, used: &[(&str, u32)]) -> Option<Ledger> {
    due(kept, &progress(used), &assigned())
}

fn stood(revision: &str, passed: bool) -> BTreeMap<ModelKey, Stood> {
    let stood = Stood {
        revision: revision.parse().unwrap(),
        attempt: 1,
        passed,
    };
    [(key(), stood)].into()
}

#[test]
fn a_restart_goes_on_counting_where_the_last_checkpoint_stood() {
    let ledger = check_due(&Ledger::new(), &[("one", 30)]).unwrap();
    let text = write(&ledger).unwrap();
    // Another process, another clock: only the seconds used count.
    let now = Timestamp(5);
    let restored = restore(&read(Some(&text)), &stood("digits-1", false), &nodes(), now);
    let mut expected = progress(&[("one", 30)]);
    let one = expected.get_mut(&key()).unwrap();
    one.at = now;
    one.used.values_mut().for_each(|used| used.running = false);
    assert_eq!(restored, expected);
}

#[test]
fn a_deadline_costs_a_bounded_number_of_writes_and_none_once_it_ran_out() {
    let mut kept = Ledger::new();
    let mut writes = 0;
    for now in 0..10_000 {
        if let Some(next) = check_due(&kept, &[("one", now), ("two", now / 2)]) {
            kept = next;
            writes += 1;
        }
    }
    // Eight for the first, as many for what is left of the slower one.
    assert!(writes <= 2 * CHECKPOINTS, "{writes}");
    assert_eq!(kept["team/digits"].used_seconds.len(), 2);
}

#[test]
fn an_entry_that_is_done_is_not_kept_and_what_was_kept_of_it_goes() {
    assert_eq!(check_due(&Ledger::new(), &[]), None);
    let kept = check_due(&Ledger::new(), &[("one", 20), ("two", 20)]).unwrap();
    let one_left = check_due(&kept, &[("two", 21)]).unwrap();
    assert_eq!(one_left["team/digits"].used_seconds.len(), 1);
    assert_eq!(check_due(&kept, &[]), Some(Ledger::new()));
    assert_eq!(write(&Ledger::new()), None);
}

#[test]
fn a_new_attempt_starts_the_time_again() {
    let kept = check_due(&Ledger::new(), &[("one", 40)]).unwrap();
    let mut again = progress(&[("one", 1)]);
    again.get_mut(&key()).unwrap().attempt = 2;
    assert_eq!(due(&kept, &again, &assigned()), Some(Ledger::new()));
}

#[test]
fn what_the_cluster_was_complete_with_is_kept_and_taken_from_its_status() {
    let mut back = progress(&[]);
    let one = back.get_mut(&key()).unwrap();
    one.passed_before = vec!["digits-0".parse().unwrap()];
    one.silent_before = nodes();
    let kept = due(&Ledger::new(), &back, &assigned()).unwrap();
    assert_eq!(due(&kept, &back, &assigned()), None, "once");
    let text = write(&kept).unwrap();
    let restored = restore(
        &read(Some(&text)),
        &stood("digits-1", true),
        &nodes(),
        Timestamp(0),
    );
    let one = &restored[&key()];
    assert_eq!(one.passed_before.len(), 1);
    assert_eq!(one.silent_before, nodes());
    assert!(one.passed);
    // Nothing was kept: the mirror itself says which order stood.
    let bare = restore(
        &Ledger::new(),
        &stood("digits-2", true),
        &nodes(),
        Timestamp(0),
    );
    assert_eq!(bare[&key()].revision.as_str(), "digits-2");
    assert!(bare[&key()].passed);
}

#[test]
fn an_annotation_that_is_not_ours_or_too_long_is_empty() {
    assert_eq!(read(None), Ledger::new());
    assert_eq!(read(Some("{\"a\": 1}")), Ledger::new());
    assert_eq!(read(Some(&" ".repeat(BYTES_MAX + 1))), Ledger::new());
}

#[test]
fn what_would_be_too_long_leaves_out_the_seconds_first() {
    // The smaller one would fit, but for the second byte of each of its quotes.
    for nodes in [8_000, 10_000] {
        let mut progress = progress(&[]);
        let one = progress.get_mut(&key()).unwrap();
        one.passed_before = vec!["digits-0".parse().unwrap()];
        for index in 0..nodes {
            let used = Used {
                seconds: 40,
                running: true,
            };
            one.used
                .insert(format!("node-{index:05}").parse().unwrap(), used);
        }
        let text = write(&due(&Ledger::new(), &progress, &assigned()).unwrap()).unwrap();
        assert!(stored_bytes(&text) <= BYTES_MAX);
        let kept = read(Some(&text));
        assert_eq!(kept["team/digits"].passed_before.len(), 1);
        assert!(kept["team/digits"].used_seconds.is_empty());
    }
}
