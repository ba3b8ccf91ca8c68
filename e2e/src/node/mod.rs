//! Real nodes: kubelet, containerd, runc, CNI and kube-proxy, each node in namespaces of its own, several
//! on one machine.
//!
//! Owns starting and ending them, and their accidents: what is killed, what is taken away. A node has its own
//! `/var/lib`, `/var/log` and `/run`, so host folders of pods are the node's. It needs root. Once its first
//! process is dead the kernel leaves nothing of it; only control groups are removed by hand, by whoever
//! takes the same number next if not before.

pub(crate) mod cgroups;
mod cluster;
mod config;
mod image;
mod network;
mod space;

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::Pid;

pub use self::cluster::Cluster;
pub use self::image::PAUSE;
pub use self::network::Network;

use self::space::{PATH, Space};
use crate::command::Line;
use crate::control_plane::ControlPlane;
use crate::guard;
use crate::service::{Recipe, Service};
use crate::tools::Tool;
use crate::wait::{Seen, wait_for};

/// Generous: the machine may be busy with a build.
const READY_WITHIN: Duration = Duration::from_secs(120);

/// What makes a node's folders its own. A kubelet sets what the kernel does with memory and with its own faults: for
/// the whole machine, so it is given copies to write to.
const SPACE: &str = "mount --make-rshared /
    mount -t tmpfs -o mode=755 tmpfs /run
    mount --bind var-lib /var/lib
    mount --bind var-log /var/log
    for name in vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops \
        kernel/keys/root_maxkeys kernel/keys/root_maxbytes; do
        copy=sysctl-$(basename $name)
        cat /proc/sys/$name >$copy
        mount --bind $copy /proc/sys/$name
    done
    ip link set lo up
    echo 1 >/proc/sys/net/ipv4/ip_forward";

/// Whether this process is root.
#[must_use]
pub fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

/// How a node is to be.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Labels of its Node object, as `--node-labels` takes them.
    pub labels: String,
    /// Registries that are asked over plain HTTP, `HOST:PORT`.
    pub plain_http: Vec<String>,
    /// Whether Services have names.
    pub dns: bool,
}

/// A real node. Dropping it kills it with all its pods; its folder is the caller's.
#[derive(Debug)]
pub struct Node {
    name: String,
    address: Ipv4Addr,
    folder: PathBuf,
    authority: PathBuf,
    dns: Option<String>,
    proxy: Service,
    kubelet: Service,
    containerd: Service,
    space: Space,
    group: Group,
}

/// Dropped last, when everything in it is dead.
#[derive(Debug)]
struct Group(String);

impl Drop for Group {
    fn drop(&mut self) {
        cgroups::remove(&self.0);
        guard::forget_group(&self.0);
    }
}

impl Node {
    /// Starts a node of a cluster as the `index`th of its network, and waits until it is Ready.
    ///
    /// # Errors
    /// When a part is not installed, ends, or is not ready in time.
    pub async fn start(
        plane: &ControlPlane,
        network: &Network,
        index: u8,
        options: &Options,
    ) -> Result<Self> {
        let name = format!("{}-{}", plane.name(), index + 1);
        let folder = plane.folder().join(&name);
        for part in ["var-lib/kubelet", "var-log", "cni", "registries"] {
            let path = folder.join(part);
            fs::create_dir_all(&path).with_context(|| format!("making {}", path.display()))?;
        }
        let group = Group(network.group(index));
        guard::note_group(&group.0);
        cgroups::make(&group.0)?;
        let (space, pause) =
            tokio::try_join!(Space::start(&name, &folder, SPACE), image::pause(&folder))?;
        network.connect(&space, index).await?;

        let cni = config::cni(&network.node_pods(index));
        write(&folder.join("cni/pods.conflist"), &cni.to_string())?;
        for registry in &options.plain_http {
            let place = folder.join("registries").join(registry);
            fs::create_dir_all(&place)?;
            write(&place.join("hosts.toml"), &config::plain_http(registry))?;
        }
        let containerd = start_containerd(&space, &pause).await?;

        let part = |name: &str, tool: Tool, arguments: Vec<String>| -> Result<Service> {
            Service::start(recipe(&space, name, &tool.path()?, arguments))
        };
        let user = format!("system:node:{name}");
        let kubeconfig = plane.pod_side_kubeconfig(&name, &user, &["system:nodes"])?;
        let proxy_config =
            plane.pod_side_kubeconfig(&format!("{name}-proxy"), "system:kube-proxy", &[])?;
        let proxy_config = config::proxy(&name, &proxy_config, &network.pods());
        write(&folder.join("proxy.json"), &proxy_config.to_string())?;
        let flag = |name: &str, value: &Path| format!("--{name}={}", value.display());
        let address = network.node_address(index);
        // The kubelet's file is written by whoever starts it, below.
        let kubelet = Service::idle(recipe(
            &space,
            "kubelet",
            &Tool::Kubelet.path()?,
            vec![
                flag("config", &folder.join("kubelet.json")),
                flag("kubeconfig", &kubeconfig),
                format!("--hostname-override={name}"),
                format!("--node-ip={address}"),
                format!("--node-labels={}", options.labels),
            ],
        ))?;
        let proxy = vec![flag("config", &folder.join("proxy.json"))];
        let node = Self {
            address,
            authority: plane.authority_file(),
            dns: options.dns.then(|| network.address().to_string()),
            proxy: part("kube-proxy", Tool::KubeProxy, proxy)?,
            kubelet,
            containerd,
            space,
            group,
            folder,
            name,
        };
        node.start_kubelet(None)?;
        node.wait_until_ready(plane).await?;
        Ok(node)
    }

    /// Starts its kubelet, again if need be; pods are evicted while the whole machine has less memory
    /// available than `evict_below`, and never without it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_kubelet(&self, evict_below: Option<String>) -> Result<()> {
        let resolver = self.folder.join("resolv.conf");
        write(&resolver, "nameserver 127.0.0.1\n")?;
        let config = config::Kubelet {
            authority: &self.authority,
            group: &self.group.0,
            resolver: &resolver,
            dns: self.dns.clone(),
            evict_below,
        };
        let text = config.config().to_string();
        write(&self.folder.join("kubelet.json"), &text)?;
        self.kubelet.resume()
    }

    /// Starts its kubelet until one stays, as a machine's init system does: one that finds its containerd not ready ends.
    ///
    /// # Errors
    /// When none stays.
    pub async fn revive_kubelet(&self, evict_below: Option<String>) -> Result<()> {
        let (stays, starts_max) = (Duration::from_secs(2), 10);
        for _ in 1..starts_max {
            self.start_kubelet(evict_below.clone())?;
            tokio::time::sleep(stays).await;
            if self.kubelet.check_running().is_ok() {
                return Ok(());
            }
        }
        self.kubelet.check_running()
    }

    /// Waits until its Node object says that it is Ready.
    ///
    /// # Errors
    /// When its kubelet ends, or it is not Ready in time.
    pub async fn wait_until_ready(&self, plane: &ControlPlane) -> Result<()> {
        let kubectl = plane.kubectl()?;
        let what = format!("node {} to be Ready", self.name);
        let outcome = wait_for(&what, READY_WITHIN, async || {
            if let Err(error) = self.kubelet.check_running() {
                return Ok(Seen::Never(format!("{error:#}")));
            }
            let node = kubectl.get_json(["node", &self.name]).await?;
            let conditions = node["status"]["conditions"].as_array();
            let ready = conditions.and_then(|list| list.iter().find(|it| it["type"] == "Ready"));
            Ok(match ready {
                Some(ready) if ready["status"] == "True" => Seen::Done(()),
                other => Seen::NotYet(format!("{other:?}")),
            })
        });
        outcome
            .await
            .with_context(|| format!("its log is {}", self.kubelet.log().display()))
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its address, at which its pods' host ports are too.
    #[must_use]
    pub const fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// Its kubelet. To kill it and nothing else, cut its power.
    #[must_use]
    pub const fn kubelet(&self) -> &Service {
        &self.kubelet
    }

    /// Its containerd. Cut its power to kill it alone: containers live on.
    #[must_use]
    pub const fn containerd(&self) -> &Service {
        &self.containerd
    }

    /// Its kube-proxy.
    #[must_use]
    pub const fn proxy(&self) -> &Service {
        &self.proxy
    }

    /// Where one of its folders below `/var/lib` lies on this machine.
    #[must_use]
    pub fn var_lib(&self, name: &str) -> PathBuf {
        self.folder.join("var-lib").join(name)
    }

    /// The processes of its pods, by their ids out here.
    #[must_use]
    pub fn pod_processes(&self) -> Vec<u32> {
        cgroups::members(&format!("/{}/", self.group.0))
    }

    /// The network of a pod by its `metadata.uid`, for [`crate::load::Client`].
    ///
    /// # Errors
    /// When it has no process.
    pub fn pod_network(uid: &str) -> Result<PathBuf> {
        let processes = cgroups::members(&format!("/pod{uid}/"));
        let first = processes.first();
        let first = first.with_context(|| format!("pod {uid} has no process"))?;
        Ok(PathBuf::from(format!("/proc/{first}/ns/net")))
    }

    /// A pod's processes that run a program of that name.
    #[must_use]
    pub fn processes_of_pod(&self, uid: &str, program: &str) -> Vec<Pid> {
        let is_it = |id: &u32| {
            let name = fs::read_link(format!("/proc/{id}/exe")).unwrap_or_default();
            name.file_name().is_some_and(|name| name == program)
        };
        let members = cgroups::members(&format!("/{}/", self.group.0));
        let of_pod = cgroups::members(&format!("/pod{uid}/"));
        let found = of_pod.iter().filter(|id| members.contains(id) && is_it(id));
        found
            .filter_map(|id| Pid::from_raw(id.cast_signed()))
            .collect()
    }

    /// Gives it an image of one static program, which no registry has; files go to `folder`.
    ///
    /// # Errors
    /// When the image cannot be made, or containerd refuses it.
    pub async fn import_program(&self, folder: &Path, image: &str, program: &Path) -> Result<()> {
        let archive = image::of_program(folder, image, program).await?;
        let import = ["images", "import", &archive.display().to_string()];
        self.ctr().args(import).run().await?;
        Ok(())
    }

    /// A command to run on the node.
    #[must_use]
    pub fn line(&self, program: &str) -> Line {
        self.space.line(program)
    }

    /// `ctr` of the pods' containers and images.
    #[must_use]
    pub fn ctr(&self) -> Line {
        let arguments = ["--address", config::CONTAINERD, "--namespace", "k8s.io"];
        self.space.line("ctr").args(arguments)
    }
}

async fn start_containerd(space: &Space, pause: &Path) -> Result<Service> {
    let folder = space.folder();
    // Overlays cannot be stacked on an overlay, which is what a container has below its temporary folder.
    let is_overlay = rustix::fs::statfs(folder).is_ok_and(|at| at.f_type == 0x794c_7630);
    let snapshotter = if is_overlay { "native" } else { "overlayfs" };
    let path = folder.join("containerd.toml");
    write(&path, &config::containerd(folder, snapshotter))?;
    let arguments = vec![format!("--config={}", path.display())];
    let service = Service::start(recipe(
        space,
        "containerd",
        Path::new("containerd"),
        arguments,
    ))?;
    let ctr = space
        .line("ctr")
        .args(["--address", config::CONTAINERD, "--namespace", "k8s.io"]);
    let import = ctr.args(["images", "import", &pause.display().to_string()]);
    wait_for(
        "containerd to take the pause image",
        READY_WITHIN,
        async || {
            if let Err(error) = service.check_running() {
                return Ok(Seen::Never(format!("{error:#}")));
            }
            import.run().await?;
            Ok(Seen::Done(()))
        },
    )
    .await?;
    Ok(service)
}

fn recipe(space: &Space, name: &str, program: &Path, arguments: Vec<String>) -> Recipe {
    let [enter, prefix @ ..] = space.enter();
    let program = ["--".to_owned(), program.display().to_string()];
    Recipe {
        name: name.to_owned(),
        program: PathBuf::from(enter),
        arguments: prefix.into_iter().chain(program).chain(arguments).collect(),
        environment: vec![("PATH".to_owned(), PATH.into())],
        folder: space.folder().to_path_buf(),
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}
