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
    /// Its user's name, as it stands in the URL and decoded: masked where it is a word by itself, since a short one is a
    /// part of other words.
    users: [String; 2],
}

impl Address {
    /// The URL, or why it cannot be used. The reason does not repeat the URL.
    pub(super) fn parse(text: &str, scheme: &str) -> Result<Self, BadUrl> {
        if hides_its_host(text) {
            let reason = "not a URL (one of / ? # @ in its user or password)".to_owned();
            return Err(BadUrl { reason, fix: form(scheme) });
        }
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
        let mut secrets = vec![password.clone(), decoded(&password)];
        secrets.extend(url.query().map(str::to_owned));
        secrets.retain(|s| !s.is_empty());
        // the longest first, so that none leaves a part of another behind
        secrets.sort_by_key(|s| std::cmp::Reverse(s.len()));
        let users = [user.clone(), decoded(&user)];
        let credentials =
            (!user.is_empty()).then(|| Credentials { username: decoded(&user), password: decoded(&password) });
        // neither can fail for a URL that has a host
        let _ = url.set_username("");
        let _ = url.set_password(None);
        Ok(Self { url, shown: redact_url(text), credentials, secrets, users })
    }

    /// An error's first paragraph without what is secret. What follows it are addresses of packets.
    pub(super) fn scrubbed(&self, text: &str) -> String {
        let first = text.split("\n\n").next().unwrap_or_default();
        let line = first.split_whitespace().collect::<Vec<_>>().join(" ");
        let clean = self.secrets.iter().fold(line, |text, secret| text.replace(secret.as_str(), "…"));
        let clean = self.users.iter().fold(clean, |text, user| without_word(&text, user));
        match clean.char_indices().nth(LONGEST_TEXT_CHARS) {
            Some((end, _)) => format!("{}…", &clean[..end]),
            None => clean,
        }
    }
}

/// `text` with each `word` that is one by itself masked.
fn without_word(text: &str, word: &str) -> String {
    if word.is_empty() {
        return text.to_owned();
    }
    let mut out = String::with_capacity(text.len());
    let mut done = 0;
    for (at, found) in text.match_indices(word) {
        let (before, after) = (text[..at].chars().next_back(), text[at + found.len()..].chars().next());
        if ![before, after].into_iter().flatten().any(char::is_alphanumeric) {
            out.push_str(&text[done..at]);
            out.push('…');
            done = at + found.len();
        }
    }
    out.push_str(&text[done..]);
    out
}

/// An '@' stands behind the first '/', '?' or '#', where the host has ended by RFC 3986, and yet what follows it looks like
/// the host: the client would connect to a part of the password. `millrace check` refuses the same.
fn hides_its_host(text: &str) -> bool {
    let rest = text.split_once("://").map_or(text, |(_, rest)| rest);
    let (authority, behind) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let Some((_, tail)) = behind.rsplit_once('@') else { return false };
    let place = tail.split(['/', '?', '#']).next().unwrap_or_default();
    authority.contains('@') || place.contains(['.', ':', '[']) || place == "localhost"
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
    fn a_short_users_name_is_no_part_of_other_words() {
        let address = Address::parse("rtsp://u:hidden1@cam/", "rtsp").unwrap();
        assert_eq!(address.scrubbed("Connection refused: u, user=u"), "Connection refused: …, user=…");
    }

    #[test]
    fn a_message_is_one_line_of_bounded_length() {
        let address = Address::parse("rtsp://cam/", "rtsp").unwrap();
        assert_eq!(address.scrubbed("first\n  line\n\nconn: 1.2.3.4"), "first line");
        assert_eq!(address.scrubbed(&"ä".repeat(5000)).chars().count(), LONGEST_TEXT_CHARS + 1);
    }

    #[test]
    fn what_is_no_url_is_told_without_being_shown() {
        for text in [
            "rtsp://user:hidden1@",
            "rtsp://",
            "rtsp://user:hidden1@host:port/",
            "rtsp://user:1234#hidden1@10.0.0.5/x",
            "rtsp://user:a@hidden1/2@host/x",
        ] {
            let reason = Address::parse(text, "rtsp").err().unwrap().reason;
            assert!(reason.starts_with("not a URL ("), "{reason}");
            assert!(!reason.contains("hidden1"));
        }
    }
}
