//! The producer: it makes the pools, starts the consumer, and reports.

use crate::consumer::{self, Talk};
use crate::stamp::{Arm, FRAME_BYTES, Stamps, Way, cpu_ns, now_ns};
use millrace_cuda::{DeviceMemory, Gpu, Stream};
use millrace_frame::Fence;
use millrace_pool::{Flow, MemorySpec, Pool, PoolSpec, Share};
use std::collections::VecDeque;
use std::error::Error;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Lines, Write, pipe};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

type Outcome<T> = Result<T, Box<dyn Error>>;

type Says = Lines<BufReader<Box<dyn std::io::Read>>>;

/// Between two frames: both processes are asleep when the next one comes.
const PAUSE: Duration = Duration::from_millis(2);
const WARM_UP: usize = 20;
/// What the producer writes while the consumer looks.
const OTHER_TAG: u64 = 0x0ddb_a11f_ee1d_ab1e;

/// One arm's figures.
#[derive(Default)]
struct Figures {
    event_to_kernel_us: Vec<f64>,
    publish_to_awake_us: Vec<f64>,
    cpu_us: [Vec<f64>; 2],
}

/// A published frame, until the consumer's line about it is read.
struct Sent {
    record: usize,
    frame: usize,
    tag: u64,
}

/// Where the consumer runs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Consumer {
    Process,
    Thread,
}

enum Running {
    Process(Child),
    Thread(std::thread::JoinHandle<bool>),
}

impl Running {
    /// The consumer, what it says, and where it is spoken to.
    fn start(place: Consumer, at: Vec<String>) -> Outcome<(Self, Says, Box<dyn Write>)> {
        let says = |from: Box<dyn std::io::Read>| BufReader::new(from).lines();
        if place == Consumer::Thread {
            let ((their_in, our_out), (our_in, their_out)) = (pipe()?, pipe()?);
            let run = move || {
                let outcome = consumer::run(&at, &mut Talk::new(their_in, their_out));
                // said here, as a process of its own does: the producer only sees that the consumer is gone
                outcome.inspect_err(|e| eprintln!("gpu_handover: {e}")).is_ok()
            };
            let thread = std::thread::Builder::new().name("consumer".into()).spawn(run)?;
            return Ok((Self::Thread(thread), says(Box::new(our_in)), Box::new(our_out)));
        }
        let mut child = Command::new(std::env::current_exe()?)
            .arg("consumer")
            .args(at)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let (from, to) = (child.stdout.take().ok_or("a pipe")?, child.stdin.take().ok_or("a pipe")?);
        Ok((Self::Process(child), says(Box::new(from)), Box::new(to)))
    }

    fn end(self) -> Outcome<()> {
        let ended_well = match self {
            Self::Process(mut child) => child.wait()?.success(),
            Self::Thread(thread) => thread.join().unwrap_or(false),
        };
        if ended_well { Ok(()) } else { Err("the consumer failed".into()) }
    }
}

pub(crate) fn run(place: Consumer, frames: usize, json: Option<&Path>) -> Outcome<()> {
    let gpu = Gpu::open(0)?;
    let arms = Arm::all();
    let total = WARM_UP + frames;
    let stamps = Stamps::new(&gpu, arms.len() * total + 1)?;
    let stream = Stream::new(&gpu)?;
    let step_ns = stamps.step_ns(&stream)?;
    let own = DeviceMemory::allocate(&gpu, FRAME_BYTES, "frames that go through host memory")?;

    let mut refused: Vec<Option<String>> = Vec::new();
    let mut pools = Vec::new();
    for arm in &arms {
        let pool = create(&gpu, arm);
        refused.push(pool.as_ref().err().map(ToString::to_string));
        pools.push(pool.ok());
    }
    let places = pools.iter().map(|pool| {
        let at = pool.as_ref().map(Pool::locator);
        at.map_or("none".to_owned(), |at| format!("{}:{}:{}", at.pool, at.owner_pid, at.owner_fd))
    });
    let at = [total.to_string()].into_iter().chain(places).collect();
    let (running, mut says, mut to) = Running::start(place, at)?;
    for (pool, refused) in pools.iter_mut().zip(&mut refused) {
        let line = next(&mut says)?;
        if let Some(why) = line.strip_prefix("refused ") {
            *refused = Some(why.to_owned());
            *pool = None;
        }
    }

    let mut figures: Vec<Figures> = arms.iter().map(|_| Figures::default()).collect();
    let mut sent: Vec<VecDeque<Sent>> = arms.iter().map(|_| VecDeque::new()).collect();
    let (mut record, mut counted_ns) = (0, cpu_ns());
    for frame in 0..total {
        for (index, arm) in arms.iter().enumerate() {
            let Some(pool) = &mut pools[index] else { continue };
            let tag = tag(index, frame);
            let mut slot = loop {
                match pool.acquire() {
                    Some(slot) => break slot,
                    None => pool.wait(Duration::from_secs(1)),
                }
            };
            slot.follow(&stream)?;
            let span = slot.span().unwrap_or(own.span());
            stream.fill(span, frame as u8)?;
            stamps.produce(&stream, record, span, tag, arm.work_us)?;
            let fence = match arm.way {
                Way::ThroughHost => {
                    stream.download(span, slot.bytes_mut())?;
                    Fence::Complete
                }
                _ => slot.mark_ready(&stream)?,
            };
            let fence = if arm.waits {
                stream.synchronize()?;
                Vec::new()
            } else {
                let Fence::CudaEvent(event) = fence else { return Err("a frame on a GPU has an event".into()) };
                event
            };
            let item = [&now_ns().to_ne_bytes()[..], &fence].concat();
            pool.publish(slot, &item)?;
            pool.ring();
            sent[index].push_back(Sent { record, frame, tag });
            record += 1;
            if frame == 0 && arm.way != Way::ThroughHost {
                sees_the_same_memory(&stamps, &stream, span, tag, &mut says, &mut *to)?;
            }
            std::thread::sleep(PAUSE + Duration::from_micros(arm.work_us));
            let now = cpu_ns();
            if frame >= WARM_UP {
                figures[index].cpu_us[0].push((now - counted_ns) as f64 / 1e3);
            }
            counted_ns = now;
        }
    }
    stream.synchronize()?;
    pools.iter_mut().flatten().for_each(Pool::close);
    pools.iter_mut().flatten().for_each(|pool| {
        pool.ring();
    });

    // each arm's in order; a consumer that falls behind may have them in turns of its own
    for _ in 0..record {
        let line = next(&mut says)?;
        let words = line.strip_prefix("frame ").ok_or_else(|| format!("the consumer said: {line}"))?;
        let words: Vec<u64> = words.split(' ').map(str::parse).collect::<Result<_, _>>()?;
        let [arm, stamp, first, last, awake_ns, cpu_ns] = words[..] else { return Err("six numbers".into()) };
        let index = arm as usize;
        let Sent { record, frame, tag } =
            sent.get_mut(index).and_then(VecDeque::pop_front).ok_or_else(|| format!("arm {arm} has one frame more"))?;
        let rewritten = frame == 0 && arms[index].way != Way::ThroughHost;
        let expected = if rewritten { OTHER_TAG } else { tag };
        if (first, last) != (expected, expected) {
            return Err(format!("frame {frame} of arm {index}: it found {first:x} and {last:x}").into());
        }
        if frame >= WARM_UP {
            let figures = &mut figures[index];
            let ended = stamps.record(record)[0];
            figures.event_to_kernel_us.push(stamp.wrapping_sub(ended) as i64 as f64 / 1e3);
            figures.publish_to_awake_us.push(awake_ns as f64 / 1e3);
            figures.cpu_us[1].push(cpu_ns as f64 / 1e3);
        }
    }
    drop(to);
    running.end()?;
    report(&gpu, step_ns, frames, &arms, &mut figures, &refused, json)
}

fn create(gpu: &Gpu, arm: &Arm) -> Outcome<Pool> {
    Ok(Pool::create(&PoolSpec {
        name: "gpu-handover/frame".into(),
        slots: 4,
        slot_bytes: FRAME_BYTES,
        flow: Flow::Lossless,
        incarnation: 0,
        consumers: vec!["consumer/frame".into()],
        memory: match arm.way {
            Way::Ipc => MemorySpec::Cuda(gpu.clone(), Share::Ipc),
            Way::Descriptor => MemorySpec::Cuda(gpu.clone(), Share::Descriptor),
            Way::ThroughHost => MemorySpec::Host,
        },
    })?)
}

fn tag(arm: usize, frame: usize) -> u64 {
    (arm as u64 + 1) << 32 | frame as u64
}

/// The consumer holds the frame. A tag that is written now, with nothing handed over, is found at its address.
fn sees_the_same_memory(
    stamps: &Stamps,
    stream: &Stream,
    frame: millrace_cuda::Span,
    tag: u64,
    says: &mut Says,
    to: &mut dyn Write,
) -> Outcome<()> {
    let before = next(says)?;
    // against the pool's rule (the slot is published), and only to show whose memory it is; record 0 is of the warm-up
    stamps.produce(stream, 0, frame, OTHER_TAG, 0)?;
    stream.synchronize()?;
    to.write_all(b"look\n")?;
    let after = next(says)?;
    let expected = (format!("tag {tag}"), format!("tag {OTHER_TAG} {OTHER_TAG} {tag}"));
    if (before.as_str(), after.as_str()) != (&expected.0, &expected.1) {
        return Err(format!("not the same memory: the consumer said '{before}', then '{after}'").into());
    }
    Ok(())
}

fn next(says: &mut Says) -> Outcome<String> {
    Ok(says.next().ok_or("the consumer ended early")??)
}

/// The value that `part` of all lie below.
fn quantile(values: &mut [f64], part: f64) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[((values.len() - 1) as f64 * part).round() as usize]
}

fn report(
    gpu: &Gpu,
    step_ns: u64,
    frames: usize,
    arms: &[Arm],
    figures: &mut [Figures],
    refused: &[Option<String>],
    json: Option<&Path>,
) -> Outcome<()> {
    println!("{}: {frames} frames of {FRAME_BYTES} bytes in each arm, in turns", gpu.name());
    println!("the GPU's clock moves in steps of {step_ns} ns");
    println!(
        "{:12} {:7} {:>8} {:>10} {:>10} {:>10} {:>10} {:>10} {:>10} {:>13}",
        "us", "sync", "work", "event to", "kernel", "publish to", "awake", "CPU/frame", "", "bytes copied"
    );
    println!("{:29} {:>10} {:>10} {:>10} {:>10} {:>10} {:>10}", "", "p50", "p99", "p50", "p99", "producer", "consumer");
    let mut rows = String::new();
    for ((arm, figures), refused) in arms.iter().zip(figures).zip(refused) {
        let (way, sync, work) = (arm.way(), arm.sync(), arm.work_us);
        if !rows.is_empty() {
            rows.push(',');
        }
        write!(rows, "\n  {{\"way\": \"{way}\", \"sync\": \"{sync}\", \"work_us\": {work}, ")?;
        if let Some(why) = refused {
            println!("{way:12} {sync:7} {work:8} not offered here: {why}");
            write!(rows, "\"error\": {}}}", quoted(why))?;
            continue;
        }
        let [a, b] = [0.5, 0.99].map(|part| quantile(&mut figures.event_to_kernel_us, part));
        let [c, d] = [0.5, 0.99].map(|part| quantile(&mut figures.publish_to_awake_us, part));
        let [e, f] = figures.cpu_us.each_ref().map(|us| us.iter().sum::<f64>() / us.len() as f64);
        let copied = if arm.way == Way::ThroughHost { 2 * FRAME_BYTES } else { 0 };
        println!("{way:12} {sync:7} {work:8} {a:10.1} {b:10.1} {c:10.1} {d:10.1} {e:10.1} {f:10.1} {copied:13}");
        write!(
            rows,
            "\"event_to_kernel_us\": {{\"p50\": {a:.3}, \"p99\": {b:.3}}}, \
             \"publish_to_awake_us\": {{\"p50\": {c:.3}, \"p99\": {d:.3}}}, \
             \"cpu_us_per_frame\": {{\"producer\": {e:.3}, \"consumer\": {f:.3}}}, \"bytes_copied\": {copied}}}"
        )?;
    }
    println!(
        "0 bytes copied: in each such arm the consumer saw a tag at its own address that was written after the hand-over"
    );
    if let Some(file) = json {
        let (name, driver) = (quoted(gpu.name()), millrace_cuda::driver_version()?);
        std::fs::write(
            file,
            format!(
                "{{\"device\": {name}, \"cuda\": {driver}, \"clock_step_ns\": {step_ns}, \"frames\": {frames}, \
                 \"frame_bytes\": {FRAME_BYTES}, \"arms\": [{rows}\n]}}\n"
            ),
        )?;
    }
    match refused.iter().flatten().next() {
        Some(why) => Err(format!("not every way is offered here: {why}").into()),
        None => Ok(()),
    }
}

/// A JSON string.
fn quoted(text: &str) -> String {
    let plain: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    format!("\"{}\"", plain.replace('\\', "\\\\").replace('"', "\\\""))
}
