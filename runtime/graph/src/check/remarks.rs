//! What the nodes themselves say of their settings, and addresses that two of them would listen on.

use super::{CheckedNode, Effective, From, place};
use crate::describe::{Describer, Description};
use crate::fault::{Fault, Location, Report, Severity};
use crate::model::{Graph, Node};
use crate::redact::redact;
use crate::remarks::{Asked, Listener, Remark};
use crate::settings::{self, file_path, file_text, is_url};
use std::path::Path;

/// Asks each node whose settings can be read.
pub(super) fn check(
    graph: &Graph,
    nodes: &[CheckedNode],
    folder: &Path,
    describer: &dyn Describer,
    report: &mut Report,
) {
    let mut listeners: Vec<(&Node, Listener)> = Vec::new();
    for (node, checked) in graph.nodes.iter().zip(nodes) {
        let (Some(path), Some(is)) = (&node.path, &checked.description) else { continue };
        let Some(asked) = asked(checked, is) else { continue };
        let remarks = match describer.remarks(&path.value, folder, &asked) {
            None => continue,
            Some(Ok(remarks)) => remarks,
            Some(Err(why)) => {
                let message = format!("node '{}' did not say whether its settings go together: {why}", node.id.value);
                report.push(Fault::error(path.span, message));
                continue;
            }
        };
        let fault = |severity, remark: Remark| {
            let message = format!("node '{}' ({}): {}", node.id.value, is.name, redact(&remark.why));
            Fault::new(severity, node.id.span, message).at_location(setting_location(node, checked, &remark.setting))
        };
        for refused in remarks.refused {
            let fault = fault(Severity::Error, refused);
            // a setting that is wrong for another reason was reported
            if !report.has_error_at(&fault.location) {
                report.push(fault);
            }
        }
        report.extend(remarks.warned.into_iter().map(|warned| fault(Severity::Warning, warned)));
        for listener in remarks.listens {
            if let Some((other, taken)) = listeners.iter().find(|(_, other)| listener.excludes(other)) {
                let message = format!(
                    "node '{}' would listen at {}, where node '{}' listens by its {}",
                    node.id.value, listener.at, other.id.value, taken.setting
                );
                let location = setting_location(node, checked, &listener.setting);
                let fix = format!("another port for one of the two, by {}", listener.setting);
                report.push(Fault::error(node.id.span, message).at_location(location).fix(fix));
            }
            listeners.push((node, listener));
        }
    }
}

/// The question to a node; none where its settings cannot be read, which was reported.
fn asked(checked: &CheckedNode, is: &Description) -> Option<Asked> {
    let given: Vec<&Effective> =
        checked.settings.iter().filter(|setting| setting.described && setting.from != From::Default).collect();
    let text = |setting: &&Effective| {
        let value = setting.value.clone().unwrap_or_default();
        // what the command line names counts from where it was given
        let is_here = setting.is_path && setting.from == From::Set && !value.trim().is_empty() && !is_url(&value);
        let whole = file_path(&value).ok().filter(|_| is_here).and_then(|path| std::path::absolute(path).ok());
        (setting.key.clone(), whole.map_or(value, |path| file_text(&path)))
    };
    let settings: std::collections::BTreeMap<String, String> = given.iter().map(text).collect();
    let pairs = settings.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    settings::resolve(&is.schema(), pairs).ok()?;
    let own = given.iter().filter(|setting| !matches!(setting.from, From::Graph(_)));
    Some(Asked { node: checked.id.clone(), own: own.map(|setting| setting.key.clone()).collect(), settings })
}

/// Where a setting is written; the node itself where it is not.
fn setting_location(node: &Node, checked: &CheckedNode, key: &str) -> Location {
    let setting = checked.settings.iter().find(|setting| setting.key == key);
    setting.map_or(Location::File(node.id.span), |setting| place(node, checked, setting))
}
