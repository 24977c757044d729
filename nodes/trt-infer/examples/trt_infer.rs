//! Measures an engine as trt-infer runs it against TensorRT's own time for the same engine, in turns: frames of the GPU's
//! memory through the node's code, with and without recorded work, and the bare engine in one stream with nothing else.
//!
//! `trt_infer --help` names the options. Exits 1 where what was asked for cannot be had, or where replayed work gives other
//! outputs than queued work.
#![allow(clippy::print_stdout, reason = "a program of the command line")]

use millrace_cuda::{DeviceMemory, Span};
use millrace_detect::Model;
use millrace_frame::TensorDtype;
use millrace_infer::{Batch, Engine, Flight, Tensor};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;
use trt_infer::{InTrt, Settings, Trt};

const HELP: &str = "\
usage: trt_infer --model MODEL.yml [options]
  --batch N              frames together (1)
  --in-flight N          batches in work at once: measured with 1 up to N (2)
  --frames N             frames to measure in each round (300)
  --rounds N             rounds, in each of which everything is measured once (3)
  --device N             number of the GPU (0)
  --library FILE         libnvinfer.so (as trt-infer looks for it)
  --set NAME=VALUE       a setting of trt-infer, for example PRECISION=f16, BUILD_LEVEL=3 or ENGINE_CACHE=FOLDER; may be repeated
  --json FILE            where the report goes (only the terminal)";

type Fault = Box<dyn std::error::Error>;

struct Arguments {
    settings: Settings,
    frames: usize,
    rounds: usize,
    json: Option<PathBuf>,
}

fn options() -> Result<Option<Arguments>, Fault> {
    let mut words = std::env::args().skip(1);
    let mut sets: Vec<(String, String)> = Vec::new();
    let (mut frames, mut rounds, mut json) = (300, 3, None);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} needs a value; --help names the options"));
        let mut set = |name: &str, value| sets.push((name.to_owned(), value));
        match word.as_str() {
            "--help" | "-h" => return Ok(None),
            "--model" => set("MODEL", value()?),
            "--batch" => set("BATCH", value()?),
            "--in-flight" => set("IN_FLIGHT", value()?),
            "--device" => set("DEVICE", value()?),
            "--library" => set("LIBRARY", value()?),
            "--set" => {
                let text = value()?;
                let (name, value) =
                    text.split_once('=').ok_or_else(|| format!("'{text}' sets nothing; write NAME=VALUE"))?;
                set(name, value.to_owned());
            }
            "--frames" => frames = value()?.parse()?,
            "--rounds" => rounds = value()?.parse()?,
            "--json" => json = Some(value()?.into()),
            other => return Err(format!("there is no option {other}; --help names them").into()),
        }
    }
    if !sets.iter().any(|(name, _)| name == "MODEL") {
        return Err("--model is missing; --help names the options".into());
    }
    let settings: Settings = millrace_node::settings_from(&sets)?;
    Ok(Some(Arguments { settings, frames, rounds: rounds.max(1), json }))
}

/// Elements from a half to one, others for each `seed`; bytes have all values.
fn noise(bytes: usize, dtype: TensorDtype, seed: u32) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state
    };
    match dtype {
        TensorDtype::F32 => (0..bytes / 4).flat_map(|_| (0x3f00_0000 | next() >> 9).to_ne_bytes()).collect(),
        TensorDtype::F16 => (0..bytes / 2).flat_map(|_| (0x3800 | (next() >> 22) as u16).to_ne_bytes()).collect(),
        TensorDtype::U8 => (0..bytes).map(|_| (next() >> 24) as u8).collect(),
    }
}

/// An engine with its model, and frames in the GPU's memory, as a producer's slots are.
struct Arm {
    engine: Trt,
    shape: [usize; 4],
    dtype: TensorDtype,
    frames: Vec<DeviceMemory>,
    cuda_graph: bool,
}

impl Arm {
    fn open(settings: &Settings, cuda_graph: bool) -> Result<Self, Fault> {
        let model = Model::load(&settings.common.model)?;
        let settings = Settings { cuda_graph, ..settings.clone() };
        let (mut engine, _) = Trt::open(model.file()?, 1, &settings)?;
        engine.select(&model.input.name, &model.head.outputs())?;
        let (shape, dtype) = (model.input.shape().map(|axis| axis as usize), model.input.dtype);
        engine.prepare(shape, dtype)?;
        let bytes = shape.iter().product::<usize>() * dtype.bytes() as usize;
        let stream = engine.stream().ok_or("the engine has no GPU")?;
        let frame = |seed| -> Result<DeviceMemory, Fault> {
            let frame = DeviceMemory::allocate(stream.gpu(), bytes as u64, "a frame")?;
            stream.upload(&noise(bytes, dtype, seed), frame.span())?;
            Ok(frame)
        };
        let frames = (0..8.max(engine.batch() as u32)).map(frame).collect::<Result<_, _>>()?;
        Ok(Self { engine, shape, dtype, frames, cuda_graph })
    }

    /// Gives the engine `together` frames, from number `n * together` on.
    fn submit(&mut self, n: usize, together: usize) -> Result<InTrt, Fault> {
        let span = |i: usize| -> Span { self.frames[(n * together + i) % self.frames.len()].span() };
        let tensors: Vec<Tensor<'_>> = (0..together).map(|i| Tensor::Gpu(span(i))).collect();
        Ok(self.engine.submit(Batch { shape: self.shape, dtype: self.dtype, tensors: &tensors, score: 0.0 })?)
    }

    /// The outputs of the first frames, one after the other.
    fn outputs(&mut self, together: usize) -> Result<Vec<f32>, Fault> {
        let mut all = Vec::new();
        let mut keep = |_: usize, outputs: &[millrace_infer::RawTensor<'_>]| {
            outputs.iter().for_each(|output| all.extend_from_slice(output.data));
        };
        self.submit(0, together)?.complete(&mut keep)?;
        Ok(all)
    }
}

/// Seconds that all threads of this process have computed, from the kernel's ticks of 10 ms.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    fields.iter().skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

/// Computes `frames` frames, `together` in a batch, with `in_flight` batches in work.
fn measure(arm: &mut Arm, frames: usize, together: usize, in_flight: usize) -> Result<Value, Fault> {
    for n in 0..5 {
        arm.submit(n, together)?.complete(&mut |_, _| ())?;
    }
    let calls = frames.div_ceil(together).max(1);
    let (begun, cpu) = (Instant::now(), cpu_seconds());
    let mut times_ms = Vec::with_capacity(calls);
    let mut in_work = VecDeque::new();
    for n in 0..calls + in_flight - 1 {
        if n < calls {
            let begun = Instant::now();
            in_work.push_back((begun, arm.submit(n, together)?));
        }
        if (in_work.len() == in_flight || n >= calls)
            && let Some((begun, flight)) = in_work.pop_front()
        {
            flight.complete(&mut |_, _| ())?;
            times_ms.push(begun.elapsed().as_secs_f64() * 1e3);
        }
    }
    let (wall_s, cpu_s) = (begun.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    times_ms.sort_by(f64::total_cmp);
    let done = (calls * together) as f64;
    Ok(json!({
        "cuda_graph": arm.cuda_graph,
        "frames_together": together,
        "in_flight": in_flight,
        "frames": calls * together,
        "call_ms_min": times_ms[0],
        "call_ms_p50": times_ms[calls / 2],
        "call_ms_p99": times_ms[(calls * 99 / 100).min(calls - 1)],
        "ms_per_frame": wall_s * 1e3 / done,
        "frames_per_s": done / wall_s,
        "cpu_s_per_frame": cpu_s / done,
    }))
}

/// TensorRT's own time for the engine: nothing but its work, in one stream, by the GPU's clock.
fn alone(arm: &mut Arm, frames: usize, together: usize) -> Result<Value, Fault> {
    let ms = arm.engine.alone_ms(together, frames.div_ceil(together).max(1) as u32, arm.cuda_graph)?;
    let frames_per_s = together as f64 * 1e3 / f64::from(ms);
    Ok(json!({"cuda_graph": arm.cuda_graph, "frames_together": together, "batch_ms": ms, "frames_per_s": frames_per_s}))
}

/// The largest difference of two numbers; without bound where one alone is no number.
fn difference(these: &[f32], those: &[f32]) -> f32 {
    let of = |(a, b): (&f32, &f32)| {
        if a == b || a.is_nan() && b.is_nan() {
            return 0.0;
        }
        let difference = (a - b).abs();
        if difference.is_nan() { f32::INFINITY } else { difference }
    };
    these.iter().zip(those).map(of).fold(0.0, f32::max)
}

fn rate(of: &Value) -> f64 {
    of["frames_per_s"].as_f64().unwrap_or(0.0)
}

/// The round of the median rate, with the rates of all.
fn median(mut rounds: Vec<Value>) -> Value {
    let rates: Vec<f64> = rounds.iter().map(rate).collect();
    rounds.sort_by(|a, b| rate(a).total_cmp(&rate(b)));
    let mut median = rounds.swap_remove(rounds.len() / 2);
    median["frames_per_s_of_rounds"] = json!(rates);
    median
}

fn run(o: &Arguments) -> Result<bool, Fault> {
    let together = o.settings.batch as usize;
    let most_in_flight = o.settings.common.in_flight.unwrap_or(2) as usize;
    let begun = Instant::now();
    let mut arms = vec![Arm::open(&o.settings, false)?];
    let open_s = begun.elapsed().as_secs_f64();
    let recorded = Arm::open(&o.settings, true)?;
    let notes = recorded.engine.notes();
    if notes.is_empty() {
        arms.push(recorded);
    }
    // batches that are full, that are not, and of one frame
    let mut sizes = vec![1, together.div_ceil(2), together];
    sizes.dedup();
    let (mut of_queued, mut of_recorded) = (0f32, 0f32);
    if let [queued, recorded] = &mut arms[..] {
        for &size in &sizes {
            // as often as it is queued before its work is recorded, and once more
            (0..5).try_for_each(|_| recorded.outputs(size).map(drop))?;
            let first = queued.outputs(size)?;
            of_queued = of_queued.max(difference(&first, &queued.outputs(size)?));
            of_recorded = of_recorded.max(difference(&first, &recorded.outputs(size)?));
        }
    }
    // for each arm, the bare engine and then each number of batches in flight, in all rounds
    let mut rounds: Vec<Vec<Vec<Value>>> = arms.iter().map(|_| vec![Vec::new(); 1 + most_in_flight]).collect();
    for _ in 0..o.rounds {
        for (arm, rounds) in arms.iter_mut().zip(&mut rounds) {
            for (in_flight, rounds) in rounds.iter_mut().enumerate() {
                rounds.push(match in_flight {
                    0 => alone(arm, o.frames, together)?,
                    _ => measure(arm, o.frames, together, in_flight)?,
                });
            }
        }
    }
    let mut results: Vec<Vec<Value>> = rounds.into_iter().map(|arm| arm.into_iter().map(median).collect()).collect();
    let own: Vec<Value> = results.iter_mut().map(|arm| arm.remove(0)).collect();
    for one in results.iter_mut().flatten() {
        let ratios: Vec<f64> = own.iter().map(|own| rate(one) / rate(own)).collect();
        one["of_own"] = json!(ratios[0]);
        one["of_own_replayed"] = json!(ratios.get(1));
    }
    // as the settings say, and the other way
    let otherwise = usize::from(o.settings.cuda_graph && results.len() > 1);
    results.rotate_left(otherwise);
    let stream = arms[0].engine.stream().ok_or("the engine has no GPU")?;
    let report = json!({
        "model": o.settings.common.model,
        "gpu": stream.gpu().name(),
        "driver": millrace_cuda::driver_version()?,
        "precision": o.settings.precision,
        "build_level": o.settings.build_level,
        "notes": notes,
        "open_s": open_s,
        "queued_differs_by": of_queued,
        "replayed_differs_by": of_recorded,
        "own": own[0],
        "own_replayed": own.get(1),
        "measured": results[0],
        "measured_otherwise": results.get(1),
    });
    let text = serde_json::to_string_pretty(&report)?;
    println!("{text}");
    if let Some(path) = &o.json {
        std::fs::write(path, text + "\n").map_err(|e| format!("{}: {e}", path.display()))?;
    }
    // an engine that does not give the same twice is no judge
    Ok(of_recorded == 0.0 || of_queued > 0.0)
}

fn main() -> ExitCode {
    // the process that builds an engine is this program, started again
    if let Some(code) = trt_infer::building() {
        return code;
    }
    millrace_node::log_to_stderr(env!("CARGO_PKG_NAME"), "info");
    let result = options().and_then(|o| match o {
        Some(o) => run(&o),
        None => {
            println!("{HELP}");
            Ok(true)
        }
    });
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!("trt_infer: replayed work gives other outputs than queued work; see replayed_differs_by");
            ExitCode::FAILURE
        }
        Err(e) => {
            eprintln!("trt_infer: {e}");
            ExitCode::FAILURE
        }
    }
}
