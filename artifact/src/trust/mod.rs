//! The device's trust file: who may sign what, what was revoked, and how far back a release may go.
//!
//! Owned by the device or by whoever may write the Secret it is mounted from, never by the hub.
//!
//! ```yaml
//! apiVersion: rimward.dev/v1alpha1
//! kind: TrustFile
//! authorities:                       # one satisfied authority is enough
//! - name: acme-release
//!   threshold: 1                     # distinct keys that must have signed; default 1
//!   keys:
//!   - name: ci-2026
//!     pem: |                         # ECDSA P-256 or P-384, as `cosign generate-key-pair` writes it
//!       -----BEGIN PUBLIC KEY-----
//!       ...
//!       -----END PUBLIC KEY-----
//!   repositories:                    # host/path; * is one component or a part of one, ** at the end is any depth
//!   - registry.example.com/models/**
//! revokedKeys: []                    # sha256 of the key's SubjectPublicKeyInfo (DER): sha256:<hex>
//! revokedDigests: []                 # of packages (manifests) or of single files (layers)
//! releaseFloors:                     # refuse lower release counters
//! - {family: digits, counter: 3}
//! - {repository: registry.example.com/models/digits, counter: 3}
//! ```

use std::collections::BTreeSet;

use rimward_core::ids::Digest;
use serde::Deserialize;
use thiserror::Error;

use crate::hash::sha256;
use crate::package::config::PackageConfig;
use crate::package::names::Label;
use crate::reference::Repository;
use crate::text::clip;

mod key;
mod pattern;

pub use key::{KeyError, PublicKey};
pub use pattern::{PatternError, RepositoryPattern};

/// Bytes of a trust file.
pub const TRUST_BYTES_MAX: u64 = 512 << 10;
/// Authorities of a trust file.
pub const AUTHORITIES_MAX: usize = 32;
/// Keys of one authority.
pub const KEYS_MAX: usize = 16;
/// Repository patterns of one authority.
pub const PATTERNS_MAX: usize = 64;
/// Revoked keys, revoked digests, and release floors, each.
pub const REVOKED_MAX: usize = 4096;

/// A trust file, parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustFile {
    digest: Digest,
    authorities: Vec<Authority>,
    revoked_keys: BTreeSet<Digest>,
    revoked_digests: BTreeSet<Digest>,
    release_floors: Vec<ReleaseFloor>,
}

/// Someone who may sign for some repositories.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority {
    /// Unique in the file.
    pub name: Label,
    /// Distinct keys that must have signed.
    pub threshold: usize,
    /// Its keys, no key twice.
    pub keys: Vec<TrustedKey>,
    /// What it may sign for.
    pub repositories: Vec<RepositoryPattern>,
}

/// A key with the name that people know it by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustedKey {
    /// Unique in its authority.
    pub name: Label,
    /// The key.
    pub key: PublicKey,
}

/// The lowest release counter that is accepted somewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReleaseFloor {
    /// Where.
    pub scope: FloorScope,
    /// The lowest counter.
    pub counter: u64,
}

/// What a release floor is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FloorScope {
    /// Packages of these repositories.
    Repository(RepositoryPattern),
    /// Packages of this family, wherever they come from.
    Family(Label),
}

/// Why a trust file was refused. The caller knows the file's name and puts it in front.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TrustError {
    /// Longer than its limit.
    #[error("{bytes} bytes, at most {limit} are accepted")]
    TooLarge {
        /// Its length.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// Not YAML, an unknown or missing field, or a value of another type; the message says the line.
    #[error("field {field}: {message}")]
    Yaml {
        /// Path of the field.
        field: String,
        /// What is wrong, with line and column.
        message: String,
    },
    /// A field with a value that is not accepted.
    #[error("field {field}: {message}")]
    Field {
        /// Path of the field.
        field: String,
        /// What is wrong.
        message: String,
    },
}

#[derive(Deserialize)]
#[serde(
    rename_all = "camelCase",
    deny_unknown_fields,
    expecting = "a trust file"
)]
struct RawTrust {
    api_version: String,
    kind: String,
    authorities: Vec<RawAuthority>,
    #[serde(default)]
    revoked_keys: Vec<Digest>,
    #[serde(default)]
    revoked_digests: Vec<Digest>,
    #[serde(default)]
    release_floors: Vec<RawFloor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawAuthority {
    name: Label,
    threshold: Option<usize>,
    keys: Vec<RawKey>,
    repositories: Vec<RepositoryPattern>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawKey {
    name: Label,
    pem: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawFloor {
    repository: Option<RepositoryPattern>,
    family: Option<Label>,
    counter: u64,
}

impl TrustFile {
    /// Parses a trust file.
    ///
    /// # Errors
    /// [`TrustError`], naming line or field, limit and value. A file with one bad entry is refused whole: half
    /// a policy is another policy.
    pub fn parse(bytes: &[u8]) -> Result<Self, TrustError> {
        let length = bytes.len() as u64;
        if length > TRUST_BYTES_MAX {
            return Err(TrustError::TooLarge {
                bytes: length,
                limit: TRUST_BYTES_MAX,
            });
        }
        let yaml = serde_yaml::Deserializer::from_slice(bytes);
        let raw: RawTrust =
            serde_path_to_error::deserialize(yaml).map_err(|error| TrustError::Yaml {
                field: clip(&error.path().to_string(), 120),
                message: clip(&error.inner().to_string(), 300),
            })?;
        let RawTrust {
            api_version,
            kind,
            authorities,
            revoked_keys,
            revoked_digests,
            release_floors,
        } = raw;
        expect("apiVersion", &api_version, "rimward.dev/v1alpha1")?;
        expect("kind", &kind, "TrustFile")?;
        count("authorities", authorities.len(), AUTHORITIES_MAX)?;
        count("revokedKeys", revoked_keys.len(), REVOKED_MAX)?;
        count("revokedDigests", revoked_digests.len(), REVOKED_MAX)?;
        count("releaseFloors", release_floors.len(), REVOKED_MAX)?;
        let mut parsed: Vec<Authority> = Vec::with_capacity(authorities.len());
        for (index, raw) in authorities.into_iter().enumerate() {
            let at = format!("authorities[{index}]");
            let authority = authority(&at, raw)?;
            if parsed.iter().any(|earlier| earlier.name == authority.name) {
                return Err(field(
                    &format!("{at}.name"),
                    format!("\"{}\" twice", authority.name),
                ));
            }
            parsed.push(authority);
        }
        let release_floors = release_floors
            .into_iter()
            .enumerate()
            .map(|(index, raw)| floor(&format!("releaseFloors[{index}]"), raw))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            digest: sha256(bytes),
            authorities: parsed,
            revoked_keys: revoked_keys.into_iter().collect(),
            revoked_digests: revoked_digests.into_iter().collect(),
            release_floors,
        })
    }

    /// Digest of the file's bytes: tells whether the policy changed.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// All authorities.
    #[must_use]
    pub fn authorities(&self) -> &[Authority] {
        &self.authorities
    }

    /// The authorities that may sign for a repository.
    pub fn authorities_for(&self, repository: &Repository) -> impl Iterator<Item = &Authority> {
        self.authorities.iter().filter(|authority| {
            authority
                .repositories
                .iter()
                .any(|pattern| pattern.matches(repository))
        })
    }

    /// Was the key with this SubjectPublicKeyInfo digest revoked?
    #[must_use]
    pub fn is_revoked_key(&self, id: Digest) -> bool {
        self.revoked_keys.contains(&id)
    }

    /// Was this package, or this file, revoked?
    #[must_use]
    pub fn is_revoked_digest(&self, digest: Digest) -> bool {
        self.revoked_digests.contains(&digest)
    }

    /// The lowest release counter accepted for a package; 0 if no floor is about it.
    #[must_use]
    pub fn release_floor(&self, repository: &Repository, config: &PackageConfig) -> u64 {
        let applies = |floor: &&ReleaseFloor| match &floor.scope {
            FloorScope::Repository(pattern) => pattern.matches(repository),
            FloorScope::Family(family) => *family == config.family,
        };
        let floors = self.release_floors.iter().filter(applies);
        floors.map(|floor| floor.counter).max().unwrap_or(0)
    }
}

fn authority(at: &str, raw: RawAuthority) -> Result<Authority, TrustError> {
    let RawAuthority {
        name,
        threshold,
        keys,
        repositories,
    } = raw;
    count(&format!("{at}.keys"), keys.len(), KEYS_MAX)?;
    count(
        &format!("{at}.repositories"),
        repositories.len(),
        PATTERNS_MAX,
    )?;
    let mut parsed: Vec<TrustedKey> = Vec::with_capacity(keys.len());
    for (index, raw) in keys.into_iter().enumerate() {
        let at = format!("{at}.keys[{index}]");
        let key = PublicKey::from_pem(&raw.pem)
            .map_err(|error| field(&format!("{at}.pem"), error.to_string()))?;
        if parsed.iter().any(|earlier| earlier.name == raw.name) {
            return Err(field(
                &format!("{at}.name"),
                format!("\"{}\" twice", raw.name),
            ));
        }
        if let Some(same) = parsed.iter().find(|earlier| earlier.key == key) {
            // Else one person's key would count twice towards a threshold.
            return Err(field(
                &format!("{at}.pem"),
                format!("is the same key as \"{}\"", same.name),
            ));
        }
        parsed.push(TrustedKey {
            name: raw.name,
            key,
        });
    }
    let threshold = threshold.unwrap_or(1);
    if threshold == 0 || threshold > parsed.len() {
        return Err(field(
            &format!("{at}.threshold"),
            format!(
                "is {threshold}, 1 to the number of keys ({}) is accepted",
                parsed.len()
            ),
        ));
    }
    Ok(Authority {
        name,
        threshold,
        keys: parsed,
        repositories,
    })
}

fn floor(at: &str, raw: RawFloor) -> Result<ReleaseFloor, TrustError> {
    let scope = match (raw.repository, raw.family) {
        (Some(pattern), None) => FloorScope::Repository(pattern),
        (None, Some(family)) => FloorScope::Family(family),
        _ => return Err(field(at, "needs either repository or family".to_owned())),
    };
    Ok(ReleaseFloor {
        scope,
        counter: raw.counter,
    })
}

fn expect(name: &str, actual: &str, expected: &str) -> Result<(), TrustError> {
    if actual == expected {
        return Ok(());
    }
    Err(field(
        name,
        format!("is \"{}\", not \"{expected}\"", clip(actual, 60)),
    ))
}

fn count(name: &str, actual: usize, max: usize) -> Result<(), TrustError> {
    if actual <= max {
        return Ok(());
    }
    Err(field(
        name,
        format!("has {actual} entries, at most {max} are accepted"),
    ))
}

fn field(name: &str, message: String) -> TrustError {
    TrustError::Field {
        field: name.to_owned(),
        message,
    }
}
