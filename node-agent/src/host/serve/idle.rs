//! Which connections wait for nothing but their client's next request, and since when.
//!
//! Owns the choice of the one that makes way for a new client. Must never choose one that has a request
//! in hand or an answer on its way.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use tokio::sync::Notify;

use crate::host::engine::lock;

/// The open connections.
#[derive(Debug, Default)]
pub(super) struct Open {
    table: Mutex<Table>,
    went_idle: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Table {
    connections: BTreeMap<u64, Arc<Connection>>,
    last_id: u64,
}

/// What one connection is doing, as its own task tells.
#[derive(Debug)]
pub(super) struct Connection {
    state: Mutex<State>,
    dismissed: Notify,
    went_idle: Arc<Notify>,
}

#[derive(Debug)]
struct State {
    doing: Doing,
    dismissed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doing {
    /// No whole head of a request is here: it may never come.
    Idle(Instant),
    /// A request is here and has no answer yet.
    Asked,
    /// The answer is being written.
    Answering,
}

/// Takes its connection off the table when dropped.
#[derive(Debug)]
pub(super) struct Entry<'a> {
    open: &'a Open,
    id: u64,
    pub(super) connection: Arc<Connection>,
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        lock(&self.open.table).connections.remove(&self.id);
    }
}

impl Open {
    /// Puts a connection on the table.
    pub(super) fn enter(&self) -> Entry<'_> {
        let connection = Arc::new(Connection {
            state: Mutex::new(State {
                doing: Doing::Idle(Instant::now()),
                dismissed: false,
            }),
            dismissed: Notify::new(),
            went_idle: Arc::clone(&self.went_idle),
        });
        let mut table = lock(&self.table);
        table.last_id += 1;
        let id = table.last_id;
        table.connections.insert(id, Arc::clone(&connection));
        Entry {
            open: self,
            id,
            connection,
        }
    }

    /// Tells the connection that has been idle longest to end. False where none is idle.
    pub(super) fn dismiss_longest_idle(&self) -> bool {
        let table = lock(&self.table);
        let idle = table.connections.values().filter_map(|connection| {
            let since = connection.idle_since()?;
            Some((since, connection))
        });
        match idle.min_by_key(|(since, _)| *since) {
            Some((_, connection)) => connection.dismiss(),
            None => false,
        }
    }

    /// Ends when a connection goes idle after this was made.
    pub(super) fn went_idle(&self) -> tokio::sync::futures::Notified<'_> {
        self.went_idle.notified()
    }
}

impl Connection {
    /// A request's head is here.
    pub(super) fn asked(&self) {
        lock(&self.state).doing = Doing::Asked;
    }

    /// Its answer is ready to be written.
    pub(super) fn answered(&self) {
        lock(&self.state).doing = Doing::Answering;
    }

    /// Everything that was ready to be written is.
    pub(super) fn written(&self) {
        let mut state = lock(&self.state);
        if state.doing == Doing::Answering {
            state.doing = Doing::Idle(Instant::now());
            drop(state);
            self.went_idle.notify_waiters();
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        matches!(lock(&self.state).doing, Doing::Idle(_))
    }

    /// Ends once the connection was told to end.
    pub(super) async fn dismissed(&self) {
        self.dismissed.notified().await;
    }

    /// Since when it is idle, unless it was told to end already.
    fn idle_since(&self) -> Option<Instant> {
        let state = lock(&self.state);
        match state.doing {
            Doing::Idle(since) => (!state.dismissed).then_some(since),
            Doing::Asked | Doing::Answering => None,
        }
    }

    /// False where a request came meanwhile.
    fn dismiss(&self) -> bool {
        let mut state = lock(&self.state);
        let idle = matches!(state.doing, Doing::Idle(_));
        if idle {
            state.dismissed = true;
            self.dismissed.notify_one();
        }
        idle
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn of_the_idle_connections_the_one_idle_longest_is_dismissed_and_only_once() {
        let open = Open::default();
        let (first, second, third) = (open.enter(), open.enter(), open.enter());
        for entry in [&first, &second] {
            entry.connection.asked();
            entry.connection.answered();
        }
        // The second is idle again before the first; the third never was anything else.
        second.connection.written();
        first.connection.written();
        for entry in [&third, &second, &first] {
            assert!(open.dismiss_longest_idle());
            assert!(entry.connection.dismissed().now_or_never().is_some());
        }
        assert!(!open.dismiss_longest_idle());
    }

    #[test]
    fn a_connection_with_a_request_in_hand_or_an_answer_on_its_way_is_not_dismissed() {
        let open = Open::default();
        let entry = open.enter();
        entry.connection.asked();
        assert!(!open.dismiss_longest_idle());
        // Nothing of the answer is there yet.
        entry.connection.written();
        assert!(!open.dismiss_longest_idle());
        entry.connection.answered();
        assert!(!open.dismiss_longest_idle());
        entry.connection.written();
        assert!(open.dismiss_longest_idle());
    }

    #[test]
    fn a_closed_connection_is_off_the_table() {
        let open = Open::default();
        drop(open.enter());
        assert!(!open.dismiss_longest_idle());
    }
}
