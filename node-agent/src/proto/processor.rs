//! How much processor time a process had, from `/proc`: what tells a slow package from a busy machine.

use std::fs;

/// User and system time of all its threads in milliseconds, in steps of about ten; of this process where no other
/// is named. `None` where it cannot be read: then nobody can say that it had none.
#[must_use]
pub fn milliseconds(process: Option<u32>) -> Option<u64> {
    let process = process.map_or_else(|| "self".to_owned(), |process| process.to_string());
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let ticks = ticks(&stat)?;
    Some(ticks.saturating_mul(1000) / rustix::param::clock_ticks_per_second().max(1))
}

/// Fields 14 and 15; the second is a name in parentheses, which may hold anything.
fn ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let mut next = || fields.next()?.parse::<u64>().ok();
    next()?.checked_add(next()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_read_behind_any_name() {
        let stat = "7 (a) b) c) R 1 7 7 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 1 0 100 1 1";
        assert_eq!(ticks(stat), Some(300));
        assert_eq!(ticks("7 (a) R 1"), None);
        assert_eq!(ticks(""), None);
    }

    #[test]
    fn a_process_that_computes_uses_its_processor() {
        let before = milliseconds(None).unwrap();
        let mut sum = 0_u64;
        while milliseconds(None).unwrap() < before + 50 {
            sum = std::hint::black_box((0..10_000).fold(sum, u64::wrapping_add));
        }
        assert_eq!(milliseconds(Some(u32::MAX)), None);
    }
}
