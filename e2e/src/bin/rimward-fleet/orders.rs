//! What can be typed while a simulated fleet runs.

use std::sync::atomic::Ordering;

use rimward_e2e::simulated::{Faults, Reach, Sites};

pub(crate) const HELP: &str =
    "  status                     how many sites answer, what sessions sent
  silence PERCENT            cuts the line of so many sites
  kill PERCENT               takes the power of so many sites
  back                       all sites are back, with all their nodes
  blink                      every session's connection breaks, and is made again at once
  beat                       every site sends a heartbeat now
  release TEXT site|node     releases that contain TEXT kill each site, or node, that they reach
  release TEXT rejected|blocked
  heal                       releases do no harm any more
  quit";

/// Carries one line out; says what it did.
pub(crate) fn obey(sites: &Sites, line: &str) -> String {
    let words: Vec<&str> = line.split_whitespace().collect();
    let percent = |word: &str| word.trim_end_matches('%').parse::<usize>().ok();
    match words.as_slice() {
        [] => String::new(),
        ["status"] => status(sites),
        ["silence", share] | ["kill", share] => match percent(share) {
            Some(share) => {
                let reach = if words[0] == "kill" {
                    Reach::Dead
                } else {
                    Reach::Offline
                };
                sites.reach(|index| is_among(index, share), reach);
                status(sites)
            }
            None => format!("{share} is no percentage"),
        },
        ["back"] => {
            sites.reach(|_| true, Reach::Connected);
            status(sites)
        }
        ["blink"] => {
            sites.reach(|_| true, Reach::Offline);
            sites.reach(|_| true, Reach::Connected);
            status(sites)
        }
        ["beat"] => {
            sites.beat();
            status(sites)
        }
        ["release", text, harm] => harm_done(sites, text, harm),
        ["heal"] => {
            sites.change_faults(|faults| *faults = Faults::default());
            "releases do no harm".to_owned()
        }
        _ => format!("no such command; there are:\n{HELP}"),
    }
}

/// Cuts the line of a share of the sites.
pub(crate) fn silence(sites: &Sites, percent: usize) {
    sites.reach(|index| is_among(index, percent), Reach::Offline);
}

/// Cuts the line of a share of the sites, or connects them again.
pub(crate) fn flap(sites: &Sites, percent: usize, away: bool) {
    let reach = if away {
        Reach::Offline
    } else {
        Reach::Connected
    };
    sites.reach(|index| is_among(index, percent), reach);
}

/// Spreads the share over the sites, so that canaries are hit like others.
fn is_among(index: usize, percent: usize) -> bool {
    (index * 37 + 11) % 100 < percent
}

fn harm_done(sites: &Sites, text: &str, harm: &str) -> String {
    let mut known = true;
    sites.change_faults(|faults| {
        let list = match harm {
            "site" => &mut faults.silences_site,
            "node" => &mut faults.silences_node,
            "rejected" => &mut faults.rejected,
            "blocked" => &mut faults.blocked,
            _ => {
                known = false;
                return;
            }
        };
        list.push(text.to_owned());
    });
    if known {
        format!("releases that contain {text:?}: {harm}")
    } else {
        format!("{harm} is none of site, node, rejected, blocked")
    }
}

fn status(sites: &Sites) -> String {
    let (connected, offline, dead) = sites.reached();
    let counted = sites.counted();
    let [beats, reports, lists, failures] = [
        &counted.beats,
        &counted.reports,
        &counted.lists,
        &counted.failures,
    ]
    .map(|count| count.load(Ordering::Relaxed));
    format!(
        "{connected} connected, {offline} offline, {dead} dead; sent {beats} heartbeats, {reports} statuses, \
         {lists} lists; {failures} requests failed"
    )
}
