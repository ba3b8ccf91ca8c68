//! A release: images and charts in a registry, signed, with what they are made of. What is inside the images.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use rimward_e2e::images::{IMAGES, Layout, entries};
use rimward_e2e::registry::{Kind, digest};
use rimward_e2e::{Cosign, Helm, Story, story};
use serde_json::{Value, json};

use crate::release_world::{VERSION, World, digests};

const USER: u64 = 65_532;
/// Programs that an intruder would look for.
const TOOLS_OF_INTRUDERS: [&str; 12] = [
    "sh", "bash", "dash", "busybox", "apt", "apt-get", "dpkg", "perl", "curl", "wget", "ld", "env",
];

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
    check_files(&world, &wrong_key).await?;

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

/// The same as files, for sites without a registry: every image by its tag and its digest, all of it signed.
async fn check_files(world: &World, wrong_key: &Cosign) -> Result<()> {
    let archive = world.out.join(format!("rimward-{VERSION}-images.tar"));
    let index: Value = serde_json::from_str(&file_of_archive(&fs::read(&archive)?, "index.json")?)?;
    let named = |entry: &Value| {
        let name = &entry["annotations"]["io.containerd.image.name"];
        (name.to_string(), entry["digest"].to_string())
    };
    let entries = index["manifests"].as_array().context("no manifests")?;
    let names: BTreeSet<(String, String)> = entries.iter().map(named).collect();
    let mut expected = BTreeSet::new();
    for (name, _) in IMAGES {
        let top = Layout::of(name)?.index()?["digest"].clone();
        let digest = top.as_str().unwrap_or_default();
        for end in [format!(":{VERSION}"), format!("@{digest}")] {
            let name = json!(format!("{}/{name}{end}", world.name()));
            expected.insert((name.to_string(), top.to_string()));
        }
    }
    ensure!(names == expected, "{names:?}, not {expected:?}");

    let charts = world.out.join("charts");
    let chart = |name: &str| charts.join(format!("{name}-{VERSION}.tgz"));
    for file in [archive, chart("rimward"), chart("rimward-crds")] {
        let good = world.cosign.verify_file(&file).await?;
        ensure!(good.status.success(), "{}", good.stderr);
        let wrong = wrong_key.verify_file(&file).await?;
        ensure!(
            !wrong.status.success(),
            "{}: any key will do",
            file.display()
        );
        fs::OpenOptions::new()
            .append(true)
            .open(&file)?
            .write_all(b"x")?;
        let changed = world.cosign.verify_file(&file).await?;
        ensure!(!changed.status.success(), "{} was changed", file.display());
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
    let layers = manifest["layers"].as_array().context("no layers")?;
    let own = |key: &str| config["Labels"][format!("dev.rimward.image.base.{key}")].clone();
    ensure!(own("layer") == layers[0]["digest"], "{config}, {manifest}");
    let release = file_of_archive(&layout.archive(&layers[0])?, "usr/lib/os-release")?;
    let system = own("system");
    let system = system.as_str().unwrap_or_default();
    ensure!(
        system.starts_with("Debian") && release.contains(&format!("PRETTY_NAME=\"{system}\"")),
        "{system:?} is not what {release} says"
    );
    // By the specification these name an image, which the base is not.
    ensure!(label("base.digest").is_empty() && label("base.name").is_empty());
    ensure!(manifest["annotations"] == config["Labels"], "{manifest}");
    let revision = label("revision");
    let is_commit = revision.len() == 40 && revision.bytes().all(|it| it.is_ascii_hexdigit());
    ensure!(is_commit, "{revision:?} is no commit: {config}");
    ensure!(label("created") == document["created"], "{document}");
    for key in ["description", "created"] {
        ensure!(!label(key).is_empty(), "no label {key}: {config}");
    }
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

fn file_of_archive(archive: &[u8], path: &str) -> Result<String> {
    let mut archive = tar::Archive::new(archive);
    for entry in archive.entries()? {
        let mut entry = entry?;
        if entry.path()? == Path::new(path) {
            let mut text = String::new();
            entry.read_to_string(&mut text)?;
            return Ok(text);
        }
    }
    anyhow::bail!("the archive has no {path}")
}
