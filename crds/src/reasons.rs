//! The closed lists of condition types and reasons, with what each means.
//!
//! Every reason on a condition, an event, a metric label or a problem comes from here; the reference in
//! `docs/` is generated from these lists.

/// Condition types, as the status contract names them.
pub mod condition {
    /// The spec is fully rolled out.
    pub const READY: &str = "Ready";
    /// Work is going on.
    pub const RECONCILING: &str = "Reconciling";
    /// A permanent failure: nothing goes on until someone acts.
    pub const STALLED: &str = "Stalled";
    /// The promoted revision meets its floor, or the cluster is heard of.
    pub const AVAILABLE: &str = "Available";
    /// A rollback happened or a stage failed.
    pub const DEGRADED: &str = "Degraded";
    /// Someone paused it.
    pub const PAUSED: &str = "Paused";
    /// A cluster's session has reported.
    pub const JOINED: &str = "Joined";
    /// A site refuses updates for now.
    pub const HELD: &str = "Held";
    /// A Model's tag was resolved to a digest.
    pub const RESOLVED: &str = "Resolved";
}

macro_rules! reasons {
    ($(#[$meta:meta])* $name:ident { $($(#[doc = $doc:literal])+ $variant:ident,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[doc = $doc])+ $variant,)+ }

        impl $name {
            /// Every reason with its meaning, in order of declaration.
            pub const ALL: &'static [(Self, &'static str)] = &[$((Self::$variant, concat!($($doc),+)),)+];

            /// The reason as it stands in an object, CamelCase.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => stringify!($variant),)+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = String;
            fn from_str(text: &str) -> Result<Self, String> {
                Self::ALL.iter().map(|(reason, _)| *reason).find(|reason| reason.as_str() == text)
                    .ok_or_else(|| format!("{text:?} is no reason of this list"))
            }
        }
    };
}

reasons! {
    /// Why a hub object (Model, ModelDeployment, RolloutPolicy, ModelRevision, EdgeCluster) is as it is.
    HubReason {
        /// All is as the spec says.
        AsDesired,
        /// The rollout goes on.
        Progressing,
        /// A stage's bake time runs.
        Baking,
        /// The new revision went through all stages.
        Promoted,
        /// More clusters failed than the stage allows; the rollout stands.
        StageFailed,
        /// A stage failed and every cluster goes back.
        RollingBack,
        /// A stage failed and every cluster is back on the promoted revision.
        RolledBack,
        /// Someone paused it.
        Paused,
        /// Another deployment uses the endpoint name on a cluster.
        EndpointNameTaken,
        /// A cluster's assignment would exceed 256 entries or 1 MiB.
        AssignmentTooLarge,
        /// The placement selects no cluster.
        NoClusters,
        /// The Model that the deployment names does not exist.
        ModelNotFound,
        /// The Model that the deployment names is not resolved yet.
        ModelNotReady,
        /// The RolloutPolicy that the deployment names does not exist.
        PolicyNotFound,
        /// The object passes the schema, but not our types.
        ObjectInvalid,
        /// The tag was resolved and the package's config read.
        Resolved,
        /// The registry has no such tag or digest.
        ImageNotFound,
        /// The image reference does not parse.
        ImageInvalid,
        /// The artifact is not a model package, or its config does not parse.
        PackageInvalid,
        /// Family or version of the package differ from the Model's.
        PackageMismatch,
        /// The registry does not answer, or refuses the credentials.
        RegistryUnavailable,
        /// The pull Secret is missing or does not parse.
        PullSecretInvalid,
        /// The cluster's session reports.
        Connected,
        /// The cluster has not joined yet.
        NeverJoined,
        /// The cluster has not been heard of for the grace time.
        Offline,
        /// The kubeconfig Secret is missing, does not parse, or uses a refused field.
        KubeconfigInvalid,
        /// The cluster's API server does not answer.
        Unreachable,
        /// Another cluster reports under this name than the one that joined.
        IdentityClash,
        /// The site refuses updates for now.
        Held,
        /// The policy can be used.
        Valid,
        /// A revision waits for its rollout.
        Pending,
        /// The deployment is being taken away.
        Removing,
        /// Every cluster of the placement that answers runs the revision.
        RolledOut,
        /// The promoted revision serves on every cluster that answers.
        Serving,
        /// A cluster does not serve on all of its nodes.
        ClusterNotServing,
        /// No revision was promoted yet.
        NothingPromoted,
        /// The revision that the spec asks for failed; only a new one is tried.
        RevisionFailed,
        /// A node of a cluster rejected the revision, or the cluster's time ran out.
        ClusterFailed,
        /// A cluster failed on the revision.
        Failed,
        /// The only revision failed and none was ever promoted.
        NothingToRun,
        /// The revision failed and the policy pauses.
        RolloutStopped,
        /// The model is not resolved to a revision yet.
        NotResolved,
        /// The EdgeCluster is paused.
        ClusterPaused,
        /// Nodes of a cluster refuse the update for now.
        NodesHeld,
        /// A cluster is on its way to the revision.
        Updating,
        /// A cluster has the revision, but not all of its nodes serve.
        NotReady,
        /// A cluster's session has not reported on its assignment yet.
        NotReported,
        /// As many clusters of the stage are on their way as may be at once.
        MaxConcurrency,
        /// As many clusters of the stage are unavailable as may be.
        MaxUnavailable,
        /// A cluster's stage has not begun.
        StageNotReached,
        /// Nothing is in the way for good.
        NotStalled,
        /// It does not reconcile, since it is stalled.
        Stalled,
        /// Nobody paused it.
        NotPaused,
        /// Nothing failed.
        NotDegraded,
        /// A rollout began (event).
        RolloutStarted,
        /// A stage began (event).
        StageStarted,
        /// A stage's bake time began (event).
        BakeStarted,
        /// A stage is over (event).
        StagePassed,
        /// Clusters begin to go back (event).
        RollbackStarted,
    }
}

reasons! {
    /// Why a node is as it is with a revision: on EdgeNode, in problems and in `explain`.
    NodeReason {
        /// The revision is committed.
        Committed,
        /// The revision is on trial.
        OnTrial,
        /// The package is being fetched.
        Fetching,
        /// The package is being checked in preflight.
        Preflighting,
        /// No signature was found.
        SignatureMissing,
        /// No signature was good.
        SignatureInvalid,
        /// No authority that may sign for this repository trusts the key.
        KeyNotTrusted,
        /// The key or the digest is revoked.
        Revoked,
        /// The release counter is under the floor.
        BelowReleaseFloor,
        /// The trust file is missing or does not parse.
        TrustFileInvalid,
        /// The manifest or config breaks a rule of the package format or a limit.
        PackageInvalid,
        /// The registry does not answer, refuses, or broke off.
        FetchFailed,
        /// The store has no room.
        NoSpace,
        /// No variant of the package fits the device.
        NoVariantFits,
        /// The module does not compile, or asks for an import that it may not have.
        ModuleRefused,
        /// The model does not load.
        ModelRefused,
        /// A golden vector gave another answer.
        GoldenVectorMismatch,
        /// The module trapped.
        GuestTrapped,
        /// A golden vector, or preflight as a whole, took too long.
        TimedOut,
        /// The memory limit was exceeded.
        MemoryExceeded,
        /// The process died.
        Crashed,
        /// Too many requests failed during the trial.
        ErrorRateExceeded,
        /// Requests took too long during the trial.
        LatencyExceeded,
        /// The trial was started again too often.
        TriesExhausted,
        /// The cluster's time for the revision ran out.
        ProgressDeadlineExceeded,
        /// The site refuses updates for now.
        Held,
        /// The agent has not been heard of.
        AgentSilent,
        /// The stored bytes are not what was committed.
        StoreCorrupt,
        /// An entry of EdgeNode's spec does not parse.
        ObjectInvalid,
        /// The deployment was taken away.
        Removed,
        /// Another deployment of this node uses the endpoint name.
        EndpointNameTaken,
    }
}
