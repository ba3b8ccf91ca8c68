//! Who stands by is silent: its EdgeNode, status and Lease belong to the holder of the folder until that is gone.

use std::time::Duration;

use anyhow::{Result, ensure};
use rimward_e2e::audit::{Audit, Mark};
use rimward_e2e::control_plane::Options;
use rimward_e2e::ports::free_port;
use rimward_e2e::system::{Mode, SiteSpec};
use rimward_e2e::{Seen, Story, story, wait_for};

use crate::handover_world::{WITHIN, stop};
use crate::releases;

const RATE_PER_SECOND: u32 = 100;
const SITE: SiteSpec = SiteSpec {
    name: "north",
    mode: Mode::Pull,
    labels: "ring=main",
    nodes: 1,
};
/// Longer than an agent waits before it renews its Lease.
const A_LEASE: Duration = Duration::from_secs(15);

#[test]
fn who_stands_by_says_nothing_to_the_api_server_before_it_has_the_folder() {
    story("handover-api", async |_: &Story| {
        let releases = [releases::GOOD, releases::BETTER];
        let name = "handover-api-fleet";
        let system = releases::start(name, &[SITE], Options::default(), &releases).await?;
        releases::settle_on_clear_digits(&system, "digits").await?;
        let plane = &system.fleet.edge(SITE.name)?.plane;
        let node = &system.sites[0].nodes[0];
        let load = releases::load(&node.host, "digits", RATE_PER_SECOND)?;

        // By another user than the holder, so that the server's log tells the two apart.
        let probes = format!("127.0.0.1:{}", free_port()?);
        let folder = plane.folder().join(&node.name);
        let arguments = [
            "run".to_owned(),
            "--standby".to_owned(),
            format!("--node-name={}", node.name),
            format!("--kubeconfig={}", plane.kubectl()?.kubeconfig().display()),
            format!("--data-dir={}", folder.join("data").display()),
            format!("--trust={}", system.trust.display()),
            format!("--listen={}", node.host),
            format!("--metrics-listen={probes}"),
        ];
        let next = rimward_e2e::rimward::agent("agent-next", &folder, &arguments)?;
        let log = plane.audit();
        let mark = log.mark()?;
        next.wait_until_answers(&format!("http://{probes}/readyz"), WITHIN)
            .await?;
        tokio::time::sleep(A_LEASE).await;
        let said = by_the_next(&log, mark)?;
        ensure!(said.is_empty(), "{said:#?}");
        stop(&node.agent)?;
        wait_for("the next agent to renew the Lease", WITHIN, async || {
            let said = by_the_next(&log, mark)?;
            let renews = |line: &String| line.contains("leases") && line.contains("patch");
            Ok(if said.iter().any(renews) {
                Seen::Done(())
            } else {
                Seen::NotYet(format!("{said:?}"))
            })
        })
        .await?;
        // It follows the cluster's orders and reports.
        let order = releases::Order::new(releases::BETTER, 100, 0);
        releases::deploy(&system, "digits", order).await?;
        releases::promoted(&system, "digits").await?;
        load.stop()?.check_none_failed()
    });
}

/// What nobody but the next agent asked the edge's API server.
fn by_the_next(log: &Audit, mark: Mark) -> Result<Vec<String>> {
    let events = log.since(mark)?;
    let own = events
        .iter()
        .filter(|event| !event.user.username.starts_with("system:"));
    Ok(own
        .map(|event| format!("{} {}", event.verb, event.request_uri))
        .collect())
}
