//! cosign v1/v2 signatures: a payload in the "simple signing" format, its signature beside it in an annotation.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rimward_core::ids::Digest;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::bundle::Problem;
use super::candidate::CANDIDATE_BYTES_MAX;
use super::refusal::Reason;
use crate::json::{self, JsonLimits};
use crate::text::clip;

/// The one type of payload that is a signature.
const TYPE: &str = "cosign container image signature";
/// Characters of a base64 signature; a P-384 one has about 140.
const SIGNATURE_CHARACTERS_MAX: usize = 1024;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Payload {
    critical: Critical,
    #[serde(rename = "optional")]
    _optional: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Critical {
    // The repository at the time of signing. Not compared: a mirror or a move is legal, and which repositories a
    // key may sign for is the trust file's to say.
    #[serde(rename = "identity")]
    _identity: IgnoredAny,
    image: Image,
    r#type: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Image {
    #[serde(rename = "docker-manifest-digest")]
    digest: String,
}

/// Decodes the signature, strictly.
pub(super) fn signature(text: &str) -> Result<Vec<u8>, Problem> {
    if text.len() > SIGNATURE_CHARACTERS_MAX {
        return Err(invalid(format!(
            "signature: {} characters, at most {SIGNATURE_CHARACTERS_MAX}",
            text.len()
        )));
    }
    STANDARD
        .decode(text)
        .map_err(|error| invalid(format!("signature: {error}")))
}

/// Does the payload, whose signature the caller has checked, name this digest?
pub(super) fn names(payload: &[u8], digest: Digest) -> Result<(), Problem> {
    let limits = JsonLimits::small(CANDIDATE_BYTES_MAX as u64);
    let payload: Payload =
        json::parse("payload", payload, limits).map_err(|error| invalid(error.to_string()))?;
    let Critical {
        _identity,
        image,
        r#type,
    } = payload.critical;
    if r#type != TYPE {
        return Err((
            Reason::SignatureOfOtherContent,
            format!(
                "payload: field critical.type: is \"{}\", not \"{TYPE}\"",
                clip(&r#type, 100)
            ),
        ));
    }
    if image.digest != digest.to_string() {
        return Err((
            Reason::SignatureOfOtherContent,
            format!("payload: signs {}, not {digest}", clip(&image.digest, 80)),
        ));
    }
    Ok(())
}

fn invalid(message: String) -> Problem {
    (Reason::SignatureInvalid, message)
}
