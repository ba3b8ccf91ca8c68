//! Which state of the definitions this is: a number that every installed CustomResourceDefinition carries, so that a
//! program can tell whether the API server knows all the fields that it writes. One that does not drops them in
//! silence, and what was planned with them.
//!
//! Owns the number. What follows from another one is `rimward_core::definitions`'s to say.

use kube::core::ObjectMeta;

/// The annotation that holds the number.
pub const ANNOTATION: &str = "rimward.dev/crd-revision";

/// Every state of `crds/yaml` since there are numbers: its number, and the SHA-256 of all files without the
/// annotation. A test compares the last with what the types give. Lines are added, never changed: an installed
/// definition says its number only.
pub const REVISIONS: &[(u32, &str)] = &[(
    1,
    "8f9071c9ebd58ca1197723cb9a156d9dc919d8a7d552f044055670f82382e951",
)];

/// The number of the definitions that this program was built with.
pub const REVISION: u32 = REVISIONS[REVISIONS.len() - 1].0;

/// The number that an installed definition carries; none when it carries none, or something else.
#[must_use]
pub fn of(metadata: &ObjectMeta) -> Option<u32> {
    let annotations = metadata.annotations.as_ref()?;
    annotations.get(ANNOTATION)?.parse().ok()
}
