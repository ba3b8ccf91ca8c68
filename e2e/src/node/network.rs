//! The network that the nodes of one cluster are plugged into, and this machine with them.
//!
//! Owns a number, and by it the addresses: 198.18.NUMBER.0/24 is the nodes' (this machine is .1), 198.19.0.0/16
//! has four subnets of pods for each number. Both lie in the range that is kept for tests of networks, so
//! they hide nothing that the machine talks to. The bridge is in a namespace of its own: what firewalls say
//! about this machine's bridges does not touch it.

use std::fs::{File, create_dir_all};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{FlockOperation, flock};

use super::cgroups;
use super::space::{PATH, Space};
use crate::command::Line;
use crate::guard;

/// Where numbers are taken: one locked file each.
const NUMBERS: &str = "/run/rimward-e2e";
const COUNT: u8 = 60;
/// Subnets of pods for each network.
const NODES_MAX: u8 = 4;

/// A network. Dropping it takes it down; drop its nodes first.
#[derive(Debug)]
pub struct Network {
    switch: Space,
    number: u8,
    /// Its lock is what says that the number is taken.
    _taken: File,
}

impl Network {
    /// Puts up a network with nothing in it but this machine; files go to `folder`.
    ///
    /// # Errors
    /// When this process is not root, or the kernel lacks what it takes.
    pub async fn start(folder: &Path) -> Result<Self> {
        ensure!(
            super::is_root(),
            "real nodes need root, for network namespaces and control groups"
        );
        let (number, taken) = take_number()?;
        let folder = folder.join("switch");
        create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        // One after the other in a network of its own: frames between nodes are nobody's to filter.
        let script = "ip link add bridge type bridge; ip link set bridge up; ip link set lo up";
        let switch = Space::start(&format!("network {number}"), &folder, script).await?;
        let network = Self {
            switch,
            number,
            _taken: taken,
        };
        let here = format!("rimward{number}");
        let there = network.switch.id().to_string();
        ip([
            "link", "add", &here, "type", "veth", "peer", "name", "machine", "netns", &there,
        ])
        .await?;
        let address = format!("{}/24", network.address());
        ip(["address", "add", &address, "dev", &here]).await?;
        ip(["link", "set", &here, "up"]).await?;
        network.plug("machine").await?;
        Ok(network)
    }

    /// This machine's address in it.
    #[must_use]
    pub const fn address(&self) -> Ipv4Addr {
        Ipv4Addr::new(198, 18, self.number, 1)
    }

    /// The address of a node, by its place from 0.
    #[must_use]
    pub const fn node_address(&self, index: u8) -> Ipv4Addr {
        Ipv4Addr::new(198, 18, self.number, 11 + index)
    }

    /// The subnet of a node's pods.
    #[must_use]
    pub fn node_pods(&self, index: u8) -> String {
        format!("198.19.{}.0/24", NODES_MAX * self.number + index)
    }

    /// The subnets of all its pods together.
    #[must_use]
    pub fn pods(&self) -> String {
        format!("198.19.{}.0/22", NODES_MAX * self.number)
    }

    /// The name of a node's control group.
    pub(crate) fn group(&self, index: u8) -> String {
        group(self.number, index)
    }

    /// Plugs a node in: it gets its address, and every pod of it can be reached from here.
    pub(crate) async fn connect(&self, node: &Space, index: u8) -> Result<()> {
        ensure!(index < NODES_MAX, "a network takes {NODES_MAX} nodes");
        let (node_id, switch_id) = (node.id().to_string(), self.switch.id().to_string());
        let port = format!("node{index}");
        ip([
            "link", "add", "eth0", "netns", &node_id, "type", "veth", "peer", "name", &port,
            "netns", &switch_id,
        ])
        .await?;
        self.plug(&port).await?;
        let address = format!("{}/24", self.node_address(index));
        let machine = self.address().to_string();
        let inside = async |arguments: &[&str]| node.line("ip").args(arguments).run().await;
        inside(&["address", "add", &address, "dev", "eth0"]).await?;
        inside(&["link", "set", "eth0", "up"]).await?;
        inside(&["route", "add", "default", "via", &machine]).await?;
        for other in (0..NODES_MAX).filter(|other| *other != index) {
            let (pods, via) = (self.node_pods(other), self.node_address(other).to_string());
            inside(&["route", "add", &pods, "via", &via]).await?;
        }
        let (pods, via) = (self.node_pods(index), self.node_address(index).to_string());
        ip(["route", "replace", &pods, "via", &via]).await
    }

    async fn plug(&self, port: &str) -> Result<()> {
        let arguments = ["link", "set", port, "master", "bridge", "up"];
        self.switch.line("ip").args(arguments).run().await?;
        Ok(())
    }
}

/// Takes a number that no living harness has, and removes what a dead one left of it.
fn take_number() -> Result<(u8, File)> {
    create_dir_all(NUMBERS).with_context(|| format!("making {NUMBERS}"))?;
    for number in 0..COUNT {
        let path = PathBuf::from(NUMBERS).join(format!("{number}.lock"));
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .with_context(|| format!("opening {}", path.display()))?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
            for index in 0..NODES_MAX {
                cgroups::remove(&group(number, index));
            }
            return Ok((number, file));
        }
    }
    bail!("all {COUNT} networks for tests are taken, by files in {NUMBERS}")
}

fn group(number: u8, index: u8) -> String {
    format!("rimward-{number}-{index}")
}

async fn ip<const N: usize>(arguments: [&str; N]) -> Result<()> {
    guard::install();
    let line = Line::new(Path::new("ip")).args(arguments).env("PATH", PATH);
    line.run().await?;
    Ok(())
}
