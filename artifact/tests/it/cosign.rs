//! Signatures that the real cosign made (fixtures/README.md says how).

use rimward_artifact::Limits;
use rimward_artifact::hash::sha256;
use rimward_artifact::verify::{
    CandidateFormat, Reason, SignatureCandidate, SignatureSet, SignatureSource, verify_package,
};

use crate::support::{raw_candidate, repository, trust_file};

const MANIFEST: &[u8] = include_bytes!("fixtures/manifest.json");
const P256: &str = include_str!("fixtures/p256.pub");
const P384: &str = include_str!("fixtures/p384.pub");

fn check(key: &str, bundle: &[u8]) -> Result<usize, Reason> {
    check_candidate(key, raw_candidate(bundle.to_vec()))
}

fn check_candidate(key: &str, candidate: SignatureCandidate) -> Result<usize, Reason> {
    let trust = trust_file(&[key], 1, "localhost", "");
    let set = SignatureSet {
        candidates: vec![candidate],
    };
    // As a device stores it, and reads it back to verify offline.
    let set = SignatureSet::parse(&set.to_bytes()).unwrap();
    let limits = Limits::default();
    verify_package(
        &trust,
        &limits,
        &repository(),
        sha256(MANIFEST),
        MANIFEST,
        &set.candidates,
    )
    .map(|verified| verified.signers().len())
    .map_err(|refusal| refusal.reason())
}

#[test]
fn a_bundle_of_cosign_3_is_accepted_with_its_key_and_no_other() {
    let bundle = include_bytes!("fixtures/bundle.json");
    assert_eq!(check(P256, bundle), Ok(1));
    assert_eq!(check(P384, bundle), Err(Reason::KeyNotTrusted));
}

#[test]
fn a_bundle_made_with_a_p384_key_is_accepted() {
    assert_eq!(
        check(P384, include_bytes!("fixtures/bundle-p384.json")),
        Ok(1)
    );
}

#[test]
fn an_sbom_that_cosign_attested_with_the_same_key_is_no_signature() {
    let bundle = include_bytes!("fixtures/bundle-sbom.json");
    assert_eq!(check(P256, bundle), Err(Reason::SignatureOfOtherContent));
}

const SIMPLE: &[u8] = include_bytes!("fixtures/simple-signing.json");
const SIMPLE_SIGNATURE: &str = include_str!("fixtures/simple-signing.sig");

fn simple(payload: &[u8], signature: &str) -> SignatureCandidate {
    SignatureCandidate {
        format: CandidateFormat::SimpleSigning {
            signature: signature.to_owned(),
        },
        source: SignatureSource::SignatureTag,
        bytes: payload.to_vec(),
    }
}

#[test]
fn a_signature_in_the_format_of_cosign_1_and_2_is_accepted_with_its_key_and_no_other() {
    let good = simple(SIMPLE, SIMPLE_SIGNATURE);
    assert_eq!(check_candidate(P256, good.clone()), Ok(1));
    assert_eq!(check_candidate(P384, good), Err(Reason::SignatureInvalid));
}

#[test]
fn a_flipped_bit_at_any_byte_of_an_old_payload_or_signature_is_refused() {
    for at in 0..SIMPLE.len() {
        let mut flipped = SIMPLE.to_vec();
        flipped[at] ^= 1;
        assert!(
            check_candidate(P256, simple(&flipped, SIMPLE_SIGNATURE)).is_err(),
            "{at}"
        );
    }
    for at in 0..SIMPLE_SIGNATURE.len() {
        let mut flipped = SIMPLE_SIGNATURE.as_bytes().to_vec();
        flipped[at] ^= 1;
        let flipped = String::from_utf8(flipped).unwrap();
        assert!(
            check_candidate(P256, simple(SIMPLE, &flipped)).is_err(),
            "{at}"
        );
    }
    for loose in [
        format!("{SIMPLE_SIGNATURE}\n"),
        SIMPLE_SIGNATURE.trim_end_matches('=').to_owned(),
    ] {
        assert!(
            check_candidate(P256, simple(SIMPLE, &loose)).is_err(),
            "{loose}"
        );
    }
}
