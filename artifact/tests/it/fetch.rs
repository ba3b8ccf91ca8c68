//! Fetching and verifying against a registry: what is asked for, in which order, and what floods do.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use rimward_artifact::fetch::{self, FetchError, Fetched};
use rimward_artifact::reference::Reference;
use rimward_artifact::registry::Client;
use rimward_artifact::trust::TrustFile;
use rimward_artifact::verify::{Disposition, Reason, SignatureSet, Stored, verify_stored};
use rimward_artifact::{Digest, Limits};
use serde_json::json;

use crate::server::{
    Answer, Server, Via, attach, client, content, dripping, endless, full, with_header,
};
use crate::sink::Memory;
use crate::support::{Key, package, raw_candidate, trust_file};

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
    let stored = SignatureSet {
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
async fn an_odd_entry_in_a_listing_is_dropped_alone() {
    let (_dir, built) = package();
    let key = Key::new();
    for via in [Via::Referrers, Via::Tag] {
        let mut content = content(&built);
        attach(&mut content, built.digest, &[key.sign(built.digest)], via);
        let listing = content
            .values_mut()
            .find(|bytes| String::from_utf8_lossy(bytes).contains(r#""manifests":["#))
            .unwrap();
        let text = String::from_utf8(listing.clone()).unwrap();
        let digest = rimward_artifact::hash::sha256(b"other");
        let odd = [
            json!({"digest": format!("sha512:{}", "0".repeat(128)), "size": 2}).to_string(),
            json!({"digest": digest, "annotations": {"n": 1}}).to_string(),
            format!(r#"{{"digest": "{digest}", "annotations": {{"n": "1", "N": "2"}}}}"#),
            json!({"digest": digest, "artifactType": [["x"]]}).to_string(),
            "null, 7, [], {}".to_owned(),
        ];
        let odd = format!(r#""manifests":[{},"#, odd.join(","));
        *listing = text.replacen(r#""manifests":["#, &odd, 1).into_bytes();
        let server = Server::start(content, nothing).await;
        let trust = trusting(&key, &server);
        fetch_with(&client(|_| {}), &server, &trust, built.digest)
            .await
            .unwrap();
    }
}

/// Answers the referrers API in pages: empty ones first, then the whole listing on page `last`, then empty ones.
async fn paged(last: usize, link: fn(usize) -> String) -> (Server, Result<Fetched, FetchError>) {
    let (_dir, built) = package();
    let key = Key::new();
    let mut content = content(&built);
    let signature = key.sign(built.digest);
    attach(&mut content, built.digest, &[signature], Via::Referrers);
    let path = format!("models/digits/referrers/{}", built.digest);
    let listing = content.remove(&path).unwrap();
    let server = Server::start(content, move |seen, _| {
        let (_, query) = seen.path.split_once(&path)?;
        let page = query
            .strip_prefix("?page=")
            .map_or(1, |n| n.parse().unwrap());
        let body = if page == last {
            listing.clone()
        } else {
            br#"{"manifests":[]}"#.to_vec()
        };
        Some(with_header(full(200, body), "link", &link(page + 1)))
    })
    .await;
    let trust = trusting(&key, &server);
    let fetched = fetch_with(&client(|_| {}), &server, &trust, built.digest).await;
    (server, fetched)
}

#[tokio::test]
async fn a_signature_on_a_later_page_of_the_listing_is_found_up_to_page_8() {
    let link = |page| format!("<?page={page}>; rel=\"next\"");
    let (server, fetched) = paged(8, link).await;
    fetched.unwrap();
    assert_eq!(server.asked("/referrers/"), 8);
    let (server, fetched) = paged(9, link).await;
    assert_eq!(fetched.unwrap_err().reason(), "SignatureMissing");
    assert_eq!(
        server.asked("/referrers/"),
        8,
        "a listing without end is left"
    );
}

#[tokio::test]
async fn a_listing_goes_on_only_in_its_own_repository_on_its_own_registry() {
    for link in [
        |_| "<http://127.0.0.1:9/v2/models/digits/referrers/x?page=2>; rel=\"next\"".to_owned(),
        |_| "</v2/models/other/referrers/x?page=2>; rel=\"next\"".to_owned(),
        |_| "<?page=2>; rel=\"prev\"".to_owned(),
        |_| "?page=2".to_owned(),
    ] as [fn(usize) -> String; 4]
    {
        let (server, fetched) = paged(2, link).await;
        assert_eq!(fetched.unwrap_err().reason(), "SignatureMissing");
        assert_eq!(server.asked("page=2"), 0);
    }
}

#[tokio::test]
async fn of_31_large_junk_signatures_and_a_good_one_only_the_good_one_is_kept() {
    let (_dir, built) = package();
    let key = Key::new();
    let mut content = content(&built);
    let mut found: Vec<_> = (0..30_u8)
        .map(|index| raw_candidate(vec![index; 256 << 10]))
        .collect();
    // A good one that somebody padded is not kept either where the original is there.
    let good = key.sign(built.digest);
    let mut padded = good.clone();
    padded.bytes.resize(256 << 10, b' ');
    found.extend([padded, good.clone()]);
    attach(&mut content, built.digest, &found, Via::Referrers);
    let server = Server::start(content, nothing).await;
    let trust = trusting(&key, &server);
    let fetched = fetch_with(&client(|_| {}), &server, &trust, built.digest)
        .await
        .unwrap();
    assert_eq!(fetched.signatures.candidates, [good]);
    let signatures = fetched.signatures.to_bytes();
    assert!(signatures.len() < 4096, "{} bytes", signatures.len());
    let stored = Stored {
        manifest: &fetched.manifest_bytes,
        signatures: &signatures,
        config: &fetched.config_bytes,
    };
    let (limits, repository) = (Limits::default(), server.repository());
    verify_stored(&trust, &limits, &repository, built.digest, stored, 0).unwrap();
    // A set that an earlier release stored whole shrinks with the next fetch.
    let stored = Some(SignatureSet { candidates: found });
    let again = fetch::package(
        &client(|_| {}),
        &trust,
        &limits,
        &repository,
        built.digest,
        stored,
        0,
    )
    .await
    .unwrap();
    assert_eq!(again.signatures, fetched.signatures);
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
