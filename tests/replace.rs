//! `dora node replace` of every node in turn, in a graph that runs: no other node is restarted, and every camera goes on.
//!
//! `nvdec-nv12` and `trt-infer` need a GPU and are not among them.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use millrace_tests::dataflow::{Dataflow, LIMIT, NAME, short_clip};
use millrace_tests::{finish, onnxruntime, printed, python, succeed};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixDatagram;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What the nodes report of themselves, by node and process.
struct Reports {
    newest: Arc<Mutex<BTreeMap<(String, u64), Value>>>,
    socket: std::path::PathBuf,
}

impl Reports {
    fn of(dataflow: &str) -> Self {
        let user = rustix::process::getuid().as_raw();
        let folder = std::path::PathBuf::from(format!("/tmp/millrace-{user}/{dataflow}"));
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder).unwrap();
        let path = folder.join("test");
        let socket = UnixDatagram::bind(&path).unwrap();
        let newest: Arc<Mutex<BTreeMap<_, _>>> = Arc::default();
        let reports = newest.clone();
        std::thread::spawn(move || {
            let mut buffer = vec![0; 256 * 1024];
            while let Ok(len) = socket.recv(&mut buffer) {
                let report: Value = serde_json::from_slice(&buffer[..len]).unwrap();
                let key = (report["node"].as_str().unwrap().to_owned(), report["pid"].as_u64().unwrap());
                reports.lock().unwrap().insert(key, report);
            }
        });
        Self { newest, socket: path }
    }

    fn counted(&self, node: &str, pid: u32, counter: &str) -> usize {
        let newest = self.newest.lock().unwrap();
        let counters = newest.get(&(node.to_owned(), pid.into())).and_then(|report| report["counters"].as_array());
        let of_this = counters.into_iter().flatten().filter(|one| one["name"] == counter);
        of_this.map(|one| one["value"].as_u64().unwrap() as usize).sum()
    }

    /// Nodes that failed, or that dora had to start again.
    fn faults(&self) -> Vec<Value> {
        let newest = self.newest.lock().unwrap();
        newest.values().filter(|report| report["state"] == "failed" || report["restarts"] != 0).cloned().collect()
    }
}

impl Drop for Reports {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.socket);
        let _ = std::fs::remove_dir(self.socket.parent().unwrap());
    }
}

/// The entries of a graph, each as a text of its own.
fn entries(graph: &str) -> Vec<(String, String)> {
    let (_, nodes) = graph.split_once("\nnodes:\n").unwrap();
    let entry = |text: &str| {
        let lines: Vec<&str> = text.lines().map(|line| line.strip_prefix("    ").unwrap_or(line)).collect();
        (lines[0].to_owned(), format!("id: {}\n", lines.join("\n")))
    };
    nodes.split("  - id: ").skip(1).map(entry).collect()
}

/// Detections that the page has published, by its own figures.
fn published(page: u16) -> usize {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", page))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(b"GET /stats HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    };
    let text = ask().unwrap_or_default();
    let stats: Value =
        text.find('{').and_then(|at| serde_json::from_str(text[at..].trim_end()).ok()).unwrap_or_default();
    stats["cameras"][0]["frames"].as_u64().unwrap_or(0) as usize
}

struct Cameras {
    flow: Dataflow,
    reports: Reports,
    page: u16,
    zenoh: u16,
}

impl Cameras {
    fn new() -> Self {
        let flow = Dataflow::new();
        short_clip(&flow.folder().join("clip.264"));
        std::fs::create_dir(flow.folder().join("pictures")).unwrap();
        let port = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (page, zenoh) = (port(), port());
        let frames = (0..2000).map(|n| (5 * n).to_string()).collect::<Vec<_>>().join(",");
        let library = onnxruntime();
        flow.start("tests/graphs/replace.yml", |text| {
            let text = text.replace("@PAGE@", &page.to_string()).replace("@ZENOH@", &zenoh.to_string());
            let text = text.replace("@FRAMES@", &frames);
            match &library {
                Some(library) => text.replace("@LIBRARY@", &library.display().to_string()),
                // the other engine in its place
                None => {
                    text.replace("release/ort-infer", "release/cpu-infer").replace("      LIBRARY: @LIBRARY@\n", "")
                }
            }
        });
        let dataflow = succeed(&mut flow.dora(&["list", "--quiet"]), LIMIT).trim().to_owned();
        Self { reports: Reports::of(&dataflow), flow, page, zenoh }
    }

    /// Every camera's frames arrive at every node's, and come out at every end.
    fn all_work(&self, pids: &BTreeMap<String, u32>) {
        let flow = &self.flow;
        for (node, pid) in pids {
            let counter = if node.starts_with("cam-") { "out" } else { "in" };
            flow.grows(&format!("frames at '{node}'"), 5, || self.reports.counted(node, *pid, counter));
        }
        for file in ["found.jsonl", "checksums.txt"] {
            flow.grows(file, 5, || flow.lines(file));
        }
        flow.grows("pairs of tensors", 5, || self.reports.counted("compare", pids["compare"], "compared"));
        flow.grows("detections on the page", 5, || published(self.page));
        let pictures = || std::fs::read_dir(flow.folder().join("pictures")).unwrap().flatten();
        // a camera that begins anew numbers its frames anew
        pictures().for_each(|picture| std::fs::remove_file(picture.path()).unwrap());
        flow.grows("pictures", 1, || pictures().count());
        assert_eq!(self.reports.faults(), Vec::<Value>::new(), "{}", flow.logs());
    }
}

#[test]
fn every_node_can_be_replaced_while_the_cameras_run() {
    let cameras = Cameras::new();
    let flow = &cameras.flow;
    let graph = std::fs::read_to_string(flow.graph()).unwrap();
    let entries = entries(&graph);
    flow.eventually("all nodes run", || flow.processes().len() == entries.len());
    let mut pids = flow.pids();
    cameras.all_work(&pids);
    for (node, entry) in &entries {
        eprintln!("replacing '{node}'");
        let file = flow.folder().join("entry.yml");
        std::fs::write(&file, entry).unwrap();
        let file = file.display().to_string();
        let replace = ["node", "replace", "--dataflow", NAME, "--from-yaml", &file, node];
        let output = finish(&mut flow.dora(&replace), LIMIT);
        assert!(output.status.success(), "{node}: {}\n{}", printed(&output), flow.logs());
        let now = flow.pids();
        for (other, pid) in &now {
            assert_eq!(pids[other] != *pid, other == node, "'{other}' after '{node}' was replaced\n{}", flow.logs());
        }
        assert_eq!(now.len(), pids.len(), "{now:?}");
        pids = now;
        cameras.all_work(&pids);
    }
    if let Some(mut client) = python() {
        let address = format!("tcp/127.0.0.1:{}", cameras.zenoh);
        client.arg("tests/clients/zenoh_client.py").args(["--frames", "10", "--no-scouting", "--connect", &address]);
        succeed(&mut client, LIMIT);
    }
    assert!(!flow.logs().contains("panicked at"), "{}", flow.logs());
    let stopped = finish(&mut flow.dora(&["stop", "--name", NAME]), LIMIT);
    assert!(stopped.status.success(), "{}", printed(&stopped));
    assert!(flow.lines("records.jsonl") > 5 && flow.lines("pairs.jsonl") > 5, "what was recorded is on the disk");
    assert!(!flow.logs().contains("panicked at"), "{}", flow.logs());
}
