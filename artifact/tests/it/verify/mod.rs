//! Attacks on signatures, keys and content, against the pure verifier.

mod content;
mod keys;
mod signatures;

use rimward_artifact::Limits;
use rimward_artifact::manifest::Manifest;
use rimward_artifact::package::BuiltPackage;
use rimward_artifact::trust::TrustFile;
use rimward_artifact::verify::{Reason, Refusal, SignatureCandidate, Verified, verify_package};
use serde_json::Value;

use crate::support::{Key, candidate, package, repository, statement, trust};

fn check(
    trust: &TrustFile,
    built: &BuiltPackage,
    signatures: &[SignatureCandidate],
) -> Result<Verified<Manifest>, Refusal> {
    let limits = Limits::default();
    verify_package(
        trust,
        &limits,
        &repository(),
        built.digest,
        &built.manifest_bytes,
        signatures,
    )
}

fn reason(trust: &TrustFile, built: &BuiltPackage, signatures: &[SignatureCandidate]) -> Reason {
    check(trust, built, signatures).unwrap_err().reason()
}

/// A bundle by a trusted key, changed afterwards.
fn tampered(change: impl FnOnce(&mut Value)) -> Refusal {
    let (_dir, built) = package();
    let key = Key::new();
    let mut bundle = key.bundle(&statement(built.digest).to_string());
    change(&mut bundle);
    check(&trust(&[&key], 1, ""), &built, &[candidate(&bundle)]).unwrap_err()
}

/// A bundle by a trusted key over a changed statement, rightly signed.
fn signed_statement(change: impl FnOnce(&mut Value)) -> Refusal {
    let (_dir, built) = package();
    let key = Key::new();
    let mut payload = statement(built.digest);
    change(&mut payload);
    let bundle = key.bundle(&payload.to_string());
    check(&trust(&[&key], 1, ""), &built, &[candidate(&bundle)]).unwrap_err()
}
