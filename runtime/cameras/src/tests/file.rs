//! A cameras file that changes while the node runs.

use super::fake::Fakes;
use super::{Came, assert_balanced, clip, state, take, until};
use millrace_frame::CameraState;
use millrace_node::testing::Bench;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// A camera of a file; with `more` said of it.
fn camera(id: &str, more: &str) -> String {
    format!("  - {{ id: {id}, file: {}, loop: true{more} }}\n", clip("crop_b.mp4"))
}

/// As editors do: another file in its place.
fn replace(file: &Path, cameras: &[String]) {
    let text = format!("cameras:\n{}", cameras.concat());
    let beside = file.with_extension("new");
    std::fs::write(&beside, text).unwrap();
    std::fs::rename(beside, file).unwrap();
}

struct Running {
    bench: Bench,
    came: BTreeMap<String, Came>,
    _dir: tempfile::TempDir,
    file: std::path::PathBuf,
}

impl Running {
    /// Cameras at 25 a second, in live flow.
    fn start(cameras: &[String], more: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("cameras.yml");
        replace(&file, cameras);
        let path = file.to_str().unwrap().to_owned();
        let mut settings = vec![("CAMERAS", &path[..]), ("PACE", "realtime"), ("FLOW", "live"), ("SLOTS", "64")];
        settings.extend(more);
        Self { bench: Bench::start::<Fakes>(&settings), came: BTreeMap::new(), _dir: dir, file }
    }

    fn receive(&mut self, wait: Duration) {
        while let Some(item) = self.bench.receive(wait) {
            take(&mut self.came, item);
        }
    }

    fn frames(&self, id: &str) -> usize {
        self.came.get(id).map_or(0, |came| came.frames.len())
    }

    fn until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        until(what, || {
            std::thread::sleep(Duration::from_millis(5));
            self.receive(Duration::ZERO);
            done(self)
        });
    }

    fn state(&self, id: &str) -> Option<CameraState> {
        state(self.bench.metrics(), id).map(|(state, _)| state)
    }

    /// No frame of a camera is missing, in its numbers (which `take` looks at) and its times.
    fn assert_whole(&self, id: &str) {
        let frames = &self.came[id].frames;
        let apart = frames.windows(2).map(|pair| pair[1] - pair[0]);
        assert!(apart.clone().all(|ns| ns == 40_000_000), "{id}: {:?}", apart.collect::<Vec<_>>());
        let metrics = self.bench.metrics();
        assert_eq!((metrics.drops(id), metrics.counted("camera_failed", id)), (Vec::new(), 0), "{id}");
    }

    /// Ends the node. By then each picture of these cameras has a fate, also where they were removed, edited or disabled.
    fn stop(mut self, balanced: &[&str]) {
        self.receive(Duration::ZERO);
        self.bench.stop();
        let metrics = self.bench.join().unwrap();
        balanced.iter().for_each(|id| assert_balanced(&metrics, id));
    }
}

#[test]
fn cameras_come_and_go_and_change_and_another_loses_nothing() {
    let mut run = Running::start(&[camera("stays", ""), camera("goes", "")], &[]);
    run.until("frames of both", |run| run.frames("stays") > 5 && run.frames("goes") > 5);
    assert_eq!(run.state("stays"), Some(CameraState::Live));

    replace(&run.file, &[camera("stays", ""), camera("comes", "")]);
    run.until("a camera that is added", |run| run.frames("comes") > 5);
    assert_eq!(run.state("goes"), None, "nothing is said of one that is removed");
    let gone = run.frames("goes");
    run.until("more", |run| run.frames("comes") > 15);
    assert_eq!(run.frames("goes"), gone);

    // another source for the same camera: its numbers and times go on
    let other = format!("  - {{ id: comes, file: {}, loop: true }}\n", clip("pyramid.264"));
    replace(&run.file, &[camera("stays", ""), other]);
    let before = run.frames("comes");
    run.until("the camera's other source", |run| run.frames("comes") > before + 30);
    let times = &run.came["comes"].frames;
    assert!(times.windows(2).all(|pair| pair[0] < pair[1]), "times never go back: {times:?}");

    replace(&run.file, &[camera("stays", ""), camera("comes", ", enabled: false")]);
    run.until("a camera that is disabled", |run| run.state("comes") == Some(CameraState::Ended));
    assert_eq!(state(run.bench.metrics(), "comes").unwrap().1, "disabled");
    replace(&run.file, &[camera("stays", ""), camera("comes", "")]);
    let before = run.frames("comes");
    run.until("the camera that is enabled again", |run| run.frames("comes") > before + 5);

    assert!(run.frames("stays") > 50);
    run.assert_whole("stays");
    assert_eq!(run.bench.metrics().counted("cameras_file_refused", ""), 0);
    run.stop(&["stays", "goes", "comes"]);
}

#[test]
fn rate_and_weight_change_without_opening_the_source_again() {
    let mut run = Running::start(&[camera("gate", "")], &[]);
    run.until("frames", |run| run.frames("gate") > 5);
    replace(&run.file, &[camera("gate", ", target_fps: 5, weight: 3")]);
    let weight = |run: &Running| run.bench.metrics().cameras()[0].weight;
    run.until("the new weight", |run| weight(run) == 3.0);
    std::thread::sleep(Duration::from_millis(100));
    run.receive(Duration::ZERO);
    let before = run.frames("gate");
    run.until("frames at the new rate", |run| run.frames("gate") >= before + 6);
    let times = &run.came["gate"].frames[before + 1..];
    assert!(times.windows(2).all(|pair| pair[1] - pair[0] == 200_000_000), "{times:?}");
    assert!(run.bench.metrics().counted("over_target_fps", "gate") >= 20);
    run.stop(&["gate"]);
}

#[test]
fn a_file_with_a_fault_is_refused_whole_and_the_cameras_stay() {
    let mut run = Running::start(&[camera("stays", "")], &[]);
    run.until("frames", |run| run.frames("stays") > 5);
    let refused = |run: &Running| run.bench.metrics().counted("cameras_file_refused", "");
    replace(&run.file, &[camera("stays", ", colour: red"), camera("comes", "")]);
    run.until("a refusal", |run| refused(run) == 1);
    std::fs::remove_file(&run.file).unwrap();
    run.until("a second refusal", |run| refused(run) == 2);
    let before = run.frames("stays");
    run.until("more frames", |run| run.frames("stays") > before + 10);
    assert_eq!(run.frames("comes"), 0);
    replace(&run.file, &[camera("stays", ""), camera("comes", "")]);
    run.until("the camera of the corrected file", |run| run.frames("comes") > 5);
    run.assert_whole("stays");
    run.stop(&["stays"]);
}

#[test]
fn a_file_with_a_fault_at_the_start_ends_the_node_with_all_faults() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("cameras.yml");
    std::fs::write(&file, "cameras:\n  - { id: gate, urk: rtsp://cam/1 }\n  - { id: yard }\n").unwrap();
    let (_, result) = super::play(&[("CAMERAS", file.to_str().unwrap())]);
    let error = result.unwrap_err();
    for says in
        ["cameras.yml:2:17: ", "did you mean 'url'?", "cameras.yml:3:5: camera 'yard' has neither a url nor a file"]
    {
        assert!(error.contains(says), "{says} in:\n{error}");
    }
    let (_, result) = super::play(&[("CAMERAS", "/nowhere.yml")]);
    let error = result.unwrap_err();
    assert!(error.contains("/nowhere.yml: the cameras file cannot be read: No such file"), "{error}");
}

#[test]
fn a_decoder_that_is_started_again_waits_for_a_file_without_faults() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("cameras.yml");
    let path = file.to_str().unwrap().to_owned();
    let live = [("CAMERAS", &path[..]), ("PACE", "realtime"), ("FLOW", "live"), ("SLOTS", "64")];
    // a duplicate id, YAML that cannot be read, no file at all
    for text in [Some([camera("gate", ""), camera("gate", "")].concat()), Some("  - {".to_owned()), None] {
        match text {
            Some(text) => std::fs::write(&file, format!("cameras:\n{text}")).unwrap(),
            None => std::fs::remove_file(&file).unwrap(),
        }
        let mut bench = Bench::start_again::<Fakes>(&live);
        let refused = |bench: &Bench| bench.metrics().counted("cameras_file_refused", "");
        until("a refusal", || refused(&bench) == 1);
        assert!(bench.metrics().gauged("cameras_file_faults", "").unwrap() > 0);
        assert!(bench.receive(Duration::from_millis(100)).is_none());
        // another faulty file is no end either
        replace(&file, &[camera("gate", ", colour: red")]);
        until("a second refusal", || refused(&bench) == 2);
        replace(&file, &[camera("gate", "")]);
        let mut came = BTreeMap::new();
        until("frames", || {
            while let Some(item) = bench.receive(Duration::ZERO) {
                take(&mut came, item);
            }
            came.get("gate").is_some_and(|came: &Came| came.frames.len() > 5)
        });
        assert_eq!(bench.metrics().gauged("cameras_file_faults", ""), Some(0));
        bench.stop();
        bench.join().unwrap();
    }
    // a batch job has no use for a file that may come
    std::fs::remove_file(&file).unwrap();
    let mut bench = Bench::start_again::<Fakes>(&[("CAMERAS", &path)]);
    assert!(bench.receive(Duration::from_secs(5)).is_none());
    assert!(bench.finish().1.unwrap_err().contains("cannot be read"));
}

#[test]
fn another_file_is_named_while_the_node_runs() {
    let mut run = Running::start(&[camera("stays", ""), camera("goes", "")], &[]);
    run.until("frames of both", |run| run.frames("stays") > 5 && run.frames("goes") > 5);
    let other = run.file.with_file_name("other.yml");
    replace(&other, &[camera("stays", ""), camera("comes", "")]);
    assert!(run.bench.set("CAMERAS", &format!("{:?}", other.to_str().unwrap())));
    run.until("the other file's camera", |run| run.frames("comes") > 5);
    assert_eq!(run.state("goes"), None);
    assert!(!run.bench.set("CAMERAS", "\"/nowhere.yml\""), "a file that is not there is refused");
    assert!(!run.bench.set("CAMERAS", "null"), "a node without cameras is refused");
    // the file that counts now is the one that is looked after
    replace(&run.file, &[camera("goes", "")]);
    replace(&other, &[camera("stays", ""), camera("last", "")]);
    run.until("a change of the other file", |run| run.frames("last") > 5);
    assert_eq!(run.state("goes"), None);
    run.assert_whole("stays");
    run.stop(&["stays", "goes", "comes", "last"]);
}

#[test]
fn a_decoder_serves_the_cameras_of_its_group() {
    let cameras = [camera("a1", ", group: a"), camera("b1", ", group: b"), camera("c", "")];
    let mut run = Running::start(&cameras, &[("GROUP", "a")]);
    run.until("frames of the group", |run| run.frames("a1") > 5);
    assert_eq!(run.came.keys().collect::<Vec<_>>(), ["a1"]);
    assert_eq!(run.bench.metrics().cameras().len(), 1);
    run.stop(&["a1"]);
}

#[test]
fn decoders_share_a_file_out_and_one_that_is_added_moves_no_other() {
    let some = ["gate", "yard", "cam-5", "cam-6"];
    let cameras = |ids: &[&str]| ids.iter().map(|id| camera(id, "")).collect::<Vec<_>>();
    let serves = |run: &Running| run.bench.metrics().cameras().into_iter().map(|c| c.source).collect::<Vec<_>>();
    // by MD5 of the ids, in Python; each with what it serves after the change
    let parts =
        [("1/2", vec!["cam-5", "cam-6"], vec!["added", "cam-5", "cam-6"]), ("2/2", vec!["gate", "yard"], vec!["gate"])];
    // one after the other: a decoder whose frames nobody reads loses them
    for (part, before, after) in parts {
        let mut run = Running::start(&cameras(&some), &[("PART", part)]);
        run.until("frames of each", |run| before.iter().all(|id| run.frames(id) > 5));
        assert_eq!(serves(&run), before);
        // one comes, in the middle of the file, and one goes
        replace(&run.file, &cameras(&["gate", "added", "cam-5", "cam-6"]));
        run.until("the change", |run| run.bench.metrics().counted("cameras_file_applied", "") == 1);
        run.until("frames of each", |run| after.iter().all(|id| run.frames(id) > 5));
        assert_eq!(serves(&run), after);
        let stay: Vec<&str> = after.into_iter().filter(|id| *id != "added").collect();
        let counts: Vec<usize> = stay.iter().map(|id| run.frames(id)).collect();
        run.until("more frames", |run| stay.iter().zip(&counts).all(|(id, count)| run.frames(id) > count + 10));
        stay.iter().for_each(|id| run.assert_whole(id));
        run.stop(&[]);
    }
}

#[test]
fn a_camera_that_cannot_be_opened_is_refused_and_the_others_go_on() {
    let gone = "  - { id: gone, file: /nowhere.mp4 }\n".to_owned();
    // nobody listens there
    let url = "  - { id: net, url: rtsp://127.0.0.1:9/1, user: me, password_file: /nowhere.pw }\n".to_owned();
    let mut run = Running::start(&[camera("good", ""), gone, url], &[]);
    run.until("frames", |run| run.frames("good") > 10);
    run.until("both refused", |run| {
        run.state("gone") == Some(CameraState::Refused) && run.state("net") == Some(CameraState::Refused)
    });
    let (_, why) = state(run.bench.metrics(), "net").unwrap();
    assert!(why.starts_with("password_file './/nowhere.pw'") || why.contains("/nowhere.pw' cannot be read"), "{why}");
    run.assert_whole("good");
    run.stop(&["good"]);
}
