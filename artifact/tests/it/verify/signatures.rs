//! Envelopes, bundles, statements and payloads: what is signed, and how it is written.

use rimward_artifact::Limits;
use rimward_artifact::hash::sha256;
use rimward_artifact::verify::{Reason, verify_package};
use serde_json::{Value, json};

use super::{check, reason, signed_statement, tampered};
use crate::support::{Key, candidate, package, raw_candidate, repository, statement, trust};

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
