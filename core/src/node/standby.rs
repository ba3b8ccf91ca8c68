//! What an agent may do while another one holds the device's record, and when it takes over.
//!
//! Owns this table. Must never look at the world: the agent says how it stands.

use super::state::Millis;

/// How long the record's new holder waits for what is committed to be loaded before it takes over all the same: orders
/// and reports must not wait for ever.
pub const CATCH_UP_MILLISECONDS: Millis = 30_000;

/// Where the standby's connections come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Socket {
    /// Nowhere yet: the address is in use by one that does not hand it over.
    None,
    /// A socket of its own, as in a pod's own network.
    Own,
    /// The holder's own socket, handed over; what waits in it waits for both.
    Shared,
}

/// How a standby stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Situation {
    /// Where connections come from.
    pub socket: Socket,
    /// The holder still accepts, as far as it has said: it ends by telling, or by dying.
    pub holder_accepts: bool,
    /// The lock is this agent's: the holder is gone.
    pub has_lock: bool,
    /// Everything that is committed and may run is loaded.
    pub is_caught_up: bool,
    /// How long the lock has been this agent's.
    pub has_lock_for: Millis,
}

/// What follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stand {
    /// It may be told as ready: it would answer, or does.
    pub is_ready: bool,
    /// Its host accepts connections.
    pub accepts: bool,
    /// It recovers the record as its own, and follows orders.
    pub takes_over: bool,
}

/// Decides. On a socket that both have, one at a time accepts: a trial of the holder's is not halved, and what comes
/// between the two waits in the kernel.
#[must_use]
pub fn stand(situation: Situation) -> Stand {
    let Situation {
        socket,
        holder_accepts,
        has_lock,
        is_caught_up,
        has_lock_for,
    } = situation;
    Stand {
        is_ready: is_caught_up && socket != Socket::None,
        accepts: match socket {
            Socket::None => false,
            Socket::Own => true,
            Socket::Shared => has_lock || !holder_accepts,
        },
        takes_over: has_lock
            && socket != Socket::None
            && (is_caught_up || has_lock_for >= CATCH_UP_MILLISECONDS),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ready, accepts, takes over: for each socket, and each of the other three questions.
    #[test]
    fn the_table_of_standing_by() {
        use Socket::{None, Own, Shared};
        // socket, holder accepts, has lock, caught up -> ready, accepts, takes over
        let table = [
            (None, true, false, false, false, false, false),
            (None, true, false, true, false, false, false),
            (None, true, true, false, false, false, false),
            (None, true, true, true, false, false, false),
            (None, false, false, false, false, false, false),
            (None, false, false, true, false, false, false),
            (None, false, true, false, false, false, false),
            (None, false, true, true, false, false, false),
            (Own, true, false, false, false, true, false),
            (Own, true, false, true, true, true, false),
            (Own, true, true, false, false, true, false),
            (Own, true, true, true, true, true, true),
            (Own, false, false, false, false, true, false),
            (Own, false, false, true, true, true, false),
            (Own, false, true, false, false, true, false),
            (Own, false, true, true, true, true, true),
            (Shared, true, false, false, false, false, false),
            (Shared, true, false, true, true, false, false),
            (Shared, true, true, false, false, true, false),
            (Shared, true, true, true, true, true, true),
            (Shared, false, false, false, false, true, false),
            (Shared, false, false, true, true, true, false),
            (Shared, false, true, false, false, true, false),
            (Shared, false, true, true, true, true, true),
        ];
        for (socket, holder_accepts, has_lock, is_caught_up, is_ready, accepts, takes_over) in table
        {
            let situation = Situation {
                socket,
                holder_accepts,
                has_lock,
                is_caught_up,
                has_lock_for: 0,
            };
            let wanted = Stand {
                is_ready,
                accepts,
                takes_over,
            };
            assert_eq!(stand(situation), wanted, "{situation:?}");
        }
    }

    #[test]
    fn what_never_loads_does_not_keep_the_node_from_its_orders_for_ever() {
        let situation = |has_lock_for| Situation {
            socket: Socket::Own,
            holder_accepts: false,
            has_lock: true,
            is_caught_up: false,
            has_lock_for,
        };
        assert!(!stand(situation(CATCH_UP_MILLISECONDS - 1)).takes_over);
        assert!(stand(situation(CATCH_UP_MILLISECONDS)).takes_over);
    }
}
