//! Signatures that the real cosign made (fixtures/README.md says how).

use rimward_artifact::Limits;
use rimward_artifact::hash::sha256;
use rimward_artifact::verify::{Reason, SignatureSet, verify_package};

use crate::support::{raw_candidate, repository, trust_file};

const MANIFEST: &[u8] = include_bytes!("fixtures/manifest.json");
const P256: &str = include_str!("fixtures/p256.pub");
const P384: &str = include_str!("fixtures/p384.pub");

fn check(key: &str, bundle: &[u8]) -> Result<usize, Reason> {
    let trust = trust_file(&[key], 1, "localhost", "");
    let set = SignatureSet {
        candidates: vec![raw_candidate(bundle.to_vec())],
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
