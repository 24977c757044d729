//! What a check found, and how it is shown.

use crate::redact::mask;
use crate::yaml::Span;
use serde_json::{Value, json};
use std::fmt::Write as _;

/// How grave a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The graph does not run, or not as written.
    Error,
    /// It runs, and will surprise.
    Warning,
    /// Something was not checked.
    Note,
}

/// Where a finding lies.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// In the graph file.
    File(Span),
    /// In a `--set` on the command line, by its text up to the `=`.
    Set(String),
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// How grave.
    pub severity: Severity,
    /// Where.
    pub at: Place,
    /// What is wrong, with the names involved.
    pub message: String,
    /// How to mend it.
    pub fix: Option<String>,
}

impl Fault {
    /// A finding of this gravity at a place of the file.
    pub fn new(severity: Severity, at: Span, message: impl Into<String>) -> Self {
        Self { severity, at: Place::File(at), message: message.into(), fix: None }
    }

    /// An error at a place of the file.
    pub fn error(at: Span, message: impl Into<String>) -> Self {
        Self::new(Severity::Error, at, message)
    }

    /// A warning at a place of the file.
    pub fn warning(at: Span, message: impl Into<String>) -> Self {
        Self::new(Severity::Warning, at, message)
    }

    /// A note at a place of the file.
    pub fn note(at: Span, message: impl Into<String>) -> Self {
        Self::new(Severity::Note, at, message)
    }

    /// The same finding at another place.
    pub fn at(mut self, place: Place) -> Self {
        self.at = place;
        self
    }

    /// The same finding with a way to mend it.
    pub fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into());
        self
    }

    /// The same finding with a way to mend it, where one is known.
    pub fn fix_with(mut self, fix: Option<String>) -> Self {
        self.fix = fix.or(self.fix);
        self
    }
}

/// All findings of one graph.
#[derive(Clone, Debug, Default)]
pub struct Report {
    file: String,
    lines: Vec<String>,
    faults: Vec<Fault>,
}

impl Report {
    /// An empty report of a file, named as the user named it.
    pub fn new(file: impl Into<String>, text: &str) -> Self {
        Self { file: file.into(), lines: text.lines().map(mask).collect(), faults: Vec::new() }
    }

    /// Adds a finding.
    pub fn push(&mut self, fault: Fault) {
        // The same fault can be reached by two rules; one line is enough.
        if !self.faults.contains(&fault) {
            self.faults.push(fault);
        }
    }

    /// Adds findings.
    pub fn extend(&mut self, faults: impl IntoIterator<Item = Fault>) {
        faults.into_iter().for_each(|fault| self.push(fault));
    }

    /// The findings, in the order of the file.
    pub fn faults(&self) -> Vec<&Fault> {
        let mut faults: Vec<&Fault> = self.faults.iter().collect();
        faults.sort_by(|a, b| a.at.cmp(&b.at));
        faults
    }

    /// How many findings are of this gravity.
    pub fn count(&self, severity: Severity) -> usize {
        self.faults.iter().filter(|fault| fault.severity == severity).count()
    }

    /// Nothing stands against running the graph.
    pub fn is_ok(&self) -> bool {
        self.count(Severity::Error) == 0
    }

    /// The whole report as text, ending with a line that counts; notes only when asked for.
    pub fn text(&self, with_notes: bool) -> String {
        let mut out = String::new();
        for fault in self.faults() {
            if with_notes || fault.severity != Severity::Note {
                self.write_fault(&mut out, fault);
            }
        }
        out.push_str(&self.summary());
        out.push('\n');
        out
    }

    /// The warnings alone, as text; empty where there are none.
    pub fn warnings(&self) -> String {
        let mut out = String::new();
        for fault in self.faults().into_iter().filter(|fault| fault.severity == Severity::Warning) {
            self.write_fault(&mut out, fault);
        }
        out
    }

    /// One line: `graphs/demo.yml: 2 errors, 1 warning`.
    pub fn summary(&self) -> String {
        let (errors, warnings) = (self.count(Severity::Error), self.count(Severity::Warning));
        let counted = |n: usize, word: &str| format!("{n} {word}{}", if n == 1 { "" } else { "s" });
        match (errors, warnings) {
            (0, 0) => format!("{}: no faults", self.file),
            (0, _) => format!("{}: {}", self.file, counted(warnings, "warning")),
            (_, 0) => format!("{}: {}", self.file, counted(errors, "error")),
            _ => format!("{}: {}, {}", self.file, counted(errors, "error"), counted(warnings, "warning")),
        }
    }

    fn write_fault(&self, out: &mut String, fault: &Fault) {
        let word = match fault.severity {
            Severity::Error => "",
            Severity::Warning => "warning: ",
            Severity::Note => "note: ",
        };
        // Writing to a String cannot fail.
        let _ = match &fault.at {
            Place::Set(set) => writeln!(out, "--set {set}: {word}{}", fault.message),
            Place::File(at) => {
                let _ = writeln!(out, "{}:{}:{}: {word}{}", self.file, at.line, at.column, fault.message);
                self.write_excerpt(out, *at)
            }
        };
        if let Some(fix) = &fault.fix {
            let _ = writeln!(out, "  fix: {fix}");
        }
        out.push('\n');
    }

    fn write_excerpt(&self, out: &mut String, at: Span) -> std::fmt::Result {
        const WIDEST: usize = 160;
        let Some(line) = self.lines.get(at.line.saturating_sub(1)) else { return Ok(()) };
        let chars: Vec<char> = line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        if at.column > WIDEST || at.column > chars.len() + 1 {
            return Ok(());
        }
        let shown: String = chars.iter().take(WIDEST).collect();
        let number = at.line.to_string();
        let margin = " ".repeat(number.len());
        let room = chars.len().min(WIDEST).saturating_sub(at.column - 1).max(1);
        let carets = "^".repeat(at.len.clamp(1, room));
        writeln!(out, "  {number} | {}", shown.trim_end())?;
        writeln!(out, "  {margin} | {}{carets}", " ".repeat(at.column - 1))
    }

    /// The report as JSON, for editors and scripts.
    pub fn json(&self) -> Value {
        let faults: Vec<Value> = self
            .faults()
            .iter()
            .map(|fault| {
                let (line, column, set) = match &fault.at {
                    Place::File(at) => (Some(at.line), Some(at.column), None),
                    Place::Set(set) => (None, None, Some(set)),
                };
                let severity = match fault.severity {
                    Severity::Error => "error",
                    Severity::Warning => "warning",
                    Severity::Note => "note",
                };
                json!({
                    "severity": severity, "file": self.file, "line": line, "column": column, "set": set,
                    "message": fault.message, "fix": fault.fix,
                })
            })
            .collect();
        json!({ "file": self.file, "ok": self.is_ok(), "faults": faults })
    }
}
