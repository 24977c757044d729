//! `--guard`: what B has to keep of A, for the switch to stay.

use millrace_graph::nearest::nearest;
use std::fmt;
use std::str::FromStr;

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Figure {
    /// Frames a second of each camera at each input of the last nodes.
    Fps,
    /// Losses for each frame taken, all nodes and causes.
    Drops,
    /// Boxes a frame, of each camera and each node that publishes detections.
    Boxes,
    /// The 95th percentile of the age of what the last nodes take, of each camera.
    LatencyP95,
}

impl Figure {
    const ALL: [(&'static str, Self); 4] =
        [("fps", Self::Fps), ("drops", Self::Drops), ("boxes", Self::Boxes), ("latency_p95", Self::LatencyP95)];

    fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, figure)| *figure == self).map_or("", |(name, _)| name)
    }

    /// A difference from the limit that is noise, in the figure's own unit: a share of the frames, or nanoseconds.
    fn slack(self) -> f64 {
        match self {
            Self::Fps | Self::Boxes => 0.0,
            Self::Drops => 0.01,
            Self::LatencyP95 => 20e6,
        }
    }
}

/// One condition: B's figure against so many times A's.
#[derive(Clone, Debug, PartialEq)]
struct Condition {
    figure: Figure,
    at_least: bool,
    times: f64,
}

/// All conditions.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Guard {
    conditions: Vec<Condition>,
}

/// What is asked where the user asks nothing else.
pub(crate) const DEFAULT: &str = "fps >= 0.95x, drops <= 1.1x, boxes >= 0.9x, latency_p95 <= 1.5x";

/// One figure of one place, before and after.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Pair {
    /// What it is.
    pub(crate) figure: Figure,
    /// Of what: a camera at an input.
    pub(crate) of: String,
    /// Its value under A.
    pub(crate) a: f64,
    /// Its value under B.
    pub(crate) b: f64,
}

impl FromStr for Guard {
    type Err = String;

    /// Reads `fps >= 0.95x, drops <= 1.1x`; the error has all faults, a line each.
    fn from_str(text: &str) -> Result<Self, String> {
        let (mut conditions, mut faults) = (Vec::new(), Vec::new());
        for part in text.split(',').map(str::trim) {
            match condition(part) {
                Ok(condition) => conditions.push(condition),
                Err(mut found) => faults.append(&mut found),
            }
        }
        if faults.is_empty() { Ok(Self { conditions }) } else { Err(faults.join("\n")) }
    }
}

fn condition(text: &str) -> Result<Condition, Vec<String>> {
    let form = "write it as 'fps >= 0.95x'";
    let Some(sign_at) = text.find(['<', '>', '=']) else {
        return Err(vec![format!("'{text}' compares nothing; {form}")]);
    };
    let (name, rest) = (text[..sign_at].trim(), &text[sign_at..]);
    let (sign, value) = rest.split_at(rest.find(|c| !"<>=".contains(c)).unwrap_or(rest.len()));
    let mut faults = Vec::new();
    let figure = Figure::ALL.iter().find(|(known, _)| *known == name).map(|(_, figure)| *figure);
    if figure.is_none() {
        let names = Figure::ALL.map(|(known, _)| known);
        let hint = nearest(name, names).map_or_else(|| names.join(", "), |near| format!("{near}?"));
        faults.push(format!("'{text}': there is no figure '{name}'; {hint}"));
    }
    if sign != ">=" && sign != "<=" {
        faults.push(format!("'{text}': '{sign}' is no comparison here; >= or <="));
    }
    let times = value.trim().strip_suffix('x').and_then(|number| number.trim().parse::<f64>().ok());
    let times = times.filter(|times| times.is_finite() && *times > 0.0);
    if times.is_none() {
        let value = value.trim();
        faults.push(format!("'{text}': '{value}' is no multiple of A's figure; {form}"));
    }
    match (figure, times) {
        (Some(figure), Some(times)) if faults.is_empty() => Ok(Condition { figure, at_least: sign == ">=", times }),
        _ => Err(faults),
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}x", self.figure.name(), if self.at_least { ">=" } else { "<=" }, self.times)
    }
}

impl Guard {
    /// What speaks against B, a line each; nothing when it holds. A condition of which there was nothing to measure is
    /// among `unmeasured`.
    pub(crate) fn judge(&self, pairs: &[Pair], unmeasured: &mut Vec<String>) -> Vec<String> {
        let mut broken = Vec::new();
        for condition in &self.conditions {
            let mut measured = false;
            for pair in pairs.iter().filter(|pair| pair.figure == condition.figure) {
                measured = true;
                let (limit, slack) = (pair.a * condition.times, condition.figure.slack());
                let holds = if condition.at_least { pair.b + slack >= limit } else { pair.b - slack <= limit };
                if !holds {
                    broken.push(format!("{condition} does not hold: {pair}"));
                }
            }
            if !measured {
                unmeasured.push(condition.to_string());
            }
        }
        broken
    }
}

impl fmt::Display for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = |value: f64| match self.figure {
            Figure::Fps => format!("{value:.1} frames/s"),
            Figure::Drops => format!("{:.1} % of the frames", value * 100.0),
            Figure::Boxes => format!("{value:.2} boxes a frame"),
            Figure::LatencyP95 => format!("{:.0} ms", value / 1e6),
        };
        write!(f, "{} of {}: A {}, B {}", self.figure.name(), self.of, value(self.a), value(self.b))?;
        if self.a > 0.0 { write!(f, " ({:.2}x)", self.b / self.a) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn pair(figure: Figure, a: f64, b: f64) -> Pair {
        Pair { figure, of: "cam at write".into(), a, b }
    }

    #[test]
    fn all_faults_of_an_expression_come_at_once() {
        let faults = "fsp >= 0.9x, drops <= 2, boxes = 0.9x, latency_p95, fps >= -1x".parse::<Guard>().unwrap_err();
        let lines: Vec<&str> = faults.lines().collect();
        assert_eq!(lines.len(), 5, "{faults}");
        assert!(lines[0].contains("'fsp'") && lines[0].contains("fps?"), "{faults}");
        assert!(lines[1].contains("'2'") && lines[2].contains("'='") && lines[3].contains("compares nothing"));
        assert!("".parse::<Guard>().is_err());
        DEFAULT.parse::<Guard>().unwrap();
    }

    #[test]
    fn each_figure_is_held_against_its_limit() {
        let guard: Guard = "fps >= 0.9x, boxes <= 1.1x, boxes >= 0.9x".parse().unwrap();
        let mut unmeasured = Vec::new();
        let fine = [pair(Figure::Fps, 25.0, 23.0), pair(Figure::Boxes, 10.0, 10.5)];
        assert!(guard.judge(&fine, &mut unmeasured).is_empty() && unmeasured.is_empty());
        let slow = [pair(Figure::Fps, 25.0, 22.0), pair(Figure::Boxes, 10.0, 12.0)];
        let broken = guard.judge(&slow, &mut unmeasured);
        assert_eq!(broken.len(), 2);
        assert_eq!(
            broken[0],
            "fps >= 0.9x does not hold: fps of cam at write: A 25.0 frames/s, B 22.0 frames/s (0.88x)"
        );
        let none = guard.judge(&fine[..1], &mut unmeasured);
        assert!(none.is_empty());
        assert_eq!(unmeasured, ["boxes <= 1.1x", "boxes >= 0.9x"]);
    }

    #[test]
    fn a_few_drops_and_milliseconds_are_noise() {
        let guard: Guard = "drops <= 1.1x, latency_p95 <= 1.2x".parse().unwrap();
        let judge = |pairs: &[Pair]| guard.judge(pairs, &mut Vec::new()).len();
        assert_eq!(judge(&[pair(Figure::Drops, 0.0, 0.009), pair(Figure::LatencyP95, 5e6, 20e6)]), 0);
        assert_eq!(judge(&[pair(Figure::Drops, 0.0, 0.02), pair(Figure::LatencyP95, 100e6, 150e6)]), 2);
    }
}
