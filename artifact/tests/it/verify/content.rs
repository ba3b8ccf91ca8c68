//! Manifest, config and golden vectors: what a good signature is over.

use rimward_artifact::hash::sha256;
use rimward_artifact::trust::TrustFile;
use rimward_artifact::verify::{
    Disposition, Reason, Refusal, SignatureSet, Stored, verify_config, verify_golden,
    verify_package, verify_stored,
};
use rimward_artifact::{Digest, Limits};
use serde_json::{Value, json};

use super::check;
use crate::support::{GOLDEN, Key, config_bytes, package, repository, trust};

#[test]
fn config_and_golden_vectors_must_be_the_bytes_that_were_signed() {
    let (_dir, built) = package();
    let key = Key::new();
    let trust = trust(&[&key], 1, "");
    let limits = Limits::default();
    let manifest = check(&trust, &built, &[key.sign(built.digest)]).unwrap();
    let bytes = config_bytes(&built);
    for at in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1;
        let refusal = verify_config(&trust, &limits, &manifest, &flipped, 0).unwrap_err();
        assert_eq!(refusal.reason(), Reason::ConfigDigestMismatch);
    }
    let config = verify_config(&trust, &limits, &manifest, &bytes, 0).unwrap();
    assert_eq!(
        verify_golden(&limits, &config, GOLDEN.as_bytes())
            .unwrap()
            .vectors
            .len(),
        1
    );
    let other = GOLDEN.replace('7', "8");
    let refusal = verify_golden(&limits, &config, other.as_bytes()).unwrap_err();
    assert_eq!(refusal.reason(), Reason::GoldenDigestMismatch);
}

#[test]
fn stored_bytes_are_verified_again_offline_and_any_rot_or_new_revocation_is_noticed() {
    let (_dir, built) = package();
    let key = Key::new();
    let signatures = SignatureSet {
        candidates: vec![key.sign(built.digest)],
    }
    .to_bytes();
    let config = config_bytes(&built);
    let again = |trust: &TrustFile, manifest: &[u8], signatures: &[u8], config: &[u8]| {
        let stored = Stored {
            manifest,
            signatures,
            config,
        };
        verify_stored(
            trust,
            &Limits::default(),
            &repository(),
            built.digest,
            stored,
            0,
        )
        .map(|(_, config)| config.release_counter)
        .map_err(|refusal| refusal.reason())
    };
    let trusting = trust(&[&key], 1, "");
    let manifest = &built.manifest_bytes;
    assert_eq!(again(&trusting, manifest, &signatures, &config), Ok(3));
    let rotten = |bytes: &[u8]| {
        let mut bytes = bytes.to_vec();
        bytes[1] ^= 4;
        bytes
    };
    let mismatch = Err(Reason::ManifestDigestMismatch);
    assert_eq!(
        again(&trusting, &rotten(manifest), &signatures, &config),
        mismatch
    );
    let invalid = Err(Reason::SignatureInvalid);
    assert_eq!(
        again(&trusting, manifest, &rotten(&signatures), &config),
        invalid
    );
    let mismatch = Err(Reason::ConfigDigestMismatch);
    assert_eq!(
        again(&trusting, manifest, &signatures, &rotten(&config)),
        mismatch
    );
    let revoked = trust(&[&key], 1, &format!("revokedKeys: [\"{}\"]\n", key.id));
    assert_eq!(
        again(&revoked, manifest, &signatures, &config),
        Err(Reason::KeyRevoked)
    );
}

/// A manifest changed and signed anew: only the content can refuse it.
fn signed_manifest(change: impl FnOnce(&mut Value)) -> Refusal {
    let (_dir, built) = package();
    let key = Key::new();
    let mut manifest: Value = serde_json::from_slice(&built.manifest_bytes).unwrap();
    change(&mut manifest);
    let bytes = serde_json::to_vec(&manifest).unwrap();
    let digest: Digest = sha256(&bytes);
    let limits = Limits::default();
    verify_package(
        &trust(&[&key], 1, ""),
        &limits,
        &repository(),
        digest,
        &bytes,
        &[key.sign(digest)],
    )
    .unwrap_err()
}

#[test]
fn a_signed_manifest_with_anything_unknown_foreign_or_oversized_is_bad() {
    type Change = fn(&mut Value);
    let changes: [(&str, Change); 14] = [
        ("layers[0].urls", |m| {
            m["layers"][0]["urls"] = json!(["https://evil.example.com"]);
        }),
        ("layers[1].data", |m| m["layers"][1]["data"] = json!("AAAA")),
        ("layers[0].mediaType", |m| {
            m["layers"][0]["mediaType"] =
                json!("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip");
        }),
        ("layers[3].size", |m| {
            m["layers"][3]["size"] = json!(1_u64 << 60);
        }),
        ("config.size", |m| m["config"]["size"] = json!(1_u64 << 30)),
        ("mediaType", |m| {
            m["mediaType"] = json!("application/vnd.oci.image.index.v1+json");
        }),
        ("artifactType", |m| {
            m["artifactType"] = json!("application/vnd.oci.empty.v1+json");
        }),
        ("config.mediaType", |m| {
            m["config"]["mediaType"] = json!("text/plain");
        }),
        ("schemaVersion", |m| m["schemaVersion"] = json!(1)),
        ("subject", |m| m["subject"] = json!({})),
        ("layers[0].platform", |m| {
            m["layers"][0]["platform"] = json!({});
        }),
        ("layers[0].digest", |m| {
            m["layers"][0]["digest"] = json!("sha512:00");
        }),
        ("layers[3].annotations", |m| {
            m["layers"][3]["annotations"]["org.cncf.model.filepath"] = json!("../../etc/passwd");
        }),
        ("layers[3].annotations", |m| {
            m["layers"][3]["annotations"]["org.cncf.model.filepath"] = json!("MODULE.wasm");
        }),
    ];
    for (field, change) in changes {
        let refusal = signed_manifest(change);
        assert_eq!(
            refusal.disposition(),
            Disposition::Bad,
            "{field}: {refusal}"
        );
        let last = field.rsplit('.').next().unwrap();
        assert!(refusal.message().contains(last), "{field}: {refusal}");
    }
    let refusal = signed_manifest(|m| {
        let weights = m["layers"][3].clone();
        m["layers"] = Value::from(vec![weights; 50]);
    });
    assert!(
        refusal.message().contains("has 50, at most 40"),
        "{refusal}"
    );
    let refusal = signed_manifest(|m| {
        m["layers"].as_array_mut().unwrap().truncate(3);
    });
    assert!(refusal.message().contains("none of type"), "{refusal}");
}
