//! Fuzz targets of every reader of what comes from outside. `MILLRACE_FUZZ` names the target, libFuzzer gives the bytes, and a
//! reader passes that ends without a panic, within bounded time and memory. Pictures are not decoded here: whatever a decoder
//! does is contained where it is called, and `any_bytes` of `millrace-ingest` looks at it.
#![no_main]

mod targets;

use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

/// The target that is asked for.
static TARGET: LazyLock<fn(&[u8])> = LazyLock::new(|| {
    let asked = std::env::var("MILLRACE_FUZZ").unwrap_or_default();
    let found = targets::ALL.iter().find(|(name, _)| *name == asked);
    let known: Vec<&str> = targets::ALL.iter().map(|(name, _)| *name).collect();
    found.unwrap_or_else(|| panic!("MILLRACE_FUZZ is '{asked}'; expected one of {}", known.join(", "))).1
});

// a panic that is contained where a parser is called is none of the target's: what ends a run is one that gets here
fuzz_target!(
    init: {
        drop(std::panic::take_hook());
        LazyLock::force(&TARGET);
    },
    |bytes: &[u8]| TARGET(bytes)
);
