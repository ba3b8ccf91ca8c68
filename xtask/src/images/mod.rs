//! `cargo xtask images`: container images without a container engine.
//!
//! Owns which images there are and what is in them. Each is a base of a few Debian files, shared by all, and one layer
//! with our binary; written as OCI image layouts, byte by byte the same for the same inputs. No shell, no package
//! manager, no user but 65532. Never pushes anything: that is the release's.

mod base;
mod binaries;
mod debian;
mod elf;
mod layer;
mod layout;
mod sbom;

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use self::base::Base;
use self::layer::Layer;
use self::layout::{Layout, Platform};
pub(crate) use self::layout::{created, epoch_seconds};
use crate::step;

const USAGE: &str =
    "usage: cargo xtask images [--profile release|dev] [--arch amd64|arm64]... [--out DIR] [--update]

  --profile  how the binaries are built (release)
  --arch     for which machines (the one that this runs on); may be given more than once
  --out      where the layouts go, a folder each (target/images)
  --update   fetch the newest packages of the base, instead of those that were fetched before";

/// An image: a binary of ours on the base.
#[derive(Debug)]
pub(crate) struct Image {
    /// Its name, and that of its folder.
    pub(crate) name: &'static str,
    pub(crate) binary: &'static str,
    /// The package of the workspace that the binary is built from.
    pub(crate) package: &'static str,
    about: &'static str,
    /// Folders of its user's own, beside `/tmp`.
    folders: &'static [&'static str],
}

/// Every image.
pub(crate) const IMAGES: &[Image] = &[
    Image {
        name: "rimward-operator",
        binary: "rimward-operator",
        package: "rimward-operator",
        about: "Rimward's operator: plans the fleet on the hub, paces the nodes of an edge cluster",
        folders: &[],
    },
    Image {
        name: "rimward-node-agent",
        binary: "rimward-node-agent",
        package: "rimward-node-agent",
        about: "Rimward's node agent: verifies signed models, runs them, takes a bad one back",
        folders: &["var/lib/rimward"],
    },
    Image {
        name: "rimward-cli",
        binary: "kubectl-rimward",
        package: "kubectl-rimward",
        about: "kubectl rimward: packs, verifies and explains; makes the chart's test inference",
        folders: &[],
    },
];

/// A kind of processor, by the names that everybody gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arch {
    Amd64,
    Arm64,
}

impl Arch {
    /// As OCI, Go and Debian call it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// As Rust calls it.
    pub(crate) const fn target(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64-unknown-linux-gnu",
            Self::Arm64 => "aarch64-unknown-linux-gnu",
        }
    }

    /// As GNU's tools and Debian's library folders call it.
    pub(crate) const fn triplet(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64-linux-gnu",
            Self::Arm64 => "aarch64-linux-gnu",
        }
    }

    /// The machine that this runs on.
    fn here() -> Result<Self> {
        Self::parse(match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        })
    }

    /// # Errors
    /// Where there are no images for what it names.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        match text {
            "amd64" => Ok(Self::Amd64),
            "arm64" => Ok(Self::Arm64),
            other => bail!("there are images for amd64 and arm64, none for {other:?}"),
        }
    }
}

/// Stands for a profile: `release` with what is built for other commands already.
const OF_BENCH: &str = "bench";

/// What is asked for.
#[derive(Debug)]
pub(crate) struct Options {
    /// The profile of cargo: `release` or `dev`, or [`OF_BENCH`].
    pub(crate) profile: String,
    pub(crate) arches: Vec<Arch>,
    pub(crate) out: PathBuf,
    /// Whether the base's packages are fetched anew.
    pub(crate) update: bool,
}

impl Options {
    /// What the stories run: the binaries that are built already, for this machine.
    ///
    /// # Errors
    /// Where there are no images for this kind of machine.
    pub(crate) fn for_tests(out: &Path) -> Result<Self> {
        Self::here("dev", out)
    }

    /// What is measured: the optimised binaries that the benchmark builds anyway, for this machine.
    ///
    /// # Errors
    /// Where there are no images for this kind of machine.
    pub(crate) fn for_bench(out: &Path) -> Result<Self> {
        Self::here(OF_BENCH, out)
    }

    fn here(profile: &str, out: &Path) -> Result<Self> {
        Ok(Self {
            profile: profile.to_owned(),
            arches: vec![Arch::here()?],
            out: out.to_owned(),
            update: false,
        })
    }

    /// As they are released, for one architecture.
    pub(crate) fn released(arch: Arch, out: &Path) -> Self {
        Self {
            profile: "release".to_owned(),
            arches: vec![arch],
            out: out.to_owned(),
            update: false,
        }
    }
}

/// Runs `cargo xtask images`.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    match parse(arguments)? {
        Some(options) => build(&options),
        None => {
            println!("{USAGE}");
            Ok(())
        }
    }
}

/// Builds every image for every architecture.
///
/// # Errors
/// What could not be fetched, built or written.
pub(crate) fn build(options: &Options) -> Result<()> {
    let out = &options.out;
    std::fs::create_dir_all(out).with_context(|| format!("making {}", out.display()))?;
    // Two runs that write beside the same layouts wait for each other; let go of when the process ends.
    let alone = out.join(".lock");
    let file = File::create(&alone).with_context(|| format!("making {}", alone.display()))?;
    file.lock()
        .with_context(|| format!("locking {}", alone.display()))?;
    let mut layouts = IMAGES
        .iter()
        .map(|image| Layout::create(&options.out.join(image.name)))
        .collect::<Result<Vec<_>>>()?;
    for &arch in &options.arches {
        let binaries = binaries::build(arch, &options.profile)?;
        let base = Base::of(arch, options.update)?;
        for (image, layout) in IMAGES.iter().zip(&mut layouts) {
            let binary = binaries.join(image.binary);
            base.check_has_libraries_of(&binary)?;
            let own = own_layer(image, &binary)?;
            let platform = Platform {
                arch,
                image,
                layers: [&base.layer, &own],
                base: &base,
            };
            let manifest = layout.add_image(&platform)?;
            let sbom = sbom::document(image, arch, &base, &binary)?;
            layout.add_referrer(&manifest, sbom::MEDIA_TYPE, &sbom)?;
            let (packed, unpacked) = platform.sizes();
            println!(
                "{:<20} {:<6} {:>6.1} MiB packed, {:>6.1} MiB unpacked  {}",
                image.name,
                arch.name(),
                mebibytes(packed),
                mebibytes(unpacked),
                manifest.digest
            );
        }
    }
    let finished = layouts
        .into_iter()
        .map(|layout| layout.finish(version()))
        .collect::<Result<Vec<_>>>()?;
    for (image, layout) in IMAGES.iter().zip(finished) {
        let digest = layout.digest.clone();
        layout.put_in_place()?;
        println!("{:<20} {digest}", image.name);
    }
    Ok(())
}

/// The version of every crate and chart.
pub(crate) const fn version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}

fn own_layer(image: &Image, binary: &Path) -> Result<Layer> {
    let bytes = std::fs::read(binary).with_context(|| format!("reading {}", binary.display()))?;
    let licence = std::fs::read(step::root().join("LICENSE")).context("reading LICENSE")?;
    let mut layer = layer::Builder::new();
    layer.folders_to("usr/bin")?;
    layer.file(&format!("usr/bin/{}", image.binary), 0o755, &bytes)?;
    layer.folders_to("usr/share/doc/rimward")?;
    layer.file("usr/share/doc/rimward/LICENSE", 0o644, &licence)?;
    for folder in image.folders {
        layer.own_folder(folder)?;
    }
    layer.finish()
}

#[expect(clippy::cast_precision_loss, reason = "shown with one decimal")]
fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

fn parse(arguments: &[String]) -> Result<Option<Options>> {
    let mut options = Options {
        profile: "release".to_owned(),
        arches: Vec::new(),
        out: step::target_folder()?.join("images"),
        update: false,
    };
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        let mut value = || {
            let value = arguments.next();
            value.with_context(|| format!("{argument} needs a value; {USAGE}"))
        };
        match argument.as_str() {
            "--profile" => match value()?.as_str() {
                profile @ ("release" | "dev") => profile.clone_into(&mut options.profile),
                other => bail!("--profile {other:?} is neither release nor dev"),
            },
            "--arch" => {
                let arch = Arch::parse(value()?)?;
                if !options.arches.contains(&arch) {
                    options.arches.push(arch);
                }
            }
            "--out" => options.out = std::path::absolute(value()?)?,
            "--update" => options.update = true,
            "-h" | "--help" => return Ok(None),
            other => bail!("unknown argument {other:?}; {USAGE}"),
        }
    }
    if options.arches.is_empty() {
        options.arches.push(Arch::here()?);
    }
    Ok(Some(options))
}
