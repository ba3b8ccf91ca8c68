//! The charts on a real API server, without nodes: what they make is admitted.

use anyhow::ensure;
use rimward_e2e::control_plane::Options;
use rimward_e2e::helm::{NO_REGISTRY, chart};
use rimward_e2e::{ControlPlane, Helm, story};

#[test]
fn all_of_rimward_is_installed_on_one_cluster() {
    story("charts-install", async |story| {
        let folder = story.scratch().path();
        let plane = ControlPlane::start("one", folder, Options::default()).await?;
        let helm = Helm::new(&plane.kubeconfig(), folder)?;
        let registry = format!("image.registry={NO_REGISTRY}");
        let parts = "edge.enabled=true,edge.cluster=here,edge.hub.kubeconfig=x,agent.enabled=true,\
                     agent.trust.file=x,networkPolicy.enabled=true";
        let release = ["install", "rimward", &chart("rimward")];
        let namespace = ["-n", "rimward-system", "--create-namespace"];
        let said = helm
            .line(release)
            .args(namespace)
            .args(["--set", &registry, "--set", parts])
            .run()
            .await?;
        ensure!(said.contains("STATUS: deployed"), "{said}");
        Ok(())
    });
}
