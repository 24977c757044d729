//! Bad input through the whole graph: each gives an exit code, a sentence that says what to do, and nothing left behind.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use millrace_tests::{finish, millrace, printed, root, skip_without};
use std::path::Path;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(120);

/// Runs the batch graph with settings; its exit code and all that it printed.
fn run(out: &Path, sets: &[&str]) -> (bool, String) {
    let path = format!("write.PATH={}", out.display());
    let mut args = vec!["run", "graphs/detect.yml", "--no-build", "--set", &path];
    for set in sets {
        args.extend(["--set", *set]);
    }
    let output = finish(&mut millrace(&args), LIMIT);
    (output.status.success(), printed(&output))
}

fn refused(sets: &[&str], says: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let (ok, text) = run(&folder.path().join("out.jsonl"), sets);
    assert!(!ok, "{sets:?} was accepted:\n{text}");
    for word in says {
        assert!(text.contains(word), "{sets:?}: '{word}' is not in\n{text}");
    }
    assert!(!text.contains("panicked"), "{text}");
}

#[test]
fn a_file_that_is_not_video_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("notes.mp4");
    std::fs::write(&file, "no video in here\n".repeat(1000)).unwrap();
    refused(&[&format!("decode.SOURCE={}", file.display())], &["notes.mp4"]);
}

#[test]
fn a_missing_file_is_refused_by_name() {
    refused(&["decode.SOURCE=/nowhere/clip.mp4"], &["/nowhere/clip.mp4"]);
}

#[test]
fn a_missing_or_wrong_model_is_refused() {
    refused(&["detect.MODEL=/nowhere/model.yml"], &["/nowhere/model.yml"]);
    let folder = tempfile::tempdir().unwrap();
    let demo = root().join("tests/data/demo/model");
    let text = std::fs::read_to_string(demo.join("model.yml")).unwrap();
    let absolute = text.replace("model.onnx", &demo.join("model.onnx").display().to_string());
    let wrong = folder.path().join("model.yml");
    std::fs::write(&wrong, absolute.replace("width_px: 320", "width_px: 352")).unwrap();
    let set = format!("detect.MODEL={}", wrong.display());
    let both = format!("to-rgb.MODEL={}", wrong.display());
    refused(&[&set, &both], &["352", "320"]);
}

/// The demo's model.yml with a change, and its path as a value for MODEL.
fn other_model(folder: &Path, from: &str, to: &str) -> String {
    let demo = root().join("tests/data/demo/model");
    let text = std::fs::read_to_string(demo.join("model.yml")).unwrap();
    let absolute = text.replace("model.onnx", &demo.join("model.onnx").display().to_string());
    assert!(absolute.contains(from), "{absolute}");
    let path = folder.join("other.yml");
    std::fs::write(&path, absolute.replacen(from, to, 1)).unwrap();
    path.display().to_string()
}

#[test]
fn a_converter_that_prepares_frames_for_another_model_is_found_before_anything_starts() {
    let folder = tempfile::tempdir().unwrap();
    let separate = |model: &str| {
        // the graph's own MODEL is one value for both nodes
        let text = std::fs::read_to_string(root().join("graphs/detect.yml")).unwrap();
        let graph = folder.path().join("detect.yml");
        let root = root().display().to_string();
        let text = text
            .replace("../", &format!("{root}/"))
            .replace("*model", &format!("{root}/tests/data/demo/model/model.yml"));
        std::fs::write(&graph, text).unwrap();
        let set = format!("to-rgb.MODEL={model}");
        let output = finish(&mut millrace(&["check", &graph.display().to_string(), "--set", &set]), LIMIT);
        (output.status.success(), printed(&output))
    };
    let (ok, text) = separate(&other_model(folder.path(), "width_px: 320", "width_px: 352"));
    assert!(
        !ok && text.contains("'to-rgb' makes a tensor of 352x192 nchw f32, and MODEL of 'detect' takes 320x192"),
        "{text}"
    );
    let (ok, text) = separate(&other_model(folder.path(), "layout: nchw", "layout: nhwc"));
    assert!(!ok && text.contains("nhwc f32, and MODEL of 'detect' takes 320x192 nchw f32"), "{text}");
    let (ok, text) = separate(&other_model(folder.path(), "colour: rgb", "colour: bgr"));
    assert!(ok && text.contains("boxes will be wrong"), "{text}");
    let (ok, text) = separate(&other_model(folder.path(), "width_px: 320", "width_px: 0"));
    assert!(!ok && text.contains("MODEL does not describe a model that can be used"), "{text}");
    let (ok, text) = separate(&root().join("tests/data/demo/model/model.yml").display().to_string());
    assert!(ok, "{text}");
}

/// What `millrace check` says of the batch graph with these settings, whatever it finds.
fn checked(sets: &[String]) -> (bool, String) {
    let mut args = vec!["check", "graphs/detect.yml"];
    sets.iter().for_each(|set| args.extend(["--set", set]));
    let output = finish(&mut millrace(&args), LIMIT);
    (output.status.success(), printed(&output))
}

#[test]
fn a_model_file_that_is_cut_short_or_another_models_is_found_without_an_engine() {
    let folder = tempfile::tempdir().unwrap();
    let whole = std::fs::read(root().join("tests/data/demo/model/model.onnx")).unwrap();
    let cut = folder.path().join("cut.onnx");
    std::fs::write(&cut, &whole[..whole.len() - 1000]).unwrap();
    let demo = root().join("tests/data/demo/model/model.onnx").display().to_string();
    for (from, to, says) in [
        (demo.as_str(), cut.display().to_string(), "it is cut short: at byte"),
        (&demo, folder.path().display().to_string(), "is not a file"),
        (&demo, "file:///tmp/model.onnx".into(), "'file' is the URL"),
        (&demo, root().join("README.md").display().to_string(), "cannot be loaded as an ONNX model"),
        (
            "kind: centre, stride_px: 8, output: detections",
            "kind: yolov8, output: detections".into(),
            "head 'yolov8' with",
        ),
        ("output: detections", "output: boxes".into(), "it has no output 'boxes', which 'head' reads"),
        ("name: images", "name: picture".into(), "it has no input 'picture'"),
        ("dtype: f32", "dtype: f16".into(), "is f32, 'input' of the description says f16"),
        ("[person, car, bicycle]", "[person, car]".into(), "expects"),
        ("thresholds:", "threshold:".into(), "did you mean 'thresholds'"),
    ] {
        let model = other_model(folder.path(), from, &to);
        let (ok, text) = checked(&[format!("detect.MODEL={model}")]);
        assert!(!ok && text.contains(says), "{to}: '{says}' is not in\n{text}");
        assert!(!text.contains("panicked"), "{text}");
    }
}

#[test]
fn settings_that_name_files_accept_file_urls() {
    let folder = tempfile::tempdir().unwrap();
    let data = root().join("tests/data/demo").display().to_string();
    let out = folder.path().join("found here.jsonl");
    let sets = [
        format!("decode.SOURCE=file://{data}/clip.mp4"),
        format!("detect.MODEL=file://{data}/model/model.yml"),
        "decode.FRAMES=20".to_owned(),
    ];
    let url = format!("file://{}", out.display().to_string().replace(' ', "%20"));
    let mut args = vec!["run".to_owned(), "graphs/detect.yml".into(), "--no-build".into()];
    for set in sets.into_iter().chain([format!("write.PATH={url}")]) {
        args.extend(["--set".to_owned(), set]);
    }
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let output = finish(&mut millrace(&args), LIMIT);
    assert!(output.status.success(), "{}", printed(&output));
    assert_eq!(std::fs::read_to_string(&out).unwrap().lines().count(), 20);
}

#[test]
fn what_settings_point_to_is_looked_at_before_anything_starts() {
    let folder = tempfile::tempdir().unwrap();
    let empty = folder.path().join("empty.mp4");
    std::fs::write(&empty, "").unwrap();
    for (set, says) in [
        (format!("decode.SOURCE={}", empty.display()), "which is empty"),
        (
            "decode.SOURCE=".to_owned(),
            "serves no camera: SOURCE (one), SOURCES (several) or CAMERAS (a file) is required, and SOURCE is empty",
        ),
        ("write.PATH=/proc/out.jsonl".to_owned(), "in the folder /proc, in which no file can be made"),
        (format!("detect.MODEL={}", folder.path().display()), "which is a folder; a file is expected"),
        ("write.PATH=file:out.jsonl".to_owned(), "./file:out.jsonl"),
        ("write.PATH=".to_owned(), "PATH is '', which is not a path"),
        ("detect.MODEL=".to_owned(), "MODEL is '', which is not a path"),
    ] {
        let (ok, text) = checked(std::slice::from_ref(&set));
        assert!(!ok && text.contains(says), "{set}: '{says}' is not in\n{text}");
    }
}

#[test]
fn a_misspelt_program_is_told_from_one_that_is_not_built() {
    let folder = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string(root().join("graphs/detect.yml")).unwrap();
    let root = root().display().to_string();
    let check = |from: &str, to: &str| {
        assert!(text.contains(from), "{from}");
        let graph = folder.path().join("detect.yml");
        std::fs::write(&graph, text.replacen(from, to, 1).replace("../", &format!("{root}/"))).unwrap();
        let output = finish(&mut millrace(&["check", &graph.display().to_string()]), LIMIT);
        assert!(!output.status.success());
        printed(&output)
    };
    let right = format!("fix: path: {root}/target/release/");
    for (from, wrong, program) in [
        ("release/sw-nv12", "release/sw-nv1", "sw-nv12"),
        ("release/sw-nv12", "debug/sw-nv12", "sw-nv12"),
        ("target/release/cpu-infer", "taget/release/cpu-infer", "cpu-infer"),
        // its node has no build of its own
        ("release/jsonl-writer", "release/json-writer", "jsonl-writer"),
    ] {
        let text = check(from, wrong);
        assert!(text.contains(&format!("{right}{program}")), "{wrong}:\n{text}");
    }
}

#[test]
fn an_unknown_setting_is_refused_before_anything_starts() {
    refused(&["decode.SUORCE=clip.mp4"], &["SUORCE", "SOURCE"]);
}

#[test]
fn settings_that_the_nodes_refuse_together_are_found_before_anything_starts() {
    for (set, says) in [
        ("to-rgb.WIDTH_PX=320", "MODEL and WIDTH_PX are both set; WIDTH_PX would contradict the model.yml"),
        ("decode.SANDBOX_READ=/nowhere", "SANDBOX_READ names '/nowhere', which is not there"),
        ("decode.SANDBOX_PORTS=554,none", "SANDBOX_PORTS has 'none'"),
        ("decode.CAMERA=a\u{7}b", "control character"),
        ("detect.SANDBOX=required", "opens the memory of its producers, which no sandbox allows"),
    ] {
        let (ok, text) = checked(&[set.to_owned()]);
        assert!(!ok && text.contains(says), "{set}: '{says}' is not in\n{text}");
        assert_eq!(text.matches(says).count(), 1, "{text}");
    }
    let (ok, text) = checked(&["write.ALLOW_LOSS=true".to_owned(), "to-rgb.BACKLOG=4".to_owned()]);
    assert!(
        ok && text.contains("warning: node 'to-rgb' (nv12-to-rgb): BACKLOG has no effect where FLOW is lossless"),
        "{text}"
    );
    assert!(!text.contains("ALLOW_LOSS"), "{text}");
}

#[test]
fn a_truncated_clip_gives_what_is_there_and_says_what_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let whole = std::fs::read(root().join("tests/data/demo/clip.mp4")).unwrap();
    let file = folder.path().join("cut.mp4");
    std::fs::write(&file, &whole[..whole.len() / 2]).unwrap();
    let out = folder.path().join("out.jsonl");
    let (ok, text) = run(&out, &[&format!("decode.SOURCE={}", file.display())]);
    assert!(!text.contains("panicked"), "{text}");
    // the demo clip's index is at its front: the frames that are there come out, and exit code 1 says that others do not
    let lines = std::fs::read_to_string(&out).unwrap().lines().count();
    assert!((100..750).contains(&lines), "{lines}");
    assert!(!ok && text.contains("dropped") && text.contains("frames are missing"), "{text}");
}

#[test]
fn a_full_disk_ends_the_job_with_the_file_and_the_reason() {
    let (ok, text) = run(Path::new("/dev/full"), &[]);
    assert!(!ok && text.contains("/dev/full") && text.contains("No space left on device"), "{text}");
}

/// In a mount namespace of its own, where that is allowed: a `/dev/shm` that is full, and one that has just enough.
#[test]
fn a_full_dev_shm_is_named_and_a_small_one_will_do() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.jsonl");
    for (kib, enough) in [(1024, false), (8192, true)] {
        let script = format!("mount -t tmpfs -o size={kib}k none /dev/shm || exit 77; exec \"$0\" \"$@\"");
        let mut command = std::process::Command::new("unshare");
        command.args(["--mount", "sh", "-c", &script]).arg(millrace_tests::program("millrace")).current_dir(root());
        command.args(["run", "graphs/detect.yml", "--no-build", "--set", &format!("write.PATH={}", out.display())]);
        let output = finish(&mut command, LIMIT);
        let text = printed(&output);
        if text.contains("unshare failed") || output.status.code() == Some(77) {
            return skip_without("mounts", text.lines().next().unwrap_or("mount failed"));
        }
        assert_eq!(output.status.success(), enough, "{text}");
        let named = text.contains("/dev/shm has 1024 KiB free, and dora needs 8192 KiB for 4 nodes");
        assert_eq!(named, !enough, "{text}");
    }
    assert_eq!(std::fs::read_to_string(out).unwrap().lines().count(), 750);
}

#[test]
fn a_stream_that_changes_its_size_keeps_every_frame() {
    let Some(data) = millrace_tests::shared_data() else { return };
    let folder = tempfile::tempdir().unwrap();
    let (clip, out) = (folder.path().join("two.264"), folder.path().join("out.jsonl"));
    let mut bytes = Vec::new();
    let mut frames = 0;
    for name in ["BA_MW_D", "Zhling_1280x720", "BA_MW_D"] {
        bytes.extend(std::fs::read(data.join(format!("h264/{name}.264"))).unwrap());
        let reference = std::fs::read_to_string(data.join(format!("refs/framemd5/{name}.264.framemd5"))).unwrap();
        frames += reference.lines().filter(|line| !line.starts_with('#')).count();
    }
    std::fs::write(&clip, bytes).unwrap();
    let (ok, text) = run(&out, &[&format!("decode.SOURCE={}", clip.display())]);
    assert!(ok, "{text}");
    let written = std::fs::read_to_string(out).unwrap();
    let seqs = written.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["seq"].as_u64());
    assert!(seqs.eq((0..frames as u64).map(Some)), "{} lines of {frames} frames\n{text}", written.lines().count());
}
