//! The fleet's plan: which cluster runs which revision, who is next, who waits and why.
//!
//! Owns every decision of the hub. Pure: the same calls give the same plans, always.
//! Must never read a clock, a file, the environment or the network, nor hold an API object.
//!
//! | file | what it owns |
//! |---|---|
//! | `types`, `policy`, `outcome`, `because` | the words of questions and answers |
//! | `target`, `class`, `classify` | what can be said of one deployment on one cluster, and what it counts as |
//! | `stages` | which cluster belongs to which stage |
//! | `gate` | what a stage needs before the next begins |
//! | `advance`, `bake`, `blame` | how far a rollout is, which time counts, and what follows from failures |
//! | `action`, `asked`, `past` | what people ask of it, and past whom they went on |
//! | `context`, `queue`, `entry`, `give`, `decision` | where each cluster should be, who gets an order now, and why not |
//! | `rollout` | counts and queues over a deployment's clusters |
//! | `strays` | entries of a deployment that is gone, or that cannot be read |
//! | `explain`, `conditions` | why each cluster is where it is, and the conditions that follow |
//! | `ledger`, `doubt` | what clusters share, when to doubt one's ears |
//! | `planner`, `intake`, `hearing`, `answers` | the planner: its plans, what it is told, time, what it can be asked |
//! | `turns` | in which order assignments are written |
//! | `plan`, `audit` | the whole fleet planned at once, and books that must balance: what tests compare with |

mod action;
mod advance;
mod answers;
mod asked;
mod audit;
mod bake;
mod because;
mod blame;
mod class;
mod classify;
mod conditions;
mod context;
mod decision;
mod doubt;
mod entry;
mod explain;
mod gate;
mod give;
mod hearing;
mod intake;
mod ledger;
mod outcome;
mod past;
mod plan;
mod planner;
mod policy;
mod queue;
mod rollout;
mod stages;
mod strays;
mod target;
mod turns;
mod types;

pub use action::{ActionKind, ActionRequest, DECIDED_MAX, Decided};
pub use because::{Because, SuspectPlace};
pub use context::Motion;
pub use decision::Decision;
pub use doubt::{Doubt, DoubtLimits};
pub use gate::GateWait;
pub use ledger::ENTRIES_BYTES_MAX;
pub use outcome::{
    Condition, Conditions, DeploymentPlan, FAILURES_MAX, OutcomeChange, PassedBecause, Plan,
    Refusal, Transition,
};
pub use plan::{fleet, plan};
pub use planner::Fleet;
pub use policy::{
    AfterUpdate, Amount, BeforeUpdate, Hold, HoldMode, Members, OFFLINE_GRACE_SECONDS_DEFAULT,
    Offline, OnFailure, Policy, Stage,
};
pub use rollout::StageGroup;
pub use turns::in_turns;
pub use types::{
    Action, Cluster, ConnectionState, Deployment, Desired, ENTRIES_MAX, Entry, Hearing,
    ModelReport, Observed, Outcome, Passed, Placement, Report, Revision, StagePhase, StageRecord,
    Standing, Undo,
};
