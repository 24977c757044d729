//! What is to be seen while an experiment runs: one line that changes on a terminal, a line a run elsewhere.

use super::speed::running_fps;
use crate::out::{cut, draws, err, errln, size, width};
use crate::trial::launch::NodeWatch;
use millrace_ab::model::{Metric, Run, Side};
use millrace_frame::counted;
use std::time::{Duration, Instant};

/// The live view, on stderr: the report is what goes to stdout.
pub(super) struct Progress {
    quiet: bool,
    terminal: bool,
    /// The width of the line now on the terminal.
    drawn: usize,
    load: String,
    rounds: u32,
    together: bool,
    now: String,
    /// Runs of dora of this load, done and in all.
    runs: (u32, u32),
    loads_left: u32,
    began: Instant,
    /// Frames a second of all finished runs of A and of B.
    fps: [Vec<f64>; 2],
}

impl Progress {
    pub(super) fn new(quiet: bool, loads: u32) -> Self {
        Self {
            quiet,
            terminal: draws(&std::io::stderr()),
            drawn: 0,
            load: String::new(),
            rounds: 0,
            together: false,
            now: String::new(),
            runs: (0, 0),
            loads_left: loads,
            began: Instant::now(),
            fps: Default::default(),
        }
    }

    /// Prints a line that stays.
    pub(super) fn say(&mut self, line: &str) {
        if !self.quiet {
            self.erase();
            errln!("{line}");
        }
    }

    /// A load begins.
    pub(super) fn load(&mut self, title: &str, rounds: u32, together: bool) {
        self.load = title.to_owned();
        self.rounds = rounds;
        self.together = together;
        self.runs = (0, rounds * if together { 2 } else { 4 });
        self.loads_left = self.loads_left.saturating_sub(1);
        self.fps = Default::default();
        self.now = "warm-up".to_owned();
        self.began = Instant::now();
        let how = if together { "twice A and B at the same time" } else { "A B B A" };
        self.say(&format!("{title}: {rounds} rounds of {how}, after a run of each that is not counted"));
    }

    /// A run begins.
    pub(super) fn run(&mut self, round: u32, place: u32, side: Side) {
        if self.runs.0 == 0 {
            self.began = Instant::now();
        }
        self.runs.0 += 1;
        let which = if self.together { "A and B".to_owned() } else { format!("run {} of 4, {side:?}", place + 1) };
        self.now = format!("round {} of {}, {which}", round + 1, self.rounds);
    }

    /// A part that is not timed begins.
    pub(super) fn part(&mut self, what: &str) {
        self.load = what.to_owned();
        self.now = String::new();
        self.runs = (0, 0);
        self.fps = Default::default();
        self.say(what);
    }

    /// A run has ended.
    pub(super) fn done(&mut self, run: &Run) {
        let Some(fps) = run.figures.get(&Metric::Fps) else { return };
        self.fps[run.side as usize].push(*fps);
        if !self.terminal {
            let figure = |metric| run.figures.get(&metric).map_or("-".to_owned(), |v| format!("{v:.1}"));
            let (p50, cpu) = (figure(Metric::LatencyP50Ms), figure(Metric::CpuMsPerFrame));
            let line = format!(
                "{}: {}: {:?} {fps:.1} fps, latency {p50} ms, CPU {cpu} ms a frame",
                self.load, self.now, run.side
            );
            self.say(&line);
        }
    }

    /// Redraws the line; called several times a second.
    pub(super) fn show(&mut self, nodes: &[NodeWatch]) {
        if self.quiet || !self.terminal {
            return;
        }
        let line = fitted(self.parts(nodes), size(std::io::stderr()).columns.saturating_sub(1));
        self.erase();
        err!("{line}");
        self.drawn = width(&line);
    }

    /// What the line has, each part with its rank: those of the highest rank are left out first.
    fn parts(&self, nodes: &[NodeWatch]) -> Vec<(u8, String)> {
        let mut parts = vec![(0, self.load.clone())];
        if !self.now.is_empty() {
            parts.push((1, self.now.clone()));
        }
        if let Some((frames, fps)) = running_fps(nodes) {
            parts.push((3, format!("{}, {fps:.1} fps", counted(frames, "frame", "frames"))));
        }
        for (side, all) in ["A", "B"].into_iter().zip(&self.fps).filter(|(_, all)| !all.is_empty()) {
            parts.push((2, format!("{side} {:.1} fps", all.iter().sum::<f64>() / all.len() as f64)));
        }
        if let Some(left) = self.left() {
            let seconds = left.as_secs();
            parts.push((0, format!("{}:{:02} left", seconds / 60, seconds % 60)));
            parts.extend((self.loads_left > 0).then(|| (4, "then the next load".to_owned())));
        }
        parts
    }

    fn left(&self) -> Option<Duration> {
        let done = self.runs.0.checked_sub(1).filter(|done| *done > 0)?;
        let of_all = self.began.elapsed() * self.runs.1 / done;
        Some(of_all.saturating_sub(self.began.elapsed()))
    }

    /// Takes the line off the terminal.
    pub(super) fn erase(&mut self) {
        if self.drawn > 0 {
            // a window that was made narrower since has wrapped it
            let above = (self.drawn - 1) / size(std::io::stderr()).columns;
            let up = if above > 0 { format!("\x1b[{above}A") } else { String::new() };
            err!("\r{up}\x1b[J");
            self.drawn = 0;
        }
    }
}

/// One line of at most so many columns: one that wraps could not be taken off again.
fn fitted(mut parts: Vec<(u8, String)>, columns: usize) -> String {
    loop {
        let line = parts.iter().map(|(_, part)| part.as_str()).collect::<Vec<_>>().join(" · ");
        let most = parts.iter().map(|(rank, _)| *rank).max().unwrap_or(0);
        if width(&line) <= columns || most == 0 {
            return cut(&line, columns);
        }
        parts.retain(|(rank, _)| *rank < most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_fits_and_says_first_what_matters_most() {
        let mut progress = Progress::new(false, 2);
        progress.quiet = true;
        progress.load("as fast as they go", 6, false);
        progress.runs = (4, 24);
        progress.now = "round 2 of 6, run 1 of 4, A".to_owned();
        progress.fps = [vec![118.2], vec![121.9]];
        let line = |columns| fitted(progress.parts(&[]), columns);
        assert!(
            line(200).contains("A 118.2 fps · B 121.9 fps · ") && line(200).ends_with(" left · then the next load")
        );
        assert!(line(80).contains("round 2 of 6") && line(80).ends_with(" left"), "{}", line(80));
        assert!(line(40).starts_with("as fast as they go · ") && line(40).ends_with(" left"), "{}", line(40));
        assert!((1..200).all(|columns| width(&line(columns)) <= columns));
    }
}
