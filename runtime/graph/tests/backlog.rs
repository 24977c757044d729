//! A warning for a backlog that is longer than its producer's pools have room for. How many frames wait there is said in
//! `docs/adr/0020-a-pool-for-each-camera.md`.

#![allow(clippy::unwrap_used)]

use millrace_graph::check::{World, check};
use millrace_graph::describe::{Described, Describer, Description};
use serde_json::json;
use std::path::Path;
use std::sync::Arc;

/// `make` publishes images, `read` reads them.
struct Two;

impl Describer for Two {
    fn describe(&self, path: &str, _: &Path) -> Described {
        let number = json!({ "type": ["integer", "null"], "minimum": 1, "maximum": 64 });
        let properties = json!({ "SLOTS": number, "BACKLOG": number, "FLOW": { "type": "string" } });
        let ports = if path == "make" {
            json!({ "outputs": [{ "name": "frame", "carries": "image" }] })
        } else {
            json!({ "inputs": [{ "name": "frame", "accepts": ["image"] }] })
        };
        let mut all = json!({ "describe": 1, "name": path, "settings": { "properties": properties } });
        all.as_object_mut().unwrap().extend(ports.as_object().unwrap().clone());
        Described::Node(Arc::new(Description::parse(all.to_string().as_bytes()).unwrap()))
    }
}

fn report(make: &str, read: &str) -> String {
    let text = format!(
        "nodes:\n  - {{ id: a, path: make, inputs: {{ tick: dora/timer/secs/5 }}, outputs: [frame], restart_policy: on-failure, env: {{ {make} }} }}\n\
         \x20 - {{ id: b, path: read, inputs: {{ frame: a/frame }}, restart_policy: on-failure, env: {{ {read} }} }}\n"
    );
    let world = World { describer: &Two, variables: &|_| None };
    check("g.yml", Path::new("."), text.as_bytes(), &[], &world).report.text(false)
}

#[test]
fn a_backlog_has_room_in_the_pools_it_waits_in() {
    for (make, read, room) in [("", "BACKLOG: 7", 6), ("SLOTS: 16", "BACKLOG: 15", 14), ("SLOTS: 2", "BACKLOG: 3", 2)] {
        let text = report(make, read);
        assert!(text.contains("g.yml:3:") && text.contains("warning: BACKLOG of node 'b' is "), "{text}");
        assert!(text.contains(&format!("room for {room} frames that wait: more are lost as 'gone'")), "{text}");
    }
    for (make, read) in [
        ("", "BACKLOG: 6"),
        ("SLOTS: 64", "BACKLOG: 62"),
        ("SLOTS: 2", "BACKLOG: 2"),
        ("SLOTS: 2", ""),
        ("FLOW: lossless", "BACKLOG: 64"),
    ] {
        assert!(!report(make, read).contains("BACKLOG"), "{make} {read}");
    }
}
