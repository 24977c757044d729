//! The parameter sets that a session description states (RFC 6184 8.2.1, RFC 7798 7.2.1).

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// Cameras pad as they like.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// The parameter sets of the video with this payload type and encoding, in the order in which a decoder needs them. What
/// is not readable is left out: the stream may bring it.
pub(super) fn parameter_sets(sdp: &[u8], payload_type: u8, encoding: &str) -> Vec<Vec<u8>> {
    let text = String::from_utf8_lossy(sdp);
    let mut in_video = false;
    let mut matches = false;
    let mut format = None;
    for line in text.lines().map(str::trim).chain(["m="]) {
        if let Some(media) = line.strip_prefix("m=") {
            if let (true, Some(format)) = (matches, format) {
                return sets_of(format);
            }
            (in_video, matches, format) = (media.starts_with("video "), false, None);
        } else if let Some(map) = in_video.then(|| line.strip_prefix("a=rtpmap:")).flatten() {
            matches |= for_payload(map, payload_type)
                .and_then(|m| m.split('/').next())
                .is_some_and(|name| name.trim().eq_ignore_ascii_case(encoding));
        } else if let Some(parameters) = in_video.then(|| line.strip_prefix("a=fmtp:")).flatten() {
            format = for_payload(parameters, payload_type).or(format);
        }
    }
    Vec::new()
}

/// What follows the payload type, where it is this one.
fn for_payload(value: &str, payload_type: u8) -> Option<&str> {
    let (number, rest) = value.trim().split_once(' ')?;
    (number.parse() == Ok(payload_type)).then_some(rest)
}

fn sets_of(format: &str) -> Vec<Vec<u8>> {
    let mut sets = Vec::new();
    for wanted in ["sprop-vps", "sprop-sps", "sprop-pps", "sprop-parameter-sets"] {
        let stated = format
            .split(';')
            .filter_map(|p| p.split_once('='))
            .filter(|(name, _)| name.trim().eq_ignore_ascii_case(wanted));
        for encoded in stated.flat_map(|(_, value)| value.split(',')) {
            sets.extend(BASE64.decode(encoded.trim()).ok().filter(|set| !set.is_empty()));
        }
    }
    sets
}

#[cfg(test)]
mod tests {
    use super::*;

    const SDP: &[u8] = b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\n\
        m=audio 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\na=fmtp:96 sprop-parameter-sets=AAAA\r\n\
        m=video 0 RTP/AVP 97\r\na=rtpmap:97 JPEG/90000\r\n\
        m=video 0 RTP/AVP 96\r\na=rtpmap:96 h264/90000\r\n\
        a=fmtp:96 packetization-mode=1; Sprop-Parameter-Sets=Z01AHg==,aM4;profile-level-id=4D401E\r\n\
        m=video 0 RTP/AVP 98\r\na=rtpmap:98 H265/90000\r\n\
        a=fmtp:98 sprop-pps=RAE=; sprop-vps=QAE=; sprop-sps=QgE=,*bad*\r\n";

    #[test]
    fn the_sets_of_the_video_that_is_asked_for() {
        assert_eq!(parameter_sets(SDP, 96, "h264"), [vec![0x67, 0x4d, 0x40, 0x1e], vec![0x68, 0xce]]);
        assert_eq!(parameter_sets(SDP, 98, "h265"), [[0x40, 1], [0x42, 1], [0x44, 1]]);
        assert!(parameter_sets(SDP, 97, "h264").is_empty());
        assert!(parameter_sets(b"a=fmtp:96", 96, "h264").is_empty());
        assert!(parameter_sets(b"m=video 0 RTP/AVP 96\na=rtpmap:96 H264/90000\na=fmtp:96", 96, "h264").is_empty());
    }
}
