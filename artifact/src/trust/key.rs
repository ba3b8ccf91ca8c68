//! Public keys: PEM to the whole DER of a SubjectPublicKeyInfo, and nothing but the two forms known to be right.
//!
//! The DER is not parsed but compared with the one encoding of an uncompressed P-256 or P-384 key. Another
//! encoding of the same point is another key here; so one key has one identity, which thresholds and
//! revocation rest on.

use std::fmt;

use rimward_core::ids::Digest;
use ring::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, EcdsaVerificationAlgorithm, UnparsedPublicKey,
};
use rustls_pki_types::SubjectPublicKeyInfoDer;
use rustls_pki_types::pem::PemObject;
use thiserror::Error;

use crate::hash::sha256;

/// Characters of a PEM block; a P-384 key has about 220.
const PEM_CHARACTERS_MAX: usize = 4096;
/// What stands before the uncompressed point in a P-256 SubjectPublicKeyInfo (RFC 5480).
const P256_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
/// The same for P-384.
const P384_PREFIX: [u8; 23] = [
    0x30, 0x76, 0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05, 0x2b,
    0x81, 0x04, 0x00, 0x22, 0x03, 0x62, 0x00,
];
/// How an Ed25519 SubjectPublicKeyInfo starts (RFC 8410).
const ED25519_PREFIX: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];
/// The object identifier of RSA keys (RFC 8017), inside their AlgorithmIdentifier.
const RSA_OID: [u8; 11] = [
    0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01,
];

/// Why a public key was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum KeyError {
    /// Not one PEM block of a public key.
    #[error("must be one PEM block \"PUBLIC KEY\" of at most {PEM_CHARACTERS_MAX} characters")]
    Pem,
    /// Ed25519.
    #[error(
        "is an Ed25519 key: cosign signs with those in pre-hashed form (Ed25519ph), which this verifier does not \
         have; use ECDSA P-256, as cosign generate-key-pair makes it"
    )]
    Ed25519,
    /// RSA.
    #[error("is an RSA key; use ECDSA P-256, as cosign generate-key-pair makes it")]
    Rsa,
    /// Anything else.
    #[error("is no ECDSA key on P-256 or P-384 with an uncompressed point")]
    Unknown,
}

/// A key that signatures are checked with. Equal only if the whole DER is.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey {
    der: Vec<u8>,
    curve: Curve,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Curve {
    P256,
    P384,
}

impl PublicKey {
    /// Reads one PEM block.
    ///
    /// # Errors
    /// [`KeyError`], which says why a kind of key is not accepted.
    pub fn from_pem(pem: &str) -> Result<Self, KeyError> {
        if pem.len() > PEM_CHARACTERS_MAX || pem.matches("-----BEGIN").count() != 1 {
            return Err(KeyError::Pem);
        }
        let der =
            SubjectPublicKeyInfoDer::from_pem_slice(pem.as_bytes()).map_err(|_| KeyError::Pem)?;
        Self::from_der(der.as_ref())
    }

    /// Reads the DER of a SubjectPublicKeyInfo.
    ///
    /// # Errors
    /// [`KeyError`], as [`PublicKey::from_pem`].
    pub fn from_der(der: &[u8]) -> Result<Self, KeyError> {
        let uncompressed = |prefix: &[u8], coordinate: usize| {
            der.len() == prefix.len() + 1 + 2 * coordinate
                && der.starts_with(prefix)
                && der[prefix.len()] == 4
        };
        let curve = if uncompressed(&P256_PREFIX, 32) {
            Curve::P256
        } else if uncompressed(&P384_PREFIX, 48) {
            Curve::P384
        } else if der.starts_with(&ED25519_PREFIX) {
            return Err(KeyError::Ed25519);
        } else if der
            .windows(RSA_OID.len())
            .take(16)
            .any(|window| window == RSA_OID)
        {
            return Err(KeyError::Rsa);
        } else {
            return Err(KeyError::Unknown);
        };
        Ok(Self {
            der: der.to_vec(),
            curve,
        })
    }

    /// SHA-256 of the DER: how revocation and status name the key.
    #[must_use]
    pub fn id(&self) -> Digest {
        sha256(&self.der)
    }

    /// Is `signature` (DER, as ECDSA in X.509) this key's over `message`? P-256 goes with SHA-256, P-384 with
    /// SHA-384.
    #[must_use]
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let (algorithm, prefix): (&'static EcdsaVerificationAlgorithm, usize) = match self.curve {
            Curve::P256 => (&ECDSA_P256_SHA256_ASN1, P256_PREFIX.len()),
            Curve::P384 => (&ECDSA_P384_SHA384_ASN1, P384_PREFIX.len()),
        };
        UnparsedPublicKey::new(algorithm, &self.der[prefix..])
            .verify(message, signature)
            .is_ok()
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let curve = match self.curve {
            Curve::P256 => "P-256",
            Curve::P384 => "P-384",
        };
        write!(f, "PublicKey({curve} {})", self.id())
    }
}

#[cfg(test)]
mod tests {
    use super::{KeyError, P256_PREFIX, PublicKey};

    fn pem(der: &[u8]) -> String {
        use base64::Engine;
        let body = base64::engine::general_purpose::STANDARD.encode(der);
        format!("-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----\n")
    }

    #[test]
    fn only_uncompressed_p256_and_p384_keys_are_accepted_and_others_are_told_why() {
        let mut p256 = P256_PREFIX.to_vec();
        p256.push(4);
        p256.extend([7; 64]);
        let key = PublicKey::from_pem(&pem(&p256)).unwrap();
        assert_eq!(key.id(), crate::hash::sha256(&p256));

        let mut ed25519 = super::ED25519_PREFIX.to_vec();
        ed25519.extend([7; 32]);
        let error = PublicKey::from_pem(&pem(&ed25519)).unwrap_err();
        assert!(error.to_string().contains("pre-hashed"), "{error}");

        let mut rsa = vec![0x30, 0x82, 0x01, 0x22, 0x30, 0x0d];
        rsa.extend(super::RSA_OID);
        assert_eq!(PublicKey::from_pem(&pem(&rsa)), Err(KeyError::Rsa));

        p256[26] = 2;
        assert_eq!(PublicKey::from_pem(&pem(&p256)), Err(KeyError::Unknown));
        p256.push(0);
        assert_eq!(PublicKey::from_pem(&pem(&p256)), Err(KeyError::Unknown));
        assert_eq!(PublicKey::from_pem("hello"), Err(KeyError::Pem));
        let private = pem(&ed25519).replace("PUBLIC", "PRIVATE");
        assert_eq!(PublicKey::from_pem(&private), Err(KeyError::Pem));
    }
}
