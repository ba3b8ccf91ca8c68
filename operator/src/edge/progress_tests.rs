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
        action: Action::Run,
        nodes: Selector::everything(),
        max_unavailable: Amount::ONE,
        progress_deadline_seconds: DEADLINE_SECONDS,
        content: (),
    };
    [(key(), entry)].into()
}

fn nodes() -> BTreeSet<NodeName> {
    ["one".parse().unwrap()].into()
}

fn progress(since: i64, expired: bool, resting: bool) -> BTreeMap<ModelKey, Progress> {
    let progress = Progress {
        revision: "digits-1".parse().unwrap(),
        updated: 1,
        resting,
        since: Timestamp(since),
        expired,
        moving: nodes(),
    };
    [(key(), progress)].into()
}

fn check_due(kept: &Ledger, since: i64, expired: bool, resting: bool, now: i64) -> Option<Ledger> {
    due(
        kept,
        &progress(since, expired, resting),
        &assigned(),
        Timestamp(now),
    )
}

#[test]
fn a_restart_goes_on_counting_where_the_last_checkpoint_stood() {
    let ledger = check_due(&Ledger::new(), 100, false, false, 130).unwrap();
    let text = write(&ledger).unwrap();
    // Another process, another clock: only the seconds used count.
    let restored = restore(&read(Some(&text)), &nodes(), Timestamp(5));
    assert_eq!(restored, progress(5 - 30, false, false));
}

#[test]
fn a_deadline_costs_a_bounded_number_of_writes_and_none_once_it_ran_out() {
    let mut kept = Ledger::new();
    let mut writes = 0;
    for now in 0..10_000 {
        let expired = now >= i64::from(DEADLINE_SECONDS);
        if let Some(next) = check_due(&kept, 0, expired, false, now) {
            kept = next;
            writes += 1;
        }
    }
    assert_eq!(writes, 8);
    assert!(kept["team/digits"].expired);
}

#[test]
fn an_entry_that_rests_is_not_kept_and_what_was_kept_of_it_goes() {
    assert_eq!(check_due(&Ledger::new(), 0, false, true, 1000), None);
    let kept = check_due(&Ledger::new(), 0, false, false, 20).unwrap();
    assert_eq!(check_due(&kept, 0, false, true, 30), Some(Ledger::new()));
    assert_eq!(write(&Ledger::new()), None);
}

#[test]
fn a_node_that_got_further_starts_the_time_again() {
    let kept = check_due(&Ledger::new(), 0, false, false, 40).unwrap();
    let mut progress = progress(40, false, false);
    progress.get_mut(&key()).unwrap().updated = 2;
    let next = due(&kept, &progress, &assigned(), Timestamp(41));
    assert_eq!(next, Some(Ledger::new()));
}

#[test]
fn an_annotation_that_is_not_ours_or_too_long_is_empty() {
    assert_eq!(read(None), Ledger::new());
    assert_eq!(read(Some("{\"a\": 1}")), Ledger::new());
    assert_eq!(read(Some(&" ".repeat(BYTES_MAX + 1))), Ledger::new());
}
