//! What nodes say of their own settings becomes faults with places, once each.

#![allow(clippy::unwrap_used)]

use millrace_graph::check::{Set, World, check};
use millrace_graph::describe::{Described, Describer, Description};
use millrace_graph::remarks::{Asked, Listener, Remark, Remarks};
use serde_json::json;
use std::cell::RefCell;
use std::path::Path;
use std::sync::Arc;

/// A node with the settings A, B, FILE and PORT that refuses A where B is there, and a FILE called `bad`; warns of B where it
/// is its own; and listens at PORT of BIND. `mute` does not answer.
#[derive(Default)]
struct Nodes {
    asked: RefCell<Vec<Asked>>,
}

impl Describer for Nodes {
    fn describe(&self, _: &str, _: &Path) -> Described {
        let text = json!({ "type": ["string", "null"] });
        let path = json!({ "type": ["string", "null"], "x-millrace-kind": "path", "x-millrace-file": "read" });
        let number = json!({ "type": ["integer", "null"], "minimum": 0, "maximum": 65535 });
        let properties = json!({ "A": text, "B": text, "FILE": path, "BIND": text, "PORT": number });
        let description = json!({ "describe": 1, "name": "new", "settings": { "properties": properties } });
        Described::Node(Arc::new(Description::parse(description.to_string().as_bytes()).unwrap()))
    }

    fn remarks(&self, path: &str, _: &Path, asked: &Asked) -> Option<Result<Remarks, String>> {
        if path == "mute" {
            return Some(Err("it ended".to_owned()));
        }
        self.asked.borrow_mut().push(asked.clone());
        let remark = |setting: &str, why: &str| Remark { setting: setting.to_owned(), why: why.to_owned() };
        let has = |key: &str| asked.settings.get(key);
        let mut remarks = Remarks::default();
        if has("A").is_some() && has("B").is_some() {
            remarks.refused.push(remark("A", "A and B exclude each other, see rtsp://u:hunter2@h/"));
        }
        if has("FILE").is_some_and(|file| file.ends_with("bad")) {
            remarks.refused.push(remark("FILE", "FILE is bad"));
        }
        if asked.own.contains("B") {
            remarks.warned.push(remark("B", "B has no effect"));
        }
        if let Some(port) = has("PORT") {
            let ip = has("BIND").map_or("127.0.0.1", String::as_str);
            let at = (ip.parse::<std::net::IpAddr>().unwrap(), port.parse().unwrap()).into();
            remarks.listens.push(Listener { setting: "PORT".to_owned(), at });
        }
        Some(Ok(remarks))
    }
}

/// The report of a graph whose nodes have these lines of `env:`, and what its nodes were asked.
fn report(common: &str, nodes: &[&str], sets: &[&str]) -> (String, Vec<Asked>) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("bad"), "x").unwrap();
    let mut text = format!("env: {{ {common} }}\nnodes:\n");
    for (n, env) in nodes.iter().enumerate() {
        let path = if *env == "mute" { "path: mute" } else { "path: new" };
        let env = if *env == "mute" { "" } else { env };
        text.push_str(&format!("  - {{ id: n{n}, {path}, restart_policy: on-failure, env: {{ {env} }} }}\n"));
    }
    let nodes = Nodes::default();
    let world = World { describer: &nodes, variables: &|_| None };
    let sets: Vec<Set> = sets.iter().map(|set| set.parse().unwrap()).collect();
    let report = check("g.yml", folder.path(), text.as_bytes(), &sets, &world).report.text(false);
    (report, nodes.asked.take())
}

#[test]
fn a_refusal_is_shown_at_its_setting_wherever_that_is_written() {
    let (text, asked) = report("B: x", &["A: y"], &[]);
    assert!(text.contains("g.yml:3:") && text.contains("^"), "{text}");
    assert!(text.contains("node 'n0' (new): A and B exclude each other"), "{text}");
    assert!(!text.contains("hunter2"), "{text}");
    // what the graph has for all its nodes is not the node's own
    assert_eq!((asked[0].settings.len(), asked[0].own.len(), asked[0].node.as_str()), (2, 1, "n0"));
    assert!(!text.contains("B has no effect"), "{text}");
    let (text, _) = report("", &["A: y"], &["n0.B=x"]);
    assert!(text.contains("--set n0.B: warning: node 'n0' (new): B has no effect"), "{text}");
    assert!(text.contains("1 error, ") && text.contains("A and B exclude"), "{text}");
    let (text, asked) = report("", &["A: ok"], &[]);
    assert!(!text.contains("error") && asked.len() == 1, "{text}");
}

#[test]
fn what_is_wrong_already_is_said_once() {
    // a value that cannot be read: nothing is asked
    let (text, asked) = report("", &["A: x, B: y, PORT: many"], &[]);
    assert!(text.contains("PORT is 'many'") && asked.is_empty(), "{text}");
    // a path of the command line counts from here; the check of files has named it
    let (text, asked) = report("", &["A: x"], &["n0.FILE=none/bad"]);
    assert!(text.contains("which does not exist") && !text.contains("FILE is bad"), "{text}");
    assert_eq!(asked[0].settings["FILE"], std::path::absolute("none/bad").unwrap().display().to_string());
    let (text, _) = report("", &["FILE: bad"], &[]);
    assert!(text.contains("FILE is bad"), "{text}");
    let (text, _) = report("", &["mute"], &[]);
    assert!(text.contains("node 'n0' did not say whether its settings go together: it ended"), "{text}");
}

#[test]
fn two_nodes_do_not_listen_at_one_address() {
    let clash = |a: &str, b: &str| report("", &[a, b], &[]).0;
    for (a, b) in [
        ("PORT: 8080", "PORT: 8080"),
        ("PORT: 8080, BIND: 0.0.0.0", "PORT: 8080"),
        ("PORT: 8080", "PORT: 8080, BIND: '::'"),
    ] {
        let text = clash(a, b);
        assert!(text.contains("g.yml:4:") && text.contains("node 'n1' would listen at "), "{text}");
        assert!(text.contains("where node 'n0' listens by its PORT"), "{text}");
    }
    for (a, b) in [("PORT: 0", "PORT: 0"), ("PORT: 8080", "PORT: 8081"), ("PORT: 8080", "PORT: 8080, BIND: 127.0.0.2")]
    {
        assert!(!clash(a, b).contains("listen"), "{a} {b}");
    }
}
