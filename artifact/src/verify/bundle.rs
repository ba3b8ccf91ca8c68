//! cosign v3 signatures: a Sigstore bundle v0.3 around one DSSE envelope around one in-toto statement.
//!
//! Order matters: the envelope is opened, the signature checked over the pre-authentication encoding, and only
//! then is the payload parsed. Nothing inside the bundle says which key to trust: its hint only sorts.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rimward_core::ids::Digest;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::candidate::CANDIDATE_BYTES_MAX;
use super::refusal::Reason;
use crate::json::{self, JsonLimits};
use crate::media;
use crate::text::clip;

const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";
const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";
/// cosign itself does not compare this: an SBOM attested with the same key must not pass as a signature.
const PREDICATE_TYPE: &str = "https://sigstore.dev/cosign/sign/v1";
/// Characters of a key hint; cosign's has 44.
const HINT_CHARACTERS_MAX: usize = 256;

/// Why a candidate is no good, with its reason.
pub(super) type Problem = (Reason, String);

/// An opened envelope, nothing of it believed yet.
#[derive(Debug)]
pub(super) struct Envelope {
    /// What the signature must be over.
    pub(super) signed: Vec<u8>,
    /// The signature, DER.
    pub(super) signature: Vec<u8>,
    /// Base64 of SHA-256 of the signer's SubjectPublicKeyInfo, if cosign wrote it.
    pub(super) hint: String,
    payload: Vec<u8>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawBundle {
    media_type: String,
    verification_material: RawMaterial,
    dsse_envelope: Option<RawEnvelope>,
    message_signature: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawMaterial {
    public_key: Option<RawHint>,
    certificate: Option<IgnoredAny>,
    x509_certificate_chain: Option<IgnoredAny>,
    // Proofs of when and where it was logged: neither needed nor believed with a key of our own.
    #[serde(rename = "tlogEntries")]
    _tlog_entries: Option<IgnoredAny>,
    #[serde(rename = "timestampVerificationData")]
    _timestamps: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawHint {
    #[serde(default)]
    hint: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawEnvelope {
    payload: String,
    payload_type: String,
    signatures: Vec<RawSignature>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSignature {
    sig: String,
    #[serde(rename = "keyid")]
    _keyid: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct RawStatement {
    #[serde(rename = "_type")]
    r#type: String,
    #[serde(rename = "predicateType")]
    predicate_type: String,
    subject: Vec<RawSubject>,
}

#[derive(Deserialize)]
struct RawSubject {
    digest: BTreeMap<String, String>,
}

/// Opens a bundle without believing anything in it.
pub(super) fn open(bytes: &[u8]) -> Result<Envelope, Problem> {
    let limits = JsonLimits::small(CANDIDATE_BYTES_MAX as u64);
    let raw: RawBundle =
        json::parse("bundle", bytes, limits).map_err(|error| invalid(error.to_string()))?;
    if raw.media_type != media::SIGSTORE_BUNDLE_V03 {
        return Err((
            Reason::SignatureFormatUnsupported,
            format!(
                "bundle: field mediaType: is \"{}\"",
                clip(&raw.media_type, 100)
            ),
        ));
    }
    let material = raw.verification_material;
    if material.certificate.is_some() || material.x509_certificate_chain.is_some() {
        return Err((
            Reason::SignatureFormatUnsupported,
            "bundle: carries a certificate; only signatures with a key of the trust file are accepted".to_owned(),
        ));
    }
    let Some(RawHint { hint }) = material.public_key else {
        return Err(invalid(
            "bundle: field verificationMaterial.publicKey: is missing".to_owned(),
        ));
    };
    if hint.len() > HINT_CHARACTERS_MAX {
        return Err(invalid(format!(
            "bundle: field verificationMaterial.publicKey.hint: {} characters, at most {HINT_CHARACTERS_MAX}",
            hint.len()
        )));
    }
    let envelope = match (raw.dsse_envelope, raw.message_signature) {
        (Some(envelope), None) => envelope,
        _ => {
            return Err(invalid(
                "bundle: must have a dsseEnvelope and no messageSignature".to_owned(),
            ));
        }
    };
    if envelope.payload_type != PAYLOAD_TYPE {
        return Err(invalid(format!(
            "bundle: field dsseEnvelope.payloadType: is \"{}\", not \"{PAYLOAD_TYPE}\"",
            clip(&envelope.payload_type, 100)
        )));
    }
    let [signature] = envelope.signatures.as_slice() else {
        return Err(invalid(format!(
            "bundle: field dsseEnvelope.signatures: has {}, exactly 1 is accepted",
            envelope.signatures.len()
        )));
    };
    let decode = |field: &str, text: &str| {
        STANDARD
            .decode(text)
            .map_err(|error| invalid(format!("bundle: field dsseEnvelope.{field}: {error}")))
    };
    let payload = decode("payload", &envelope.payload)?;
    let signature = decode("signatures[0].sig", &signature.sig)?;
    Ok(Envelope {
        signed: pre_authentication_encoding(&payload),
        signature,
        hint,
        payload,
    })
}

impl Envelope {
    /// Does the payload, whose signature the caller has checked, name this digest as what was signed?
    pub(super) fn names(&self, digest: Digest) -> Result<(), Problem> {
        let limits = JsonLimits::small(CANDIDATE_BYTES_MAX as u64);
        let statement: RawStatement = json::parse("statement", &self.payload, limits)
            .map_err(|error| invalid(error.to_string()))?;
        for (name, actual, expected) in [
            ("_type", &statement.r#type, STATEMENT_TYPE),
            ("predicateType", &statement.predicate_type, PREDICATE_TYPE),
        ] {
            if actual != expected {
                return Err((
                    Reason::SignatureOfOtherContent,
                    format!(
                        "statement: field {name}: is \"{}\", not \"{expected}\"",
                        clip(actual, 100)
                    ),
                ));
            }
        }
        let [subject] = statement.subject.as_slice() else {
            return Err((
                Reason::SignatureOfOtherContent,
                format!(
                    "statement: field subject: has {}, exactly 1 is accepted",
                    statement.subject.len()
                ),
            ));
        };
        match subject.digest.get("sha256") {
            Some(hex) if *hex == digest.hex() => Ok(()),
            Some(hex) => Err((
                Reason::SignatureOfOtherContent,
                format!("statement: signs sha256:{}, not {digest}", clip(hex, 64)),
            )),
            None => Err((
                Reason::SignatureOfOtherContent,
                "statement: field subject[0].digest.sha256: is missing".to_owned(),
            )),
        }
    }
}

/// DSSE's encoding of what is signed: lengths in front, so that type and payload cannot trade bytes.
fn pre_authentication_encoding(payload: &[u8]) -> Vec<u8> {
    let mut encoded = format!(
        "DSSEv1 {} {PAYLOAD_TYPE} {} ",
        PAYLOAD_TYPE.len(),
        payload.len()
    )
    .into_bytes();
    encoded.extend_from_slice(payload);
    encoded
}

fn invalid(message: String) -> Problem {
    (Reason::SignatureInvalid, message)
}
