//! The command line of the agent.
//!
//! Owns names, defaults and bounds of flags. Must never start anything.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Rimward's node agent: brings signed models onto this device and keeps them serving.
#[derive(Debug, Parser)]
#[command(
    name = "rimward-node-agent",
    version,
    about,
    args_conflicts_with_subcommands = true
)]
pub struct Cli {
    /// What to do; run, when nothing is said.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Flags of run.
    #[command(flatten)]
    pub run: Option<Run>,
}

/// What the agent can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the agent (the default).
    Run(Box<Run>),
    /// Make the data folder and give it to the user that the agent runs as, then end: an init container's work. It
    /// needs root with the capability CHOWN and no other.
    Prepare(Prepare),
}

/// Flags of `prepare`.
#[derive(Debug, Clone, Args)]
pub struct Prepare {
    /// Folder of the store: made if it is missing, with what an earlier agent left in it given away too.
    #[arg(long, default_value = "/var/lib/rimward")]
    pub data_dir: PathBuf,
    /// Whose it is to be.
    #[arg(long, value_name = "UID:GID", value_parser = parse_owner)]
    pub owner: Owner,
}

/// A user and a group, by number: an image knows no names of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
}

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.uid, self.gid)
    }
}

/// Flags of `run`.
#[derive(Debug, Clone, Args)]
pub struct Run {
    /// Name of this node: the EdgeNode and the Lease are named after it.
    #[arg(long, env = "NODE_NAME", value_parser = parse_node_name)]
    pub node_name: String,
    /// Folder of the store; made if it is missing.
    #[arg(long, default_value = "/var/lib/rimward")]
    pub data_dir: PathBuf,
    /// The device's trust file: who may sign what runs here.
    #[arg(long, default_value = "/etc/rimward/trust.yaml")]
    pub trust: PathBuf,
    /// Read orders from a folder of EdgeNode documents instead of Kubernetes, and write
    /// status.yaml into the data folder.
    #[arg(long, conflicts_with = "kubeconfig")]
    pub manifests: Option<PathBuf>,
    /// Kubeconfig of the edge cluster; the pod's own account when absent.
    #[arg(long)]
    pub kubeconfig: Option<PathBuf>,
    /// Address and port of the inference endpoint (REST).
    #[arg(long, default_value = "0.0.0.0:8080")]
    pub listen: SocketAddr,
    /// Host and port that status names for the endpoint; by default the listening address.
    #[arg(long)]
    pub advertise: Option<String>,
    /// Address and port of /healthz, /readyz and /metrics; none when absent.
    #[arg(long)]
    pub metrics_listen: Option<SocketAddr>,
    /// Registry host (host[:port]) that may be spoken to without TLS; may be given more than once.
    #[arg(long, value_name = "HOST")]
    pub plain_http: Vec<String>,
    /// Docker configuration file with credentials of registries.
    #[arg(long, value_name = "FILE")]
    pub registry_config: Option<PathBuf>,
    /// More certificate authorities for registries, PEM.
    #[arg(long, value_name = "FILE")]
    pub registry_ca: Option<PathBuf>,
    /// Labels of the EdgeNode (key=value, comma-separated) beside those of the Node.
    #[arg(long, value_delimiter = ',', value_parser = parse_label)]
    pub node_labels: Vec<(String, String)>,
    /// Seconds between renewals of the node's Lease.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub lease_seconds: u32,
    /// Resident memory at which the host is replaced.
    #[arg(long, default_value_t = 2 << 30, value_parser = clap::value_parser!(u64).range((64 << 20)..))]
    pub host_memory_bytes: u64,
    /// Memory of one preflight.
    #[arg(long, default_value_t = 2 << 30, value_parser = clap::value_parser!(u64).range((64 << 20)..))]
    pub preflight_memory_bytes: u64,
    /// Wall-clock time of one preflight.
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub preflight_seconds: u32,
    /// Where another agent holds the data folder, stand by instead of ending: serve what it has committed, write
    /// nothing, and take over when it lets go. So a new agent is started beside the old one, which then is stopped,
    /// and no request fails (a DaemonSet's maxSurge 1).
    #[arg(long)]
    pub standby: bool,
    /// Seconds for which the agent serves on after SIGTERM, told as not ready to those who poll (503 at /v2/health/ready), so
    /// that endpoints and load balancers notice; then it answers what comes with `Connection: close` and leaves within
    /// 5 seconds more. A second SIGTERM ends it at once. A pod's terminationGracePeriodSeconds must be at least this
    /// plus 10.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=600))]
    pub drain_seconds: u32,
    /// Log as JSON lines.
    #[arg(long)]
    pub log_json: bool,
}

impl Run {
    /// The labels as a map.
    #[must_use]
    pub fn labels(&self) -> BTreeMap<String, String> {
        self.node_labels.iter().cloned().collect()
    }
}

fn parse_owner(text: &str) -> Result<Owner, String> {
    let parse = |text: &str| text.parse::<u32>().ok().filter(|id| *id != u32::MAX);
    text.split_once(':')
        .and_then(|(uid, gid)| Some((parse(uid)?, parse(gid)?)))
        .map(|(uid, gid)| Owner { uid, gid })
        .ok_or_else(|| format!("{text:?} is not UID:GID, such as 65532:65532"))
}

fn parse_node_name(text: &str) -> Result<String, String> {
    text.parse::<rimward_core::ids::NodeName>()
        .map(|name| name.to_string())
        .map_err(|error| error.to_string())
}

fn parse_label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text
        .split_once('=')
        .ok_or_else(|| format!("{text:?} is not key=value"))?;
    if key.is_empty() || key.len() > 317 || value.len() > 63 {
        return Err(format!(
            "{text:?}: key of 1 to 317, value of at most 63 characters"
        ));
    }
    Ok((key.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flags_are_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn an_owner_is_two_numbers() {
        assert_eq!(
            parse_owner("65532:0").unwrap(),
            Owner { uid: 65532, gid: 0 }
        );
        for wrong in [
            "65532",
            "nobody:nogroup",
            "1:-1",
            "4294967295:1",
            "1:2:3",
            "",
        ] {
            assert!(parse_owner(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn run_is_the_default_and_may_be_said() {
        let bare = Cli::try_parse_from(["agent", "--node-name", "n1", "--node-labels", "a=b,c=d"]);
        let run = bare.unwrap().run.unwrap();
        assert_eq!(run.labels().len(), 2);
        let said = Cli::try_parse_from(["agent", "run", "--node-name", "n1"]).unwrap();
        assert!(matches!(said.command, Some(Command::Run(_))));
        assert!(Cli::try_parse_from(["agent", "--node-name", "Not_A_Name"]).is_err());
        let both = [
            "agent",
            "--node-name",
            "n",
            "--manifests",
            "m",
            "--kubeconfig",
            "k",
        ];
        assert!(Cli::try_parse_from(both).is_err());
    }
}
