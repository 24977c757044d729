//! Keeps credentials out of what is printed.

/// `text` with the user part of every URL in it masked: `rtsp://user:pass@host` becomes `rtsp://***@host`.
///
/// Masked is everything between `://` and the last `@` before the next `/`, `?`, `#`, quote or blank, and where a
/// password holds such a character too, up to the last `@` of the word that is followed by what looks like a host.
/// Column numbers shift; callers that point at columns use [`mask`].
pub fn redact(text: &str) -> String {
    let hide = |_: &str| "***".to_owned();
    without_scheme(&parameters(&replace(text, false, hide), hide), hide)
}

/// A text that is one URL and nothing else, as [`redact`]: whatever is in front of its last '@' is masked, blanks included, and
/// what is in the place of a port and is no number.
pub fn redact_url(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return redact(url) };
    if let Some(at) = rest.rfind('@') {
        return redact(&format!("{scheme}://***{}", &rest[at..]));
    }
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') && !port.chars().all(|c| c.is_ascii_digit()) => {
            redact(&format!("{scheme}://{host}:***{path}"))
        }
        _ => redact(url),
    }
}

/// A line of a graph with every secret character replaced by one `*`, so that columns stay where they are: as
/// [`redact`], and the whole value after a name that [`is_secret`].
pub fn mask(line: &str) -> String {
    let hide = |secret: &str| "*".repeat(secret.chars().count());
    mask_values(&without_scheme(&parameters(&replace(line, true, hide), hide), hide))
}

/// Whether the value of a setting of this name is a secret. The name of a variable or a file that holds one is none.
pub fn is_secret(key: &str) -> bool {
    const WORDS: [&str; 5] = ["PASS", "SECRET", "TOKEN", "API_KEY", "CREDENTIAL"];
    let upper = key.to_uppercase();
    if upper.ends_with("_ENV") || upper.ends_with("_FILE") {
        return false;
    }
    WORDS.iter().any(|word| upper.contains(word)) || ["PW", "PWD"].contains(&upper.as_str())
}

/// What ends a word of a line of YAML.
fn ends_word(c: char) -> bool {
    c.is_whitespace() || matches!(c, '"' | '\'' | ',' | '{' | '}')
}

/// Masks `user:password@` of URLs whose scheme is misspelt or missing (`rtsp:/u:p@host`, `u:p@host`).
fn without_scheme(text: &str, masked: impl Fn(&str) -> String) -> String {
    let mask_word = |word: &str| match word.rfind('@') {
        Some(at) if word[..at].contains(':') && !word[..at].ends_with('*') => masked(&word[..at]) + &word[at..],
        _ => word.to_owned(),
    };
    let mut out = String::with_capacity(text.len());
    for piece in text.split_inclusive(ends_word) {
        let word = piece.trim_end_matches(ends_word);
        out.push_str(&mask_word(word));
        out.push_str(&piece[word.len()..]);
    }
    out
}

/// Masks the values of `password=` and the like, which some cameras have in their paths.
fn parameters(text: &str, masked: impl Fn(&str) -> String) -> String {
    const NAMES: [&str; 5] = ["password=", "passwd=", "pwd=", "pass=", "token="];
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    loop {
        let lower = rest.to_ascii_lowercase();
        let Some(end) = NAMES.iter().filter_map(|name| lower.find(name).map(|at| at + name.len())).min() else { break };
        out.push_str(&rest[..end]);
        let value = &rest[end..];
        let length = value.find(|c| ends_word(c) || matches!(c, '&' | '/' | '?' | '#')).unwrap_or(value.len());
        out.push_str(&masked(&value[..length]));
        rest = &value[length..];
    }
    out.push_str(rest);
    out
}

fn mask_values(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(colon) = rest.find(": ") {
        let (before, value) = rest.split_at(colon + 2);
        out.push_str(before);
        // a misspelt name may have blanks in it
        let start = before[..colon].rfind([',', '{', '[']).map_or(0, |at| at + 1);
        let name = before[start..colon].trim_matches(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '-'));
        rest = value;
        if is_secret(name) {
            let quote = value.chars().next().filter(|c| matches!(c, '"' | '\''));
            let end = match quote {
                Some(quote) => value[1..].find(quote).map_or(value.len(), |at| at + 2),
                None => value.find([',', '}']).unwrap_or(value.len()),
            };
            let hide = |c: char| if c == ' ' || Some(c) == quote { c } else { '*' };
            out.extend(value[..end].chars().map(hide));
            rest = &value[end..];
        }
    }
    out.push_str(rest);
    out
}

/// Masks the users of URLs. In a line of YAML a URL may have blanks in it: it ends with its quote, or with the line.
fn replace(text: &str, is_line: bool, masked: impl Fn(&str) -> String) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        out.push_str(before);
        // A password may hold '/' or '#' unescaped, so the last '@' of the whole word counts.
        let quote = before[..at].trim_end_matches(|c: char| c.is_ascii_alphanumeric()).chars().next_back();
        let quote = quote.filter(|c| matches!(c, '"' | '\''));
        let ends = |c: char| if is_line { Some(c) == quote } else { c.is_whitespace() || c == '"' || c == '\'' };
        let word_end = after.find(ends).unwrap_or(after.len());
        // Several URLs in one word (a list with commas): each on its own.
        let word_end = after[..word_end].find("://").map_or(word_end, |next| after[..next].rfind(',').unwrap_or(next));
        rest = match after[..word_end].rfind('@') {
            Some(end) => {
                out.push_str(&masked(&after[..end]));
                &after[end..]
            }
            None => after,
        };
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misspelt_urls_and_passwords_in_paths_are_masked_too() {
        for (text, shown) in [
            ("rtsp:/u:hidden5@x/y", "***@x/y"),
            ("the url 'rtsp//u:hidden7@x/y' is", "the url '***@x/y' is"),
            ("url: u:hidden8@x/y", "url: ***@x/y"),
            ("rtsp://h/user=admin&password=hidden12&channel=1", "rtsp://h/user=admin&password=***&channel=1"),
            ("me@example.org", "me@example.org"),
        ] {
            assert_eq!(redact(text), shown);
        }
        assert_eq!(mask("  - { id: a, passwort: secret, pw: secret }"), "  - { id: a, passwort: ******, pw: ****** }");
    }

    #[test]
    fn masks_users_and_passwords() {
        assert_eq!(redact("rtsp://u:p@cam/1"), "rtsp://***@cam/1");
        assert_eq!(redact("a rtsp://u:p@ss/w#1@cam:554/x b"), "a rtsp://***@cam:554/x b");
        assert_eq!(redact("rtsp://u:p@a/1,rtsp://v:q@b/2"), "rtsp://***@a/1,rtsp://***@b/2");
        assert_eq!(redact("\"rtsp://u:p@a\" x@y"), "\"rtsp://***@a\" x@y");
        assert_eq!(redact("http://host/path"), "http://host/path");
        assert_eq!(redact("no url, me@here"), "no url, me@here");
    }

    #[test]
    fn a_url_alone_is_masked_whatever_its_password_holds() {
        for (url, shown) in [
            ("rtsp://admin:Hunter 4@10.0.0.5/x", "rtsp://***@10.0.0.5/x"),
            ("rtsp://admin:Hunter2#1@10.0.0.5/x", "rtsp://***@10.0.0.5/x"),
            ("rtsp://admin:Hun", "rtsp://admin:***"),
            ("rtsp://admin:Hun/1", "rtsp://admin:***/1"),
            ("rtsp://[::1]:8554/a", "rtsp://[::1]:8554/a"),
            ("rtsp://cam:554/a", "rtsp://cam:554/a"),
        ] {
            assert_eq!(redact_url(url), shown);
        }
    }

    #[test]
    fn a_line_is_masked_where_its_url_or_its_key_has_blanks() {
        for (line, shown) in [
            (
                "    url: \"rtsp://admin:Hunter 4@10.0.0.5/x\" # me@x",
                "    url: \"rtsp://**************@10.0.0.5/x\" # me@x",
            ),
            ("    url: rtsp://admin:Hunter\t4@10.0.0.5/x", "    url: rtsp://**************@10.0.0.5/x"),
            ("  - { id: a, url: rtsp://a:Hun,ter2@h/x }", "  - { id: a, url: rtsp://**********@h/x }"),
            ("    pass word: Hunter9", "    pass word: *******"),
            ("    password_env: CAM_1", "    password_env: CAM_1"),
            ("    password_file: a.pw", "    password_file: a.pw"),
        ] {
            assert_eq!(mask(line), shown);
        }
    }

    #[test]
    fn keeps_columns() {
        let line = "    SOURCE: rtsp://user:pass@cam/1 # x";
        assert_eq!(mask(line), "    SOURCE: rtsp://*********@cam/1 # x");
        assert_eq!(mask(line).chars().count(), line.chars().count());
        assert_eq!(
            mask("{ TOKEN: abc, A: b, PASSWORD: \"x, y\", C: d }"),
            "{ TOKEN: ***, A: b, PASSWORD: \"** *\", C: d }"
        );
        assert_eq!(mask("é\"my-secret\": 'open"), "é\"my-secret\": '****");
        assert_eq!(mask("  SECRET: "), "  SECRET: ");
    }
}
