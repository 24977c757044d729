//! What `millrace model` writes, and what it leaves alone; and what it makes of numbers that are not as their shapes promise.

use super::data;
use super::tool::ask;
use crate::Engine;
use std::path::Path;

/// A file of `make_tiny.py` is added, with a picture.
fn added<E: Engine>(folder: &Path, file: &str, more: &[&str]) -> Result<String, String> {
    let at = |name: &str| folder.join(name).display().to_string();
    std::fs::copy(data(file), at(file)).unwrap();
    let grey = jpeg_encoder::Encoder::new_file(at("grey.jpg"), 95).unwrap();
    grey.encode(&[128; 3 * 48 * 32], 48, 32, jpeg_encoder::ColorType::Rgb).unwrap();
    ask::<E>(&[&["add", &at(file), "--picture", &at("grey.jpg")], more].concat())
}

/// Nothing is written over that these commands did not draw, unless that is asked for; and never what they read, nor a file
/// of another kind.
pub fn writes_over_nothing_of_others<E: Engine>() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let read = |name: &str| std::fs::read(folder.path().join(name)).unwrap();
    let files = || std::fs::read_dir(folder.path()).unwrap().count();
    added::<E>(folder.path(), "tiny_obb.onnx", &[]).unwrap();
    let (described, drawn) = (read("model.yml"), read("model.boxes.jpg"));

    // a description that is there stays, also where the new model is none
    let refused = added::<E>(folder.path(), "tiny_obb.onnx", &[]).unwrap_err();
    assert!(
        refused.contains("model.yml' exists; give another path with --output, or replace it with --force"),
        "{refused}"
    );
    assert!(added::<E>(folder.path(), "tiny_alike.onnx", &["--force"]).is_err());
    assert_eq!(read("model.yml"), described);
    std::fs::remove_file(at("tiny_alike.onnx")).unwrap();
    added::<E>(folder.path(), "tiny_obb.onnx", &["--force"]).unwrap();
    assert_eq!(read("model.yml"), described);
    assert_eq!(files(), 4, "nothing else is left");

    // the picture that was drawn here is drawn again; others are somebody's
    let check = |more: &[&str]| ask::<E>(&[&["check", &at("model.yml"), "--picture", &at("grey.jpg")], more].concat());
    check(&[]).unwrap();
    assert_eq!(read("model.boxes.jpg"), drawn);
    std::fs::copy(at("grey.jpg"), at("mine.jpg")).unwrap();
    std::fs::write(at("graph.yml"), "schema: 1\nnodes:\n  - id: a\n").unwrap();
    std::os::unix::fs::symlink(at("grey.jpg"), at("link.jpg")).unwrap();
    std::fs::write(at("empty"), "").unwrap();
    for (name, force, says) in [
        ("mine.jpg", false, "mine.jpg' exists; give another path with --drawn, or replace it with --force"),
        ("grey.jpg", true, "is the picture that is read, which is not written over"),
        ("link.jpg", true, "is the picture that is read"),
        ("model.yml", true, "is the model's description"),
        ("tiny_obb.onnx", true, "is the model file"),
        ("graph.yml", true, "exists and is no picture, so that --force does not replace it"),
        ("graph.yml", false, "exists and is no picture; give another path"),
        (".", true, "is a folder"),
    ] {
        let before = read("grey.jpg");
        let drawn = at(name);
        let more = [&["--drawn", &drawn][..], if force { &["--force"] } else { &[] }].concat();
        let refused = check(&more).unwrap_err();
        assert!(refused.contains(says), "{name}: {refused}");
        assert_eq!(read("grey.jpg"), before);
    }
    assert_eq!(read("model.yml"), described);
    check(&["--drawn", "/dev/null"]).unwrap();
    check(&["--drawn", &at("empty")]).unwrap();
    check(&["--drawn", &at("mine.jpg"), "--force"]).unwrap();
    assert_ne!(read("mine.jpg"), read("grey.jpg"));

    // a graph, a model and a picture are no place for a description
    let obb = |more: &[&str]| added::<E>(folder.path(), "tiny_obb.onnx", more).unwrap_err();
    assert!(obb(&["--output", &at("graph.yml"), "--force"]).contains("exists and is no description of a model"));
    assert!(obb(&["--output", &at("tiny_obb.onnx"), "--force"]).contains("is the model file"));
    std::fs::write(at("names.txt"), "dark\nlight\n").unwrap();
    let names = at("names.txt");
    assert!(obb(&["--output", &names, "--labels", &names, "--force"]).contains("is the file of labels"));
    std::fs::copy(at("grey.jpg"), at("other.boxes.jpg")).unwrap();
    let refused = obb(&["--output", &at("other.yml")]);
    assert!(refused.contains("other.boxes.jpg' exists"), "{refused}");
    assert!(!folder.path().join("other.yml").exists(), "refused before anything is written");
}

/// Numbers decide where shapes leave a choice, and speak against a model that gives one box for everything.
pub fn adds_models_by_their_numbers<E: Engine>() {
    let folder = tempfile::tempdir().unwrap();
    // a model without its sigmoid: 1 / (1 + exp(-2)) is 0.881
    let out = added::<E>(folder.path(), "tiny_logits.onnx", &[]).unwrap();
    assert!(out.contains("is written: head {kind: yolov8, output: output0, scores: logits}"), "{out}");
    assert!(out.contains("light 0.88 from"), "{out}");
    // YOLOX that computes its boxes itself
    let out = added::<E>(folder.path(), "tiny_yolox.onnx", &["--force"]).unwrap();
    assert!(out.contains("is written: head {kind: yolov5, output: output}") && out.contains("`colour: bgr`"), "{out}");
    assert!(out.contains("class 1 0.90 from"), "{out}");
    let refused = added::<E>(folder.path(), "tiny_alike.onnx", &["--force"]).unwrap_err();
    assert!(refused.contains("nearly all of the 150 boxes of one picture are the same box"), "{refused}");
    // the same doubt at any time
    let yml = std::fs::read_to_string(folder.path().join("model.yml")).unwrap();
    let alike =
        yml.replace("tiny_yolox.onnx", "tiny_alike.onnx").replace("yolov5, output: output", "end2end, output: output0");
    let path = folder.path().join("alike.yml");
    std::fs::write(&path, alike).unwrap();
    let refused = ask::<E>(&["check", &path.display().to_string()]).unwrap_err();
    assert!(refused.contains("alike.yml: the boxes are most likely wrong: nearly all of the 150 boxes"), "{refused}");

    // a size that the file fixes is not another one
    let sized = |size: &str| added::<E>(folder.path(), "tiny_logits.onnx", &["--force", "--size", size]);
    for other in ["48x32", "24x32", "48x16"] {
        let refused = sized(other).unwrap_err();
        assert!(refused.contains(&format!("has a fixed size, which is not the {other} of --size")), "{refused}");
    }
    sized("24x16").unwrap();
}
