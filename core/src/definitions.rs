//! What follows from how the API server's definitions of Rimward's kinds stand to what a program was built with.
//!
//! Owns the judgement, and its words. An API server that does not know a field drops it in silence, from what it is
//! given and from what it gives: so with a definition that is older than the program nothing that is read may be acted
//! on, and nothing may be written. One that is newer knows more than is needed. Objects that vanish with their
//! definition were deleted by nobody.

use std::fmt::Write as _;

/// One definition as it was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// There is none of that name.
    Missing,
    /// It is being deleted, and its objects with it.
    Leaving,
    /// It is there. Its revision; none when it carries no number.
    There(Option<u32>),
    /// The account may not read it.
    Hidden,
}

/// What a program may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Its work. What is odd all the same, if anything, for one line of the log.
    Fit(Option<String>),
    /// Nothing but wait, and say why.
    Unfit(String),
}

/// Judges definitions by name. `needed`: the revision that the program was built with.
#[must_use]
pub fn judge<'a>(found: impl IntoIterator<Item = (&'a str, Found)>, needed: u32) -> Standing {
    let (mut amiss, mut odd) = (Vec::new(), Vec::new());
    for (name, found) in found {
        match found {
            Found::Missing => amiss.push(format!("{name} is missing")),
            Found::Leaving => amiss.push(format!("{name} is being deleted")),
            Found::There(None) => amiss.push(format!("{name} has no revision")),
            Found::There(Some(revision)) if revision < needed => {
                amiss.push(format!("{name} has revision {revision}"));
            }
            Found::There(Some(revision)) if revision > needed => {
                odd.push(format!("{name} has revision {revision}"));
            }
            Found::There(Some(_)) => {}
            Found::Hidden => odd.push(format!("{name} may not be read")),
        }
    }
    if amiss.is_empty() {
        let words = (!odd.is_empty()).then(|| {
            let odd = odd.join(", ");
            format!(
                "CustomResourceDefinitions: {odd}; this program was built with revision {needed}, and goes on"
            )
        });
        return Standing::Fit(words);
    }
    let mut words = format!("CustomResourceDefinitions: {}", amiss.join(", "));
    let _ = write!(
        words,
        "; revision {needed} is needed, and until it is there nothing is written: \
         `helm upgrade` with the chart of this version (rimward, or rimward-crds where that brought them), or \
         `kubectl apply --server-side --force-conflicts -f crds/yaml`"
    );
    Standing::Unfit(words)
}

#[cfg(test)]
mod tests {
    use super::{Found, Standing, judge};

    /// Judges one definition that is so beside one that fits.
    fn check(found: Found) -> Result<Option<String>, String> {
        match judge([("a.x", Found::There(Some(3))), ("b.x", found)], 3) {
            Standing::Fit(odd) => Ok(odd),
            Standing::Unfit(words) => Err(words),
        }
    }

    #[test]
    fn what_fits_is_worth_no_word() {
        assert_eq!(check(Found::There(Some(3))), Ok(None));
    }

    #[test]
    fn a_newer_definition_and_one_that_may_not_be_read_are_told_and_stop_nobody() {
        let odd = check(Found::There(Some(4))).unwrap().unwrap();
        assert!(
            odd.contains("b.x has revision 4; this program was built with revision 3"),
            "{odd}"
        );
        let odd = check(Found::Hidden).unwrap().unwrap();
        assert!(odd.contains("b.x may not be read"), "{odd}");
    }

    #[test]
    fn one_that_is_missing_or_older_stops_the_work_and_is_named_with_what_to_type() {
        for (found, said) in [
            (Found::Missing, "b.x is missing"),
            (Found::Leaving, "b.x is being deleted"),
            (Found::There(None), "b.x has no revision"),
            (Found::There(Some(2)), "b.x has revision 2"),
        ] {
            let words = check(found).unwrap_err();
            assert!(words.contains(said), "{words}");
            assert!(words.contains("revision 3 is needed"), "{words}");
            assert!(
                words.contains("`helm upgrade` with the chart of this version"),
                "{words}"
            );
            assert!(
                words.contains("kubectl apply --server-side --force-conflicts -f crds/yaml"),
                "{words}"
            );
            assert!(!words.contains("a.x"), "{words}");
        }
    }
}
