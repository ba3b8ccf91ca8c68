use futures::FutureExt as _;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::ListParams;
use serde_json::json;

use super::*;
use crate::testing;

/// A hub that takes one token.
fn hub(token: &'static str) -> String {
    testing::serve(move |asked| {
        let taken = asked.authorization == format!("Bearer {token}");
        let answer = if taken {
            (
                200,
                json!({"kind": "ConfigMapList", "apiVersion": "v1", "metadata": {}, "items": []}),
            )
        } else {
            testing::refusal(401, "Unauthorized")
        };
        async move { Some(answer) }.boxed()
    })
}

fn kubeconfig(uri: &str, user: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Config, current-context: a, contexts: [{{name: a, context: {{cluster: a, user: a}}}}], \
         clusters: [{{name: a, cluster: {{server: '{uri}'}}}}], users: [{{name: a, user: {{{user}}}}}]}}"
    )
}

async fn check(client: &Client) -> Result<(), kube::Error> {
    let maps: Api<ConfigMap> = Api::all(client.clone());
    maps.list(&ListParams::default()).await.map(|_| ())
}

struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile::tempdir().unwrap();
        Self { folder }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("kubeconfig")
    }

    fn write(&self, text: &str) {
        std::fs::write(self.path(), text).unwrap();
    }
}

#[tokio::test]
async fn a_credential_that_is_rotated_is_taken_over_once_the_hub_refuses_the_old_one() {
    let place = Place::new();
    let uri = hub("new");
    place.write(&kubeconfig(&uri, "token: old"));
    let access = HubAccess::open(&place.path()).await.unwrap();
    let client = access.client();
    let shutdown = CancellationToken::new();
    let follow = tokio::spawn(access.clone().follow(shutdown.clone()));
    assert!(check(&client).await.is_err());
    tokio::time::sleep(LOOK_SHORTEST).await;
    place.write(&kubeconfig(&uri, "token: new"));
    let began = std::time::Instant::now();
    while check(&client).await.is_err() {
        assert!(began.elapsed() < LOOK, "a refusal makes it look at once");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    shutdown.cancel();
    follow.await.unwrap();
}

#[tokio::test]
async fn a_file_that_cannot_be_used_changes_nothing_and_another_hub_is_taken_over() {
    let place = Place::new();
    place.write(&kubeconfig(&hub("one"), "token: one"));
    let access = HubAccess::open(&place.path()).await.unwrap();
    let client = access.client();
    check(&client).await.unwrap();
    assert!(!access.look().await.unwrap());
    place.write("{half: ");
    assert!(access.look().await.is_err());
    check(&client).await.unwrap();
    place.write(&kubeconfig(&hub("two"), "token: two"));
    assert!(access.look().await.unwrap());
    check(&client).await.unwrap();
}

#[tokio::test]
async fn files_that_the_kubeconfig_names_are_read_again_as_well() {
    let place = Place::new();
    let token = place.folder.path().join("token");
    std::fs::write(&token, "old").unwrap();
    place.write(&kubeconfig(&hub("new"), "tokenFile: token"));
    let access = HubAccess::open(&place.path()).await.unwrap();
    let client = access.client();
    assert!(check(&client).await.is_err());
    std::fs::write(&token, "new").unwrap();
    assert!(access.look().await.unwrap());
    check(&client).await.unwrap();
}
