//! NAL units in Annex-B byte streams (start codes) and in MP4 samples (length prefixes).

/// Position of the next start code `00 00 01` at or after `from`.
pub(crate) fn find_start_code(data: &[u8], from: usize) -> Option<usize> {
    let mut i = from;
    // The third byte decides how far one can jump: a value above 1 lies in no start code that begins here.
    while let Some(&third) = data.get(i + 2) {
        match third {
            0 => i += 1,
            1 if data[i] == 0 && data[i + 1] == 0 => return Some(i),
            _ => i += 3,
        }
    }
    None
}

/// A NAL unit without the zero bytes that may follow it.
pub(crate) fn trim(nal: &[u8]) -> &[u8] {
    let end = nal.iter().rposition(|&b| b != 0).map_or(0, |last| last + 1);
    &nal[..end]
}

/// The NAL units of an Annex-B byte stream, empty ones left out.
pub fn annexb_nals(data: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut at = find_start_code(data, 0).map(|p| p + 3);
    std::iter::from_fn(move || {
        let start = at?;
        let next = find_start_code(data, start);
        at = next.map(|p| p + 3);
        Some(trim(&data[start..next.unwrap_or(data.len())]))
    })
    .filter(|nal| !nal.is_empty())
}

/// Appends `nal` to an Annex-B byte stream, with a four-byte start code.
pub(crate) fn push_annexb(out: &mut Vec<u8>, nal: &[u8]) {
    out.extend_from_slice(&[0, 0, 0, 1]);
    out.extend_from_slice(nal);
}

/// The NAL units of an MP4 sample whose units stand behind a length of `length_bytes` bytes. The second value is
/// whether the last length ran past the end of the sample.
pub(crate) fn length_prefixed(sample: &[u8], length_bytes: usize) -> (Vec<&[u8]>, bool) {
    let mut nals = Vec::new();
    let mut rest = sample;
    while !rest.is_empty() {
        let Some((prefix, tail)) = rest.split_at_checked(length_bytes) else { return (nals, true) };
        let len = prefix.iter().fold(0usize, |n, &b| n << 8 | usize::from(b));
        let Some((nal, tail)) = tail.split_at_checked(len) else { return (nals, true) };
        if !trim(nal).is_empty() {
            nals.push(trim(nal));
        }
        rest = tail;
    }
    (nals, false)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn start_codes_of_three_and_four_bytes_and_trailing_zeros() {
        let s = [9, 0, 0, 1, 0x67, 1, 2, 0, 0, 0, 1, 0x68, 5, 0, 0, 0, 0, 1, 0, 0, 1, 0x65, 0, 7, 0];
        let nals: Vec<_> = annexb_nals(&s).collect();
        assert_eq!(nals, [&[0x67, 1, 2][..], &[0x68, 5], &[0x65, 0, 7]]);
        assert_eq!(annexb_nals(&[0, 0]).count(), 0);
    }

    #[test]
    fn a_length_past_the_end_is_told() {
        assert_eq!(length_prefixed(&[0, 2, 7, 8, 0, 1, 9], 2), (vec![&[7, 8][..], &[9]], false));
        assert_eq!(length_prefixed(&[0, 2, 7, 8, 0, 9, 9], 2), (vec![&[7, 8][..]], true));
        assert_eq!(length_prefixed(&[0, 0, 0], 4), (vec![], true));
    }

    proptest! {
        #[test]
        fn the_search_finds_what_a_plain_scan_finds(data in prop::collection::vec(0u8..3, 0..64), from in 0usize..70) {
            let plain = (from..data.len().saturating_sub(2)).find(|&i| data[i..i + 3] == [0, 0, 1]);
            prop_assert_eq!(find_start_code(&data, from), plain);
        }
    }
}
