//! The status file of an agent without Kubernetes.

use std::io::Write;
use std::path::{Path, PathBuf};

use k8s_openapi::jiff::Timestamp;
use rimward_crds::EdgeNodeStatus;
use tokio::sync::watch;

use super::Picture;
use super::status::status;

/// Writes the status file whenever the picture differs; ends when the supervisor does.
pub async fn run(path: PathBuf, mut pictures: watch::Receiver<Picture>) {
    let mut last = EdgeNodeStatus::default();
    loop {
        let now = {
            let picture = pictures.borrow_and_update();
            status(&picture, &last.conditions, Timestamp::now())
        };
        if now != last {
            match write(&path, &now) {
                Ok(()) => last = now,
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "cannot write the status file");
                }
            }
        }
        if pictures.changed().await.is_err() {
            return;
        }
    }
}

/// Replaces the file whole, so that a reader never sees half of it.
fn write(path: &Path, status: &EdgeNodeStatus) -> std::io::Result<()> {
    let text = serde_yaml::to_string(status).map_err(std::io::Error::other)?;
    let temporary = path.with_extension("yaml.new");
    let mut file = std::fs::File::create(&temporary)?;
    file.write_all(text.as_bytes())?;
    drop(file);
    std::fs::rename(&temporary, path)
}
