//! What a camera's `url:` may be.

use crate::redact::redact_url;

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
    let shown = redact_url(url);
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
    let (authority, behind) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    if hides_its_host(authority, behind) {
        let what =
            format!("the url '{shown}' has one of / ? # @ in its user or password, so that its host is not known");
        let fix = "write / as %2F, ? as %3F, # as %23 and @ as %40 there, or set 'user:' with 'password_env:' or 'password_file:'";
        return Err((what, Some(fix.to_owned())));
    }
    let (user, authority) = authority.rsplit_once('@').map_or((None, authority), |(user, host)| (Some(user), host));
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
        // what is no number may be a part of a password
        let port = if port.bytes().all(|c| c.is_ascii_digit()) { format!(" '{port}'") } else { String::new() };
        let what = format!("the url '{shown}' has a port{port} that is not a number from 1 to 65535");
        return Err((what, Some(FORM.to_owned())));
    }
    Ok(Address { has_user: user.is_some(), has_password: user.is_some_and(|user| user.contains(':')) })
}

/// An '@' stands behind the first '/', '?' or '#', where the host has ended by RFC 3986, and yet what follows it looks like
/// the host: a client would connect to a part of the password.
fn hides_its_host(authority: &str, behind: &str) -> bool {
    let Some((_, tail)) = behind.rsplit_once('@') else { return false };
    let place = tail.split(['/', '?', '#']).next().unwrap_or_default();
    authority.contains('@') || place.contains(['.', ':', '[']) || place == "localhost" || {
        let port = authority.rsplit_once(':').filter(|(_, port)| !port.contains(']'));
        port.is_some_and(|(_, port)| port.parse::<u16>().is_err())
    }
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
        assert_eq!(check("rtsp://me:p%40ss%2Fw@cam/1"), Ok(Address { has_user: true, has_password: true }));
        assert_eq!(check("rtsp://me:p@ss@cam/1"), Ok(Address { has_user: true, has_password: true }));
        assert_eq!(check("rtsp://cam/user@home"), Ok(plain));
        for (url, says) in [
            ("cam.mp4", "not an rtsp:// or http:// URL"),
            ("ftp://cam/1", "scheme 'ftp'"),
            ("rtsps://cam/1", "asks for TLS (rtsps://)"),
            ("https://cam/1", "asks for TLS (https://)"),
            ("rtsp:///1", "names no host"),
            ("rtsp://:554/1", "names no host"),
            ("rtsp://cam:x/1", "a port that is not"),
            ("rtsp://cam:0/1", "a port '0' that"),
            ("rtsp://cam/a b", "blank"),
        ] {
            let (what, fix) = check(url).expect_err(url);
            assert!(what.contains(says) && fix.is_some(), "{url}: {what}");
        }
        for url in [
            "ftp://me:hunter2@cam/",
            "rtsp://me:hunter2 4@10.0.0.5/x",
            "rtsp://me:hunter2#1@10.0.0.5/x",
            "rtsp://me:hunter2?1@cam:554/x",
            "rtsp://me:1234/hunter2@10.0.0.5/x",
            "rtsp://me:hun@hunter2/2@cam/x",
            "rtsp://me:hunter2",
        ] {
            let (what, fix) = check(url).expect_err(url);
            assert!(!what.contains("hunter2") && !fix.unwrap_or_default().contains("hunter2"), "{what}");
        }
    }
}
