//! From the text of a `model.yml` to a [`Model`].

use super::{Anchor, ChannelOrder, FitSpec, HeadSpec, InputSpec, Model, ModelError, Thresholds};
use crate::heads::{KINDS, Keys};
use crate::yaml::{Data, Faults, Node, Section, document};
use millrace_frame::{TensorDtype, TensorLayout};
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Longest file that is read: a description has a hundred lines, a list of labels a few thousand.
const MAX_BYTES: u64 = 1 << 20;
const MAX_SIDE_PX: u32 = 8192;
const MAX_LABELS: usize = 65_536;

/// Opens a file to read. Others are refused before they are opened: a pipe would keep the reader waiting.
///
/// # Errors
/// Why it cannot be read.
pub fn open_file(path: &Path) -> Result<File, String> {
    let found = std::fs::metadata(path).map_err(|e| e.to_string())?.file_type();
    if found.is_file() {
        return File::open(path).map_err(|e| e.to_string());
    }
    Err(if found.is_dir() { "it is a folder" } else { "it is a pipe or a device" }.to_owned())
}

fn read_text(path: &Path) -> Result<String, String> {
    let mut text = String::new();
    let file = open_file(path)?;
    file.take(MAX_BYTES + 1).read_to_string(&mut text).map_err(|e| match e.kind() {
        ErrorKind::InvalidData => "it is no text (UTF-8)".to_owned(),
        _ => e.to_string(),
    })?;
    if text.len() as u64 > MAX_BYTES {
        return Err(format!("it is longer than {MAX_BYTES} bytes"));
    }
    Ok(text)
}

pub(super) fn load(path: &Path) -> Result<Model, ModelError> {
    let shown = path.display().to_string();
    let text = read_text(path).map_err(|cause| ModelError::Read { path: shown.clone(), cause })?;
    let root = document(&text).map_err(|fault| ModelError::Faults { path: shown.clone(), faults: vec![fault] })?;
    let mut faults = Faults::default();
    match model(&mut faults, &root, path) {
        Some(model) if faults.0.is_empty() => Ok(model),
        _ => {
            faults.0.sort_by_key(|f| (f.line, f.column));
            Err(ModelError::Faults { path: shown, faults: faults.0 })
        }
    }
}

fn model(faults: &mut Faults, root: &Node, path: &Path) -> Option<Model> {
    const KEYS: [&str; 11] =
        ["schema", "name", "about", "file", "input", "letterbox", "fit", "crop", "head", "thresholds", "labels"];
    let top = faults.section(root, "a model's description", &KEYS)?;
    if let Some(node) = faults.required(&top, "schema", "1")
        && !matches!(node.data, Data::Integer(1))
    {
        faults.fault_at(
            node,
            "this build reads schema 1 of a model's description; write `schema: 1` or use a newer build",
        );
    }
    let name = faults.required(&top, "name", "my-detector").and_then(|n| faults.text(n, "name"));
    let about = top.get("about").map(|node| faults.text(node, "about"));
    let folder = path.parent().unwrap_or(Path::new(""));
    let file = faults
        .required(&top, "file", "model.onnx")
        .and_then(|node| Some((folder.join(path_of(faults, node, "file")?), (node.line, node.column))));
    let input = faults
        .required(&top, "input", "{name: images, width_px: 640, height_px: 640, layout: nchw, dtype: f32, colour: rgb}")
        .and_then(|node| input(faults, node));
    let fit = fit(faults, &top, input.as_ref());
    let head = faults.required(&top, "head", "{kind: yolov8, output: output0}").and_then(|node| head(faults, node));
    if let (Some(node), Some(head)) = (top.get("fit"), &head) {
        match fit {
            Some(FitSpec::Stretch) if head.oriented() => faults.fault_at(
                node,
                "a turned rectangle that is stretched is none any more; fit pictures for oriented boxes with `letterbox`",
            ),
            Some(FitSpec::Crop { .. }) if !head.classifies() => faults.fault_at(
                node,
                "`fit: crop` shows a model the middle of a picture alone, so boxes at its edges would be missing; it is for \
                 `kind: classify`. Fit pictures for boxes with `letterbox` or `fit: stretch`",
            ),
            _ => {}
        }
    }
    let thresholds = match top.get("thresholds") {
        Some(node) => thresholds(faults, node),
        None => Some(DEFAULT_THRESHOLDS),
    };
    let labels = faults.required(&top, "labels", "[person, car]").and_then(|node| labels(faults, node, folder));
    let (file, file_place) = file?;
    Some(Model {
        path: path.to_owned(),
        name: name?,
        about: about.map_or(Some(None), |about| about.map(Some))?,
        input: input?,
        fit: fit?,
        head: head?,
        thresholds: thresholds?,
        labels: labels?,
        file,
        file_place,
    })
}

/// The path of a file.
fn path_of(faults: &mut Faults, node: &Node, key: &str) -> Option<String> {
    let text = faults.text(node, key)?;
    if text.contains("://") || text.get(..5).is_some_and(|start| start.eq_ignore_ascii_case("file:")) {
        faults.fault_at(
            node,
            format!("'{key}' is the URL '{text}'; the path of a file is expected, from this description's folder"),
        );
        return None;
    }
    Some(text)
}

fn input(faults: &mut Faults, node: &Node) -> Option<InputSpec> {
    const KEYS: [&str; 8] = ["name", "width_px", "height_px", "layout", "dtype", "colour", "scale", "mean"];
    let layouts = TensorLayout::ALL.iter().map(|v| (v.as_str(), *v)).collect::<Vec<_>>();
    let dtypes = TensorDtype::ALL.iter().map(|v| (v.as_str(), *v)).collect::<Vec<_>>();
    let orders = [("rgb", ChannelOrder::Rgb), ("bgr", ChannelOrder::Bgr)];
    let section = faults.section(node, "'input'", &KEYS)?;
    let name = faults.required(&section, "name", "images").and_then(|n| faults.text(n, "name"));
    let side = 1..=MAX_SIDE_PX;
    let width_px =
        faults.required(&section, "width_px", "640").and_then(|n| faults.integer(n, "width_px", side.clone()));
    let height_px = faults.required(&section, "height_px", "640").and_then(|n| faults.integer(n, "height_px", side));
    let layout = faults.required(&section, "layout", "nchw").and_then(|n| faults.choice(n, "layout", &layouts));
    let dtype = faults.required(&section, "dtype", "f32").and_then(|n| faults.choice(n, "dtype", &dtypes));
    let order = faults.required(&section, "colour", "rgb").and_then(|n| faults.choice(n, "colour", &orders));
    let scale = section.get("scale").map_or(Some([1.0; 3]), |n| faults.triple(n, "scale", -1e6..=1e6));
    let mean = section.get("mean").map_or(Some([0.0; 3]), |n| faults.triple(n, "mean", -1e6..=1e6));
    if let (Some(node), Some(scale)) = (section.get("scale"), scale)
        && scale.contains(&0.0)
    {
        faults
            .fault_at(node, "'scale' has a 0, which makes a whole channel 0; for values from 0 to 1 write 0.00392157");
    }
    if let (Some(node), Some(TensorDtype::U8), Some(scale), Some(mean)) = (section.get("scale"), dtype, scale, mean)
        && scale.iter().zip(mean).any(|(scale, mean)| (255.0 - mean) * scale < 2.0)
    {
        faults.fault_at(
            node,
            "'scale' leaves no numbers but 0 and 1, since the input is whole bytes (`dtype: u8`); a model that is given bytes \
             scales them itself: remove 'scale' and 'mean'",
        );
    }
    Some(InputSpec {
        name: name?,
        width_px: width_px?,
        height_px: height_px?,
        layout: layout?,
        dtype: dtype?,
        order: order?,
        scale: scale?,
        mean: mean?,
    })
}

/// `fit`: a word, and the key that has the rest of it.
#[derive(Clone, Copy, PartialEq)]
enum Fit {
    Letterbox,
    Stretch,
    Crop,
}

/// `letterbox`, or `fit: stretch` or `fit: crop` in its place.
fn fit(faults: &mut Faults, top: &Section<'_>, input: Option<&InputSpec>) -> Option<FitSpec> {
    const FITS: [(&str, Fit); 3] = [("letterbox", Fit::Letterbox), ("stretch", Fit::Stretch), ("crop", Fit::Crop)];
    let (word, fit) = match top.get("fit") {
        Some(node) => {
            let fit = faults.choice(node, "fit", &FITS)?;
            (FITS.iter().find(|(_, known)| *known == fit)?.0, fit)
        }
        None => ("letterbox", Fit::Letterbox),
    };
    for (key, of, why) in [
        ("letterbox", Fit::Letterbox, "says how a picture is padded"),
        ("crop", Fit::Crop, "says how much of a picture's middle is shown"),
    ] {
        if let Some(node) = top.get(key).filter(|_| fit != of) {
            faults.fault_at(node, format!("'{key}' {why} and belongs to `fit: {key}`, but 'fit' is '{word}' here; correct it, or remove '{key}'"));
            return None;
        }
    }
    match fit {
        Fit::Stretch => Some(FitSpec::Stretch),
        Fit::Crop => crop(faults, top.get("crop"), input),
        Fit::Letterbox => {
            let node = faults.required(top, "letterbox", "{anchor: centre, pad: 114}")?;
            letterbox(faults, node)
        }
    }
}

fn crop(faults: &mut Faults, node: Option<&Node>, input: Option<&InputSpec>) -> Option<FitSpec> {
    // of an input that cannot be read its own fault is enough
    let side = input.map_or(1, |input| input.width_px.min(input.height_px));
    let Some(node) = node else { return Some(FitSpec::Crop { resize_px: side }) };
    let section = faults.section(node, "'crop'", &["resize_px"])?;
    let node = faults.required(&section, "resize_px", "256")?;
    let resize_px = faults.integer(node, "resize_px", side..=2 * MAX_SIDE_PX)?;
    Some(FitSpec::Crop { resize_px })
}

fn letterbox(faults: &mut Faults, node: &Node) -> Option<FitSpec> {
    let anchors = [("centre", Anchor::Centre), ("top_left", Anchor::TopLeft)];
    let section = faults.section(node, "'letterbox'", &["anchor", "pad"])?;
    let anchor = faults.required(&section, "anchor", "centre").and_then(|n| faults.choice(n, "anchor", &anchors));
    let pad = faults.required(&section, "pad", "114").and_then(|n| faults.integer(n, "pad", 0..=255));
    Some(FitSpec::Letterbox { anchor: anchor?, pad: u8::try_from(pad?).ok()? })
}

fn head(faults: &mut Faults, node: &Node) -> Option<HeadSpec> {
    let named = node.map().and_then(|m| m.iter().find(|(k, _)| k.text() == Some("kind")));
    let Some((_, word)) = named else {
        let kinds: Vec<&str> = KINDS.iter().map(|kind| kind.name).collect();
        let kinds = kinds.join(", ");
        faults.fault_at(node, format!("'head' lacks 'kind'; write for example `kind: yolox`. Allowed: {kinds}"));
        return None;
    };
    let kinds: Vec<_> = KINDS.iter().map(|kind| (kind.name, kind)).collect();
    let kind = faults.choice(word, "kind", &kinds)?;
    let keys: Vec<&str> = std::iter::once("kind").chain(kind.keys.iter().map(|key| key.name)).collect();
    let section = faults.section(node, "'head'", &keys)?;
    Some(HeadSpec { kind, head: (kind.read)(&mut Keys { faults, section })? })
}

const DEFAULT_THRESHOLDS: Thresholds = Thresholds { score: 0.3, iou: 0.45, max_candidates: 3000 };

fn thresholds(faults: &mut Faults, node: &Node) -> Option<Thresholds> {
    let default = DEFAULT_THRESHOLDS;
    let section = faults.section(node, "'thresholds'", &["score", "iou", "max_candidates"])?;
    let score = section.get("score").map_or(Some(default.score), |n| faults.number(n, "score", 0.0..=1.0));
    let iou = section.get("iou").map_or(Some(default.iou), |n| faults.number(n, "iou", 0.0..=1.0));
    let max_candidates = section
        .get("max_candidates")
        .map_or(Some(default.max_candidates), |n| faults.integer(n, "max_candidates", 1..=100_000));
    Some(Thresholds { score: score?, iou: iou?, max_candidates: max_candidates? })
}

fn labels(faults: &mut Faults, node: &Node, folder: &Path) -> Option<Vec<Arc<str>>> {
    let labels: Vec<Arc<str>> = if let Some(list) = node.list() {
        let read: Vec<_> = list.iter().map(|n| faults.text(n, "labels").map(Arc::from)).collect();
        read.into_iter().collect::<Option<_>>()?
    } else if node.map().is_some() {
        let section = faults.section(node, "'labels'", &["file"])?;
        let place = faults.required(&section, "file", "classes.txt")?;
        let path: PathBuf = folder.join(path_of(faults, place, "file")?);
        match labels_of(&path) {
            Ok(labels) => labels.into_iter().map(Arc::from).collect(),
            Err(why) => {
                faults.fault_at(place, why);
                return None;
            }
        }
    } else {
        faults.fault_at(
            node,
            "'labels' is neither a list (`[person, car]`) nor a file of one label a line (`{file: classes.txt}`)",
        );
        return None;
    };
    if labels.is_empty() || labels.len() > MAX_LABELS {
        faults
            .fault_at(node, format!("{} labels; expected 1 to {MAX_LABELS}, one per class of the model", labels.len()));
        return None;
    }
    Some(labels)
}

/// The names in a file of one label a line.
///
/// # Errors
/// A sentence that names the file: it cannot be read, or a line of it is blank.
pub fn labels_of(path: &Path) -> Result<Vec<String>, String> {
    let shown = path.display();
    let text = read_text(path)
        .map_err(|cause| format!("cannot read the labels '{shown}': {cause}; expected a text, one label a line"))?;
    let text = text.trim_start_matches('\u{feff}').trim_end();
    if let Some(at) = text.lines().position(|line| line.trim().is_empty()) {
        let line = at + 1;
        return Err(format!("line {line} of '{shown}' is blank, so the labels after it would shift; remove it"));
    }
    Ok(text.lines().map(|line| line.trim().to_owned()).collect())
}
