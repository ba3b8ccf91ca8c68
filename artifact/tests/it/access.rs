//! Who sees a credential: token realms, redirects and challenges that point elsewhere.

use rimward_artifact::registry::{BlobSource, ClientError, ClientOptions, Credential};

use crate::server::{Content, Server, client, full, with_header};
use crate::sink::{Memory, impatient, weight_bytes, weights};
use crate::support::package;

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
async fn a_password_that_the_token_realm_refuses_is_access_denied() {
    let (_dir, built) = package();
    for status in [401, 403] {
        let server = Server::start(Content::new(), move |seen, _| {
            if seen.path.starts_with("/token") {
                return Some(full(status, ""));
            }
            let challenge = format!("Bearer realm=\"http://{}/token\"", seen.host);
            Some(with_header(full(401, ""), "www-authenticate", &challenge))
        })
        .await;
        let host = server.address.to_string();
        let client = client(|options| with_credential(options, &host));
        let error = client
            .manifest(&server.repository(), built.digest, 1 << 20)
            .await
            .unwrap_err();
        assert_eq!(error.category(), "RegistryAccessDenied", "{error}");
        let words = error.to_string();
        assert!(
            words.ends_with(&format!("credentials for {host}: given")),
            "{words}"
        );
        assert!(!words.contains("secret"), "{words}");
        assert_eq!(server.asked("/token"), 1, "not tried again and again");
    }
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
