//! What it costs to hand a 1080p NV12 frame to another node of a dataflow: by a pool, with a doorbell; by a dora message
//! that the frame is copied into; and by a dora message whose shared memory the frame was written into at once.
//!
//! ```sh
//! cargo run --release -p millrace-node --example handover_dora -- [FRAMES] [PERIOD_MS]
//! ```
//!
//! Three pairs of nodes of one dataflow take turns on one clock. Measured is from the moment when the whole frame lies in
//! the sending node to the moment when the receiver reads its first byte, and to the moment when it has read (summed) all
//! of them. dora gets a shared-memory pool of 64 MB a node, of which no frame is turned away.
#![allow(clippy::print_stdout, reason = "a benchmark prints")]

use dora_node_api::{DoraNode, Event, MetadataParameters};
use millrace_frame::{Colour, ImageDesc, Item, Payload, PayloadKind, PixelFormat, Size, Timebase, Timing};
use millrace_node::{Context, Input, Node, NodeError, Order, Outputs, PortIn, PortOut, Ports, Progress};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

const FRAME_BYTES: usize = 1920 * 1080 * 3 / 2;
const SIZE: Size = Size { width_px: 1920, height_px: 1080 };
const ARMS: [&str; 3] = ["pool", "dora, copied in", "dora, written in place"];
const WARM_UP: u64 = 20;

/// The settings of the nodes, as the parent puts them into their environment.
fn setting(name: &str) -> String {
    std::env::var(format!("MILLRACE_BENCH_{name}")).unwrap_or_default()
}

fn number(name: &str) -> u64 {
    setting(name).parse().unwrap_or_default()
}

/// Nanoseconds on the clock that all processes of the machine share.
fn now_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// When an arm's frame number `n` is due: the arms take turns within a period.
fn due_ns(arm: u64, n: u64) -> u64 {
    let period_ns = number("PERIOD_MS") * 1_000_000;
    number("START_NS") + n * period_ns + arm * period_ns / ARMS.len() as u64
}

/// The frame, with the time at which it was complete in its first bytes.
fn write(bytes: &mut [u8], n: u64) {
    bytes.fill(n as u8);
    bytes[..8].copy_from_slice(&now_ns().to_le_bytes());
}

/// What a receiver saw of each frame: nanoseconds to its first byte, and to all of them.
#[derive(Default)]
struct Seen(Vec<[u64; 2]>);

impl Seen {
    fn read(&mut self, bytes: &[u8]) {
        let readable = now_ns();
        let begun = bytes[..8].iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte));
        std::hint::black_box(bytes.iter().map(|&byte| u64::from(byte)).sum::<u64>());
        self.0.push([readable, now_ns()].map(|at| at.saturating_sub(begun)));
    }

    fn save(&self) -> std::io::Result<()> {
        let lines: String = self.0.iter().map(|[first, all]| format!("{first} {all}\n")).collect();
        std::fs::write(setting("OUT"), lines)
    }
}

#[derive(serde::Deserialize, schemars::JsonSchema)]
struct NoSettings {}

struct PoolSender(u64);

impl Node for PoolSender {
    const NAME: &'static str = "pool-sender";
    const SUMMARY: &'static str = "sends frames by a pool";
    const PORTS: Ports =
        Ports { inputs: &[], outputs: &[PortOut { name: "frame", carries: PayloadKind::Image, doc: "frames" }] };
    type Settings = NoSettings;

    fn open(_: NoSettings, _: &Context) -> Result<Self, NodeError> {
        Ok(Self(0))
    }

    fn on_input(&mut self, _: &'static str, _: Input, _: &mut Outputs) -> Result<(), NodeError> {
        Ok(())
    }

    fn produce(&mut self, out: &mut Outputs) -> Result<Progress, NodeError> {
        let wait_ns = due_ns(0, self.0).saturating_sub(now_ns());
        if wait_ns > 0 {
            return Ok(Progress::Idle(Duration::from_nanos(wait_ns)));
        }
        if self.0 == number("FRAMES") {
            return Ok(Progress::End);
        }
        let (image, bytes) = ImageDesc::packed(PixelFormat::Nv12, SIZE, Colour::assumed_for_height(1080), 1);
        let Some(mut slot) = out.slot("frame", "bench", bytes)? else { return Ok(Progress::Busy) };
        write(&mut slot.bytes_mut()[..FRAME_BYTES], self.0);
        let timing = Timing { pts_ns: 0, timebase: Timebase::NANOSECONDS, capture_ns: 0, ..Timing::default() };
        out.publish(slot, &Item::on_host("bench", self.0, timing, Payload::Image(image)))?;
        self.0 += 1;
        Ok(Progress::Busy)
    }
}

struct PoolReceiver(Seen);

impl Node for PoolReceiver {
    const NAME: &'static str = "pool-receiver";
    const SUMMARY: &'static str = "receives frames by a pool";
    const PORTS: Ports = Ports {
        inputs: &[PortIn {
            name: "frame",
            accepts: &[PayloadKind::Image],
            on_gpu: false,
            order: Order::Every,
            required: true,
            doc: "frames",
        }],
        outputs: &[],
    };
    type Settings = NoSettings;

    fn open(_: NoSettings, _: &Context) -> Result<Self, NodeError> {
        Ok(Self(Seen::default()))
    }

    fn on_input(&mut self, _: &'static str, input: Input, _: &mut Outputs) -> Result<(), NodeError> {
        if let Input::Frame(lease) = input {
            self.0.read(&lease.bytes()[..FRAME_BYTES]);
        }
        Ok(())
    }

    fn drain(&mut self, _: &mut Outputs) -> Result<(), NodeError> {
        self.0.save().map_err(NodeError::fatal)
    }
}

fn dora_send(arm: u64) -> Result<(), Box<dyn Error>> {
    let (mut node, _events) = DoraNode::init_from_env()?;
    for n in 0..number("FRAMES") {
        std::thread::sleep(Duration::from_nanos(due_ns(arm, n).saturating_sub(now_ns())));
        let (id, parameters) = ("frame".to_owned().into(), MetadataParameters::default());
        if arm == 1 {
            let mut frame = vec![0; FRAME_BYTES];
            write(&mut frame, n);
            node.send_output_bytes(id, parameters, frame.len(), &frame)?;
        } else {
            node.send_output_raw(id, parameters, FRAME_BYTES, |frame| write(frame, n))?;
        }
    }
    std::thread::sleep(Duration::from_secs(1)); // what is on its way arrives
    Ok(())
}

fn dora_receive() -> Result<(), Box<dyn Error>> {
    let (_node, mut events) = DoraNode::init_from_env()?;
    let mut seen = Seen::default();
    while let Some(event) = events.recv() {
        match event {
            Event::Input { data, .. } => {
                let data = data.as_array().to_data();
                seen.read(&data.buffers()[0][..FRAME_BYTES]);
            }
            Event::Stop(_) => break,
            _ => {}
        }
    }
    Ok(seen.save()?)
}

fn graph(folder: &Path, frames: u64, period_ms: u64) -> Result<String, Box<dyn Error>> {
    let program = std::env::current_exe()?;
    let start_ns = now_ns() + 5_000_000_000; // by then all nodes are there
    let mut text = format!(
        "exit_when_nodes_finish: true\nenv:\n  FLOW: lossless\n  MILLRACE_BENCH_FRAMES: {frames}\n  \
         MILLRACE_BENCH_PERIOD_MS: {period_ms}\n  MILLRACE_BENCH_START_NS: {start_ns}\nnodes:\n"
    );
    for arm in 0..ARMS.len() {
        let out = folder.join(format!("{arm}.txt"));
        for (role, ports) in [
            ("send", "inputs:\n      tick: dora/timer/secs/5\n    outputs: [frame]".to_owned()),
            ("receive", format!("inputs:\n      frame: send{arm}/frame")),
        ] {
            text += &format!(
                "  - id: {role}{arm}\n    path: {}\n    shared_memory_pool_size: 64MB\n    restart_policy: never\n    {ports}\n    \
                 env:\n      MILLRACE_BENCH_ROLE: {role}{arm}\n      MILLRACE_BENCH_OUT: {}\n",
                program.display(),
                out.display()
            );
        }
    }
    Ok(text)
}

fn bench(frames: u64, period_ms: u64) -> Result<(), Box<dyn Error>> {
    let folder = PathBuf::from(format!("/tmp/millrace-handover-{}", std::process::id()));
    std::fs::create_dir(&folder)?;
    let file = folder.join("graph.yml");
    std::fs::write(&file, graph(&folder, frames + WARM_UP, period_ms)?)?;
    let dora = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/tools/bin/dora");
    let run = Command::new(dora).arg("run").arg(&file).current_dir(&folder).output()?;
    if !run.status.success() {
        return Err(String::from_utf8_lossy(&run.stderr).into());
    }
    println!("{frames} frames of {FRAME_BYTES} bytes in each arm, one every {period_ms} ms, in turns");
    println!("{:24} {:>10} {:>21} {:>21}", "", "", "first byte", "all bytes");
    println!("{:24} {:>10} {:>10} {:>10} {:>10} {:>10}", "us", "arrived", "p50", "p99", "p50", "p99");
    let mut pool = None;
    for (arm, name) in ARMS.iter().enumerate() {
        let lines = std::fs::read_to_string(folder.join(format!("{arm}.txt")))?;
        let column = |at: usize| -> Result<Vec<f64>, Box<dyn Error>> {
            let field = |line: &str| line.split(' ').nth(at).unwrap_or_default().parse::<f64>();
            let mut us = lines.lines().skip(WARM_UP as usize).map(field).collect::<Result<Vec<_>, _>>()?;
            us.iter_mut().for_each(|ns| *ns /= 1e3);
            us.sort_by(f64::total_cmp);
            Ok(us)
        };
        let (first, all) = (column(0)?, column(1)?);
        let at = |us: &[f64], part: f64| us[((us.len() - 1) as f64 * part).round() as usize];
        let row = [at(&first, 0.5), at(&first, 0.99), at(&all, 0.5), at(&all, 0.99)];
        let text = row.map(|us| format!("{us:10.0}")).join(" ");
        println!("{name:24} {:10} {text}", first.len());
        let base = *pool.get_or_insert(row);
        if arm > 0 {
            let ratios: Vec<String> = row.iter().zip(base).map(|(us, pool)| format!("{:10.1}", us / pool)).collect();
            println!("{:24} {:10} {}", "  / pool", "", ratios.join(" "));
        }
    }
    Ok(std::fs::remove_dir_all(&folder)?)
}

fn main() -> ExitCode {
    let done = match setting("ROLE").as_str() {
        "send0" => return millrace_node::main::<PoolSender>(),
        "receive0" => return millrace_node::main::<PoolReceiver>(),
        "send1" => dora_send(1),
        "send2" => dora_send(2),
        "receive1" | "receive2" => dora_receive(),
        _ => {
            let numbers: Vec<u64> = std::env::args().skip(1).filter_map(|arg| arg.parse().ok()).collect();
            bench(numbers.first().copied().unwrap_or(500), numbers.get(1).copied().unwrap_or(60))
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            println!("{e}");
            ExitCode::FAILURE
        }
    }
}
