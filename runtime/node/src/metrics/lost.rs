//! What was lost of a camera for one reason: how much, which frames, and why.

use std::fmt::Write;

/// Longer lists of frames end in dots.
const MOST_RANGES: usize = 6;

#[derive(Debug, Default)]
pub(super) struct Lost {
    pub(super) total: u64,
    /// The frames that are known by number, first and last of each run.
    frames: Vec<(u64, u64)>,
    more: bool,
    /// The reason of the first one; empty where none was given.
    pub(super) why: String,
}

impl Lost {
    pub(super) fn add(&mut self, n: u64, why: &str) {
        self.total += n;
        if self.why.is_empty() {
            why.clone_into(&mut self.why);
        }
    }

    /// The frame of this number is among the lost ones.
    pub(super) fn frame(&mut self, seq: u64) {
        let full = self.frames.len() == MOST_RANGES;
        match self.frames.last_mut() {
            Some((_, last)) if !self.more && *last + 1 == seq => *last = seq,
            _ if full => self.more = true,
            _ => self.frames.push((seq, seq)),
        }
    }

    /// `frames 3, 7 to 12`; empty where no number is known.
    pub(super) fn frames(&self) -> String {
        let mut text = String::new();
        for (first, last) in &self.frames {
            text.push_str(if text.is_empty() { "" } else { ", " });
            // a String takes everything
            let _ = if first == last { write!(text, "{first}") } else { write!(text, "{first} to {last}") };
        }
        let one = matches!(self.frames[..], [(first, last)] if first == last) && !self.more;
        match (text.is_empty(), one, self.more) {
            (true, ..) => text,
            (_, true, _) => format!("frame {text}"),
            (.., false) => format!("frames {text}"),
            (.., true) => format!("frames {text}, …"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_named_by_runs_and_a_long_list_is_cut() {
        let frames = |numbers: &[u64]| {
            let mut lost = Lost::default();
            numbers.iter().for_each(|seq| lost.frame(*seq));
            lost.frames()
        };
        assert_eq!(frames(&[]), "");
        assert_eq!(frames(&[7]), "frame 7");
        assert_eq!(frames(&[3, 7, 8, 9]), "frames 3, 7 to 9");
        assert_eq!(frames(&[0, 2, 4, 6, 8, 10, 12, 13]), "frames 0, 2, 4, 6, 8, 10, …");
    }

    #[test]
    fn the_first_reason_stays() {
        let mut lost = Lost::default();
        lost.add(2, "");
        lost.add(1, "the disk is full");
        lost.add(1, "something else");
        assert_eq!((lost.total, lost.why.as_str()), (4, "the disk is full"));
    }
}
