//! Modules: the flat graph is the one that dora makes, and the graphs of the experiments differ in what they say.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use millrace_graph::check::{World, check};
use millrace_graph::describe::Blind;
use millrace_graph::fault::Report;
use millrace_graph::model::Graph;
use millrace_graph::resolved;
use millrace_tests::{finish, millrace, printed, root, succeed};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(300);

/// dora's command line, as `millrace run` takes it.
fn dora() -> Command {
    let said = finish(&mut millrace(&["setup"]), LIMIT);
    let said = printed(&said);
    let program = said.lines().find_map(|line| line.strip_prefix("dora is ")).unwrap_or_else(|| panic!("{said}"));
    let mut command = Command::new(program);
    command.env("RUST_BACKTRACE", "0").env("NO_COLOR", "1");
    command
}

fn expanded(file: &Path) -> String {
    succeed(dora().arg("expand").arg(file), LIMIT)
}

fn ours(file: &Path) -> Graph {
    let world = World { describer: &Blind, variables: &|name| std::env::var(name).ok() };
    let bytes = std::fs::read(file).unwrap();
    let name = file.display().to_string();
    check(&name, file.parent().unwrap(), &bytes, &[], &world).graph.expect("a graph")
}

/// The graph as values, with its build commands and without what dora states of its own.
fn plain(graph: &Graph) -> Value {
    let mut json = resolved::to_json(graph, &[], &|_| None);
    for (node, found) in json["nodes"].as_array_mut().unwrap().iter_mut().zip(&graph.nodes) {
        let node = node.as_object_mut().unwrap();
        for (key, default) in [("restart_policy", json!("never")), ("max_restarts", json!(0)), ("outputs", json!([]))] {
            node.entry(key).or_insert(default);
        }
        node.insert("build".to_owned(), json!(found.build.as_ref().map(|build| build.value.trim_end())));
        // dora prints a list of outputs in its own order
        node["outputs"].as_array_mut().unwrap().sort_by_key(Value::to_string);
        let inputs = node.entry("inputs").or_insert_with(|| json!({})).as_object_mut().unwrap();
        for input in inputs.values_mut().filter(|input| input.is_string()) {
            *input = json!({ "source": input });
        }
    }
    json.as_object_mut().unwrap().remove("debug");
    without_defaults(json)
}

fn without_defaults(value: Value) -> Value {
    match value {
        Value::Object(entries) => {
            let stated = |(key, value): &(String, Value)| !value.is_null() && key != "distribute";
            let cleared = entries.into_iter().filter(stated).map(|(key, value)| (key, without_defaults(value)));
            Value::Object(cleared.collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(without_defaults).collect()),
        // dora prints a whole number of seconds as a fraction
        Value::Number(number) => number.as_f64().into(),
        other => other,
    }
}

fn is_as_dora_expands(file: &Path) {
    let theirs = expanded(file);
    // what dora hands over as it is, it would expand when it reads it again
    let theirs = theirs.replace("PARAM_NAME: it's $HOME", "PARAM_NAME: it's $$HOME");
    let theirs = Graph::read(&theirs, &mut Report::default()).expect("dora prints a graph");
    let (ours, theirs) = (plain(&ours(file)), plain(&theirs));
    let (ours_nodes, theirs_nodes) = (ours["nodes"].as_array().unwrap(), theirs["nodes"].as_array().unwrap());
    for (ours, theirs) in ours_nodes.iter().zip(theirs_nodes) {
        assert_eq!(ours, theirs, "{}", file.display());
    }
    assert_eq!(ours, theirs, "{}", file.display());
}

/// All graphs that lie here, but for the modules.
fn graphs() -> Vec<PathBuf> {
    let files = std::fs::read_dir(root().join("graphs")).unwrap().map(|entry| entry.unwrap().path());
    // a cameras file is no graph
    let is_graph = |file: &PathBuf| std::fs::read_to_string(file).unwrap().lines().any(|line| line == "nodes:");
    let graphs: Vec<PathBuf> =
        files.filter(|file| file.extension().is_some_and(|e| e == "yml") && is_graph(file)).collect();
    assert!(graphs.len() > 8, "{graphs:?}");
    graphs
}

#[test]
fn a_graph_with_modules_is_what_dora_makes_of_it() {
    is_as_dora_expands(&root().join("tests/graphs/modules/graph.yml"));
    graphs().iter().for_each(|file| is_as_dora_expands(file));
}

/// Lines of `b` that are not in `a`, and the other way round.
fn differing(a: &str, b: &str) -> (Vec<String>, Vec<String>) {
    let lines = |text: &str| text.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>();
    let (a, b) = (lines(a), lines(b));
    let only = |these: &[String], others: &[String]| {
        these.iter().filter(|line| !others.contains(line)).cloned().collect::<Vec<_>>()
    };
    (only(&a, &b), only(&b, &a))
}

const TOGGLES: [(&str, &str, &str); 4] = [
    ("FORMAT", "bgr24", "nv12"),
    ("FUSED", "false", "true"),
    ("HANDOVER", "blocking", "event"),
    ("EXCHANGE", "copy", "shared"),
];

/// By dora's own flat graphs, and by the files as `diff` shows them.
#[test]
fn graphs_of_experiments_differ_in_one_optimization() {
    let graph = |name: &str| root().join(format!("graphs/{name}.yml"));
    let all: Vec<&str> = TOGGLES.iter().map(|(key, ..)| *key).collect();
    for (from, to, keys) in [
        ("baseline", "nv12", &all[..1]),
        ("baseline", "fused", &all[1..2]),
        ("baseline", "streams", &all[2..3]),
        ("baseline", "zero-copy", &all[3..]),
        ("baseline", "full", &all[..]),
        ("bgr24", "full", &all[..1]),
        ("blocking", "full", &all[2..3]),
    ] {
        let toggles = || TOGGLES.iter().filter(|(key, ..)| keys.contains(key));
        let off: Vec<String> = toggles().map(|(key, off, _)| format!("  {key}: {off}")).collect();
        let on: Vec<String> = toggles().map(|(key, _, on)| format!("  {key}: {on}")).collect();
        let (mut flat_off, mut flat_on) = differing(&expanded(&graph(from)), &expanded(&graph(to)));
        flat_off.sort();
        flat_on.sort();
        let sorted = |mut lines: Vec<String>| {
            lines.sort();
            lines
        };
        assert_eq!((flat_off, flat_on), (sorted(off.clone()), sorted(on.clone())), "{from} against {to}");
        let read = |name: &str| std::fs::read_to_string(graph(name)).unwrap();
        let (text_off, text_on) = differing(&read(from), &read(to));
        let without_comments = |lines: Vec<String>| -> Vec<String> {
            lines.iter().map(|line| line.split(" #").next().unwrap().trim_end().to_owned()).collect()
        };
        assert_eq!((without_comments(text_off), without_comments(text_on)), (off, on), "{from} against {to}");
    }
}

/// The pipeline as a module gives what it gives written out.
#[test]
fn a_graph_with_a_module_runs_like_one_without() {
    let folder = tempfile::tempdir().unwrap();
    let [flat, module] = ["detect", "full"].map(|name| {
        let out = folder.path().join(format!("{name}.jsonl"));
        let (graph, path) = (format!("graphs/{name}.yml"), format!("write.PATH={}", out.display()));
        let sets = ["--set", "decode.FRAMES=40", "--set", &path];
        succeed(&mut millrace(&[&["run", &graph, "--no-build", "--quiet"], &sets[..]].concat()), LIMIT);
        std::fs::read_to_string(out).unwrap()
    });
    assert_eq!(flat.lines().count(), 40);
    // a camera is called after its node where nobody named it
    assert_eq!(module.replace("pipeline.decode", "decode"), flat);
    assert!(module.contains("pipeline.decode") && module.contains("score"), "{module}");
}

/// dora itself runs the module, with the settings that the graph's `env:` gives to the nodes in it.
#[test]
fn dora_runs_a_graph_with_a_module() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.jsonl");
    let here = root().display().to_string();
    let module = std::fs::read_to_string(root().join("graphs/modules/detect.yml")).unwrap();
    let module = module.replace("../tests", &format!("{here}/tests"));
    let module = module.replace("../target/detections.jsonl", &out.display().to_string());
    // dora builds before it runs, and there is nothing to build here
    let module = module.replace("cargo build --release -p", "true").replace("../bin", "bin");
    std::fs::write(folder.path().join("detect.yml"), module).unwrap();
    std::os::unix::fs::symlink(root().join("target/release"), folder.path().join("bin")).unwrap();
    let graph = folder.path().join("graph.yml");
    let text =
        "exit_when_nodes_finish: true\nenv: {FLOW: lossless, FRAMES: 30}\nnodes: [{id: p, module: detect.yml}]\n";
    std::fs::write(&graph, text).unwrap();
    succeed(dora().arg("run").arg(&graph), LIMIT);
    let lines = std::fs::read_to_string(&out).unwrap();
    assert_eq!(lines.lines().count(), 30, "FRAMES reached the decoder, and FLOW every node");
    assert!(lines.contains("p.decode"), "{lines}");
}

/// `millrace check` and `run` about a module of its own, and about settings of its nodes.
#[test]
fn modules_on_the_command_line() {
    let module = "graphs/modules/detect.yml";
    let said = printed(&finish(&mut millrace(&["check", module, "--explain"]), LIMIT));
    assert!(said.contains("this is a module") && said.contains(&format!("{module}: no faults")), "{said}");
    let run = finish(&mut millrace(&["run", module, "--no-build"]), LIMIT);
    assert!(!run.status.success() && printed(&run).contains("is a module, a part of graphs"), "{}", printed(&run));
    let ab = finish(&mut millrace(&["ab", module, "graphs/full.yml", "--no-build"]), LIMIT);
    assert!(!ab.status.success() && printed(&ab).contains("is a module, a part of graphs"), "{}", printed(&ab));
    let explain = [
        "check",
        "graphs/nv12.yml",
        "--explain",
        "--set",
        "pipeline.decode.SOURCE=tests/data/demo/clip.mp4",
        "--set",
        "detect.MODEL=tests/data/demo/model/model.yml",
    ];
    let said = succeed(&mut millrace(&explain), LIMIT);
    let has = |parts: &[&str]| said.lines().any(|line| line.split_whitespace().collect::<Vec<_>>() == parts);
    assert!(said.contains("pipeline.decode · sw-nv12"), "{said}");
    assert!(has(&["SOURCE", "tests/data/demo/clip.mp4", "--set"]), "{said}");
    assert!(has(&["FORMAT", "nv12", "graphs/nv12.yml:10,", "for", "all", "nodes"]), "{said}");
    assert!(said.contains("graphs/modules/detect.yml:"), "{said}");
    assert_eq!(
        said.lines().filter(|line| line.trim_start().starts_with("MODEL ") && line.ends_with("--set")).count(),
        2,
        "{said}"
    );
}
