//! Native code: sealed by the supervisor, opened by it, loaded by the host.
//!
//! Loading native code runs it, so it must be what this device's own preflight compiled. The
//! supervisor seals that with a keyed MAC (a per-device key that no child ever sees) over what it was
//! compiled from, the engine's compatibility hash and the code's own digest, keeps code and seal in a
//! folder of its own, and opens the seal before each use. The host gets bytes that can no longer
//! change, and compares the engine's hash.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use ring::digest::{SHA256, digest};
use ring::hmac;
use rustix::fs::{MemfdFlags, SealFlags};
use serde::{Deserialize, Serialize};
use wasmtime::Engine;
use wasmtime::component::Component;

use super::engine::{compatibility_hash, hex};
use crate::proto::NativeCodeId;

/// The largest native code of a module.
pub const NATIVE_CODE_BYTES_MAX: u64 = 64 << 20;

/// Bytes of a [`SealKey`].
pub const KEY_BYTES: usize = 32;

/// The device's own key. Made once ([`SealKey::generate`]), kept by the supervisor in a file that
/// only the agent may read.
pub struct SealKey(hmac::Key);

impl std::fmt::Debug for SealKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SealKey")
    }
}

impl SealKey {
    /// Fresh random bytes for a new key.
    pub fn generate() -> Result<[u8; KEY_BYTES], NativeError> {
        let mut bytes = [0; KEY_BYTES];
        ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut bytes)
            .map_err(|_| NativeError::NoRandomness)?;
        Ok(bytes)
    }

    /// The key of these bytes.
    pub fn new(bytes: &[u8; KEY_BYTES]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, bytes))
    }
}

/// What is kept beside native code.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Seal {
    /// What the code is.
    pub id: NativeCodeId,
    /// The MAC over it, hex.
    pub mac: String,
}

/// Why native code was not sealed, opened or loaded.
#[derive(Debug, thiserror::Error)]
pub enum NativeError {
    /// The system gives no random bytes.
    #[error("the system gives no random bytes for the native code key")]
    NoRandomness,
    /// A file failed.
    #[error("native code file")]
    Io(#[from] std::io::Error),
    /// Too much of it.
    #[error("native code has more than {NATIVE_CODE_BYTES_MAX} bytes")]
    TooLarge,
    /// The seal was not made with this device's key, or was changed.
    #[error("the seal of the native code is not this device's")]
    Mac,
    /// It was compiled from something else.
    #[error("native code was compiled from module {got}, not {wanted}")]
    Module {
        /// The module that is wanted.
        wanted: String,
        /// The module that the seal names.
        got: String,
    },
    /// The code is not what the seal names.
    #[error("native code has digest {got}, its seal says {wanted}")]
    Digest {
        /// What the seal says.
        wanted: String,
        /// What the bytes hash to.
        got: String,
    },
    /// Compiled by another engine, as after an upgrade: compile again.
    #[error("native code is for another engine or other settings: it must be compiled again")]
    Engine,
    /// wasmtime refuses it.
    #[error("native code cannot be loaded: {0}")]
    Load(String),
}

/// Sha256 as `sha256:<hex>`.
pub fn sha256(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(digest(&SHA256, bytes).as_ref()))
}

/// Seals what a preflight wrote, after checking that the file holds what the report names.
pub fn seal(key: &SealKey, id: &NativeCodeId, code: &mut File) -> Result<Seal, NativeError> {
    check_digest(id, &read(code)?)?;
    Ok(Seal {
        id: id.clone(),
        mac: hex(hmac::sign(&key.0, &sealed_text(id)).as_ref()),
    })
}

/// Checks seal, module and digest; gives the code as memory that cannot change any more, to be handed
/// to a host as [`crate::proto::FdRole::NativeCode`].
pub fn open(
    key: &SealKey,
    seal: &Seal,
    module_digest: &str,
    code: &mut File,
) -> Result<OwnedFd, NativeError> {
    let Seal { id, mac } = seal;
    let mac = unhex(mac).ok_or(NativeError::Mac)?;
    hmac::verify(&key.0, &sealed_text(id), &mac).map_err(|_| NativeError::Mac)?;
    if id.module_digest != module_digest {
        return Err(NativeError::Module {
            wanted: module_digest.to_owned(),
            got: id.module_digest.clone(),
        });
    }
    let bytes = read(code)?;
    check_digest(id, &bytes)?;
    let memory = rustix::fs::memfd_create(
        "native-code",
        MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING,
    );
    let mut memory = File::from(memory.map_err(std::io::Error::from)?);
    memory.write_all(&bytes)?;
    let seals = SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&memory, seals).map_err(std::io::Error::from)?;
    Ok(memory.into())
}

fn read(code: &mut File) -> Result<Vec<u8>, NativeError> {
    code.rewind()?;
    let mut bytes = Vec::new();
    code.take(NATIVE_CODE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > NATIVE_CODE_BYTES_MAX {
        return Err(NativeError::TooLarge);
    }
    Ok(bytes)
}

fn check_digest(id: &NativeCodeId, bytes: &[u8]) -> Result<(), NativeError> {
    let got = sha256(bytes);
    if got == id.code_digest {
        return Ok(());
    }
    Err(NativeError::Digest {
        wanted: id.code_digest.clone(),
        got,
    })
}

/// Unambiguous: every part with its length in front.
fn sealed_text(id: &NativeCodeId) -> Vec<u8> {
    let NativeCodeId {
        module_digest,
        engine_hash,
        code_digest,
    } = id;
    let mut text = b"rimward native code v1\0".to_vec();
    for part in [module_digest, engine_hash, code_digest] {
        text.extend_from_slice(&(part.len() as u64).to_le_bytes());
        text.extend_from_slice(part.as_bytes());
    }
    text
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let bytes: Option<Vec<u8>> = pairs
        .iter()
        .map(|[high, low]| u8::try_from(digit(*high)? * 16 + digit(*low)?).ok())
        .collect();
    bytes.filter(|_| rest.is_empty())
}

/// Loads native code in the host. The descriptor must come from [`open`].
pub fn load(engine: &Engine, id: &NativeCodeId, code: &OwnedFd) -> Result<Component, NativeError> {
    if id.engine_hash != compatibility_hash(engine) {
        return Err(NativeError::Engine);
    }
    let seals = rustix::fs::fcntl_get_seals(code.as_fd()).map_err(std::io::Error::from)?;
    if !seals.contains(SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW) {
        return Err(NativeError::Load("it is not sealed memory".to_owned()));
    }
    let path = format!("/proc/self/fd/{}", code.as_raw_fd());
    // Mapped, not read: its pages are shared with the supervisor's memory file.
    #[allow(
        unsafe_code,
        reason = "loading native code is what a host does; there is no safe form of it"
    )]
    // SAFETY: the bytes came over the control socket from the supervisor, which compiled them in its
    // own preflight and checked the MAC over module, engine and code just before; sealed memory
    // cannot have changed since.
    let loaded = unsafe { Component::deserialize_file(engine, path) };
    loaded.map_err(|error| NativeError::Load(error.root_cause().to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> (SealKey, NativeCodeId, File) {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"code").unwrap();
        let id = NativeCodeId {
            module_digest: "sha256:m".to_owned(),
            engine_hash: "e".to_owned(),
            code_digest: sha256(b"code"),
        };
        (SealKey::new(&[7; KEY_BYTES]), id, file)
    }

    #[test]
    fn what_was_sealed_opens_and_can_no_longer_change() {
        let (key, id, mut file) = sample();
        let seal = seal(&key, &id, &mut file).unwrap();
        let mut opened = File::from(open(&key, &seal, "sha256:m", &mut file).unwrap());
        assert!(opened.write_all(b"other").is_err());
        assert!(opened.set_len(0).is_err());
    }

    #[test]
    fn another_key_module_engine_or_code_is_refused() {
        let (key, id, mut file) = sample();
        let good = seal(&key, &id, &mut file).unwrap();
        let other_key = SealKey::new(&[8; KEY_BYTES]);
        assert!(matches!(
            open(&other_key, &good, "sha256:m", &mut file),
            Err(NativeError::Mac)
        ));
        assert!(matches!(
            open(&key, &good, "sha256:n", &mut file),
            Err(NativeError::Module { .. })
        ));
        let mut changed = good.clone();
        changed.id.engine_hash = "f".to_owned();
        assert!(matches!(
            open(&key, &changed, "sha256:m", &mut file),
            Err(NativeError::Mac)
        ));
        file.write_all(b"!").unwrap();
        assert!(matches!(
            open(&key, &good, "sha256:m", &mut file),
            Err(NativeError::Digest { .. })
        ));
    }

    #[test]
    fn a_preflight_that_names_another_digest_gets_no_seal() {
        let (key, mut id, mut file) = sample();
        id.code_digest = sha256(b"other");
        assert!(matches!(
            seal(&key, &id, &mut file),
            Err(NativeError::Digest { .. })
        ));
    }
}
