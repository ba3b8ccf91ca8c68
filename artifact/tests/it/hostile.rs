//! Registries that lie, stall, flood and point elsewhere.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rimward_artifact::fetch::{self, FetchError, Fetched};
use rimward_artifact::hash::Hasher;
use rimward_artifact::manifest::Descriptor;
use rimward_artifact::package::BuiltPackage;
use rimward_artifact::reference::Reference;
use rimward_artifact::registry::{
    BlobSink, BlobSource, Client, ClientError, ClientOptions, Credential, Opened,
};
use rimward_artifact::trust::TrustFile;
use rimward_artifact::verify::{Disposition, Reason};
use rimward_artifact::{Digest, Limits};
use serde_json::json;

use crate::server::{
    Answer, Content, Server, Via, attach, client, content, cut, dripping, endless, full,
    with_header,
};
use crate::support::{Key, bytes, package, raw_candidate, trust_file};

/// Keeps blobs in memory, and partial ones across tries, as a device's store does on disk.
#[derive(Debug, Default)]
struct Memory {
    partial: BTreeMap<Digest, Vec<u8>>,
    whole: BTreeMap<Digest, Vec<u8>>,
    discarded: usize,
    open: Option<Digest>,
}

impl BlobSink for Memory {
    async fn open(&mut self, blob: &Descriptor) -> io::Result<Opened> {
        if self.whole.contains_key(&blob.digest) {
            return Ok(Opened::Complete);
        }
        self.open = Some(blob.digest);
        let mut hasher = Hasher::new();
        hasher.update(self.partial.entry(blob.digest).or_default());
        Ok(Opened::Partial(hasher))
    }

    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let open = self.open.unwrap();
        self.partial
            .get_mut(&open)
            .unwrap()
            .extend_from_slice(bytes);
        Ok(())
    }

    async fn commit(&mut self, blob: &Descriptor) -> io::Result<()> {
        let bytes = self.partial.remove(&blob.digest).unwrap();
        self.whole.insert(blob.digest, bytes);
        Ok(())
    }

    async fn discard(&mut self, blob: &Descriptor) -> io::Result<()> {
        self.partial.remove(&blob.digest);
        self.discarded += 1;
        Ok(())
    }
}

fn weights(built: &BuiltPackage) -> Descriptor {
    let blob = built.blobs.last().unwrap();
    Descriptor {
        media_type: blob.media_type,
        digest: blob.digest,
        size_bytes: blob.size_bytes,
    }
}

fn weight_bytes(built: &BuiltPackage) -> Vec<u8> {
    bytes(&built.blobs.last().unwrap().source)
}

fn trusting(key: &Key, server: &Server) -> TrustFile {
    trust_file(&[&key.pem], 1, &server.address.to_string(), "")
}

async fn fetch_with(
    client: &Client,
    server: &Server,
    trust: &TrustFile,
    digest: Digest,
) -> Result<Fetched, FetchError> {
    fetch::package(
        client,
        trust,
        &Limits::default(),
        &server.repository(),
        digest,
        None,
        0,
    )
    .await
}

fn nothing(_: &crate::server::Seen, _: usize) -> Option<Answer> {
    None
}

#[tokio::test]
async fn a_signed_package_is_fetched_whole_through_the_referrers_api_or_the_tag() {
    let (_dir, built) = package();
    let key = Key::new();
    for via in [Via::Referrers, Via::Tag] {
        let mut content = content(&built);
        attach(&mut content, built.digest, &[key.sign(built.digest)], via);
        let server = Server::start(content, nothing).await;
        let client = client(|_| {});
        let fetched = fetch_with(&client, &server, &trusting(&key, &server), built.digest)
            .await
            .unwrap();
        assert_eq!(
            server.asked(&built.blobs.last().unwrap().digest.to_string()),
            0,
            "before layers"
        );
        let mut sink = Memory::default();
        fetch::layers(&client, &fetched.manifest, &mut sink)
            .await
            .unwrap();
        assert_eq!(sink.whole.len(), built.blobs.len());
        for (digest, bytes) in &sink.whole {
            assert_eq!(rimward_artifact::hash::sha256(bytes), *digest);
        }
    }
}

#[tokio::test]
async fn nothing_but_the_manifest_is_fetched_of_an_unsigned_package() {
    let (_dir, built) = package();
    let server = Server::start(content(&built), nothing).await;
    let error = fetch_with(
        &client(|_| {}),
        &server,
        &trusting(&Key::new(), &server),
        built.digest,
    )
    .await
    .unwrap_err();
    assert_eq!(error.reason(), "SignatureMissing");
    assert_eq!(error.disposition(), Disposition::Blocked);
    assert_eq!(server.asked("/blobs/"), 0);
}

#[tokio::test]
async fn stored_signatures_are_enough_where_the_registry_has_none_any_more() {
    let (_dir, built) = package();
    let key = Key::new();
    let server = Server::start(content(&built), nothing).await;
    let stored = rimward_artifact::verify::SignatureSet {
        candidates: vec![key.sign(built.digest)],
    };
    let trust = trusting(&key, &server);
    let limits = Limits::default();
    fetch::package(
        &client(|_| {}),
        &trust,
        &limits,
        &server.repository(),
        built.digest,
        Some(stored),
        0,
    )
    .await
    .unwrap();
    assert_eq!(server.asked("/referrers/"), 0);
}

#[tokio::test]
async fn a_tag_that_moves_after_resolving_changes_nothing() {
    let (_dir, built) = package();
    let mut moved = content(&built);
    let first = moved["models/digits/manifests/v1"].clone();
    moved.insert("models/digits/manifests/v1".to_owned(), b"{}".to_vec());
    let server = Server::start(moved, move |seen, _| {
        let first_ask = seen.path.ends_with("/manifests/v1");
        first_ask.then(|| full(200, first.clone()))
    })
    .await;
    let client = client(|_| {});
    let reference: Reference = format!("{}:v1", server.repository()).parse().unwrap();
    let digest = client.resolve(&reference).await.unwrap();
    assert_eq!(digest, built.digest);
    let bytes = client
        .manifest(&server.repository(), digest, 1 << 20)
        .await
        .unwrap();
    assert_eq!(bytes, built.manifest_bytes);
}

#[tokio::test]
async fn other_bytes_under_a_digest_are_refused() {
    let (_dir, built) = package();
    let server = Server::start(Content::new(), |_, _| Some(full(200, "{}"))).await;
    let error = client(|_| {})
        .manifest(&server.repository(), built.digest, 1 << 20)
        .await
        .unwrap_err();
    assert!(matches!(error, ClientError::Digest { .. }), "{error}");
}

#[tokio::test]
async fn an_endless_manifest_is_cut_off_at_its_limit() {
    let (_dir, built) = package();
    let sent = Arc::new(Mutex::new(0));
    let counter = sent.clone();
    let server = Server::start(Content::new(), move |_, _| Some(endless(&counter))).await;
    let error = client(|_| {})
        .manifest(&server.repository(), built.digest, 1 << 20)
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            ClientError::TooLarge {
                limit: 1_048_576,
                ..
            }
        ),
        "{error}"
    );
    // What fits the sockets' buffers may have been handed out, no more.
    assert!(*sent.lock().unwrap() < 64 << 20);
}

#[tokio::test]
async fn a_blob_longer_than_declared_is_refused_and_the_sink_gets_no_byte_too_many() {
    let (_dir, built) = package();
    let blob = weights(&built);
    let sent = Arc::new(Mutex::new(0));
    let counter = sent.clone();
    let server = Server::start(Content::new(), move |_, _| Some(endless(&counter))).await;
    let mut sink = Memory::default();
    let error = client(|_| {})
        .blob_to(&server.repository(), &blob, &mut sink)
        .await
        .unwrap_err();
    assert!(matches!(error, ClientError::TooLarge { .. }), "{error}");
    assert!(sink.whole.is_empty());
    assert!(sink.partial[&blob.digest].len() as u64 <= blob.size_bytes);
}

#[tokio::test]
async fn a_cut_download_goes_on_where_it_stopped() {
    let (_dir, built) = package();
    let (blob, all) = (weights(&built), weight_bytes(&built));
    let server = Server::start(Content::new(), move |seen, before| {
        let half = all.len() / 2;
        Some(match (&seen.range, before) {
            (None, 0) => cut(200, all.len(), all[..half].to_vec()),
            (Some(range), _) => {
                let from: usize = range
                    .trim_start_matches("bytes=")
                    .trim_end_matches('-')
                    .parse()
                    .unwrap();
                let answer = full(206, all[from..].to_vec());
                with_header(
                    answer,
                    "content-range",
                    &format!("bytes {from}-{}/{}", all.len() - 1, all.len()),
                )
            }
            _ => full(500, ""),
        })
    })
    .await;
    let client = client(|options| options.pace.retries_max = 3);
    let mut sink = Memory::default();
    client
        .blob_to(&server.repository(), &blob, &mut sink)
        .await
        .unwrap();
    assert_eq!(sink.whole[&blob.digest], weight_bytes(&built));
    assert!(server.seen().last().unwrap().range.is_some());
}

#[tokio::test]
async fn a_registry_without_ranges_sends_all_again_and_nothing_is_taken_twice() {
    let (_dir, built) = package();
    let (blob, all) = (weights(&built), weight_bytes(&built));
    let server = Server::start(content(&built), nothing).await;
    let mut sink = Memory::default();
    sink.partial.insert(blob.digest, all[..1000].to_vec());
    client(|_| {})
        .blob_to(&server.repository(), &blob, &mut sink)
        .await
        .unwrap();
    assert_eq!(sink.whole[&blob.digest], all);
}

#[tokio::test]
async fn a_lying_content_range_is_refused() {
    let (_dir, built) = package();
    let (blob, all) = (weights(&built), weight_bytes(&built));
    let size = all.len();
    for lie in [
        format!("bytes 0-{}/{size}", size - 1),
        format!("bytes 1001-{}/{size}", size - 1),
        format!("bytes 1000-{}/{}", size, size + 1),
        format!("bytes 1000-{}/*", size - 1),
        "nonsense".to_owned(),
        String::new(),
    ] {
        let rest = all[1000..].to_vec();
        let header = lie.clone();
        let server = Server::start(Content::new(), move |_, _| {
            let answer = full(206, rest.clone());
            Some(if header.is_empty() {
                answer
            } else {
                with_header(answer, "content-range", &header)
            })
        })
        .await;
        let mut sink = Memory::default();
        sink.partial.insert(blob.digest, all[..1000].to_vec());
        let error = client(|_| {})
            .blob_to(&server.repository(), &blob, &mut sink)
            .await
            .unwrap_err();
        assert!(
            matches!(error, ClientError::Refused { .. }),
            "{lie}: {error}"
        );
        assert!(sink.whole.is_empty());
    }
}

#[tokio::test]
async fn a_flipped_bit_in_a_blob_throws_it_away() {
    let (_dir, built) = package();
    let blob = weights(&built);
    let mut all = weight_bytes(&built);
    all[123_456] ^= 1;
    let server = Server::start(Content::new(), move |_, _| Some(full(200, all.clone()))).await;
    let mut sink = Memory::default();
    let error = client(|_| {})
        .blob_to(&server.repository(), &blob, &mut sink)
        .await
        .unwrap_err();
    assert!(matches!(error, ClientError::Digest { .. }), "{error}");
    assert_eq!(
        (sink.discarded, sink.whole.len(), sink.partial.len()),
        (1, 0, 0)
    );
}

fn impatient(options: &mut ClientOptions) {
    options.pace.rate_window = Duration::from_secs(1);
    options.pace.bytes_per_second_min = 100;
    options.pace.response_timeout = Duration::from_secs(2);
}

#[tokio::test]
async fn a_body_in_drops_is_given_up() {
    let (_dir, built) = package();
    let server = Server::start(Content::new(), |_, _| {
        Some(dripping(Duration::from_millis(300)))
    })
    .await;
    let client = client(impatient);
    let error = client
        .manifest(&server.repository(), built.digest, 1 << 20)
        .await
        .unwrap_err();
    assert!(matches!(error, ClientError::TooSlow { .. }), "{error}");
    let mut sink = Memory::default();
    let error = client
        .blob_to(&server.repository(), &weights(&built), &mut sink)
        .await
        .unwrap_err();
    assert!(matches!(error, ClientError::TooSlow { .. }), "{error}");
}

#[tokio::test]
async fn a_server_that_never_answers_is_given_up() {
    let (_dir, built) = package();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let repository = format!("{}/models/digits", listener.local_addr().unwrap())
        .parse()
        .unwrap();
    let error = client(impatient)
        .manifest(&repository, built.digest, 1 << 20)
        .await
        .unwrap_err();
    assert!(matches!(error, ClientError::Timeout { .. }), "{error}");
}

#[tokio::test]
async fn ten_thousand_signatures_cost_at_most_32_looks_and_the_answer_stays_blocked() {
    let (_dir, built) = package();
    let mut content = content(&built);
    let entries: Vec<_> = (0..10_000_u32)
        .map(|index| json!({"digest": rimward_artifact::hash::sha256(&index.to_le_bytes()), "size": 500}))
        .collect();
    let index = json!({"schemaVersion": 2, "manifests": entries})
        .to_string()
        .into_bytes();
    content.insert(format!("models/digits/referrers/{}", built.digest), index);
    let server = Server::start(content, nothing).await;
    let error = fetch_with(
        &client(|_| {}),
        &server,
        &trusting(&Key::new(), &server),
        built.digest,
    )
    .await
    .unwrap_err();
    assert_eq!(error.reason(), "SignatureMissing");
    // The package's manifest, 32 candidates and the two tags.
    assert!(
        server.asked("/manifests/") <= 35,
        "{}",
        server.asked("/manifests/")
    );
}

#[tokio::test]
async fn a_good_signature_among_bad_ones_is_found() {
    let (_dir, built) = package();
    let key = Key::new();
    let mut content = content(&built);
    let mut found: Vec<_> = (0..20_u8).map(|index| raw_candidate(vec![index])).collect();
    found.push(key.sign(built.digest));
    attach(&mut content, built.digest, &found, Via::Referrers);
    let server = Server::start(content, nothing).await;
    fetch_with(
        &client(|_| {}),
        &server,
        &trusting(&key, &server),
        built.digest,
    )
    .await
    .unwrap();
}

#[tokio::test]
async fn a_signature_of_one_gib_or_without_end_is_passed_over() {
    let (_dir, built) = package();
    let key = Key::new();
    let mut content = content(&built);
    let mut huge = key.sign(built.digest);
    huge.bytes = vec![b' '; 300 << 10];
    let endless_one = raw_candidate(b"to be replaced".to_vec());
    let good = key.sign(built.digest);
    attach(
        &mut content,
        built.digest,
        &[huge.clone(), endless_one.clone(), good],
        Via::Referrers,
    );
    let huge_path = rimward_artifact::hash::sha256(&huge.bytes).to_string();
    let endless_path = rimward_artifact::hash::sha256(&endless_one.bytes).to_string();
    let sent = Arc::new(Mutex::new(0));
    let counter = sent.clone();
    let server = Server::start(content, move |seen, _| {
        seen.path.contains(&endless_path).then(|| endless(&counter))
    })
    .await;
    fetch_with(
        &client(|_| {}),
        &server,
        &trusting(&key, &server),
        built.digest,
    )
    .await
    .unwrap();
    assert_eq!(
        server.asked(&huge_path),
        0,
        "declared too large, so never asked for"
    );
    assert!(*sent.lock().unwrap() < 64 << 20);
}

#[tokio::test]
async fn signatures_are_looked_for_until_one_deadline() {
    let (_dir, built) = package();
    let server = Server::start(content(&built), |seen, _| {
        let signature = seen.path.contains("/referrers/") || seen.path.contains("/sha256-");
        signature.then(|| dripping(Duration::from_millis(100)))
    })
    .await;
    let client = client(|options| options.pace.signatures_deadline = Duration::from_secs(1));
    let trust = trusting(&Key::new(), &server);
    let error = fetch_with(&client, &server, &trust, built.digest)
        .await
        .unwrap_err();
    assert!(
        matches!(error, FetchError::SignaturesUnavailable { .. }),
        "{error}"
    );
    assert_eq!(error.disposition(), Disposition::Blocked);
}

#[tokio::test]
async fn a_source_that_fails_does_not_hide_the_next() {
    let (_dir, built) = package();
    let key = Key::new();
    let mut content = content(&built);
    attach(
        &mut content,
        built.digest,
        &[key.sign(built.digest)],
        Via::Tag,
    );
    let server = Server::start(content, |seen, _| {
        seen.path
            .contains("/referrers/")
            .then(|| full(500, "out of order"))
    })
    .await;
    fetch_with(
        &client(|_| {}),
        &server,
        &trusting(&key, &server),
        built.digest,
    )
    .await
    .unwrap();
}

#[tokio::test]
async fn a_refused_manifest_is_not_looked_up_further() {
    let (_dir, built) = package();
    let server = Server::start(content(&built), nothing).await;
    let limits = Limits {
        weight_bytes_max: 1000,
        ..Limits::default()
    };
    let trust = trusting(&Key::new(), &server);
    let error = fetch::package(
        &client(|_| {}),
        &trust,
        &limits,
        &server.repository(),
        built.digest,
        None,
        0,
    )
    .await
    .unwrap_err();
    assert_eq!(error.reason(), Reason::PackageTooLarge.as_str());
    assert_eq!(server.seen().len(), 1);
}

fn with_credential(options: &mut ClientOptions, host: &str) {
    let credential = Credential {
        username: "user".to_owned(),
        password: "secret".to_owned(),
    };
    options.credentials.insert(host, credential);
}

/// Base64 of `user:secret`.
const BASIC: &str = "Basic dXNlcjpzZWNyZXQ=";

#[tokio::test]
async fn a_token_is_asked_for_at_the_registry_itself_and_used() {
    let (_dir, built) = package();
    let digest = built.digest;
    let manifest = built.manifest_bytes.clone();
    let server = Server::start(Content::new(), move |seen, _| {
        if seen.path.starts_with("/token") {
            assert_eq!(seen.authorization.as_deref(), Some(BASIC));
            assert!(
                seen.path
                    .contains("scope=repository%3Amodels%2Fdigits%3Apull"),
                "{}",
                seen.path
            );
            return Some(full(200, r#"{"token":"t0ken"}"#));
        }
        if seen.authorization.as_deref() == Some("Bearer t0ken") {
            return Some(full(200, manifest.clone()));
        }
        let challenge = format!(
            "Bearer realm=\"http://{}/token\",service=\"registry\"",
            seen.host
        );
        Some(with_header(full(401, ""), "www-authenticate", &challenge))
    })
    .await;
    let host = server.address.to_string();
    let client = client(|options| with_credential(options, &host));
    client
        .manifest(&server.repository(), digest, 1 << 20)
        .await
        .unwrap();
    client
        .manifest(&server.repository(), digest, 1 << 20)
        .await
        .unwrap();
    assert_eq!(server.asked("/token"), 1, "kept for the next request");
}

#[tokio::test]
async fn a_token_realm_on_another_host_gets_nothing() {
    let (_dir, built) = package();
    let thief = Server::start(Content::new(), |_, _| Some(full(200, r#"{"token":"t"}"#))).await;
    let realm = format!("Bearer realm=\"http://{}/token\"", thief.address);
    let server = Server::start(Content::new(), move |_, _| {
        Some(with_header(full(401, ""), "www-authenticate", &realm))
    })
    .await;
    let host = server.address.to_string();
    let careful = client(|options| with_credential(options, &host));
    let error = careful
        .manifest(&server.repository(), built.digest, 1 << 20)
        .await
        .unwrap_err();
    assert!(matches!(error, ClientError::Refused { .. }), "{error}");
    assert!(
        error.to_string().contains("token realm is on another host"),
        "{error}"
    );
    assert!(thief.seen().is_empty());

    // Named by a person, it is asked.
    let named = client(|options| {
        with_credential(options, &host);
        options
            .token_realms
            .insert(host.clone(), thief.address.to_string());
    });
    named
        .manifest(&server.repository(), built.digest, 1 << 20)
        .await
        .unwrap_err();
    assert_eq!(thief.seen().len(), 1);
}

#[tokio::test]
async fn a_redirect_to_another_host_carries_no_credential() {
    let (_dir, built) = package();
    let all = weight_bytes(&built);
    let elsewhere = Server::start(Content::new(), move |_, _| Some(full(200, all.clone()))).await;
    let location = format!("http://{}/blob?signature=abc", elsewhere.address);
    let server = Server::start(Content::new(), move |seen, _| {
        Some(match seen.authorization {
            Some(_) => with_header(full(307, ""), "location", &location),
            None => with_header(
                full(401, ""),
                "www-authenticate",
                "Basic realm=\"registry\"",
            ),
        })
    })
    .await;
    let host = server.address.to_string();
    let client = client(|options| with_credential(options, &host));
    let mut sink = Memory::default();
    client
        .blob_to(&server.repository(), &weights(&built), &mut sink)
        .await
        .unwrap();
    assert_eq!(
        server.seen().last().unwrap().authorization.as_deref(),
        Some(BASIC)
    );
    assert_eq!(elsewhere.seen().len(), 1);
    assert_eq!(elsewhere.seen()[0].authorization, None);
}

#[tokio::test]
async fn a_challenge_from_where_a_redirect_led_is_not_answered() {
    let (_dir, built) = package();
    let thief = Server::start(Content::new(), |_, _| {
        Some(with_header(
            full(401, ""),
            "www-authenticate",
            "Basic realm=\"x\"",
        ))
    })
    .await;
    let location = format!("http://{}/", thief.address);
    let server = Server::start(Content::new(), move |_, _| {
        Some(with_header(full(302, ""), "location", &location))
    })
    .await;
    let (host, thief_host) = (server.address.to_string(), thief.address.to_string());
    let client = client(|options| {
        with_credential(options, &host);
        with_credential(options, &thief_host);
    });
    let error = client
        .manifest(&server.repository(), built.digest, 1 << 20)
        .await
        .unwrap_err();
    assert!(matches!(error, ClientError::Denied { .. }), "{error}");
    assert!(thief.seen().iter().all(|seen| seen.authorization.is_none()));
    assert_eq!(thief.seen().len(), 1);
}

#[tokio::test]
async fn redirects_without_tls_in_circles_or_by_other_schemes_are_refused() {
    let (_dir, built) = package();
    for location in [
        "http://registry.example.com/blob",
        "file:///etc/passwd",
        "gopher://127.0.0.1/",
        "http://user:secret@127.0.0.1/",
        "https://169.254.169.254/latest/",
        "/v2/models/digits/again",
        "http://",
    ] {
        let server = Server::start(Content::new(), move |_, _| {
            Some(with_header(full(302, ""), "location", location))
        })
        .await;
        let outcome = client(impatient)
            .manifest(&server.repository(), built.digest, 1 << 20)
            .await;
        let error = outcome.unwrap_err();
        if location.starts_with("https://169") {
            // This machine may point at its own network; from elsewhere it is refused (unit test of the rule).
            continue;
        }
        assert!(
            matches!(error, ClientError::Refused { .. }),
            "{location}: {error}"
        );
        assert!(server.seen().len() <= 6);
    }
}

#[tokio::test]
async fn a_redirect_of_a_write_is_refused() {
    let (_dir, built) = package();
    let server = Server::start(Content::new(), |seen, _| {
        Some(match seen.method.as_str() {
            "HEAD" => full(404, ""),
            _ => with_header(full(307, ""), "location", "http://127.0.0.1:1/steal"),
        })
    })
    .await;
    let blob = weights(&built);
    let source = BlobSource::Bytes(weight_bytes(&built).into());
    let error = client(|_| {})
        .push_blob(&server.repository(), blob.digest, blob.size_bytes, &source)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("redirect of a write"), "{error}");
}

#[tokio::test]
async fn plain_http_is_spoken_to_this_machine_and_to_named_hosts_only() {
    // Nothing listens there; the refused connection says which scheme was tried.
    let (_dir, built) = package();
    let repository = "registry.invalid/models/digits".parse().unwrap();
    let error = client(|_| {})
        .manifest(&repository, built.digest, 1 << 20)
        .await
        .unwrap_err();
    assert_eq!(error.category(), "RegistryUnreachable");
    assert!(error.is_transient());
}

#[tokio::test]
async fn a_passing_failure_is_tried_again_and_a_lasting_one_is_not() {
    let (_dir, built) = package();
    let manifest = built.manifest_bytes.clone();
    let server = Server::start(Content::new(), move |_, before| {
        Some(if before < 2 {
            full(503, "busy")
        } else {
            full(200, manifest.clone())
        })
    })
    .await;
    let patient = client(|options| options.pace.retries_max = 3);
    patient
        .manifest(&server.repository(), built.digest, 1 << 20)
        .await
        .unwrap();
    assert_eq!(server.seen().len(), 3);

    let server = Server::start(Content::new(), |_, _| Some(full(404, "{}"))).await;
    patient
        .manifest(&server.repository(), built.digest, 1 << 20)
        .await
        .unwrap_err();
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn the_hub_learns_what_a_package_says_and_that_a_foreign_artifact_is_none() {
    let (_dir, built) = package();
    let mut content = content(&built);
    let image = br#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2},"layers":[]}"#;
    let image_digest = rimward_artifact::hash::sha256(image);
    content.insert("models/digits/manifests/image".to_owned(), image.to_vec());
    content.insert(
        format!("models/digits/manifests/{image_digest}"),
        image.to_vec(),
    );
    let server = Server::start(content, nothing).await;
    let client = client(|_| {});
    let inspect = async |tag: &str| {
        let reference: Reference = format!("{}:{tag}", server.repository()).parse().unwrap();
        fetch::inspect(&client, &Limits::default(), &reference).await
    };
    let found = inspect("v1").await.unwrap();
    assert_eq!(found.digest, built.digest);
    assert_eq!(found.config.family.as_str(), "digits");
    let error = inspect("image").await.unwrap_err();
    assert!(error.to_string().contains("artifactType"), "{error}");
    let error = inspect("none").await.unwrap_err();
    assert!(
        error.to_string().ends_with("manifests/none: not found"),
        "{error}"
    );
}
