//! Decoders that share a cameras file out: where a file, or a group of it, is served in parts, each part has one decoder.

use crate::cameras::{Choice, Part};
use crate::fault::{Fault, Location, Report};
use crate::yaml::Span;
use std::collections::BTreeMap;

/// What a decoder serves of a cameras file.
pub(super) struct Served {
    pub(super) node: String,
    pub(super) choice: Choice,
    /// Where that is said, for faults.
    pub(super) location: (Span, Location),
}

impl Served {
    fn fault(&self, message: String, fix: impl Into<String>) -> Fault {
        Fault::error(self.location.0, message).at_location(self.location.1.clone()).fix(fix)
    }
}

/// Finds parts of the file `name` that no decoder serves, or several.
pub(super) fn check(name: &str, served: &[Served], report: &mut Report) {
    let mut groups: BTreeMap<Option<&str>, Vec<&Served>> = BTreeMap::new();
    for decoder in served {
        groups.entry(decoder.choice.group.as_deref()).or_default().push(decoder);
    }
    for (group, decoders) in groups {
        let whole = group.map_or_else(|| name.to_owned(), |group| format!("group '{group}' of {name}"));
        check_group(&whole, &decoders, report);
    }
}

/// The same for decoders of one group.
fn check_group(whole: &str, decoders: &[&Served], report: &mut Report) {
    let in_parts = decoders.iter().find_map(|served| Some((*served, served.choice.part?.of)));
    let Some((first, of)) = in_parts else { return };
    let mut has: BTreeMap<u32, &str> = BTreeMap::new();
    let free = |taken: &BTreeMap<u32, &str>| (1..=of).find(|number| !taken.contains_key(number));
    for served in decoders {
        let node = &served.node;
        match served.choice.part {
            Some(part) if part.of != of => {
                let message =
                    format!("node '{node}' has PART {part}, and '{}' has one of {of} parts of {whole}", first.node);
                report.push(served.fault(message, format!("PART: {}/{of}", part.number.min(of))));
            }
            Some(part) => {
                if let Some(other) = has.insert(part.number, node) {
                    let message = format!("nodes '{other}' and '{node}' both have PART {part} of {whole}");
                    let fix = "give each of them a part of its own, or leave one of them out";
                    report.push(served.fault(message, fix));
                }
            }
            None => {
                let message = format!(
                    "node '{node}' serves all cameras of {whole}, and '{}' a part of them, which would be decoded twice",
                    first.node
                );
                let fix = free(&has).map(|number| format!("PART: {}", Part { number, of }));
                report.push(served.fault(message, fix.unwrap_or_else(|| format!("leave '{node}' out"))));
            }
        }
    }
    let missing: Vec<String> =
        (1..=of).filter(|number| !has.contains_key(number)).map(|number| Part { number, of }.to_string()).collect();
    if let Some(one) = missing.first() {
        // another machine may have a graph that serves them
        let message = format!("no node of the graph has PART {} of {whole}", missing.join(", "));
        let fault = Fault::warning(first.location.0, message).at_location(first.location.1.clone());
        report.push(fault.fix(format!("add a decoder with PART: {one}")));
    }
}
