//! Registries that cut, lie about ranges, stall and never end.

use std::sync::{Arc, Mutex};

use rimward_artifact::registry::ClientError;

use crate::server::{Content, Server, client, content, cut, dripping, endless, full, with_header};
use crate::sink::{Memory, impatient, weight_bytes, weights};
use crate::support::package;
use std::time::Duration;

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
    let server = Server::start(content(&built), |_, _| None).await;
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
async fn other_bytes_under_a_digest_are_refused() {
    let (_dir, built) = package();
    let server = Server::start(Content::new(), |_, _| Some(full(200, "{}"))).await;
    let error = client(|_| {})
        .manifest(&server.repository(), built.digest, 1 << 20)
        .await
        .unwrap_err();
    assert!(matches!(error, ClientError::Digest { .. }), "{error}");
}
