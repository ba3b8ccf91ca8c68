//! Two replicas of the hub operator: one leads, and when it dies the other does.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rimward_e2e::control_plane::{ControlPlane, Options};
use rimward_e2e::rimward::Operator;
use rimward_e2e::{Fleet, Kubectl, Seen, story, wait_for};

const WITHIN: Duration = Duration::from_secs(120);

#[test]
fn a_second_replica_leads_once_the_first_is_killed() {
    story("leader", async |story| {
        let (hub, account) = Fleet::start_hub(story.scratch().path(), Options::default()).await?;
        let kubectl = hub.kubectl()?;
        let mark = hub.audit().mark()?;
        let start = |name: &str| {
            Operator::hub(
                name,
                story.scratch().path(),
                &account,
                &["--lease-seconds=3"],
            )
        };
        let first = start("first")?;
        first.wait_until_ready(WITHIN).await?;
        wait_for("the first to lead", WITHIN, async || {
            leads(&kubectl, "first").await
        })
        .await?;

        let second = start("second")?;
        second.wait_until_ready(WITHIN).await?;
        ensure!(second.metrics().await?.contains("# EOF"));
        ensure!(
            matches!(leads(&kubectl, "first").await?, Seen::Done(())),
            "both lead"
        );

        first.service().kill();
        wait_for("the second to lead", WITHIN, async || {
            leads(&kubectl, "second").await
        })
        .await?;
        first.service().resume()?;
        first.wait_until_ready(WITHIN).await?;
        no_request_was_forbidden(&hub, mark)
    });
}

async fn leads(kubectl: &Kubectl, name: &str) -> Result<Seen<()>> {
    let lease = kubectl
        .get_json(["lease", "rimward-hub", "-n", "rimward-system"])
        .await?;
    let holder = lease["spec"]["holderIdentity"]
        .as_str()
        .unwrap_or("nobody")
        .to_owned();
    Ok(if holder == name {
        Seen::Done(())
    } else {
        Seen::NotYet(format!("{holder} leads"))
    })
}

/// The account may do what the operator does.
fn no_request_was_forbidden(hub: &ControlPlane, mark: rimward_e2e::audit::Mark) -> Result<()> {
    let events = hub.audit().since(mark)?;
    let mut own = events
        .iter()
        .filter(|event| {
            event
                .user
                .username
                .starts_with(rimward_e2e::fleet::ACCOUNTS)
        })
        .peekable();
    own.peek()
        .context("the audit log has no request of the operator's account")?;
    let forbidden = own.find(|event| event.code() == 403);
    ensure!(
        forbidden.is_none(),
        "{}",
        forbidden.map(ToString::to_string).unwrap_or_default()
    );
    Ok(())
}
