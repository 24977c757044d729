//! What follows a box's class scores in the outputs of the YOLO families: coefficients of a mask, key points, an angle.

use super::kind::Keys;
use super::{Axis, Canvas, Expected, HeadError, Key, RawTensor, Seen, Shape, Task, mask};
use crate::nms::Candidate;

pub(super) const MASKS: Key = Key {
    name: "masks",
    default: Some("none"),
    doc: "of a segmentation model: name of the output `[1, M, h, w]` with the prototypes of masks; each box has `M` coefficients",
};
pub(super) const COEFFICIENTS: Key = Key { name: "coefficients", default: Some("32"), doc: "`M`, with `masks`" };
pub(super) const KEYPOINTS: Key = Key {
    name: "keypoints",
    default: Some("none"),
    doc: "of a pose model: how many key points each box has; x and y are in model pixels",
};
pub(super) const KEYPOINT_NUMBERS: Key = Key {
    name: "keypoint_numbers",
    default: Some("3"),
    doc: "with `keypoints`: 3 where each has a confidence behind x and y, else 2",
};
pub(super) const ORIENTED: Key = Key {
    name: "oriented",
    default: Some("false"),
    doc: "`true` for a model of oriented boxes: centre x, y, width, height are those of a rectangle that is turned by the box's last \
          number, an angle in radians, clockwise. How far two overlap is ProbIoU (Llerena et al., 2021)",
};
pub(super) const UNREAD: Key = Key {
    name: "extra",
    default: Some("0"),
    doc: "how many numbers of each box behind those of the head are not read, where no other key says what they are",
};

/// What the numbers behind the class scores are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Extra {
    Unread(usize),
    Masks { output: String, coefficients: usize },
    Keypoints { points: usize, numbers: usize },
    Angle,
}

/// More prototypes or key points than this no model has.
const MOST: u32 = 1000;

impl Extra {
    pub(super) fn read(keys: &mut Keys<'_, '_>) -> Option<Self> {
        let given: Vec<&str> =
            ["masks", "keypoints", "oriented", "extra"].into_iter().filter(|key| keys.has(key)).collect();
        if let [first, second, ..] = given[..] {
            keys.refuse(&format!("'head' has '{first}' and '{second}', and a box has one of them; remove the other"));
            return None;
        }
        for (key, of) in [("coefficients", "masks"), ("keypoint_numbers", "keypoints")] {
            if keys.has(key) && !keys.has(of) {
                keys.refuse(&format!("'head' has '{key}' without '{of}', which it belongs to; give both or none"));
                return None;
            }
        }
        if keys.has("masks") {
            let (output, n) = (keys.name("masks"), keys.integer("coefficients", Some(32), 1..=MOST));
            return Some(Self::Masks { output: output?, coefficients: n? as usize });
        }
        if keys.has("keypoints") {
            let points = keys.integer("keypoints", None, 1..=MOST);
            let numbers = keys.integer("keypoint_numbers", Some(3), 2..=3);
            return Some(Self::Keypoints { points: points? as usize, numbers: numbers? as usize });
        }
        if keys.flag("oriented")? {
            return Some(Self::Angle);
        }
        keys.integer("extra", Some(0), 0..=10_000).map(|n| Self::Unread(n as usize))
    }

    /// What these outputs, the first of which has the boxes, and their exporter say that the numbers are: with the text for
    /// `head:`.
    pub(super) fn guess(seen: &Seen<'_>) -> Option<(Self, String)> {
        let none = Some((Self::Unread(0), String::new()));
        match (&seen.outputs[1..], seen.task) {
            ([prototypes], None | Some(Task::Segment)) => {
                let [_, n, ..] = prototypes.extents::<4>()?;
                let of = if n == 32 { String::new() } else { format!(", coefficients: {n}") };
                let text = format!(", masks: {}{of}", prototypes.name);
                (n > 0).then(|| (Self::Masks { output: prototypes.name.clone(), coefficients: n }, text))
            }
            ([], None | Some(Task::Detect)) => none,
            ([], Some(Task::Pose)) => {
                let (points, numbers) = seen.keypoints?;
                let of = if numbers == 3 { String::new() } else { format!(", keypoint_numbers: {numbers}") };
                Some((Self::Keypoints { points, numbers }, format!(", keypoints: {points}{of}")))
            }
            ([], Some(Task::Oriented)) => Some((Self::Angle, ", oriented: true".to_owned())),
            _ => None,
        }
    }

    /// How many numbers of each box they are.
    pub(super) fn numbers(&self) -> usize {
        match self {
            Self::Unread(n) | Self::Masks { coefficients: n, .. } => *n,
            Self::Keypoints { points, numbers } => points * numbers,
            Self::Angle => 1,
        }
    }

    /// They in words, for a sum of a box's numbers.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Unread(0) => String::new(),
            Self::Unread(n) => format!(" + extra {n}"),
            Self::Masks { coefficients, .. } => format!(" + {coefficients} coefficients"),
            Self::Keypoints { points, numbers } => format!(" + {points} key points of {numbers}"),
            Self::Angle => " + an angle".to_owned(),
        }
    }

    /// The outputs of a head whose first one has the boxes.
    pub(super) fn outputs<'a>(&'a self, boxes: &'a str) -> Vec<&'a str> {
        match self {
            Self::Masks { output, .. } => vec![boxes, output],
            _ => vec![boxes],
        }
    }

    /// Their shapes.
    pub(super) fn expected(&self, boxes: Expected) -> Vec<Expected> {
        match self {
            Self::Masks { coefficients, .. } => {
                let axes = [Axis::Is(1), Axis::Is(*coefficients), Axis::Open, Axis::Open];
                vec![boxes, Expected::new(axes, format!("{coefficients} prototypes, then rows and columns"))]
            }
            _ => vec![boxes],
        }
    }

    pub(super) fn is_oriented(&self) -> bool {
        *self == Self::Angle
    }

    /// What these numbers of the box say.
    pub(super) fn shape(
        &self,
        kind: &'static str,
        numbers: impl Iterator<Item = f32>,
        outputs: &[RawTensor<'_>],
        canvas: &Canvas,
        of: &Candidate,
    ) -> Result<Shape, HeadError> {
        match self {
            Self::Unread(_) | Self::Angle => Ok(Shape::None),
            Self::Masks { .. } => Ok(Shape::Mask(mask::rings(&outputs[1], &numbers.collect::<Vec<_>>(), canvas, of))),
            Self::Keypoints { numbers: each, .. } => {
                let numbers: Vec<f32> = numbers.collect();
                let point = |point: &[f32]| match *point {
                    [x, y] => Ok(([x, y], None)),
                    // rounding of the sigmoid
                    [x, y, score] if (-0.01..=1.01).contains(&score) => Ok(([x, y], Some(score.clamp(0.0, 1.0)))),
                    [.., score] => Err(HeadError::NotVisibility { kind, value: score.to_string() }),
                    [] => Ok(([0.0; 2], None)),
                };
                numbers.chunks_exact(*each).map(point).collect::<Result<_, _>>().map(Shape::Keypoints)
            }
        }
    }
}
