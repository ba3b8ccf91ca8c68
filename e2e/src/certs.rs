//! Certificates and keys of one control plane.
//!
//! Owns making them; every control plane has a certificate authority of its own, so a credential of one
//! is nothing to another.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
};

/// A certificate authority, and the files that an API server is started with.
pub struct Certs {
    authority: CertifiedIssuer<'static, KeyPair>,
    folder: PathBuf,
}

/// A certificate and its private key, in PEM.
pub struct Identity {
    /// The certificate.
    pub certificate: String,
    /// The key, PKCS #8.
    pub key: String,
}

impl Certs {
    /// Makes an authority, a server certificate for loopback and these other names, and the key that signs service accounts'
    /// tokens, as files in `folder`.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn create(folder: &Path, names: &[&str]) -> Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name = name("rimward-e2e", &[]);
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let certs = Self {
            authority,
            folder: folder.to_path_buf(),
        };

        let own = [
            "127.0.0.1",
            "localhost",
            "kubernetes",
            "kubernetes.default.svc",
        ];
        let names = own.iter().chain(names).map(|&name| name.to_owned());
        let mut server = CertificateParams::new(names.collect::<Vec<_>>())?;
        server.distinguished_name = name("kube-apiserver", &[]);
        server.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let server = certs.sign(server)?;

        certs.write("ca.crt", &certs.authority_pem())?;
        certs.write("server.crt", &server.certificate)?;
        certs.write("server.key", &server.key)?;
        let service_account = KeyPair::generate()?;
        certs.write("service-account.key", &service_account.serialize_pem())?;
        certs.write("service-account.pub", &service_account.public_key_pem())?;
        Ok(certs)
    }

    /// The authority's certificate, in PEM.
    #[must_use]
    pub fn authority_pem(&self) -> String {
        self.authority.pem()
    }

    /// Path of one of the files: `ca.crt`, `server.crt`, `server.key`, `service-account.key`,
    /// `service-account.pub`.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Makes a client certificate; the API server takes its common name as user, its organisations as
    /// groups.
    ///
    /// # Errors
    /// When a name cannot stand in a certificate.
    pub fn client(&self, user: &str, groups: &[&str]) -> Result<Identity> {
        let mut params = CertificateParams::default();
        params.distinguished_name = name(user, groups);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(params)
    }

    fn sign(&self, params: CertificateParams) -> Result<Identity> {
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.authority)?;
        Ok(Identity {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        })
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        write_private(&self.file(name), text)
    }
}

impl std::fmt::Debug for Certs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certs")
            .field("folder", &self.folder)
            .finish_non_exhaustive()
    }
}

fn name(common: &str, organisations: &[&str]) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    for organisation in organisations {
        name.push(DnType::OrganizationName, *organisation);
    }
    name.push(DnType::CommonName, common);
    name
}

/// Writes a file that only its owner can read, whole: stories that share a hub may write and read it at once.
pub(crate) fn write_private(path: &Path, text: &str) -> Result<()> {
    use std::io::Write;
    let folder = path.parent().unwrap_or(Path::new("."));
    let write = || {
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(text.as_bytes())?;
        file.persist(path).map_err(|error| error.error)
    };
    write().with_context(|| format!("cannot write {}", path.display()))?;
    Ok(())
}
