//! The state record: two slots, the only commit point of the device.
//!
//! Owns how one record becomes durable and which one is valid at start. Must never look inside a
//! record.
//!
//! A slot file is one header line and the record's bytes:
//! `rimward-state 1 <seq> <length> <sha256 of "seq length\n" and the bytes, hex>`.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rimward_core::ids::Digest;
use thiserror::Error;

use super::disk::{Disk, read_bounded};

/// Longest record: 256 deployments with every list full stay well under it.
pub const RECORD_BYTES_MAX: u64 = 16 << 20;
const HEADER_BYTES_MAX: u64 = 160;
const MAGIC: &str = "rimward-state 1";
pub(super) const NAMES: [&str; 2] = ["state.0", "state.1"];

/// A valid record as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Counts every record ever put on this device.
    pub seq: u64,
    /// The record's bytes.
    pub bytes: Vec<u8>,
}

/// Why a record did not become durable.
#[derive(Debug, Error)]
pub enum PutError {
    /// Nothing durable changed; it may be tried again.
    #[error("cannot write the state record")]
    Untouched(#[source] io::Error),
    /// What is durable now is not known: the process must end and recover.
    #[error("cannot make the state record durable")]
    Unknown(#[source] io::Error),
}

/// The two slots of one device.
#[derive(Debug)]
pub struct Slots {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    /// The sequence number of the newest record, and the slot that the next one replaces.
    seq: u64,
    next: usize,
}

impl Slots {
    /// Reads both slots. Returns the newest valid record, if any, and how many slots held bytes
    /// that are no valid record.
    ///
    /// # Errors
    /// When the folder cannot be read at all; a damaged slot is no error.
    pub fn open(disk: Arc<dyn Disk>, folder: &Path) -> io::Result<(Self, Option<Found>, usize)> {
        let mut found: [Option<Found>; 2] = [None, None];
        let mut damaged = 0;
        for (slot, name) in found.iter_mut().zip(NAMES) {
            let bytes_max = RECORD_BYTES_MAX + HEADER_BYTES_MAX;
            match read_bounded(disk.as_ref(), &folder.join(name), bytes_max) {
                Ok(None) => {}
                Ok(Some(bytes)) => match parse(&bytes) {
                    Some(record) => *slot = Some(record),
                    None => damaged += 1,
                },
                Err(error) => {
                    tracing::warn!(slot = name, %error, "cannot read the state slot");
                    damaged += 1;
                }
            }
        }
        let [zero, one] = found;
        let seq_of = |record: &Option<Found>| record.as_ref().map_or(0, |record| record.seq);
        let newest_is_one = seq_of(&one) > seq_of(&zero);
        let newest = if newest_is_one { one } else { zero };
        let slots = Self {
            disk,
            folder: folder.to_owned(),
            seq: newest.as_ref().map_or(0, |record| record.seq),
            // With nothing valid either slot will do.
            next: usize::from(!newest_is_one && newest.is_some()),
        };
        Ok((slots, newest, damaged))
    }

    /// The sequence number of the newest durable record; 0 where there is none.
    #[must_use]
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// Makes a record durable in place of the older one.
    ///
    /// # Errors
    /// [`PutError`]; only after [`PutError::Untouched`] may this be called again.
    pub fn put(&mut self, bytes: &[u8]) -> Result<(), PutError> {
        if bytes.len() as u64 > RECORD_BYTES_MAX {
            return Err(PutError::Untouched(io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!(
                    "the record has {} bytes, at most {RECORD_BYTES_MAX}",
                    bytes.len()
                ),
            )));
        }
        let seq = self.seq + 1;
        let temporary = self.folder.join("state.new");
        let mut file = self.disk.create(&temporary).map_err(PutError::Untouched)?;
        let header = format!(
            "{MAGIC} {seq} {} {}\n",
            bytes.len(),
            checksum(seq, bytes).hex()
        );
        file.write_all(header.as_bytes())
            .and_then(|()| file.write_all(bytes))
            .map_err(PutError::Untouched)?;
        // A failed fsync may have dropped the pages and cleared the error: no second try.
        file.sync().map_err(PutError::Unknown)?;
        drop(file);
        let slot = self.folder.join(NAMES[self.next]);
        self.disk
            .rename(&temporary, &slot)
            .map_err(PutError::Unknown)?;
        self.disk
            .sync_dir(&self.folder)
            .map_err(PutError::Unknown)?;
        self.seq = seq;
        self.next = 1 - self.next;
        Ok(())
    }
}

fn checksum(seq: u64, bytes: &[u8]) -> Digest {
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    context.update(format!("{seq} {}\n", bytes.len()).as_bytes());
    context.update(bytes);
    super::digest_of(context)
}

fn parse(file: &[u8]) -> Option<Found> {
    let newline = file.iter().position(|byte| *byte == b'\n')?;
    let (header, bytes) = (file.get(..newline)?, file.get(newline + 1..)?);
    let header = std::str::from_utf8(header).ok()?.strip_prefix(MAGIC)?;
    let mut fields = header.strip_prefix(' ')?.split(' ');
    let seq: u64 = fields.next()?.parse().ok()?;
    let length: usize = fields.next()?.parse().ok()?;
    let hex = fields.next()?;
    let whole = fields.next().is_none()
        && seq > 0
        && length == bytes.len()
        && hex == checksum(seq, bytes).hex();
    whole.then(|| Found {
        seq,
        bytes: bytes.to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::disk::RealDisk;

    fn open(folder: &Path) -> (Slots, Option<Found>, usize) {
        Slots::open(Arc::new(RealDisk), folder).unwrap()
    }

    fn newest(folder: &Path) -> Option<(u64, String)> {
        let found = open(folder).1?;
        Some((found.seq, String::from_utf8(found.bytes).unwrap()))
    }

    fn newest_slot(folder: &Path) -> PathBuf {
        NAMES
            .iter()
            .map(|name| folder.join(name))
            .max_by_key(|path| parse(&std::fs::read(path).unwrap_or_default()).map(|it| it.seq))
            .unwrap()
    }

    #[test]
    fn the_newest_record_is_read_back_after_every_put() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(newest(folder.path()), None);
        let (mut slots, ..) = open(folder.path());
        for number in 1..=5_u64 {
            slots.put(format!("record {number}").as_bytes()).unwrap();
            assert_eq!(slots.seq(), number);
            let want = Some((number, format!("record {number}")));
            assert_eq!(newest(folder.path()), want);
            if number == 3 {
                slots = open(folder.path()).0;
            }
        }
    }

    #[test]
    fn a_flipped_bit_anywhere_in_the_newest_slot_brings_back_the_older_one() {
        let folder = tempfile::tempdir().unwrap();
        let (mut slots, ..) = open(folder.path());
        slots.put(b"older").unwrap();
        slots.put(b"newer").unwrap();
        let slot = newest_slot(folder.path());
        let good = std::fs::read(&slot).unwrap();
        for at in 0..good.len() {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[at] ^= 1 << bit;
                std::fs::write(&slot, &bad).unwrap();
                let (_, found, damaged) = open(folder.path());
                let found = found.unwrap();
                assert_eq!(found.bytes, b"older", "byte {at} bit {bit}");
                assert_eq!((found.seq, damaged), (1, 1));
            }
        }
    }

    #[test]
    fn a_torn_newest_slot_brings_back_the_older_one_and_the_next_put_replaces_the_torn_one() {
        let folder = tempfile::tempdir().unwrap();
        let (mut slots, ..) = open(folder.path());
        slots.put(b"older").unwrap();
        slots.put(b"newer").unwrap();
        let slot = newest_slot(folder.path());
        let good = std::fs::read(&slot).unwrap();
        for length in 0..good.len() {
            std::fs::write(&slot, &good[..length]).unwrap();
            assert_eq!(newest(folder.path()), Some((1, "older".into())));
        }
        let (mut slots, ..) = open(folder.path());
        slots.put(b"again").unwrap();
        assert_eq!(newest(folder.path()), Some((2, "again".into())));
        std::fs::write(&slot, b"").unwrap();
        assert_eq!(newest(folder.path()), Some((1, "older".into())));
    }

    #[test]
    fn a_half_written_temporary_file_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (mut slots, ..) = open(folder.path());
        slots.put(b"one").unwrap();
        std::fs::write(folder.path().join("state.new"), b"rimward-state 1 9").unwrap();
        assert_eq!(newest(folder.path()), Some((1, "one".into())));
    }

    #[test]
    fn two_damaged_slots_are_an_empty_device_not_an_error() {
        let folder = tempfile::tempdir().unwrap();
        for name in NAMES {
            std::fs::write(folder.path().join(name), b"\xff\x00garbage").unwrap();
        }
        let (mut slots, found, damaged) = open(folder.path());
        assert_eq!((found, damaged), (None, 2));
        slots.put(b"fresh").unwrap();
        assert_eq!(newest(folder.path()), Some((1, "fresh".into())));
    }
}
