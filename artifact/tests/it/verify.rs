//! Attacks on signatures, keys and content, against the pure verifier.

use rimward_artifact::hash::sha256;
use rimward_artifact::manifest::Manifest;
use rimward_artifact::package::BuiltPackage;
use rimward_artifact::trust::TrustFile;
use rimward_artifact::verify::{
    Disposition, Reason, Refusal, SignatureCandidate, SignatureSet, Stored, Verified,
    verify_config, verify_golden, verify_package, verify_stored,
};
use rimward_artifact::{Digest, Limits};
use serde_json::{Value, json};

use crate::support::{
    GOLDEN, Key, candidate, config_bytes, package, raw_candidate, repository, statement, trust,
};

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
fn a_flipped_bit_at_any_byte_of_signature_payload_or_manifest_is_refused() {
    let (_dir, built) = package();
    let key = Key::new();
    let trust = trust(&[&key], 1, "");
    let limits = Limits::default();
    let good = key.bundle(&statement(built.digest).to_string());
    let fields: [(&str, &[&str]); 2] = [
        ("payload", &["dsseEnvelope", "payload"]),
        ("signature", &["dsseEnvelope", "signatures", "0", "sig"]),
    ];
    for (name, path) in fields {
        let pointer = format!("/{}", path.join("/"));
        let text = good.pointer(&pointer).and_then(Value::as_str).unwrap();
        let decoded = {
            use base64::Engine;
            base64::engine::general_purpose::STANDARD
                .decode(text)
                .unwrap()
        };
        for at in 0..decoded.len() {
            for bit in [0x01, 0x80] {
                let mut flipped = decoded.clone();
                flipped[at] ^= bit;
                let mut bundle = good.clone();
                let encoded = {
                    use base64::Engine;
                    base64::engine::general_purpose::STANDARD.encode(&flipped)
                };
                *bundle.pointer_mut(&pointer).unwrap() = Value::from(encoded);
                let outcome = check(&trust, &built, &[candidate(&bundle)]);
                assert!(outcome.is_err(), "{name} byte {at} bit {bit:#x}");
            }
        }
    }
    // The manifest: against its own digest, and as a package of its own whose signature is of another.
    for at in 0..built.manifest_bytes.len() {
        let mut flipped = built.manifest_bytes.clone();
        flipped[at] ^= 1;
        let signatures = [candidate(&good)];
        let same = verify_package(
            &trust,
            &limits,
            &repository(),
            built.digest,
            &flipped,
            &signatures,
        );
        assert_eq!(
            same.unwrap_err().reason(),
            Reason::ManifestDigestMismatch,
            "byte {at}"
        );
        let own = verify_package(
            &trust,
            &limits,
            &repository(),
            sha256(&flipped),
            &flipped,
            &signatures,
        );
        assert!(own.is_err(), "byte {at}");
    }
}

#[test]
fn base64_with_loose_ends_is_refused() {
    let refusal = tampered(|bundle| {
        let text = bundle["dsseEnvelope"]["payload"]
            .as_str()
            .unwrap()
            .trim_end_matches('=')
            .to_owned();
        bundle["dsseEnvelope"]["payload"] = Value::from(format!("{text}\n"));
    });
    assert_eq!(refusal.reason(), Reason::SignatureInvalid);
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
fn an_attestation_by_the_same_key_is_no_signature() {
    for predicate in [
        "https://spdx.dev/Document",
        "https://sigstore.dev/cosign/sign/v2",
        "https://sigstore.dev/cosign/sign/v1 ",
        "HTTPS://SIGSTORE.DEV/COSIGN/SIGN/V1",
    ] {
        let refusal = signed_statement(|payload| payload["predicateType"] = Value::from(predicate));
        assert_eq!(
            refusal.reason(),
            Reason::SignatureOfOtherContent,
            "{predicate}"
        );
    }
}

#[test]
fn a_statement_of_other_type_or_with_other_than_one_subject_is_refused() {
    let refusal = signed_statement(|payload| {
        payload["_type"] = Value::from("https://in-toto.io/Statement/v0.1");
    });
    assert_eq!(refusal.reason(), Reason::SignatureOfOtherContent);
    let refusal = signed_statement(|payload| {
        let subject = payload["subject"][0].clone();
        payload["subject"] = json!([subject, subject]);
    });
    assert_eq!(refusal.reason(), Reason::SignatureOfOtherContent);
    let refusal = signed_statement(|payload| payload["subject"] = json!([]));
    assert_eq!(refusal.reason(), Reason::SignatureOfOtherContent);
    let refusal =
        signed_statement(|payload| payload["subject"][0]["digest"] = json!({"sha512": "00"}));
    assert_eq!(refusal.reason(), Reason::SignatureOfOtherContent);
}

#[test]
fn duplicate_or_case_variant_keys_in_bundle_or_statement_are_refused() {
    let (_dir, built) = package();
    let key = Key::new();
    let trust = trust(&[&key], 1, "");
    let good = statement(built.digest).to_string();
    for (from, to) in [
        (
            "\"predicateType\"",
            "\"predicateType\":\"x\",\"predicateType\"",
        ),
        (
            "\"predicateType\"",
            "\"PredicateType\":\"x\",\"predicateType\"",
        ),
        ("\"sha256\"", "\"SHA256\":\"00\",\"sha256\""),
    ] {
        let payload = good.replacen(from, to, 1);
        assert_ne!(payload, good);
        let found = [candidate(&key.bundle(&payload))];
        assert_eq!(
            reason(&trust, &built, &found),
            Reason::SignatureInvalid,
            "{to}"
        );
    }
    let bundle = key.bundle(&good).to_string();
    let doubled = bundle.replacen(
        "\"payloadType\"",
        "\"payloadType\":\"x\",\"payloadType\"",
        1,
    );
    let found = [raw_candidate(doubled.into_bytes())];
    assert_eq!(reason(&trust, &built, &found), Reason::SignatureInvalid);
}

#[test]
fn an_old_payload_of_other_type_digest_or_with_doubled_keys_is_refused() {
    let (_dir, built) = package();
    let key = Key::new();
    let trust = trust(&[&key], 1, "");
    let good = json!({
        "critical": {
            "identity": {"docker-reference": "registry.example.com/models/digits"},
            "image": {"docker-manifest-digest": built.digest},
            "type": "cosign container image signature",
        },
        "optional": null,
    })
    .to_string();
    check(&trust, &built, &[key.simple(&good)]).unwrap();
    for (from, to, expected) in [
        (
            "cosign container image signature",
            "cosign container image",
            Reason::SignatureOfOtherContent,
        ),
        (
            &*built.digest.hex(),
            &*"ab".repeat(32),
            Reason::SignatureOfOtherContent,
        ),
        (
            "\"type\"",
            "\"type\":\"x\",\"type\"",
            Reason::SignatureInvalid,
        ),
        (
            "\"type\"",
            "\"Type\":\"x\",\"type\"",
            Reason::SignatureInvalid,
        ),
        ("\"type\"", "\"Type\"", Reason::SignatureInvalid),
        (
            "\"image\"",
            "\"Image\":{},\"image\"",
            Reason::SignatureInvalid,
        ),
    ] {
        let payload = good.replacen(from, to, 1);
        assert_ne!(payload, good);
        assert_eq!(
            reason(&trust, &built, &[key.simple(&payload)]),
            expected,
            "{to}"
        );
    }
}

#[test]
fn zero_or_two_signatures_in_an_envelope_are_refused() {
    let refusal = tampered(|bundle| bundle["dsseEnvelope"]["signatures"] = json!([]));
    assert!(refusal.to_string().contains("exactly 1"), "{refusal}");
    let refusal = tampered(|bundle| {
        let one = bundle["dsseEnvelope"]["signatures"][0].clone();
        bundle["dsseEnvelope"]["signatures"] = json!([one, one]);
    });
    assert!(refusal.to_string().contains("has 2"), "{refusal}");
}

#[test]
fn another_payload_type_bundle_type_or_message_signature_is_refused() {
    let refusal =
        tampered(|bundle| bundle["dsseEnvelope"]["payloadType"] = Value::from("application/json"));
    assert!(refusal.to_string().contains("payloadType"), "{refusal}");
    let refusal = tampered(|bundle| {
        bundle["mediaType"] = Value::from("application/vnd.dev.sigstore.bundle.v0.4+json");
    });
    assert_eq!(refusal.reason(), Reason::SignatureFormatUnsupported);
    let refusal = tampered(|bundle| bundle["messageSignature"] = json!({}));
    assert_eq!(refusal.reason(), Reason::SignatureInvalid);
    let refusal = tampered(|bundle| {
        bundle.as_object_mut().unwrap().remove("dsseEnvelope");
    });
    assert_eq!(refusal.reason(), Reason::SignatureInvalid);
}

#[test]
fn certificate_material_is_refused_with_and_without_a_key_hint() {
    for field in ["certificate", "x509CertificateChain"] {
        let refusal =
            tampered(|bundle| bundle["verificationMaterial"][field] = json!({"rawBytes": "AAAA"}));
        assert_eq!(
            refusal.reason(),
            Reason::SignatureFormatUnsupported,
            "{field}"
        );
        let refusal = tampered(|bundle| {
            bundle["verificationMaterial"] = json!({field: {"rawBytes": "AAAA"}});
        });
        assert_eq!(
            refusal.reason(),
            Reason::SignatureFormatUnsupported,
            "{field}"
        );
    }
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
fn bad_signatures_never_hide_a_good_one_and_only_the_first_32_are_looked_at() {
    let (_dir, built) = package();
    let key = Key::new();
    let trust = trust(&[&key], 1, "");
    let junk = || raw_candidate(b"{".to_vec());
    let mut found: Vec<_> = (0..31).map(|_| junk()).collect();
    found.push(key.sign(built.digest));
    check(&trust, &built, &found).unwrap();
    found.insert(0, junk());
    let refusal = check(&trust, &built, &found).unwrap_err();
    assert!(refusal.candidates().len() <= 8);
    assert!(refusal.to_string().len() < 8192);
}

#[test]
fn a_candidate_over_its_limit_or_deeply_nested_is_refused() {
    let (_dir, built) = package();
    let key = Key::new();
    let trust = trust(&[&key], 1, "");
    let mut long = key.sign(built.digest);
    long.bytes.resize(300 << 10, b' ');
    assert_eq!(reason(&trust, &built, &[long]), Reason::SignatureInvalid);
    let deep = raw_candidate("[".repeat(100_000).into_bytes());
    assert_eq!(reason(&trust, &built, &[deep]), Reason::SignatureInvalid);
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
