//! Cameras files, and graphs with cameras: whole reports, and what a check knows of cameras and memory.

#![allow(clippy::unwrap_used)]

use millrace_graph::cameras::{self, Cameras, Password, Source};
use millrace_graph::check::{Checked, World, check};
use millrace_graph::describe::{Described, Describer, Description};
use millrace_graph::fault::Report;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

struct Recorded;

impl Describer for Recorded {
    fn describe(&self, path: &str, _: &Path) -> Described {
        let name = path.rsplit('/').next().unwrap();
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/decoders/{name}.json"));
        let json = std::fs::read(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        Described::Node(Arc::new(Description::parse(&json).unwrap()))
    }
}

/// The same, of decoders that say that SOURCE is played, as those of today do.
struct Marked;

impl Describer for Marked {
    fn describe(&self, path: &str, _: &Path) -> Described {
        let name = path.rsplit('/').next().unwrap();
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/decoders/{name}.json"));
        let mut json: serde_json::Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
        json["settings"]["properties"]["SOURCE"]["x-millrace-file"] = "source".into();
        Described::Node(Arc::new(Description::parse(json.to_string().as_bytes()).unwrap()))
    }
}

fn read(text: &str) -> (Option<Cameras>, String) {
    let mut report = Report::new("cameras.yml", text);
    let cameras = cameras::read(text, 0, &mut report);
    (cameras, report.text(true))
}

#[test]
fn a_cameras_file_says_all_there_is() {
    let text = "\
cameras:
  - id: gate
    url: rtsp://10.0.0.11:554/stream1
    transport: udp
    user: viewer
    password_env: GATE_PASSWORD
    target_fps: 12.5
    weight: 2
    matrix: bt709
    range: full
    group: north
    size: 1280x720
  - { id: 007, file: yard.mp4, loop: true, enabled: false }
";
    let (cameras, report) = read(text);
    assert_eq!(report, "cameras.yml: no faults\n");
    let cameras = cameras.unwrap().cameras;
    let gate = &cameras[0];
    assert_eq!(gate.id.value, "gate");
    assert_eq!(gate.source.value, Source::Url("rtsp://10.0.0.11:554/stream1".into()));
    assert_eq!((gate.enabled, gate.target_fps, gate.weight, gate.repeat), (true, Some(12.5), 2.0, None));
    assert_eq!(
        (gate.transport.as_deref(), gate.matrix.as_deref(), gate.range.as_deref()),
        (Some("udp"), Some("bt709"), Some("full"))
    );
    assert_eq!(gate.password.as_ref().unwrap().value, Password::Env("GATE_PASSWORD".into()));
    assert_eq!(
        (gate.user.as_deref(), gate.group.as_deref(), gate.size_px),
        (Some("viewer"), Some("north"), Some((1280, 720)))
    );
    let yard = &cameras[1];
    assert_eq!((yard.id.value.as_str(), &yard.source.value), ("007", &Source::File("yard.mp4".into())));
    assert_eq!((yard.enabled, yard.repeat, yard.weight, yard.target_fps), (false, Some(true), 1.0, None));
}

/// Each file in `tests/cameras` with the whole report that belongs to it: its comment lines, from the second on.
#[test]
fn reports_are_as_recorded() {
    let update = std::env::var_os("MILLRACE_UPDATE_REPORTS").is_some();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cameras");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "yml"));
    files.sort();
    assert!(files.len() >= 3, "only {} files", files.len());
    let mut wrong = Vec::new();
    for path in files {
        let text = std::fs::read_to_string(&path).unwrap();
        let (cameras, report) = read(&text);
        assert!(cameras.is_none(), "{} has faults, and was taken", path.display());
        assert!(!report.contains("hunter2"), "{report}");
        let recorded = path.with_extension("txt");
        if update {
            std::fs::write(&recorded, &report).unwrap();
        } else if std::fs::read_to_string(&recorded).unwrap_or_default() != report {
            wrong.push(format!("--- {}: the report is now\n{report}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A graph in a folder, with files beside it.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new(files: &[(&str, &str)]) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        files.iter().for_each(|(name, text)| folder.write(name, text));
        folder
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.0.path().join(name), text).unwrap();
    }

    fn check(&self, nodes: &str) -> Checked {
        self.check_by(&Recorded, nodes)
    }

    fn check_by(&self, describer: &dyn Describer, nodes: &str) -> Checked {
        let text = format!("env: {{ FLOW: lossless }}\nnodes:\n{nodes}");
        let variables = |name: &str| (name == "KNOWN").then(|| "hunter2".to_owned());
        let world = World { describer, variables: &variables };
        check("graphs/g.yml", self.0.path(), text.as_bytes(), &[], &world)
    }

    fn report(&self, nodes: &str) -> String {
        self.check(nodes).report.text(false)
    }
}

fn decoder(id: &str, env: &str) -> String {
    format!(
        "  - {{ id: {id}, path: bin/nvdec-nv12, inputs: {{ tick: dora/timer/secs/5 }}, outputs: [frame, packet], env: {{ {env} }} }}\n"
    )
}

fn converter(inputs: &str) -> String {
    format!(
        "  - {{ id: to-rgb, path: bin/nv12-to-rgb, inputs: {{ {inputs} }}, outputs: [tensor], env: {{ MODEL: model.yml }} }}\n"
    )
}

const TWO: &str = "cameras: [{ id: a, url: rtsp://h/1, group: x }, { id: b, url: rtsp://h/2, group: y }]\n";

#[test]
fn the_file_that_a_graph_names_is_checked_with_it() {
    let folder = Folder::new(&[("cameras.yml", "cameras:\n  - { id: a, ulr: rtsp://h/1 }\n")]);
    let graph = decoder("decode", "CAMERAS: cameras.yml");
    let expected = "\
graphs/cameras.yml:2:14: camera 'a' has no key 'ulr'; did you mean 'url'?
  2 |   - { id: a, ulr: rtsp://h/1 }
    |              ^^^
  fix: url: …

graphs/g.yml: 1 error
";
    assert_eq!(folder.report(&graph), expected);
    folder.write("cameras.yml", TWO);
    assert_eq!(folder.report(&graph), "graphs/g.yml: no faults\n");
    let absent = folder.report(&decoder("decode", "CAMERAS: camera.yml"));
    assert!(
        absent.starts_with(
            "graphs/g.yml:3:120: the cameras file 'camera.yml' of node 'decode' cannot be read: No such file"
        ),
        "{absent}"
    );
}

#[test]
fn what_a_camera_names_has_to_be_there() {
    let folder = Folder::new(&[
        ("there.mp4", "x"),
        ("open.pw", "hunter2\n"),
        ("good.pw", "hunter2\n"),
        (
            "cameras.yml",
            "cameras:\n\
             - { id: a, file: there.mp4 }\n\
             - { id: b, file: gone.mp4 }\n\
             - { id: c, file: gone.mp4, enabled: false }\n\
             - { id: d, url: rtsp://h/1, user: me, password_file: open.pw }\n\
             - { id: e, url: rtsp://h/1, user: me, password_file: good.pw }\n\
             - { id: f, url: rtsp://h/1, user: me, password_env: KNOWN }\n\
             - { id: g, url: rtsp://h/1, user: me, password_env: UNKNOWN }\n",
        ),
    ]);
    let mode = |name: &str, mode| {
        std::fs::set_permissions(folder.0.path().join(name), std::fs::Permissions::from_mode(mode)).unwrap();
    };
    mode("open.pw", 0o644);
    mode("good.pw", 0o600);
    let report = folder.report(&decoder("decode", "CAMERAS: cameras.yml"));
    assert!(!report.contains("hunter2"), "{report}");
    for says in [
        "graphs/cameras.yml:3:18: camera 'b' names the file 'gone.mp4', which does not exist (looked for ",
        "graphs/cameras.yml:5:54: camera 'd': password_file '",
        "open.pw' has the mode 0644, so others may read or change it; chmod 600 it",
        "graphs/cameras.yml:8:53: warning: camera 'g': password_env names the variable UNKNOWN, which is not set",
        "2 errors, 1 warning",
    ] {
        assert!(report.contains(says), "{says} in:\n{report}");
    }
}

/// What a decoder plays is a file or a folder of pictures, by whichever setting it is named.
#[test]
fn a_folder_of_pictures_is_a_camera_and_what_cannot_be_played_is_named() {
    let folder = Folder::new(&[("secret.mp4", "x")]);
    let path = |name: &str| folder.0.path().join(name);
    for (name, picture) in [("pics", "1.JPG"), ("jpe", "a.jpe"), ("hidden", ".a.jpg"), ("text", "a.txt")] {
        std::fs::create_dir(path(name)).unwrap();
        folder.write(&format!("{name}/{picture}"), "x");
    }
    std::fs::create_dir_all(path("folders/a.png")).unwrap();
    std::fs::create_dir(path("empty")).unwrap();
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, path("pipe"), rustix::fs::FileType::Fifo, mode, 0).unwrap();
    std::fs::set_permissions(path("secret.mp4"), std::fs::Permissions::from_mode(0o000)).unwrap();
    let none = "which is a folder without pictures (.jpg, .jpeg, .png)";
    // root may read everything
    let secret = if rustix::process::geteuid().is_root() { "" } else { "which cannot be read: " };
    for (file, why) in [
        ("pics", ""),
        ("jpe", ""),
        ("empty", none),
        ("hidden", none),
        ("text", none),
        ("folders", none),
        ("pipe", "which is a pipe; a file is expected"),
        ("/dev/null", "which is a device; a file is expected"),
        ("secret.mp4", secret),
        ("gone", "which does not exist (looked for "),
        ("file:/nowhere/a.mp4", "which does not exist (looked for /nowhere/a.mp4)"),
    ] {
        folder.write("cameras.yml", &format!("cameras:\n  - {{ id: a, file: '{file}' }}\n"));
        let of_file = folder.report(&decoder("decode", "CAMERAS: cameras.yml"));
        let of_sources =
            folder.check_by(&Marked, &decoder("decode", &format!("SOURCES: 'a={file}'"))).report.text(false);
        for (report, whose) in [(of_file, "camera 'a'"), (of_sources, "camera 'a' of node 'decode'")] {
            let says = format!("{whose} names the file '{file}', {why}");
            assert_eq!(report.contains("error"), !why.is_empty(), "{report}");
            assert!(why.is_empty() || report.contains(&says), "{says} in:\n{report}");
        }
    }
}

#[test]
fn a_decoder_says_whom_it_serves_in_one_way() {
    let folder = Folder::new(&[("cameras.yml", TWO)]);
    for (env, says) in [
        (
            "DEVICE: 0",
            "node 'decode' serves no camera: SOURCE (one), SOURCES (several) or CAMERAS (a file) is required",
        ),
        (
            "SOURCE: a.mp4, CAMERAS: cameras.yml",
            "node 'decode' has SOURCE and CAMERAS; one of them says whom it serves",
        ),
        ("SOURCE: a.mp4, GROUP: x", "node 'decode' has a GROUP, which chooses cameras of a cameras file"),
        ("SOURCES: 'a=a.mp4 b'", "'b' in SOURCES of node 'decode' names no camera"),
        ("SOURCES: 'a=a.mp4 a=b.mp4'", "SOURCES of node 'decode' names camera 'a' twice"),
        ("SOURCE: 'rtsps://me:hunter2@h/1'", "asks for TLS (rtsps://)"),
        (
            "CAMERAS: cameras.yml, GROUP: z",
            "no camera of graphs/cameras.yml has the group 'z' of node 'decode'; groups there: x, y",
        ),
    ] {
        let report = folder.report(&decoder("decode", env));
        assert!(report.contains(says) && report.contains("1 error"), "{env}:\n{report}");
        assert!(!report.contains("hunter2"), "{report}");
    }
    // a misspelt setting is one fault, not two
    let report = folder.report(&decoder("decode", "CAMERSA: cameras.yml"));
    assert!(report.contains("did you mean 'CAMERAS'?") && report.contains("1 error"), "{report}");
}

#[test]
fn ids_are_unique_where_cameras_come_together() {
    let folder = Folder::new(&[("cameras.yml", TWO)]);
    let two = |first: &str, second: &str| {
        let nodes = decoder("one", first) + &decoder("two", second);
        folder.report(&(nodes + &converter("frame: one/frame, frame.two: two/frame")))
    };
    assert_eq!(two("CAMERAS: cameras.yml, GROUP: x", "CAMERAS: cameras.yml, GROUP: y"), "graphs/g.yml: no faults\n");
    assert_eq!(two("SOURCE: a.mp4", "SOURCE: a.mp4"), "graphs/g.yml: no faults\n", "by default the node's id");
    for (first, second) in [
        ("CAMERAS: cameras.yml", "CAMERAS: cameras.yml, GROUP: x"),
        ("CAMERAS: cameras.yml", "SOURCE: a.mp4, CAMERA: a"),
        ("SOURCES: 'a=a.mp4'", "SOURCE: b.mp4, CAMERA: a"),
    ] {
        let report = two(first, second);
        let says = "input 'frame.two' of node 'to-rgb' brings the camera 'a' of 'two', and input 'frame' the camera 'a' of 'one'";
        assert!(report.contains(says) && report.contains("1 error"), "{first}; {second}:\n{report}");
    }
    // two chains beside each other, as in a comparison
    let apart = decoder("one", "SOURCE: a.mp4, CAMERA: a")
        + &decoder("two", "SOURCE: a.mp4, CAMERA: a")
        + &converter("frame: one/frame");
    assert_eq!(folder.report(&apart), "graphs/g.yml: no faults\n");
    // cameras of a group that nobody serves
    let report = folder.report(&decoder("one", "CAMERAS: cameras.yml, GROUP: x"));
    assert!(report.contains("warning: no decoder of the graph serves the group 'y' of camera 'b'"), "{report}");
}

#[test]
fn parts_of_a_file_have_one_decoder_each() {
    let folder = Folder::new(&[("cameras.yml", TWO)]);
    let serve = |parts: &[&str]| {
        let nodes = parts.iter().enumerate();
        let nodes: String =
            nodes.map(|(n, env)| decoder(&format!("d{n}"), &format!("CAMERAS: cameras.yml{env}"))).collect();
        folder.report(&nodes)
    };
    for fine in [
        &[", PART: 1/2", ", PART: 2/2"][..],
        &[", PART: 2/3", ", PART: 3/3", ", PART: 1/3"],
        &[", PART: 1/1"],
        &[", GROUP: x, PART: 1/2", ", GROUP: y", ", GROUP: x, PART: 2/2"],
    ] {
        assert_eq!(serve(fine), "graphs/g.yml: no faults\n", "{fine:?}");
    }
    let whole = "of graphs/cameras.yml";
    for (parts, says, fix) in [
        (&[", PART: 3/2"][..], "PART is '3/2', and a part of the cameras file is expected: 1/2, 2/2".to_owned(), ""),
        (
            &[", PART: 1/2", ", PART: 1/2"],
            format!("nodes 'd0' and 'd1' both have PART 1/2 {whole}"),
            "give each of them a part of its own",
        ),
        (
            &[", PART: 1/2", ", PART: 2/3", ", PART: 2/2"],
            format!("node 'd1' has PART 2/3, and 'd0' has one of 2 parts {whole}"),
            "fix: PART: 2/2",
        ),
        (
            &[", PART: 1/2", ""],
            format!("node 'd1' serves all cameras {whole}, and 'd0' a part of them, which would be decoded twice"),
            "fix: PART: 2/2",
        ),
    ] {
        let report = serve(parts);
        assert!(report.contains(&says) && report.contains(fix) && report.contains("1 error"), "{parts:?}:\n{report}");
    }
    let report = serve(&[", PART: 1/3", ", PART: 3/3"]);
    let says = format!("warning: no node of the graph has PART 2/3 {whole}");
    assert!(report.contains(&says) && report.contains("fix: add a decoder with PART: 2/3"), "{report}");
    let report = folder.report(&decoder("decode", "SOURCE: a.mp4, PART: 1/2"));
    assert!(report.contains("node 'decode' has a PART, which chooses cameras of a cameras file"), "{report}");
}

#[test]
fn parts_come_together_without_a_camera_that_comes_twice() {
    let ids: Vec<String> = (1..=9).map(|n| format!(" - {{ id: cam-{n}, url: rtsp://h/{n} }}\n")).collect();
    let folder = Folder::new(&[("cameras.yml", format!("cameras:\n{}", ids.concat()).as_str())]);
    let nodes = decoder("one", "CAMERAS: cameras.yml, PART: 1/2") + &decoder("two", "CAMERAS: cameras.yml, PART: 2/2");
    let checked = folder.check(&(nodes + &converter("frame: one/frame, frame.two: two/frame")));
    assert!(checked.report.is_ok(), "{}", checked.report.text(false));
    let cameras: Vec<u64> = checked.memory.ports.iter().map(|port| port.cameras).collect();
    // by MD5 of the ids, in Python: cam-5, cam-6, cam-7, cam-9 are in the first part
    assert_eq!(cameras, [4, 5], "{:?}", checked.memory.ports);
}

#[test]
fn frames_do_not_go_from_one_gpu_to_another() {
    let folder = Folder::new(&[]);
    let detector = |id: &str, from: &str, env: &str| {
        format!(
            "  - {{ id: {id}, path: bin/ort-infer, inputs: {{ tensor: {from} }}, outputs: [detections], env: {{ MODEL: model.yml, {env} }} }}\n"
        )
    };
    let on = |gpu: u32, detect: &str| {
        let nodes = decoder("decode", &format!("SOURCE: a.mp4, DEVICE: {gpu}")) + &converter("frame: decode/frame");
        folder.report(&(nodes + &detector("detect", "to-rgb/tensor", detect)))
    };
    for fine in ["PROVIDER: cuda, DEVICE: 1", "PROVIDER: tensorrt, DEVICE: 1"] {
        assert_eq!(on(1, fine), "graphs/g.yml: no faults\n", "{fine}");
    }
    assert_eq!(on(0, "PROVIDER: cuda"), "graphs/g.yml: no faults\n", "both by default");
    let report = on(1, "PROVIDER: cuda");
    let says = "node 'detect' works on GPU 0, and its input 'tensor' brings frames of 'decode', which are on GPU 1: frames do \
                not go from one GPU to another";
    assert!(report.contains(says) && report.contains("1 error") && report.contains("fix: DEVICE: 1"), "{report}");
    assert!(
        on(0, "PROVIDER: cuda, DEVICE: 1").contains("works on GPU 1, and its input 'tensor' brings frames of 'decode'")
    );
    // a detector on the CPU reads none of them
    let report = on(0, "PROVIDER: cpu");
    let says = "node 'detect' computes on the CPU, and its input 'tensor' brings frames of 'decode', which are in the memory of GPU 0";
    assert!(report.contains(says) && report.contains("fix: PROVIDER: cuda, or MEMORY: host in 'decode'"), "{report}");
    // two decoders into one converter, which works on both, and one detector, which does not
    let two = decoder("zero", "SOURCE: a.mp4") + &decoder("one", "SOURCE: b.mp4, DEVICE: 1");
    let two = two + &converter("frame: zero/frame, frame.one: one/frame");
    let report = folder.report(&(two + &detector("detect", "to-rgb/tensor", "PROVIDER: cuda")));
    assert!(report.contains("brings frames of 'one', which are on GPU 1") && report.contains("1 error"), "{report}");
    // what is copied to host memory is read anywhere
    let host = decoder("decode", "SOURCE: a.mp4, DEVICE: 1, MEMORY: host") + &converter("frame: decode/frame");
    for provider in ["cuda", "cpu"] {
        let detector = detector("detect", "to-rgb/tensor", &format!("PROVIDER: {provider}"));
        assert_eq!(folder.report(&(host.clone() + &detector)), "graphs/g.yml: no faults\n", "{provider}");
    }
}

#[test]
fn several_producers_are_several_inputs() {
    let folder = Folder::new(&[]);
    let nodes = decoder("cam1", "SOURCE: a.mp4") + &decoder("cam2", "SOURCE: b.mp4");
    let with = |inputs: &str| folder.report(&(nodes.clone() + &converter(inputs)));
    assert_eq!(with("frame: cam1/frame, frame.2: cam2/frame"), "graphs/g.yml: no faults\n");
    assert_eq!(with("frame.a: cam1/frame, frame.b: cam2/frame"), "graphs/g.yml: no faults\n", "none is the plain name");
    for (inputs, says, fix) in [
        (
            "frame: cam1/frame, frame1: cam2/frame",
            "has an input 'frame1', which nv12-to-rgb does not know; its inputs: frame; further producers of 'frame' are inputs 'frame.NAME'",
            "fix: frame.cam2: cam2/frame",
        ),
        ("frame: cam1/frame, frames.x: cam2/frame", "has an input 'frames.x'", "fix: frame.cam2: cam2/frame"),
        ("frame: cam1/frame, frame.: cam2/frame", "has an input 'frame.'", "fix: frame.cam2: cam2/frame"),
        (
            "frame: [cam1/frame, cam2/frame]",
            "input 'frame' of node 'to-rgb' names a source, and this is a list",
            "fix: one input for each producer: frame.cam1: cam1/frame, frame.cam2: cam2/frame",
        ),
        (
            "frame: cam1/frame, frame: cam2/frame",
            "'frame' is given twice",
            "fix: keep one of them, or for a second producer: frame.cam2: cam2/frame",
        ),
        (
            "frame: cam1/frame, frame.x: cam1/frame",
            "inputs 'frame' and 'frame.x' of node 'to-rgb' both take 'cam1/frame'",
            "fix: keep one of them",
        ),
        (
            "frame: cam1/frame, frame.x: cam2/packet",
            "and input 'frame.x' of node 'to-rgb' (nv12-to-rgb) takes image",
            "fix: frame.x: cam2/frame",
        ),
    ] {
        let report = with(inputs);
        assert!(report.contains(says) && report.contains(fix) && report.contains("1 error"), "{inputs}:\n{report}");
    }
}

#[test]
fn the_memory_of_the_pools_is_estimated() {
    let file = "cameras:\n - { id: a, url: rtsp://h/1, size: 1024x512 }\n - { id: b, url: rtsp://h/2, size: 512x512 }\n - { id: c, url: rtsp://h/3 }\n";
    let folder = Folder::new(&[("cameras.yml", file)]);
    let graph = |more: &str| {
        decoder("decode", &format!("CAMERAS: cameras.yml, SLOTS: 4{more}")) + &converter("frame: decode/frame")
    };
    let checked = folder.check(&graph(", MEMORY: host"));
    let [frames] = checked.memory.ports.as_slice() else { panic!("{:?}", checked.memory) };
    // rows of 256, 1.5 bytes a pixel; 1920x1080 for the one whose size is not stated
    let pictures = 1024 * 512 * 3 / 2 + 512 * 512 * 3 / 2 + 2048 * (1080 + 540);
    assert_eq!(
        (frames.port.as_str(), frames.cameras, frames.slots, frames.bytes),
        ("decode/frame", 3, 4, 4 * pictures)
    );
    assert!(frames.assumed && !frames.on_gpu && frames.holds == "nv12 of the stated sizes, 1920x1080 assumed for 1");
    assert_eq!((checked.memory.host_bytes(), checked.memory.gpu_bytes()), (4 * pictures, 0));
    assert_eq!(
        checked.memory.line(),
        "memory: 17 MiB in shared memory for frames on their way; sizes are assumed, see --explain\n"
    );
    let on_gpu = folder.check(&graph(""));
    assert_eq!((on_gpu.memory.host_bytes(), on_gpu.memory.gpu_bytes()), (0, 4 * pictures));
}

#[test]
fn what_cannot_work_is_refused() {
    let folder = Folder::new(&[("cameras.yml", TWO)]);
    let graph = decoder("decode", "CAMERAS: cameras.yml, MEMORY: host") + &converter("frame: decode/frame");
    let mut checked = folder.check(&graph);
    checked.check_memory(1 << 40);
    assert!(checked.report.is_ok());
    checked.check_memory(16 << 20);
    let report = checked.report.text(false);
    let says = "the frames of this graph need 51 MiB of shared memory, of which sizes are assumed, and this machine or its container has 16 MiB; most is 'decode/frame': 2 x 8 slots of nv12 of 1920x1080, which is assumed";
    assert!(report.contains(says) && report.contains("lower SLOTS"), "{report}");

    // a batch of one camera takes all its slots
    let batch = |slots: u32, sources: &str| {
        let decode = decoder("decode", &format!("{sources}, SLOTS: {slots}"));
        let convert = "  - { id: to-rgb, path: bin/nv12-to-rgb, inputs: { frame: decode/frame }, outputs: [tensor], env: { MODEL: m.yml, BATCH: 8, SLOTS: 64 } }\n";
        folder.report(&(decode + convert))
    };
    let report = batch(8, "SOURCE: a.mp4");
    let says = "'decode/frame' has 8 slots for its camera, and 'to-rgb' takes 8 frames at once: 10 are needed";
    assert!(
        report.contains(says)
            && report.contains("fix: SLOTS: 10 in node 'decode', or a smaller BATCH in node 'to-rgb'"),
        "{report}"
    );
    assert_eq!(batch(10, "SOURCE: a.mp4"), "graphs/g.yml: no faults\n");
    assert_eq!(batch(6, "CAMERAS: cameras.yml"), "graphs/g.yml: no faults\n", "a batch is of two cameras");
}
