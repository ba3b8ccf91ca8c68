use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn at(seconds: u32) -> Option<String> {
    Some(format!("2001-01-01T00:00:{seconds:02}.000000Z"))
}

/// Somebody who listens to n1 with a silence of ten seconds, and looks every second.
struct Ear {
    liveness: Liveness,
    start: Instant,
    second: u32,
}

impl Ear {
    fn new() -> Self {
        let start = Instant::now();
        Self {
            liveness: Liveness::new(SECOND * 10, start),
            start,
            second: 0,
        }
    }

    fn now(&self) -> Instant {
        self.start + SECOND * self.second
    }

    fn listen(&mut self, until: u32) {
        while self.second < until {
            self.second += 1;
            let now = self.now();
            self.liveness.attend(now);
        }
    }

    fn saw(&mut self, renewed: u32, sight: Sight) -> bool {
        let now = self.now();
        self.liveness.saw("n1", at(renewed), sight, now)
    }

    fn hearing(&mut self) -> Hearing {
        let now = self.now();
        self.liveness.hearing("n1", now)
    }
}

#[test]
fn a_node_is_heard_as_long_as_its_lease_changes_whatever_time_it_names() {
    let mut ear = Ear::new();
    assert!(ear.saw(30, Sight::Listed));
    ear.listen(9);
    // The device's clock was set back, or jumped by years: still a change, still heard.
    assert!(ear.saw(3, Sight::Watched));
    ear.listen(18);
    assert_eq!(ear.hearing(), Hearing::Heard);
    ear.listen(19);
    assert_eq!(ear.hearing(), Hearing::Silent);
}

#[test]
fn the_first_sight_in_a_list_proves_nothing() {
    let mut ear = Ear::new();
    ear.saw(1, Sight::Listed);
    assert_eq!(ear.hearing(), Hearing::Unheard);
    ear.listen(10);
    assert_eq!(ear.hearing(), Hearing::Silent);
    assert!(ear.saw(2, Sight::Watched), "worth a plan");
    assert_eq!(ear.hearing(), Hearing::Heard);
    // One that is made while somebody watches says something by that.
    let now = ear.now();
    ear.liveness.saw("n2", at(1), Sight::Watched, now);
    assert_eq!(ear.liveness.hearing("n2", now), Hearing::Heard);
}

#[test]
fn the_same_time_seen_again_is_no_sign_of_life() {
    let mut ear = Ear::new();
    ear.saw(1, Sight::Listed);
    ear.saw(2, Sight::Watched);
    ear.listen(9);
    assert!(!ear.saw(2, Sight::Listed));
    ear.listen(10);
    assert_eq!(ear.hearing(), Hearing::Silent);
}

#[test]
fn a_node_without_a_lease_is_silent_after_one_silence() {
    let mut ear = Ear::new();
    assert_eq!(ear.hearing(), Hearing::Unheard);
    ear.listen(4);
    let now = ear.now();
    assert_eq!(ear.liveness.next_silence(now), Some(SECOND * 6));
    ear.listen(10);
    assert_eq!(ear.hearing(), Hearing::Silent);
    let now = ear.now();
    assert_eq!(ear.liveness.next_silence(now), None);
}

#[test]
fn while_the_watch_is_away_nobody_is_heard_and_nobody_falls_silent() {
    let mut ear = Ear::new();
    ear.saw(1, Sight::Listed);
    ear.saw(2, Sight::Watched);
    ear.listen(4);
    let now = ear.now();
    ear.liveness.deaf(now);
    ear.listen(9);
    assert_eq!(ear.hearing(), Hearing::Unheard);
    let now = ear.now();
    ear.liveness.listens(now);
    assert_eq!(ear.hearing(), Hearing::Heard, "as before");
    ear.listen(14);
    assert_eq!(
        ear.hearing(),
        Hearing::Heard,
        "five seconds were nobody's silence"
    );
    ear.listen(15);
    assert_eq!(ear.hearing(), Hearing::Silent);
}

#[test]
fn after_a_whole_silence_without_listening_all_begins_anew() {
    let mut ear = Ear::new();
    ear.saw(1, Sight::Listed);
    ear.saw(2, Sight::Watched);
    let now = ear.now();
    ear.liveness.deaf(now);
    ear.listen(60);
    let now = ear.now();
    ear.liveness.listens(now);
    assert!(ear.saw(30, Sight::Listed));
    assert_eq!(ear.hearing(), Hearing::Unheard, "it may have been long ago");
}

#[test]
fn a_process_that_slept_did_not_listen() {
    let mut ear = Ear::new();
    ear.saw(1, Sight::Listed);
    ear.saw(2, Sight::Watched);
    ear.second = 3600;
    assert_eq!(ear.hearing(), Hearing::Unheard);
}

#[test]
fn quiet_is_told_once_before_anybody_is_called_silent() {
    let mut ear = Ear::new();
    ear.saw(1, Sight::Listed);
    ear.saw(2, Sight::Watched);
    ear.listen(4);
    let now = ear.now();
    assert!(!ear.liveness.quiet(now));
    ear.listen(5);
    let now = ear.now();
    assert!(ear.liveness.quiet(now));
    assert!(!ear.liveness.quiet(now), "once");
    ear.saw(3, Sight::Listed);
    ear.listen(10);
    let now = ear.now();
    assert!(ear.liveness.quiet(now), "and again when it is so again");
}

#[test]
fn nodes_that_are_gone_are_forgotten() {
    let mut ear = Ear::new();
    let now = ear.now();
    ear.liveness.saw("n1", at(1), Sight::Listed, now);
    ear.liveness.saw("n2", at(1), Sight::Listed, now);
    ear.liveness.keep(|node| node == "n2");
    assert_eq!(ear.liveness.beats.len(), 1);
}
