//! `millrace check` from outside: several graphs, JSON in every case, and readers that have gone.

#![allow(clippy::unwrap_used)]

use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Two graphs: one without a fault, and one whose second node has the name of the first.
fn graphs() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let node = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fake/node");
    let nodes = |ids: &[&str]| {
        let lines: Vec<String> = ids.iter().map(|id| format!("  - id: {id}\n    path: {}\n", node.display())).collect();
        format!("nodes:\n{}", lines.concat())
    };
    std::fs::write(folder.path().join("fine.yml"), nodes(&["a", "b"])).unwrap();
    std::fs::write(folder.path().join("twice.yml"), nodes(&["a", "a"])).unwrap();
    folder
}

fn check(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_millrace"));
    command.arg("check").args(args).current_dir(folder);
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}", text(&output.stdout)))
}

#[test]
fn several_graphs_are_checked_in_one_go() {
    let folder = graphs();
    let output = check(folder.path(), &["fine.yml", "none.yml", "twice.yml"]).output().unwrap();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(1));
    assert!(out.contains("fine.yml: no faults\n") && out.contains("\ntwice.yml: 1 error"), "{out}");
    assert!(err.contains("the graph none.yml cannot be read"), "{err}");
    assert_eq!(check(folder.path(), &["fine.yml", "fine.yml"]).output().unwrap().status.code(), Some(0));
}

#[test]
fn json_is_one_document_also_where_nothing_can_be_read() {
    let folder = graphs();
    let one = |graph: &str| json(&check(folder.path(), &[graph, "--json"]).output().unwrap());
    assert_eq!(one("fine.yml")["ok"], true);
    let (twice, none) = (one("twice.yml"), one("none.yml"));
    let error = twice["faults"].as_array().unwrap().iter().find(|fault| fault["severity"] == "error").unwrap();
    assert_eq!((&twice["ok"], &error["line"]), (&false.into(), &4.into()), "{twice:#}");
    assert_eq!((&none["ok"], &none["file"]), (&false.into(), &"none.yml".into()));
    assert!(none["faults"][0]["message"].as_str().unwrap().contains("cannot be read"), "{none:#}");
    let all = json(&check(folder.path(), &["fine.yml", "twice.yml", "none.yml", "--json"]).output().unwrap());
    assert_eq!(all, Value::Array(vec![one("fine.yml"), twice, none]));
}

#[test]
fn a_pipe_that_closes_is_no_panic() {
    let folder = graphs();
    for args in [&["twice.yml"][..], &["twice.yml", "--json"], &["fine.yml", "--explain"], &["none.yml"]] {
        let whole = check(folder.path(), args).output().unwrap().status.code();
        for closed in ["stdout", "stderr"] {
            let mut child = check(folder.path(), args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
            // before the command has written anything
            if closed == "stdout" {
                drop(child.stdout.take())
            } else {
                drop(child.stderr.take())
            }
            let output = child.wait_with_output().unwrap();
            assert_eq!(output.status.code(), whole, "{args:?} without {closed}: {}", text(&output.stderr));
            assert!(!text(&output.stderr).contains("panicked"), "{}", text(&output.stderr));
        }
    }
    // as a shell has it
    let shell = format!("{} --help | head -c 10", env!("CARGO_BIN_EXE_millrace"));
    let output = Command::new("sh").args(["-c", &shell]).output().unwrap();
    assert_eq!((text(&output.stdout).len(), text(&output.stderr)), (10, String::new()));
}
