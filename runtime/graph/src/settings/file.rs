//! Settings that name files: plain names, which are taken as they are written, and `file:` URLs.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode};
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// Whether a text is a URL rather than a file's name: it begins with `scheme://`, or with `file:`.
pub fn is_url(text: &str) -> bool {
    let is_scheme = |scheme: &str| {
        scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
    };
    is_file_url(text) || text.split_once("://").is_some_and(|(scheme, _)| is_scheme(scheme))
}

fn is_file_url(text: &str) -> bool {
    text.get(..5).is_some_and(|start| start.eq_ignore_ascii_case("file:"))
}

/// The file that a text names: a name stands for itself, whatever is in it, and a `file:` URL (RFC 8089) for the absolute
/// path that it encodes. So a URL can name what is no UTF-8.
///
/// # Errors
/// Why it is no `file:` URL of this machine, and how to write it.
pub fn file_path(text: &str) -> Result<PathBuf, String> {
    if !is_file_url(text) {
        return Ok(PathBuf::from(text));
    }
    let rest = &text[5..];
    let path = match rest.strip_prefix("//") {
        Some(after) => {
            let (host, _) = after.split_once('/').unwrap_or((after, ""));
            if !(host.is_empty() || host.eq_ignore_ascii_case("localhost")) {
                return Err(format!(
                    "the URL names the host '{host}', and files of this machine alone can be read; \
                     file:///folder/clip.mp4 is expected"
                ));
            }
            &after[host.len()..]
        }
        None => rest,
    };
    if !path.starts_with('/') {
        return Err(format!(
            "a file: URL has an absolute path, as file:///folder/clip.mp4 has; a file of this name is written ./{text}"
        ));
    }
    if let Some(mark) = path.find(['?', '#']).map(|at| &path[at..=at]) {
        let code = if mark == "?" { "%3F" } else { "%23" };
        return Err(format!("a '{mark}' in the path of a file: URL is written {code}"));
    }
    let is_code = |code: &[u8]| code.len() == 2 && code.iter().all(u8::is_ascii_hexdigit);
    let mut codes = path.match_indices('%').map(|(at, _)| path.as_bytes().get(at + 1..at + 3).unwrap_or_default());
    if !codes.all(is_code) {
        return Err("a '%' in a file: URL begins two hexadecimal digits; '%' itself is written %25".to_owned());
    }
    let bytes: Vec<u8> = percent_decode_str(path).collect();
    if bytes.contains(&0) {
        return Err("the path has a zero byte (%00), which no file's name can have".to_owned());
    }
    Ok(PathBuf::from(OsString::from_vec(bytes)))
}

/// What [`file_path`] reads as this path: the path itself, or a `file:` URL where that would be read otherwise or is no
/// UTF-8.
pub fn file_text(path: &Path) -> String {
    const KEPT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'.').remove(b'-').remove(b'_');
    match path.to_str() {
        Some(text) if !is_url(text) => text.to_owned(),
        _ => {
            let whole = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
            format!("file://{}", percent_encode(whole.as_os_str().as_bytes(), KEPT))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_stand_for_themselves() {
        for name in ["a%20b.mp4", "$HOME.mp4", " a ", "rtsp:x.mp4", "./file:x", "~", "what?.mp4", "C:\\x", "a/b://c"] {
            assert!(!is_url(name), "{name}");
            assert_eq!(file_path(name).unwrap().to_str(), Some(name));
        }
        assert!(["rtsp://h/1", "RTSPS://h", "http://h", "file:/a", "File:///a"].iter().all(|text| is_url(text)));
    }

    #[test]
    fn a_file_url_is_decoded_once() {
        for (url, path) in [
            ("file:///a/b.mp4", "/a/b.mp4"),
            ("file:/a/b.mp4", "/a/b.mp4"),
            ("FILE://LocalHost/a%20b%2525", "/a b%25"),
            ("file:///%24HOME/%3F%23+.mp4", "/$HOME/?#+.mp4"),
            ("file:///caf\u{e9}", "/caf\u{e9}"),
        ] {
            assert_eq!(file_path(url).unwrap().to_str(), Some(path), "{url}");
        }
        assert_eq!(file_path("file:///caf%E9").unwrap().as_os_str().as_bytes(), b"/caf\xe9");
    }

    #[test]
    fn what_is_written_is_read_as_the_same_path() {
        assert_eq!(file_text(Path::new("a b%20.mp4")), "a b%20.mp4");
        for bytes in [&b"/a b/caf\xe9?#%.mp4"[..], b"/x/file:y", b"file:z", b"a://b", b"\xff"] {
            let path = PathBuf::from(OsString::from_vec(bytes.to_vec()));
            let whole = std::path::absolute(&path).unwrap();
            let read = file_path(&file_text(&path)).unwrap();
            assert!(read == path || read == whole, "{path:?}: {read:?}");
        }
    }

    #[test]
    fn what_is_no_file_of_this_machine_is_refused_in_words() {
        for (url, says) in [
            ("file://nas/clips/a.mp4", "the host 'nas'"),
            ("file://a.mp4", "the host 'a.mp4'"),
            ("file:a.mp4", "./file:a.mp4"),
            ("file:", "absolute path"),
            ("file://localhost", "absolute path"),
            ("file:///a?b", "written %3F"),
            ("file:///a#b", "written %23"),
            ("file:///100%", "%25"),
            ("file:///%zz", "%25"),
            ("file:///a%00b", "zero byte"),
        ] {
            let refused = file_path(url).unwrap_err();
            assert!(refused.contains(says), "{url}: {refused}");
        }
    }
}
