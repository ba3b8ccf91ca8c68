//! The demo on real pods, as whoever tries Rimward sees it: up to the first bad model that is stopped.

use std::time::Duration;

use anyhow::ensure;
use rimward_e2e::command::Line;
use rimward_e2e::{rimward, story};

use crate::pods_node::is_possible;

#[test]
fn the_demo_tells_its_story_on_real_pods() {
    if !is_possible("pods-demo") {
        return;
    }
    story("pods-demo", async |_| {
        let demo = Line::new(&rimward::binary("rimward-demo")?);
        let demo = demo.args(["--pods", "--short"]);
        let said = demo.within(Duration::from_secs(800)).run().await?;
        // What a user would type, and what only came of it where it held.
        for words in [
            "$ cargo xtask release --registry ",
            "$ helm install rimward oci://",
            "$ kubectl rimward cluster add north ",
            "$ helm upgrade rimward oci://",
            "✓ both joined, nodes that are ready in each: 1",
            "✓ south's node hub-1 at 198.18.",
            "✓ one canary node refused it; no other node was ever given it",
        ] {
            ensure!(said.contains(words), "no {words:?} in:\n{said}");
        }
        Ok(())
    });
}
