//! An API client whose credentials are read again: when their files change, and when they are refused.
//!
//! Owns where a client's configuration comes from, and when it is another one: kubeconfigs, certificate authorities
//! and tokens are rotated under a running process. A file that cannot be read just then changes nothing. Must never
//! log or hold in words what it reads.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock, Weak};
use std::task::{Context as TaskContext, Poll};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use futures::future::{BoxFuture, FutureExt as _};
use hyper::{Request, Response};
use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use rimward_crds::direct;
use secrecy::ExposeSecret;
use tokio::sync::Mutex;
use tower::Service;

use crate::{answers, runtime};

/// Longest kubeconfig that is read, in bytes.
const KUBECONFIG_BYTES_MAX: u64 = 1024 * 1024;
/// How often files are looked at.
const LOOK: Duration = Duration::from_secs(10);
/// The shortest time between two looks that refusals ask for.
const LOOK_SHORTEST: Duration = Duration::from_secs(1);

/// Where a client's configuration comes from.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// A kubeconfig.
    File(PathBuf),
    /// The usual places of a kubeconfig, else the pod's service account.
    Usual,
}

impl Source {
    async fn load(&self) -> anyhow::Result<Config> {
        let options = KubeConfigOptions::default();
        match self {
            Self::File(path) => {
                let about = || format!("kubeconfig {}", path.display());
                let bytes = std::fs::metadata(path).with_context(about)?.len();
                ensure!(
                    bytes <= KUBECONFIG_BYTES_MAX,
                    "{}: {bytes} bytes, at most {KUBECONFIG_BYTES_MAX} are read",
                    about()
                );
                let file = Kubeconfig::read_from(path).with_context(about)?;
                direct::config(file, &options).await.with_context(about)
            }
            Self::Usual => match Kubeconfig::read() {
                Ok(file) => direct::config(file, &options).await.context("kubeconfig"),
                Err(_) => Config::incluster().context("no kubeconfig and no service account found"),
            },
        }
    }
}

/// Makes a client that follows its source.
///
/// # Errors
/// When the source cannot be used now; later it only stays as it was.
pub(crate) async fn client(source: Source) -> anyhow::Result<Client> {
    client_that_looks_every(LOOK, source).await
}

async fn client_that_looks_every(every: Duration, source: Source) -> anyhow::Result<Client> {
    let config = source.load().await?;
    let (mark, namespace) = (mark(&config), config.default_namespace.clone());
    let client = runtime::client(config).context("API client")?;
    let shared = Arc::new(Shared {
        source,
        current: RwLock::new(Current { client, number: 0 }),
        last: Mutex::new(Last {
            mark,
            at: Instant::now(),
        }),
    });
    tokio::spawn(follow(Arc::downgrade(&shared), every));
    Ok(Client::new(Reloading { shared }, namespace))
}

/// What all clones of one client share.
struct Shared {
    source: Source,
    current: RwLock<Current>,
    last: Mutex<Last>,
}

#[derive(Clone)]
struct Current {
    client: Client,
    /// Counts the configurations.
    number: u64,
}

/// What was read last.
struct Last {
    mark: u64,
    at: Instant,
}

impl Shared {
    fn current(&self) -> Current {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        current.clone()
    }

    /// Reads the source again, unless it was read since `shortest` ago or gave another configuration than number
    /// `before` meanwhile. Says whether there is another one now.
    async fn look(&self, before: u64, shortest: Duration) -> bool {
        let mut last = self.last.lock().await;
        if self.current().number != before {
            return true;
        }
        if last.at.elapsed() < shortest {
            return false;
        }
        last.at = Instant::now();
        // Half-written, or away for a moment: the next look will tell.
        let Ok(config) = self.source.load().await else {
            return false;
        };
        let mark = mark(&config);
        if mark == last.mark {
            return false;
        }
        let Ok(client) = runtime::client(config) else {
            return false;
        };
        last.mark = mark;
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        let number = current.number + 1;
        *current = Current { client, number };
        tracing::info!(source = ?self.source, "credentials were read again");
        true
    }
}

/// Looks at the source until nobody has the client any more.
async fn follow(shared: Weak<Shared>, every: Duration) {
    loop {
        tokio::time::sleep(every).await;
        let Some(shared) = shared.upgrade() else {
            return;
        };
        let before = shared.current().number;
        shared.look(before, Duration::ZERO).await;
    }
}

/// Tells configurations apart by all that they say and by what stands in the files they name.
fn mark(config: &Config) -> u64 {
    let mut hasher = DefaultHasher::new();
    let auth = &config.auth_info;
    config.cluster_url.hash(&mut hasher);
    config.root_cert.hash(&mut hasher);
    config.tls_server_name.hash(&mut hasher);
    (&auth.username, &auth.client_certificate_data).hash(&mut hasher);
    for secret in [&auth.password, &auth.token, &auth.client_key_data] {
        let secret = secret.as_ref();
        secret.map(ExposeSecret::expose_secret).hash(&mut hasher);
    }
    for path in [&auth.token_file, &auth.client_certificate, &auth.client_key] {
        let content = path.as_ref().map(std::fs::read);
        content.map(Result::ok).hash(&mut hasher);
    }
    let roots = config.root_cert_file.as_ref().map(std::fs::read);
    roots.map(Result::ok).hash(&mut hasher);
    hasher.finish()
}

/// Sends requests with the credentials as they stand.
#[derive(Clone)]
struct Reloading {
    shared: Arc<Shared>,
}

impl Service<Request<Body>> for Reloading {
    type Response = Response<Body>;
    type Error = kube::Error;
    type Future = BoxFuture<'static, Result<Response<Body>, kube::Error>>;

    fn poll_ready(&mut self, _: &mut TaskContext<'_>) -> Poll<Result<(), kube::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let shared = self.shared.clone();
        async move {
            let Current { client, number } = shared.current();
            let again = copy(&request);
            let answer = client.send(request).await;
            // Refused for who asks, or no connection (it may be another authority that vouches for the server now):
            // nothing was done, so it may be sent again with what stands there now.
            let undone = match &answer {
                Ok(answer) => answer.status() == hyper::StatusCode::UNAUTHORIZED,
                Err(error) => answers::never_left(error),
            };
            if undone
                && let Some(again) = again
                && shared.look(number, LOOK_SHORTEST).await
            {
                return shared.current().client.send(again).await;
            }
            answer
        }
        .boxed()
    }
}

fn copy(request: &Request<Body>) -> Option<Request<Body>> {
    let mut copy = Request::new(request.body().try_clone()?);
    copy.method_mut().clone_from(request.method());
    copy.uri_mut().clone_from(request.uri());
    copy.headers_mut().clone_from(request.headers());
    Some(copy)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use futures::FutureExt as _;
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::api::PostParams;
    use kube::{Api, Client};
    use serde_json::json;
    use tempfile::TempDir;

    use super::{Source, client_that_looks_every, mark};
    use crate::testing::{self, refusal};

    const NEVER: Duration = Duration::from_secs(3600);

    /// A server that takes one token, and the kubeconfig of its only client.
    struct World {
        folder: TempDir,
        uri: String,
        takes: Arc<Mutex<&'static str>>,
        shown: Arc<Mutex<Vec<String>>>,
    }

    impl World {
        fn new() -> Self {
            let takes = Arc::new(Mutex::new("one"));
            let shown = Arc::new(Mutex::new(Vec::new()));
            let (its, log) = (takes.clone(), shown.clone());
            let uri = testing::serve(move |asked| {
                log.lock().unwrap().push(asked.authorization.clone());
                let taken = asked.authorization == format!("Bearer {}", its.lock().unwrap());
                let object = json!({"metadata": {"name": "a"}, "data": asked.body["data"]});
                let answer = if taken {
                    (200, object)
                } else {
                    refusal(401, "Unauthorized")
                };
                async move { Some(answer) }.boxed()
            });
            let folder = TempDir::new().unwrap();
            let world = Self {
                folder,
                uri,
                takes,
                shown,
            };
            world.write("one");
            world
        }

        fn source(&self) -> Source {
            Source::File(self.folder.path().join("kubeconfig"))
        }

        fn write(&self, token: &str) {
            let text = format!(
                "{{current-context: c, contexts: [{{name: c, context: {{cluster: k, user: u}}}}],
                   clusters: [{{name: k, cluster: {{server: '{}'}}}}],
                   users: [{{name: u, user: {{token: {token}}}}}]}}",
                self.uri
            );
            self.put("kubeconfig", &text);
        }

        fn put(&self, name: &str, text: &str) {
            std::fs::write(self.folder.path().join(name), text).unwrap();
        }

        async fn client(&self, every: Duration) -> Client {
            let _ = rustls::crypto::ring::default_provider().install_default();
            client_that_looks_every(every, self.source()).await.unwrap()
        }
    }

    async fn ask(client: &Client) -> Result<ConfigMap, kube::Error> {
        Api::default_namespaced(client.clone()).get("a").await
    }

    #[tokio::test]
    async fn a_token_that_is_refused_is_read_again_and_the_request_succeeds() {
        let world = World::new();
        let client = world.client(NEVER).await;
        ask(&client).await.unwrap();
        *world.takes.lock().unwrap() = "two";
        assert!(ask(&client).await.is_err(), "there is no other yet");
        world.write("two");
        tokio::time::sleep(super::LOOK_SHORTEST).await;
        let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
        let data = [("key".to_owned(), "value".to_owned())].into();
        let map = ConfigMap {
            data: Some(data),
            ..ConfigMap::default()
        };
        let made = maps.create(&PostParams::default(), &map).await.unwrap();
        assert_eq!(made.data, map.data, "it was sent again whole");
        ask(&client).await.unwrap();
        let shown = world.shown.lock().unwrap();
        assert_eq!(
            shown[shown.len() - 3..],
            ["Bearer one", "Bearer two", "Bearer two"]
        );
    }

    #[tokio::test]
    async fn refusals_do_not_make_it_read_without_end() {
        let world = World::new();
        let client = world.client(NEVER).await;
        *world.takes.lock().unwrap() = "two";
        for _ in 0..10 {
            assert!(ask(&client).await.is_err());
        }
        world.write("two");
        assert!(ask(&client).await.is_err(), "it was looked at a moment ago");
        assert_eq!(world.shown.lock().unwrap().len(), 11);
    }

    #[tokio::test]
    async fn a_kubeconfig_that_changes_is_taken_without_a_refusal_and_a_broken_one_is_not() {
        let world = World::new();
        let client = world.client(Duration::from_millis(20)).await;
        world.put("kubeconfig", "{half");
        tokio::time::sleep(Duration::from_millis(200)).await;
        ask(&client).await.unwrap();
        world.write("two");
        for _ in 0..500 {
            let _ = ask(&client).await;
            if world.shown.lock().unwrap().last().unwrap() == "Bearer two" {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("still shows {:?}", world.shown.lock().unwrap().last());
    }

    #[tokio::test]
    async fn each_file_that_a_kubeconfig_names_is_part_of_it() {
        let world = World::new();
        for name in ["ca.crt", "token", "client.crt", "client.key"] {
            world.put(name, "one");
        }
        let text = format!(
            "{{current-context: c, contexts: [{{name: c, context: {{cluster: k, user: u}}}}],
               clusters: [{{name: k, cluster: {{server: '{}', certificate-authority: ca.crt}}}}],
               users: [{{name: u, user: {{tokenFile: token, client-certificate: client.crt,
                 client-key: client.key}}}}]}}",
            world.uri
        );
        world.put("kubeconfig", &text);
        let pem = |text: &str| {
            format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
        };
        world.put("ca.crt", &pem("AAAA"));
        let mut marks = vec![mark(&world.source().load().await.unwrap())];
        assert_eq!(mark(&world.source().load().await.unwrap()), marks[0]);
        world.put("ca.crt", &pem("BBBB"));
        marks.push(mark(&world.source().load().await.unwrap()));
        for name in ["token", "client.crt", "client.key"] {
            world.put(name, "two");
            marks.push(mark(&world.source().load().await.unwrap()));
        }
        let count = marks.len();
        marks.sort_unstable();
        marks.dedup();
        assert_eq!(marks.len(), count, "one of them was not noticed");
    }
}
