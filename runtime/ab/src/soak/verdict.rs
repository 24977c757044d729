//! What follows from a soak: each thing that has to hold, and one word.

use super::slope::{self, Trend, Trended};
use super::{Soak, SoakAsked};
use crate::capacity::cameras;
use serde::Serialize;

/// The word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SoakWord {
    /// It ran for as long as it was to, and everything held.
    Held,
    /// Something did not hold.
    DidNotHold,
    /// Nothing speaks against it so far, and it has not run for as long as it was to.
    NotFinished,
}

impl SoakWord {
    /// As a heading has it.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::DidNotHold => "did not hold",
            Self::NotFinished => "not finished",
        }
    }
}

/// How one thing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// It holds.
    Met,
    /// It does not.
    NotMet,
    /// It is not known.
    Open,
}

/// One thing that has to hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Which.
    pub what: &'static str,
    /// Whether it does.
    pub standing: Standing,
    /// By which figures.
    pub figures: String,
}

/// The whole verdict.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SoakVerdict {
    /// The word.
    pub word: SoakWord,
    /// What it follows from.
    pub findings: Vec<Finding>,
    /// Everything that could grow.
    pub trends: Vec<Trended>,
}

impl SoakVerdict {
    /// Why, in a line.
    #[must_use]
    pub fn reason(&self) -> String {
        let of = |standing: Standing| {
            let found = self.findings.iter().filter(move |finding| finding.standing == standing);
            found.map(|finding| format!("{}: {}", finding.what, finding.figures)).collect::<Vec<_>>().join("; ")
        };
        match self.word {
            SoakWord::DidNotHold => of(Standing::NotMet),
            SoakWord::NotFinished => of(Standing::Open),
            SoakWord::Held => match of(Standing::Open) {
                open if open.is_empty() => "everything that was asked holds".to_owned(),
                open => format!("everything that was asked holds; not shown is: {open}"),
            },
        }
    }
}

pub(super) fn verdict(soak: &Soak) -> SoakVerdict {
    let trends = slope::trends(&soak.rows);
    let mut findings = vec![length(soak), availability(soak)];
    if !soak.schedule.is_empty() {
        findings.extend(faults(soak));
    }
    findings.extend([ends(soak), growth(&trends), conservation(soak)]);
    findings.extend(soak.others.as_ref().map(|problems| others(problems)));
    let any = |standing: Standing| findings.iter().any(|finding| finding.standing == standing);
    let word = if any(Standing::NotMet) {
        SoakWord::DidNotHold
    } else if soak.complete {
        SoakWord::Held
    } else {
        SoakWord::NotFinished
    };
    SoakVerdict { word, findings, trends }
}

const fn met(holds: bool) -> Standing {
    if holds { Standing::Met } else { Standing::NotMet }
}

/// A few of many, in words.
fn first_of(all: &[String]) -> String {
    let shown = all.iter().take(3).cloned().collect::<Vec<_>>().join(", ");
    if all.len() > 3 { format!("{shown} and {} more", all.len() - 3) } else { shown }
}

fn length(soak: &Soak) -> Finding {
    let standing = if soak.complete { Standing::Met } else { Standing::Open };
    let mut figures = format!("{} of {}", time(soak.measured_s), time(soak.asked.seconds));
    if !soak.breaks.is_empty() {
        let s: f64 = soak.breaks.iter().map(|pause| pause.seconds).sum();
        figures += &format!(", interrupted {} for {} in all", times(soak.breaks.len() as u64), time(s));
    }
    Finding { what: "length", standing, figures }
}

fn availability(soak: &Soak) -> Finding {
    let what = "availability";
    let mut shares: Vec<([f64; 2], &String)> =
        soak.cameras.iter().filter_map(|(id, account)| Some((account.availability()?, id))).collect();
    shares.sort_by(|a, b| a.0[0].total_cmp(&b.0[0]));
    let Some(([worst, with_faults], id)) = shares.first().copied() else {
        let figures = "no camera gave a frame at the end of the graph".to_owned();
        return Finding { what, standing: met(!soak.complete && soak.measured_s < 60.0), figures };
    };
    let SoakAsked { availability_percent: bound, .. } = soak.asked;
    let below = shares.iter().filter(|share| share.0[0] < bound).count();
    let mut figures = format!(
        "{id}, the worst of {}, was served {worst:.3} % of the time ({bound} % were asked); {with_faults:.3} % with the times of \
         injected faults",
        cameras(u32::try_from(shares.len()).unwrap_or(u32::MAX))
    );
    if below > 1 {
        figures += &format!("; {below} are below");
    }
    Finding { what, standing: met(below == 0), figures }
}

fn faults(soak: &Soak) -> Vec<Finding> {
    let sums = || soak.fault_sums.iter();
    let count: u64 = sums().map(|(_, sum)| sum.count).sum();
    let SoakAsked { seen_s, healed_s, .. } = soak.asked;
    if count == 0 {
        let standing = if soak.complete { Standing::NotMet } else { Standing::Open };
        return vec![Finding { what: "faults", standing, figures: "none was injected yet".to_owned() }];
    }
    let finding = |what, of: fn(&super::FaultSum) -> u64, spread: fn(&super::FaultSum) -> super::Spread, bound: f64| {
        let bad: u64 = sums().map(|(_, sum)| of(sum)).sum();
        let names: Vec<String> = sums().filter(|(_, sum)| of(sum) > 0).map(|(name, _)| name.clone()).collect();
        let most = sums().map(|(_, sum)| spread(sum).most).fold(0.0, f64::max);
        let seen: u64 = sums().map(|(_, sum)| spread(sum).count).sum();
        let mut figures = format!("{seen} of {count}, after {most:.1} s at most ({bound} s were asked)");
        if bad > 0 {
            figures += &format!("; {bad} were not, or too late: {}", first_of(&names));
        }
        Finding { what, standing: met(bad == 0), figures }
    };
    let mut found = vec![
        finding("faults seen", |sum| sum.unseen, |sum| sum.seen_s, seen_s),
        finding("faults healed", |sum| sum.unhealed, |sum| sum.healed_s, healed_s),
    ];
    let troubled: u64 = sums().map(|(_, sum)| sum.troubled).sum();
    if troubled > 0 {
        let names: Vec<String> = sums().filter(|(_, sum)| sum.troubled > 0).map(|(name, _)| name.clone()).collect();
        let figures = format!("{troubled} of {count} could not be injected or ended as planned: {}", first_of(&names));
        found.push(Finding { what: "faults injected", standing: Standing::NotMet, figures });
    }
    found
}

fn ends(soak: &Soak) -> Finding {
    let figures = match soak.unasked_ends.as_slice() {
        [] => {
            format!("the graph was started {}, never without a reason in the schedule", times(u64::from(soak.starts)))
        }
        ends => format!("the graph ended by itself {}: {}", times(ends.len() as u64), first_of(ends)),
    };
    Finding { what: "the graph goes on", standing: met(soak.unasked_ends.is_empty()), figures }
}

fn growth(trends: &[Trended]) -> Finding {
    let named = |trend: Trend| -> Vec<String> {
        let of = trends.iter().filter(|trended| trended.trend == trend);
        let what = |trended: &Trended| trended.what.split(',').next().unwrap_or_default();
        of.map(|trended| format!("{} of {}", what(trended), trended.who)).collect()
    };
    let (grows, flat, open) = (named(Trend::Grows), named(Trend::Flat), named(Trend::NotShown));
    let mut figures = format!("{} flat, {} not shown, {} grow", flat.len(), open.len(), grows.len());
    if !grows.is_empty() {
        figures += &format!(": {}", first_of(&grows));
    }
    let standing = match (grows.is_empty(), open.is_empty() && !flat.is_empty()) {
        (false, _) => Standing::NotMet,
        (true, true) => Standing::Met,
        (true, false) => Standing::Open,
    };
    Finding { what: "nothing grows", standing, figures }
}

fn conservation(soak: &Soak) -> Finding {
    let what = "every frame has a name";
    let wrong = |balance: &super::Balance| balance.worst.unsigned_abs() > balance.allowed;
    let bad: Vec<String> = soak
        .balances
        .iter()
        .filter(|(_, balance)| wrong(balance))
        .map(|(name, balance)| format!("{name}: {}", balance.worst))
        .collect();
    let passed: u64 = soak.balances.values().map(|balance| balance.passed).sum();
    let figures = match (bad.is_empty(), soak.balances.is_empty()) {
        (_, true) => "nothing was compared yet".to_owned(),
        (false, _) => format!("frames were neither passed on nor counted as lost: {}", first_of(&bad)),
        (true, false) => {
            let most = soak.balances.values().map(|balance| balance.worst.unsigned_abs()).max().unwrap_or(0);
            format!(
                "{passed} frames at {} places; {most} at most were on their way at one of them",
                soak.balances.len()
            )
        }
    };
    let standing = if soak.balances.is_empty() { Standing::Open } else { met(bad.is_empty()) };
    Finding { what, standing, figures }
}

fn others(problems: &[String]) -> Finding {
    let figures = if problems.is_empty() {
        "the other judge found nothing".to_owned()
    } else {
        format!("the other judge found {}: {}", problems.len(), first_of(problems))
    };
    Finding { what: "the other judge", standing: met(problems.is_empty()), figures }
}

fn times(n: u64) -> String {
    if n == 1 { "once".to_owned() } else { format!("{n} times") }
}

/// A length of time in words: `48 s`, `12 min`, `2 h 05 min`, `3 d 4 h`.
pub(crate) fn time(seconds: f64) -> String {
    let s = seconds.max(0.0).round() as u64;
    match s {
        0..120 => format!("{s} s"),
        120..7_200 => format!("{} min {:02} s", s / 60, s % 60),
        7_200..172_800 => format!("{} h {:02} min", s / 3_600, s / 60 % 60),
        _ => format!("{} d {} h", s / 86_400, s / 3_600 % 24),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::tests::{fault, soak};
    use super::super::{Account, Balance, Break};
    use super::*;

    /// A soak in which everything that is not sampled held.
    fn held() -> Soak {
        let mut soak = soak();
        (soak.complete, soak.measured_s, soak.starts) = (true, 7_200.0, 1);
        soak.cameras.insert("gate".into(), Account { served_s: 7_199.0, missing_s: 1.0, ..Account::default() });
        soak.balances.insert("decode → detect, gate".into(), Balance { passed: 9_000, allowed: 20, worst: -3 });
        soak.schedule = "faults: [{ kill: each }]".into();
        soak.fault(fault(Some(1.0), Some(2.0)));
        soak.others = Some(Vec::new());
        soak
    }

    #[test]
    fn a_soak_holds_where_all_of_it_holds() {
        let verdict = held().verdict();
        assert_eq!(verdict.word, SoakWord::Held, "{verdict:?}");
        let open: Vec<&str> =
            verdict.findings.iter().filter(|f| f.standing == Standing::Open).map(|f| f.what).collect();
        assert_eq!(open, ["nothing grows"], "nothing was sampled, and that is said");
        let mut unfinished = held();
        (unfinished.complete, unfinished.measured_s) = (false, 60.0);
        unfinished.breaks.push(Break { at_s: 30.0, seconds: 200.0 });
        let verdict = unfinished.verdict();
        assert_eq!(verdict.word, SoakWord::NotFinished);
        assert!(
            verdict.reason().starts_with("length: 60 s of 2 h 00 min, interrupted once for 3 min 20 s"),
            "{}",
            verdict.reason()
        );
    }

    #[test]
    fn each_thing_that_does_not_hold_is_the_reason() {
        type Change = fn(&mut Soak);
        let changes: [(Change, &str); 8] = [
            // 7190 of 7200 s are 99.861 %
            (
                |s| s.cameras.get_mut("gate").unwrap().missing_s = 10.0,
                "availability: gate, the worst of 1 camera, was served 99.861 %",
            ),
            (|s| s.cameras.clear(), "availability: no camera gave a frame"),
            (
                |s| s.fault(fault(Some(3.1), Some(1.0))),
                "faults seen: 2 of 2, after 3.1 s at most (3 s were asked); 1 were not, or too late: kill detect",
            ),
            (
                |s| s.fault(fault(Some(1.0), None)),
                "faults healed: 1 of 2, after 2.0 s at most (10 s were asked); 1 were not",
            ),
            (
                |s| s.fault(super::super::FaultRecord { trouble: "exit code 1".into(), ..fault(None, None) }),
                "faults injected: 1 of 2 could not",
            ),
            (
                |s| s.unasked_ends.push("detect failed".into()),
                "the graph goes on: the graph ended by itself once: detect failed",
            ),
            (
                |s| s.balances.values_mut().for_each(|b| b.worst = 21),
                "every frame has a name: frames were neither passed on nor counted as lost: decode → detect, gate: 21",
            ),
            (
                |s| s.others = Some(vec!["2 pictures mixed".into()]),
                "the other judge: the other judge found 1: 2 pictures mixed",
            ),
        ];
        for (change, says) in changes {
            let mut soak = held();
            change(&mut soak);
            // 99.861 % has to be of the same length
            if says.contains("99.861") {
                soak.cameras.get_mut("gate").unwrap().served_s = 7_190.0;
            }
            let verdict = soak.verdict();
            assert_eq!(verdict.word, SoakWord::DidNotHold, "{says}");
            assert!(verdict.reason().starts_with(says), "{}\n{says}", verdict.reason());
        }
    }

    #[test]
    fn lengths_of_time_are_short() {
        let texts = [119.6, 45.2, 3_725.0, 7_500.0, 180_000.0].map(time);
        assert_eq!(texts, ["2 min 00 s", "45 s", "62 min 05 s", "2 h 05 min", "2 d 2 h"]);
    }
}
