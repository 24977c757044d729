//! What it costs to hand a 1080p NV12 frame on a GPU to another process, or to another thread of one: by a pool on the
//! GPU, and by a copy through a pool in host memory. All arms in one run, in turns, frame by frame.
//!
//! ```sh
//! cargo run --release -p millrace-pool --example gpu_handover -- [--one-process] [--frames N] [--json FILE]
//! ```
//!
//! The producer fills the frame on the GPU; its last kernel stamps the GPU's clock (`%globaltimer`, whose step is
//! printed), and the frame's event follows. The consumer, asleep on its bell, queues a kernel that first stamps the same
//! clock and then reads the frame's first and last word where they lie. `event to kernel` is the time between the stamps:
//! GPU time, of one clock. `publish to awake` is CPU time of the hand-over, by `CLOCK_MONOTONIC`, which processes share.
//! CPU time is that of the whole process (`CLOCK_PROCESS_CPUTIME_ID`), the driver's threads too: one that spins shows.
//! With `--one-process` the consumer is a thread of the producer's process, and both sides report the CPU time of both.
//!
//! That no byte is copied is seen, not assumed: while the consumer holds the first frame, the producer writes another tag
//! into the slot, and the consumer finds it at its own address with nothing handed over.
//!
//! In an arm with work, the producer's last kernel takes that long: the consumer's kernel is then queued before the frame
//! is complete, and the GPU orders the two by the event alone.
#![cfg_attr(loom, allow(unused))]
#![allow(clippy::print_stdout, reason = "a benchmark prints")]

#[cfg(not(loom))]
mod consumer;
#[cfg(not(loom))]
mod producer;
#[cfg(not(loom))]
mod stamp;

#[cfg(loom)]
fn main() {}

#[cfg(not(loom))]
fn main() -> std::process::ExitCode {
    match run() {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("gpu_handover: {e}");
            std::process::ExitCode::FAILURE
        }
    }
}

#[cfg(not(loom))]
fn run() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let (mut frames, mut json, mut place) = (300, None, producer::Consumer::Process);
    let mut rest = args.as_slice();
    if let ["consumer", at @ ..] = rest {
        return consumer::run(at, &mut consumer::Talk::new(std::io::stdin(), std::io::stdout()));
    }
    if let ["--one-process", tail @ ..] = rest {
        (place, rest) = (producer::Consumer::Thread, tail);
    }
    while let [option, value, tail @ ..] = rest {
        match *option {
            "--frames" => frames = value.parse()?,
            "--json" => json = Some(std::path::PathBuf::from(value)),
            _ => break,
        }
        rest = tail;
    }
    if !rest.is_empty() {
        return Err("usage: gpu_handover [--one-process] [--frames N] [--json FILE]".into());
    }
    producer::run(place, frames, json.as_deref())
}
