//! Patterns of repositories that an authority may sign for.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer};
use thiserror::Error;

use crate::reference::Repository;
use crate::text::clip;

/// Characters of a pattern.
const PATTERN_CHARACTERS_MAX: usize = 512;

/// `host/path`, where `*` stands for any part of one component of the path, and `**` as the last component for
/// one or more components. The host has no wildcard: which registry is trusted is always written down.
#[derive(Clone, PartialEq, Eq)]
pub struct RepositoryPattern {
    registry: String,
    components: Vec<String>,
}

/// Why a pattern was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "pattern \"{0}\" must be host/path with * inside path components and ** only as the last one, at most \
     {PATTERN_CHARACTERS_MAX} characters"
)]
pub struct PatternError(String);

impl RepositoryPattern {
    /// Does the pattern cover this repository?
    #[must_use]
    pub fn matches(&self, repository: &Repository) -> bool {
        if self.registry != repository.registry() {
            return false;
        }
        let parts: Vec<&str> = repository.path().split('/').collect();
        match self.components.split_last() {
            Some((last, fixed)) if last == "**" => {
                parts.len() > fixed.len() && all_match(fixed, &parts[..fixed.len()])
            }
            _ => parts.len() == self.components.len() && all_match(&self.components, &parts),
        }
    }
}

fn all_match(patterns: &[String], parts: &[&str]) -> bool {
    patterns
        .iter()
        .zip(parts)
        .all(|(pattern, part)| component_matches(pattern, part))
}

/// Greedy wildcard match with one backtracking point: linear memory, at most quadratic time on 255 characters.
fn component_matches(pattern: &str, part: &str) -> bool {
    let (pattern, part) = (pattern.as_bytes(), part.as_bytes());
    let (mut at, mut seen, mut star) = (0, 0, None);
    while seen < part.len() {
        if at < pattern.len() && pattern[at] == b'*' {
            star = Some((at, seen));
            at += 1;
        } else if at < pattern.len() && pattern[at] == part[seen] {
            at += 1;
            seen += 1;
        } else if let Some((star_at, star_seen)) = star {
            at = star_at + 1;
            seen = star_seen + 1;
            star = Some((star_at, seen));
        } else {
            return false;
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

impl FromStr for RepositoryPattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        let error = || PatternError(clip(text, 80));
        if text.len() > PATTERN_CHARACTERS_MAX {
            return Err(error());
        }
        let (host, path) = text.split_once('/').ok_or_else(error)?;
        // With its wildcards filled in, a pattern must be a repository.
        let sample = format!("{host}/{}", path.replace("**", "a").replace('*', "a"));
        let sample: Repository = sample.parse().map_err(|_| error())?;
        let components: Vec<String> = path.split('/').map(str::to_owned).collect();
        let last = components.len() - 1;
        let misplaced = |(index, component): (usize, &String)| {
            component.contains("**") && !(index == last && component == "**")
        };
        if components.iter().enumerate().any(misplaced) {
            return Err(error());
        }
        Ok(Self {
            registry: sample.registry().to_owned(),
            components,
        })
    }
}

impl fmt::Display for RepositoryPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.components.join("/"))
    }
}

impl fmt::Debug for RepositoryPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<'de> Deserialize<'de> for RepositoryPattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::RepositoryPattern;

    fn check(pattern: &str, repository: &str) -> bool {
        let pattern: RepositoryPattern = pattern.parse().unwrap();
        pattern.matches(&repository.parse().unwrap())
    }

    #[test]
    fn a_pattern_covers_what_it_says_and_nothing_beside() {
        assert!(check("r.example.com/models/**", "r.example.com/models/a/b"));
        assert!(check("r.example.com/**", "r.example.com/a"));
        assert!(check("r.example.com/models/*", "r.example.com/models/a"));
        assert!(check("r.example.com/m/a-*-b", "r.example.com/m/a-1-2-b"));
        assert!(check("r.example.com/m/a", "r.example.com/m/a"));
        assert!(!check("r.example.com/models/**", "r.example.com/models"));
        assert!(!check("r.example.com/models/*", "r.example.com/models/a/b"));
        assert!(!check("r.example.com/models/**", "r.example.com/models2/a"));
        assert!(!check("r.example.com/m/a", "r.example.com/m/ab"));
        assert!(!check("r.example.com/m/a*b", "r.example.com/m/ac"));
        assert!(!check("r.example.com/**", "r.example.com:5000/a"));
        assert!(!check("r.example.com/**", "evil.r.example.com/a"));
    }

    #[test]
    fn a_wildcard_host_or_a_misplaced_double_star_is_refused() {
        for bad in [
            "*/a",
            "*.example.com/a",
            "r.example.com",
            "r.example.com/**/a",
            "r.example.com/a**",
            "r.example.com/a:1",
            "**",
            "",
        ] {
            assert!(bad.parse::<RepositoryPattern>().is_err(), "{bad}");
        }
    }
}
