//! From one agent to the next: the listening socket changes hands over a Unix socket in the host folder.
//!
//! Owns that conversation, both ends of it ([`holder`], [`join`]). The holder of the folder's lock offers; an agent that
//! stands by asks. Whoever is not this agent's user gets nothing, and gives nothing either. Must never carry anything
//! but the listening socket: what is committed is read from the store, where it is verified.
//!
//! A conversation is one packet each way ([`Ask`], [`Answer`]), then silence: as long as it is open, the holder
//! accepts. It closes when the holder stops accepting, and when it dies, however it dies.
//!
//! Agents of different releases meet here. So fields are only ever added, readers pass over what they do not know, and
//! each side names the protocols that it speaks; where none is common, the newcomer goes without.

pub(crate) mod holder;
pub(crate) mod join;

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::net::SocketAddrUnix;
use serde::{Deserialize, Serialize};

/// The socket's name in the host folder.
const NAME: &str = "handover";
/// The protocols that this agent speaks.
const PROTOCOLS: [u32; 1] = [1];
/// How long either side waits for the other's packet.
const WITHIN: std::time::Duration = std::time::Duration::from_secs(2);

/// What an agent that stands by says first.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Ask {
    /// The protocols that it speaks.
    protocols: Vec<u32>,
    /// Its release, for logs.
    agent: String,
    /// Its network: a socket of another one is of no use to it.
    network: String,
    /// Where it is to listen.
    listen: String,
}

/// What the holder answers; beside it the listening socket, where that is of use.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    /// The protocol that is spoken; none where there is no common one.
    #[serde(default)]
    protocol: Option<u32>,
    /// The holder's release, for logs.
    #[serde(default)]
    agent: String,
    /// Why no socket comes with it, if none does.
    #[serde(default)]
    why_not: Option<String>,
}

/// This process's network, as nothing but its name.
fn network() -> io::Result<String> {
    let found = std::fs::metadata("/proc/self/ns/net")?;
    Ok(format!("{}:{}", found.dev(), found.ino()))
}

/// The socket's address by way of its folder's descriptor: the address of a Unix socket holds 107 bytes, and a host
/// folder may be deeper than that.
fn address(folder: &Path) -> io::Result<(OwnedFd, SocketAddrUnix)> {
    let opening = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = rustix::fs::open(folder, opening, Mode::empty())?;
    let path = format!("/proc/self/fd/{}/{NAME}", folder.as_raw_fd());
    Ok((folder, SocketAddrUnix::new(path)?))
}

/// What the two ends have in common.
fn common(theirs: &[u32]) -> Option<u32> {
    let spoken = PROTOCOLS.iter().filter(|it| theirs.contains(it));
    spoken.max().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agents_of_other_releases_understand_each_other_or_say_that_they_do_not() {
        assert_eq!(common(&[1, 2, 3]), Some(1));
        assert_eq!(common(&[2, 3]), None);
        assert_eq!(common(&[]), None);
        let newer = r#"{"protocols":[1,2],"agent":"9","network":"n","listen":"l","more":[1]}"#;
        let ask: Ask = serde_json::from_str(newer).unwrap();
        assert_eq!(common(&ask.protocols), Some(1));
        let answer: Answer = serde_json::from_str(r#"{"anything":{"else":true}}"#).unwrap();
        assert_eq!(answer.protocol, None);
    }
}
