//! Standard output and standard error: whether somebody reads them, and how much fits on a terminal.
//!
//! A reader that has gone (`millrace check … | head -1`) is no fault: what cannot be written is dropped, and the command
//! ends with its usual exit code. Only `millrace run` has to notice, since nothing else would end it.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::FileType;
use std::io::{IsTerminal, Write};
use std::os::fd::{AsFd, OwnedFd};
use textwrap::Options;
use textwrap::core::display_width;

/// `print!`, for a reader that may have gone.
macro_rules! out {
    ($($text:tt)*) => { $crate::out::print(&format!($($text)*)) };
}
/// `println!`, for a reader that may have gone.
macro_rules! outln {
    ($($text:tt)*) => { $crate::out::print(&format!("{}\n", format_args!($($text)*))) };
}
/// `eprint!`, for a reader that may have gone.
macro_rules! err {
    ($($text:tt)*) => { $crate::out::eprint(&format!($($text)*)) };
}
/// `eprintln!`, for a reader that may have gone.
macro_rules! errln {
    ($($text:tt)*) => { $crate::out::eprint(&format!("{}\n", format_args!($($text)*))) };
}
pub(crate) use {err, errln, out, outln};

/// The size of a terminal that does not report one.
pub(crate) const USUAL: Size = Size { columns: 80, rows: 24 };

/// The size of a terminal, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) columns: usize,
    pub(crate) rows: usize,
}

/// Writes to standard output at once.
pub(crate) fn print(text: &str) {
    write(std::io::stdout().lock(), text);
}

/// Writes to standard error at once.
pub(crate) fn eprint(text: &str) {
    write(std::io::stderr().lock(), text);
}

fn write(mut to: impl Write, text: &str) {
    // nobody reads it, or the disk is full: neither is a reason to stop what the command does
    let _ = to.write_all(text.as_bytes()).and_then(|()| to.flush());
}

/// Whether lines on this stream can be drawn over: it is a terminal, and not a dumb one.
pub(crate) fn draws(stream: &impl IsTerminal) -> bool {
    let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
    stream.is_terminal() && !dumb
}

/// Whether text on this stream may have colours; `NO_COLOR` in the environment forbids them.
pub(crate) fn colours(stream: &impl IsTerminal) -> bool {
    draws(stream) && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// The size of the terminal behind a stream.
pub(crate) fn size(stream: impl AsFd) -> Size {
    rustix::termios::tcgetwinsize(stream).map_or(USUAL, |size| match (size.ws_col, size.ws_row) {
        (0, _) | (_, 0) => USUAL,
        (columns, rows) => Size { columns: columns.into(), rows: rows.into() },
    })
}

/// The columns that a table on standard output may have: those of the terminal, or any number in a file or a pipe.
pub(crate) fn columns() -> usize {
    let stdout = std::io::stdout();
    if stdout.is_terminal() { size(&stdout).columns } else { usize::MAX }
}

/// Whether standard output is a pipe whose reader has gone. A socket, such as that of systemd's journal, may come back.
pub(crate) fn reader_has_gone() -> bool {
    let stdout = std::io::stdout();
    is_pipe(&stdout) && has_error(&stdout)
}

fn is_pipe(stream: impl AsFd) -> bool {
    rustix::fs::fstat(stream).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Fifo)
}

fn has_error(stream: &impl AsFd) -> bool {
    let mut asked = [PollFd::new(stream, PollFlags::empty())];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut asked, Some(&now)).is_ok_and(|found| found > 0) && asked[0].revents().contains(PollFlags::ERR)
}

/// Says why a command cannot do its work.
pub(crate) fn complain(error: &anyhow::Error) {
    let (on, off) = if colours(&std::io::stderr()) { ("\x1b[1;31m", "\x1b[0m") } else { ("", "") };
    errln!("{on}millrace:{off} {error:#}");
}

/// Standard error, as the standard output of a program whose lines are not this command's result.
pub(crate) fn stderr() -> std::io::Result<OwnedFd> {
    std::io::stderr().as_fd().try_clone_to_owned()
}

/// How many columns a terminal needs for it.
pub(crate) fn width(text: &str) -> usize {
    display_width(text)
}

/// The beginning of a text that has no room as a whole.
pub(crate) fn cut(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let mut cut = String::new();
    for c in text.chars() {
        if width(&cut) + width(c.encode_utf8(&mut [0; 4])) >= columns {
            break;
        }
        cut.push(c);
    }
    if columns > 0 {
        cut.push('…');
    }
    cut
}

/// A name that has no room as a whole: its beginning and its end, which tell it from others.
pub(crate) fn shortened(name: &str, columns: usize) -> String {
    if width(name) <= columns || columns < 3 {
        return cut(name, columns);
    }
    let end = (columns - 1) / 2;
    let mut tail: Vec<char> = Vec::new();
    for c in name.chars().rev() {
        if width(&tail.iter().collect::<String>()) + width(c.encode_utf8(&mut [0; 4])) > end {
            break;
        }
        tail.push(c);
    }
    cut(name, columns - end) + &tail.into_iter().rev().collect::<String>()
}

/// A text as lines of at most so many columns, broken between words; all but the first begin with `indent`.
pub(crate) fn wrapped(text: &str, columns: usize, indent: &str) -> Vec<String> {
    if width(text) <= columns {
        return vec![text.to_owned()];
    }
    // a terminal of fewer columns than a word has is nobody's
    let options = Options::new(columns.max(width(indent) + 8)).subsequent_indent(indent);
    textwrap::wrap(text, options).into_iter().map(|line| line.into_owned()).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_text_is_shortened_by_what_a_terminal_shows_of_it() {
        assert_eq!([cut("abcdef", 6), cut("abcdef", 4), cut("abcdef", 0)], ["abcdef", "abc…", ""]);
        // each of these characters is two columns wide
        assert_eq!([cut("入口のカメラ", 12), cut("入口のカメラ", 6)], ["入口のカメラ", "入口…"]);
        assert_eq!(shortened("pipeline.detect-people", 11), "pipel…eople");
        assert_eq!(shortened("入口のカメラ", 7), "入…ラ");
        for columns in 0..30 {
            assert!(width(&shortened("pipeline.入口のカメラ", columns)) <= columns);
        }
    }

    #[test]
    fn a_reason_is_wrapped_and_nothing_of_it_is_lost() {
        let reason = "door: refused since 12:00:00 (attempt 12): 401 Unauthorized from rtsp://10.0.0.7/stream1; give user and password in cameras.yml";
        for columns in [20, 40, 80] {
            let lines = wrapped(reason, columns, "    ");
            assert!(lines.iter().all(|line| width(line) <= columns), "{lines:?}");
            let again = lines.iter().map(|line| line.trim()).collect::<Vec<_>>().join("");
            assert_eq!(again.replace(' ', ""), reason.replace(' ', ""));
        }
        assert_eq!(wrapped("short", 80, "  "), ["short"]);
    }

    #[test]
    fn a_pipe_without_a_reader_is_known_and_nothing_else_is() {
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        assert!(is_pipe(&writer) && !has_error(&writer));
        drop(reader);
        assert!(is_pipe(&writer) && has_error(&writer));
        let (one, other) = std::os::unix::net::UnixStream::pair().unwrap();
        drop(other);
        assert!(!is_pipe(&one));
    }
}
