//! Rust types of every Rimward kind, group `rimward.dev`, version `v1alpha1`.
//!
//! Owns the shape of the API: fields, bounds, descriptions, CEL rules, printer columns, the closed lists
//! of condition reasons; and how every program dials an API server ([`direct`]), since it is what all of them
//! import. Must never decide anything: turning an object into what planners work on happens in each binary's
//! `parse.rs`.
//!
//! Invariant: schema bounds are at least as tight as the Rust types, so an object that the API server
//! accepted also parses ([`schema`] derives missing bounds and the tests look for gaps).

#![allow(
    unreachable_pub,
    reason = "kube's derive copies a struct's visibility into a private scope of its own"
)]
#![allow(
    clippy::duplicated_attributes,
    reason = "every printer column says its type, and most are strings"
)]

pub mod cluster_assignment;
pub mod common;
pub mod direct;
pub mod edge_cluster;
pub mod edge_node;
pub mod metrics_page;
pub mod model;
pub mod model_deployment;
pub mod model_revision;
pub mod quantity;
pub mod reasons;
pub mod reference;
pub mod revision;
pub mod rollout_action;
pub mod rollout_policy;
pub mod schema;
pub mod stored;
pub mod workload;

pub use cluster_assignment::{
    Action, AssignedModel, AssignedModelStatus, ClusterAssignment, ClusterAssignmentSpec,
    ClusterAssignmentStatus, ModelVerdict, NodeCounts, NodeProblem, VerdictPhase,
};
pub use common::{Condition, LabelSelector, LabelSelectorRequirement, LocalObjectReference};
pub use edge_cluster::{
    Capabilities, Connection, ConnectionMode, EdgeCluster, EdgeClusterSpec, EdgeClusterStatus,
    NodeSummary, SecretKeyReference, Versions,
};
pub use edge_node::{
    BackendStatus, EdgeNode, EdgeNodeSpec, EdgeNodeStatus, NodeModel, NodeModelState,
    NodeModelStatus, NodeModelVerdict, TrustSummary,
};
pub use model::{Model, ModelSpec, ModelStatus, TensorInfo, VariantInfo};
pub use model_deployment::{
    DecidedAction, ModelDeployment, ModelDeploymentSpec, ModelDeploymentStatus, PassedStage,
    Placement, ReadyCounts, StagePhase, StageStatus, UndoStatus,
};
pub use model_revision::{
    ModelRevision, ModelRevisionSpec, ModelRevisionStatus, RevisionModel, RevisionOutcome,
    RevisionProblem,
};
pub use quantity::{CountOrPercent, MemoryQuantity};
pub use rollout_action::{
    ActionOutcome, ActionVerb, RolloutAction, RolloutActionSpec, RolloutActionStatus,
};
pub use rollout_policy::{
    AfterUpdate, BeforeUpdate, HoldMode, HoldPolicy, NodePolicy, OfflinePolicy, OnFailure,
    RollbackPolicy, RolloutPolicy, RolloutPolicySpec, RolloutPolicyStatus, RolloutStage,
    StageClusters,
};
pub use workload::{GoldenVectors, Health, PackageRef, Runtime};

/// The API group of every kind.
pub const GROUP: &str = "rimward.dev";
/// The served and stored version.
pub const VERSION: &str = "v1alpha1";
