//! Broken graphs with their whole reports: `tests/broken/NAME.yml` gives `NAME.txt`.
//!
//! After a change of the words, `MILLRACE_UPDATE_REPORTS=1 cargo test --release -p millrace-graph` writes the reports
//! anew; read the difference before committing it.

#![allow(clippy::unwrap_used)]

use millrace_graph::check::{Set, World, check};
use millrace_graph::describe::{Described, Describer, Description, Stages};
use millrace_graph::explain::explain;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Nodes by the descriptions in `tests/describe`; other programs are not there, but for `tool.py`, a stranger's.
struct Recorded;

impl Describer for Recorded {
    fn describe(&self, path: &str, _: &Path) -> Described {
        if path.ends_with("tool.py") {
            return Described::Foreign;
        }
        if path.ends_with("crashes") {
            return Described::Failed("'--describe' ended with signal: 11 (SIGSEGV)".to_owned());
        }
        let name = path.rsplit('/').next().unwrap();
        match std::fs::read(here().join(format!("describe/{name}.json"))) {
            Ok(json) => Described::Node(Arc::new(Description::parse(&json).unwrap())),
            Err(_) => Described::Absent,
        }
    }

    fn stages(&self, _: &str, _: &Path) -> Option<Stages> {
        Some(Ok(["sw-nv12", "nv12-to-rgb", "cpu-infer"].map(str::to_owned).into()))
    }

    fn near(&self, path: &str, _: &Path) -> Option<String> {
        (path == "bin/sw-nv21").then(|| "bin/sw-nv12".to_owned())
    }
}

fn here() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")
}

fn sets(text: &str) -> Vec<Set> {
    let first = text.lines().next().unwrap_or_default();
    let listed = first.strip_prefix("# set: ").unwrap_or_default();
    listed.split_whitespace().map(|set| set.parse().unwrap()).collect()
}

fn report(name: &str, bytes: &[u8]) -> String {
    let variables = |name: &str| (name == "HOME").then(|| "/home/me".to_owned());
    let world = World { describer: &Recorded, variables: &variables };
    let sets = sets(&String::from_utf8_lossy(bytes));
    check(name, &here().join("broken"), bytes, &sets, &world).report.text(true)
}

#[test]
fn reports_are_as_recorded() {
    let update = std::env::var_os("MILLRACE_UPDATE_REPORTS").is_some();
    let mut graphs: Vec<PathBuf> = std::fs::read_dir(here().join("broken"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yml"))
        .collect();
    graphs.sort();
    assert!(graphs.len() >= 20, "only {} broken graphs were found", graphs.len());
    let mut wrong = Vec::new();
    for path in graphs {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let found = report(&name, &std::fs::read(&path).unwrap());
        let recorded = path.with_extension("txt");
        if update {
            std::fs::write(&recorded, &found).unwrap();
        } else if std::fs::read_to_string(&recorded).unwrap_or_default() != found {
            wrong.push(format!("--- {name}: the report is now\n{found}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_report_shows_a_password() {
    let bytes = std::fs::read(here().join("broken/credentials.yml")).unwrap();
    assert!(String::from_utf8_lossy(&bytes).contains("hunter2"));
    let variables = |_: &str| None;
    let world = World { describer: &Recorded, variables: &variables };
    let checked = check("credentials.yml", Path::new("."), &bytes, &[], &world);
    let all = [checked.report.text(true), checked.report.json().to_string(), explain(&checked)];
    for shown in all {
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}

#[test]
fn explains_every_setting_and_port() {
    let bytes = std::fs::read(here().join("broken/whole.yml")).unwrap();
    let world = World { describer: &Recorded, variables: &|_| None };
    let sets = ["decode.PACE=realtime".parse().unwrap()];
    let checked = check("whole.yml", Path::new("."), &bytes, &sets, &world);
    let text = explain(&checked);
    let decode: Vec<&str> = text.lines().take_while(|line| !line.is_empty()).collect();
    let expected = [
        "decode · sw-nv12 0.1.0 · For tests.",
        "  SOURCE         clip.mp4                        whole.yml:10",
        "  CAMERA         (unset)                         default",
        "  PACE           realtime                        --set",
        "  LOOP           false                           default",
        "  FRAME_RATE     (unset)                         default",
        "  FLOW           live                            whole.yml:3, for all nodes",
        "  SLOTS          8                               default",
        "  PROCESS        (unset)                         default",
        "  LOG            info                            default; live",
        "  RUST_LOG       info                            whole.yml:3, for all nodes (variable)",
        "  input tick     <- dora/timer/secs/5",
        "  output frame   -> to-rgb/frame                 image",
        "  output packet  -> page/packet                  packet",
    ];
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(decode.len(), expected.len(), "{text}");
    for (found, expected) in decode.iter().zip(expected) {
        assert_eq!(words(found), words(expected), "{text}");
    }
}

#[test]
fn an_anchored_value_is_set_in_all_its_places() {
    let graph = b"nodes:\n  - {id: a, path: tool.py, env: {MODEL: &m x.yml, K: 1}}\n  - {id: b, path: tool.py, env: {MODEL: *m}}\n  - {id: c, path: tool.py, env: {MODEL: *m}}\n";
    let world = World { describer: &Recorded, variables: &|_| None };
    let sets: Vec<Set> = ["b.MODEL=y.yml", "c.MODEL=z.yml", "a.K=2"].map(|set| set.parse().unwrap()).to_vec();
    let checked = check("g.yml", Path::new("."), graph, &sets, &world);
    let values: Vec<Option<String>> = checked
        .nodes
        .iter()
        .map(|node| node.settings.iter().find(|setting| setting.key == "MODEL").and_then(|model| model.value.clone()))
        .collect();
    assert_eq!(values, ["y.yml", "y.yml", "z.yml"].map(|value| Some(value.to_owned())));
}
