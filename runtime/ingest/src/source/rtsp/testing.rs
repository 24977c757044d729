//! What the tests of this folder share.
#![allow(clippy::unwrap_used)]

use crate::syntax::{ParsedUnit, UnitBuilder, annexb_nals};
use millrace_frame::{PacketCodec, Timebase, Timing};
use std::path::Path;

/// The NAL units of a file of test data.
pub(super) fn nals_of(name: &str) -> Vec<Vec<u8>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name);
    annexb_nals(&std::fs::read(path).unwrap()).map(<[u8]>::to_vec).collect()
}

/// A key picture and one that is none.
pub(in crate::source) fn key_and_p() -> (ParsedUnit, ParsedUnit) {
    let mut builder = UnitBuilder::new(PacketCodec::H264);
    let mut units: Vec<ParsedUnit> = nals_of("open_gop.264").iter().filter_map(|nal| builder.push(nal)).collect();
    let p = units.iter().position(|unit| !unit.facts.key).unwrap();
    let p = units.swap_remove(p);
    (units.swap_remove(0), p)
}

pub(in crate::source) fn timing_at(pts_ns: i64, arrival_ns: i64) -> Timing {
    Timing { pts_ns, timebase: Timebase::NANOSECONDS, capture_ns: 0, arrival_ns, ..Timing::default() }
}
