//! Checks a provider of ONNX Runtime against its CPU provider, and measures it: the same tensors through both engines, the
//! outputs and boxes compared, then the time of a frame for each number of frames together.
//!
//! `gpu_infer --help` names the options. Exits 1 where what was asked for cannot be had or does not agree.
#![allow(clippy::print_stdout, reason = "a program of the command line")]

use millrace_cuda::{DeviceMemory, Span};
use millrace_detect::{Decoder, Mapping, Model};
use millrace_frame::{DetBox, Letterbox, Size, TensorDtype, TensorLayout};
use millrace_infer::{Batch, Elements, Engine, Flight, RawTensor, Tensor};
use ort_infer::{ConvSearch, Ort, Provider, Settings};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

const HELP: &str = "\
usage: gpu_infer --model MODEL.yml --provider cpu|cuda|tensorrt [options]
  --reference MODEL.yml  what the CPU computes in its place, for a model with an f16 input: the same with f32
  --frames N             frames to measure with each number of frames together (300)
  --from host|device     where the tensors lie (device; host for --provider cpu)
  --batch N              frames together: 1, 2, 4 up to N (1)
  --in-flight N          batches in work at once: measured with 1 up to N (1)
  --unchecked            only measure, N frames together, and compare nothing with the CPU
  --device N             number of the GPU (0)
  --score S              least score of a box (the model's)
  --tolerance T          largest difference of an output, as a part of its largest value (0.02 with tf32, else 0.001)
  --tf32 on|off          (on)
  --cuda-graph           record the work and replay it
  --prefer-nhwc, --conv-search exhaustive|heuristic|fixed, --small-workspace, --grid-sample-f16
                         ort-infer's PREFER_NHWC, CONV_SEARCH, CONV_MAX_WORKSPACE: false and GRID_SAMPLE_F32: false
  --library FILE         libonnxruntime.so (as ort-infer looks for it)
  --json FILE            where the report goes (only the terminal)";

type Fault = Box<dyn std::error::Error>;

struct Arguments {
    settings: Settings,
    reference: PathBuf,
    frames: usize,
    from_device: bool,
    score: Option<f32>,
    tolerance: f32,
    json: Option<PathBuf>,
    checked: bool,
}

fn options() -> Result<Option<Arguments>, Fault> {
    let mut words = std::env::args().skip(1);
    let mut o = Arguments {
        settings: Settings::of_model(PathBuf::new()),
        reference: PathBuf::new(),
        frames: 300,
        from_device: true,
        score: None,
        tolerance: 0.0,
        json: None,
        checked: true,
    };
    let (mut tolerance, mut from) = (None, None);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} takes a value; --help names the options"));
        match word.as_str() {
            "--help" | "-h" => return Ok(None),
            "--model" => o.settings.common.model = PathBuf::from(value()?).into(),
            "--reference" => o.reference = value()?.into(),
            "--frames" => o.frames = value()?.parse()?,
            "--batch" => o.settings.batch = Some(value()?.parse()?),
            "--device" => o.settings.device = value()?.parse()?,
            "--score" => o.score = Some(value()?.parse()?),
            "--tolerance" => tolerance = Some(value()?.parse()?),
            "--library" => o.settings.library = Some(PathBuf::from(value()?).into()),
            "--json" => o.json = Some(value()?.into()),
            "--cuda-graph" => o.settings.cuda_graph = true,
            "--in-flight" => o.settings.common.in_flight = Some(value()?.parse()?),
            "--unchecked" => o.checked = false,
            "--prefer-nhwc" => o.settings.prefer_nhwc = true,
            "--conv-search" => {
                let all = [("exhaustive", ConvSearch::Exhaustive), ("heuristic", ConvSearch::Heuristic)];
                o.settings.conv_search = one_of(&value()?, &[&all[..], &[("fixed", ConvSearch::Fixed)]].concat())?;
            }
            "--small-workspace" => o.settings.conv_max_workspace = false,
            "--grid-sample-f16" => o.settings.grid_sample_f32 = false,
            "--tf32" => o.settings.tf32 = one_of(&value()?, &[("on", true), ("off", false)])?,
            "--from" => from = Some(one_of(&value()?, &[("host", false), ("device", true)])?),
            "--provider" => {
                let all = [Provider::Cpu, Provider::Cuda, Provider::Tensorrt];
                o.settings.provider = one_of(&value()?, &all.map(|p| (p.name(), p)))?;
            }
            other => return Err(format!("there is no option {other}; --help names them").into()),
        }
    }
    if o.settings.common.model.as_os_str().is_empty() {
        return Err("--model is missing; --help names the options".into());
    }
    o.settings.common.in_flight.get_or_insert(1);
    if o.reference.as_os_str().is_empty() {
        o.reference = o.settings.common.model.to_path_buf();
    }
    let on_gpu = o.settings.provider != Provider::Cpu;
    o.from_device = from.unwrap_or(on_gpu);
    o.tolerance = tolerance.unwrap_or(if on_gpu && o.settings.tf32 { 0.02 } else { 0.001 });
    Ok(Some(o))
}

fn one_of<T: Copy>(text: &str, all: &[(&str, T)]) -> Result<T, Fault> {
    let names: Vec<&str> = all.iter().map(|(name, _)| *name).collect();
    let found = all.iter().find(|(name, _)| *name == text).map(|(_, value)| *value);
    found.ok_or_else(|| format!("'{text}' is none of {}", names.join(", ")).into())
}

/// A picture of coloured blocks with slopes and noise, another for each `seed`: 8-bit samples, channel by channel.
fn picture(size: Size, seed: u32) -> Vec<u8> {
    let (w, h) = (size.width_px as usize, size.height_px as usize);
    let mut noise = seed.wrapping_mul(2_654_435_761) | 1;
    (0..3 * w * h)
        .map(|i| {
            let (c, y, x) = (i / (w * h), i / w % h, i % w);
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let block = (x / 48 + 3 * (y / 40) + c + seed as usize) * 97 % 190;
            (block + x * 40 / w + (noise >> 28) as usize) as u8
        })
        .collect()
}

/// The tensor that `model.yml` asks for, of a picture.
fn tensor(model: &Model, samples: &[u8]) -> Vec<f32> {
    let spec = &model.input;
    let pixels = samples.len() / 3;
    let at = |c: usize, i: usize| (f32::from(samples[c * pixels + i]) - spec.mean[c]) * spec.scale[c];
    match spec.layout {
        TensorLayout::Nchw => (0..3 * pixels).map(|i| at(i / pixels, i % pixels)).collect(),
        TensorLayout::Nhwc => (0..3 * pixels).map(|i| at(i % 3, i / 3)).collect(),
    }
}

/// IEEE 754 binary16 of a number, rounded to the nearest even; what is too small for a normal one becomes 0.
fn f16_bits(value: f32) -> u16 {
    let bits = value.to_bits();
    let sign = (bits >> 16 & 0x8000) as u16;
    let magnitude = bits & 0x7fff_ffff;
    if magnitude < 0x3880_0000 {
        return sign;
    }
    if magnitude >= 0x477f_f000 {
        return sign | 0x7c00;
    }
    let rounded = magnitude + 0xfff + (magnitude >> 13 & 1);
    sign | ((rounded - 0x3800_0000) >> 13) as u16
}

fn bytes(values: &[f32], dtype: TensorDtype) -> Vec<u8> {
    match dtype {
        TensorDtype::F32 => values.iter().flat_map(|v| v.to_ne_bytes()).collect(),
        TensorDtype::F16 => values.iter().flat_map(|v| f16_bits(*v).to_ne_bytes()).collect(),
        TensorDtype::U8 => values.iter().map(|v| v.round() as u8).collect(),
    }
}

/// An engine with its model, and the tensors of all pictures in host memory.
struct Arm {
    engine: Ort,
    model: Model,
    shape: [usize; 4],
    tensors: Vec<Vec<u8>>,
}

type Outputs = Vec<(String, Vec<usize>, Vec<f32>)>;

fn kept(outputs: &[RawTensor<'_>]) -> Outputs {
    outputs.iter().map(|o| (o.name.to_owned(), o.shape.to_vec(), o.data.to_vec())).collect()
}

impl Arm {
    fn open(settings: &Settings, score: Option<f32>) -> Result<Self, Fault> {
        let mut model = Model::load(&settings.common.model)?;
        model.thresholds.score = score.unwrap_or(model.thresholds.score);
        let file = model.file()?.to_owned();
        // the CPU's part takes all cores: it is the reference, and not measured
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let (mut engine, _) = Ort::open(&file, threads, settings)?;
        engine.select(&model.input.name, &model.head.outputs())?;
        let size = Size::new(model.input.width_px, model.input.height_px);
        let shape = model.input.shape().map(|axis| axis as usize);
        engine.prepare(shape, model.input.dtype)?;
        let tensors = (0..8).map(|seed| bytes(&tensor(&model, &picture(size, seed)), model.input.dtype)).collect();
        Ok(Self { engine, model, shape, tensors })
    }

    /// Gives the engine tensors, from host memory those of the pictures from `n` on.
    fn submit(&mut self, n: usize, tensors: Option<&[Tensor<'_>]>) -> Result<<Ort as Engine>::Flight, Fault> {
        let (shape, dtype) = (self.shape, self.model.input.dtype);
        if let Some(tensors) = tensors {
            return Ok(self.engine.submit(Batch { shape, dtype, tensors, score: 0.0 })?);
        }
        let bytes = &self.tensors[n % self.tensors.len()];
        let floats: Vec<f32>;
        let halves: Vec<u16>;
        let data = match dtype {
            TensorDtype::F32 => {
                floats = bytes.chunks_exact(4).map(|b| f32::from_ne_bytes([b[0], b[1], b[2], b[3]])).collect();
                Elements::F32(&floats)
            }
            TensorDtype::F16 => {
                halves = bytes.chunks_exact(2).map(|b| u16::from_ne_bytes([b[0], b[1]])).collect();
                Elements::F16(&halves)
            }
            TensorDtype::U8 => Elements::U8(bytes),
        };
        Ok(self.engine.submit(Batch { shape, dtype, tensors: &[Tensor::Host(data)], score: 0.0 })?)
    }

    fn boxes(&self, outputs: &Outputs) -> Result<Vec<DetBox>, Fault> {
        let source_size = Size::new(self.model.input.width_px, self.model.input.height_px);
        let source_from_model = Letterbox { scale_x: 1.0, scale_y: 1.0, offset_x: 0.0, offset_y: 0.0 };
        let raw: Vec<RawTensor<'_>> =
            outputs.iter().map(|(name, shape, data)| RawTensor::whole(name, shape, data)).collect();
        Ok(Decoder::new(&self.model).detect(&raw, &Mapping { source_from_model, source_size })?.boxes)
    }
}

/// How many boxes of `these`, of those that are clear of the threshold, have no fellow among `those`.
fn without_fellow(these: &[DetBox], those: &[DetBox], least: f32) -> usize {
    let near = |a: &DetBox, b: &DetBox| {
        let edges = [(a.x1, b.x1), (a.y1, b.y1), (a.x2, b.x2), (a.y2, b.y2)];
        a.class_id == b.class_id && (a.score - b.score).abs() < 0.05 && edges.iter().all(|(a, b)| (a - b).abs() < 2.0)
    };
    these.iter().filter(|a| a.score > least + 0.05 && !those.iter().any(|b| near(a, b))).count()
}

/// Seconds that all threads of this process have computed, from the kernel's ticks of 10 ms.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    fields.iter().skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

/// Computes about `frames` frames, `together` in a batch that `submit` gives out, with `in_flight` batches in work.
fn measure<F: Flight>(
    frames: usize,
    together: usize,
    in_flight: usize,
    mut submit: impl FnMut(usize) -> Result<F, Fault>,
) -> Result<Value, Fault> {
    for n in 0..10 {
        submit(n)?.complete(&mut |_, _| ())?;
    }
    let calls = frames.div_ceil(together).max(1);
    let (begun, cpu) = (Instant::now(), cpu_seconds());
    let mut times_ms = Vec::with_capacity(calls);
    let mut in_work: VecDeque<(Instant, F)> = VecDeque::new();
    for n in 0..calls + in_flight - 1 {
        if n < calls {
            let begun = Instant::now();
            in_work.push_back((begun, submit(n)?));
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

fn run(o: &Arguments) -> Result<bool, Fault> {
    let begun = Instant::now();
    let mut arm = Arm::open(&o.settings, o.score)?;
    let open_s = begun.elapsed().as_secs_f64();
    if o.from_device && arm.engine.stream().is_none() {
        return Err("--from device is for a provider on a GPU".into());
    }

    // the tensors in the GPU's memory, as a producer's slots are
    let mut memory: Vec<DeviceMemory> = Vec::new();
    if let Some(stream) = arm.engine.stream().filter(|_| o.from_device) {
        for tensor in &arm.tensors {
            let slot = DeviceMemory::allocate(stream.gpu(), tensor.len() as u64, "a tensor")?;
            stream.upload(tensor, slot.span())?;
            memory.push(slot);
        }
    }
    let spans: Vec<Span> = memory.iter().map(DeviceMemory::span).collect();
    let together = |n: usize, count: usize| -> Option<Vec<Tensor<'static>>> {
        o.from_device.then(|| (0..count).map(|i| Tensor::Gpu(spans[(n * count + i) % spans.len()])).collect())
    };

    let most = if o.from_device { o.settings.batch.unwrap_or(1) as usize } else { 1 };
    let mut counts: Vec<usize> = std::iter::successors(Some(1), |n| Some(n * 2)).take_while(|&n| n <= most).collect();
    if !o.checked {
        counts = vec![most];
    }
    let compared = if o.checked { Some(compare(o, &mut arm, &counts, &together)?) } else { None };
    let mut timed = Vec::new();
    for &count in &counts {
        for in_flight in 1..=o.settings.common.in_flight.unwrap_or(1) as usize {
            timed.push(measure(o.frames, count, in_flight, |n| arm.submit(n, together(n, count).as_deref()))?);
        }
    }
    let report = json!({
        "model": o.settings.common.model,
        "provider": o.settings.provider.name(),
        "gpu": arm.engine.stream().map(|stream| stream.gpu().name()),
        "driver": arm.engine.stream().and_then(|_| millrace_cuda::driver_version().ok()),
        "from": if o.from_device { "device" } else { "host" },
        "cuda_graph": o.settings.cuda_graph,
        "tf32": o.settings.tf32,
        "prefer_nhwc": o.settings.prefer_nhwc,
        "conv_search": o.settings.conv_search,
        "conv_max_workspace": o.settings.conv_max_workspace,
        "grid_sample_f32": o.settings.grid_sample_f32,
        "notes": arm.engine.notes(),
        "open_s": open_s,
        "tolerance": o.tolerance,
        "outputs": compared.as_ref().map(|c| c.outputs.clone()),
        "boxes": compared.as_ref().map(|c| c.boxes.clone()),
        "agree": compared.as_ref().map(|c| c.agree),
        "measured": timed,
    });
    let text = serde_json::to_string_pretty(&report)?;
    println!("{text}");
    if let Some(path) = &o.json {
        std::fs::write(path, text + "\n").map_err(|e| format!("{}: {e}", path.display()))?;
    }
    Ok(compared.is_none_or(|c| c.agree))
}

/// How the provider's outputs and boxes differ from the CPU's.
struct Compared {
    outputs: Vec<Value>,
    boxes: Value,
    agree: bool,
}

/// Every picture, by the CPU and by the provider with each number of frames together.
fn compare(
    o: &Arguments,
    arm: &mut Arm,
    counts: &[usize],
    together: &dyn Fn(usize, usize) -> Option<Vec<Tensor<'static>>>,
) -> Result<Compared, Fault> {
    let cpu = Settings { library: o.settings.library.clone(), ..Settings::of_model(o.reference.clone()) };
    let mut reference = Arm::open(&cpu, o.score)?;
    let mut expected: Vec<Outputs> = Vec::new();
    for n in 0..reference.tensors.len() {
        let mut outputs = Outputs::new();
        reference.submit(n, None)?.complete(&mut |_, raw| outputs = kept(raw))?;
        expected.push(outputs);
    }
    let mut largest: Vec<(String, f32, f32)> = expected[0].iter().map(|(name, ..)| (name.clone(), 0.0, 0.0)).collect();
    let (mut found, mut lost) = (0, 0);
    let least = arm.model.thresholds.score;
    // as many in work at once as are measured: none may get another's outputs
    let in_flight = o.settings.common.in_flight.unwrap_or(1) as usize;
    for &count in counts {
        let batches = expected.len().div_ceil(count).max(2 * in_flight);
        let mut in_work = VecDeque::new();
        for next in 0..batches + in_flight - 1 {
            if next < batches {
                in_work.push_back((next, arm.submit(next, together(next, count).as_deref())?));
            }
            if in_work.len() < in_flight && next < batches {
                continue;
            }
            let Some((n, flight)) = in_work.pop_front() else { break };
            let mut outputs: Vec<Outputs> = vec![Outputs::new(); count];
            flight.complete(&mut |i, raw| outputs[i] = kept(raw))?;
            for (i, got) in outputs.iter().enumerate() {
                let want = &expected[(n * count + i) % expected.len()];
                for (((name, shape, data), (_, want_shape, want_data)), worst) in got.iter().zip(want).zip(&mut largest)
                {
                    if shape != want_shape {
                        return Err(format!("output '{name}' has shape {shape:?}, on the CPU {want_shape:?}").into());
                    }
                    let pairs = || data.iter().zip(want_data);
                    // a NaN on one side alone is a difference without bound
                    let difference = |(a, b): (&f32, &f32)| {
                        if a.is_nan() != b.is_nan() { f32::INFINITY } else { (a - b).abs() }
                    };
                    worst.1 = pairs().map(difference).fold(worst.1, f32::max);
                    worst.2 = want_data.iter().map(|v| v.abs()).fold(worst.2, f32::max);
                }
                let (ours, theirs) = (arm.boxes(got)?, reference.boxes(want)?);
                found += theirs.len();
                lost += without_fellow(&ours, &theirs, least) + without_fellow(&theirs, &ours, least);
            }
        }
    }
    let agree = lost == 0 && largest.iter().all(|(_, worst, value)| *worst <= o.tolerance * value.max(1e-6));

    let outputs: Vec<Value> = largest
        .iter()
        .map(|(name, worst, value)| json!({"name": name, "max_abs_difference": worst, "max_abs_value": value}))
        .collect();
    let boxes = json!({"on_the_cpu": found, "without_fellow": lost, "least_score": least});
    Ok(Compared { outputs, boxes, agree })
}

fn main() -> ExitCode {
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
            eprintln!("gpu_infer: the provider and the CPU do not agree");
            ExitCode::FAILURE
        }
        Err(e) => {
            eprintln!("gpu_infer: {e}");
            ExitCode::FAILURE
        }
    }
}
