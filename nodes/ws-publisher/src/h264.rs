//! The little of H.264 that a forwarder needs: the codec string, from the parameter set in front of a key picture.

/// The codec string of RFC 6381 (`avc1.PPCCLL`: profile, constraint flags, level, in hexadecimal, from the three bytes
/// behind the header of the sequence parameter set), or `None` where the Annex-B access unit has no such set.
pub(crate) fn codec_string(access_unit: &[u8]) -> Option<String> {
    nal_units(access_unit).find_map(|nal| match nal {
        // type 7 in the low five bits; the profile is not 0, so the first three bytes hold no emulation prevention
        [header, profile, flags, level, ..] if header & 0x1f == 7 => {
            Some(format!("avc1.{profile:02x}{flags:02x}{level:02x}"))
        }
        _ => None,
    })
}

/// The NAL units of an Annex-B byte stream, without start codes; trailing zero bytes are left on.
fn nal_units(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = after_start_code(bytes);
    std::iter::from_fn(move || {
        let nal = rest?;
        let (this, next) = match nal.windows(3).position(|w| w == [0, 0, 1]) {
            Some(end) => (&nal[..end], Some(&nal[end + 3..])),
            None => (nal, None),
        };
        rest = next;
        Some(this)
    })
}

fn after_start_code(bytes: &[u8]) -> Option<&[u8]> {
    bytes.windows(3).position(|w| w == [0, 0, 1]).map(|at| &bytes[at + 3..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_codec_string_comes_from_the_parameter_set() {
        // a delimiter, then the parameter set of an x264 High stream at level 3.1, with start codes of four and three bytes
        let unit =
            [0, 0, 0, 1, 9, 0x10, 0, 0, 1, 0x67, 0x64, 0x00, 0x1f, 0xac, 0, 0, 0, 1, 0x68, 0xee, 0, 0, 1, 0x65, 0x88];
        assert_eq!(codec_string(&unit).as_deref(), Some("avc1.64001f"));
        let baseline = [0, 0, 1, 0x27, 0x42, 0xc0, 0x1e];
        assert_eq!(codec_string(&baseline).as_deref(), Some("avc1.42c01e"));
    }

    #[test]
    fn what_has_no_parameter_set_has_no_codec_string() {
        for unit in [
            &[][..],
            &[0, 0, 1],
            &[0, 0, 1, 0x67],
            &[0, 0, 1, 0x67, 0x64, 0],
            &[0, 0, 1, 0x41, 1, 2, 3],
            &[0x67, 0x64, 0, 0x1f],
        ] {
            assert_eq!(codec_string(unit), None, "{unit:02x?}");
        }
    }
}
