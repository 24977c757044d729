//! What dora 1.1 reads in a graph: its keys, built-in inputs, ids, and what it makes of values in `env:`.

use crate::yaml::Scalar;

/// What stands behind a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    Text,
    Whole,
    Number,
    Truth,
    List,
    Map,
    /// Text or a number with a unit.
    Size,
    /// Anything; dora checks it.
    Any,
}

pub(crate) const ROOT_KEYS: &[(&str, Shape)] = &[
    ("nodes", Shape::List),
    ("env", Shape::Map),
    ("exit_when_nodes_finish", Shape::Truth),
    ("health_check_interval", Shape::Number),
    ("strict_types", Shape::Truth),
    ("type_rules", Shape::List),
    ("debug", Shape::Map),
    ("deploy", Shape::Map),
];

pub(crate) const NODE_KEYS: &[(&str, Shape)] = &[
    ("id", Shape::Text),
    ("name", Shape::Text),
    ("description", Shape::Text),
    ("path", Shape::Text),
    ("path_sha256", Shape::Text),
    ("args", Shape::Text),
    ("env", Shape::Map),
    ("inputs", Shape::Map),
    ("outputs", Shape::List),
    ("input_types", Shape::Map),
    ("output_types", Shape::Map),
    ("output_framing", Shape::Map),
    ("output_metadata", Shape::Map),
    ("pattern", Shape::Text),
    ("build", Shape::Text),
    ("git", Shape::Text),
    ("branch", Shape::Text),
    ("tag", Shape::Text),
    ("rev", Shape::Text),
    ("hub", Shape::Text),
    ("module", Shape::Text),
    ("params", Shape::Map),
    ("operator", Shape::Any),
    ("operators", Shape::Any),
    ("ros2", Shape::Any),
    ("send_stdout_as", Shape::Text),
    ("send_logs_as", Shape::Text),
    ("min_log_level", Shape::Text),
    ("max_log_size", Shape::Size),
    ("max_rotated_files", Shape::Whole),
    ("restart_policy", Shape::Text),
    ("max_restarts", Shape::Whole),
    ("restart_delay", Shape::Number),
    ("max_restart_delay", Shape::Number),
    ("restart_window", Shape::Number),
    ("health_check_timeout", Shape::Number),
    ("startup_timeout", Shape::Number),
    ("finish_grace_secs", Shape::Number),
    ("shared_memory_pool_size", Shape::Size),
    ("cpu_affinity", Shape::List),
    ("deploy", Shape::Map),
];

pub(crate) const INPUT_KEYS: &[(&str, Shape)] = &[
    ("source", Shape::Text),
    ("queue_size", Shape::Whole),
    ("queue_policy", Shape::Text),
    ("input_timeout", Shape::Number),
];

/// What stands in a module for the graph around it: `_mod/frame` is the module's input `frame`.
pub(crate) const MODULE: &str = "_mod";

pub(crate) const RESTART_POLICIES: &[&str] = &["never", "on-failure", "always"];
pub(crate) const QUEUE_POLICIES: &[&str] = &["drop_oldest", "backpressure"];
const TIMER_UNITS: &[&str] = &["secs", "millis", "micros", "nanos", "hz"];
const LOG_LEVELS: &[&str] = &["stdout", "error", "warn", "info", "debug", "trace"];

/// The source of an input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Upstream {
    /// A clock of dora's.
    Timer,
    /// The log of the graph.
    Logs,
    /// Another node's output.
    Output {
        /// The node's id.
        node: String,
        /// The output's name.
        output: String,
    },
}

/// Reads `node/output`, `dora/timer/UNIT/N` or `dora/logs[/LEVEL[/NODE]]`.
///
/// # Errors
/// What is wrong, and the right form.
pub(crate) fn parse_upstream(text: &str) -> Result<Upstream, (String, String)> {
    const TIMER_FORM: &str = "dora/timer/millis/100, dora/timer/secs/5 or dora/timer/hz/30";
    let wrong = |what: String, fix: &str| Err((what, fix.to_owned()));
    let Some((source, output)) = text.split_once('/') else {
        return wrong(format!("'{text}' names no output"), "write it as node/output, for example decode/frame");
    };
    if source != "dora" {
        if source.is_empty() || output.is_empty() {
            return wrong(format!("'{text}' lacks a part"), "write it as node/output, for example decode/frame");
        }
        return Ok(Upstream::Output { node: source.to_owned(), output: output.to_owned() });
    }
    let parts: Vec<&str> = output.split('/').collect();
    match parts.as_slice() {
        ["timer", unit, count] => {
            if !TIMER_UNITS.contains(unit) {
                let near = crate::nearest::nearest(unit, TIMER_UNITS.iter().copied());
                let fix = near.map_or(TIMER_FORM.to_owned(), |unit| format!("dora/timer/{unit}/{count}"));
                return wrong(format!("dora has no timer unit '{unit}'; there are: {}", TIMER_UNITS.join(", ")), &fix);
            }
            let fits = if *unit == "hz" {
                count.parse::<f64>().is_ok_and(|hz| hz.is_finite() && hz > 0.0 && 1.0 / hz >= 1e-9 && 1.0 / hz < 1e19)
            } else {
                count.parse::<u64>().is_ok_and(|count| count > 0)
            };
            if !fits {
                let range = if *unit == "hz" { "a positive number" } else { "a whole number from 1" };
                return wrong(format!("the timer's '{count}' is not {range}"), TIMER_FORM);
            }
            Ok(Upstream::Timer)
        }
        ["timer", ..] => wrong(format!("'{text}' is not a timer"), TIMER_FORM),
        ["logs"] => Ok(Upstream::Logs),
        ["logs", level] | ["logs", level, _] if LOG_LEVELS.contains(&level.to_lowercase().as_str()) => {
            Ok(Upstream::Logs)
        }
        ["logs", ..] => {
            wrong(format!("'{text}' names no log level; there are: {}", LOG_LEVELS.join(", ")), "dora/logs/info")
        }
        _ => wrong(format!("dora has no built-in input '{text}'"), TIMER_FORM),
    }
}

/// What is wrong with a node's id; nothing where dora takes it.
pub(crate) fn id_fault(id: &str) -> Option<String> {
    if id == "dora" {
        return Some("'dora' is the name of dora's own inputs and cannot be a node's".to_owned());
    }
    if id.starts_with('.') {
        return Some(format!("'{id}' begins with a dot"));
    }
    bad_character(id, "_-.")
}

/// What is wrong with the name of an input or output; nothing where dora takes it.
pub(crate) fn port_fault(name: &str) -> Option<String> {
    if name.starts_with('/') || name.ends_with('/') || name.contains("//") {
        return Some(format!("'{name}' has an empty part between slashes"));
    }
    bad_character(name, "_-./")
}

fn bad_character(name: &str, allowed: &str) -> Option<String> {
    if name.is_empty() {
        return Some("the name is empty".to_owned());
    }
    let bad = name.chars().find(|c| !c.is_ascii_alphanumeric() && !allowed.contains(*c))?;
    let listed: Vec<String> = allowed.chars().map(String::from).collect();
    Some(format!("'{name}' has a {bad:?} in it; allowed are letters, digits and {}", listed.join(" ")))
}

/// What dora hands to a node for one value of `env:`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EnvText {
    /// The text that the node gets.
    pub text: String,
    /// The text as written, with variables expanded: differs where dora read it as a number.
    pub written: String,
}

/// Why a value of `env:` cannot be handed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum EnvFault {
    /// It is null.
    Nothing,
    /// It names a variable that is not set.
    Unset(String),
}

/// What dora makes of a value in `env:`: variables are expanded, then whatever reads as a truth value or a number is
/// taken as one, quoted or not, and written out again.
pub(crate) fn env_text(value: &Scalar, lookup: &dyn Fn(&str) -> Option<String>) -> Result<EnvText, EnvFault> {
    if value.is_null() {
        return Err(EnvFault::Nothing);
    }
    let written = expand(&value.text, lookup).map_err(EnvFault::Unset)?;
    Ok(EnvText { text: coerced(&written, value.plain), written })
}

fn coerced(text: &str, plain: bool) -> String {
    if plain {
        match text {
            "True" | "TRUE" => return "true".to_owned(),
            "False" | "FALSE" => return "false".to_owned(),
            _ => {}
        }
        for (prefix, radix) in [("0x", 16), ("0o", 8), ("0b", 2)] {
            if let Some(value) = text.strip_prefix(prefix).and_then(|digits| i64::from_str_radix(digits, radix).ok()) {
                return value.to_string();
            }
        }
    }
    if let Ok(value) = text.parse::<i64>() {
        return value.to_string();
    }
    match text.parse::<f64>() {
        Ok(value) => value.to_string(),
        Err(_) => text.to_owned(),
    }
}

/// The text is the same however often dora expands it: once by `dora run`, three times by `dora start`, and once more where
/// a node reads its graph.
pub(crate) fn stays(text: &str) -> bool {
    expand(text, &|_| None).as_deref() == Ok(text)
}

/// Expands `$NAME`, `${NAME}`, `${NAME:-default}` and `$$`; a `$` before anything else stands for itself.
///
/// # Errors
/// The first name that is not set and has no default.
pub(crate) fn expand(text: &str, lookup: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(tail) = after.strip_prefix('$') {
            out.push('$');
            rest = tail;
        } else if let Some(tail) = after.strip_prefix('{')
            && let Some(end) = tail.find('}')
        {
            let (name, default) = match tail[..end].split_once(":-") {
                Some((name, default)) => (name, Some(default)),
                None => (&tail[..end], None),
            };
            match (lookup(name), default) {
                (Some(value), _) => out.push_str(&value),
                (None, Some(default)) => out.push_str(default),
                (None, None) => return Err(name.to_owned()),
            }
            rest = &tail[end + 1..];
        } else {
            // also a digit first: '$1' is the variable '1'
            let len = after.find(|c: char| c != '_' && !c.is_alphanumeric()).unwrap_or(after.len());
            if len == 0 {
                out.push('$');
            } else {
                let name = &after[..len];
                out.push_str(&lookup(name).ok_or_else(|| name.to_owned())?);
            }
            rest = &after[len..];
        }
    }
    out.push_str(rest);
    Ok(out)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn handed(text: &str, plain: bool) -> String {
        let lookup = |name: &str| (name == "HOST").then(|| "cam7".to_owned());
        env_text(&Scalar { text: text.to_owned(), plain }, &lookup).unwrap().text
    }

    /// The right-hand sides are what a node's environment held under `dora run` 1.1.0.
    #[test]
    fn numbers_are_what_dora_makes_of_them() {
        for (text, plain, got) in [
            ("1.10", false, "1.1"),
            ("1.0", true, "1"),
            ("0010", false, "10"),
            ("1e3", true, "1000"),
            ("true", true, "true"),
            ("yes", true, "yes"),
            ("0x10", true, "16"),
            ("0x10", false, "0x10"),
            ("rtsp://$HOST/1", true, "rtsp://cam7/1"),
            ("${HOST}:${PORT:-554}", true, "cam7:554"),
            ("${PORT:-080}", true, "80"),
            ("5$", true, "5$"),
            ("$$5", true, "$5"),
            ("$$HOST", true, "$HOST"),
        ] {
            assert_eq!(handed(text, plain), got, "{text}");
        }
    }

    #[test]
    fn unset_variables_are_named() {
        let unset = |text: &str| env_text(&Scalar { text: text.to_owned(), plain: true }, &|_| None);
        assert_eq!(unset("a$B/c"), Err(EnvFault::Unset("B".to_owned())));
        assert_eq!(unset("out$1"), Err(EnvFault::Unset("1".to_owned())));
        assert_eq!(unset("${X Y}"), Err(EnvFault::Unset("X Y".to_owned())));
        assert_eq!(unset("~"), Err(EnvFault::Nothing));
    }

    #[test]
    fn what_dora_expands_again_is_known() {
        assert!(["", "a", "5$", "a$.mp4", "$ {x}"].iter().all(|text| stays(text)));
        assert!(["$HOME", "a$b", "$$", "${X}", "x$1", "${X:-y}"].iter().all(|text| !stays(text)));
    }

    #[test]
    fn feeds() {
        assert_eq!(parse_upstream("dora/timer/hz/0.5"), Ok(Upstream::Timer));
        assert_eq!(parse_upstream("dora/timer/nanos/1"), Ok(Upstream::Timer));
        assert_eq!(parse_upstream("dora/logs/Info/decode"), Ok(Upstream::Logs));
        let output = Upstream::Output { node: "op".to_owned(), output: "a/b".to_owned() };
        assert_eq!(parse_upstream("op/a/b"), Ok(output));
        for wrong in [
            "frame",
            "/x",
            "x/",
            "dora/timer",
            "dora/timer/secs",
            "dora/timer/secs/0",
            "dora/timer/secs/1.5",
            "dora/timer/hz/-1",
            "dora/timer/hz/nan",
            "dora/timer/hz/1e10",
            "dora/timer/sec/5",
            "dora/time/secs/5",
            "dora/logs/loud",
        ] {
            assert!(parse_upstream(wrong).is_err(), "{wrong}");
        }
        assert_eq!(parse_upstream("dora/timer/sec/5").unwrap_err().1, "dora/timer/secs/5");
    }

    #[test]
    fn ids() {
        assert_eq!(id_fault("cam0.dec-1_x"), None);
        assert!(["", "dora", ".a", "a b", "a/b", "ä"].iter().all(|id| id_fault(id).is_some()));
        assert_eq!(port_fault("op/status"), None);
        assert!(["", "/a", "a/", "a//b", "a b"].iter().all(|name| port_fault(name).is_some()));
    }
}
