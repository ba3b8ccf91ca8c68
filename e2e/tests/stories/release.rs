//! A release: images and charts in a registry, signed, with what they are made of. What is inside the images.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rimward_e2e::command::{Line, Output};
use rimward_e2e::images::{self, IMAGES, Layout, entries};
use rimward_e2e::registry::{Kind, Registry, digest};
use rimward_e2e::{Cosign, Helm, Story, http, rimward, story};
use serde_json::{Value, json};

const SPDX: &str = "application/spdx+json";
const USER: u64 = 65_532;
/// Programs that an intruder would look for.
const TOOLS_OF_INTRUDERS: [&str; 12] = [
    "sh", "bash", "dash", "busybox", "apt", "apt-get", "dpkg", "perl", "curl", "wget", "ld", "env",
];

/// A registry, a key, and what a release wrote.
struct World {
    registry: Registry,
    cosign: Cosign,
    out: PathBuf,
}

impl World {
    async fn new(story: &Story, kind: Kind) -> Result<Self> {
        let scratch = story.scratch();
        Ok(Self {
            registry: Registry::start(kind, &scratch.folder("registry")?).await?,
            cosign: Cosign::generate(&scratch.folder("keys")?).await?,
            out: scratch.folder("released")?,
        })
    }

    /// `cargo xtask release`, as its maker would type it.
    async fn release(&self, more: &[&str]) -> Result<Output> {
        let key = self.cosign.private_key();
        Line::new(&rimward::binary("xtask")?)
            .args(["release", "--registry", &self.name(), "--plain-http"])
            .args(["--key", &key.display().to_string()])
            .args(["--images", &images::folder()?.display().to_string()])
            .args(["--out", &self.out.display().to_string()])
            .args(more)
            .env("COSIGN_PASSWORD", "")
            .env("DOCKER_CONFIG", &self.out)
            .within(Duration::from_secs(600))
            .output()
            .await
    }

    fn name(&self) -> String {
        format!("{}/rimward", self.registry.host())
    }

    async fn is_signed(&self, cosign: &Cosign, repository: &str, digest: &str) -> Result<bool> {
        let reference = format!("{}/{repository}@{digest}", self.registry.host());
        Ok(cosign.verify(&reference).await?.status.success())
    }

    /// Manifests that refer to another, by the API or, where there is none, by the tag that stands for it.
    async fn referrers(&self, repository: &str, subject: &str) -> Result<Vec<String>> {
        let url = format!(
            "http://{}/v2/{repository}/referrers/{subject}",
            self.registry.host()
        );
        let answer = http::client()?.get(url).send().await?;
        let list: Value = if answer.status().is_success() {
            answer.json().await?
        } else {
            let tag = subject.replace(':', "-");
            self.registry.manifest(repository, &tag).await?
        };
        Ok(digests(&list))
    }

    /// The bill of materials of an image, found as scanners find it.
    async fn materials(&self, repository: &str, subject: &str) -> Result<(String, Value)> {
        for referrer in self.referrers(repository, subject).await? {
            let manifest = self.registry.manifest(repository, &referrer).await?;
            if manifest["artifactType"] == SPDX {
                ensure!(manifest["subject"]["digest"] == subject, "{manifest}");
                let layer = manifest["layers"][0]["digest"].as_str();
                let bytes = self.registry.blob(repository, layer.unwrap_or_default());
                return Ok((referrer, serde_json::from_slice(&bytes.await?)?));
            }
        }
        anyhow::bail!("no bill of materials refers to {repository}@{subject}")
    }
}

fn digests(list: &Value) -> Vec<String> {
    let entries = list["manifests"].as_array().cloned().unwrap_or_default();
    let digests = entries.iter().filter_map(|entry| entry["digest"].as_str());
    digests.map(str::to_owned).collect()
}

#[test]
fn images_and_charts_are_released_signed_with_their_materials() {
    story("release-referrers", async |story: &Story| {
        released(story, Kind::Referrers).await
    });
}

#[test]
fn a_registry_without_the_referrers_api_has_signatures_and_materials_too() {
    story("release-tags", async |story: &Story| {
        released(story, Kind::TagScheme).await
    });
}

async fn released(story: &Story, kind: Kind) -> Result<()> {
    let world = World::new(story, kind).await?;
    let wrong_key = Cosign::generate(&story.scratch().folder("others-keys")?).await?;
    let first = world.release(&[]).await?;
    ensure!(first.status.success(), "{}", first.stderr);
    for (name, _) in IMAGES {
        let repository = format!("rimward/{name}");
        let index = world.registry.manifest(&repository, VERSION).await?;
        let layout = Layout::of(name)?.index()?;
        let top = layout["digest"].as_str().context("no digest")?;
        let place = format!("{}/{name}@{top}", world.name());
        ensure!(first.stdout.contains(&place), "{place}: {}", first.stdout);
        ensure!(index == world.registry.manifest(&repository, top).await?);
        for image in digests(&index) {
            let (document, materials) = world.materials(&repository, &image).await?;
            check_materials(name, &materials)?;
            for digest in [&image, &document, &top.to_owned()] {
                let good = world.is_signed(&world.cosign, &repository, digest);
                ensure!(good.await?, "{repository}@{digest} is not signed");
            }
        }
        let wrong = world.is_signed(&wrong_key, &repository, top).await?;
        ensure!(!wrong, "{place} verifies with a key that never signed it");
    }
    check_chart(&world, story).await?;

    // Once more, as after a release that broke off: nothing is signed twice, and all is where it was.
    let operator = Layout::of("rimward-operator")?.index()?;
    let operator = operator["digest"].as_str().context("no digest")?;
    let repository = "rimward/rimward-operator";
    let before = world.referrers(repository, operator).await?.len();
    let second = world.release(&[]).await?;
    ensure!(second.status.success(), "{}", second.stderr);
    ensure!(first.stdout == second.stdout, "{}", second.stdout);
    let after = world.referrers(repository, operator).await?.len();
    ensure!(before == after, "{before} referrers, then {after}");
    Ok(())
}

/// The chart that was released pulls those images, by digest; its own digest is signed.
async fn check_chart(world: &World, story: &Story) -> Result<()> {
    let helm = Helm::without_cluster(story.scratch().path())?;
    for chart in ["rimward", "rimward-crds"] {
        let repository = format!("rimward/charts/{chart}");
        let manifest = world.registry.manifest(&repository, VERSION).await?;
        let digest = digest(manifest.to_string().as_bytes());
        let tagged = format!("{}/{repository}:{VERSION}", world.registry.host());
        let verified = world.cosign.verify(&tagged).await?;
        ensure!(verified.status.success(), "{digest}: {}", verified.stderr);
        let url = format!("oci://{}/charts/{chart}", world.name());
        let values = "agent.enabled=true,agent.trust.file=x,edge.enabled=true,edge.cluster=here,edge.hub.kubeconfig=x";
        let mut arguments = vec!["template", "r", &url, "--version", VERSION, "--plain-http"];
        if chart == "rimward" {
            arguments.extend(["--set", values]);
        }
        let rendered = helm.run(arguments).await?;
        if chart == "rimward-crds" {
            ensure!(rendered.contains("kind: CustomResourceDefinition"));
            continue;
        }
        for (name, _) in IMAGES {
            let index = Layout::of(name)?.index()?;
            let digest = index["digest"].as_str().context("no digest")?;
            let image = format!("{}/{name}@{digest}", world.name());
            ensure!(rendered.contains(&image), "the chart does not pull {image}");
        }
    }
    Ok(())
}

#[test]
fn a_version_that_is_there_already_is_not_overwritten() {
    story("release-there", async |story: &Story| {
        let world = World::new(story, Kind::Referrers).await?;
        let repository = "rimward/rimward-cli";
        let registry = &world.registry;
        let other = registry
            .push(repository, VERSION, "application/x", b"another")
            .await?;
        let refused = world.release(&[]).await?;
        ensure!(!refused.status.success(), "{}", refused.stdout);
        let words = format!("rimward-cli:{VERSION} is there already and is {other}");
        ensure!(refused.stderr.contains(&words), "{}", refused.stderr);
        ensure!(refused.stderr.contains("--replace"), "{}", refused.stderr);
        // Nothing of the release has a name yet.
        let named = registry.manifest("rimward/rimward-operator", VERSION).await;
        ensure!(named.is_err(), "{named:?}");

        let replaced = world.release(&["--replace"]).await?;
        ensure!(replaced.status.success(), "{}", replaced.stderr);
        let now = registry.manifest(repository, VERSION).await?;
        ensure!(
            now["mediaType"] == "application/vnd.oci.image.index.v1+json",
            "{now}"
        );
        Ok(())
    });
}

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The crates that do the work nobody would write himself, with the versions that Cargo.lock pins.
fn check_materials(name: &str, materials: &Value) -> Result<()> {
    let lock = include_str!("../../../Cargo.lock");
    let pinned: &[&str] = match name {
        "rimward-operator" => &["kube", "ring", "rimward-core"],
        "rimward-node-agent" => &["wasmtime", "ring", "rten", "rimward-core"],
        _ => &["clap", "ring"],
    };
    ensure!(materials["spdxVersion"] == "SPDX-2.3", "{name}");
    let packages = materials["packages"].as_array().context("no packages")?;
    let find = |wanted: &str| {
        packages
            .iter()
            .find(|package| package["name"] == wanted)
            .with_context(|| format!("{name} does not say that it is made of {wanted}"))
    };
    for &wanted in pinned {
        let version = lock
            .split_once(&format!("name = \"{wanted}\"\nversion = \""))
            .and_then(|(_, rest)| rest.split_once('"'))
            .with_context(|| format!("Cargo.lock has no {wanted}"))?
            .0;
        let package = find(wanted)?;
        ensure!(package["versionInfo"] == version, "{package}");
        let url = package["externalRefs"][0]["referenceLocator"].as_str();
        let expected = format!("pkg:cargo/{wanted}@{version}");
        ensure!(url == Some(&expected), "{package}");
        let licence = package["licenseDeclared"].as_str().unwrap_or_default();
        ensure!(licence != "NOASSERTION" && !licence.is_empty(), "{package}");
    }
    let libc = find("libc6")?;
    let url = libc["externalRefs"][0]["referenceLocator"].as_str();
    let url = url.unwrap_or_default();
    ensure!(url.starts_with("pkg:deb/debian/libc6@"), "{libc}");
    ensure!(libc["checksums"][0]["algorithm"] == "SHA256", "{libc}");
    Ok(())
}

#[test]
fn an_image_has_one_program_no_shell_and_a_user_without_rights() {
    story("images-inside", async |_: &Story| {
        let mut bases = BTreeSet::new();
        for (name, binary) in IMAGES {
            let layout = Layout::of(name)?;
            let index = layout.json(&layout.index()?)?;
            let images = index["manifests"].as_array().context("no image")?;
            ensure!(!images.is_empty(), "{index}");
            for image in images {
                let manifest = layout.json(image)?;
                let arch = image["platform"]["architecture"].to_string();
                bases.insert((arch, manifest["layers"][0]["digest"].to_string()));
                inside(&layout, &manifest, name, binary)
                    .with_context(|| format!("in {name}, {}", image["platform"]))?;
            }
        }
        let arches: BTreeSet<_> = bases.iter().map(|(arch, _)| arch).collect();
        ensure!(bases.len() == arches.len(), "one base for all: {bases:?}");
        Ok(())
    });
}

fn inside(layout: &Layout, manifest: &Value, name: &str, binary: &str) -> Result<()> {
    let document = layout.json(&manifest["config"])?;
    let config = &document["config"];
    ensure!(config["User"] == format!("{USER}:{USER}"), "{config}");
    let program = format!("usr/bin/{binary}");
    ensure!(
        config["Entrypoint"] == json!([format!("/{program}")]),
        "{config}"
    );
    ensure!(config["Cmd"].is_null(), "{config}");
    let label = |key: &str| {
        let label = &config["Labels"][format!("org.opencontainers.image.{key}")];
        label.as_str().unwrap_or_default().to_owned()
    };
    ensure!(label("title") == name, "{config}");
    ensure!(label("version") == VERSION, "{config}");
    ensure!(label("licenses") == "Apache-2.0", "{config}");
    for key in ["description", "revision", "created"] {
        ensure!(!label(key).is_empty(), "no label {key}: {config}");
    }
    let layers = manifest["layers"].as_array().context("no layers")?;
    let ids = document["rootfs"]["diff_ids"]
        .as_array()
        .context("no ids")?;
    ensure!(layers.len() == ids.len() && layers.len() == 2);
    let mut programs = Vec::new();
    for (layer, id) in layers.iter().zip(ids) {
        let archive = layout.archive(layer)?;
        ensure!(*id == digest(&archive), "a layer is not what {id} says");
        for entry in entries(&archive)? {
            let file = Path::new(&entry.path).file_name().unwrap_or_default();
            ensure!(
                entry.is_folder || !TOOLS_OF_INTRUDERS.iter().any(|tool| file == *tool),
                "{} is in it",
                entry.path
            );
            ensure!(entry.mode & 0o6000 == 0, "{} is setuid", entry.path);
            ensure!(
                entry.owner == 0 || (entry.owner == USER && !entry.is_file),
                "{} belongs to {}",
                entry.path,
                entry.owner
            );
            let is_library = entry.path.starts_with("usr/lib/");
            if entry.is_file && entry.mode & 0o111 != 0 && !is_library {
                programs.push(entry.path);
            }
        }
    }
    ensure!(programs == [program], "{programs:?}");
    Ok(())
}
