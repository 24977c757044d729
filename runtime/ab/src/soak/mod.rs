//! A graph that ran for hours or days while faults were injected: what was asked, what was sampled, and what follows.
//!
//! `millrace soak` fills a [`Soak`] and stores it as it goes; verdict and page are worked out from the record alone.

mod rows;
mod slope;
mod verdict;

use crate::model::Machine;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};

pub use rows::{CameraRow, ProcessRow, Row, Rows, Usage};
pub use slope::{Slope, Trend, Trended};
pub(crate) use verdict::time;
pub use verdict::{Finding, SoakVerdict, SoakWord, Standing};

/// Version of the record's form.
pub const SOAK_SCHEMA: u32 = 1;
/// Faults that are kept one by one; older ones are in the sums.
const MOST_FAULTS: usize = 1_000;
/// Lines of what happened that are kept.
const MOST_EVENTS: usize = 1_000;

/// Everything that is known of a soak, as it is stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Soak {
    /// [`SOAK_SCHEMA`].
    pub schema: u32,
    /// When it began, as text.
    pub date: String,
    /// The command that repeats it, or goes on with it.
    pub command: String,
    /// Where.
    pub machine: Machine,
    /// The graph file.
    pub graph: String,
    /// What was set over it.
    pub sets: Vec<String>,
    /// The file of faults, as it was read; empty where none was given.
    pub schedule: String,
    /// How long it is to be, and the bounds.
    pub asked: SoakAsked,
    /// How long the graph was watched so far; interruptions are not in it.
    pub measured_s: f64,
    /// It ran for as long as it was to.
    pub complete: bool,
    /// Times in which the soak itself did not run.
    pub breaks: Vec<Break>,
    /// How often the graph was started.
    pub starts: u32,
    /// Starts that followed an end that no fault was for: why.
    pub unasked_ends: Vec<String>,
    /// Faults that were begun, and when the next one is due.
    pub turn: ScheduleProgress,
    /// The samples, thinned as they become many.
    pub rows: Rows,
    /// What became of each camera's time.
    pub cameras: BTreeMap<String, Account>,
    /// The last faults, one by one.
    pub faults: VecDeque<FaultRecord>,
    /// All faults, by name.
    pub fault_sums: BTreeMap<String, FaultSum>,
    /// What was lost, by camera and then by node and cause.
    pub lost: BTreeMap<String, BTreeMap<String, u64>>,
    /// Frames that one node gave and the next has neither received nor counted as lost.
    pub balances: BTreeMap<String, Balance>,
    /// What happened, the newest last.
    pub events: VecDeque<Event>,
    /// Older lines that are not kept.
    pub events_left_out: u64,
    /// What another judge, such as a test generator that reads the pictures, found wrong.
    pub others: Option<Vec<String>>,
    /// Where a fault goes on that a command undoes: that command.
    pub pending_undo: Option<String>,
}

/// How long, and what has to hold.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SoakAsked {
    /// How long the graph is to be watched.
    pub seconds: f64,
    /// Share of its due time in which each camera has to be served, in percent.
    pub availability_percent: f64,
    /// Within how many seconds a fault has to be seen.
    pub seen_s: f64,
    /// Within how many seconds of its cure all has to be well again.
    pub healed_s: f64,
}

/// A time in which the soak itself did not run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Break {
    /// After so much measured time.
    pub at_s: f64,
    /// Its length by the Unix clock.
    pub seconds: f64,
}

/// How far the schedule of faults has come.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ScheduleProgress {
    /// Faults in turn that were begun.
    pub begun: u64,
    /// When the next of them is due, in measured time; none before the first is planned.
    pub next_s: Option<f64>,
    /// Faults with a time of their own that were begun.
    pub fixed: u64,
}

/// What became of a camera's time, in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Account {
    /// Its frames came out at the end of the graph.
    pub served_s: f64,
    /// They did not, and nothing excuses it.
    pub missing_s: f64,
    /// They did not while an injected fault went on, or healed within its bound.
    pub fault_s: f64,
    /// The camera itself gave nothing, by its state.
    pub own_s: f64,
    /// The longest time without a frame that is in `missing_s`.
    pub longest_missing_s: f64,
}

impl Account {
    /// Share of the due time in which it was served, in percent: without the times of injected faults, and with them.
    #[must_use]
    pub fn availability(&self) -> Option<[f64; 2]> {
        let share = |due: f64| (due > 0.0).then(|| 100.0 * self.served_s / due);
        Some([share(self.served_s + self.missing_s)?, share(self.served_s + self.missing_s + self.fault_s)?])
    }
}

/// A fault that was injected.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FaultRecord {
    /// Its name in the schedule.
    pub name: String,
    /// When it began, in measured time.
    pub at_s: f64,
    /// From its begin to its cure.
    pub lasted_s: f64,
    /// From its begin until the graph's reports showed it.
    pub seen_s: Option<f64>,
    /// It is one that has to be seen: it stops something for long enough.
    pub has_to_be_seen: bool,
    /// From its cure until all cameras were served again.
    pub healed_s: Option<f64>,
    /// Why it could not be injected or ended as planned; empty where it could.
    pub trouble: String,
}

/// All faults of one name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FaultSum {
    /// How many.
    pub count: u64,
    /// Those that had to be seen, and were not, or too late.
    pub unseen: u64,
    /// Those after which not all was well again, or too late.
    pub unhealed: u64,
    /// Those that could not be injected or ended as planned.
    pub troubled: u64,
    /// Sum and largest of the times until they were seen.
    pub seen_s: Spread,
    /// Sum and largest of the times from the cure until all was well.
    pub healed_s: Spread,
}

/// Some values, by their mean and the largest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// How many.
    pub count: u64,
    /// Their sum.
    pub sum: f64,
    /// The largest.
    pub most: f64,
}

impl Spread {
    fn add(&mut self, value: f64) {
        self.count += 1;
        self.sum += value;
        self.most = self.most.max(value);
    }

    /// Their mean; none where there are none.
    #[must_use]
    pub fn mean(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum / self.count as f64)
    }
}

/// Frames between two counters that have to agree, but for those on their way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Balance {
    /// Frames that went in, of the times that could be compared.
    pub passed: u64,
    /// Most that may be on their way or between two reports.
    pub allowed: u64,
    /// The largest difference of a time between two restarts: over 0, frames without a name; under it, frames too many.
    pub worst: i64,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// In measured time.
    pub at_s: f64,
    /// What.
    pub text: String,
}

impl Soak {
    /// One that begins.
    #[must_use]
    pub fn new(date: String, command: String, machine: Machine, graph: String, asked: SoakAsked) -> Self {
        Self {
            schema: SOAK_SCHEMA,
            date,
            command,
            machine,
            graph,
            sets: Vec::new(),
            schedule: String::new(),
            asked,
            measured_s: 0.0,
            complete: false,
            breaks: Vec::new(),
            starts: 0,
            unasked_ends: Vec::new(),
            turn: ScheduleProgress::default(),
            rows: Rows::default(),
            cameras: BTreeMap::new(),
            faults: VecDeque::new(),
            fault_sums: BTreeMap::new(),
            lost: BTreeMap::new(),
            balances: BTreeMap::new(),
            events: VecDeque::new(),
            events_left_out: 0,
            others: None,
            pending_undo: None,
        }
    }

    /// Keeps a line of what happened.
    pub fn event(&mut self, text: String) {
        if self.events.len() >= MOST_EVENTS {
            self.events.pop_front();
            self.events_left_out += 1;
        }
        self.events.push_back(Event { at_s: self.measured_s, text });
    }

    /// Keeps a fault that is over.
    pub fn fault(&mut self, fault: FaultRecord) {
        let [late, unwell] = self.asked.judge(&fault);
        let sum = self.fault_sums.entry(fault.name.clone()).or_default();
        sum.count += 1;
        sum.unseen += u64::from(late);
        sum.unhealed += u64::from(unwell);
        sum.troubled += u64::from(!fault.trouble.is_empty());
        fault.seen_s.into_iter().for_each(|seen_s| sum.seen_s.add(seen_s));
        fault.healed_s.into_iter().for_each(|healed_s| sum.healed_s.add(healed_s));
        if self.faults.len() >= MOST_FAULTS {
            self.faults.pop_front();
        }
        self.faults.push_back(fault);
    }

    /// The verdict, by what is known so far.
    #[must_use]
    pub fn verdict(&self) -> SoakVerdict {
        verdict::verdict(self)
    }
}

impl SoakAsked {
    /// Whether a fault was seen too late, and whether all was well again too late. One that was never injected is neither.
    fn judge(&self, fault: &FaultRecord) -> [bool; 2] {
        let happened = fault.trouble.is_empty();
        let late = |time: Option<f64>, bound: f64| time.is_none_or(|time| time > bound);
        [
            happened && fault.has_to_be_seen && late(fault.seen_s, self.seen_s),
            happened && late(fault.healed_s, self.healed_s),
        ]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn soak() -> Soak {
        let asked = SoakAsked { seconds: 7_200.0, availability_percent: 99.9, seen_s: 3.0, healed_s: 10.0 };
        let (date, command) = ("2026-11-30".to_owned(), "millrace soak g<1>.yml --for 2h".to_owned());
        Soak::new(date, command, Machine::default(), "g<1>.yml".to_owned(), asked)
    }

    pub(crate) fn fault(seen_s: Option<f64>, healed_s: Option<f64>) -> FaultRecord {
        FaultRecord { name: "kill detect".into(), seen_s, healed_s, has_to_be_seen: true, ..FaultRecord::default() }
    }

    #[test]
    fn the_record_stays_bounded_and_forgets_no_fault_in_its_sums() {
        let mut soak = soak();
        for n in 0..5_000 {
            soak.event(format!("line {n}"));
            soak.fault(fault(Some(1.0), Some(if n % 2 == 0 { 2.0 } else { 11.0 })));
        }
        assert_eq!((soak.events.len(), soak.events_left_out, soak.faults.len()), (1_000, 4_000, 1_000));
        let sum = &soak.fault_sums["kill detect"];
        assert_eq!((sum.count, sum.unseen, sum.unhealed, sum.troubled), (5_000, 0, 2_500, 0));
        assert_eq!((sum.healed_s.mean(), sum.healed_s.most), (Some(6.5), 11.0));
    }

    #[test]
    fn availability_leaves_out_the_cameras_own_outages() {
        let account =
            Account { served_s: 900.0, missing_s: 100.0, fault_s: 200.0, own_s: 5_000.0, longest_missing_s: 1.0 };
        assert_eq!(account.availability(), Some([90.0, 75.0]));
        assert_eq!(Account { own_s: 9.0, ..Account::default() }.availability(), None);
    }
}
