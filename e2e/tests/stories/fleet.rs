//! The fleet that most stories share: Rimward's kinds are served, its accounts may do their part and no more.

use anyhow::ensure;
use rimward_e2e::{Fleet, Kubectl, story};

#[test]
fn a_fleet_serves_the_kinds_and_each_account_may_do_its_part_only() {
    story("fleet", async |_| {
        let fleet = Fleet::shared().await?;
        let operator = Kubectl::new(&fleet.hub_operator)?;
        let north = fleet.edge("north")?;
        let session = Kubectl::new(&north.operator)?;
        let agent = Kubectl::new(&north.agent)?;
        for (who, may, arguments) in [
            (&operator, true, ["create", "modelrevisions.rimward.dev"]),
            (&operator, true, ["list", "edgeclusters.rimward.dev"]),
            (&operator, false, ["patch", "modeldeployments.rimward.dev"]),
            (&operator, false, ["list", "secrets"]),
            (&session, true, ["patch", "edgenodes.rimward.dev"]),
            (&session, false, ["create", "edgenodes.rimward.dev"]),
            (&agent, true, ["create", "edgenodes.rimward.dev"]),
            (&agent, false, ["list", "clusterassignments.rimward.dev"]),
        ] {
            let output = who
                .output([&["auth", "can-i"], &arguments[..]].concat())
                .await?;
            ensure!(
                output.status.success() == may,
                "{arguments:?}: {}",
                output.stdout
            );
        }
        Ok(())
    });
}
