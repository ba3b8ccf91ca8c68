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
    /// The credential between hub and cluster ends soon.
    pub const CREDENTIAL_EXPIRING: &str = "CredentialExpiring";
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
        /// A cluster's assignment would exceed 256 entries or 640 KiB.
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
        /// The registry does not answer.
        RegistryUnavailable,
        /// The registry refuses the pull Secret's credentials, or wants some.
        RegistryAccessDenied,
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
        /// The cluster lacks a CustomResourceDefinition, or has one from before this operator.
        DefinitionsUnfit,
        /// Another cluster reports under this name than the one that joined.
        IdentityConflict,
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
        /// Only nodes that are not heard are left without the revision.
        NodesSilent,
        /// No cluster of the stage is heard, so nothing proves the revision.
        NoneHeard,
        /// The cluster left the placement and waits for its turn to remove the model.
        RemovalPaced,
        /// The cluster waits for its turn to go back.
        RollbackPaced,
        /// The content was condemned and the policy pauses.
        RolloutPaused,
        /// What stopped the rollout is gone; it goes on.
        RolloutResumed,
        /// No cluster belongs to the stage, and it does not say `allowEmpty`.
        StageEmpty,
        /// A cluster fell silent after it may have got the revision.
        Suspect,
        /// The present leader has not heard the cluster yet.
        Unheard,
        /// A large part of the fleet fell silent at once: the hub doubts its own ears, and nothing moves.
        HubDoubtsItself,
        /// A cluster's or a node's time for the revision ran out.
        TimedOut,
        /// The revision that the spec asks for was undone by a person.
        Undone,
        /// The revision was taken back by a person.
        Aborted,
        /// Fewer clusters are heard to run the revision than the stage wants before it passes.
        MinProven,
        /// The credential between hub and cluster ends within 30 days.
        CredentialExpiring,
        /// The credential between hub and cluster is good for more than 30 days, or does not say its end.
        CredentialGood,
        /// What a person asked for was done.
        ActionApplied,
        /// What a person asked for cannot be done.
        ActionRefused,
    }
}

reasons! {
    /// Why a node is as it is with a revision: on EdgeNode, in problems, in a cluster's verdict, in `explain`.
    NodeReason {
        // Going on, or as it should be.
        /// The revision is committed and nothing is wrong.
        Committed,
        /// No order was seen yet, or nothing has begun.
        NotReported,
        /// Nodes take the revision.
        Updating,
        /// The budget for unavailable nodes is used up.
        MaxUnavailable,
        /// The go-aheads of this cluster stopped: a node rejected the revision, or time ran out.
        Stopped,
        /// The deployment is being taken away.
        Removing,
        /// The deployment's node selector matches no node of the cluster.
        NoNodes,
        /// The site refuses updates for now.
        Held,
        /// The same, as a condition.
        HeldBySite,
        /// No hold, as a condition.
        NotHeld,
        /// The node's agent has not been heard of.
        Silent,
        /// The node's agent fell silent after the node got its go-ahead.
        Suspect,
        /// The node rejected the revision.
        Rejected,
        /// The node cannot have the revision for now, and tries again.
        Blocked,
        /// The node serves no revision.
        NotServing,
        /// The cluster's time for the revision ran out.
        ProgressDeadlineExceeded,
        // Orders.
        /// An entry of the node's orders does not parse.
        OrderInvalid,
        /// The node's orders cannot be read at all.
        OrdersUnreadable,
        /// Another deployment of this node uses the endpoint name.
        EndpointNameTaken,
        // Verification, before anything is compiled or loaded.
        /// The trust file is missing or does not parse.
        TrustUnreadable,
        /// The registry gave other bytes than the digest names.
        ManifestDigestMismatch,
        /// The manifest is not one of a package.
        ManifestInvalid,
        /// A declared size is over this device's limits.
        PackageTooLarge,
        /// The package or one of its files is revoked.
        RevokedDigest,
        /// The trust file names nobody who may sign for this repository.
        RepositoryNotTrusted,
        /// No signature was found.
        SignatureMissing,
        /// Signatures were found, none of them whole and right.
        SignatureInvalid,
        /// A signature in a form that is not accepted.
        SignatureFormatUnsupported,
        /// Right signatures, but of something else.
        SignatureOfOtherContent,
        /// Signed with a key that the trust file does not name for this repository.
        KeyNotTrusted,
        /// Signed with a revoked key.
        KeyRevoked,
        /// Good signatures, but of fewer distinct keys than the threshold.
        ThresholdNotMet,
        /// The registry gave another package config than the manifest names.
        ConfigDigestMismatch,
        /// The package config is not right in itself, or disagrees with the manifest.
        ConfigInvalid,
        /// The release counter is below the floor.
        BelowReleaseFloor,
        /// The registry gave other golden vectors than the manifest names.
        GoldenDigestMismatch,
        /// The golden vectors do not fit the package's tensors.
        GoldenInvalid,
        // Fetching and keeping.
        /// The registry could not be reached or did not deliver.
        FetchFailed,
        /// The registry's client could not be set up: a bad certificate authority or address.
        RegistryClientSetup,
        /// The registry could not be reached.
        RegistryUnreachable,
        /// The registry answered with an error.
        RegistryError,
        /// The registry has no such manifest or blob.
        NotFound,
        /// The registry refuses the credentials, or wants some.
        RegistryAccessDenied,
        /// The registry sent more than was declared or is allowed.
        ContentTooLarge,
        /// The registry was slower than the least rate, or the deadline passed.
        RegistryTooSlow,
        /// The registry's answer breaks the protocol, or leads to a host that it may not lead to.
        RegistryAnswerRefused,
        /// The bytes do not hash to their digest.
        ContentDigestMismatch,
        /// The device's own storage failed while fetching.
        StorageError,
        /// The disk has no room for the package, or does not take it.
        NoSpace,
        /// Stored bytes are missing or do not hash to their name any more.
        Corrupt,
        /// The state record could not be written.
        StateUnwritable,
        // Preflight.
        /// None of the package's variants fits this device.
        NoVariantFits,
        /// The preflight child could not be run at all.
        PreflightUnavailable,
        /// The module is not a component, or does not compile.
        CompileFailed,
        /// The module imports what no module is given.
        ImportRefused,
        /// The module lacks the export `rimward:inference/handler`.
        ExportMissing,
        /// The model cannot be loaded safely, or uses what the backend does wrongly.
        ModelRefused,
        /// The backend that the variant asks for is not here.
        BackendUnavailable,
        /// The package's declared tensors cannot be served.
        TensorMismatch,
        /// The policy requires golden vectors and the package has none.
        GoldenVectorsMissing,
        /// The golden vectors cannot be read.
        GoldenVectorsInvalid,
        /// An answer differs from the golden one.
        GoldenVectorMismatch,
        /// The module trapped.
        GuestTrapped,
        /// The module or the backend returned an error on a golden input.
        InferenceFailed,
        /// A time limit ran out.
        TimedOut,
        /// A memory limit was hit.
        MemoryExceeded,
        /// The preflight child died.
        Crashed,
        /// The machine killed the preflight child, or gave it no processor; it is tried again, later and later. Or agent and device
        /// went down in twelve preflights in a row; then it waits for a retry.
        PreflightInterrupted,
        /// Native code is not what the supervisor sealed, or of another engine.
        NativeCodeRefused,
        /// The machine failed: a file, a socket, a process.
        Internal,
        // Trial.
        /// Too many requests failed in trial.
        TooManyErrors,
        /// Answers came too slowly in trial.
        TooSlow,
        /// The probation is over and too few requests were judged; the trial goes on, and condemns nobody.
        TooFewSamples,
        /// The host process died while the version was in trial.
        HostDied,
        /// Agent or device went down in many starts in a row, before the version had shown anything in trial.
        StartsUsedUp,
        /// The attempt wrote its state too often: a loop.
        TooManyWrites,
    }
}
