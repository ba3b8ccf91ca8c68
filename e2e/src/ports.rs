//! Free ports on loopback.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::{Mutex, PoisonError};

use anyhow::{Result, bail};

/// Below Linux's range for outgoing connections (32768 and up): a port from that range may be taken by
/// any client between the moment it is chosen here and the moment its server listens.
const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;

/// Chooses a port that nobody listens on, and that no other call in this process was given.
///
/// # Errors
/// When none is left.
pub fn free_port() -> Result<u16> {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    // Two harnesses at once begin at different places.
    let start = u16::try_from(u64::from(std::process::id()) * 97 % u64::from(COUNT)).unwrap_or(0);
    for step in 0..COUNT {
        let port = FIRST + (start + step) % COUNT;
        if !given.contains(&port) && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            given.insert(port);
            return Ok(port);
        }
    }
    bail!(
        "no free port on 127.0.0.1 from {FIRST} to {}",
        FIRST + COUNT - 1
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_port_is_given_twice() {
        let ports: BTreeSet<u16> = (0..50).map(|_| free_port().unwrap()).collect();
        assert_eq!(ports.len(), 50);
    }
}
