//! What a session description says of videos (RFC 4566, RFC 2326 C.1), and the parameter sets that it states (RFC 6184
//! 8.2.1, RFC 7798 7.2.1).

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

/// The clock of H.264 and H.265 (RFC 6184 8.2.1, RFC 7798 7.1), where the description says nothing that can be read.
const VIDEO_HZ: u32 = 90_000;

/// A video that a description offers.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Video {
    pub(super) payload_type: u8,
    /// In small letters.
    pub(super) encoding: String,
    pub(super) clock_rate_hz: u32,
    pub(super) control: Option<String>,
}

/// The videos of a description, each with the first of its payload types.
pub(super) fn videos(sdp: &[u8]) -> Vec<Video> {
    let text = String::from_utf8_lossy(sdp);
    let mut videos: Vec<Video> = Vec::new();
    let mut in_video = false;
    for line in text.lines().map(str::trim) {
        if let Some(media) = line.strip_prefix("m=") {
            // m=video PORT PROTOCOL TYPE ...
            let kind = media.split_whitespace().nth(3).and_then(|kind| kind.parse().ok());
            in_video = media.starts_with("video ") && kind.is_some();
            videos.extend(kind.filter(|_| in_video).map(|payload_type| Video {
                payload_type,
                encoding: format!("payload type {payload_type}"),
                clock_rate_hz: VIDEO_HZ,
                control: None,
            }));
        }
        let Some(video) = videos.last_mut().filter(|_| in_video) else { continue };
        if let Some(map) = line.strip_prefix("a=rtpmap:").and_then(|map| for_payload(map, video.payload_type)) {
            let mut parts = map.split('/').map(str::trim);
            video.encoding = parts.next().unwrap_or_default().to_ascii_lowercase();
            video.clock_rate_hz =
                parts.next().and_then(|rate| rate.parse().ok()).filter(|rate| *rate > 0).unwrap_or(VIDEO_HZ);
        } else if let Some(control) = line.strip_prefix("a=control:") {
            video.control = Some(control.trim().to_owned());
        }
    }
    videos
}

/// The control URL of the whole session, where the description states one.
pub(super) fn session_control(sdp: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(sdp);
    let session = text.lines().map(str::trim).take_while(|line| !line.starts_with("m="));
    session.filter_map(|line| line.strip_prefix("a=control:")).last().map(|control| control.trim().to_owned())
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
    #[test]
    fn the_videos_that_are_offered() {
        let video = |payload_type, encoding: &str, clock_rate_hz, control: Option<&str>| {
            let (encoding, control) = (encoding.to_owned(), control.map(str::to_owned));
            Video { payload_type, encoding, clock_rate_hz, control }
        };
        let mapped = |payload_type, encoding| video(payload_type, encoding, 90_000, None);
        assert_eq!(videos(SDP), [mapped(97, "jpeg"), mapped(96, "h264"), mapped(98, "h265")]);
        assert_eq!(session_control(SDP), None);
        let odd = b"v=0\na=control:*\nm=video 0 RTP/AVP 26\na=control:track1\nm=video 0\na=control:none\n\
            m=video 0 RTP/AVP 35 36\na=rtpmap:36 H264/1\na=rtpmap:35 H265/0\r\na=control: rtsp://cam/2 \r\n\
            m=audio 0 RTP/AVP 0\na=control:track3\n";
        let expected =
            [video(26, "payload type 26", 90_000, Some("track1")), video(35, "h265", 90_000, Some("rtsp://cam/2"))];
        assert_eq!(videos(odd), expected);
        assert_eq!(session_control(odd).as_deref(), Some("*"));
    }
}
