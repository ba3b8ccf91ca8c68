//! The flight recorder: what a host was at when it died.
//!
//! Owns a small file in memory that outlives the host: a row for each slot, with how many threads are at work for
//! it. The host writes a row whenever that changes; the supervisor reads them once, after the host's end. Nothing
//! is decided by it but whom a death is laid at, so what a host writes need not be trusted for more.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, MutexGuard};

use rustix::fs::MemfdFlags;

use super::SlotId;

/// Slots that have a row at one time; work for others is not recorded.
const ROWS_MAX: usize = 512;
/// A slot's id and its count, eight bytes each.
const ROW_BYTES: usize = 16;

/// An empty recording, for a host to write and its supervisor to keep.
///
/// # Errors
/// When the machine has no memory for it.
pub fn file() -> io::Result<File> {
    let fd = rustix::fs::memfd_create("flight", MemfdFlags::CLOEXEC)?;
    Ok(fd.into())
}

/// The slots that a host was at work for when it last wrote.
#[must_use]
pub fn read(file: &File) -> BTreeSet<SlotId> {
    let mut bytes = vec![0; ROWS_MAX * ROW_BYTES];
    let mut length = 0;
    while let Some(rest) = bytes.get_mut(length..) {
        match file.read_at(rest, length as u64) {
            Ok(0) | Err(_) => break,
            Ok(more) => length += more,
        }
    }
    let number = |bytes: &[u8]| bytes.try_into().map(u64::from_le_bytes).ok();
    let rows = bytes.get(..length).unwrap_or_default();
    rows.chunks_exact(ROW_BYTES)
        .filter_map(|row| {
            let (slot, busy) = row.split_at(ROW_BYTES / 2);
            (number(busy)? > 0).then(|| number(slot).map(SlotId))?
        })
        .collect()
}

/// The host's end.
#[derive(Clone, Debug, Default)]
pub struct Recorder(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    file: Option<File>,
    taken: Mutex<BTreeSet<usize>>,
}

impl Recorder {
    /// Writes into that file; into none, it records nothing.
    #[must_use]
    pub fn new(file: Option<OwnedFd>) -> Self {
        Self(Arc::new(Inner {
            file: file.map(File::from),
            taken: Mutex::default(),
        }))
    }

    /// A row for a slot, for as long as that lives.
    #[must_use]
    pub fn row(&self, slot: SlotId) -> Arc<Row> {
        let mut taken = lock(&self.0.taken);
        let index = (0..ROWS_MAX).find(|index| !taken.contains(index));
        taken.extend(index);
        drop(taken);
        Arc::new(Row {
            recorder: self.clone(),
            slot,
            index,
            busy: Mutex::new(0),
        })
    }
}

/// One slot's row.
#[derive(Debug)]
pub struct Row {
    recorder: Recorder,
    slot: SlotId,
    index: Option<usize>,
    busy: Mutex<u64>,
}

impl Row {
    /// Something is at work for the slot, for as long as the guard lives.
    #[must_use]
    pub fn enter(self: &Arc<Self>) -> Busy {
        self.change(1);
        Busy(Arc::clone(self))
    }

    fn change(&self, by: i64) {
        // Written under the lock: two that change it at once must not leave the older count behind.
        let mut busy = lock(&self.busy);
        *busy = busy.saturating_add_signed(by);
        let (Some(file), Some(index)) = (&self.recorder.0.file, self.index) else {
            return;
        };
        let row = [self.slot.0.to_le_bytes(), busy.to_le_bytes()].concat();
        if let Err(error) = file.write_all_at(&row, (index * ROW_BYTES) as u64) {
            tracing::debug!(%error, "flight recorder");
        }
    }
}

impl Drop for Row {
    fn drop(&mut self) {
        if let Some(index) = self.index {
            lock(&self.recorder.0.taken).remove(&index);
        }
    }
}

/// Work for a slot.
#[derive(Debug)]
pub struct Busy(Arc<Row>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.change(-1);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recording_says_who_was_at_work_when_the_host_died() {
        let file = file().unwrap();
        assert_eq!(read(&file), BTreeSet::new());
        let recorder = Recorder::new(Some(file.try_clone().unwrap().into()));
        let (seven, nine) = (recorder.row(SlotId(7)), recorder.row(SlotId(9)));
        let first = seven.enter();
        let second = seven.enter();
        let other = nine.enter();
        drop(first);
        assert_eq!(read(&file), [SlotId(7), SlotId(9)].into());
        drop(other);
        assert_eq!(read(&file), [SlotId(7)].into());
        drop(second);
        assert_eq!(read(&file), BTreeSet::new());
    }

    #[test]
    fn rows_are_used_again_and_are_not_without_end() {
        let file = file().unwrap();
        let recorder = Recorder::new(Some(file.try_clone().unwrap().into()));
        for slot in 0..2_000 {
            drop(recorder.row(SlotId(slot)).enter());
        }
        assert_eq!(file.metadata().unwrap().len(), ROW_BYTES as u64);
        let rows: Vec<_> = (0..600).map(|slot| recorder.row(SlotId(slot))).collect();
        let _busy: Vec<_> = rows.iter().map(Row::enter).collect();
        assert_eq!(read(&file).len(), ROWS_MAX);
    }

    #[test]
    fn what_a_host_wrote_wrongly_is_read_within_bounds() {
        let file = file().unwrap();
        file.write_all_at(&[0xff; 100_001], 0).unwrap();
        assert_eq!(read(&file), [SlotId(u64::MAX)].into());
    }
}
