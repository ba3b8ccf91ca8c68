//! Packets with file descriptors over a `SOCK_SEQPACKET` Unix socket.
//!
//! Owns framing and its bounds. It never looks into messages.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::Interest;
use tokio::net::UnixStream;

use super::{FdRole, PACKET_BYTES_MAX, PACKET_FDS_MAX};

/// Why a packet could not be sent or received.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The socket failed.
    #[error("control socket")]
    Io(#[from] io::Error),
    /// The other side is gone.
    #[error("the other side closed the control socket")]
    Closed,
    /// The packet is longer than [`PACKET_BYTES_MAX`] or has more than [`PACKET_FDS_MAX`] descriptors.
    #[error(
        "packet of {bytes} bytes and {fds} file descriptors is over the limit of {PACKET_BYTES_MAX} and {PACKET_FDS_MAX}"
    )]
    TooLarge {
        /// Length of the packet.
        bytes: usize,
        /// File descriptors beside it.
        fds: usize,
    },
    /// The packet was cut on the way.
    #[error("a packet or its file descriptors arrived truncated")]
    Truncated,
    /// The packet is not the message that was expected.
    #[error("packet does not parse")]
    Parse(#[from] serde_json::Error),
    /// The packet names other file descriptors than arrived.
    #[error("packet names {named} file descriptors, {arrived} arrived")]
    FdCount {
        /// Roles in the packet.
        named: usize,
        /// Descriptors beside it.
        arrived: usize,
    },
    /// A file descriptor that the message needs is not there.
    #[error("the packet has no file descriptor for {0:?}")]
    FdMissing(FdRole),
}

/// The file descriptors beside a packet, each with its role.
#[derive(Debug, Default)]
pub struct Fds(Vec<(FdRole, OwnedFd)>);

impl Fds {
    /// Takes the first descriptor of that role.
    pub fn take(&mut self, role: FdRole) -> Result<OwnedFd, ChannelError> {
        self.take_optional(role)
            .ok_or(ChannelError::FdMissing(role))
    }

    /// Takes the first descriptor of that role, if there is one.
    pub fn take_optional(&mut self, role: FdRole) -> Option<OwnedFd> {
        let index = self.0.iter().position(|(had, _)| *had == role)?;
        Some(self.0.remove(index).1)
    }
}

#[derive(Serialize)]
struct WireOut<'a, T> {
    fds: &'a [FdRole],
    message: &'a T,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WireIn<T> {
    fds: Vec<FdRole>,
    message: T,
}

/// Makes the two ends of a control socket, both close-on-exec.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?)
}

fn encode<T: Serialize>(
    message: &T,
    fds: &[(FdRole, BorrowedFd<'_>)],
) -> Result<Vec<u8>, ChannelError> {
    let roles: Vec<FdRole> = fds.iter().map(|(role, _)| *role).collect();
    let bytes = serde_json::to_vec(&WireOut {
        fds: &roles,
        message,
    })?;
    if bytes.len() > PACKET_BYTES_MAX || fds.len() > PACKET_FDS_MAX {
        return Err(ChannelError::TooLarge {
            bytes: bytes.len(),
            fds: fds.len(),
        });
    }
    Ok(bytes)
}

fn send_bytes(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    fds: &[(FdRole, BorrowedFd<'_>)],
) -> io::Result<()> {
    let raw: Vec<BorrowedFd<'_>> = fds.iter().map(|(_, fd)| *fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(PACKET_FDS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !raw.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&raw)) {
        return Err(io::Error::other("no room for the file descriptors"));
    }
    rustix::net::sendmsg(
        socket,
        &[IoSlice::new(bytes)],
        &mut control,
        SendFlags::NOSIGNAL,
    )?;
    Ok(())
}

/// One packet as it arrived.
struct Raw {
    bytes: Vec<u8>,
    fds: Vec<OwnedFd>,
    truncated: bool,
}

fn recv_bytes(socket: BorrowedFd<'_>) -> io::Result<Raw> {
    let mut bytes = vec![0u8; PACKET_BYTES_MAX];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(PACKET_FDS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let got = rustix::net::recvmsg(
        socket,
        &mut [IoSliceMut::new(&mut bytes)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    bytes.truncate(got.bytes);
    let truncated = got
        .flags
        .intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC);
    Ok(Raw {
        bytes,
        fds,
        truncated,
    })
}

fn decode<T: DeserializeOwned>(raw: Raw) -> Result<(T, Fds), ChannelError> {
    let Raw {
        bytes,
        fds,
        truncated,
    } = raw;
    if truncated {
        return Err(ChannelError::Truncated);
    }
    if bytes.is_empty() {
        return Err(ChannelError::Closed);
    }
    let wire: WireIn<T> = serde_json::from_slice(&bytes)?;
    if wire.fds.len() != fds.len() {
        return Err(ChannelError::FdCount {
            named: wire.fds.len(),
            arrived: fds.len(),
        });
    }
    Ok((wire.message, Fds(wire.fds.into_iter().zip(fds).collect())))
}

/// Sends one packet on a blocking socket.
pub fn send_blocking<T: Serialize>(
    socket: impl AsFd,
    message: &T,
    fds: &[(FdRole, BorrowedFd<'_>)],
) -> Result<(), ChannelError> {
    let bytes = encode(message, fds)?;
    retry(|| send_bytes(socket.as_fd(), &bytes, fds)).map_err(closed)
}

/// Receives one packet from a blocking socket.
pub fn recv_blocking<T: DeserializeOwned>(socket: impl AsFd) -> Result<(T, Fds), ChannelError> {
    decode(retry(|| recv_bytes(socket.as_fd())).map_err(closed)?)
}

fn retry<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

fn closed(error: io::Error) -> ChannelError {
    match error.kind() {
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => ChannelError::Closed,
        _ => ChannelError::Io(error),
    }
}

/// One end of a control socket in a tokio runtime. Sending and receiving take `&self`; a packet is
/// sent whole or not at all, also when the future is dropped.
#[derive(Debug)]
pub struct Channel {
    /// Not a stream: `UnixStream` is tokio's one safe owner of a foreign socket, and only its
    /// readiness is used.
    socket: UnixStream,
}

impl Channel {
    /// Wraps one end; must be called within a tokio runtime.
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        let socket = std::os::unix::net::UnixStream::from(socket);
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket: UnixStream::from_std(socket)?,
        })
    }

    /// Sends one packet. The caller keeps its descriptors. Waits while the other side does not read;
    /// callers bound that with a timeout.
    pub async fn send<T: Serialize>(
        &self,
        message: &T,
        fds: &[(FdRole, BorrowedFd<'_>)],
    ) -> Result<(), ChannelError> {
        let bytes = encode(message, fds)?;
        self.socket
            .async_io(Interest::WRITABLE, || {
                retry(|| send_bytes(self.socket.as_fd(), &bytes, fds))
            })
            .await
            .map_err(closed)
    }

    /// Receives one packet; [`ChannelError::Closed`] when the other side is gone.
    pub async fn recv<T: DeserializeOwned>(&self) -> Result<(T, Fds), ChannelError> {
        let raw = self
            .socket
            .async_io(Interest::READABLE, || {
                retry(|| recv_bytes(self.socket.as_fd()))
            })
            .await
            .map_err(closed)?;
        decode(raw)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek, Write};

    use super::super::{FromHost, PreflightReport, ToHost};
    use super::*;

    #[tokio::test]
    async fn a_packet_arrives_with_its_file_descriptors() {
        let (left, right) = pair().unwrap();
        let (left, right) = (Channel::new(left).unwrap(), Channel::new(right).unwrap());
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"bytes").unwrap();
        left.send(&ToHost::Ping {}, &[(FdRole::Model, file.as_fd())])
            .await
            .unwrap();
        let (message, mut fds) = right.recv::<ToHost>().await.unwrap();
        assert!(matches!(message, ToHost::Ping {}));
        assert!(fds.take(FdRole::NativeCode).is_err());
        let mut same = std::fs::File::from(fds.take(FdRole::Model).unwrap());
        same.rewind().unwrap();
        let mut text = String::new();
        same.read_to_string(&mut text).unwrap();
        assert_eq!(text, "bytes");
    }

    #[tokio::test]
    async fn a_closed_socket_is_told_apart_from_a_failure() {
        let (left, right) = pair().unwrap();
        let right = Channel::new(right).unwrap();
        drop(left);
        assert!(matches!(
            right.recv::<FromHost>().await,
            Err(ChannelError::Closed)
        ));
        assert!(matches!(
            right.send(&ToHost::Ping {}, &[]).await,
            Err(ChannelError::Closed)
        ));
    }

    #[test]
    fn a_packet_over_the_limit_is_refused_before_it_is_sent() {
        let (left, _right) = pair().unwrap();
        let report = PreflightReport::Failed {
            reason: super::super::FailReason::Internal,
            message: "x".repeat(PACKET_BYTES_MAX),
        };
        assert!(matches!(
            send_blocking(&left, &report, &[]),
            Err(ChannelError::TooLarge { .. })
        ));
    }

    #[test]
    fn a_message_with_unknown_fields_is_refused() {
        let (left, right) = pair().unwrap();
        send_bytes(
            left.as_fd(),
            br#"{"fds":[],"message":{"type":"ping","more":1}}"#,
            &[],
        )
        .unwrap();
        assert!(matches!(
            recv_blocking::<ToHost>(&right),
            Err(ChannelError::Parse(_))
        ));
    }
}
