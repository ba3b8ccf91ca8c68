//! What the kinds promise, without an API server: the real one judges the same samples in the end-to-end stories.

mod bounds;
mod generated;
mod parse;
mod samples;
