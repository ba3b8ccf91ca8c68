//! Whose signatures count, for what, how many, and what is revoked or too old.

use rimward_artifact::Limits;
use rimward_artifact::verify::{Disposition, Reason, verify_config, verify_package};
use serde_json::{Value, json};

use super::{check, reason, signed_statement};
use crate::support::{Key, candidate, config_bytes, package, statement, trust};

#[test]
fn a_package_signed_with_a_trusted_key_is_verified_and_its_signer_is_named() {
    let (_dir, built) = package();
    let key = Key::new();
    let verified = check(&trust(&[&key], 1, ""), &built, &[key.sign(built.digest)]).unwrap();
    assert_eq!(verified.digest, built.digest);
    assert_eq!(verified.signers().len(), 1);
    assert_eq!(verified.signers()[0].key_id, key.id);
}

#[test]
fn an_unsigned_package_is_blocked_and_not_bad() {
    let (_dir, built) = package();
    let refusal = check(&trust(&[&Key::new()], 1, ""), &built, &[]).unwrap_err();
    assert_eq!(refusal.reason(), Reason::SignatureMissing);
    assert_eq!(refusal.disposition(), Disposition::Blocked);
}

#[test]
fn a_signature_with_a_key_of_nobody_is_refused_and_its_hint_is_told() {
    let (_dir, built) = package();
    let refusal = check(
        &trust(&[&Key::new()], 1, ""),
        &built,
        &[Key::new().sign(built.digest)],
    )
    .unwrap_err();
    assert_eq!(refusal.reason(), Reason::KeyNotTrusted);
    assert!(
        refusal.candidates()[0].message.contains("hint"),
        "{refusal}"
    );
}

#[test]
fn a_hint_that_names_a_trusted_key_proves_nothing() {
    let (_dir, built) = package();
    let (trusted, other) = (Key::new(), Key::new());
    let mut bundle = other.bundle(&statement(built.digest).to_string());
    let right = trusted.bundle("{}");
    bundle["verificationMaterial"] = right["verificationMaterial"].clone();
    let found = [candidate(&bundle)];
    assert_eq!(
        reason(&trust(&[&trusted], 1, ""), &built, &found),
        Reason::SignatureInvalid
    );
}

#[test]
fn a_wrong_or_missing_hint_does_not_hide_a_good_signature() {
    let (_dir, built) = package();
    let key = Key::new();
    for hint in [json!({"hint": "AAAA"}), json!({})] {
        let mut bundle = key.bundle(&statement(built.digest).to_string());
        bundle["verificationMaterial"]["publicKey"] = hint;
        check(&trust(&[&key], 1, ""), &built, &[candidate(&bundle)]).unwrap();
    }
}

#[test]
fn a_good_signature_of_another_digest_is_refused() {
    let refusal = signed_statement(|payload| {
        payload["subject"][0]["digest"]["sha256"] = Value::from("ab".repeat(32));
    });
    assert_eq!(refusal.reason(), Reason::SignatureOfOtherContent);
    assert!(refusal.to_string().contains(&"ab".repeat(32)), "{refusal}");
}

#[test]
fn a_threshold_of_two_is_not_met_by_one_key_twice() {
    let (_dir, built) = package();
    let (first, second) = (Key::new(), Key::new());
    let trust = trust(&[&first, &second], 2, "");
    let twice = [first.sign(built.digest), first.sign(built.digest)];
    assert_eq!(reason(&trust, &built, &twice), Reason::ThresholdNotMet);
    let both = [first.sign(built.digest), second.sign(built.digest)];
    assert_eq!(check(&trust, &built, &both).unwrap().signers().len(), 2);
}

#[test]
fn a_revoked_key_a_revoked_package_and_a_revoked_file_are_refused() {
    let (_dir, built) = package();
    let key = Key::new();
    let found = [key.sign(built.digest)];
    let revoked = trust(&[&key], 1, &format!("revokedKeys: [\"{}\"]\n", key.id));
    assert_eq!(reason(&revoked, &built, &found), Reason::KeyRevoked);
    let file = built.blobs.last().unwrap().digest;
    for digest in [built.digest, file] {
        let revoked = trust(&[&key], 1, &format!("revokedDigests: [\"{digest}\"]\n"));
        assert_eq!(reason(&revoked, &built, &found), Reason::RevokedDigest);
    }
}

#[test]
fn a_key_trusted_for_one_repository_signs_for_no_other() {
    let (_dir, built) = package();
    let key = Key::new();
    let elsewhere = "registry.example.com/other/digits".parse().unwrap();
    let limits = Limits::default();
    let refusal = verify_package(
        &trust(&[&key], 1, ""),
        &limits,
        &elsewhere,
        built.digest,
        &built.manifest_bytes,
        &[key.sign(built.digest)],
    )
    .unwrap_err();
    assert_eq!(refusal.reason(), Reason::RepositoryNotTrusted);
}

fn floor(more: &str, remembered: u64) -> Result<(), Reason> {
    let (_dir, built) = package();
    let key = Key::new();
    let trust = trust(&[&key], 1, more);
    let manifest = check(&trust, &built, &[key.sign(built.digest)]).unwrap();
    let limits = Limits::default();
    verify_config(
        &trust,
        &limits,
        &manifest,
        &config_bytes(&built),
        remembered,
    )
    .map(drop)
    .map_err(|refusal| refusal.reason())
}

#[test]
fn an_old_but_signed_release_is_refused_by_any_floor_above_it() {
    // The package's counter is 3.
    assert_eq!(
        floor("releaseFloors: [{family: digits, counter: 3}]\n", 0),
        Ok(())
    );
    let below = Err(Reason::BelowReleaseFloor);
    assert_eq!(
        floor("releaseFloors: [{family: digits, counter: 4}]\n", 0),
        below
    );
    let repository = "releaseFloors: [{repository: registry.example.com/models/*, counter: 4}]\n";
    assert_eq!(floor(repository, 0), below);
    assert_eq!(floor("", 4), below);
    assert_eq!(
        floor("releaseFloors: [{family: other, counter: 9}]\n", 3),
        Ok(())
    );
}
