//! The device's durable record: everything that one state slot holds.
//!
//! Owns its encoding. The store keeps the bytes; [`rimward_core::node`] owns what a deployment's part
//! means.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use rimward_core::ids::Digest;
use rimward_core::node::Record;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Deployments that were taken off and of which only rejected revisions are remembered.
const REMOVED_MAX: usize = 64;
const FORMAT: u32 = 1;

/// Everything durable on this device but bytes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DeviceRecord {
    format: u32,
    /// The last trust file that parsed, as a blob: committed versions are checked against it when
    /// the file itself cannot be read.
    pub trust: Option<Digest>,
    /// The highest wall-clock time seen, in seconds since 1970: the clock of a device may fall back,
    /// this must not.
    pub time_floor_seconds: u64,
    /// The highest release floor seen per family.
    pub release_floors: BTreeMap<String, u64>,
    /// Per deployment, `<namespace>/<name>`.
    pub deployments: BTreeMap<String, Record>,
}

/// A record that cannot be understood.
#[derive(Debug, Error)]
pub(super) enum RecordError {
    /// Not the JSON that it should be.
    #[error("state record: does not parse")]
    Json(#[from] serde_json::Error),
    /// Written by a newer agent.
    #[error("state record: format {0} is not known to this agent")]
    Format(u32),
}

impl DeviceRecord {
    /// Reads the bytes of a valid slot.
    ///
    /// # Errors
    /// [`RecordError`]; an agent that cannot read its device's state must not go on.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let record: Self = serde_json::from_slice(bytes)?;
        if record.format != FORMAT {
            return Err(RecordError::Format(record.format));
        }
        Ok(record)
    }

    /// Takes what the wall clock says. It may be years off either way: what was seen once is not taken back.
    pub(super) fn saw_clock(&mut self, now: SystemTime) {
        let since = now.duration_since(UNIX_EPOCH);
        let seconds = since.map_or(0, |since| since.as_secs());
        self.time_floor_seconds = self.time_floor_seconds.max(seconds);
    }

    /// The bytes to put.
    ///
    /// # Errors
    /// [`RecordError::Json`], which plain data like this does not meet.
    pub(super) fn encode(&mut self) -> Result<Vec<u8>, RecordError> {
        self.format = FORMAT;
        self.forget_removed();
        Ok(serde_json::to_vec(self)?)
    }

    fn forget_removed(&mut self) {
        self.deployments
            .retain(|_, record| !(record.is_removed() && record.bad.is_empty()));
        let removed: Vec<String> = self
            .deployments
            .iter()
            .filter(|(_, record)| record.is_removed())
            .map(|(key, _)| key.clone())
            .collect();
        let over = removed.len().saturating_sub(REMOVED_MAX);
        for key in removed.iter().take(over) {
            self.deployments.remove(key);
        }
    }

    /// Raises floors; they never fall.
    /// Says whether it rose.
    pub(super) fn raise_floor(&mut self, family: &str, counter: u64) -> bool {
        let floor = self.release_floors.entry(family.to_owned()).or_default();
        let rose = counter > *floor;
        *floor = counter.max(*floor);
        rose
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    use rimward_core::node::{Bad, Problem, Reason};

    fn rejected(revision: &str) -> Record {
        Record {
            bad: vec![Bad {
                revision: revision.parse().unwrap(),
                problem: Problem::new(Reason::TOO_SLOW, "slow"),
                in_trial: true,
                attempt: 1,
            }],
            ..Record::default()
        }
    }

    #[test]
    fn what_was_rejected_is_remembered_after_the_deployment_is_gone_but_not_without_bound() {
        let mut record = DeviceRecord::default();
        for number in 0..100 {
            let key = format!("shop/d{number:03}");
            record.deployments.insert(key, rejected("r-1"));
        }
        record
            .deployments
            .insert("shop/empty".into(), Record::default());
        let bytes = record.encode().unwrap();
        let read = DeviceRecord::decode(&bytes).unwrap();
        assert_eq!(read, record);
        assert_eq!(read.deployments.len(), REMOVED_MAX);
        assert!(!read.deployments.contains_key("shop/empty"));
    }

    #[test]
    fn a_newer_format_is_refused_rather_than_misread() {
        let error = DeviceRecord::decode(br#"{"format":9,"trust":null,"timeFloorSeconds":0,"releaseFloors":{},"deployments":{}}"#);
        assert!(matches!(error, Err(RecordError::Format(9))), "{error:?}");
    }

    #[test]
    fn floors_never_fall() {
        let mut record = DeviceRecord::default();
        record.raise_floor("digits", 7);
        record.raise_floor("digits", 3);
        assert_eq!(record.release_floors.get("digits"), Some(&7));
    }

    #[test]
    fn a_clock_that_is_ten_years_off_either_way_only_raises_the_floor() {
        let years = |years: u64| Duration::from_secs(years * 365 * 86_400);
        let today = UNIX_EPOCH + years(56);
        let floor_after = |clocks: &[SystemTime]| {
            let mut record = DeviceRecord::default();
            clocks.iter().for_each(|clock| record.saw_clock(*clock));
            record.time_floor_seconds
        };
        let seconds = |years_since: u64| years(years_since).as_secs();
        assert_eq!(floor_after(&[today, today - years(10)]), seconds(56));
        assert_eq!(floor_after(&[today, today + years(10), today]), seconds(66));
        // A device that wakes up before 1970 goes on.
        assert_eq!(floor_after(&[UNIX_EPOCH - years(10)]), 0);
    }
}
