//! `kubectl rimward package DIR`: builds the reproducible package, writes or pushes it.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use indicatif::{HumanBytes, ProgressBar};
use rimward_artifact::Limits;
use rimward_artifact::package::{self, BuiltBlob};
use rimward_artifact::reference::Reference;

use crate::registry::RegistryArgs;

/// What `package` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The folder with `rimward.yaml`, the module and the model files.
    dir: PathBuf,
    /// Push the package there, as `host/repository[:tag]`.
    #[arg(long, value_name = "REF")]
    push: Option<Reference>,
    /// Write the package as an OCI image layout into this new or empty folder.
    #[arg(short = 'o', long, value_name = "DIR")]
    output: Option<PathBuf>,
    #[command(flatten)]
    registry: RegistryArgs,
}

/// Runs the command: the digest, or the pushed reference with its digest, is all that stdout gets.
pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let built = package::build(&args.dir, &Limits::default())
        .with_context(|| format!("cannot package {}", args.dir.display()))?;
    if let Some(dir) = &args.output {
        built
            .write_layout(dir)
            .with_context(|| format!("cannot write the layout {}", dir.display()))?;
    }
    let Some(reference) = &args.push else {
        println!("{}", built.digest);
        return Ok(ExitCode::SUCCESS);
    };
    let client = args.registry.client()?;
    let progress = Progress::new(built.blobs.len());
    built
        .push(&client, reference, |index, blob| progress.step(index, blob))
        .await
        .with_context(|| format!("cannot push to {reference}"))?;
    progress.done();
    println!("{}", reference.repository().at(built.digest));
    Ok(ExitCode::SUCCESS)
}

/// A bar on a terminal, plain lines elsewhere; on stderr.
struct Progress {
    bar: Option<ProgressBar>,
    total: usize,
}

impl Progress {
    fn new(total: usize) -> Self {
        let bar = std::io::stderr()
            .is_terminal()
            .then(ProgressBar::new_spinner);
        if let Some(bar) = &bar {
            bar.enable_steady_tick(std::time::Duration::from_millis(120));
        }
        Self { bar, total }
    }

    fn step(&self, index: usize, blob: &BuiltBlob) {
        let name = blob.path.as_deref().unwrap_or("config");
        let line = format!(
            "pushing {}/{}: {name} ({})",
            index + 1,
            self.total,
            HumanBytes(blob.size_bytes)
        );
        match &self.bar {
            Some(bar) => bar.set_message(line),
            None => eprintln!("{line}"),
        }
    }

    fn done(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
