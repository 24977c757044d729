//! What is known of a head before a model is there: its name, its keys in `model.yml`, and the models that look like it.

use super::{Head, KINDS};
use crate::model::Scores;
use crate::signature::Port;
use crate::yaml::{Faults, Section};
use millrace_frame::Size;
use std::borrow::Cow;
use std::sync::Arc;

/// A kind of head: what stands behind `kind:` in `model.yml`.
pub struct Kind {
    /// Its name there.
    pub name: &'static str,
    /// The detectors that it is for.
    pub serves: &'static str,
    /// Its outputs' shapes, for the documentation.
    pub outputs: &'static str,
    /// What the numbers are, for the documentation.
    pub numbers: &'static str,
    /// Its keys beside `kind`.
    pub keys: &'static [Key],
    pub(crate) read: fn(&mut Keys<'_, '_>) -> Option<Arc<dyn Head>>,
    /// What a model file that looks like this head's may be, the likeliest first.
    pub(crate) guess: fn(&Seen<'_>) -> Vec<Guess>,
}

impl std::fmt::Debug for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// A key of a head.
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// Its default, as the documentation shows it; `None` where it is required.
    pub default: Option<&'static str>,
    /// What it means.
    pub doc: &'static str,
}

impl Key {
    pub(super) const OUTPUT: Self = Self { name: "output", default: None, doc: "name of the output" };
    pub(super) const SCORES: Self = Self {
        name: "scores",
        default: Some("`probabilities`"),
        doc: "`logits` when the model ends without a sigmoid",
    };

    /// Whether it chooses between probabilities and logits; `scores` of other heads is the name of an output.
    fn is_kind_of_scores(&self) -> bool {
        self.name == "scores" && self.default.is_some_and(|default| default.contains("`probabilities`"))
    }
}

/// What is known of a model file before it has a description.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// Its outputs.
    pub outputs: &'a [Port],
    /// Size of its input picture.
    pub input: Size,
    /// What its exporter says that it does.
    pub task: Option<Task>,
    /// How many key points its exporter says that an object has, and how many numbers each.
    pub keypoints: Option<(usize, usize)>,
}

impl<'a> Seen<'a> {
    /// Of a file that says nothing but its shapes.
    pub fn shapes(outputs: &'a [Port], input: Size) -> Self {
        Self { outputs, input, task: None, keypoints: None }
    }
}

/// What a model does, as Ultralytics calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// `detect`: upright boxes.
    Detect,
    /// `segment`: boxes with masks.
    Segment,
    /// `pose`: boxes with key points.
    Pose,
    /// `obb`: oriented boxes.
    Oriented,
    /// `classify`: classes of the whole picture.
    Classify,
}

impl Task {
    /// Each with its name.
    pub const ALL: [(&'static str, Self); 5] = [
        ("detect", Self::Detect),
        ("segment", Self::Segment),
        ("pose", Self::Pose),
        ("obb", Self::Oriented),
        ("classify", Self::Classify),
    ];
}

/// What a model file's outputs look like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guess {
    /// The text of `head:` in `model.yml`.
    pub head: String,
    /// How many classes the shapes leave room for; `None` where they don't say.
    pub classes: Option<usize>,
    /// How pictures are prepared for models of this family.
    pub recipe: Recipe,
}

impl Guess {
    /// The same with scores of this kind, `logits` or `probabilities`; none where the head does not leave that open, or the text
    /// says it.
    pub fn with_scores(&self, scores: &str) -> Option<Self> {
        let inside = self.head.strip_suffix('}')?;
        let kind = KINDS.iter().find(|kind| inside.starts_with(&format!("{{kind: {},", kind.name)))?;
        let is_open = kind.keys.iter().any(Key::is_kind_of_scores) && !inside.contains("scores:");
        is_open.then(|| Self { head: format!("{inside}, scores: {scores}}}"), ..self.clone() })
    }
}

/// How a picture is prepared for a model; what no model file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipe {
    /// `colour` of `input` in `model.yml`.
    pub colour: &'static str,
    /// `scale` and `mean` there. A model whose input is bytes does that itself.
    pub scaling: &'static str,
    /// `letterbox` or `fit` there, and what belongs to it.
    pub fit: Cow<'static, str>,
    /// Models of the same outputs that are prepared otherwise, and how.
    pub others: &'static str,
}

const UNIT: &str = "scale: [0.00392157, 0.00392157, 0.00392157]";
/// Mean and deviation of ImageNet.
const IMAGENET: &str = "scale: [0.0171248, 0.0175070, 0.0174292], mean: [123.675, 116.28, 103.53]";
const OLD_YOLOX: &str = "weights of YOLOX 0.1.0 and before have `colour: rgb, \
    scale: [0.0171248, 0.0175070, 0.0174292], mean: [123.675, 116.28, 103.53]`";
const PP_YOLOE: &str = "PP-YOLOE as super-gradients trains it has `scale: [0.0171248, 0.0175070, 0.0174292], \
    mean: [123.675, 116.28, 103.53]` and `fit: stretch`";
const OLD_NANODET: &str = "NanoDet before NanoDet-Plus has `letterbox: {anchor: centre, pad: 0}`, and with EfficientNet-Lite \
    `scale: [0.0078125, 0.0078125, 0.0078125], mean: [127, 127, 127]`, too";

impl Recipe {
    /// YOLO-NAS, too: its authors leave 2 pixels more at each side, which shifts no box.
    pub(super) const ULTRALYTICS: Self =
        Self { colour: "rgb", scaling: UNIT, fit: Cow::Borrowed("letterbox: {anchor: centre, pad: 114}"), others: "" };
    pub(super) const YOLO_NAS: Self = Self { others: PP_YOLOE, ..Self::ULTRALYTICS };
    pub(super) const YOLOX: Self = Self {
        colour: "bgr",
        scaling: "",
        fit: Cow::Borrowed("letterbox: {anchor: top_left, pad: 114}"),
        others: OLD_YOLOX,
    };
    pub(super) const STRETCHED: Self = Self { fit: Cow::Borrowed("fit: stretch"), ..Self::ULTRALYTICS };
    pub(super) const CROPPED: Self = Self { fit: Cow::Borrowed("fit: crop"), ..Self::ULTRALYTICS };
    pub(super) const RF_DETR: Self = Self { scaling: IMAGENET, ..Self::STRETCHED };
    pub(super) const NANODET: Self = Self {
        colour: "bgr",
        scaling: "scale: [0.0174292, 0.0175070, 0.0171248], mean: [103.53, 116.28, 123.675]",
        fit: Cow::Borrowed("fit: stretch"),
        others: OLD_NANODET,
    };

    /// As torchvision's and most of timm's classifiers are evaluated: seven eighths of the picture's shorter side.
    pub(super) fn of_classifier(input: Size) -> Self {
        let resize_px = (u64::from(input.width_px.min(input.height_px)) * 8 + 3) / 7;
        Self { fit: format!("fit: crop\ncrop: {{resize_px: {resize_px}}}").into(), ..Self::RF_DETR }
    }
}

/// The mapping behind `head:`, with faults noted where they stand.
pub(crate) struct Keys<'f, 'n> {
    pub(crate) faults: &'f mut Faults,
    pub(crate) section: Section<'n>,
}

const SCORES: [(&str, Scores); 2] = [("probabilities", Scores::Probabilities), ("logits", Scores::Logits)];

impl Keys<'_, '_> {
    /// The name of an output.
    pub(super) fn name(&mut self, key: &'static str) -> Option<String> {
        self.faults.required(&self.section, key, key).and_then(|n| self.faults.text(n, key))
    }

    /// The name of an output that is called so where nothing is said.
    pub(super) fn name_or(&mut self, key: &'static str, default: &str) -> Option<String> {
        self.section.get(key).map_or(Some(default.to_owned()), |n| self.faults.text(n, key))
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.section.get(key).is_some()
    }

    /// A fault of the whole mapping.
    pub(super) fn refuse(&mut self, text: &str) {
        let node = self.section.node();
        self.faults.fault_at(node, text);
    }

    /// One name for each level.
    pub(super) fn names(&mut self, key: &'static str) -> Option<Vec<String>> {
        let node = self.faults.required(&self.section, key, "[first, second, third]")?;
        let Some(list) = node.list().filter(|list| (1..=8).contains(&list.len())) else {
            self.faults.fault_at(
                node,
                format!("'{key}' is a list of outputs' names, one for each stride: `{key}: [a, b, c]`"),
            );
            return None;
        };
        let read: Vec<_> = list.iter().map(|n| self.faults.text(n, key)).collect();
        read.into_iter().collect()
    }

    pub(super) fn scores(&mut self, default: Scores) -> Option<Scores> {
        self.section.get("scores").map_or(Some(default), |n| self.faults.choice(n, "scores", &SCORES))
    }

    pub(super) fn strides(&mut self) -> Option<Option<Vec<u32>>> {
        let Some(node) = self.section.get("strides_px") else { return Some(None) };
        match node.list() {
            Some(list) if (1..=8).contains(&list.len()) => {
                let read: Vec<_> = list.iter().map(|n| self.faults.integer(n, "strides_px", 1..=1024)).collect();
                read.into_iter().collect::<Option<_>>().map(Some)
            }
            _ => {
                self.faults.fault_at(node, "'strides_px' is a list of 1 to 8 integers: `strides_px: [8, 16, 32]`");
                None
            }
        }
    }

    /// Whether these strides are in the order in which one output has the cells of all levels.
    pub(super) fn in_order(&mut self, strides_px: &[u32]) -> Option<()> {
        if strides_px.is_sorted_by(|a, b| a < b) {
            return Some(());
        }
        let mut sorted = strides_px.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        let text = format!(
            "'strides_px' is {strides_px:?}; an output has the cells of the smallest stride first, so every box would be elsewhere: \
             write {sorted:?}"
        );
        let node = self.section.get("strides_px").unwrap_or_else(|| self.section.node());
        self.faults.fault_at(node, text);
        None
    }

    pub(super) fn integer(
        &mut self,
        key: &'static str,
        default: Option<u32>,
        range: std::ops::RangeInclusive<u32>,
    ) -> Option<u32> {
        match (self.section.get(key), default) {
            (Some(node), _) => self.faults.integer(node, key, range),
            (None, Some(default)) => Some(default),
            (None, None) => {
                let like = range.start().max(&8).to_string();
                self.faults.required(&self.section, key, &like).and(None)
            }
        }
    }

    pub(super) fn number(&mut self, key: &'static str, range: std::ops::RangeInclusive<f32>) -> Option<Option<f32>> {
        match self.section.get(key) {
            Some(node) => self.faults.number(node, key, range).map(Some),
            None => Some(None),
        }
    }

    /// A key that is `true` or `false`.
    pub(super) fn flag(&mut self, key: &'static str) -> Option<bool> {
        self.section.get(key).map_or(Some(false), |n| self.faults.flag(n, key))
    }
}
