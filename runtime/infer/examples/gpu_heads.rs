//! A head's candidates on a real GPU: are the boxes those of the whole output, and what does it save?
//!
//! ```sh
//! cargo run --release -p millrace-infer --example gpu_heads -- [--device N] [--rounds N] [--json FILE]
//! ```
//! The program needs a GPU and its driver, no compiler and no network. It exits 1 where there is no GPU or a box is wrong.
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a program for a terminal")]

#[path = "../tests/common/mod.rs"]
mod common;

use common::{Case, Compared, Fill, YOLOV8, YOLOX, compared, on_gpu, typed};
use millrace_cuda::{Gpu, Stream};
use millrace_detect::{Decoder, Mapping};
use millrace_frame::{Letterbox, Size, TensorDtype};
use millrace_infer::Outlet;
use serde_json::{Value, json};
use std::process::ExitCode;
use std::time::Instant;

/// Of a street with some tens of objects.
const DENSITY: f64 = 0.02;
const SCORE: f32 = 0.3;

/// One way down, and what it has cost.
struct Arm {
    name: &'static str,
    outlet: Outlet,
    decoder: Decoder,
    /// Microseconds of a batch: of the calls that queue it, until it has arrived, of its heads.
    us: [Vec<f64>; 3],
}

impl Arm {
    fn new(gpu: &Gpu, case: &Case, frames: usize, dtype: TensorDtype, few: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let decoder = Decoder::new(&case.model(folder.path()));
        let outlet = Outlet::new(gpu, "a", case.shape.to_vec(), frames, dtype, decoder.grid().filter(|_| few)).unwrap();
        Self { name: if few { "candidates" } else { "whole" }, outlet, decoder, us: Default::default() }
    }

    fn median(&self, of: usize) -> f64 {
        let mut all = self.us[of].clone();
        all.sort_by(f64::total_cmp);
        all.get(all.len() / 2).copied().unwrap_or(0.0)
    }
}

/// Both ways in turns, and a line for each.
fn measure(gpu: &Gpu, case: &Case, dtype: TensorDtype, frames: usize, rounds: usize) -> Value {
    let (stream, late) = (Stream::new(gpu).unwrap(), Stream::new(gpu).unwrap());
    let batch: Vec<u8> = (0..frames as u64)
        .flat_map(|seed| typed(&case.output(Fill { seed, density: DENSITY, odd: 0.0 }), dtype).0)
        .collect();
    let (_memory, span) = on_gpu(gpu, &stream, &batch);
    let mut arms = [false, true].map(|few| Arm::new(gpu, case, frames, dtype, few));
    let size = Size::new(case.size_px, case.size_px);
    let source_from_model = Letterbox { scale_x: 1.0, scale_y: 1.0, offset_x: 0.0, offset_y: 0.0 };
    let to = Mapping { source_from_model, source_size: size };
    let mut found = [0; 2];
    for round in 0..=rounds {
        for (arm, found) in arms.iter_mut().zip(&mut found) {
            *found = 0;
            let begun = Instant::now();
            arm.outlet.queue(&stream, span, frames, SCORE).unwrap();
            let queued = begun.elapsed();
            arm.outlet.arrive(&late).unwrap();
            let arrived = begun.elapsed();
            for n in 0..frames {
                *found += arm.decoder.detect(&[arm.outlet.tensor(n)], &to).unwrap().boxes.len();
            }
            let decoded = begun.elapsed() - arrived;
            // the first has pages to touch and caches to fill
            if round > 0 {
                for (us, time) in arm.us.iter_mut().zip([queued, arrived, decoded]) {
                    us.push(time.as_secs_f64() * 1e6);
                }
            }
        }
    }
    assert_eq!(found[0], found[1], "boxes of the whole output and of its candidates");
    let [whole, few] = &arms;
    for arm in &arms {
        let bytes = arm.outlet.bytes_down() / frames as u64;
        let [queue, down, heads] = [0, 1, 2].map(|of| arm.median(of));
        let each = |us: f64| us / frames as f64;
        println!(
            "{:<10} {dtype} batch {frames:>2} {:<10} {bytes:>8} B a frame, queued in {queue:>6.1} us a batch, \
             down in {:>7.2} us a frame, head {:>7.2} us a frame",
            case.name,
            arm.name,
            each(down),
            each(heads)
        );
    }
    let ratio = |of: usize| whole.median(of) / few.median(of);
    println!(
        "{:<10} {dtype} batch {frames:>2} whole / candidates: down {:.2}, head {:.2}; {} boxes a batch",
        case.name,
        ratio(1),
        ratio(2),
        found[0]
    );
    json!({"model": case.name, "dtype": dtype.as_str(), "batch": frames, "down_ratio": ratio(1), "head_ratio": ratio(2)})
}

fn run() -> Result<bool, Box<dyn std::error::Error>> {
    let (mut device, mut rounds, mut json) = (0, 60, None);
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or_else(|| format!("{name} needs a value"))?;
        match name.as_str() {
            "--device" => device = value.parse()?,
            "--rounds" => rounds = value.parse()?,
            "--json" => json = Some(value),
            _ => return Err(format!("{name}: --device N, --rounds N, --json FILE").into()),
        }
    }
    let gpu = Gpu::open(device)?;
    println!("{}, driver for CUDA {}", gpu.name(), millrace_cuda::driver_version()?);
    let Compared { few, whole, wrong } = compared(&gpu);
    println!("{few} frames by their candidates and {whole} whole: {} differences", wrong.len());
    wrong.iter().take(5).for_each(|difference| println!("{difference}"));
    let mut rows = Vec::new();
    for case in [YOLOX, YOLOV8] {
        for dtype in [TensorDtype::F32, TensorDtype::F16] {
            rows.extend([1, 8, 32].map(|frames| measure(&gpu, &case, dtype, frames, rounds)));
        }
    }
    if let Some(path) = json {
        let found = json!({"candidates": few, "whole": whole, "differences": wrong.len(), "rows": rows});
        std::fs::write(path, format!("{found:#}\n"))?;
    }
    Ok(wrong.is_empty())
}

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("{error}");
            ExitCode::FAILURE
        }
    }
}
