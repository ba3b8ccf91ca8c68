//! The real cosign, with one key pair.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::command::{Line, Output};
use crate::tools::Tool;

/// cosign with a key pair of its own, in a folder of its own.
#[derive(Debug, Clone)]
pub struct Cosign {
    program: PathBuf,
    folder: PathBuf,
}

impl Cosign {
    /// `cosign generate-key-pair` in a folder: `cosign.key` and `cosign.pub`, ECDSA P-256.
    ///
    /// # Errors
    /// When cosign is not installed, or fails.
    pub async fn generate(folder: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot make {}", folder.display()))?;
        let cosign = Self {
            program: Tool::Cosign.path()?,
            folder: folder.to_path_buf(),
        };
        cosign.line(["generate-key-pair"]).run().await?;
        Ok(cosign)
    }

    /// The private key, encrypted with an empty password.
    #[must_use]
    pub fn private_key(&self) -> PathBuf {
        self.folder.join("cosign.key")
    }

    /// The public key, in PEM: what a trust file names.
    #[must_use]
    pub fn public_key(&self) -> PathBuf {
        self.folder.join("cosign.pub")
    }

    /// `cosign sign` of `HOST/REPOSITORY@DIGEST`, without a transparency log: the v3 bundle, as a referrer or
    /// under the fallback tag, as the registry allows.
    ///
    /// # Errors
    /// When cosign fails: quotes it.
    pub async fn sign(&self, reference: &str) -> Result<()> {
        self.sign_line(reference).run().await?;
        Ok(())
    }

    /// The command line of [`Cosign::sign`], for who shows it.
    #[must_use]
    pub fn sign_line(&self, reference: &str) -> Line {
        self.line([
            "sign",
            "--key=cosign.key",
            "--use-signing-config=false",
            "--tlog-upload=false",
            "--allow-http-registry",
            "-y",
            reference,
        ])
    }

    /// `cosign login` to a registry; gives the Docker configuration file that it keeps the password in.
    ///
    /// # Errors
    /// When cosign fails: quotes it.
    pub async fn log_in(&self, host: &str, user: &str, password: &str) -> Result<PathBuf> {
        let arguments = ["login", host, "--username", user, "--password", password];
        self.line(arguments).run().await?;
        Ok(self.folder.join(".docker/config.json"))
    }

    /// `cosign verify` with the public key.
    ///
    /// # Errors
    /// When cosign cannot be run. Whether it verified, its output says.
    pub async fn verify(&self, reference: &str) -> Result<Output> {
        let arguments = ["verify", "--key=cosign.pub", "--insecure-ignore-tlog"];
        self.line(arguments)
            .args(["--allow-http-registry", reference])
            .output()
            .await
    }

    /// `cosign verify-blob` of a file with the public key; the signature is beside the file.
    ///
    /// # Errors
    /// When cosign cannot be run. Whether it verified, its output says.
    pub async fn verify_file(&self, file: &Path) -> Result<Output> {
        let file = file.display();
        let bundle = format!("--bundle={file}.sigstore.json");
        let arguments = ["verify-blob", "--key=cosign.pub", "--insecure-ignore-tlog"];
        let line = self.line(arguments).args([bundle, file.to_string()]);
        line.output().await
    }

    /// A command line of cosign, in its folder.
    pub fn line<A: AsRef<str>>(&self, arguments: impl IntoIterator<Item = A>) -> Line {
        Line::new(&self.program)
            .args(arguments)
            .folder(&self.folder)
            .env("COSIGN_PASSWORD", "")
            // Whatever it keeps stays out of the user's home.
            .env("HOME", &self.folder)
            .env("DOCKER_CONFIG", self.folder.join(".docker"))
    }
}
