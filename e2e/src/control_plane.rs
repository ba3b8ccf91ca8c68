//! A K3s-shaped control plane: a real API server on kine and SQLite, with the controllers that objects
//! without pods need.
//!
//! Owns its processes and its folder. Stopping the API server is how a story takes a cluster away; kine
//! and the database stay, so what was acknowledged is there when it comes back.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::net::TcpStream;

use crate::audit::{self, Audit};
use crate::certs::{Certs, write_private};
use crate::kubeconfig::{self, Credential};
use crate::kubectl::Kubectl;
use crate::ports::free_port;
use crate::process::Process;
use crate::tools::Tool;
use crate::wait::{Seen, wait_for};

/// A control plane is up in 5 s on an idle machine.
const READY_WITHIN: Duration = Duration::from_secs(180);

/// What deletion, namespaces and service accounts need. No pods run here, so the other forty controllers
/// would only cost memory.
const CONTROLLERS: &str = "garbage-collector-controller,namespace-controller,\
    serviceaccount-controller,serviceaccount-token-controller,\
    root-ca-certificate-publisher-controller,clusterrole-aggregation-controller";

/// What pods need beside them.
const POD_CONTROLLERS: &str = "daemonset-controller,deployment-controller,disruption-controller,\
    endpointslice-controller,job-controller,node-lifecycle-controller,\
    pod-garbage-collector-controller,replicaset-controller,taint-eviction-controller";

/// Where pods find the API server: the first address of the Services' range.
const SERVICE_ADDRESS: &str = "10.43.0.1";

/// How a control plane is to be.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// How much the audit log records of requests to Rimward's kinds.
    pub audit: audit::Level,
    /// Whether Kubernetes' own controllers run: garbage collection, namespaces, tokens.
    pub controllers: bool,
    /// This machine's address in the nodes' network, if there are nodes: the API server listens there too, and
    /// the scheduler and the pods' controllers run.
    pub pods_at: Option<Ipv4Addr>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            audit: audit::Level::Metadata,
            controllers: true,
            pods_at: None,
        }
    }
}

/// A running control plane. Dropping it kills its processes; its folder is the caller's.
#[derive(Debug)]
pub struct ControlPlane {
    name: String,
    folder: PathBuf,
    certs: Certs,
    port: u16,
    store_port: u16,
    pods_at: Option<Ipv4Addr>,
    processes: Mutex<Processes>,
}

/// Dropped in this order: whoever talks to another ends before it.
#[derive(Debug, Default)]
struct Processes {
    scheduler: Option<Process>,
    controllers: Option<Process>,
    api_server: Option<Process>,
    store: Option<Process>,
}

impl ControlPlane {
    /// Starts a control plane in a folder, and waits until it is ready. On a folder of an earlier one the
    /// name must be new: certificates and ports are.
    ///
    /// # Errors
    /// When a part is not installed, ends, or is not ready in time: quotes its log.
    pub async fn start(name: &str, folder: &Path, options: Options) -> Result<Self> {
        let folder = folder.join(name);
        let pods_at = options.pods_at.map(|address| address.to_string());
        let names: Vec<&str> = pods_at.iter().map(String::as_str).collect();
        let certs = Certs::create(
            &folder.join("certs"),
            &[&names, &[SERVICE_ADDRESS][..]].concat(),
        )?;
        write_private(
            &folder.join("audit-policy.json"),
            &audit::policy(options.audit).to_string(),
        )?;
        let plane = Self {
            name: name.to_owned(),
            folder,
            certs,
            port: free_port()?,
            store_port: free_port()?,
            pods_at: options.pods_at,
            processes: Mutex::default(),
        };
        plane.user_kubeconfig("admin", "admin", &["system:masters"])?;
        plane.user_kubeconfig("controller-manager", "system:kube-controller-manager", &[])?;
        plane.start_store().await?;
        plane.start_api_server().await?;
        if options.controllers {
            plane.start_controllers()?;
        }
        if options.pods_at.is_some() {
            plane.start_scheduler()?;
        }
        Ok(plane)
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its folder: certificates, kubeconfigs, logs, the database.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Its URL.
    #[must_use]
    pub fn server(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// The certificate authority that signed its server certificate, in PEM.
    #[must_use]
    pub fn authority_pem(&self) -> String {
        self.certs.authority_pem()
    }

    /// The administrator's kubeconfig.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.join("admin.kubeconfig")
    }

    /// kubectl as administrator.
    ///
    /// # Errors
    /// When kubectl is not installed.
    pub fn kubectl(&self) -> Result<Kubectl> {
        Kubectl::new(&self.kubeconfig())
    }

    /// A client as administrator. It belongs to the calling story's runtime: never share it.
    ///
    /// # Errors
    /// When the kubeconfig cannot be read.
    pub async fn client(&self) -> Result<kube::Client> {
        client(&self.kubeconfig()).await
    }

    /// The record of every request.
    #[must_use]
    pub fn audit(&self) -> Audit {
        Audit::new(&self.folder.join("audit.jsonl"))
    }

    /// Makes a kubeconfig `NAME.kubeconfig` for a user, by a client certificate.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn user_kubeconfig(&self, name: &str, user: &str, groups: &[&str]) -> Result<PathBuf> {
        let identity = self.certs.client(user, groups)?;
        self.write_kubeconfig(name, Credential::Certificate(&identity))
    }

    /// The same for who runs on a node, which reaches the API server at another address.
    ///
    /// # Errors
    /// When the control plane has no nodes, or the file cannot be written.
    pub fn pod_side_kubeconfig(&self, name: &str, user: &str, groups: &[&str]) -> Result<PathBuf> {
        let identity = self.certs.client(user, groups)?;
        let path = self.folder.join(format!("{name}.kubeconfig"));
        let (server, authority) = (self.pod_side_server()?, self.certs.authority_pem());
        let credential = Credential::Certificate(&identity);
        kubeconfig::write(&path, &self.name, &server, &authority, credential)?;
        Ok(path)
    }

    /// Its URL for who runs on a node.
    ///
    /// # Errors
    /// When it has no nodes.
    pub fn pod_side_server(&self) -> Result<String> {
        let address = self.pods_at.context("this control plane has no nodes")?;
        Ok(format!("https://{address}:{}", self.port))
    }

    /// The file with the certificate of its authority.
    #[must_use]
    pub fn authority_file(&self) -> PathBuf {
        self.certs.file("ca.crt")
    }

    /// Makes a service account, if there is none yet, and a kubeconfig with a token of it that is good for
    /// a day. It may do what stories bind to it.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn account_kubeconfig(&self, namespace: &str, name: &str) -> Result<PathBuf> {
        let kubectl = self.kubectl()?;
        self.ensure_namespace(namespace).await?;
        kubectl
            .apply(&format!(
                "{{apiVersion: v1, kind: ServiceAccount, metadata: {{name: {name}, namespace: {namespace}}}}}"
            ))
            .await?;
        let token = kubectl
            .run(["create", "token", name, "-n", namespace, "--duration=24h"])
            .await?;
        self.write_kubeconfig(
            &format!("{namespace}.{name}"),
            Credential::Token(token.trim()),
        )
    }

    /// Makes a namespace, if there is none of that name.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn ensure_namespace(&self, name: &str) -> Result<()> {
        let manifest = format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: {name}}}}}");
        self.kubectl()?.apply(&manifest).await?;
        Ok(())
    }

    fn write_kubeconfig(&self, name: &str, credential: Credential<'_>) -> Result<PathBuf> {
        let path = self.folder.join(format!("{name}.kubeconfig"));
        let authority = self.certs.authority_pem();
        kubeconfig::write(&path, &self.name, &self.server(), &authority, credential)?;
        Ok(path)
    }

    /// Applies every CustomResourceDefinition in a folder, and waits until each is served.
    ///
    /// # Errors
    /// When the API server refuses one: quotes why.
    pub async fn apply_crds(&self, folder: &Path) -> Result<()> {
        let kubectl = self.kubectl()?;
        let files = folder.display().to_string();
        kubectl
            .run(["apply", "--server-side", "-f", &files])
            .await?;
        kubectl
            .run([
                "wait",
                "-f",
                &files,
                "--for=condition=Established",
                "--timeout=60s",
            ])
            .await?;
        Ok(())
    }

    /// Takes the API server away, at once, as a crash does. Kine and the data stay.
    pub fn stop_api_server(&self) {
        self.processes().api_server = None;
    }

    /// Starts the API server, on the data that is there, and waits until it is ready.
    ///
    /// # Errors
    /// When it ends, or is not ready in time: quotes its log.
    pub async fn start_api_server(&self) -> Result<()> {
        let mut command = Command::new(Tool::KubeApiserver.path()?);
        let file = |name: &str| self.certs.file(name).display().to_string();
        command
            .arg(format!(
                "--etcd-servers=http://127.0.0.1:{}",
                self.store_port
            ))
            .arg(format!("--secure-port={}", self.port))
            .arg(format!("--tls-cert-file={}", file("server.crt")))
            .arg(format!("--tls-private-key-file={}", file("server.key")))
            .arg(format!("--client-ca-file={}", file("ca.crt")))
            .arg(format!(
                "--service-account-key-file={}",
                file("service-account.pub")
            ))
            .arg(format!(
                "--service-account-signing-key-file={}",
                file("service-account.key")
            ))
            .arg(format!(
                "--audit-policy-file={}",
                self.path("audit-policy.json")
            ))
            .arg(format!("--audit-log-path={}", self.path("audit.jsonl")))
            .args(self.reached_at()?)
            .args([
                "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
                "--service-cluster-ip-range=10.43.0.0/16",
                "--authorization-mode=Node,RBAC",
                "--enable-admission-plugins=NodeRestriction",
                "--allow-privileged=true",
                "--profiling=false",
                // One file for ever: a story reads by offset.
                "--audit-log-maxsize=0",
                // The line is written before the request is answered.
                "--audit-log-mode=blocking-strict",
            ]);
        self.processes().api_server = Some(self.spawn("kube-apiserver", command)?);
        let kubectl = self.kubectl()?;
        wait_for(
            &format!("the API server of {}", self.name),
            READY_WITHIN,
            async || {
                if let Some(process) = &mut self.processes().api_server
                    && let Err(error) = process.check_running()
                {
                    return Ok(Seen::Never(format!("{error:#}")));
                }
                let output = kubectl.output(["get", "--raw", "/readyz"]).await?;
                Ok(if output.status.success() {
                    Seen::Done(())
                } else {
                    Seen::NotYet(output.stderr)
                })
            },
        )
        .await
    }

    /// How clients reach the API server, and it the kubelets.
    fn reached_at(&self) -> Result<Vec<String>> {
        let Some(address) = self.pods_at else {
            return Ok(vec![
                "--bind-address=127.0.0.1".to_owned(),
                "--advertise-address=127.0.0.1".to_owned(),
                // Loopback is no address for the `kubernetes` service's endpoints, and nobody asks for them.
                "--endpoint-reconciler-type=none".to_owned(),
            ]);
        };
        let identity = self
            .certs
            .client("kube-apiserver-kubelet-client", &["system:masters"])?;
        let (certificate, key) = (
            self.certs.file("kubelet.crt"),
            self.certs.file("kubelet.key"),
        );
        write_private(&certificate, &identity.certificate)?;
        write_private(&key, &identity.key)?;
        Ok(vec![
            "--bind-address=0.0.0.0".to_owned(),
            format!("--advertise-address={address}"),
            format!("--kubelet-client-certificate={}", certificate.display()),
            format!("--kubelet-client-key={}", key.display()),
            "--kubelet-preferred-address-types=InternalIP".to_owned(),
        ])
    }

    async fn start_store(&self) -> Result<()> {
        let mut command = Command::new(Tool::Kine.path()?);
        // The options that K3s gives its SQLite.
        let options = "_journal=WAL&cache=shared&_busy_timeout=30000&_txlock=immediate";
        command
            .arg(format!(
                "--endpoint=sqlite://{}?{options}",
                self.path("state.db")
            ))
            .arg(format!("--listen-address=127.0.0.1:{}", self.store_port))
            .arg("--metrics-bind-address=0");
        self.processes().store = Some(self.spawn("kine", command)?);
        wait_for(
            &format!("kine of {}", self.name),
            READY_WITHIN,
            async || {
                if let Some(process) = &mut self.processes().store
                    && let Err(error) = process.check_running()
                {
                    return Ok(Seen::Never(format!("{error:#}")));
                }
                TcpStream::connect((Ipv4Addr::LOCALHOST, self.store_port)).await?;
                Ok(Seen::Done(()))
            },
        )
        .await
    }

    fn start_controllers(&self) -> Result<()> {
        let mut command = Command::new(Tool::KubeControllerManager.path()?);
        command
            .arg(format!(
                "--kubeconfig={}",
                self.path("controller-manager.kubeconfig")
            ))
            .arg(format!(
                "--service-account-private-key-file={}",
                self.certs.file("service-account.key").display()
            ))
            .arg(format!(
                "--root-ca-file={}",
                self.certs.file("ca.crt").display()
            ))
            .arg(match self.pods_at {
                Some(_) => format!("--controllers={CONTROLLERS},{POD_CONTROLLERS}"),
                None => format!("--controllers={CONTROLLERS}"),
            })
            // Each controller by its own account, as clusters run it: the audit log tells them apart.
            .args([
                "--use-service-account-credentials",
                "--leader-elect=false",
                "--secure-port=0",
            ]);
        self.processes().controllers = Some(self.spawn("kube-controller-manager", command)?);
        Ok(())
    }

    fn start_scheduler(&self) -> Result<()> {
        self.user_kubeconfig("scheduler", "system:kube-scheduler", &[])?;
        let mut command = Command::new(Tool::KubeScheduler.path()?);
        command
            .arg(format!(
                "--kubeconfig={}",
                self.path("scheduler.kubeconfig")
            ))
            .args(["--leader-elect=false", "--secure-port=0"]);
        self.processes().scheduler = Some(self.spawn("kube-scheduler", command)?);
        Ok(())
    }

    fn spawn(&self, name: &str, mut command: Command) -> Result<Process> {
        command.current_dir(&self.folder);
        Process::start(
            &format!("{name} of {}", self.name),
            command,
            &self.folder.join(format!("{name}.log")),
        )
    }

    fn path(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    fn processes(&self) -> std::sync::MutexGuard<'_, Processes> {
        self.processes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// A client by a kubeconfig file. It belongs to the calling story's runtime: never share it.
///
/// # Errors
/// When the file is no kubeconfig.
pub async fn client(kubeconfig: &Path) -> Result<kube::Client> {
    crate::guard::install();
    let file = kube::config::Kubeconfig::read_from(kubeconfig)
        .with_context(|| format!("cannot read {}", kubeconfig.display()))?;
    let mut config =
        kube::Config::from_custom_kubeconfig(file, &kube::config::KubeConfigOptions::default())
            .await
            .with_context(|| format!("{} is no kubeconfig", kubeconfig.display()))?;
    config.proxy_url = None; // taken from the environment; this is loopback
    kube::Client::try_from(config).context("cannot make a client")
}
