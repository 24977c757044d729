//! Whatever lies in a graph file, the check ends with a report: it neither panics nor hangs.

#![allow(clippy::unwrap_used)]

use millrace_graph::check::{World, check};
use millrace_graph::describe::{Described, Describer, Description};
use millrace_graph::explain::explain;
use millrace_graph::resolved;
use proptest::prelude::*;
use std::path::Path;
use std::sync::Arc;

/// Every program is this node.
struct Always(Arc<Description>);

impl Describer for Always {
    fn describe(&self, _: &str, _: &Path) -> Described {
        Described::Node(Arc::clone(&self.0))
    }
}

fn file(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name)).unwrap()
}

fn walk(bytes: &[u8]) {
    walk_in(Path::new("."), bytes);
}

fn walk_in(folder: &Path, bytes: &[u8]) {
    let describer = Always(Arc::new(Description::parse(&file("describe/sw-nv12.json")).unwrap()));
    let world = World { describer: &describer, variables: &|name| (name.len() < 3).then(|| "$x".to_owned()) };
    let sets = ["decode.SOURCE=x".parse().unwrap()];
    let checked = check("g.yml", folder, bytes, &sets, &world);
    let text = checked.report.text(true);
    assert!(text.ends_with('\n'));
    assert!(checked.graph.is_some() || !checked.report.is_ok(), "no graph and no fault");
    let _ = checked.report.json();
    let _ = explain(&checked);
    if let Some(graph) = &checked.graph {
        let _ = resolved::to_json(graph, &sets, &|_| Some("/p".to_owned())).to_string();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        walk(&bytes);
    }

    #[test]
    fn any_yaml_like_text(text in "[-:?&*!|>%@`{}\\[\\],#'\" \n\ta-z0-9/$.é]{0,200}") {
        walk(text.as_bytes());
    }

    /// A right graph in which bytes were changed, lost or doubled.
    #[test]
    fn mutated_graphs(edits in edits()) {
        walk(&mutated(file("broken/whole.yml"), edits));
    }

    /// The same of a module that a graph uses twice, and of the graph.
    #[test]
    fn mutated_modules(in_graph in edits(), in_module in edits()) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("modules")).unwrap();
        let module = mutated(file("broken/modules/pipeline.yml"), in_module);
        std::fs::write(folder.path().join("modules/pipeline.yml"), &module).unwrap();
        let graph: &[u8] = b"nodes:\n  - {id: a, module: modules/pipeline.yml, params: {x: 1}, inputs: {frame: b/detections}}\n  - {id: b, module: modules/pipeline.yml, env: {FLOW: live}, inputs: {frame: a/detections, side: a.decode/frame}}\n";
        walk_in(folder.path(), graph);
        walk_in(folder.path(), &mutated(graph.to_vec(), in_graph));
        walk_in(folder.path(), &module);
    }
}

type Edits = Vec<(proptest::sample::Index, u8, u8)>;

fn edits() -> impl Strategy<Value = Edits> {
    proptest::collection::vec((any::<proptest::sample::Index>(), 0..4_u8, any::<u8>()), 1..6)
}

fn mutated(mut bytes: Vec<u8>, edits: Edits) -> Vec<u8> {
    for (at, how, byte) in edits {
        if bytes.is_empty() {
            break;
        }
        let at = at.index(bytes.len());
        match how {
            0 => bytes[at] = byte,
            1 => bytes.insert(at, byte),
            2 => drop(bytes.remove(at)),
            _ => bytes.truncate(at),
        }
    }
    bytes
}
