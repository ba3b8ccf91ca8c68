//! The kinds on a real API server: valid samples are accepted, invalid ones refused with the message that each states.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use rimward_e2e::control_plane::Options;
use rimward_e2e::{ControlPlane, story};

fn samples(folder: &str) -> Result<Vec<PathBuf>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../crds/samples")
        .join(folder);
    let mut paths = std::fs::read_dir(&folder)
        .with_context(|| format!("reading {}", folder.display()))?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<_>>>()?;
    paths.sort();
    ensure!(!paths.is_empty(), "{} is empty", folder.display());
    Ok(paths)
}

#[test]
fn an_api_server_takes_the_valid_samples_and_refuses_the_invalid_ones_by_name() {
    story("crds", async |story| {
        let hub = ControlPlane::start("crds", story.scratch().path(), Options::default()).await?;
        hub.apply_crds(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../crds/yaml"))
            .await?;
        let kubectl = hub.kubectl()?;
        for path in samples("valid")? {
            let file = path.display().to_string();
            kubectl.run(["apply", "--server-side", "-f", &file]).await?;
            // Once more: nothing that the API server fills in may make the object differ from its manifest.
            let diff = kubectl
                .output(["diff", "--server-side", "-f", &file])
                .await?;
            ensure!(
                diff.stdout.is_empty(),
                "{file} differs after it was applied:\n{}",
                diff.stdout
            );
        }
        let mut wrong = Vec::new();
        for path in samples("invalid")? {
            let text = std::fs::read_to_string(&path)?;
            let expected = text
                .lines()
                .next()
                .and_then(|line| line.strip_prefix("# refused: "));
            let expected =
                expected.with_context(|| format!("{} states no message", path.display()))?;
            let file = path.display().to_string();
            let output = kubectl
                .output(["create", "--validate=strict", "-f", &file])
                .await?;
            if output.status.success() || !output.stderr.contains(expected) {
                wrong.push(format!(
                    "{file}: expected {expected:?}, got {:?}",
                    output.stderr
                ));
            }
        }
        ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
        immutable(&kubectl).await
    });
}

/// What was accepted once does not change where the kind says so.
async fn immutable(kubectl: &rimward_e2e::Kubectl) -> Result<()> {
    let patches = [
        (
            "model/sample-digits-1-0-0",
            r#"{"spec":{"image":"registry.example.com/other:1"}}"#,
            "image never changes",
        ),
        (
            "model/sample-digits-1-0-0",
            r#"{"spec":{"version":"1.0.1"}}"#,
            "version never changes",
        ),
        (
            "model/sample-digits-1-0-0",
            r#"{"spec":{"family":"letters"}}"#,
            "family never changes",
        ),
        (
            "modelrevision/sample-digits-1a2b3c4d5e",
            r#"{"spec":{"health":{"minSamples":5}}}"#,
            "a ModelRevision never changes",
        ),
        (
            "rolloutaction/sample-digits-promote-b4m9q",
            r#"{"spec":{"stage":"half"}}"#,
            "a RolloutAction never changes",
        ),
    ];
    for (object, patch, expected) in patches {
        let refusal = kubectl
            .output(["patch", object, "--type=merge", "-p", patch])
            .await?
            .refusal()?;
        ensure!(
            refusal.contains(expected),
            "{object}: expected {expected:?}, got {refusal:?}"
        );
    }
    let secret = r#"{"spec":{"pullSecretRef":{"name":"another"}}}"#;
    kubectl
        .run([
            "patch",
            "model/sample-digits-1-0-0",
            "--type=merge",
            "-p",
            secret,
        ])
        .await?;
    let status = kubectl
        .run([
            "get",
            "rpol/sample-canary-first",
            "-o",
            "jsonpath={.status.observedGeneration}",
        ])
        .await?;
    ensure!(
        status == "-1",
        "a status never written must not look finished: {status:?}"
    );
    Ok(())
}
