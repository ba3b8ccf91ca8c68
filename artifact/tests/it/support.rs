//! A small package, and keys that sign as cosign v3 does.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rimward_artifact::package::{self, BuiltPackage};
use rimward_artifact::reference::Repository;
use rimward_artifact::registry::BlobSource;
use rimward_artifact::trust::{PublicKey, TrustFile};
use rimward_artifact::verify::{CandidateFormat, SignatureCandidate, SignatureSource};
use rimward_artifact::{Digest, Limits};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::{Value, json};

pub(crate) const YAML: &str = r#"
apiVersion: rimward.dev/v1alpha1
kind: Package
family: digits
version: 1.0.0
releaseCounter: 3
module: {file: module.wasm, stateless: true}
variants:
- {name: fp32, file: weights/model.onnx, format: onnx, precision: fp32, requires: {backends: [rten]}}
inputs: [{name: image, datatype: UINT8, shape: [-1, 2]}]
outputs: [{name: label, datatype: INT64, shape: [-1]}]
goldenVectors: {file: golden.json}
metrics: [{name: accuracy, value: "0.981", dataset: held-out}]
lineage: {parent: digits 0.9.0, relation: RetrainedFrom}
"#;

pub(crate) const GOLDEN: &str = r#"{"vectors":[{
  "inputs":[{"name":"image","datatype":"UINT8","shape":[1,2],"data":[0,255]}],
  "outputs":[{"name":"label","datatype":"INT64","shape":[1],"data":[7]}]}]}"#;

/// Writes the folder of a small package.
pub(crate) fn write_folder(dir: &Path) {
    std::fs::create_dir_all(dir.join("weights")).unwrap();
    std::fs::write(dir.join("rimward.yaml"), YAML).unwrap();
    std::fs::write(dir.join("golden.json"), GOLDEN).unwrap();
    std::fs::write(dir.join("module.wasm"), b"\0asm\x01\0\0\0").unwrap();
    let weights: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
    std::fs::write(dir.join("weights/model.onnx"), weights).unwrap();
}

/// A small package. Its folder lives as long as the first value.
pub(crate) fn package() -> (tempfile::TempDir, BuiltPackage) {
    let dir = tempfile::tempdir().unwrap();
    write_folder(dir.path());
    let built = package::build(dir.path(), &Limits::default()).unwrap();
    (dir, built)
}

/// The bytes of one blob.
pub(crate) fn bytes(source: &BlobSource) -> Vec<u8> {
    match source {
        BlobSource::Bytes(bytes) => bytes.to_vec(),
        BlobSource::File(path) => std::fs::read(path).unwrap(),
    }
}

pub(crate) fn config_bytes(built: &BuiltPackage) -> Vec<u8> {
    bytes(&built.blobs[1].source)
}

pub(crate) fn repository() -> Repository {
    "registry.example.com/models/digits".parse().unwrap()
}

/// A P-256 key pair.
pub(crate) struct Key {
    pair: EcdsaKeyPair,
    pub(crate) pem: String,
    pub(crate) id: Digest,
}

impl Key {
    pub(crate) fn new() -> Self {
        let random = SystemRandom::new();
        let algorithm = &ECDSA_P256_SHA256_ASN1_SIGNING;
        let document = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), &random).unwrap();
        let prefix = "3059301306072a8648ce3d020106082a8648ce3d030107034200";
        let mut der: Vec<u8> = (0..prefix.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&prefix[at..at + 2], 16).unwrap())
            .collect();
        der.extend_from_slice(pair.public_key().as_ref());
        let id = PublicKey::from_der(&der).unwrap().id();
        let body = STANDARD.encode(der);
        let pem = format!("-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----\n");
        Self { pair, pem, id }
    }

    /// A bundle around any payload.
    pub(crate) fn bundle(&self, payload: &str) -> Value {
        let payload_type = "application/vnd.in-toto+json";
        let signed = format!(
            "DSSEv1 {} {payload_type} {} {payload}",
            payload_type.len(),
            payload.len()
        );
        let signature = self
            .pair
            .sign(&SystemRandom::new(), signed.as_bytes())
            .unwrap();
        json!({
            "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
            "verificationMaterial": {"publicKey": {"hint": STANDARD.encode(self.id.as_bytes())}},
            "dsseEnvelope": {
                "payload": STANDARD.encode(payload),
                "payloadType": payload_type,
                "signatures": [{"sig": STANDARD.encode(signature)}],
            },
        })
    }

    /// A payload signed as cosign v1 and v2 do.
    pub(crate) fn simple(&self, payload: &str) -> SignatureCandidate {
        let signature = self
            .pair
            .sign(&SystemRandom::new(), payload.as_bytes())
            .unwrap();
        SignatureCandidate {
            format: CandidateFormat::SimpleSigning {
                signature: STANDARD.encode(signature),
            },
            source: SignatureSource::SignatureTag,
            bytes: payload.as_bytes().to_vec(),
        }
    }

    /// A good signature of that digest.
    pub(crate) fn sign(&self, digest: Digest) -> SignatureCandidate {
        candidate(&self.bundle(&statement(digest).to_string()))
    }
}

/// What cosign v3 signs.
pub(crate) fn statement(digest: Digest) -> Value {
    json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"digest": {"sha256": digest.hex()}, "annotations": {}}],
        "predicateType": "https://sigstore.dev/cosign/sign/v1",
        "predicate": {},
    })
}

pub(crate) fn candidate(bundle: &Value) -> SignatureCandidate {
    raw_candidate(bundle.to_string().into_bytes())
}

pub(crate) fn raw_candidate(bytes: Vec<u8>) -> SignatureCandidate {
    SignatureCandidate {
        format: CandidateFormat::SigstoreBundleV03,
        source: SignatureSource::Referrers,
        bytes,
    }
}

/// A trust file with one authority for everything on registry.example.com and on this machine's `host`.
pub(crate) fn trust_file(keys: &[&str], threshold: usize, host: &str, more: &str) -> TrustFile {
    let mut text = format!(
        "apiVersion: rimward.dev/v1alpha1\nkind: TrustFile\nauthorities:\n- name: acme\n  threshold: {threshold}\n  \
         repositories: [registry.example.com/models/**, \"{host}/**\"]\n  keys:\n"
    );
    for (index, pem) in keys.iter().enumerate() {
        text.push_str(&format!("  - name: key-{index}\n    pem: |\n"));
        for line in pem.lines() {
            text.push_str(&format!("      {line}\n"));
        }
    }
    text.push_str(more);
    TrustFile::parse(text.as_bytes()).unwrap()
}

pub(crate) fn trust(keys: &[&Key], threshold: usize, more: &str) -> TrustFile {
    let pems: Vec<&str> = keys.iter().map(|key| key.pem.as_str()).collect();
    trust_file(&pems, threshold, "localhost", more)
}
