//! URLs of cameras as they may be shown.

/// Whether `source` is a camera's URL rather than a path.
pub fn is_camera_url(source: &str) -> bool {
    is_rtsp(source) || is_http(source)
}

/// Whether `source` is an RTSP URL.
pub(crate) fn is_rtsp(source: &str) -> bool {
    begins(source, ["rtsp://", "rtsps://"])
}

/// Whether `source` is an HTTP URL.
pub(crate) fn is_http(source: &str) -> bool {
    begins(source, ["http://", "https://"])
}

fn begins(source: &str, schemes: [&str; 2]) -> bool {
    schemes.iter().any(|s| source.get(..s.len()).is_some_and(|p| p.eq_ignore_ascii_case(s)))
}

/// Whether `source` can be opened at all, as far as its name tells: a path always, of URLs those of RTSP and HTTP without
/// TLS. The reason has nothing secret in it.
///
/// # Errors
/// What is wrong with it and what to write instead.
pub fn check_source(source: &str) -> Result<(), String> {
    match source {
        url if is_rtsp(url) => super::rtsp::check_url(url),
        url if is_http(url) => super::http::check_url(url),
        other => match strange_scheme(other) {
            Some(scheme) => Err(format!("{scheme}:// is not read; {SERVE}")),
            None => Ok(()),
        },
    }
}

pub(super) const SERVE: &str = "rtsp:// and http:// (Motion JPEG) are. Let a server between serve it as RTSP (MediaMTX and \
                                others do), or record it to a file";

/// The scheme of what looks like an address that is not read here, and is no file.
pub(super) fn strange_scheme(source: &str) -> Option<&str> {
    let (scheme, _) = source.split_once("://")?;
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
    (is_scheme && !std::path::Path::new(source).exists()).then_some(scheme)
}

/// `source` without anything secret: of a URL, user, password, query and fragment are taken out (cameras put credentials
/// in all of them); a path is given back as it is. Every message and log line names a source by this.
pub fn redact_url(source: &str) -> String {
    if !is_camera_url(source) {
        return source.to_owned();
    }
    let (scheme, rest) = source.split_once("://").unwrap_or(("rtsp", source));
    let scheme = scheme.to_ascii_lowercase();
    let query = rest.find(['?', '#']);
    match (rest.rfind('@'), query) {
        // a password that holds '?', or a query that holds '@': nobody can tell, so nothing is shown
        (Some(at), Some(query)) if query < at => format!("{scheme}://…"),
        // The host begins after the last '@': a password may hold '@' and '/', which no host does. A path that holds '@'
        // loses the host with it, which is the safe side.
        (at, query) => {
            let user = if at.is_some() { "…@" } else { "" };
            let tail = if query.is_some() { "?…" } else { "" };
            let shown = &rest[at.map_or(0, |at| at + 1)..query.unwrap_or(rest.len())];
            // some cameras have user and password in the path: user=admin&password=...
            let lower = shown.to_ascii_lowercase();
            if ["password=", "passwd=", "pwd=", "pass=", "token="].iter().any(|name| lower.contains(name)) {
                return format!("{scheme}://{user}{}/…", shown.split('/').next().unwrap_or_default());
            }
            format!("{scheme}://{user}{shown}{tail}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_left_of_a_url() {
        assert_eq!(redact_url("rtsp://cam.local:554/h264"), "rtsp://cam.local:554/h264");
        assert_eq!(redact_url("RTSP://bob:hunter2@10.0.0.7/a/b"), "rtsp://…@10.0.0.7/a/b");
        assert_eq!(redact_url("rtsp://bob:p@ss/w@h/1"), "rtsp://…@h/1");
        assert_eq!(redact_url("rtsp://h/1?user=bob&pwd=x"), "rtsp://h/1?…");
        assert_eq!(redact_url("rtsp://h/1?mail=bob@secret"), "rtsp://…");
        assert_eq!(redact_url("http://bob:hunter2@cam/video?pwd=x"), "http://…@cam/video?…");
        assert_eq!(redact_url("clips/a@b?.mp4"), "clips/a@b?.mp4");
    }

    #[test]
    fn what_cannot_be_opened_is_refused_before_a_start() {
        assert_eq!(check_source("clips/a.mp4"), Ok(()));
        assert_eq!(check_source("clips/://a.mp4"), Ok(()));
        let other = check_source("rtmp://user:hidden1@server/live").expect_err("it is not read");
        assert!(other.starts_with("rtmp:// is not read; rtsp:// and http://"), "{other}");
        assert!(!other.contains("hidden1"));
        assert_eq!(check_source("rtsp://user:pass@camera/1"), Ok(()));
        let secure = check_source("RTSPS://user:hidden1@camera/1").expect_err("it is not supported");
        assert!(secure.starts_with("RTSP over TLS is not supported; use the scheme without TLS"), "{secure}");
        assert_eq!(check_source("http://user:pass@camera/mjpeg"), Ok(()));
        let secure = check_source("https://camera/1").expect_err("it is not supported");
        assert!(secure.starts_with("HTTP over TLS is not supported"), "{secure}");
        let no_host = check_source("rtsp://user:hidden1@").expect_err("it has no host");
        assert!(no_host.starts_with("not a URL (empty host); rtsp://"), "{no_host}");
        assert!(!secure.contains("hidden1") && !no_host.contains("hidden1"));
    }

    proptest! {
        #[test]
        fn no_password_is_ever_shown(password in "[!-~]{6,20}") {
            let shown = redact_url(&format!("rtsp://user:{password}@camera/stream"));
            prop_assert!(!shown.contains(&password), "{}", shown);
        }
    }
}
