//! SHA-256, whole and incremental.

use rimward_core::ids::Digest;
use ring::digest::{Context, SHA256, digest};

/// Hashes bytes that are already in memory.
#[must_use]
pub fn sha256(bytes: &[u8]) -> Digest {
    into_digest(&digest(&SHA256, bytes))
}

/// Hashes a stream while it is written, and counts it.
#[derive(Clone)]
pub struct Hasher {
    context: Context,
    bytes: u64,
}

impl Hasher {
    /// Starts with nothing hashed.
    #[must_use]
    pub fn new() -> Self {
        Self {
            context: Context::new(&SHA256),
            bytes: 0,
        }
    }

    /// Adds the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.context.update(bytes);
        self.bytes = self.bytes.saturating_add(bytes.len() as u64);
    }

    /// How many bytes were added.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The digest of everything added.
    #[must_use]
    pub fn finish(self) -> Digest {
        into_digest(&self.context.finish())
    }
}

impl Default for Hasher {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Hasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hasher")
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

fn into_digest(digest: &ring::digest::Digest) -> Digest {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest.as_ref());
    Digest::from_sha256(bytes)
}

#[cfg(test)]
mod tests {
    use super::{Hasher, sha256};

    #[test]
    fn a_stream_hashes_like_the_whole() {
        let mut hasher = Hasher::new();
        hasher.update(b"hello ");
        hasher.update(b"world");
        assert_eq!(hasher.bytes(), 11);
        assert_eq!(hasher.finish(), sha256(b"hello world"));
        assert_eq!(
            sha256(b"").hex(),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
    }
}
