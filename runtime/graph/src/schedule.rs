//! The faults that `millrace soak` injects, and when: a YAML file that is checked as a graph is.
//!
//! ```yaml
//! first: 1m # after the start
//! every: 1m # from the begin of one fault to the next
//! faults:
//!   - kill: each # each node in turn
//!   - stop: detect
//!     for: 5s
//!   - run: ./unplug.sh gate
//!     undo: ./plug.sh gate
//!     for: 20s
//!     cameras: [gate]
//! ```

use crate::dora::Shape;
use crate::fault::{Fault, Report};
use crate::model::{check_keys, text_of};
use crate::nearest::nearest;
use crate::yaml::{Data, Yaml};
use std::time::Duration;

/// What is done to a graph that runs, and when.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Schedule {
    /// From the start to the first fault.
    pub first: Duration,
    /// From the begin of a fault to the begin of the next.
    pub every: Duration,
    /// The faults, in the order of the file; those without a time of their own come in turn, again and again.
    pub faults: Vec<Planned>,
}

/// One fault.
#[derive(Clone, Debug, PartialEq)]
pub struct Planned {
    /// Its name in reports.
    pub name: String,
    /// When it begins, from the start; none for one that comes in turn.
    pub at: Option<Duration>,
    /// What is done.
    pub action: Action,
    /// From its begin to its end.
    pub length: Duration,
    /// The cameras from which nothing comes meanwhile.
    pub cameras: Vec<String>,
}

/// What a fault does.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// A signal to the process of a node, or of dora.
    Signal(Blow, Target),
    /// A shell command, and the one that undoes it.
    Run {
        /// What begins it.
        command: String,
        /// What ends it.
        undo: Option<String>,
    },
}

/// What a signal does to a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blow {
    /// SIGKILL.
    Kill,
    /// SIGSTOP, and SIGCONT at the end.
    Stop,
    /// SIGSEGV, as a process gets that reads what it must not.
    Segv,
}

/// Whose process gets a signal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// The node with this id.
    Node(String),
    /// dora, and with it the whole graph.
    Dora,
}

const ROOT_KEYS: &[(&str, Shape)] = &[("first", Shape::Any), ("every", Shape::Any), ("faults", Shape::List)];
const FAULT_KEYS: &[(&str, Shape)] = &[
    ("kill", Shape::Text),
    ("stop", Shape::Text),
    ("segv", Shape::Text),
    ("run", Shape::Text),
    ("undo", Shape::Text),
    ("for", Shape::Any),
    ("at", Shape::Any),
    ("name", Shape::Text),
    ("cameras", Shape::List),
];
const ACTIONS: [&str; 4] = ["kill", "stop", "segv", "run"];
/// The words for each node in turn, and for dora.
const EACH: &str = "each";
const DORA: &str = "dora";
const FORM: &str = "faults: [{ kill: each }]";
/// Where the file does not say when.
const USUAL: Duration = Duration::from_secs(60);
/// A shorter rhythm leaves no time to see whether all is well again.
const LEAST_EVERY: Duration = Duration::from_secs(5);
const LONGEST: Duration = Duration::from_secs(30 * 86_400);

/// A length of time: `500ms`, `10s`, `5m`, `1h`, `3d`; a number without a unit is seconds.
///
/// # Errors
/// What is wrong with the text.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit_s = match &text[digits.len()..] {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3_600.0,
        "d" => 86_400.0,
        unit => return Err(format!("no unit '{unit}'; there are ms, s, m, h and d")),
    };
    let number: f64 = digits.parse().map_err(|_| format!("'{digits}' is not a number"))?;
    Duration::try_from_secs_f64(number * unit_s).map_err(|error| error.to_string())
}

/// Reads a file of faults for a graph with these nodes, whose text the report has. Nothing comes back where the file has a
/// fault of its own; the report has them all.
pub fn read(text: &str, nodes: &[&str], report: &mut Report) -> Option<Schedule> {
    let root = match Yaml::parse(text) {
        Ok(root) => root,
        Err(error) => {
            report.push(Fault::error(error.span, error.what).fix_with(error.fix));
            return None;
        }
    };
    let Data::Map(entries) = &root.data else {
        let message = format!("a file of faults is a mapping with the key 'faults', and this is {}", root.kind());
        report.push(Fault::error(root.span, message).fix(FORM));
        return None;
    };
    check_keys(entries, ROOT_KEYS, "a file of faults", report);
    let every = time(&root, "every", LEAST_EVERY, report).unwrap_or(USUAL);
    let first = time(&root, "first", Duration::ZERO, report).unwrap_or(every);
    let mut schedule = Schedule { first, every, faults: Vec::new() };
    match root.get("faults").map(|list| (&list.data, list.span)) {
        Some((Data::List(items), at)) => {
            if items.is_empty() {
                report.push(Fault::error(at, "the list 'faults' is empty").fix(FORM));
            }
            items.iter().for_each(|item| schedule.faults.extend(planned(item, nodes, report)));
        }
        Some(_) => {}
        None if report.errors() == 0 => {
            report.push(Fault::error(root.span, "the file has no list 'faults'").fix(FORM));
        }
        None => {}
    }
    report.is_ok().then_some(schedule)
}

/// One entry of the list: a fault, or one for each node.
fn planned(item: &Yaml, nodes: &[&str], report: &mut Report) -> Vec<Planned> {
    let Data::Map(entries) = &item.data else {
        let message = format!("a fault is a mapping, and this is {}", item.kind());
        report.push(Fault::error(item.span, message).fix("- { kill: each }"));
        return Vec::new();
    };
    let before = report.errors();
    check_keys(entries, FAULT_KEYS, "a fault", report);
    let kinds: Vec<&str> = ACTIONS.into_iter().filter(|kind| item.get(kind).is_some()).collect();
    let [kind] = kinds[..] else {
        if report.errors() == before || kinds.len() > 1 {
            let found = if kinds.is_empty() { "none of them".to_owned() } else { kinds.join(" and ") };
            let message = format!("a fault has one of {}, and this has {found}", ACTIONS.join(", "));
            report.push(Fault::error(item.span, message).fix("- { kill: each }"));
        }
        return Vec::new();
    };
    // one without a value was reported
    let Some(what) = text_of(item, kind) else { return Vec::new() };
    check_company(item, kind, report);
    let length = time(item, "for", Duration::ZERO, report).unwrap_or_default();
    let at = time(item, "at", Duration::ZERO, report);
    let cameras = cameras(item, report);
    let name = text_of(item, "name").map(|name| name.value);
    if kind == "run" {
        let undo = text_of(item, "undo").map(|undo| undo.value);
        let name = name.unwrap_or_else(|| what.value.clone());
        return vec![Planned { name, at, action: Action::Run { command: what.value, undo }, length, cameras }];
    }
    let blow = match kind {
        "kill" => Blow::Kill,
        "stop" => Blow::Stop,
        _ => Blow::Segv,
    };
    let targets: Vec<&str> = match what.value.as_str() {
        EACH => nodes.to_vec(),
        name if name == DORA || nodes.contains(&name) => vec![name],
        other => {
            let all = || nodes.iter().copied().chain([EACH, DORA]);
            let message =
                format!("the graph has no node '{other}'; there are: {}", all().collect::<Vec<_>>().join(", "));
            let near = nearest(other, all()).map(|near| format!("{kind}: {near}"));
            report.push(Fault::error(what.span, message).fix_with(near));
            return Vec::new();
        }
    };
    let one = |target: &&str| {
        let name = name.clone().map_or_else(|| format!("{kind} {target}"), |name| format!("{name} ({target})"));
        let node =
            if *target == DORA && !nodes.contains(target) { Target::Dora } else { Target::Node((*target).into()) };
        Planned { name, at, action: Action::Signal(blow, node), length, cameras: cameras.clone() }
    };
    targets.iter().map(one).collect()
}

/// The keys that a fault of this kind needs or must not have.
fn check_company(item: &Yaml, kind: &str, report: &mut Report) {
    let at = |key: &str| item.get(key).map(|value| value.span);
    for (key, allowed) in [("undo", kind == "run"), ("cameras", kind == "run"), ("for", matches!(kind, "run" | "stop"))]
    {
        if let Some(at) = at(key).filter(|_| !allowed) {
            report.push(Fault::error(at, format!("'{key}' says nothing of a fault with '{kind}'")).fix("leave it out"));
        }
    }
    if at("for").is_none() && (kind == "stop" || at("undo").is_some()) {
        let message =
            format!("this fault has no 'for', which says when {} ends", if kind == "stop" { "the stop" } else { "it" });
        report.push(Fault::error(item.span, message).fix("for: 5s"));
    }
}

fn cameras(item: &Yaml, report: &mut Report) -> Vec<String> {
    let Some(Data::List(list)) = item.get("cameras").map(|list| &list.data) else { return Vec::new() };
    let mut names = Vec::new();
    for camera in list {
        match camera.text() {
            Some(name) => names.push(name.to_owned()),
            None => report
                .push(Fault::error(camera.span, format!("a camera is named by its id, and this is {}", camera.kind()))),
        }
    }
    names
}

/// A length of time from `least` to thirty days.
fn time(item: &Yaml, key: &str, least: Duration, report: &mut Report) -> Option<Duration> {
    let value = item.get(key)?;
    let length = match value.text() {
        None => Err(format!("'{key}' is a length of time, and this is {}", value.kind())),
        Some(text) => match parse_duration(text) {
            Err(why) => Err(format!("'{key}' is '{text}': {why}")),
            Ok(length) if length < least => Err(format!("'{key}' is '{text}': {} s is the least", least.as_secs())),
            Ok(length) if length > LONGEST => Err(format!("'{key}' is '{text}': 30 days is the most")),
            Ok(length) => Ok(length),
        },
    };
    length.map_err(|message| report.push(Fault::error(value.span, message).fix(format!("{key}: 30s")))).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const NODES: [&str; 3] = ["decode", "detect", "page"];

    fn read_text(text: &str) -> (Option<Schedule>, String) {
        let mut report = Report::new("faults.yml", text);
        let schedule = read(text, &NODES, &mut report);
        (schedule, report.text(false))
    }

    #[test]
    fn a_file_of_each_kind_is_read() {
        let text = "first: 10s\nevery: 1.5m\nfaults:\n- kill: each\n- { stop: detect, for: 5s }\n- { segv: dora, at: 1h }\n\
                    - { run: ./off.sh, undo: ./on.sh, for: 20s, cameras: [gate, yard], name: unplugged }\n";
        let schedule = read_text(text).0.unwrap();
        assert_eq!((schedule.first, schedule.every), (Duration::from_secs(10), Duration::from_secs(90)));
        let names: Vec<&str> = schedule.faults.iter().map(|fault| fault.name.as_str()).collect();
        assert_eq!(names, ["kill decode", "kill detect", "kill page", "stop detect", "segv dora", "unplugged"]);
        assert_eq!(schedule.faults[3].length, Duration::from_secs(5));
        assert_eq!(schedule.faults[4].action, Action::Signal(Blow::Segv, Target::Dora));
        assert_eq!(schedule.faults[4].at, Some(Duration::from_secs(3600)));
        assert_eq!(schedule.faults[5].cameras, ["gate", "yard"]);
        let run = Action::Run { command: "./off.sh".into(), undo: Some("./on.sh".into()) };
        assert_eq!(schedule.faults[5].action, run);
        let usual = read_text("faults: [{ kill: page }]").0.unwrap();
        assert_eq!((usual.first, usual.every), (USUAL, USUAL));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        for (text, says) in [
            ("", "faults.yml:1:1: a file of faults is a mapping with the key 'faults', and this is nothing"),
            ("every: 1m\n", "faults.yml:1:1: the file has no list 'faults'"),
            ("faults: []\n", "faults.yml:1:9: the list 'faults' is empty"),
            ("faults:\n\t- kill: page\n", "faults.yml:2:1: this line is indented with a tab"),
            ("faults:\n- kil: page\n", "faults.yml:2:3: a fault has no key 'kil'; did you mean 'kill'?"),
            (
                "faults:\n- kill: pge\n",
                "faults.yml:2:9: the graph has no node 'pge'; there are: decode, detect, page, each, dora",
            ),
            (
                "faults:\n- { kill: page, stop: page }\n",
                "faults.yml:2:3: a fault has one of kill, stop, segv, run, and this has kill and stop",
            ),
            (
                "faults:\n- name: x\n",
                "faults.yml:2:3: a fault has one of kill, stop, segv, run, and this has none of them",
            ),
            ("faults:\n- stop: page\n", "faults.yml:2:3: this fault has no 'for', which says when the stop ends"),
            ("faults:\n- { run: a, undo: b }\n", "faults.yml:2:3: this fault has no 'for', which says when it ends"),
            ("faults:\n- { kill: page, for: 5s }\n", "faults.yml:2:22: 'for' says nothing of a fault with 'kill'"),
            (
                "faults:\n- { kill: page, cameras: [a] }\n",
                "faults.yml:2:26: 'cameras' says nothing of a fault with 'kill'",
            ),
            ("every: 1s\nfaults: [{ kill: page }]\n", "faults.yml:1:8: 'every' is '1s': 5 s is the least"),
            ("every: 31d\nfaults: [{ kill: page }]\n", "faults.yml:1:8: 'every' is '31d': 30 days is the most"),
            ("first: soon\nfaults: [{ kill: page }]\n", "faults.yml:1:8: "),
            ("faults:\n- { kill: page, at: -5s }\n", "faults.yml:2:21: 'at' is '-5s': "),
            ("faults:\n- kill:\n", "'kill' of a fault is a text, and this is nothing"),
            (
                "every: [1m]\nfaults: [{ kill: page }]\n",
                "faults.yml:1:8: 'every' is a length of time, and this is a list",
            ),
            ("faults: kill\n", "faults.yml:1:9: 'faults' of a file of faults is a list, and this is 'kill'"),
            ("faults:\n- kill\n", "faults.yml:2:3: a fault is a mapping, and this is a single value"),
            (
                "faults:\n- { run: a, cameras: [[b]] }\n",
                "faults.yml:2:23: a camera is named by its id, and this is a list",
            ),
            ("faults: [{ kill: page }]\nfaults: [{ kill: page }]\n", "faults.yml:2:1: "),
        ] {
            let (schedule, report) = read_text(text);
            assert!(schedule.is_none() && report.contains(says), "{text}\n{report}");
        }
    }

    #[test]
    fn durations() {
        for (text, ms) in
            [("30", 30_000), ("500ms", 500), ("1.5s", 1_500), ("5m", 300_000), ("1h", 3_600_000), ("2d", 172_800_000)]
        {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        assert!(["", "s", "-1s", "1w", "nan", "1e30"].iter().all(|text| parse_duration(text).is_err()));
    }
}
