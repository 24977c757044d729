//! What each target does with the bytes.

use millrace_detect::Model;
use millrace_frame::wire::{compact, detections_from_ipc};
use millrace_graph::cameras;
use millrace_graph::check::{World, check};
use millrace_graph::describe::{Described, Describer, Description};
use millrace_graph::explain::explain;
use millrace_graph::fault::Report;
use millrace_ingest::{Event, Ingest, IngestOptions, fuzzing};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

/// All targets, each with its name. A file's reader follows from its content, so those of files differ in their corpus alone.
pub const ALL: [(&str, fn(&[u8])); 12] = [
    ("mp4", file),
    ("mkv", file),
    ("ts", file),
    ("avi", file),
    ("annexb", file),
    ("pictures", file),
    ("rtp", fuzzing::rtp),
    ("sdp", fuzzing::sdp),
    ("model", model),
    ("graph", graph),
    ("cameras", cameras_file),
    ("wire", wire),
];

/// More than any input of the length that is tried can have.
const MOST_EVENTS: usize = 1_000_000;

/// The bytes as a file.
fn written(bytes: &[u8]) -> &'static Path {
    static PATH: LazyLock<PathBuf> =
        LazyLock::new(|| std::env::temp_dir().join(format!("millrace-fuzz-{}", std::process::id())));
    std::fs::write(&*PATH, bytes).expect("the folder of temporary files can be written");
    &PATH
}

fn file(bytes: &[u8]) {
    let Ok(mut source) = Ingest::open(written(bytes), &IngestOptions::default()) else { return };
    for _ in 0..MOST_EVENTS {
        match source.next_event() {
            Err(_) | Ok(Event::End) => return,
            Ok(Event::Loss(loss)) => assert!(loss.count > 0, "{loss:?}"),
            Ok(_) => {}
        }
    }
    panic!("there is no end");
}

fn model(bytes: &[u8]) {
    let _ = Model::load(written(bytes)).map(|model| model.target().validate());
}

/// Every program is this node.
struct Always(Arc<Description>);

impl Describer for Always {
    fn describe(&self, _: &str, _: &Path) -> Described {
        Described::Node(Arc::clone(&self.0))
    }
}

fn graph(bytes: &[u8]) {
    static DESCRIBER: LazyLock<Always> = LazyLock::new(|| {
        let json = include_bytes!("../../../runtime/graph/tests/describe/sw-nv12.json");
        Always(Arc::new(Description::parse(json).expect("it is a description")))
    });
    let world = World { describer: &*DESCRIBER, variables: &|name| (name.len() < 3).then(|| "$x".to_owned()) };
    let checked = check("g.yml", Path::new("."), bytes, &[], &world);
    assert!(checked.graph.is_some() || !checked.report.is_ok(), "no graph and no fault");
    let _ = (checked.report.text(true), checked.report.json(), explain(&checked));
}

fn cameras_file(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let mut report = Report::new("cameras.yml", text);
    let read = cameras::read(text, 0, &mut report);
    assert!(read.is_some() || !report.is_ok(), "no cameras and no fault");
    let _ = report.text(true);
}

fn wire(bytes: &[u8]) {
    // what is read is written alike
    if let Ok(item) = compact::item_from_bytes(bytes) {
        let again = compact::item_to_bytes(&item).expect("it was read");
        assert_eq!(format!("{:?}", compact::item_from_bytes(&again)), format!("{:?}", Ok::<_, ()>(&item)));
    }
    let _ = (compact::detections_from_bytes(bytes), detections_from_ipc(bytes));
}
