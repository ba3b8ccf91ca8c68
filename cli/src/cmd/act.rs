//! `kubectl rimward retry|promote|abort|undo NAME`: asks something of a rollout, and waits for the hub's answer.
//!
//! Owns what a command turns into: one RolloutAction, about the very rollout that was seen when it was asked. What becomes
//! of it is the hub's to say.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use futures::StreamExt as _;
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use kube::api::{ObjectMeta, PostParams};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::watch_object;
use kube::{Api, Client, ResourceExt as _};
use rimward_crds::{
    ActionOutcome, ActionVerb, ModelDeployment, RolloutAction, RolloutActionSpec,
    RolloutActionStatus,
};

use crate::connect::words;
use crate::fetch::{DeploymentArgs, Found};
use crate::output;
use crate::time::parse_time;
use crate::view::clean;

/// What every action takes.
#[derive(Debug, clap::Args)]
pub(crate) struct ActArgs {
    #[command(flatten)]
    deployment: DeploymentArgs,
    /// Do not wait for the hub's answer.
    #[arg(long)]
    no_wait: bool,
    /// How long to wait for it: `90`, `90s`, `10m`, `1h`.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_time, conflicts_with = "no_wait")]
    timeout: Duration,
}

/// What `retry` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Retry {
    #[command(flatten)]
    act: ActArgs,
    /// Let devices that condemned the content try it again, too.
    #[arg(long)]
    forget_verdicts: bool,
}

/// What `promote` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Promote {
    #[command(flatten)]
    act: ActArgs,
    /// The stage to let pass [default: the one that the rollout is in].
    #[arg(long, value_name = "NAME")]
    stage: Option<String>,
}

/// What `abort` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Abort {
    #[command(flatten)]
    act: ActArgs,
}

/// What `undo` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Undo {
    #[command(flatten)]
    act: ActArgs,
    /// The revision to go to [default: the one that was promoted before].
    revision: Option<String>,
}

/// One thing asked of a rollout.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Asked {
    Retry { forget_verdicts: bool },
    Promote { stage: Option<String> },
    Abort,
    Undo { revision: Option<String> },
}

impl Retry {
    /// Runs the command.
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        let forget_verdicts = self.forget_verdicts;
        act(&self.act, &Asked::Retry { forget_verdicts }).await
    }
}

impl Promote {
    /// Runs the command.
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        let stage = self.stage;
        act(&self.act, &Asked::Promote { stage }).await
    }
}

impl Abort {
    /// Runs the command.
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        act(&self.act, &Asked::Abort).await
    }
}

impl Undo {
    /// Runs the command.
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        let revision = self.revision;
        act(&self.act, &Asked::Undo { revision }).await
    }
}

async fn act(args: &ActArgs, asked: &Asked) -> anyhow::Result<ExitCode> {
    let Found { client, object, .. } = args.deployment.find().await?;
    let by = myself(&client).await?;
    let api: Api<RolloutAction> = args.deployment.namespace.api(&client);
    let made = api
        .create(&PostParams::default(), &action(&object, asked, by))
        .await
        .map_err(words)
        .context("making the RolloutAction")?;
    let name = made.name_any();
    if args.no_wait {
        output::write(&format!("rolloutaction.rimward.dev/{name} created\n"))?;
        return Ok(ExitCode::SUCCESS);
    }
    let status = match tokio::time::timeout(args.timeout, decided(&api, &name, made)).await {
        Ok(decided) => decided?,
        Err(_) => bail!(
            "the hub has not answered RolloutAction {name} within {} s; it does when its operator runs again, and \
             `kubectl delete rolloutaction {name}` takes the question back",
            args.timeout.as_secs()
        ),
    };
    output::write(&format!("{}\n", answer(&status)?))?;
    Ok(ExitCode::SUCCESS)
}

/// The object that asks. What the rollout is at now is written into it, so that the hub refuses where it is elsewhere by
/// the time it reads it.
fn action(deployment: &ModelDeployment, asked: &Asked, by: String) -> RolloutAction {
    let name = deployment.name_any();
    let status = deployment.status.clone().unwrap_or_default();
    let attempt = status.stage.as_ref().map(|stage| stage.attempt);
    let spec = RolloutActionSpec {
        deployment_name: name.clone(),
        action: ActionVerb::Abort,
        revision: status.update_revision,
        stage: None,
        attempt,
        forget_verdicts: false,
        by,
    };
    let spec = match asked.clone() {
        Asked::Retry { forget_verdicts } => RolloutActionSpec {
            action: ActionVerb::Retry,
            forget_verdicts,
            ..spec
        },
        Asked::Promote { stage } => RolloutActionSpec {
            action: ActionVerb::Promote,
            stage: stage.or_else(|| status.stage.map(|stage| stage.name)),
            ..spec
        },
        Asked::Abort => spec,
        // About where to go, whatever goes on.
        Asked::Undo { revision } => RolloutActionSpec {
            action: ActionVerb::Undo,
            revision,
            attempt: None,
            ..spec
        },
    };
    let verb = spec.action.as_str().to_lowercase();
    RolloutAction {
        metadata: ObjectMeta {
            generate_name: Some(format!("{name}-{verb}-")),
            namespace: deployment.metadata.namespace.clone(),
            ..ObjectMeta::default()
        },
        spec,
        status: None,
    }
}

/// Who the API server takes this user for: an admission policy compares.
async fn myself(client: &Client) -> anyhow::Result<String> {
    let api: Api<SelfSubjectReview> = Api::all(client.clone());
    let review = api
        .create(&PostParams::default(), &SelfSubjectReview::default())
        .await
        .map_err(words)
        .context("asking who this user is")?;
    let user = review.status.and_then(|status| status.user_info);
    user.and_then(|user| user.username)
        .context("the API server does not say who this user is")
}

/// Follows the action until the hub has decided on it.
async fn decided(
    api: &Api<RolloutAction>,
    name: &str,
    made: RolloutAction,
) -> anyhow::Result<RolloutActionStatus> {
    let mut changes = std::pin::pin!(watch_object(api.clone(), name).default_backoff());
    let mut next = Some(made);
    loop {
        let status = next.and_then(|action| action.status);
        if let Some(status) = status.filter(|status| status.outcome.is_some()) {
            return Ok(status);
        }
        next = match changes.next().await {
            Some(Ok(Some(action))) => Some(action),
            Some(Ok(None)) => bail!("RolloutAction {name} was deleted"),
            // The watch goes on by itself; the timeout bounds how long.
            Some(Err(_)) => None,
            None => bail!("the watch of RolloutAction {name} ended"),
        };
    }
}

/// The hub's sentence; an error where it refused.
fn answer(status: &RolloutActionStatus) -> anyhow::Result<String> {
    let message = clean(status.message.as_deref().unwrap_or_default());
    match status.outcome {
        Some(ActionOutcome::Refused) => bail!("refused: {message}"),
        Some(ActionOutcome::Applied) | None => Ok(message),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn deployment(status: serde_json::Value) -> ModelDeployment {
        serde_json::from_value(json!({
            "apiVersion": "rimward.dev/v1alpha1", "kind": "ModelDeployment",
            "metadata": {"name": "digits", "namespace": "team"},
            "spec": {"modelRef": {"name": "m"}, "placement": {}}, "status": status,
        }))
        .unwrap()
    }

    fn check(asked: &Asked, status: serde_json::Value, prefix: &str, spec: serde_json::Value) {
        let action = action(&deployment(status), asked, "ann".to_owned());
        assert_eq!(action.metadata.generate_name.as_deref(), Some(prefix));
        assert_eq!(action.metadata.namespace.as_deref(), Some("team"));
        assert_eq!(serde_json::to_value(&action.spec).unwrap(), spec);
    }

    #[test]
    fn an_action_is_about_the_rollout_that_was_seen() {
        let seen =
            || json!({"updateRevision": "digits-2", "stage": {"name": "canary", "attempt": 3}});
        let about = |action: &str| json!({"deploymentName": "digits", "action": action, "revision": "digits-2", "attempt": 3, "by": "ann"});
        let with = |mut spec: serde_json::Value, field: &str, value: serde_json::Value| {
            spec[field] = value;
            spec
        };
        for (forget_verdicts, spec) in [
            (false, about("Retry")),
            (true, with(about("Retry"), "forgetVerdicts", json!(true))),
        ] {
            check(
                &Asked::Retry { forget_verdicts },
                seen(),
                "digits-retry-",
                spec,
            );
        }
        for (stage, named) in [(None, "canary"), (Some("rest".to_owned()), "rest")] {
            let spec = with(about("Promote"), "stage", json!(named));
            check(&Asked::Promote { stage }, seen(), "digits-promote-", spec);
        }
        check(&Asked::Abort, seen(), "digits-abort-", about("Abort"));
    }

    #[test]
    fn an_undo_says_where_to_go_and_nothing_of_the_rollout() {
        let seen =
            || json!({"updateRevision": "digits-2", "stage": {"name": "canary", "attempt": 3}});
        let spec = json!({"deploymentName": "digits", "action": "Undo", "by": "ann"});
        check(
            &Asked::Undo { revision: None },
            seen(),
            "digits-undo-",
            spec.clone(),
        );
        let mut to = spec;
        to["revision"] = json!("digits-0");
        let revision = Some("digits-0".to_owned());
        check(&Asked::Undo { revision }, seen(), "digits-undo-", to);
    }

    #[test]
    fn a_deployment_without_a_rollout_is_the_hubs_to_refuse() {
        let spec = json!({"deploymentName": "digits", "action": "Abort", "by": "ann"});
        check(&Asked::Abort, json!({}), "digits-abort-", spec);
    }

    #[test]
    fn a_refusal_is_an_error_in_the_hubs_words_without_control_characters() {
        let status = |outcome: &str| -> RolloutActionStatus {
            let message = "revision r2 did not stop\u{1b}[31m";
            serde_json::from_value(json!({"outcome": outcome, "message": message})).unwrap()
        };
        let clean = "revision r2 did not stop\u{fffd}[31m";
        assert_eq!(answer(&status("Applied")).unwrap(), clean);
        let error = answer(&status("Refused")).unwrap_err().to_string();
        assert_eq!(error, format!("refused: {clean}"));
    }
}
