//! Checks of dora graphs: every fault at once, each with its place, its cause and how to mend it.
//!
//! Knows dora's graph format but uses no part of dora.

pub mod nearest;
pub mod redact;
pub mod settings;
