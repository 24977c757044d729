//! What a camera's `url:` may be.

use crate::redact::redact;

/// What is wrong with a URL, and how it is corrected.
pub(super) type Refusal = (String, Option<String>);

/// What is known of a URL that can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Address {
    /// It names a user.
    pub(super) has_user: bool,
    /// It has a password in it.
    pub(super) has_password: bool,
}

/// Reads an `rtsp://` or `http://` URL as far as a check needs it.
pub(super) fn check(url: &str) -> Result<Address, Refusal> {
    const FORM: &str = "url: rtsp://host[:port]/path";
    let shown = redact(url);
    let Some((scheme, rest)) = url.split_once("://") else {
        let fix = format!("{FORM}, or 'file:' for a file");
        return Err((format!("the url '{shown}' is not an rtsp:// or http:// URL"), Some(fix)));
    };
    match scheme.to_ascii_lowercase().as_str() {
        "rtsp" | "http" => {}
        secure @ ("rtsps" | "https") => {
            let what = format!(
                "the url '{shown}' asks for TLS ({secure}://), which the decoder's client does not have; nothing would be \
                 encrypted"
            );
            let plain = &secure[..4];
            let fix = format!("use {plain}:// inside a trusted network, or a proxy that ends TLS beside the decoder");
            return Err((what, Some(fix)));
        }
        other => {
            let what = format!("the url '{shown}' has the scheme '{other}'; cameras are read by rtsp:// or http://");
            return Err((what, Some(FORM.to_owned())));
        }
    }
    if url.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err((format!("the url '{shown}' has a blank in it"), Some("write it as %20".to_owned())));
    }
    // a password may hold '/' unescaped, so the last '@' before the query counts
    let before_query = rest.split(['?', '#']).next().unwrap_or_default();
    let (user, place) = before_query.rsplit_once('@').map_or((None, before_query), |(user, place)| (Some(user), place));
    let authority = place.split('/').next().unwrap_or_default();
    let (host, port) = match authority.rfind(':') {
        // the colons of [::1] are no port's
        Some(colon) if !authority[colon..].contains(']') => (&authority[..colon], Some(&authority[colon + 1..])),
        _ => (authority, None),
    };
    if host.is_empty() {
        return Err((format!("the url '{shown}' names no host"), Some(FORM.to_owned())));
    }
    if let Some(port) = port
        && !port.parse::<u16>().is_ok_and(|port| port > 0)
    {
        let what = format!("the url '{shown}' has the port '{port}', which is not a number from 1 to 65535");
        return Err((what, Some(FORM.to_owned())));
    }
    Ok(Address { has_user: user.is_some(), has_password: user.is_some_and(|user| user.contains(':')) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_as_far_as_the_check_needs() {
        let plain = Address { has_user: false, has_password: false };
        for url in [
            "http://cam/video.mjpg",
            "rtsp://cam",
            "rtsp://cam:554/live",
            "RTSP://[::1]/a",
            "rtsp://[::1]:8554/a?x=me@here",
        ] {
            assert_eq!(check(url), Ok(plain), "{url}");
        }
        assert_eq!(check("rtsp://me@cam/1"), Ok(Address { has_user: true, has_password: false }));
        assert_eq!(check("rtsp://me:p@ss/w@cam/1"), Ok(Address { has_user: true, has_password: true }));
        for (url, says) in [
            ("cam.mp4", "not an rtsp:// or http:// URL"),
            ("ftp://cam/1", "scheme 'ftp'"),
            ("rtsps://cam/1", "asks for TLS (rtsps://)"),
            ("https://cam/1", "asks for TLS (https://)"),
            ("rtsp:///1", "names no host"),
            ("rtsp://:554/1", "names no host"),
            ("rtsp://cam:x/1", "port 'x'"),
            ("rtsp://cam:0/1", "port '0'"),
            ("rtsp://cam/a b", "blank"),
        ] {
            let (what, fix) = check(url).expect_err(url);
            assert!(what.contains(says) && fix.is_some(), "{url}: {what}");
        }
        let (what, _) = check("ftp://me:hunter2@cam/").expect_err("ftp");
        assert!(!what.contains("hunter2"), "{what}");
    }
}
