//! Which keys signed, and whether that satisfies an authority of the trust file.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rimward_core::ids::Digest;

use super::bundle::{self, Problem};
use super::candidate::{CANDIDATE_BYTES_MAX, CANDIDATES_MAX, CandidateFormat, SignatureCandidate};
use super::refusal::{CandidateReport, Reason, Refusal};
use super::simple;
use crate::reference::Repository;
use crate::text::clip;
use crate::trust::{Authority, PublicKey, TrustFile};

/// A key whose good signature counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signer {
    /// The authority it counted for.
    pub authority: String,
    /// The key's name in the trust file.
    pub key: String,
    /// SHA-256 of the key's SubjectPublicKeyInfo.
    pub key_id: Digest,
}

/// Finds an authority for `repository` whose threshold of distinct, unrevoked keys signed `digest`.
pub(super) fn satisfy(
    trust: &TrustFile,
    repository: &Repository,
    digest: Digest,
    candidates: &[SignatureCandidate],
) -> Result<Vec<Signer>, Refusal> {
    let authorities: Vec<&Authority> = trust.authorities_for(repository).collect();
    if authorities.is_empty() {
        return Err(Refusal::new(
            Reason::RepositoryNotTrusted,
            format!("no authority of the trust file may sign for {repository}"),
        ));
    }
    if candidates.is_empty() {
        return Err(Refusal::new(
            Reason::SignatureMissing,
            format!("{digest} has no signature"),
        ));
    }
    let (good, reports) = judge(trust, &authorities, digest, candidates);
    let mut best = 0;
    for authority in &authorities {
        let signers: Vec<Signer> = authority
            .keys
            .iter()
            .filter(|trusted| good.contains_key(&trusted.key.id()))
            .map(|trusted| Signer {
                authority: authority.name.to_string(),
                key: trusted.name.to_string(),
                key_id: trusted.key.id(),
            })
            .collect();
        if signers.len() >= authority.threshold {
            return Ok(signers);
        }
        best = best.max(signers.len());
    }
    Err(refuse(&authorities, best, digest, reports))
}

/// The candidates worth keeping: of each key that may sign for `repository` and signed `digest`, the shortest.
///
/// At most one a key, so that whoever may push signatures does not decide how much a device stores.
pub(super) fn good(
    trust: &TrustFile,
    repository: &Repository,
    digest: Digest,
    candidates: &[SignatureCandidate],
) -> Vec<SignatureCandidate> {
    let authorities: Vec<&Authority> = trust.authorities_for(repository).collect();
    let (good, _) = judge(trust, &authorities, digest, candidates);
    let kept: BTreeSet<usize> = good.into_values().map(|(_, index)| index).collect();
    kept.into_iter()
        .filter_map(|index| candidates.get(index).cloned())
        .collect()
}

/// By good key, the length and index of its shortest candidate; and why the others are not good.
fn judge(
    trust: &TrustFile,
    authorities: &[&Authority],
    digest: Digest,
    candidates: &[SignatureCandidate],
) -> (BTreeMap<Digest, (usize, usize)>, Vec<CandidateReport>) {
    let keys = distinct_keys(authorities);
    let (mut good, mut reports) = (BTreeMap::new(), Vec::new());
    for (index, candidate) in candidates.iter().take(CANDIDATES_MAX).enumerate() {
        match signer(trust, &keys, digest, candidate) {
            Ok(key) => {
                let this = (candidate.bytes.len(), index);
                let shortest = good.entry(key).or_insert(this);
                *shortest = this.min(*shortest);
            }
            Err((reason, message)) => reports.push(CandidateReport {
                index,
                source: candidate.source,
                reason,
                message,
            }),
        }
    }
    (good, reports)
}

fn refuse(
    authorities: &[&Authority],
    best: usize,
    digest: Digest,
    mut reports: Vec<CandidateReport>,
) -> Refusal {
    if best > 0 {
        let needed: Vec<String> = authorities
            .iter()
            .map(|authority| format!("{} needs {}", authority.name, authority.threshold))
            .collect();
        let message = format!(
            "{best} distinct trusted keys signed {digest}; {}",
            clip(&needed.join(", "), 200)
        );
        return Refusal::new(Reason::ThresholdNotMet, message).with_candidates(reports);
    }
    // Told first: whatever came closest to being good.
    reports.sort_by_key(|report| (std::cmp::Reverse(closeness(report.reason)), report.index));
    let reason = reports
        .first()
        .map_or(Reason::SignatureInvalid, |report| report.reason);
    let message = format!("none of {} signatures of {digest} is good", reports.len());
    Refusal::new(reason, message).with_candidates(reports)
}

fn closeness(reason: Reason) -> u8 {
    match reason {
        Reason::KeyRevoked => 4,
        Reason::SignatureOfOtherContent => 3,
        Reason::KeyNotTrusted => 2,
        Reason::SignatureFormatUnsupported => 1,
        _ => 0,
    }
}

/// The key that signed `digest` with this candidate.
fn signer(
    trust: &TrustFile,
    keys: &[&PublicKey],
    digest: Digest,
    candidate: &SignatureCandidate,
) -> Result<Digest, Problem> {
    if candidate.bytes.len() > CANDIDATE_BYTES_MAX {
        return Err((
            Reason::SignatureInvalid,
            format!(
                "{} bytes, at most {CANDIDATE_BYTES_MAX} are accepted",
                candidate.bytes.len()
            ),
        ));
    }
    let key = match &candidate.format {
        CandidateFormat::SigstoreBundleV03 => {
            let envelope = bundle::open(&candidate.bytes)?;
            let key = made_by(keys, &envelope.signed, &envelope.signature, &envelope.hint)?;
            envelope.names(digest)?;
            key
        }
        CandidateFormat::SimpleSigning { signature } => {
            let signature = simple::signature(signature)?;
            let key = made_by(keys, &candidate.bytes, &signature, "")?;
            simple::names(&candidate.bytes, digest)?;
            key
        }
    };
    if trust.is_revoked_key(key.id()) {
        return Err((
            Reason::KeyRevoked,
            format!(
                "signed with {}, which is in the trust file's revokedKeys",
                key.id()
            ),
        ));
    }
    Ok(key.id())
}

/// The key whose signature this is. A hint sorts the keys and names the fault; it proves nothing, so every key is
/// tried in the end.
fn made_by<'a>(
    keys: &[&'a PublicKey],
    signed: &[u8],
    signature: &[u8],
    hint: &str,
) -> Result<&'a PublicKey, Problem> {
    let hinted = |key: &PublicKey| STANDARD.encode(key.id().as_bytes()) == hint;
    let (first, rest): (Vec<&PublicKey>, Vec<&PublicKey>) =
        keys.iter().partition(|key| hinted(key));
    let unknown = first.is_empty() && !hint.is_empty();
    let mut ordered = first.into_iter().chain(rest);
    ordered
        .find(|key| key.verifies(signed, signature))
        .ok_or_else(|| {
            if unknown {
                let hint = clip(hint, 64);
                (
                    Reason::KeyNotTrusted,
                    format!("no trusted key for this repository made it (key hint \"{hint}\")"),
                )
            } else {
                (
                    Reason::SignatureInvalid,
                    "the signature is not over this payload by any trusted key".to_owned(),
                )
            }
        })
}

fn distinct_keys<'a>(authorities: &[&'a Authority]) -> Vec<&'a PublicKey> {
    let mut seen = BTreeSet::new();
    authorities
        .iter()
        .flat_map(|authority| &authority.keys)
        .map(|trusted| &trusted.key)
        .filter(|key| seen.insert(key.id()))
        .collect()
}
