#![allow(clippy::unwrap_used)]
use super::*;
use std::io::{Read, Seek};
use std::os::unix::fs::PermissionsExt;

/// A folder for watchers' sockets, and a node that reports there.
fn status(base: &Path) -> (PathBuf, StatusReporter) {
    let folder = base.join("dataflow");
    std::fs::create_dir(&folder).unwrap();
    for path in [base, &folder] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700)).unwrap();
    }
    let graph = Topology {
        node: "a".to_owned(),
        definition: serde_json::json!({ "id": "a", "env": { "K": 1 } }),
        ..Topology::default()
    };
    let status = StatusReporter::new(&graph, "test");
    let mut report_sender = status.shared.report_sender();
    report_sender.starter = None;
    report_sender.folders = vec![folder.clone()];
    drop(report_sender);
    (folder, status)
}

fn next_report(socket: &UnixDatagram) -> serde_json::Value {
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut buffer = vec![0; 65536];
    let len = socket.recv(&mut buffer).unwrap();
    serde_json::from_slice(&buffer[..len]).unwrap()
}

#[test]
fn watchers_that_come_get_the_definition_once_and_those_that_died_are_swept() {
    let base = tempfile::tempdir().unwrap();
    let (folder, mut status) = status(base.path());
    let metrics = Metrics::default();
    let watcher = UnixDatagram::bind(folder.join("1")).unwrap();
    drop(UnixDatagram::bind(folder.join("2")).unwrap());
    status.send(State::Running, &metrics, None);
    status.send(State::Failed, &metrics, Some("why"));
    let (first, second) = (next_report(&watcher), next_report(&watcher));
    assert_eq!(first["definition"]["env"]["K"], 1);
    assert!(second["definition"].is_null());
    assert_eq!((second["state"].as_str(), second["error"].as_str()), (Some("failed"), Some("why")));
    assert!(folder.join("1").exists() && !folder.join("2").exists());
    // a folder that others could write to is left alone
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o777)).unwrap();
    assert!(sockets(&folder).is_empty());
}

/// A node whose event loop has died goes on reporting, and says for how long the loop has not turned.
#[test]
fn a_node_whose_loop_hangs_reports_it() {
    let base = tempfile::tempdir().unwrap();
    let (folder, mut status) = status(base.path());
    let metrics = Metrics::default();
    let watcher = UnixDatagram::bind(folder.join("1")).unwrap();
    status.send(State::Opening, &metrics, None);
    let opening = next_report(&watcher);
    assert_eq!((opening["state"].as_str(), opening["loop_age_ms"].as_u64()), (Some("opening"), None));
    status.tick(&metrics);
    // nothing ticks from here on
    let stuck = (0..4).map(|_| next_report(&watcher)).find(|report| report["loop_age_ms"].as_u64() >= Some(1_000));
    assert_eq!(stuck.unwrap()["state"], "running");
    // and none comes once it has ended
    drop(status);
    while watcher.set_nonblocking(true).is_ok() && watcher.recv(&mut [0; 65536]).is_ok() {}
    std::thread::sleep(PERIOD * 2);
    assert!(watcher.recv(&mut [0; 65536]).is_err());
}

/// What a process that was stopped (SIGSTOP) reports when it goes on, before its event loop has had its turn.
#[test]
fn the_time_in_which_the_whole_process_was_stopped_is_none_of_its_loops() {
    let base = tempfile::tempdir().unwrap();
    let (folder, mut status) = status(base.path());
    let metrics = Metrics::default();
    let watcher = UnixDatagram::bind(folder.join("1")).unwrap();
    status.tick(&metrics);
    // the thread that reports does not run either, for longer than a loop may
    let stopped = status.shared.report_sender();
    std::thread::sleep(Duration::from_millis(2_600));
    drop(stopped);
    let ages: Vec<u64> = (0..3).map(|_| next_report(&watcher)["loop_age_ms"].as_u64().unwrap()).collect();
    assert!(ages.iter().all(|age_ms| *age_ms < 2_500), "{ages:?}");
}

/// More cameras than a datagram holds: the report comes as a file.
#[test]
fn a_report_of_five_hundred_cameras_arrives_whole() {
    let base = tempfile::tempdir().unwrap();
    let (folder, mut status) = status(base.path());
    let metrics = Metrics::default();
    for camera in 0..500 {
        let id = format!("camera-{camera:03}");
        for name in ["age", "on_input", "busy"] {
            metrics.observe_ns(name, &id, 7_000_000);
        }
        metrics.count_port("in", "frame", &id, camera);
        metrics.drop_port("backlog", "frame", &id, 1);
    }
    let watcher = UnixDatagram::bind(folder.join("1")).unwrap();
    status.send(State::Done, &metrics, None);
    watcher.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = rustix::net::RecvAncillaryBuffer::new(&mut space);
    let mut buffer = vec![0; 65536];
    let mut data = [std::io::IoSliceMut::new(&mut buffer)];
    let received =
        rustix::net::recvmsg(&watcher, &mut data, &mut control, rustix::net::RecvFlags::CMSG_CLOEXEC).unwrap();
    let head: serde_json::Value = serde_json::from_slice(&buffer[..received.bytes]).unwrap();
    assert_eq!(
        (head["node"].as_str(), head["state"].as_str()),
        (Some("a"), Some("done")),
        "as much as an old watcher reads"
    );
    let descriptor = control.drain().find_map(|message| match message {
        rustix::net::RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    let mut file = std::fs::File::from(descriptor.unwrap());
    file.rewind().unwrap();
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    let whole: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert!(text.len() > 200_000, "{}", text.len());
    assert_eq!(whole["counters"].as_array().unwrap().len(), 500);
    assert_eq!(whole["latency"].as_array().unwrap().len(), 1500);
    assert_eq!(whole["definition"]["id"], "a");
}
