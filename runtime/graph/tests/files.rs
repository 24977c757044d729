//! What settings point to is looked at before anything is started: by the marks in a node's description, whatever node it is.

#![allow(clippy::unwrap_used)]

use millrace_graph::check::{World, check};
use millrace_graph::describe::{Described, Describer, Description};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde_json::json;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

/// A node that nobody knows yet: it reads IN and MODEL, plays VIDEO, writes OUT, writes into FOLDER, and makes CACHE.
struct New;

impl Describer for New {
    fn describe(&self, _: &str, _: &Path) -> Described {
        let path =
            |file: &str| json!({ "type": ["string", "null"], "x-millrace-kind": "path", "x-millrace-file": file });
        let description = json!({
            "describe": 1, "name": "new",
            "settings": { "properties": {
                "IN": path("read"), "VIDEO": path("source"), "MODEL": path("model"), "OUT": path("write"), "FOLDER": path("folder"),
                "CACHE": { "type": ["string", "null"], "x-millrace-kind": "path" }, "MADE": path("made"),
            } },
        });
        Described::Node(Arc::new(Description::parse(description.to_string().as_bytes()).unwrap()))
    }
}

/// The report of a graph whose nodes have these lines of `env:`.
fn report(folder: &Path, nodes: &[&str], sets: &[&str]) -> String {
    let mut text = String::from("nodes:\n");
    for (n, env) in nodes.iter().enumerate() {
        text.push_str(&format!("  - {{ id: n{n}, path: new, restart_policy: on-failure, env: {{ {env} }} }}\n"));
    }
    let world = World { describer: &New, variables: &|_| None };
    let sets: Vec<_> = sets.iter().map(|set| set.parse().unwrap()).collect();
    std::fs::write(folder.join("g.yml"), &text).unwrap();
    let report = check("g.yml", folder, text.as_bytes(), &sets, &world).report;
    let errors = report.text(false);
    if report.is_ok() { String::new() } else { errors }
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in ["clip.mp4", "other.mp4", "$a b.mp4"] {
        std::fs::write(folder.path().join(name), "x").unwrap();
    }
    std::fs::write(folder.path().join("nothing"), "").unwrap();
    std::fs::create_dir(folder.path().join("sub")).unwrap();
    folder
}

#[test]
fn what_is_there_is_no_fault() {
    let folder = folder();
    let other = std::ffi::OsStr::from_bytes(b"caf\xe9.mp4");
    std::fs::write(folder.path().join(other), "x").unwrap();
    let url = format!("IN: 'file://{}/caf%E9.mp4'", folder.path().display());
    let graph = [
        "IN: clip.mp4, MODEL: sub/../other.mp4, OUT: sub/new.jsonl, FOLDER: sub",
        "VIDEO: rtsp://camera/1, OUT: /dev/null",
        "IN: '', OUT: /dev/null",
        "IN: $$a b.mp4",
        "MADE: not/yet/there",
        "MADE: sub",
        url.as_str(),
    ];
    assert_eq!(report(folder.path(), &graph, &[]), "");
    let at = folder.path().display();
    let urls = format!(
        "IN: 'file://{at}/clip.mp4', VIDEO: 'file:{at}/other.mp4', MODEL: 'FILE://localhost{at}/clip.mp4', \
         OUT: 'file://{at}/sub/new%20one', FOLDER: 'file://{at}/sub', CACHE: 'file://{at}/not-yet'"
    );
    assert_eq!(report(folder.path(), &[&urls], &[]), "");
    // nothing that was looked at is changed, and nothing is left
    assert_eq!(std::fs::read_dir(folder.path().join("sub")).unwrap().count(), 0);
    assert_eq!(std::fs::read(folder.path().join("clip.mp4")).unwrap(), b"x");
}

#[test]
fn what_is_not_there_is_named_with_where_it_was_looked_for() {
    let folder = folder();
    let (at, here) = (folder.path().display(), std::env::current_dir().unwrap());
    let link = |name: &str, to: &str| std::os::unix::fs::symlink(to, folder.path().join(name)).unwrap();
    link("dangling", "nowhere");
    link("loop", "loop");
    mknodat(CWD, folder.path().join("pipe"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let absent = format!("names 'clip.mp5', which does not exist (looked for {at}/clip.mp5)");
    let of_set = format!("(looked for {}/clip.mp4)", here.display());
    let no_folder = format!("in the folder {at}/no/such, which does not exist");
    for (env, sets, says) in [
        ("IN: clip.mp5", &[][..], absent.as_str()),
        ("IN: clip.mp5", &[], "fix: IN: clip.mp4"),
        ("MODEL: nothing.yml", &[], "MODEL names 'nothing.yml', which does not exist"),
        // the command line's paths count from where it was given
        ("IN: clip.mp4", &["n0.IN=clip.mp4"], of_set.as_str()),
        ("IN: sub", &[], "which is a folder; a file is expected"),
        ("IN: pipe", &[], "which is a pipe; a file is expected"),
        ("IN: /dev/null", &[], "which is a device; a file is expected"),
        ("IN: dangling", &[], "names 'dangling', which is a link to 'nowhere', which does not exist"),
        ("IN: loop", &[], "Too many levels of symbolic links"),
        ("IN: file://nas/clip.mp4", &[], "the URL names the host 'nas'"),
        ("IN: file:clip.mp4", &[], "./file:clip.mp4"),
        ("OUT: no/such/out", &[], no_folder.as_str()),
        ("OUT: no/such/out", &[], "fix: mkdir -p"),
        ("OUT: sub", &[], "which is a folder; the file to write is expected"),
        ("OUT: clip.mp4/out", &[], "which cannot be written: Not a directory"),
        ("IN: http://host/clip.mp4", &[], "names 'http://host/clip.mp4', which is no file of this machine"),
        ("MODEL: https://host/model.yml", &[], "a path or a file: URL is expected"),
        ("OUT: s3://bucket/out", &[], "which is no file of this machine"),
        ("MODEL: sub", &[], "which is a folder; a file is expected"),
        ("VIDEO: nothing", &[], "names 'nothing', which is empty"),
        ("OUT: /proc/out", &[], "in the folder /proc, in which no file can be made"),
        ("FOLDER: /proc", &[], "in which no file can be made"),
        ("OUT: file:///proc/out", &[], "in the folder /proc"),
        (
            "OUT: file://nas/out",
            &[],
            "OUT is 'file://nas/out', which is not the URL of a file here: the URL names the host 'nas'",
        ),
        ("CACHE: file:cache", &[], "./file:cache"),
        ("FOLDER: 'file:///a%zz'", &[], "%25"),
        ("FOLDER: clip.mp4", &[], "which is no folder"),
        ("FOLDER: new", &[], "which does not exist"),
        ("MADE: clip.mp4", &[], "MADE names 'clip.mp4', which is no folder"),
        ("MADE: clip.mp4/engines", &[], "clip.mp4, which is no folder"),
        ("MADE: /proc/engines/8", &[], "in the folder /proc, in which no file can be made"),
    ] {
        let text = report(folder.path(), &[env], sets);
        assert!(text.contains(says), "{env}: '{says}' is not in\n{text}");
    }
}

#[test]
fn nothing_that_is_written_is_read_or_written_elsewhere_by_whatever_name() {
    let folder = folder();
    std::os::unix::fs::symlink("clip.mp4", folder.path().join("link")).unwrap();
    std::os::unix::fs::symlink("new", folder.path().join("to-new")).unwrap();
    std::fs::hard_link(folder.path().join("clip.mp4"), folder.path().join("hard")).unwrap();
    let absolute = format!("OUT: {}/sub/../new", folder.path().display());
    let reads = "OUT of node 'n1' is the file that IN of node 'n0' reads: it would be emptied";
    let writes = "OUT of node 'n1' is the file that OUT of node 'n0' writes: neither would be whole";
    for (first, second, says) in [
        ("IN: clip.mp4", "OUT: clip.mp4", reads),
        ("IN: clip.mp4", "OUT: ./sub/../clip.mp4", reads),
        ("IN: clip.mp4", "OUT: link", reads),
        ("IN: link", "OUT: hard", reads),
        ("OUT: new", "OUT: new", writes),
        ("OUT: new", "OUT: sub/../new", writes),
        ("OUT: new", &absolute, writes),
        ("OUT: new", "OUT: to-new", writes),
        ("OUT: clip.mp4", "OUT: hard", writes),
        ("IN: clip.mp4", &format!("OUT: 'file://{}/clip.mp4'", folder.path().display()), reads),
        ("IN: other.mp4", "OUT: g.yml", "OUT of node 'n1' is the file that the graph reads"),
    ] {
        let text = report(folder.path(), &[first, second], &[]);
        assert!(text.contains(says), "{first}, {second}: '{says}' is not in\n{text}");
    }
    assert_eq!(report(folder.path(), &["OUT: a", "OUT: b", "IN: clip.mp4", "IN: hard"], &[]), "");
}

#[test]
fn the_pictures_of_a_folder_and_the_files_that_a_model_names_are_read() {
    let folder = folder();
    for name in ["sub/1.jpg", "net.onnx", "names.txt"] {
        std::fs::write(folder.path().join(name), "x").unwrap();
    }
    std::fs::write(folder.path().join("model.yml"), "file: net.onnx\nlabels: { file: names.txt }\n").unwrap();
    for (first, second) in [
        ("VIDEO: sub", "OUT: sub/1.jpg"),
        ("MODEL: model.yml", "OUT: model.yml"),
        ("MODEL: model.yml", "OUT: ./sub/../net.onnx"),
        ("MODEL: model.yml", "OUT: names.txt"),
    ] {
        let text = report(folder.path(), &[first, second], &[]);
        assert!(text.contains("of node 'n0' reads: it would be emptied"), "{first}, {second}: {text}");
    }
    assert_eq!(report(folder.path(), &["VIDEO: sub", "OUT: sub/2.jpg", "MODEL: model.yml"], &[]), "");
}

#[test]
fn a_link_that_leads_nowhere_is_said_to_and_is_no_fix() {
    let folder = folder();
    let link = |target: &str, name: &str| std::os::unix::fs::symlink(target, folder.path().join(name)).unwrap();
    link("gone.mp4", "dangling.mp4");
    let text = report(folder.path(), &["VIDEO: dangling.mp4"], &[]);
    let want = "VIDEO names 'dangling.mp4', which is a link to 'gone.mp4', which does not exist";
    assert!(text.contains(want) && !text.contains("fix: VIDEO"), "{text}");
    // nor where another name is misspelt, or where it leads to itself
    link("loop.mp4", "loop.mp4");
    let text = report(folder.path(), &["VIDEO: danglin.mp4", "VIDEO: loop.mp4"], &[]);
    assert!(text.contains("'danglin.mp4', which does not exist") && !text.contains("fix: VIDEO"), "{text}");
    let text = report(folder.path(), &["VIDEO: othr.mp4"], &[]);
    assert!(text.contains("fix: VIDEO: other.mp4"), "{text}");
}
