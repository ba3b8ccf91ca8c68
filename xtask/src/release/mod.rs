//! `cargo xtask release`: images and charts into a registry, signed.
//!
//! Owns the order of it. Everything is pushed by digest with what refers to it, signed, and verified with the public
//! key; only then does it get its tag, so nobody ever pulls something unsigned by its version. A release that broke
//! off is begun again by the same command: what is there and signed stays. The same as files, for sites without a
//! registry. Never builds anything.

mod archive;
mod charts;
mod layout;
mod registry;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};

use self::layout::Layout;
use self::registry::{Place, Registry};
use crate::images::{IMAGES, version};
use crate::side_by_side::Stop;
use crate::{step, tools};

const USAGE: &str =
    "usage: cargo xtask release --registry REGISTRY --key KEY [--images DIR] [--out DIR] [--plain-http] [--replace]

  --registry    where to, with a path if there is one: ghcr.io/you/rimward
  --key         cosign's private key: a file, or what `cosign sign --key` takes else; COSIGN_PASSWORD is its password
  --images      the layouts that `cargo xtask images` wrote (target/images)
  --out         where the public key, the charts and the archive of all images are put (target/released)
  --plain-http  the registry speaks plain HTTP
  --replace     move tags of a version that is there already with other content

Credentials are Docker's: `docker login`, `oras login` or `cosign login` beforehand.";

/// What is asked for.
#[derive(Debug)]
struct Options {
    registry: String,
    key: String,
    images: PathBuf,
    out: PathBuf,
    plain_http: bool,
    replace: bool,
}

/// Something that is in the registry, and what its tag will be.
#[derive(Debug)]
struct Released {
    place: Place,
    /// Signed, too: the images of an index, documents about them.
    parts: Vec<String>,
}

/// Runs `cargo xtask release`.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    match parse(arguments)? {
        Some(options) => release(&options),
        None => {
            println!("{USAGE}");
            Ok(())
        }
    }
}

fn release(options: &Options) -> Result<()> {
    // All of them are read before anything is pushed.
    let layouts = IMAGES
        .iter()
        .map(|image| Layout::open(&options.images.join(image.name), version()))
        .collect::<Result<Vec<_>>>()?;
    let parts = tools::Plan::new(tools::FOR_RELEASE)?.install(&Stop::default())?;
    let work = &options.out;
    std::fs::create_dir_all(work).with_context(|| format!("making {}", work.display()))?;
    let registry = Registry::new(&parts, &options.key, options.plain_http, work)?;

    let mut released = Vec::new();
    for (image, layout) in IMAGES.iter().zip(&layouts) {
        let place = Place {
            repository: format!("{}/{}", options.registry, image.name),
            digest: layout.top.digest.clone(),
        };
        refuse_another(&registry, &place, options.replace)?;
        eprintln!("==> {place}");
        // The index brings its images; documents about those are tops of the layout of their own.
        for digest in [&layout.top.digest].into_iter().chain(&layout.referrers) {
            registry.copy(&layout.folder, digest, &place.repository)?;
        }
        let parts = layout.parts().cloned().collect();
        released.push(Released { place, parts });
    }
    let digests: Vec<(&str, &str)> = IMAGES
        .iter()
        .zip(&released)
        .map(|(image, released)| (image.name, released.place.digest.as_str()))
        .collect();
    let images: Vec<(String, &Layout)> = released
        .iter()
        .map(|it| it.place.repository.clone())
        .zip(&layouts)
        .collect();
    let mut files = vec![archive::write(&images, work)?];
    for (name, package) in charts::package(&parts, &options.registry, &digests, work)? {
        let repository = format!("{}/charts/{name}", options.registry);
        let place = registry.push_chart(&package, &repository)?;
        refuse_another(&registry, &place, options.replace)?;
        eprintln!("==> {place}");
        files.push(package.folder.join(&package.content));
        released.push(Released {
            place,
            parts: Vec::new(),
        });
    }
    for file in &files {
        registry.sign_file(file)?;
    }
    for it in &released {
        sign(&registry, it)?;
    }
    // Images before charts, which name them.
    for it in &released {
        registry.tag(&it.place, version())?;
        println!("{}", it.place);
    }
    for file in &files {
        eprintln!("for sites without a registry: {}", file.display());
    }
    eprintln!(
        "released {} as {}: anybody may check that with {}\n\n  helm install rimward oci://{}/charts/rimward --version {} --namespace rimward-system --create-namespace",
        version(),
        options.registry,
        registry.public_key().display(),
        options.registry,
        version(),
    );
    Ok(())
}

/// A version means one content for ever, unless somebody says otherwise.
fn refuse_another(registry: &Registry, place: &Place, replace: bool) -> Result<()> {
    match registry.resolve(&place.repository, version())? {
        Some(there) if there != place.digest && !replace => bail!(
            "{}:{} is there already and is {there}, not {}: raise the version in Cargo.toml, or say --replace to move the tag",
            place.repository,
            version(),
            place.digest
        ),
        _ => Ok(()),
    }
}

fn sign(registry: &Registry, released: &Released) -> Result<()> {
    let all = released.parts.iter().chain([&released.place.digest]);
    for digest in all {
        let place = Place {
            repository: released.place.repository.clone(),
            digest: digest.clone(),
        };
        if !registry.is_signed(&place)? {
            registry.sign(&place)?;
            ensure!(
                registry.is_signed(&place)?,
                "{place} was signed just now, and its signature cannot be verified with {}",
                registry.public_key().display()
            );
        }
    }
    eprintln!("    signed {}", released.place);
    Ok(())
}

fn parse(arguments: &[String]) -> Result<Option<Options>> {
    let (mut registry, mut key) = (None, None);
    let (mut images, mut out) = (None, None);
    let (mut plain_http, mut replace) = (false, false);
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        let mut value = || {
            let value = arguments.next();
            value.with_context(|| format!("{argument} needs a value; {USAGE}"))
        };
        match argument.as_str() {
            "--registry" => registry = Some(registry_name(value()?)?),
            "--key" => key = Some(key_name(value()?)?),
            "--images" => images = Some(std::path::absolute(value()?)?),
            "--out" => out = Some(std::path::absolute(value()?)?),
            "--plain-http" => plain_http = true,
            "--replace" => replace = true,
            "-h" | "--help" => return Ok(None),
            other => bail!("unknown argument {other:?}; {USAGE}"),
        }
    }
    let target = step::target_folder()?;
    Ok(Some(Options {
        registry: registry.with_context(|| format!("--registry is missing; {USAGE}"))?,
        key: key.with_context(|| format!("--key is missing; {USAGE}"))?,
        images: images.unwrap_or_else(|| target.join("images")),
        out: out.unwrap_or_else(|| target.join("released")),
        plain_http,
        replace,
    }))
}

/// A host and perhaps a path, as references begin with.
fn registry_name(text: &str) -> Result<String> {
    let name = text.strip_prefix("oci://").unwrap_or(text);
    let name = name.trim_end_matches('/');
    ensure!(
        !name.is_empty() && !name.contains("://") && !name.contains(['@', ' ']),
        "--registry {text:?} is no registry such as ghcr.io/you/rimward"
    );
    Ok(name.to_owned())
}

/// Keys of a file are found also where the command runs in another folder.
fn key_name(text: &str) -> Result<String> {
    if text.contains("://") {
        return Ok(text.to_owned());
    }
    let path = std::path::absolute(text)?;
    ensure!(
        Path::new(&path).is_file(),
        "--key {text}: there is no such file; `cosign generate-key-pair` makes one"
    );
    Ok(path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_may_have_a_path_and_no_scheme_but_ocis() {
        assert_eq!(
            registry_name("localhost:5055/rimward/").unwrap(),
            "localhost:5055/rimward"
        );
        assert_eq!(registry_name("oci://ghcr.io/you").unwrap(), "ghcr.io/you");
        assert!(registry_name("https://ghcr.io").is_err());
        assert!(registry_name("ghcr.io/x@sha256:1").is_err());
        assert!(registry_name("").is_err());
    }

    #[test]
    fn what_is_missing_is_named() {
        let error = parse(&["--registry".to_owned(), "r.example".to_owned()]).unwrap_err();
        assert!(error.to_string().starts_with("--key is missing"), "{error}");
    }
}
