//! `kubectl rimward verify REF --trust FILE`: checks a package as a device would, step by step.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use indicatif::HumanBytes;
use rimward_artifact::Limits;
use rimward_artifact::fetch::{self, FetchError, Fetched};
use rimward_artifact::hash::Hasher;
use rimward_artifact::manifest::Descriptor;
use rimward_artifact::reference::Reference;
use rimward_artifact::registry::{BlobSink, Client, Opened};
use rimward_artifact::trust::{TRUST_BYTES_MAX, TrustFile};
use rimward_artifact::verify::{Refusal, Step, Verified};

use crate::registry::{RegistryArgs, read_bounded};

/// What `verify` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The package, `host/repository:tag` or `host/repository@sha256:…`.
    reference: Reference,
    /// The trust file of the device.
    #[arg(long, value_name = "FILE")]
    trust: PathBuf,
    /// Do not download the model files to check their bytes.
    #[arg(long)]
    skip_files: bool,
    #[command(flatten)]
    registry: RegistryArgs,
}

/// Runs the command. Exit code 1 if a device with this trust file would refuse the package.
pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let trust = read_bounded(&args.trust, TRUST_BYTES_MAX)?;
    let trust = TrustFile::parse(&trust).with_context(|| args.trust.display().to_string())?;
    let client = args.registry.client()?;
    let limits = Limits::default();
    let digest = client.resolve(&args.reference).await?;
    let repository = args.reference.repository();
    println!("package         {}", repository.at(digest));

    let fetched = match fetch::package(&client, &trust, &limits, repository, digest, None, 0).await
    {
        Ok(fetched) => fetched,
        Err(error) => return report(error),
    };
    passed(&fetched);
    match golden(&client, &limits, &fetched).await {
        Ok(line) => ok(Step::Golden.title(), &line),
        Err(FetchError::Refused(refusal)) => {
            failed(&refusal);
            return Ok(ExitCode::FAILURE);
        }
        Err(error) => return Err(error.into()),
    }
    if args.skip_files {
        println!("{:<16}skipped", "files");
    } else if let Err(error) = fetch::layers(&client, &fetched.manifest, &mut Nowhere).await {
        println!("{:<16}FAILED  {}: {error}", "files", error.reason());
        return Ok(ExitCode::FAILURE);
    } else {
        ok(
            "files",
            &format!("{} hashed", HumanBytes(fetched.manifest.total_bytes())),
        );
    }
    println!(
        "verified        {} {}",
        fetched.config.family, fetched.config.version
    );
    Ok(ExitCode::SUCCESS)
}

async fn golden(client: &Client, limits: &Limits, fetched: &Fetched) -> Result<String, FetchError> {
    let vectors = fetch::golden(client, limits, &fetched.manifest, &fetched.config).await?;
    Ok(match vectors {
        Some(vectors) => format!("{} vectors fit the declared tensors", vectors.vectors.len()),
        None => "none".to_owned(),
    })
}

fn passed(fetched: &Fetched) {
    let manifest: &Verified<_> = &fetched.manifest;
    let files = manifest.blobs().count();
    for step in Step::ALL {
        let line = match step {
            Step::Manifest => format!("{files} blobs, {}", HumanBytes(manifest.total_bytes())),
            Step::Revocation => "neither the package nor a file of it is revoked".to_owned(),
            Step::Signatures => {
                let signers: Vec<String> = manifest
                    .signers()
                    .iter()
                    .map(|signer| format!("{}/{}", signer.authority, signer.key))
                    .collect();
                format!("signed by {}", signers.join(", "))
            }
            Step::Config => format!(
                "{} {}, variants: {}",
                fetched.config.family,
                fetched.config.version,
                fetched.config.variants.len()
            ),
            Step::ReleaseFloor => format!("releaseCounter {}", fetched.config.release_counter),
            // Printed once its bytes are there.
            Step::Golden => continue,
        };
        ok(step.title(), &line);
    }
}

fn report(error: FetchError) -> anyhow::Result<ExitCode> {
    match error {
        FetchError::Refused(refusal) => failed(&refusal),
        FetchError::SignaturesUnavailable { refusal, source } => {
            failed(&refusal);
            println!(
                "{:<16}not every source of signatures answered: {source}",
                ""
            );
        }
        FetchError::Registry(error) => return Err(error.into()),
    }
    Ok(ExitCode::FAILURE)
}

fn failed(refusal: &Refusal) {
    for step in Step::ALL {
        if step >= refusal.step() {
            break;
        }
        ok(step.title(), "");
    }
    println!(
        "{:<16}FAILED  {}: {}",
        refusal.step().title(),
        refusal.reason(),
        refusal.message()
    );
    for candidate in refusal.candidates() {
        println!(
            "{:<16}        signature {} ({}): {}",
            "", candidate.index, candidate.source, candidate.message
        );
    }
}

fn ok(title: &str, line: &str) {
    println!("{}", format!("{title:<16}ok      {line}").trim_end());
}

/// Takes bytes and keeps none: the client hashes them, which is all that is asked here.
struct Nowhere;

impl BlobSink for Nowhere {
    async fn open(&mut self, _blob: &Descriptor) -> io::Result<Opened> {
        Ok(Opened::Partial(Hasher::new()))
    }

    async fn write(&mut self, _bytes: &[u8]) -> io::Result<()> {
        Ok(())
    }

    async fn commit(&mut self, _blob: &Descriptor) -> io::Result<()> {
        Ok(())
    }

    async fn discard(&mut self, _blob: &Descriptor) -> io::Result<()> {
        Ok(())
    }
}
