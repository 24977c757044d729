//! A server that is no RTSP server: what it is, by the first bytes of its answer.

/// A reader's line, no more.
const SHOWN_CHARS: usize = 40;
const CHECK_PORT: &str = "check the port in the URL";

/// What the server speaks and what to do, where the client's error shows bytes that are no RTSP, or says that none came.
pub(super) fn in_words(error: &str) -> Option<String> {
    if error.contains("EOF while expecting response") {
        return Some("the server closes the connection without an answer".to_owned());
    }
    let bytes = dumped(error)?;
    Some(of(&bytes).unwrap_or_else(|| {
        let line = bytes.split(|byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or_default();
        let shown = line.iter().take(SHOWN_CHARS);
        let shown: String = shown.map(|&b| if b == b' ' || b.is_ascii_graphic() { b as char } else { '.' }).collect();
        format!("the server answers with something else than RTSP, which begins with '{shown}': {CHECK_PORT}")
    }))
}

/// What a server that answers with these bytes speaks, where that is known.
pub(super) fn of(bytes: &[u8]) -> Option<String> {
    let (speaks, fix) = match bytes {
        [b'H', b'T', b'T', b'P', b'/', ..] => ("HTTP", CHECK_PORT),
        [b'S', b'S', b'H', b'-', ..] => ("SSH", CHECK_PORT),
        // a record of the type alert or handshake
        [0x15 | 0x16, 3, 0..=4, ..] => ("TLS", "RTSP over TLS is not supported; choose the camera's port without it"),
        _ => return None,
    };
    Some(format!("the server answers with {speaks}, not RTSP: {fix}"))
}

/// The error without the bytes that it shows.
pub(super) fn without_dump(error: &str) -> &str {
    error.split("; buffered:").next().unwrap_or_default()
}

/// The bytes that the client could not read. It shows them as lines of 16, each behind its offset.
fn dumped(error: &str) -> Option<Vec<u8>> {
    let (_, dump) = error.split_once("buffered:\n")?;
    let mut lines = dump.lines();
    let count: usize = lines.next()?.strip_prefix("Length: ")?.split(' ').next()?.parse().ok()?;
    let mut bytes = Vec::new();
    for line in lines {
        let Some((_, shown)) = line.split_once(':').filter(|(offset, _)| u64::from_str_radix(offset, 16).is_ok())
        else {
            break;
        };
        let left = count.saturating_sub(bytes.len()).min(16);
        let pairs = shown.split_whitespace().take(left).map(|pair| u8::from_str_radix(pair, 16));
        bytes.extend(pairs.collect::<Result<Vec<_>, _>>().ok()?);
    }
    (!bytes.is_empty()).then_some(bytes)
}
