//! Children of a supervisor that is gone before they could ask to die with it.

use std::io::{Read, Seek};
use std::process::{Command, Stdio};

use rimward_node_agent::proto::channel::{Channel, ChannelError, pair};
use rimward_node_agent::proto::{FromHost, HostLimits, PreflightReport, ToHost};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::host_support::{PATIENCE, Package};

/// Starts a child whose parent, a shell, ends at once, and sends it its first message; gives what it answers
/// and what it logs.
async fn orphan<A: DeserializeOwned>(
    subcommand: &str,
    first: &impl Serialize,
) -> (Result<A, ChannelError>, String) {
    let (ours, theirs) = pair().unwrap();
    let mut log = tempfile::tempfile().unwrap();
    let status = Command::new("/bin/sh")
        // A shell gives what it leaves behind another standard input, unless told.
        .args(["-c", "exec 3<&0; \"$0\" \"$1\" <&3 3<&- &"])
        .args([env!("CARGO_BIN_EXE_rimward-node-agent"), subcommand])
        .stdin(Stdio::from(theirs))
        .stderr(Stdio::from(log.try_clone().unwrap()))
        .status()
        .unwrap();
    assert!(status.success(), "{status}");
    let channel = Channel::new(ours).unwrap();
    match channel.send(first, &[]).await {
        Ok(()) | Err(ChannelError::Closed) => {}
        Err(error) => panic!("{error}"),
    }
    let said = tokio::time::timeout(PATIENCE, channel.recv::<A>()).await;
    let said = said.expect("it says nothing and does not end");
    let mut text = String::new();
    log.rewind().unwrap();
    log.read_to_string(&mut text).unwrap();
    (said.map(|(said, _)| said), text)
}

#[tokio::test]
async fn a_child_whose_supervisor_died_before_it_began_ends_without_doing_anything() {
    let limits = HostLimits::default();
    let (host, log) = orphan::<FromHost>("host", &ToHost::Start { limits }).await;
    assert!(matches!(host, Err(ChannelError::Closed)), "{host:?}");
    assert!(log.contains("the supervisor is gone"), "{log}");
    let job = Package::good().job();
    let (preflight, log) = orphan::<PreflightReport>("preflight", &job).await;
    assert!(
        matches!(preflight, Err(ChannelError::Closed)),
        "{preflight:?}"
    );
    assert!(log.contains("the supervisor is gone"), "{log}");
}
