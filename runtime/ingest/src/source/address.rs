//! A camera's URL, parted from what is secret in it.

use super::url::redact_url;
use percent_encoding::percent_decode_str;
use retina::client::Credentials;
use url::Url;

/// The longest error text that is passed on.
const LONGEST_TEXT_CHARS: usize = 300;

/// Why a URL cannot be used.
#[derive(Debug)]
pub(super) struct BadUrl {
    pub(super) reason: String,
    pub(super) fix: &'static str,
}

/// What is expected, by the scheme.
fn form(scheme: &str) -> &'static str {
    match scheme {
        "http" => {
            "http://[user:password@]host[:port]/path is expected, with reserved characters of the password as %XX"
        }
        _ => "rtsp://[user:password@]host[:port]/path is expected, with reserved characters of the password as %XX",
    }
}

const NO_TLS: &str = "use the scheme without TLS on a network that you trust, or a proxy on this machine that speaks TLS to \
                      the camera";

/// Where a camera is, and what its messages must not show.
#[derive(Clone)]
pub(super) struct Address {
    /// Without user and password.
    pub(super) url: Url,
    /// The URL as it may be shown.
    pub(super) shown: String,
    pub(super) credentials: Option<Credentials>,
    secrets: Vec<String>,
}

impl Address {
    /// The URL, or why it cannot be used. The reason does not repeat the URL.
    pub(super) fn parse(text: &str, scheme: &str) -> Result<Self, BadUrl> {
        let mut url = Url::parse(text).map_err(|e| BadUrl { reason: format!("not a URL ({e})"), fix: form(scheme) })?;
        if url.host_str().is_none_or(str::is_empty) {
            return Err(BadUrl { reason: "not a URL (empty host)".into(), fix: form(scheme) });
        }
        if url.scheme() != scheme {
            let reason = format!("{} over TLS is not supported", scheme.to_ascii_uppercase());
            return Err(BadUrl { reason, fix: NO_TLS });
        }
        let decoded = |s: &str| percent_decode_str(s).decode_utf8_lossy().into_owned();
        let password = url.password().unwrap_or_default().to_owned();
        let user = url.username().to_owned();
        let mut secrets = vec![password.clone(), decoded(&password), user.clone(), decoded(&user)];
        secrets.extend(url.query().map(str::to_owned));
        secrets.retain(|s| !s.is_empty());
        // the longest first, so that none leaves a part of another behind
        secrets.sort_by_key(|s| std::cmp::Reverse(s.len()));
        let credentials =
            (!user.is_empty()).then(|| Credentials { username: decoded(&user), password: decoded(&password) });
        // neither can fail for a URL that has a host
        let _ = url.set_username("");
        let _ = url.set_password(None);
        Ok(Self { url, shown: redact_url(text), credentials, secrets })
    }

    /// An error's first paragraph without what is secret. What follows it are addresses of packets.
    pub(super) fn scrubbed(&self, text: &str) -> String {
        let first = text.split("\n\n").next().unwrap_or_default();
        let line = first.split_whitespace().collect::<Vec<_>>().join(" ");
        let clean = self.secrets.iter().fold(line, |text, secret| text.replace(secret.as_str(), "…"));
        match clean.char_indices().nth(LONGEST_TEXT_CHARS) {
            Some((end, _)) => format!("{}…", &clean[..end]),
            None => clean,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn credentials_are_taken_out_of_the_url_and_of_every_message() {
        let address = Address::parse("rtsp://ad%6Din:p%40ss%2Fw%25rd@cam/live?token=abc", "rtsp").unwrap();
        assert_eq!(address.url.as_str(), "rtsp://cam/live?token=abc");
        assert_eq!(address.shown, "rtsp://…@cam/live?…");
        let wanted = Credentials { username: "admin".into(), password: "p@ss/w%rd".into() };
        assert_eq!(address.credentials, Some(wanted));
        let text = address.scrubbed("bad: admin p@ss/w%rd ad%6Din p%40ss%2Fw%25rd at rtsp://cam/live?token=abc");
        assert_eq!(text, "bad: … … … … at rtsp://cam/live?…");
    }

    #[test]
    fn a_message_is_one_line_of_bounded_length() {
        let address = Address::parse("rtsp://cam/", "rtsp").unwrap();
        assert_eq!(address.scrubbed("first\n  line\n\nconn: 1.2.3.4"), "first line");
        assert_eq!(address.scrubbed(&"ä".repeat(5000)).chars().count(), LONGEST_TEXT_CHARS + 1);
    }

    #[test]
    fn what_is_no_url_is_told_without_being_shown() {
        for text in ["rtsp://user:hidden1@", "rtsp://", "rtsp://user:hidden1@host:port/"] {
            let reason = Address::parse(text, "rtsp").err().unwrap().reason;
            assert!(reason.starts_with("not a URL ("), "{reason}");
            assert!(!reason.contains("hidden1"));
        }
    }
}
