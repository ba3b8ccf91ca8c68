//! References to packages: `host[:port]/repository[:tag][@sha256:…]`, parsed and canonical.
//!
//! The host is always named: there is no default registry, so a reference means the same on every device.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use rimward_core::ids::{Digest, DigestError};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

use crate::text::clip;

/// The longest reference that is looked at.
pub const REFERENCE_CHARACTERS_MAX: usize = 512;

/// Why a reference was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ReferenceError {
    /// Empty, or longer than [`REFERENCE_CHARACTERS_MAX`].
    #[error("reference has {0} characters, 1 to {REFERENCE_CHARACTERS_MAX} are accepted")]
    Length(usize),
    /// No registry host in front.
    #[error(
        "reference \"{0}\" must start with its registry, as in registry.example.com/models/digits"
    )]
    NoHost(String),
    /// The host is not a host.
    #[error("reference host \"{0}\" is not a host name or address with an optional port")]
    Host(String),
    /// The repository is not one.
    #[error(
        "repository \"{0}\" must be components of a-z, 0-9 and single . _ - between them, joined by /"
    )]
    Repository(String),
    /// The tag is not one.
    #[error("tag \"{0}\" must be 1 to 128 of A-Z a-z 0-9 _ . - and not start with . or -")]
    Tag(String),
    /// The digest is not one.
    #[error("digest of the reference")]
    Digest(#[from] DigestError),
}

/// A repository on a named registry, canonical: `host[:port]/path`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Repository {
    registry: String,
    path: String,
}

impl Repository {
    /// The registry's host, with its port if one was given. Lowercase.
    #[must_use]
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The repository's path on the registry, without slashes at the ends.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// This repository's content with that digest.
    #[must_use]
    pub fn at(&self, digest: Digest) -> Reference {
        Reference {
            repository: self.clone(),
            tag: None,
            digest: Some(digest),
        }
    }
}

impl FromStr for Repository {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let reference: Reference = text.parse()?;
        if reference.tag.is_some() || reference.digest.is_some() {
            return Err(ReferenceError::Repository(clip(text, 80)));
        }
        Ok(reference.repository)
    }
}

/// A package somewhere: a repository and a tag, a digest, or both (the digest then decides).
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Reference {
    repository: Repository,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// Where.
    #[must_use]
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// The tag, if one was given.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, if one was given.
    #[must_use]
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        if text.is_empty() || text.len() > REFERENCE_CHARACTERS_MAX {
            return Err(ReferenceError::Length(text.len()));
        }
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(digest.parse()?)),
            None => (text, None),
        };
        let (host, rest) = name
            .split_once('/')
            .ok_or_else(|| ReferenceError::NoHost(clip(text, 80)))?;
        if !(host.contains(['.', ':']) || host == "localhost") {
            return Err(ReferenceError::NoHost(clip(text, 80)));
        }
        let registry = host.to_ascii_lowercase();
        if !is_host(&registry) {
            return Err(ReferenceError::Host(clip(host, 80)));
        }
        let (path, tag) = match rest.split_once(':') {
            Some((path, tag)) => (path, Some(tag)),
            None => (rest, None),
        };
        if path.len() > 255 || !path.split('/').all(is_path_component) {
            return Err(ReferenceError::Repository(clip(path, 80)));
        }
        if let Some(tag) = tag
            && !is_tag(tag)
        {
            return Err(ReferenceError::Tag(clip(tag, 80)));
        }
        Ok(Self {
            repository: Repository {
                registry,
                path: path.to_owned(),
            },
            tag: tag.map(str::to_owned),
            digest,
        })
    }
}

/// Is this `host[:port]` on this machine itself? Plain HTTP is allowed to such hosts only, unless a person
/// named another one.
#[must_use]
pub fn is_loopback(host: &str) -> bool {
    let (name, _) = split_port(host);
    name == "localhost"
        || name
            .trim_start_matches('[')
            .trim_end_matches(']')
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

fn split_port(host: &str) -> (&str, Option<&str>) {
    if let Some(end) = host.rfind(']') {
        let (name, rest) = host.split_at(end + 1);
        return (name, rest.strip_prefix(':'));
    }
    match host.split_once(':') {
        Some((name, port)) => (name, Some(port)),
        None => (host, None),
    }
}

fn is_host(host: &str) -> bool {
    let (name, port) = split_port(host);
    let name_ok = match name.strip_prefix('[') {
        Some(rest) => {
            host[name.len()..].is_empty() == port.is_none()
                && rest
                    .strip_suffix(']')
                    .is_some_and(|inner| inner.parse::<std::net::Ipv6Addr>().is_ok())
        }
        None => name.len() <= 253 && name.split('.').all(crate::text::is_dns_label),
    };
    let port_ok = port.is_none_or(|port| {
        !port.is_empty()
            && port.bytes().all(|byte| byte.is_ascii_digit())
            && port.parse::<u16>().is_ok_and(|port| port != 0)
    });
    name_ok && port_ok
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`, from the OCI distribution specification.
fn is_path_component(component: &str) -> bool {
    let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = component.as_bytes();
    if !bytes.first().copied().is_some_and(alphanumeric)
        || !bytes.last().copied().is_some_and(alphanumeric)
    {
        return false;
    }
    component
        .split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        .all(|separator| {
            matches!(separator, "" | "." | "_" | "__") || separator.bytes().all(|byte| byte == b'-')
        })
}

fn is_tag(tag: &str) -> bool {
    tag.len() <= 128
        && tag
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
        && !tag.is_empty()
        && !tag.starts_with(['.', '-'])
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.path)
    }
}

impl fmt::Debug for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Repository {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Repository {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::{Reference, ReferenceError, is_loopback};

    fn parse(text: &str) -> Result<Reference, ReferenceError> {
        text.parse()
    }

    #[test]
    fn a_reference_reads_back_canonical() {
        let digest = format!("sha256:{}", "ab".repeat(32));
        for text in [
            "registry.example.com/models/digits:1.0.0".to_owned(),
            "localhost/digits".to_owned(),
            "127.0.0.1:5000/a/b__c/d--e:latest".to_owned(),
            "[::1]:5000/digits".to_owned(),
            format!("r.example.com:443/m@{digest}"),
            format!("r.example.com/m:v1@{digest}"),
        ] {
            assert_eq!(parse(&text).unwrap().to_string(), text);
        }
        assert_eq!(
            parse("R.Example.com/m").unwrap().to_string(),
            "r.example.com/m"
        );
    }

    #[test]
    fn a_reference_that_means_different_things_to_different_readers_is_refused() {
        for bad in [
            "",
            "digits",
            "library/digits",
            "/digits",
            "r.example.com/",
            "r.example.com/Digits",
            "r.example.com/a//b",
            "r.example.com/../b",
            "r.example.com/a/.b",
            "r.example.com/a..b",
            "r.example.com/a___b",
            "r.example.com/a:",
            "r.example.com/a:.x",
            "r.example.com/a:b:c",
            "r.example.com/a@sha512:00",
            "r.example.com:/a",
            "r.example.com:99999/a",
            "r.example.com:0/a",
            "r.example.com:+1/a",
            "r_x.example.com/a",
            "user@r.example.com/a",
            "[::1/a",
            "[::1]x/a",
            "r.example.com/a?b",
            "r.example.com/a#b",
            "r.example.com/a b",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        let long = format!("r.example.com/{}", "a".repeat(512));
        assert_eq!(parse(&long), Err(ReferenceError::Length(526)));
    }

    #[test]
    fn only_this_machine_is_loopback() {
        for host in [
            "localhost",
            "localhost:5000",
            "127.0.0.1:1",
            "127.9.9.9",
            "[::1]:80",
        ] {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "localhost.example.com",
            "10.0.0.1",
            "127.0.0.1.example.com",
            "[::2]",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
