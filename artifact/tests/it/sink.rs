//! A sink in memory, and the largest blob of the small package.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use rimward_artifact::Digest;
use rimward_artifact::hash::Hasher;
use rimward_artifact::manifest::Descriptor;
use rimward_artifact::package::BuiltPackage;
use rimward_artifact::registry::{BlobSink, ClientOptions, Opened};

use crate::support::bytes;

/// Keeps blobs in memory, and partial ones across tries, as a device's store does on disk.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    pub(crate) partial: BTreeMap<Digest, Vec<u8>>,
    pub(crate) whole: BTreeMap<Digest, Vec<u8>>,
    pub(crate) discarded: usize,
    open: Option<Digest>,
}

impl BlobSink for Memory {
    async fn open(&mut self, blob: &Descriptor) -> io::Result<Opened> {
        if self.whole.contains_key(&blob.digest) {
            return Ok(Opened::Complete);
        }
        self.open = Some(blob.digest);
        let mut hasher = Hasher::new();
        hasher.update(self.partial.entry(blob.digest).or_default());
        Ok(Opened::Partial(hasher))
    }

    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let open = self.open.unwrap();
        self.partial
            .get_mut(&open)
            .unwrap()
            .extend_from_slice(bytes);
        Ok(())
    }

    async fn commit(&mut self, blob: &Descriptor) -> io::Result<()> {
        let bytes = self.partial.remove(&blob.digest).unwrap();
        self.whole.insert(blob.digest, bytes);
        Ok(())
    }

    async fn discard(&mut self, blob: &Descriptor) -> io::Result<()> {
        self.partial.remove(&blob.digest);
        self.discarded += 1;
        Ok(())
    }
}

pub(crate) fn weights(built: &BuiltPackage) -> Descriptor {
    let blob = built.blobs.last().unwrap();
    Descriptor {
        media_type: blob.media_type,
        digest: blob.digest,
        size_bytes: blob.size_bytes,
    }
}

pub(crate) fn weight_bytes(built: &BuiltPackage) -> Vec<u8> {
    bytes(&built.blobs.last().unwrap().source)
}

/// Limits short enough to be reached in a test.
pub(crate) fn impatient(options: &mut ClientOptions) {
    options.pace.rate_window = Duration::from_secs(1);
    options.pace.bytes_per_second_min = 100;
    options.pace.response_timeout = Duration::from_secs(2);
}
