//! Requirements (`--require`), judged by the end of each interval that speaks against them.

mod measure;

use crate::analysis::Analysis;
use crate::model::{Metric, Pace};
use measure::{Measured, Quality};
use serde::{Deserialize, Serialize};
use std::fmt;

/// One fault of an expression.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("--require, character {at}: {message}")]
pub struct Fault {
    /// Position in characters, from 1.
    pub at: usize,
    /// What is wrong and what was expected.
    pub message: String,
}

/// What became of a requirement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The whole interval supports it.
    Met,
    /// The whole interval speaks against it.
    NotMet,
    /// A part of the interval supports it and a part does not.
    NotShown,
    /// The experiment has no such figure.
    NotMeasured,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Met => "met",
            Self::NotMet => "not met",
            Self::NotShown => "not shown",
            Self::NotMeasured => "not measured",
        })
    }
}

/// A requirement with its outcome.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judgement {
    /// The requirement as it was written.
    pub requirement: String,
    /// Its outcome.
    pub outcome: Outcome,
    /// The figures behind it.
    pub figures: String,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum What {
    Figure(Metric),
    Quality(Quality),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Load {
    Any,
    Pace(Pace),
    Until,
}

#[derive(Clone, Debug, PartialEq)]
struct Requirement {
    text: String,
    what: What,
    load: Load,
    at_least: bool,
    limit: f64,
    ratio: bool,
}

/// Parsed requirements.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Requirements {
    all: Vec<Requirement>,
}

impl Requirements {
    /// The names that a requirement may begin with.
    #[must_use]
    pub fn names() -> Vec<&'static str> {
        Metric::ALL.into_iter().map(Metric::name).chain(Quality::ALL.into_iter().map(Quality::name)).collect()
    }

    /// Reads an expression as `fps >= 1.15x, latency_p99@cameras <= 1.05x, map_drop <= 0.1`.
    ///
    /// # Errors
    /// All faults of the expression, in its order.
    pub fn parse(text: &str) -> Result<Self, Vec<Fault>> {
        let (mut all, mut faults) = (Vec::new(), Vec::new());
        let mut start = 0;
        for part in text.split(',') {
            match requirement(part, start) {
                Ok(r) => all.push(r),
                Err(mut f) => faults.append(&mut f),
            }
            start += part.chars().count() + 1;
        }
        if faults.is_empty() { Ok(Self { all }) } else { Err(faults) }
    }

    /// What the analysis says to each.
    #[must_use]
    pub fn judge(&self, analysis: &Analysis) -> Vec<Judgement> {
        self.all.iter().map(|r| r.judge(analysis)).collect()
    }
}

fn requirement(part: &str, start: usize) -> Result<Requirement, Vec<Fault>> {
    let characters = |bytes: usize| start + part[..bytes].chars().count() + 1;
    let lead = part.len() - part.trim_start().len();
    let text = part.trim();
    if text.is_empty() {
        let message = "a requirement is missing; expected one as 'fps >= 1.15x'".to_owned();
        return Err(vec![Fault { at: characters(lead), message }]);
    }
    let mut faults = Vec::new();
    let mut fault = |at: usize, message: String| faults.push(Fault { at: characters(at), message });
    let Some(sign) = part.find(['<', '>', '=', '!']) else {
        let message = format!(
            "'{text}' compares nothing; expected '>=' or '<=' and a figure, as '{} >= 1'",
            text.split_whitespace().next().unwrap_or("fps")
        );
        return Err(vec![Fault { at: characters(lead), message }]);
    };
    let signs: String = part[sign..].chars().take_while(|c| "<>=!".contains(*c)).collect();
    let at_least = signs == ">=";
    if signs != ">=" && signs != "<=" {
        fault(sign, format!("'{signs}' is no comparison; expected '>=' or '<='"));
    }
    let subject = part[lead..sign].trim_end();
    let (name, load) = subject.split_once('@').map_or((subject, None), |(n, l)| (n, Some(l)));
    let what = find(name.trim());
    if what.is_none() {
        let near = nearest(name.trim()).map_or_else(
            || format!("expected one of {}", Requirements::names().join(", ")),
            |n| format!("did you mean '{n}'?"),
        );
        fault(lead, format!("nothing is measured as '{}'; {near}", name.trim()));
    }
    let load = match load.map(str::trim) {
        None => Load::Any,
        Some("saturated") => Load::Pace(Pace::Saturated),
        Some("cameras") => Load::Pace(Pace::Cameras),
        Some("until") => Load::Until,
        Some(other) => {
            fault(lead + name.len() + 1, format!("'{other}' is no load; expected saturated, cameras or until"));
            Load::Any
        }
    };
    let tail = &part[sign + signs.len()..];
    let figure = tail.trim();
    let figure_at = sign + signs.len() + (tail.len() - tail.trim_start().len());
    let ratio = figure.ends_with('x');
    let limit = figure.strip_suffix('x').unwrap_or(figure).trim_end().parse::<f64>().ok().filter(|v| v.is_finite());
    if limit.is_none() {
        fault(figure_at, format!("'{figure}' is no figure; expected one as 42, or 1.15x for the ratio B/A"));
    }
    if let Some(What::Quality(q)) = what {
        if ratio {
            fault(figure_at, format!("'{}' has no ratio; write its figure without x", q.name()));
        }
        if load != Load::Any {
            fault(lead, format!("'{}' belongs to no load; write it without @", q.name()));
        }
    }
    if let (Some(limit), true) = (limit, ratio)
        && limit <= 0.0
    {
        fault(figure_at, format!("a ratio of {limit} cannot be; expected one above 0"));
    }
    match (what, limit) {
        (Some(what), Some(limit)) if faults.is_empty() => {
            Ok(Requirement { text: text.to_owned(), what, load, at_least, limit, ratio })
        }
        _ => Err(faults),
    }
}

fn find(name: &str) -> Option<What> {
    let figure = Metric::ALL.into_iter().find(|m| m.name() == name).map(What::Figure);
    figure.or_else(|| Quality::ALL.into_iter().find(|q| q.name() == name).map(What::Quality))
}

/// The name that the fewest edits make of `name`, if they are few.
fn nearest(name: &str) -> Option<&'static str> {
    let best = Requirements::names().into_iter().min_by_key(|n| edits(name, n))?;
    (edits(name, best) <= 1 + name.chars().count() / 3).then_some(best)
}

fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let change = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

impl Requirement {
    fn judge(&self, analysis: &Analysis) -> Judgement {
        let measured: Vec<(String, Measured)> = match self.what {
            What::Quality(q) => q.of(analysis).map(|m| (String::new(), m)).into_iter().collect(),
            What::Figure(metric) => analysis
                .loads
                .iter()
                .filter(|l| match self.load {
                    Load::Any => true,
                    Load::Pace(pace) => l.pace == pace && l.until.is_none(),
                    Load::Until => l.until.is_some(),
                })
                .filter_map(|l| Some((l.title(), Measured::of(l.metric(metric)?, self.ratio)?)))
                .collect(),
        };
        // without a load it has to hold at each: the worst outcome counts
        let outcome = measured.iter().map(|(_, m)| self.outcome(*m)).max_by_key(|o| match o {
            Outcome::Met => 0,
            Outcome::NotMeasured => 1,
            Outcome::NotShown => 2,
            Outcome::NotMet => 3,
        });
        let figures: Vec<_> = measured
            .iter()
            .map(|(load, m)| if load.is_empty() { m.to_string() } else { format!("{load}: {m}") })
            .collect();
        Judgement {
            requirement: self.text.clone(),
            outcome: outcome.unwrap_or(Outcome::NotMeasured),
            figures: if figures.is_empty() { "no such figure".to_owned() } else { figures.join("; ") },
        }
    }

    fn outcome(&self, measured: Measured) -> Outcome {
        // one round has no interval, so it shows nothing either way
        let Some((low, high)) = measured.interval else { return Outcome::NotShown };
        // a figure that is the limit holds, whatever logarithms did to its last digit
        let slack = self.limit.abs() * 1e-9;
        let holds = |v: f64| if self.at_least { v >= self.limit - slack } else { v <= self.limit + slack };
        match (holds(low), holds(high)) {
            (true, true) => Outcome::Met,
            (false, false) => Outcome::NotMet,
            _ => Outcome::NotShown,
        }
    }
}

#[cfg(test)]
#[path = "gate/tests.rs"]
mod tests;
