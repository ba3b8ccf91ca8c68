//! The way to the API server: what its client is made from, and when it must be made anew.
//!
//! Owns reading credentials. They are read again when a file of theirs changes (a mounted Secret is swapped beneath
//! a running process, a certificate is renewed), and when the server refuses them. A client is given up only for one
//! that the server takes: half a file, or a lasting refusal, must never cost what still works.

use std::collections::BTreeSet;
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use k8s_openapi::api::coordination::v1::Lease;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client};
use rimward_crds::direct;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

use super::cluster::LEASE_NAMESPACE;

/// What a pod's own account is made of.
const POD_FILES: [&str; 2] = [
    "/var/run/secrets/kubernetes.io/serviceaccount/token",
    "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt",
];
/// How often the files are looked at.
const PERIOD: Duration = Duration::from_secs(2);
/// Refused credentials are read again so often at most.
const REFUSED_PAUSE: Duration = Duration::from_secs(5);
/// After credentials that could not be used.
const RETRY: Duration = Duration::from_secs(3);
/// How long a server may take to say whether it takes credentials.
const ANSWER_SECONDS_MAX: u64 = 20;
/// The same trouble is told so often.
const TELL_EVERY: Duration = Duration::from_secs(60);
/// More than any of the files has.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Where credentials come from, and how long a client made from them is good for.
#[derive(Debug, Clone)]
pub(super) struct Access {
    kubeconfig: Option<PathBuf>,
    node_name: String,
    refused: Arc<Notify>,
    /// How often the files are looked at, how long after a client is made a refusal of it counts, and when what could
    /// not be used is read again.
    period: Duration,
    refused_pause: Duration,
    retry: Duration,
}

/// What the files were when a client was made.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Made {
    files: BTreeSet<PathBuf>,
    contents: u64,
}

/// Says that the server refused the credentials.
#[derive(Debug, Clone, Default)]
pub(super) struct Refusals(Arc<Notify>);

impl Refusals {
    /// Looks whether an error is such a refusal. One that is allowed less than it asks for is none: other
    /// credentials of the same account would not help.
    pub(super) fn look_at(&self, error: &(dyn std::error::Error + 'static)) {
        let mut cause = Some(error);
        while let Some(error) = cause {
            if let Some(kube::Error::Api(answer)) = error.downcast_ref()
                && answer.code == 401
            {
                self.0.notify_one();
                return;
            }
            cause = error.source();
        }
    }
}

impl Access {
    /// Reads them from there, or from the pod. `node_name` is whose Lease is asked for to see whether they are taken.
    pub(super) fn new(kubeconfig: Option<PathBuf>, node_name: &str) -> Self {
        Self {
            kubeconfig,
            node_name: node_name.to_owned(),
            refused: Arc::default(),
            period: PERIOD,
            refused_pause: REFUSED_PAUSE,
            retry: RETRY,
        }
    }

    /// The same, many times as fast.
    #[cfg(test)]
    pub(super) fn hasty(self) -> Self {
        let soon = Duration::from_millis(50);
        Self {
            period: soon,
            refused_pause: soon,
            retry: soon,
            ..self
        }
    }

    /// Where refusals are told.
    pub(super) fn refusals(&self) -> Refusals {
        Refusals(Arc::clone(&self.refused))
    }

    /// Makes the first client, as soon as there is something to make it of. The server need not answer.
    pub(super) async fn first(&self) -> (Client, Made) {
        let mut told = Told::default();
        loop {
            match self.connect().await {
                Ok(made) => return made,
                Err(error) => told.tell("no way to the API server yet", &error),
            }
            sleep(self.retry).await;
        }
    }

    /// Ends when a client made from `made` is to be replaced, with one that the server takes. What changed and cannot be
    /// used is looked at again, and so is what is refused.
    pub(super) async fn next(&self, made: &Made) -> (Client, Made) {
        let mut told = Told::default();
        loop {
            let why = self.stale(made).await;
            match self.accepted().await {
                Ok(next) => {
                    tracing::info!(why, "credentials for the API server were read again");
                    return next;
                }
                Err(error) => {
                    let what = format!("{why}, and what is there now does not work");
                    told.tell(&format!("credentials for the API server: {what}"), &error);
                }
            }
            sleep(self.retry).await;
        }
    }

    /// A client that the server has answered; what it may do is another matter.
    async fn accepted(&self) -> anyhow::Result<(Client, Made)> {
        let (client, made) = self.connect().await?;
        let leases: Api<Lease> = Api::namespaced(client.clone(), LEASE_NAMESPACE);
        let asked = leases.get_opt(&self.node_name);
        let answer = timeout(Duration::from_secs(ANSWER_SECONDS_MAX), asked).await;
        match answer.context("the API server does not answer")? {
            Err(kube::Error::Api(status)) if status.code == 403 => {}
            answer => {
                answer.context("a first request")?;
            }
        }
        Ok((client, made))
    }

    /// Makes a client of what the files say now.
    async fn connect(&self) -> anyhow::Result<(Client, Made)> {
        // First: what changes while it is read is read again.
        let made = self.made();
        let mut config = match &self.kubeconfig {
            Some(path) => {
                let read = Kubeconfig::read_from(path)
                    .with_context(|| format!("kubeconfig {}", path.display()))?;
                direct::config(read, &KubeConfigOptions::default())
                    .await
                    .with_context(|| format!("kubeconfig {}", path.display()))?
            }
            None => {
                kube::Config::incluster().context("the pod's own account (or give --kubeconfig)")?
            }
        };
        config.connect_timeout = Some(Duration::from_secs(10));
        // Its own retries of 429 and 503 take minutes; whoever asks here tries again by itself.
        config.default_retry = false;
        let client = Client::try_from(config).context("Kubernetes client")?;
        Ok((client, made))
    }

    /// Ends when a client made from that may be good no more; says why.
    async fn stale(&self, made: &Made) -> &'static str {
        let changed = async {
            loop {
                sleep(self.period).await;
                if self.made() != *made {
                    return;
                }
            }
        };
        let refused = async {
            // What was refused before this client was there says nothing about it.
            sleep(self.refused_pause).await;
            self.refused.notified().await;
        };
        tokio::select! {
            () = changed => "they changed",
            () = refused => "they were refused",
        }
    }

    fn made(&self) -> Made {
        let files = match &self.kubeconfig {
            Some(path) => named_by(path),
            None => POD_FILES.map(PathBuf::from).into(),
        };
        let mut hasher = DefaultHasher::new();
        for path in &files {
            read(path).hash(&mut hasher);
        }
        Made {
            files,
            contents: hasher.finish(),
        }
    }
}

/// Trouble that lasts, told now and then.
#[derive(Default)]
struct Told(Option<(String, Instant)>);

impl Told {
    fn tell(&mut self, what: &str, error: &anyhow::Error) {
        let error = format!("{error:#}");
        let known = self.0.as_ref();
        if known.is_some_and(|(before, at)| *before == error && at.elapsed() < TELL_EVERY) {
            return;
        }
        tracing::warn!(error, "{what}");
        self.0 = Some((error, Instant::now()));
    }
}

/// A kubeconfig, and the files that it names.
fn named_by(path: &Path) -> BTreeSet<PathBuf> {
    let mut files = BTreeSet::from([path.to_owned()]);
    // One that does not parse names none; it changes when it is mended.
    let Ok(read) = Kubeconfig::read_from(path) else {
        return files;
    };
    let clusters = read.clusters.into_iter().filter_map(|it| it.cluster);
    files.extend(clusters.filter_map(|it| it.certificate_authority.map(PathBuf::from)));
    for user in read.auth_infos.into_iter().filter_map(|it| it.auth_info) {
        let named = [user.client_certificate, user.client_key, user.token_file];
        files.extend(named.into_iter().flatten().map(PathBuf::from));
    }
    files
}

fn read(path: &Path) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = File::open(path).ok()?;
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &Path, name: &str, text: &str) {
        std::fs::write(folder.join(name), text).unwrap();
    }

    #[test]
    fn every_file_that_a_kubeconfig_names_is_looked_at() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let names = ["ca.crt", "client.crt", "client.key", "token"];
        for name in names {
            write(path, name, "first");
        }
        write(
            path,
            "kubeconfig",
            "apiVersion: v1\nkind: Config\nclusters:\n- name: c\n  cluster: {server: 'https://h', certificate-authority: ca.crt}\n\
             users:\n- name: u\n  user: {client-certificate: client.crt, client-key: client.key, tokenFile: token}\n",
        );
        let access = Access::new(Some(path.join("kubeconfig")), "n");
        let mut before = access.made();
        assert_eq!(before, access.made());
        for name in names {
            write(path, name, "second");
            let now = access.made();
            assert_ne!(now, before, "{name}");
            before = now;
        }
        std::fs::remove_file(path.join("token")).unwrap();
        assert_ne!(access.made(), before);
    }

    #[tokio::test]
    async fn a_refusal_is_heard_through_whatever_was_said_about_it_and_less_rights_are_none() {
        let error = |code| {
            let answer = kube::core::Status {
                code,
                ..kube::core::Status::failure("no", "no")
            };
            anyhow::Error::new(kube::Error::Api(Box::new(answer))).context("status of EdgeNode n")
        };
        let access = Access::new(None, "n");
        let heard = async || {
            let wait = Duration::from_millis(20);
            let notified = access.refused.notified();
            tokio::time::timeout(wait, notified).await.is_ok()
        };
        access.refusals().look_at(error(403).as_ref());
        assert!(!heard().await);
        access.refusals().look_at(error(401).as_ref());
        assert!(heard().await);
    }
}
