//! Memory for what goes over the wire: bodies that come in, answers that go out.
//!
//! Owns one account for the whole endpoint. Bytes take room before they take memory, as they come, so
//! that a length that is only claimed holds nothing; there is no waiting for room. An answer takes over
//! the room of its request, which is gone by then, and keeps its own until it is sent.

use std::fmt;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The grain of the account.
const GRAIN_BYTES: u64 = 1024;
/// What is taken at first where it is not known how much will come.
const FIRST_BYTES: u64 = 16 << 10;

/// The account.
#[derive(Clone, Debug)]
pub(super) struct Rooms(Arc<Semaphore>);

/// What one request holds of it.
#[derive(Debug)]
pub(super) struct Room {
    rooms: Rooms,
    held: Option<OwnedSemaphorePermit>,
}

/// Why bytes were not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// More than one body or answer may have: so many.
    TooLarge(u64),
    /// Others have what there is.
    NoRoom,
}

fn grains(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(GRAIN_BYTES)).unwrap_or(u32::MAX)
}

impl Rooms {
    pub(super) fn new(bytes_max: u64) -> Self {
        let grains = (grains(bytes_max) as usize).clamp(1, Semaphore::MAX_PERMITS);
        Self(Arc::new(Semaphore::new(grains)))
    }

    /// A share that holds nothing yet.
    pub(super) fn enter(&self) -> Room {
        Room {
            rooms: self.clone(),
            held: None,
        }
    }

    #[cfg(test)]
    pub(super) fn free_bytes(&self) -> u64 {
        self.0.available_permits() as u64 * GRAIN_BYTES
    }
}

impl Room {
    /// Holds at least that much, or what it held.
    fn grow_to(&mut self, bytes: u64) -> Result<(), Full> {
        let held = self
            .held
            .as_ref()
            .map_or(0, OwnedSemaphorePermit::num_permits);
        let more = grains(bytes).saturating_sub(held as u32);
        let more = Arc::clone(&self.rooms.0).try_acquire_many_owned(more);
        let more = more.map_err(|_| Full::NoRoom)?;
        match &mut self.held {
            Some(held) => held.merge(more),
            None => self.held = Some(more),
        }
        Ok(())
    }

    /// Holds at most that much.
    fn shrink_to(&mut self, bytes: u64) {
        if let Some(held) = &mut self.held {
            let over = held.num_permits().saturating_sub(grains(bytes) as usize);
            drop(held.split(over));
        }
    }

    /// Bytes to be collected on this share, at most so many.
    pub(super) fn collect(&mut self, bytes_max: u64) -> Collected<'_> {
        Collected {
            bytes: Vec::new(),
            room: self,
            bytes_max,
            full: None,
        }
    }
}

/// Bytes, and text, that take room before they take memory.
#[derive(Debug)]
pub(super) struct Collected<'a> {
    bytes: Vec<u8>,
    room: &'a mut Room,
    bytes_max: u64,
    full: Option<Full>,
}

impl Collected<'_> {
    /// Adds all of `more`, or nothing.
    pub(super) fn add(&mut self, more: &[u8]) -> Result<(), Full> {
        let wanted = self.bytes.len().saturating_add(more.len());
        if wanted > self.bytes.capacity() {
            self.make_room(wanted as u64).inspect_err(|full| {
                self.full = Some(*full);
            })?;
        }
        self.bytes.extend_from_slice(more);
        Ok(())
    }

    fn make_room(&mut self, wanted: u64) -> Result<(), Full> {
        if wanted > self.bytes_max {
            return Err(Full::TooLarge(self.bytes_max));
        }
        let twice = (self.bytes.capacity() as u64).saturating_mul(2);
        let bytes = wanted.max(twice).max(FIRST_BYTES).min(self.bytes_max);
        // Where there is none for what may still come, what has come is enough.
        let bytes = match self.room.grow_to(bytes) {
            Ok(()) => bytes,
            Err(_) => self.room.grow_to(wanted).map(|()| wanted)?,
        };
        let more = (bytes as usize).saturating_sub(self.bytes.len());
        self.bytes.reserve_exact(more);
        Ok(())
    }

    /// Why text was cut: `std::fmt` does not say.
    pub(super) fn full(&self) -> Option<Full> {
        self.full
    }

    /// The bytes; the share holds as much as they have.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.bytes.shrink_to_fit();
        self.room.shrink_to(self.bytes.len() as u64);
        self.bytes
    }
}

impl fmt::Write for Collected<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.add(text.as_bytes()).map_err(|_| fmt::Error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY_BYTES_MAX: u64 = 100_000;

    #[test]
    fn bytes_hold_room_for_themselves_and_give_it_back_with_their_share() {
        let rooms = Rooms::new(200_000);
        let all = rooms.free_bytes();
        let mut room = rooms.enter();
        let mut body = room.collect(BODY_BYTES_MAX);
        for _ in 0..50 {
            body.add(&[7; 1000]).unwrap();
            assert!(body.bytes.capacity() as u64 <= all - rooms.free_bytes());
        }
        assert_eq!(body.finish().len(), 50_000);
        assert_eq!(all - rooms.free_bytes(), 49 * 1024);
        // The answer takes the body's room over, and more where it is longer.
        let mut answer = room.collect(BODY_BYTES_MAX);
        answer.add(&[7; 40_000]).unwrap();
        assert_eq!(all - rooms.free_bytes(), 49 * 1024);
        answer.add(&[7; 40_000]).unwrap();
        assert_eq!(answer.finish().len(), 80_000);
        assert_eq!(all - rooms.free_bytes(), 79 * 1024);
        drop(room);
        assert_eq!(rooms.free_bytes(), all);
    }

    #[test]
    fn one_too_large_is_refused_at_the_byte_that_is_too_many() {
        let rooms = Rooms::new(200_000);
        let mut room = rooms.enter();
        let mut body = room.collect(BODY_BYTES_MAX);
        body.add(&[7; 99_999]).unwrap();
        assert_eq!(body.add(&[7; 2]), Err(Full::TooLarge(BODY_BYTES_MAX)));
        body.add(&[7]).unwrap();
        assert_eq!(body.finish().len(), 100_000);
    }

    #[test]
    fn what_finds_no_room_is_refused_and_takes_none() {
        let rooms = Rooms::new(64 << 10);
        let mut room = rooms.enter();
        let mut body = room.collect(BODY_BYTES_MAX);
        body.add(&[7; 40_000]).unwrap();
        // Not room for twice as much, but for what is there.
        body.add(&[7; 5_000]).unwrap();
        let free = rooms.free_bytes();
        assert_eq!(body.add(&[7; 30_000]), Err(Full::NoRoom));
        assert_eq!(body.full(), Some(Full::NoRoom));
        assert_eq!(rooms.free_bytes(), free);
        assert_eq!(body.finish().len(), 45_000);
    }
}
