//! RolloutAction: what a person asks of a rollout, once.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::common::{Condition, Time};

/// What a person asks of a rollout, once: immutable, applied exactly once, kept for a bounded time. Owned by nothing,
/// so that it outlives the deployment it was about.
#[derive(CustomResource, Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "rimward.dev",
    version = "v1alpha1",
    kind = "RolloutAction",
    plural = "rolloutactions",
    shortname = "ract",
    category = "rimward",
    namespaced,
    status = "RolloutActionStatus",
    derive = "PartialEq",
    doc = "What a person asks of a rollout, once: immutable, applied exactly once, kept for a bounded time.",
    printcolumn(
        name = "Deployment",
        type_ = "string",
        json_path = ".spec.deploymentName"
    ),
    printcolumn(name = "Action", type_ = "string", json_path = ".spec.action"),
    printcolumn(name = "By", type_ = "string", json_path = ".spec.by"),
    printcolumn(name = "Outcome", type_ = "string", json_path = ".status.outcome"),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].reason"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[x_kube(
    validation = Rule::new("self == oldSelf").message("a RolloutAction never changes: make another"),
    validation = Rule::new("!has(self.stage) || self.action == 'Promote'").message("stage is for the action Promote"),
    validation = Rule::new("!has(self.forgetVerdicts) || !self.forgetVerdicts || self.action == 'Retry'")
        .message("forgetVerdicts is for the action Retry"),
)]
#[serde(rename_all = "camelCase")]
pub struct RolloutActionSpec {
    /// The ModelDeployment, in the same namespace.
    #[schemars(length(min = 1, max = 52))]
    pub deployment_name: String,
    /// What shall be done.
    pub action: ActionVerb,
    /// Undo: the revision to go to, absent the one that was promoted before. Others: the revision that is meant; where
    /// the rollout is about another by then, the action is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub revision: Option<String>,
    /// Promote: the stage to let pass, absent the one that the rollout is in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub stage: Option<String>,
    /// The attempt that is meant; where the rollout is at another by then, the action is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub attempt: Option<u32>,
    /// Retry: devices that condemned the content try it again. Without, they stay with their verdict.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub forget_verdicts: bool,
    /// The user who asks, as the API server knows them; an admission policy compares.
    #[schemars(length(min = 1, max = 512))]
    pub by: String,
}

/// What can be asked of a rollout.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub enum ActionVerb {
    /// Opens a stopped revision again, under a new attempt.
    Retry,
    /// Goes on past a wait, a suspect or an empty stage, once.
    Promote,
    /// Takes the revision back.
    Abort,
    /// Goes to an earlier revision without a change of the spec.
    Undo,
}

impl ActionVerb {
    /// The word as it stands in an object.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Retry => "Retry",
            Self::Promote => "Promote",
            Self::Abort => "Abort",
            Self::Undo => "Undo",
        }
    }
}

/// What became of an action.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RolloutActionStatus {
    /// Generation of the spec that this status speaks of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready when it was applied; Stalled when it was refused.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// Applied or Refused; absent while nothing is decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<ActionOutcome>,
    /// The hub's decision in a sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub message: Option<String>,
    /// When it was decided; some days later the hub deletes the object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completed_time: Option<Time>,
}

/// What was decided on an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ActionOutcome {
    /// Its effect is written.
    Applied,
    /// It has no effect, and the message says why.
    Refused,
}
