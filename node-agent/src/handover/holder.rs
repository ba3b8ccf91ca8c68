//! The holder's end: offers the listening socket to the agent that will come after it.
//!
//! Owns the socket in the host folder, and who is spoken to. Bounded: a few conversations at a time, one packet each.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::{Answer, Ask, NAME, PROTOCOLS, WITHIN, address, common, network};
use crate::proto::FdRole;
use crate::proto::channel::Channel;

/// Agents that stand by at one time: one, and one more while that is replaced itself.
const CONVERSATIONS_MAX: usize = 4;
/// Between two tries to make the socket, such as on a disk that is full.
const RETRY: Duration = Duration::from_secs(30);
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Offers a listening socket for as long as this is polled. Dropping it closes every conversation, which tells the
/// others that this agent accepts no more. Only the holder of the folder's lock may.
pub(crate) async fn offer(folder: PathBuf, listener: TcpListener, listen: SocketAddr) {
    let mut told = false;
    let socket = loop {
        match bind(&folder) {
            Ok(socket) => break socket,
            Err(error) if !told => {
                told = true;
                tracing::warn!(
                    folder = %folder.display(), %error,
                    "no handover socket: an agent that is started beside this one must make do without"
                );
            }
            Err(_) => {}
        }
        sleep(RETRY).await;
    };
    let mut conversations = JoinSet::new();
    loop {
        while conversations.try_join_next().is_some() {}
        let stream = match socket.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::debug!(%error, "handover");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        if conversations.len() >= CONVERSATIONS_MAX || !is_ours(&stream) {
            continue;
        }
        if let Ok(listener) = listener.try_clone() {
            conversations.spawn(converse(stream, listener, listen));
        }
    }
}

fn bind(folder: &Path) -> io::Result<UnixListener> {
    let path = folder.join(NAME);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let (_folder, address) = address(folder)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    rustix::net::bind(&socket, &address)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    rustix::net::listen(&socket, 4)?;
    UnixListener::from_std(std::os::unix::net::UnixListener::from(socket))
}

/// The folder is closed to others, but folders are opened by mistake.
fn is_ours(stream: &UnixStream) -> bool {
    let own = rustix::process::geteuid().as_raw();
    match stream.peer_cred() {
        Ok(peer) if peer.uid() == own => true,
        Ok(peer) => {
            tracing::warn!(
                uid = peer.uid(),
                pid = peer.pid(),
                "a stranger at the handover socket gets nothing"
            );
            false
        }
        Err(_) => false,
    }
}

async fn converse(stream: UnixStream, listener: TcpListener, listen: SocketAddr) {
    let outcome = async {
        let channel = Channel::new(OwnedFd::from(stream.into_std()?))?;
        let (ask, _) = timeout(WITHIN, channel.recv::<Ask>()).await??;
        let answer = answer(&ask, &network()?, listen);
        let fds = match &answer.why_not {
            None => vec![(FdRole::RestListener, listener.as_fd())],
            Some(_) => Vec::new(),
        };
        timeout(WITHIN, channel.send(&answer, &fds)).await??;
        tracing::info!(
            agent = ask.agent,
            socket = answer.why_not.as_deref().unwrap_or("handed over"),
            "an agent stands by"
        );
        // Open for as long as this agent accepts, or until the other one is gone.
        let _ = channel.recv::<Ask>().await;
        tracing::info!("the agent that stood by is gone");
        Ok::<(), anyhow::Error>(())
    };
    if let Err(error) = outcome.await {
        tracing::warn!(error = format!("{error:#}"), "handover");
    }
}

/// A socket of another network, or of another address, is of no use to who asks.
fn answer(ask: &Ask, network: &str, listen: SocketAddr) -> Answer {
    let protocol = common(&ask.protocols);
    let why_not = match protocol {
        None => Some(format!(
            "protocols {:?} are not spoken here, {PROTOCOLS:?} are",
            ask.protocols.iter().take(8).collect::<Vec<_>>()
        )),
        Some(_) if ask.network != network => Some("it has a network of its own".to_owned()),
        Some(_) if ask.listen != listen.to_string() => {
            Some(format!("this agent listens on {listen}"))
        }
        Some(_) => None,
    };
    Answer {
        protocol,
        agent: env!("CARGO_PKG_VERSION").to_owned(),
        why_not,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_goes_only_to_one_that_can_use_it() {
        let listen: SocketAddr = "0.0.0.0:8080".parse().unwrap();
        let ask = |protocols: &[u32], network: &str, listen: &str| Ask {
            protocols: protocols.to_vec(),
            agent: "1".into(),
            network: network.into(),
            listen: listen.into(),
        };
        let check = |ask: Ask, words: &str| {
            let why_not = answer(&ask, "4:1", listen).why_not.unwrap_or_default();
            assert!(
                why_not.contains(words) && why_not.is_empty() == words.is_empty(),
                "{why_not}"
            );
        };
        check(ask(&[1], "4:1", "0.0.0.0:8080"), "");
        check(ask(&[1, 7], "4:1", "0.0.0.0:8080"), "");
        check(ask(&[7], "4:1", "0.0.0.0:8080"), "protocols [7]");
        check(ask(&[1], "4:2", "0.0.0.0:8080"), "network of its own");
        check(ask(&[1], "4:1", "0.0.0.0:9090"), "listens on 0.0.0.0:8080");
    }
}
