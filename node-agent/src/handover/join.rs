//! The newcomer's end: asks the folder's holder for the listening socket, and notices when that accepts no more.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::net::{AddressFamily, SocketFlags, SocketType};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::{Answer, Ask, PROTOCOLS, WITHIN, address, network};
use crate::proto::FdRole;
use crate::proto::channel::Channel;

/// A conversation with the holder.
#[derive(Debug)]
pub(crate) struct Joined {
    /// The holder's listening socket, or why there is none.
    pub listener: Result<TcpListener, String>,
    /// Kept open by a holder that accepts.
    held: Channel,
}

impl Joined {
    /// Ends when the holder accepts no more: it said so, or it is dead.
    pub(crate) async fn holder_leaves(self) {
        // Nothing more is said, so whatever comes is an end.
        let _ = self.held.recv::<Answer>().await;
    }
}

/// Speaks to whoever holds the folder.
///
/// # Errors
/// When there is nobody to speak to, or it is no agent of this user.
pub(crate) async fn join(folder: &Path, listen: SocketAddr) -> anyhow::Result<Joined> {
    let channel = Channel::new(connect(folder)?)?;
    let ask = Ask {
        protocols: PROTOCOLS.to_vec(),
        agent: env!("CARGO_PKG_VERSION").to_owned(),
        network: network()?,
        listen: listen.to_string(),
    };
    timeout(WITHIN, channel.send(&ask, &[])).await??;
    let (answer, mut fds) = timeout(WITHIN, channel.recv::<Answer>()).await??;
    let listener = match (fds.take_optional(FdRole::RestListener), answer.why_not) {
        (Some(fd), _) => check(TcpListener::from(fd), listen),
        (None, why_not) => Err(why_not.unwrap_or_else(|| "it gave none".to_owned())),
    };
    Ok(Joined {
        listener,
        held: channel,
    })
}

/// Another socket than the one that was asked for is not listened on.
fn check(listener: TcpListener, listen: SocketAddr) -> Result<TcpListener, String> {
    match listener.local_addr() {
        Ok(address) if address == listen => Ok(listener),
        Ok(address) => Err(format!("it gave one that listens on {address}")),
        Err(error) => Err(format!("it gave no listening socket: {error}")),
    }
}

fn connect(folder: &Path) -> io::Result<OwnedFd> {
    let (_folder, address) = address(folder)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    rustix::net::connect(&socket, &address)?;
    // Not by rustix: the holder in another pod has no process number here, and rustix takes its 0 for an error.
    let stream = UnixStream::from_std(std::os::unix::net::UnixStream::from(socket))?;
    let peer = stream.peer_cred()?.uid();
    if peer != rustix::process::geteuid().as_raw() {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!("the handover socket is user {peer}'s"),
        ));
    }
    Ok(OwnedFd::from(stream.into_std()?))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::holder::offer;
    use super::*;

    async fn joined(folder: &Path, listen: SocketAddr) -> Joined {
        loop {
            match join(folder, listen).await {
                Ok(joined) => return joined,
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    }

    #[tokio::test]
    async fn the_socket_changes_hands_with_what_waits_in_it_and_the_end_of_the_holder_is_noticed() {
        // Deeper than the address of a Unix socket is long.
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("d".repeat(120));
        std::fs::create_dir(&folder).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let listen = listener.local_addr().unwrap();
        let holder = tokio::spawn(offer(folder.clone(), listener.try_clone().unwrap(), listen));
        let joined = joined(&folder, listen).await;
        let next = joined.listener.as_ref().unwrap().try_clone().unwrap();
        let leaves = joined.holder_leaves();
        tokio::pin!(leaves);
        let early = tokio::time::timeout(Duration::from_millis(50), leaves.as_mut()).await;
        assert!(early.is_err(), "the holder accepts still");

        // A connection that nobody accepted: it outlives the old holder of the socket.
        let waits = std::net::TcpStream::connect(listen).unwrap();
        holder.abort();
        drop(listener);
        leaves.await;
        let (_, client) = next.accept().unwrap();
        assert_eq!(client, waits.local_addr().unwrap());
    }

    #[tokio::test]
    async fn one_that_listens_elsewhere_gets_no_socket_and_the_next_holder_takes_the_name() {
        let root = tempfile::tempdir().unwrap();
        assert!(
            join(root.path(), "127.0.0.1:1".parse().unwrap())
                .await
                .is_err()
        );
        for _ in 0..2 {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let listen = listener.local_addr().unwrap();
            let holder = tokio::spawn(offer(root.path().to_owned(), listener, listen));
            let other = joined(root.path(), "127.0.0.1:1".parse().unwrap()).await;
            let why_not = other.listener.unwrap_err();
            assert!(why_not.contains(&listen.to_string()), "{why_not}");
            holder.abort();
            let _ = holder.await;
        }
    }
}
