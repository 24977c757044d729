#![allow(clippy::unwrap_used)]

use super::*;

/// The access units of a byte stream whose pictures begin with the macroblock 0, each with its parameter sets.
fn units(name: &str) -> Vec<Vec<u8>> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name);
    let bytes = std::fs::read(path).unwrap();
    let mut units = vec![Vec::new()];
    let mut has_slices = false;
    for nal in annexb_nals(&bytes) {
        let is_slice = matches!(nal[0] & 31, 1 | 5);
        if has_slices && (!is_slice || nal[1] & 0x80 != 0) {
            units.push(Vec::new());
            has_slices = false;
        }
        has_slices |= is_slice;
        super::super::nal::push_annexb(units.last_mut().unwrap(), nal);
    }
    units
}

#[test]
fn intact_slices_end_where_their_data_ends() {
    for name in ["pyramid.264", "open_gop.264", "raw_blocks.264", "raw_blocks_b.264", "intra_refresh_b.264", "flat.264"]
    {
        let mut check = SliceCheck::default();
        for (n, unit) in units(name).iter().enumerate() {
            assert_eq!(check.check(unit), Ok(()), "{name}, unit {n}");
        }
        assert!(check.slices > 0, "{name} is coded by CABAC");
    }
}
