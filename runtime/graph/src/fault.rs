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

/// The location of a finding.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Location {
    /// In the graph file, or in that of a module.
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
    pub location: Location,
    /// What is wrong, with the names involved.
    pub message: String,
    /// How to mend it.
    pub fix: Option<String>,
}

impl Fault {
    /// A finding of this gravity at a place of the file.
    pub fn new(severity: Severity, span: Span, message: impl Into<String>) -> Self {
        Self { severity, location: Location::File(span), message: message.into(), fix: None }
    }

    /// An error at a place of the file.
    pub fn error(span: Span, message: impl Into<String>) -> Self {
        Self::new(Severity::Error, span, message)
    }

    /// A warning at a place of the file.
    pub fn warning(span: Span, message: impl Into<String>) -> Self {
        Self::new(Severity::Warning, span, message)
    }

    /// A note at a place of the file.
    pub fn note(span: Span, message: impl Into<String>) -> Self {
        Self::new(Severity::Note, span, message)
    }

    /// The same finding at another location.
    pub fn at_location(mut self, location: Location) -> Self {
        self.location = location;
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

/// A text that places lie in.
#[derive(Clone, Debug, Default)]
struct Source {
    name: String,
    lines: Vec<String>,
    /// What the ids of a module's nodes begin with, its final dot included; nothing for the graph itself.
    scope: String,
}

/// All findings of one graph.
#[derive(Clone, Debug)]
pub struct Report {
    /// The graph, then each use of a module: by [`Span::source`]. Never empty.
    sources: Vec<Source>,
    faults: Vec<Fault>,
}

impl Default for Report {
    fn default() -> Self {
        Self::new("", "")
    }
}

impl Report {
    /// An empty report of a file, named as the user named it.
    pub fn new(file: impl Into<String>, text: &str) -> Self {
        let mut this = Self { sources: Vec::new(), faults: Vec::new() };
        this.add_source(file.into(), text, String::new());
        this
    }

    /// Adds the text of a module, as one node of the graph uses it, and gives its number.
    pub(crate) fn add_source(&mut self, name: String, text: &str, scope: String) -> u16 {
        self.sources.push(Source { name, lines: text.lines().map(mask).collect(), scope });
        u16::try_from(self.sources.len() - 1).unwrap_or(u16::MAX)
    }

    fn source(&self, span: Span) -> &Source {
        self.sources.get(usize::from(span.source)).unwrap_or(&self.sources[0])
    }

    /// What the ids of the nodes begin with that stand in the same text; nothing in the graph itself.
    pub(crate) fn scope(&self, span: Span) -> &str {
        &self.source(span).scope
    }

    /// A place as text: `graphs/detect.yml:8`.
    pub fn place(&self, span: Span) -> String {
        format!("{}:{}", self.source(span).name, span.line)
    }

    /// A place as one says it who stands at `here`.
    pub(crate) fn place_from(&self, here: Span, span: Span) -> String {
        if here.source == span.source { format!("line {}", span.line) } else { self.place(span) }
    }

    /// Adds a finding.
    pub fn push(&mut self, fault: Fault) {
        // The same fault can be reached by two rules, or by two uses of a module; one line is enough.
        if !self.faults.iter().any(|known| self.is_same(known, &fault)) {
            self.faults.push(fault);
        }
    }

    fn is_same(&self, a: &Fault, b: &Fault) -> bool {
        let (Location::File(first), Location::File(second)) = (&a.location, &b.location) else { return a == b };
        if first.source == second.source {
            return a == b;
        }
        let (first_source, second_source) = (self.source(*first), self.source(*second));
        let apart = |span: &Span| (span.line, span.column, span.len);
        let local = |text: &str, source: &Source| match source.scope.as_str() {
            "" => text.to_owned(),
            scope => text.replace(scope, ""),
        };
        first_source.name == second_source.name
            && apart(first) == apart(second)
            && a.severity == b.severity
            && local(&a.message, first_source) == local(&b.message, second_source)
    }

    /// Adds findings.
    pub fn extend(&mut self, faults: impl IntoIterator<Item = Fault>) {
        faults.into_iter().for_each(|fault| self.push(fault));
    }

    /// Whether an error of this very place is known.
    pub(crate) fn has_error_at(&self, location: &Location) -> bool {
        self.faults.iter().any(|fault| fault.severity == Severity::Error && fault.location == *location)
    }

    /// The findings, in the order of the file.
    pub fn faults(&self) -> Vec<&Fault> {
        let mut faults: Vec<&Fault> = self.faults.iter().collect();
        faults.sort_by(|a, b| a.location.cmp(&b.location));
        faults
    }

    /// How many findings are of this gravity.
    pub fn count(&self, severity: Severity) -> usize {
        self.faults.iter().filter(|fault| fault.severity == severity).count()
    }

    pub(crate) fn errors(&self) -> usize {
        self.count(Severity::Error)
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
        let file = &self.sources[0].name;
        match (errors, warnings) {
            (0, 0) => format!("{file}: no faults"),
            (0, _) => format!("{file}: {}", counted(warnings, "warning")),
            (_, 0) => format!("{file}: {}", counted(errors, "error")),
            _ => format!("{file}: {}, {}", counted(errors, "error"), counted(warnings, "warning")),
        }
    }

    fn write_fault(&self, out: &mut String, fault: &Fault) {
        let word = match fault.severity {
            Severity::Error => "",
            Severity::Warning => "warning: ",
            Severity::Note => "note: ",
        };
        // Writing to a String cannot fail.
        let _ = match &fault.location {
            Location::Set(set) => writeln!(out, "--set {set}: {word}{}", fault.message),
            Location::File(span) => {
                let _ =
                    writeln!(out, "{}:{}:{}: {word}{}", self.source(*span).name, span.line, span.column, fault.message);
                self.write_excerpt(out, *span)
            }
        };
        if let Some(fix) = &fault.fix {
            let _ = writeln!(out, "  fix: {fix}");
        }
        out.push('\n');
    }

    fn write_excerpt(&self, out: &mut String, span: Span) -> std::fmt::Result {
        const WIDEST: usize = 160;
        let Some(line) = self.source(span).lines.get(span.line.saturating_sub(1)) else { return Ok(()) };
        let chars: Vec<char> = line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        if span.column > WIDEST || span.column > chars.len() + 1 {
            return Ok(());
        }
        let shown: String = chars.iter().take(WIDEST).collect();
        let number = span.line.to_string();
        let margin = " ".repeat(number.len());
        let room = chars.len().min(WIDEST).saturating_sub(span.column - 1).max(1);
        let carets = "^".repeat(span.len.clamp(1, room));
        writeln!(out, "  {number} | {}", shown.trim_end())?;
        writeln!(out, "  {margin} | {}{carets}", " ".repeat(span.column - 1))
    }

    /// The report as JSON, for editors and scripts.
    pub fn json(&self) -> Value {
        let faults: Vec<Value> = self
            .faults()
            .iter()
            .map(|fault| {
                let (file, line, column, set) = match &fault.location {
                    Location::File(span) => (&self.source(*span).name, Some(span.line), Some(span.column), None),
                    Location::Set(set) => (&self.sources[0].name, None, None, Some(set)),
                };
                let severity = match fault.severity {
                    Severity::Error => "error",
                    Severity::Warning => "warning",
                    Severity::Note => "note",
                };
                json!({
                    "severity": severity, "file": file, "line": line, "column": column, "set": set,
                    "message": fault.message, "fix": fault.fix,
                })
            })
            .collect();
        json!({ "file": self.sources[0].name, "ok": self.is_ok(), "faults": faults })
    }
}
