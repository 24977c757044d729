//! Detections of the arms against each other and against the truth.

use crate::model::{FrameBoxes, Quality};
use millrace_frame::DetBox;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// A box whose score is this far above the threshold is a clear one: it does not come and go by rounding.
pub(crate) const CLEAR_MARGIN: f32 = 0.1;

/// Mean average precision, 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Accuracy {
    /// At IoU 0.5.
    pub map_50: f64,
    /// Mean over IoU 0.5, 0.55, ... 0.95.
    pub map_50_95: f64,
}

/// A frame in which B has boxes that A lacks, or the reverse.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BoxChange {
    /// Camera id.
    pub source: String,
    /// Number of the frame.
    pub seq: u64,
    /// Boxes of B that overlap (IoU >= 0.5) no box of A's of their class.
    pub gained: u32,
    /// Boxes of A that overlap none of B's.
    pub lost: u32,
    /// Of `gained`, those that are clear.
    pub gained_clear: u32,
    /// Of `lost`, those that are clear.
    pub lost_clear: u32,
}

/// What follows from the detections.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DetectionResult {
    /// Frames that both arms have.
    pub frames: u64,
    /// Frames that only one of them has.
    pub frames_unpaired: u64,
    /// B's boxes with A's for the truth; `None` where A found none.
    pub b_against_a: Option<Accuracy>,
    /// A's boxes against the truth, where there is one.
    pub a_against_truth: Option<Accuracy>,
    /// B's.
    pub b_against_truth: Option<Accuracy>,
    /// Boxes of A.
    pub boxes_a: u64,
    /// Boxes of B.
    pub boxes_b: u64,
    /// Sums over the frames.
    pub gained: u64,
    /// Of A's that B lacks.
    pub lost: u64,
    /// Clear ones among the gained.
    pub gained_clear: u64,
    /// Clear ones among the lost.
    pub lost_clear: u64,
    /// Frames that changed, worst first.
    pub changed: Vec<BoxChange>,
}

impl DetectionResult {
    /// What mAP@0.5 falls by from A to B, in points of 100: against the truth, else against A.
    #[must_use]
    pub fn map_drop(&self) -> Option<f64> {
        match (self.a_against_truth, self.b_against_truth) {
            (Some(a), Some(b)) => Some((a.map_50 - b.map_50) * 100.0),
            _ => self.b_against_a.map(|b| (1.0 - b.map_50) * 100.0),
        }
    }
}

type Key<'a> = (&'a str, u64);

fn keyed(frames: &[FrameBoxes]) -> BTreeMap<Key<'_>, &FrameBoxes> {
    frames.iter().map(|f| ((f.source.as_str(), f.seq), f)).collect()
}

pub(crate) fn analyse(quality: &Quality) -> Option<DetectionResult> {
    let (a, b) = (keyed(&quality.detections_a), keyed(&quality.detections_b));
    if a.is_empty() && b.is_empty() {
        return None;
    }
    let truth = keyed(&quality.truth);
    let both: Vec<Key<'_>> = a.keys().filter(|k| b.contains_key(*k)).copied().collect();
    let clear = quality.score_threshold + CLEAR_MARGIN;
    let mut changed = Vec::new();
    for key in &both {
        let (a, b) = (&a[key].boxes, &b[key].boxes);
        let (gained, gained_clear) = lacking(b, a, clear);
        let (lost, lost_clear) = lacking(a, b, clear);
        if gained + lost > 0 {
            changed.push(BoxChange { source: key.0.to_owned(), seq: key.1, gained, lost, gained_clear, lost_clear });
        }
    }
    changed.sort_by_key(|c| std::cmp::Reverse((c.gained_clear + c.lost_clear, c.gained + c.lost)));
    let sum = |f: fn(&BoxChange) -> u32| changed.iter().map(|c| u64::from(f(c))).sum();
    let against = |found: &BTreeMap<Key<'_>, &FrameBoxes>, truth: &BTreeMap<Key<'_>, &FrameBoxes>| {
        let frames: Vec<Sample<'_>> = both
            .iter()
            .filter_map(|k| {
                let t = truth.get(k)?;
                Some(Sample { found: &found[k].boxes, truth: &t.boxes, ignored: &t.ignored })
            })
            .collect();
        accuracy(&frames)
    };
    Some(DetectionResult {
        frames: both.len() as u64,
        frames_unpaired: (a.len() + b.len() - 2 * both.len()) as u64,
        b_against_a: against(&b, &a),
        a_against_truth: against(&a, &truth),
        b_against_truth: against(&b, &truth),
        boxes_a: both.iter().map(|k| a[k].boxes.len() as u64).sum(),
        boxes_b: both.iter().map(|k| b[k].boxes.len() as u64).sum(),
        gained: sum(|c| c.gained),
        lost: sum(|c| c.lost),
        gained_clear: sum(|c| c.gained_clear),
        lost_clear: sum(|c| c.lost_clear),
        changed,
    })
}

/// Boxes of `of` that find no partner among `among`: all, and the clear ones.
fn lacking(of: &[DetBox], among: &[DetBox], clear: f32) -> (u32, u32) {
    let alone = alone(of, among);
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    (count(alone.len()), count(alone.iter().filter(|i| of[**i].score >= clear).count()))
}

/// Which boxes of `of` overlap (IoU >= 0.5) none of their class among `among`. A partner serves one box only; the pairs
/// that overlap most are made first.
pub(crate) fn alone(of: &[DetBox], among: &[DetBox]) -> Vec<usize> {
    let mut pairs: Vec<(f64, usize, usize)> = Vec::new();
    for (i, x) in of.iter().enumerate() {
        for (j, y) in among.iter().enumerate().filter(|(_, y)| y.class_id == x.class_id) {
            let overlap = iou(x, y);
            if overlap >= 0.5 {
                pairs.push((overlap, i, j));
            }
        }
    }
    pairs.sort_by(|x, y| y.0.total_cmp(&x.0));
    let (mut left, mut right) = (BTreeSet::new(), BTreeSet::new());
    for (_, i, j) in pairs {
        if !left.contains(&i) && !right.contains(&j) {
            left.insert(i);
            right.insert(j);
        }
    }
    (0..of.len()).filter(|i| !left.contains(i)).collect()
}

fn area(b: &DetBox) -> f64 {
    f64::from(b.x2 - b.x1).max(0.0) * f64::from(b.y2 - b.y1).max(0.0)
}

fn common(a: &DetBox, b: &DetBox) -> f64 {
    f64::from(a.x2.min(b.x2) - a.x1.max(b.x1)).max(0.0) * f64::from(a.y2.min(b.y2) - a.y1.max(b.y1)).max(0.0)
}

fn iou(a: &DetBox, b: &DetBox) -> f64 {
    let shared = common(a, b);
    let all = area(a) + area(b) - shared;
    if all > 0.0 { shared / all } else { 0.0 }
}

struct Sample<'a> {
    found: &'a [DetBox],
    truth: &'a [DetBox],
    ignored: &'a [DetBox],
}

fn accuracy(frames: &[Sample<'_>]) -> Option<Accuracy> {
    let classes: BTreeSet<u32> = frames.iter().flat_map(|f| f.truth.iter().map(|b| b.class_id)).collect();
    if classes.is_empty() {
        return None;
    }
    let at =
        |least: f64| classes.iter().map(|c| average_precision(frames, *c, least)).sum::<f64>() / classes.len() as f64;
    let steps: Vec<f64> = (0..10).map(|i| at(0.5 + f64::from(i) * 0.05)).collect();
    Some(Accuracy { map_50: steps[0], map_50_95: steps.iter().sum::<f64>() / 10.0 })
}

/// COCO's rules (cocodataset.org, Detection Evaluation): by falling score each box takes the free truth that it overlaps
/// most; one that finds none but a free ignored one takes that and counts neither way; precision is made falling and read
/// at 101 recalls. Of a frame at most 100 boxes of a class count.
fn average_precision(frames: &[Sample<'_>], class: u32, least: f64) -> f64 {
    let mut hits: Vec<(f32, bool)> = Vec::new();
    let mut truths = 0usize;
    for frame in frames {
        let truth: Vec<_> = frame.truth.iter().filter(|b| b.class_id == class).collect();
        let ignored: Vec<_> = frame.ignored.iter().filter(|b| b.class_id == class).collect();
        let mut found: Vec<_> = frame.found.iter().filter(|b| b.class_id == class).collect();
        found.sort_by(|x, y| y.score.total_cmp(&x.score));
        truths += truth.len();
        let mut taken = vec![false; truth.len()];
        let mut taken_ignored = vec![false; ignored.len()];
        for b in found.into_iter().take(100) {
            if take(b, &truth, &mut taken, least) {
                hits.push((b.score, true));
            } else if !take(b, &ignored, &mut taken_ignored, least) {
                hits.push((b.score, false));
            }
        }
    }
    if truths == 0 {
        return 0.0;
    }
    hits.sort_by(|x, y| y.0.total_cmp(&x.0));
    let mut right = 0usize;
    let mut curve: Vec<(f64, f64)> = Vec::new();
    for (i, (_, hit)) in hits.iter().enumerate() {
        right += usize::from(*hit);
        curve.push((right as f64 / truths as f64, right as f64 / (i + 1) as f64));
    }
    let mut best = 0.0f64;
    for point in curve.iter_mut().rev() {
        best = best.max(point.1);
        point.1 = best;
    }
    (0..=100)
        .map(|i| {
            // as the reference computes them: a division would round some of them otherwise
            let recall = f64::from(i) * 0.01;
            let at = curve.partition_point(|p| p.0 < recall);
            curve.get(at).map_or(0.0, |p| p.1)
        })
        .sum::<f64>()
        / 101.0
}

/// Marks the free one of `among` that `b` overlaps most; of equal ones the last.
fn take(b: &DetBox, among: &[&DetBox], taken: &mut [bool], least: f64) -> bool {
    let free = among.iter().enumerate().filter(|(i, _)| !taken[*i]).map(|(i, t)| (i, iou(b, t)));
    let best = free.filter(|(_, overlap)| *overlap >= least.min(1.0 - 1e-10)).max_by(|x, y| x.1.total_cmp(&y.1));
    if let Some((i, _)) = best {
        taken[i] = true;
    }
    best.is_some()
}

#[cfg(test)]
#[path = "detections_tests.rs"]
mod tests;
