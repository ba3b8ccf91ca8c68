use super::{Lease, LeaseSpec, MicroTime, Seen, Step, Timestamp};
use std::time::{Duration, Instant};

const LASTS: Duration = Duration::from_secs(15);

fn held(by: &str, renewed: i64) -> Lease {
    Lease {
        spec: Some(LeaseSpec {
            holder_identity: Some(by.to_owned()),
            lease_duration_seconds: Some(15),
            renew_time: Timestamp::from_second(renewed).ok().map(MicroTime),
            ..LeaseSpec::default()
        }),
        ..Lease::default()
    }
}

#[test]
fn a_missing_released_or_own_lease_is_taken_at_once() {
    let now = Instant::now();
    let step = |lease: Option<&Lease>| Seen::default().step(lease, "me", LASTS, now);
    assert_eq!(step(None), Step::Create);
    assert_eq!(step(Some(&held("", 5))), Step::Write);
    assert_eq!(step(Some(&held("me", 5))), Step::Write);
    assert_eq!(step(Some(&Lease::default())), Step::Write);
}

#[test]
fn a_holder_is_silent_by_our_own_time_whatever_its_clock_says() {
    let start = Instant::now();
    let after = |seconds| start + Duration::from_secs(seconds);
    // Its clock stands in 1970 and in 2100; neither matters.
    for clock in [0, 4_102_444_800] {
        let mut seen = Seen::default();
        let mut step = |lease: &Lease, at| seen.step(Some(lease), "me", LASTS, at);
        assert_eq!(step(&held("other", clock), after(0)), Step::Wait);
        assert_eq!(step(&held("other", clock), after(15)), Step::Wait);
        assert_eq!(step(&held("other", clock + 1), after(16)), Step::Wait);
        assert_eq!(step(&held("other", clock + 1), after(31)), Step::Wait);
        assert_eq!(step(&held("other", clock + 1), after(32)), Step::Write);
    }
}

#[test]
fn a_holder_with_a_longer_lease_is_given_its_own_time() {
    let start = Instant::now();
    let mut lease = held("other", 0);
    if let Some(spec) = lease.spec.as_mut() {
        spec.lease_duration_seconds = Some(60);
    }
    let mut seen = Seen::default();
    assert_eq!(seen.step(Some(&lease), "me", LASTS, start), Step::Wait);
    let later = start + Duration::from_secs(59);
    assert_eq!(seen.step(Some(&lease), "me", LASTS, later), Step::Wait);
    let later = start + Duration::from_secs(61);
    assert_eq!(seen.step(Some(&lease), "me", LASTS, later), Step::Write);
}
