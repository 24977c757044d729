//! Tensors, boxes and pictures of arms that never ran.

use super::normal;
use fastrand::Rng;
use millrace_ab::model::{FrameBoxes, Picture, Quality, TensorPair};
use millrace_frame::DetBox;

pub(crate) struct Planted {
    /// Standard deviation of the tensors' difference, of a range of 1.
    pub(crate) tensor_error: f64,
    /// B lacks a clear box in every frame of this many; 0: never.
    pub(crate) lose_every: u64,
    pub(crate) frames: u64,
}

pub(crate) fn quality(planted: &Planted, r: &mut Rng) -> Quality {
    let mut q = Quality { score_threshold: 0.3, ..Quality::default() };
    for seq in 0..planted.frames {
        let (elements, error) = (519_168u64, planted.tensor_error * (0.2 * normal(r)).exp());
        q.tensors.push(TensorPair {
            source: "cam".into(),
            seq,
            pts_ns: seq as i64 * 40_000_000,
            elements,
            differing: if error > 0.0 { elements / 7 } else { 0 },
            sum_squared: error * error * elements as f64,
            largest: error * 5.0,
            range_a: [0.0, 1.0],
        });
        let truth: Vec<DetBox> = (0..4)
            .map(|i| {
                let x = (seq as f32 * 3.0 + 150.0 * i as f32) % 520.0;
                let y = 60.0 + 70.0 * i as f32;
                let label = ["car", "person"][i % 2].to_owned();
                DetBox {
                    x1: x,
                    y1: y,
                    x2: x + 90.0,
                    y2: y + 60.0,
                    score: 1.0,
                    class_id: i as u32 % 2,
                    label,
                    ..DetBox::default()
                }
            })
            .collect();
        let mut found = |score: f32| -> Vec<DetBox> {
            let mut jitter = || normal(r) as f32;
            truth
                .iter()
                .enumerate()
                .map(|(i, t)| DetBox {
                    x1: t.x1 + jitter(),
                    y1: t.y1 + jitter(),
                    x2: t.x2 + jitter(),
                    y2: t.y2 + jitter(),
                    score: score - 0.1 * i as f32,
                    ..t.clone()
                })
                .collect()
        };
        let a = found(0.9);
        let mut b = a.clone();
        if planted.lose_every > 0 && seq % planted.lose_every == 0 {
            b.remove(1);
        }
        let frame = |boxes| FrameBoxes { source: "cam".into(), seq, pts_ns: 0, boxes, ignored: vec![] };
        q.detections_a.push(frame(a));
        q.detections_b.push(frame(b));
        q.truth.push(frame(truth));
    }
    if planted.lose_every > 0 {
        q.pictures = (0..2).map(|i| picture(i * planted.lose_every)).collect();
    }
    q
}

fn picture(seq: u64) -> Picture {
    let pixels: Vec<u8> = (0..360u32)
        .flat_map(|y| (0..640u32).flat_map(move |x| [(x / 4) as u8, (y / 2) as u8, ((x / 40 + y / 40) % 2 * 90) as u8]))
        .collect();
    let mut jpeg = Vec::new();
    jpeg_encoder::Encoder::new(&mut jpeg, 60).encode(&pixels, 640, 360, jpeg_encoder::ColorType::Rgb).unwrap();
    Picture { source: "cam".into(), seq, width_px: 640, height_px: 360, jpeg_base64: base64(&jpeg) }
}

fn base64(bytes: &[u8]) -> String {
    let letters: Vec<char> = ('A'..='Z').chain('a'..='z').chain('0'..='9').chain(['+', '/']).collect();
    let mut out = String::new();
    for part in bytes.chunks(3) {
        let word = part.iter().chain([&0, &0]).take(3).fold(0usize, |w, b| w << 8 | usize::from(*b));
        for i in 0..4 {
            out.push(if i <= part.len() { letters[word >> (18 - 6 * i) & 63] } else { '=' });
        }
    }
    out
}
