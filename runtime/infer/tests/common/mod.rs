//! Models of every head that spells candidates, and outputs as they may come: few and many boxes, equal scores, numbers at
//! the threshold, and numbers that are none.
#![allow(dead_code, clippy::unwrap_used, reason = "each program uses its own part; a test fails where it is")]

use half::f16;
use half::slice::HalfFloatSliceExt;
use millrace_cuda::{DeviceMemory, Gpu, Span, Stream};
use millrace_detect::model::Thresholds;
use millrace_detect::{Boxes, Decoder, Mapping, Model, RawTensor};
use millrace_frame::{Letterbox, Size, TensorDtype};
use millrace_infer::Outlet;
use std::ops::Range;

/// A model whose first output spells candidates.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) head: &'static str,
    pub(crate) labels: usize,
    pub(crate) size_px: u32,
    pub(crate) shape: [usize; 3],
    /// Which numbers of a candidate are scores.
    pub(crate) scores: [usize; 2],
    pub(crate) logits: bool,
    /// The shape of a second output.
    pub(crate) second: Option<[usize; 4]>,
}

const fn case(
    name: &'static str,
    head: &'static str,
    labels: usize,
    size_px: u32,
    shape: [usize; 3],
    scores: [usize; 2],
) -> Case {
    Case { name, head, labels, size_px, shape, scores, logits: false, second: None }
}

const fn logits(of: Case) -> Case {
    Case { logits: true, ..of }
}

pub(crate) const YOLOX: Case = case("YOLOX 416", "{kind: yolox, output: a}", 80, 416, [1, 3549, 85], [4, 85]);
pub(crate) const YOLOV8: Case = case("YOLOv8 640", "{kind: yolov8, output: a}", 80, 640, [1, 84, 8400], [4, 84]);

/// Every kind of head that spells candidates, with every layout and kind of score.
pub(crate) const CASES: [Case; 11] = [
    YOLOX,
    YOLOV8,
    logits(case("YOLOX 320 logits", "{kind: yolox, output: a, scores: logits}", 80, 320, [1, 2100, 85], [4, 85])),
    case("YOLOv5 224", "{kind: yolov5, output: a}", 80, 224, [1, 3087, 85], [4, 85]),
    logits(case("YOLOv5 224 logits", "{kind: yolov5, output: a, scores: logits}", 20, 224, [1, 3087, 25], [4, 25])),
    logits(case("YOLOv8 320 logits", "{kind: yolov8, output: a, scores: logits}", 80, 320, [1, 84, 2100], [4, 84])),
    Case {
        second: Some([1, 32, 20, 20]),
        ..case("YOLOv8 320 masks", "{kind: yolov8, output: a, masks: b}", 80, 320, [1, 116, 2100], [4, 84])
    },
    case("YOLOv8 320 pose", "{kind: yolov8, output: a, keypoints: 17}", 1, 320, [1, 56, 2100], [4, 5]),
    case("YOLOv8 640 oriented", "{kind: yolov8, output: a, oriented: true}", 15, 640, [1, 20, 8400], [4, 19]),
    case("NanoDet 320", "{kind: nanodet, output: a}", 80, 320, [1, 2125, 112], [0, 80]),
    logits(case(
        "NanoDet 320 logits",
        "{kind: nanodet, output: a, strides_px: [8, 16, 32], scores: logits}",
        80,
        320,
        [1, 2100, 112],
        [0, 80],
    )),
];

/// How an output is filled.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fill {
    pub(crate) seed: u64,
    /// The part of the candidates that has a score above a twentieth.
    pub(crate) density: f64,
    /// The part of the numbers that is NaN, infinite, or another that is seldom met.
    pub(crate) odd: f64,
}

/// Numbers of an LCG.
pub(crate) struct Noise(pub(crate) u64);

impl Noise {
    /// From 0 to 1.
    pub(crate) fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as f64 / (1u64 << 31) as f64
    }
}

/// Below -0.01 and above 1.01 is no probability: outputs with the last two are refused as a whole.
const ODD: [f32; 9] =
    [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.0, -0.01, -0.005, 1.005, 1e-42, f32::MIN_POSITIVE];

impl Case {
    pub(crate) fn is_rows(&self) -> bool {
        self.shape[2] < self.shape[1]
    }

    /// Candidates and numbers of each.
    pub(crate) fn extents(&self) -> (usize, usize) {
        let [_, a, b] = self.shape;
        if self.is_rows() { (a, b) } else { (b, a) }
    }

    pub(crate) fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    pub(crate) fn model(&self, folder: &std::path::Path) -> Model {
        let path = folder.join("model.yml");
        let labels: Vec<String> = (0..self.labels).map(|n| format!("c{n}")).collect();
        let text = format!(
            "schema: 1\nname: t\nfile: t.onnx\n\
             input: {{name: in, width_px: {0}, height_px: {0}, layout: nchw, dtype: f32, colour: rgb}}\n\
             letterbox: {{anchor: centre, pad: 0}}\nhead: {1}\n\
             thresholds: {{score: 0.3, iou: 0.5, max_candidates: 100}}\nlabels: [{2}]\n",
            self.size_px,
            self.head,
            labels.join(", ")
        );
        std::fs::write(&path, text).unwrap();
        Model::load(&path).unwrap()
    }

    /// The first output of a frame.
    pub(crate) fn output(&self, fill: Fill) -> Vec<f32> {
        let (count, numbers) = self.extents();
        let mut noise = Noise(fill.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut data = vec![0.0; count * numbers];
        for candidate in 0..count {
            let high = noise.next() < fill.density;
            let best = (noise.next() * (self.scores[1] - self.scores[0]) as f64) as usize;
            for n in 0..numbers {
                let value = if (self.scores[0]..self.scores[1]).contains(&n) {
                    let score = n - self.scores[0];
                    // few values, so that scores are equal, and equal to thresholds
                    let steps = (noise.next() * 40.0).floor() / 40.0;
                    let is_high = high && (score == best || score == 0);
                    let p = if is_high { steps.max(0.05) } else { 0.04 * noise.next() };
                    if self.logits { (p.clamp(1e-4, 1.0 - 1e-4) / (1.0 - p).max(1e-4)).ln() } else { p }
                } else {
                    noise.next() * if n < 2 { f64::from(self.size_px) } else { 4.0 }
                };
                let odd = fill.odd > 0.0 && noise.next() < fill.odd;
                let value =
                    if odd { ODD[(noise.next() * ODD.len() as f64) as usize % ODD.len()] } else { value as f32 };
                let at = if self.is_rows() { candidate * numbers + n } else { n * count + candidate };
                data[at] = value;
            }
        }
        data
    }

    /// The second output of a frame, where there is one.
    pub(crate) fn second(&self) -> Option<(Vec<usize>, Vec<f32>)> {
        let shape = self.second?;
        let mut noise = Noise(5);
        Some((shape.to_vec(), (0..shape.iter().product()).map(|_| noise.next() as f32 - 0.5).collect()))
    }
}

/// The elements as a model of this type has them, and what they are in `f32`.
pub(crate) fn typed(data: &[f32], dtype: TensorDtype) -> (Vec<u8>, Vec<f32>) {
    match dtype {
        TensorDtype::F16 => {
            let mut half = vec![f16::ZERO; data.len()];
            half.convert_from_f32_slice(data);
            let bytes = half.iter().flat_map(|v| v.to_bits().to_ne_bytes()).collect();
            (bytes, half.iter().map(|v| v.to_f32()).collect())
        }
        _ => (data.iter().flat_map(|v| v.to_ne_bytes()).collect(), data.to_vec()),
    }
}

/// Bytes in the memory of a GPU.
pub(crate) fn on_gpu(gpu: &Gpu, stream: &Stream, bytes: &[u8]) -> (DeviceMemory, Span) {
    let memory = DeviceMemory::allocate(gpu, bytes.len() as u64, "an output").unwrap();
    stream.upload(bytes, memory.span()).unwrap();
    let span = memory.span();
    (memory, span)
}

/// What a new decoder makes of an output, as text that differs where any bit does.
pub(crate) fn boxes(
    model: &Model,
    score: f32,
    first: RawTensor<'_>,
    second: Option<&(Vec<usize>, Vec<f32>)>,
) -> String {
    let mut decoder = Decoder::new(model);
    decoder.set_thresholds(Thresholds { score, ..model.thresholds });
    let second = second.map(|(shape, data)| RawTensor::whole("b", shape, data));
    let outputs: Vec<RawTensor<'_>> = [first].into_iter().chain(second).collect();
    let size = Size::new(model.input.width_px, model.input.height_px);
    let source_from_model = Letterbox { scale_x: 1.5, scale_y: 1.5, offset_x: -3.0, offset_y: 2.0 };
    let found: Result<Boxes, _> = decoder.detect(&outputs, &Mapping { source_from_model, source_size: size });
    // `{:?}` of a float is the shortest text that is this float and no other
    format!("{found:?}")
}

/// The candidates that a head does more with than count them, by the definition of its score.
fn wanted(case: &Case, data: &[f32], deciding: Range<usize>, score: f32) -> Vec<u32> {
    let (count, numbers) = case.extents();
    let at = |c: usize, n: usize| data[if case.is_rows() { c * numbers + n } else { n * count + c }];
    let is_wanted = |&c: &usize| {
        let numbers = deciding.clone().map(|n| at(c, n)).filter(|n| !n.is_nan());
        let largest = numbers.fold(f32::NEG_INFINITY, f32::max);
        !largest.is_finite() || largest < -0.01 || largest >= score
    };
    (0..count).filter(is_wanted).map(|c| c as u32).collect()
}

/// What a comparison came to.
#[derive(Debug, Default)]
pub(crate) struct Compared {
    /// Frames that came without some candidates.
    pub(crate) few: usize,
    /// Frames that came whole.
    pub(crate) whole: usize,
    /// A sentence for each difference.
    pub(crate) wrong: Vec<String>,
}

/// The boxes of outputs that come by an [`Outlet`] against those of the whole output: every head, both types, few and many
/// candidates, odd numbers, thresholds at which all or nothing is a box. An outlet serves batch after batch: nothing of one
/// may stay for the next.
pub(crate) fn compared(gpu: &Gpu) -> Compared {
    let stream = Stream::new(gpu).unwrap();
    let mut compared = Compared::default();
    for case in CASES {
        let folder = tempfile::tempdir().unwrap();
        let model = case.model(folder.path());
        let (grid, second) = (Decoder::new(&model).grid().unwrap(), case.second());
        for dtype in [TensorDtype::F32, TensorDtype::F16] {
            let new = || Outlet::new(gpu, "a", case.shape.to_vec(), 2, dtype, Some(grid.clone())).unwrap();
            let mut outlet = new();
            let fills = [(0.0, 0.0), (0.002, 0.0), (0.01, 1e-5), (0.03, 1e-4), (0.5, 0.0)];
            let runs = [0.3, 0.05, 0.975, 1.0, 0.0, 1e-6].into_iter().flat_map(|score| fills.map(|fill| (score, fill)));
            for (seed, (score, (density, odd))) in (1u64..).zip(runs) {
                let fill = |n: u64| Fill { seed: 2 * seed + n, density, odd };
                let frames = [0, 1].map(|n| typed(&case.output(fill(n)), dtype));
                let (_memory, span) = on_gpu(gpu, &stream, &[&frames[0].0[..], &frames[1].0].concat());
                // one frame or both
                let many = 1 + seed as usize % 2;
                outlet.queue(&stream, span, many, score).unwrap();
                outlet.arrive(&stream).unwrap();
                let mut crowded = false;
                for (n, (_, data)) in frames.iter().enumerate().take(many) {
                    let (ours, theirs) = (outlet.tensor(n), RawTensor::whole("a", &case.shape, data));
                    let what = format!("{} {dtype} score {score} density {density} odd {odd} frame {n}", case.name);
                    let of = |tensor| boxes(&model, score, tensor, second.as_ref());
                    let (found, expected) = (of(ours), of(theirs));
                    if found != expected {
                        compared.wrong.push(format!("{what}: {found:.300}; expected {expected:.300}"));
                    }
                    let Some(kept) = ours.kept else {
                        (compared.whole, crowded) = (compared.whole + 1, true);
                        continue;
                    };
                    compared.few += 1;
                    let wanted = wanted(&case, data, grid.candidates.deciding.clone(), score);
                    if kept.all != case.extents().0 || !case.logits && kept.places != wanted {
                        compared.wrong.push(format!("{what}: kept {:?}; expected {wanted:?}", kept.places));
                    }
                }
                if crowded {
                    // the batches that follow would come whole
                    outlet = new();
                }
            }
        }
    }
    compared
}
