//! Where a standby listens: on the holder's own socket where both are in one network, else on one of its own.
//!
//! Owns how it gets that socket. Whether anything is accepted on it is [`rimward_core::node::stand`]'s to say.

use std::net::TcpListener;
use std::time::Duration;

use anyhow::Context;
use rimward_core::node::Socket;
use tokio::time::Instant;

use super::super::Event;
use super::super::deployment::Task;
use super::Standby;
use crate::handover::join::join;

/// How often a socket is asked for, where there is none yet.
const SOCKET_PERIOD: Duration = Duration::from_millis(500);
/// How long the address may still be in use once the holder is gone: its host dies a moment after it.
const IN_USE_WITHIN: Duration = Duration::from_secs(10);

impl Standby {
    /// Gets a listening socket: the holder's own where both are in one network, else one of its own.
    ///
    /// # Errors
    /// When the holder is gone, and the address is still in use.
    pub(super) async fn find_socket(&mut self) -> anyhow::Result<()> {
        let since_asked = self.asked_at.map(|at| at.elapsed());
        if self.socket != Socket::None || since_asked.is_some_and(|since| since < SOCKET_PERIOD) {
            return Ok(());
        }
        self.asked_at = Some(Instant::now());
        let listen = self.ends.config.listen;
        let joined = match &self.lock {
            None => join(&self.ends.config.data_folder, listen).await,
            Some(_) => Err(anyhow::anyhow!("the holder is gone")),
        };
        let why_not = match joined {
            Ok(joined) => match &joined.listener {
                Ok(listener) => {
                    self.ends
                        .hosts
                        .listen(listener.try_clone().context("listening socket")?);
                    self.socket = Socket::Shared;
                    tracing::info!(%listen, "standing by on the holder's own socket");
                    let events = self.ends.events.clone();
                    self.conversation = Some(Task::spawn(async move {
                        joined.holder_leaves().await;
                        let _ = events.send(Event::HolderLeaves).await;
                    }));
                    return Ok(());
                }
                Err(why_not) => why_not.clone(),
            },
            Err(error) => format!("{error:#}"),
        };
        match TcpListener::bind(listen) {
            Ok(listener) => {
                tracing::info!(%listen, why_not, "standing by on a socket of its own");
                self.ends.hosts.listen(listener);
                self.socket = Socket::Own;
                Ok(())
            }
            Err(error) => {
                let gone_for = self.lock.as_ref().map(|(_, since)| since.elapsed());
                if gone_for.is_some_and(|since| since > IN_USE_WITHIN) {
                    return Err(error).with_context(|| format!("listen on {listen} (--listen)"));
                }
                self.tell(format!(
                    "listen on {listen}: {error}; its holder gives no socket: {why_not}"
                ));
                Ok(())
            }
        }
    }
}
