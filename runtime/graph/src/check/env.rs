//! Settings: `env:` of the graph and of a node, and `--set`, against what the node describes.

use super::{Effective, From, Set, World, default_text};
use crate::describe::Description;
use crate::dora::{self, EnvFault, EnvText};
use crate::fault::{Fault, Location, Report};
use crate::model::{EnvValue, Graph, Node};
use crate::nearest::nearest;
use crate::settings::{self, FaultKind, SettingFault};
use crate::yaml::{Data, Span, Yaml};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A value that was given, before it is known what it should be.
struct Given {
    text: String,
    written: String,
    quoted: bool,
    location: Location,
    from: From,
}

pub(super) fn check(
    graph: &Graph,
    node: &Node,
    description: Option<&Description>,
    sets: &[Set],
    world: &World<'_>,
    report: &mut Report,
) -> Vec<Effective> {
    let id = &node.id.value;
    let mut given: Vec<(String, Given)> = Vec::new();
    let mut give = |key: &str, value: Given| match given.iter_mut().find(|(known, _)| known == key) {
        Some(earlier) => earlier.1 = value,
        None => given.push((key.to_owned(), value)),
    };
    let in_file = |values: &[EnvValue], from: fn(Span) -> From, report: &mut Report| -> Vec<(String, Given)> {
        let read =
            |value: &EnvValue| Some((value.key.value.clone(), read(value, from, world, graph.is_module, report)?));
        values.iter().filter_map(read).collect()
    };
    let common = in_file(&graph.env, From::Graph, report);
    let own = in_file(&node.env, From::Node, report);
    for (key, value) in common.into_iter().chain(own) {
        give(&key, value);
    }
    for set in sets.iter().filter(|set| set.node == *id) {
        // The command line's shell has expanded what was to be expanded, and dora does not touch it.
        let text = set.value.clone();
        give(&set.key, Given { written: text.clone(), text, quoted: true, location: set.location(), from: From::Set });
    }
    match description {
        Some(description) => against(graph, node, description, &given, report),
        None => {
            given.iter().filter(|(_, value)| value.quoted).for_each(|(key, value)| warn_of_number(key, value, report));
            given.into_iter().map(|(key, value)| plain(key, value)).collect()
        }
    }
}

fn read(
    value: &EnvValue,
    from: fn(Span) -> From,
    world: &World<'_>,
    is_module: bool,
    report: &mut Report,
) -> Option<Given> {
    match dora::env_text(&value.value.value, world.variables) {
        Ok(text) if !dora::stays(&text.written) => {
            let key = &value.key.value;
            let message = format!(
                "'dora start' expands the '$' in {key} again and hands over another text; 'millrace run' and 'dora run' \
                 hand over '{}'",
                settings::redacted(key, &text.written)
            );
            let fix = "for 'dora start', write %24 for '$' in a URL, and put passwords into a file (password_file)";
            report.push(Fault::warning(value.value.span, message).fix(fix));
            Some(given(text, value, from))
        }
        Ok(text) => Some(given(text, value, from)),
        Err(fault) => {
            let in_module = !report.scope(value.value.span).is_empty() || is_module;
            report.push(env_fault(&value.key.value, &fault, in_module).at_location(Location::File(value.value.span)));
            None
        }
    }
}

fn given(text: EnvText, value: &EnvValue, from: fn(Span) -> From) -> Given {
    Given {
        text: text.text,
        written: text.written,
        quoted: !value.value.value.plain,
        location: Location::File(value.value.span),
        from: from(value.key.span),
    }
}

fn env_fault(key: &str, fault: &EnvFault, in_module: bool) -> Fault {
    let somewhere = Span::default();
    match fault {
        EnvFault::Nothing => Fault::error(somewhere, format!("{key} has no value, which dora refuses")),
        EnvFault::Unset(name) if in_module && (name.starts_with("_param.") || name.starts_with("PARAM_")) => {
            let message = format!("{key} names a param of the module, and dora puts params into args alone");
            Fault::error(somewhere, message)
                .fix("leave it out, and give the setting in the env of the graph or of the module's node")
        }
        EnvFault::Unset(name) => {
            let message = format!("{key} names the variable ${name}, which is not set");
            let fix = format!(
                "set it (export {name}=…), give a default (${{{name}:-…}}), or write $$ for a '$' that is meant"
            );
            Fault::error(somewhere, message).fix(fix)
        }
    }
}

fn plain(key: String, value: Given) -> Effective {
    Effective {
        key,
        value: Some(value.text),
        from: value.from,
        is_path: false,
        file: None,
        live: false,
        described: false,
        optional: true,
    }
}

fn against(
    graph: &Graph,
    node: &Node,
    description: &Description,
    given: &[(String, Given)],
    report: &mut Report,
) -> Vec<Effective> {
    let schema = description.schema();
    let docs = settings::document(&schema);
    let is_setting = |key: &str| docs.iter().any(|doc| doc.key == key);
    // The graph's own env goes to every node; what this one does not know may be another's.
    let concerns = |key: &str, value: &Given| {
        is_setting(key) || !(settings::is_environment(key) || matches!(value.from, From::Graph(_)))
    };
    let settings_given = given.iter().filter(|(key, value)| concerns(key, value));
    let pairs: Vec<(&str, &str)> = settings_given.map(|(key, value)| (key.as_str(), value.text.as_str())).collect();
    let place = |key: &str| given.iter().find(|(known, _)| known == key).map(|(_, value)| value.location.clone());
    let values = match settings::resolve(&schema, pairs.iter().copied()) {
        Ok(values) => values,
        Err(faults) => {
            let misspelt: Vec<String> = faults.iter().filter_map(meant).collect();
            for fault in faults {
                // That a misspelt or unreadable setting is also missing is no second fault.
                let reported = misspelt.contains(&fault.key) || stands_in_file(graph, node, &fault.key);
                if fault.what == FaultKind::Missing && (reported || graph.is_module) {
                    continue;
                }
                let key_place = key_place(node, &fault);
                let location = key_place.or_else(|| place(&fault.key)).unwrap_or(Location::File(node.id.span));
                let common = matches!(
                    given.iter().find(|(key, _)| *key == fault.key),
                    Some((_, Given { from: From::Graph(_), .. }))
                );
                report.push(setting_fault(node, description, &fault, common).at_location(location));
            }
            Default::default()
        }
    };
    for (key, value) in given {
        if values.get(key).is_some_and(serde_json::Value::is_string) {
            warn_of_number(key, value, report);
        }
    }
    let effective = |doc: &settings::SettingDoc| {
        let value = given.iter().find(|(key, _)| *key == doc.key).map(|(_, value)| value);
        Effective {
            key: doc.key.clone(),
            value: value.map_or_else(|| default_text(doc.default.as_ref()), |value| Some(value.text.clone())),
            from: value.map_or(From::Default, |value| value.from.clone()),
            is_path: doc.is_path,
            file: doc.file,
            live: doc.live,
            optional: doc.optional,
            described: true,
        }
    };
    let mut all: Vec<Effective> = docs.iter().map(effective).collect();
    for (key, value) in given.iter().filter(|(key, _)| !is_setting(key)) {
        let (value, from) = (Some(value.text.clone()), value.from.clone());
        all.push(Effective {
            key: key.clone(),
            value,
            from,
            is_path: false,
            file: None,
            live: false,
            described: false,
            optional: true,
        });
    }
    all
}

/// The file gives this setting, if perhaps in a form that could not be read.
fn stands_in_file(graph: &Graph, node: &Node, key: &str) -> bool {
    let in_env = |owner: &Yaml| owner.get("env").is_some_and(|env| env.get(key).is_some());
    let Some(Data::List(items)) = graph.root.get("nodes").map(|nodes| &nodes.data) else { return false };
    in_env(&graph.root) || items.get(node.index).is_some_and(in_env)
}

fn meant(fault: &SettingFault) -> Option<String> {
    (fault.what == FaultKind::Unknown).then(|| fault.nearest.clone()).flatten()
}

/// An unknown name is pointed at itself, not at its value.
fn key_place(node: &Node, fault: &SettingFault) -> Option<Location> {
    if fault.what != FaultKind::Unknown {
        return None;
    }
    node.env.iter().find(|value| value.key.value == fault.key).map(|value| Location::File(value.key.span))
}

fn setting_fault(node: &Node, description: &Description, fault: &SettingFault, common: bool) -> Fault {
    let key = &fault.key;
    // One fault of the graph's own env, although it shows at every node.
    let whose =
        if common { "for all nodes".to_owned() } else { format!("node '{}' ({})", node.id.value, description.name) };
    let message = format!("{whose}: {fault}");
    let fix = match (&fault.what, &fault.nearest) {
        (FaultKind::Unknown, Some(near)) => Some(format!("{near}: …")),
        (FaultKind::Value { .. }, Some(near)) => Some(format!("{key}: {near}")),
        (FaultKind::Missing, _) => Some(format!("add '{key}: …' to its env, or --set {}.{key}=…", node.id.value)),
        _ => None,
    };
    Fault::error(Span::default(), message).fix_with(fix)
}

fn warn_of_number(key: &str, value: &Given, report: &mut Report) {
    if value.text != value.written {
        let (written, text) = (settings::redacted(key, &value.written), settings::redacted(key, &value.text));
        let message = format!("dora takes {key} '{written}' for a number, quoted or not, and hands over '{text}'");
        let fix = "write it so that it is no number, for example with a letter before it";
        report.push(Fault::warning(Span::default(), message).at_location(value.location.clone()).fix(fix));
    }
}

/// A name in the graph's own `env:` that is no setting of any node.
pub(super) fn check_common(graph: &Graph, described: &[Option<Arc<Description>>], report: &mut Report) {
    // A node that does not say what it knows may know it.
    if described.is_empty() || described.iter().any(Option::is_none) {
        return;
    }
    let known: BTreeMap<String, ()> = described
        .iter()
        .flatten()
        .flat_map(|description| settings::document(&description.schema()))
        .map(|doc| (doc.key, ()))
        .collect();
    for value in &graph.env {
        let key = &value.key.value;
        if !known.contains_key(key) && !settings::is_environment(key) {
            let near = nearest(key, known.keys().map(String::as_str));
            let message = format!("no node of the graph has a setting {key}");
            report.push(Fault::error(value.key.span, message).fix_with(near.map(|near| format!("{near}: …"))));
        }
    }
}
