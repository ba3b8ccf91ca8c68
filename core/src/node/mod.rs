//! The activation machine: how one deployment on one device changes version, whole or not at all.
//!
//! Owns the decisions between "a new revision is ordered" and "it is committed, or rejected for
//! good". Must never read a clock, touch a file or talk to anyone: the supervisor observes, calls
//! [`step()`], and does the [`Effect`]s in order.
//!
//! Invariants, each held by a test in this module:
//! - nothing gets traffic before the write that announces it is durable;
//! - the current version changes by one write, at commit, and nowhere else;
//! - a rejected revision never runs again here, a blocked one is tried again;
//! - within [`STARTS_MAX`] starts that the candidate dies of, or [`LOST_STARTS_MAX`] in a row that end unseen and
//!   with nothing shown, with no centre, a committed version has the traffic; what others died of uses up none;
//! - without an order what serves goes on serving.

mod blame;
mod decide;
mod follow;
mod record;
mod report;
#[cfg(test)]
mod restarts;
mod standby;
mod state;
mod step;
#[cfg(test)]
mod table;
#[cfg(test)]
mod verdicts;
#[cfg(test)]
mod walks;

pub use blame::{Blame, Scene, blame, used_its_time};
pub use decide::{
    INTERRUPTED_MILLISECONDS_MIN, INTERRUPTIONS_MAX, LOST_PREFLIGHTS_MAX, LOST_STARTS_MAX,
    NOTE_MILLISECONDS_MIN, RETRY_MILLISECONDS_MAX, RETRY_MILLISECONDS_MIN, STARTS_MAX,
    STEADY_MILLISECONDS, WRITES_MAX,
};
pub use follow::{Follower, LINGER_MILLISECONDS, Sight};
pub use record::{
    Attempt, AttemptStage, BAD_MAX, Bad, GOOD_MAX, GOOD_MIN, Judged, MESSAGE_CHARS_MAX, Problem,
    Reason, Record, Shown, Target, Version,
};
pub use report::{Report, Standing};
pub use standby::{CATCH_UP_MILLISECONDS, Situation, Socket, Stand, stand};
pub use state::{Effect, Millis, Observation, Order, Phase, Serving, State, Then};
pub use step::step;
