//! NVDEC without a graph around it, for the GPU suite: checksums of every frame, and the rate of many sessions.
//!
//! ```text
//! gpu_decode md5 CLIP --out FILE                 a framemd5 file of the frames, as FFmpeg writes it
//! gpu_decode check CLIP=FRAMEMD5... [--json FILE]  every frame against FFmpeg's file
//! gpu_decode rate CLIP --sessions N [--seconds S]  frames a second, mapped and unmapped; S repeats the clip
//! gpu_decode delay CLIP... [--json FILE]         units that a picture waits for before it comes out, in each order
//! gpu_decode end CLIP --sessions N [--leave]     how long N sessions take to begin and to end, destroyed or left
//! ```
//!
//! All take `--device N`; the first three `--low-delay` and `--map feed`, which maps pictures on the thread that feeds the parser, as
//! NVIDIA's samples do, instead of on another. Exit code 1: a frame differs, or there is no GPU.
#![allow(clippy::print_stdout, reason = "a program for the command line")]

mod checksum;
mod delay;
mod end;
mod player;
mod rate;

use player::Player;
use std::process::ExitCode;

/// The arguments of the command line.
#[derive(Default)]
struct Words {
    clips: Vec<String>,
    out: Option<String>,
    json: Option<String>,
    sessions: usize,
    seconds: Option<f64>,
    device: u32,
    low_delay: bool,
    map_on_feed: bool,
    leave: bool,
}

const USAGE: &str = "usage: gpu_decode md5 CLIP --out FILE | check CLIP=FRAMEMD5... [--json FILE] | \
                     rate CLIP --sessions N [--seconds S] | delay CLIP... [--json FILE] | \
                     end CLIP --sessions N [--leave]; all: [--device N] [--low-delay] [--map feed|thread]";

fn words(args: impl Iterator<Item = String>) -> Result<Words, String> {
    let mut words = Words { sessions: 1, ..Words::default() };
    let mut args = args;
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value; {USAGE}"));
        let wrong = |value: &str| format!("'{value}' is no value for {arg}; {USAGE}");
        match arg.as_str() {
            "--out" => words.out = Some(value()?),
            "--json" => words.json = Some(value()?),
            "--sessions" => {
                let text = value()?;
                words.sessions = text.parse().ok().filter(|&n| n > 0).ok_or_else(|| wrong(&text))?;
            }
            "--seconds" => {
                let text = value()?;
                words.seconds = Some(text.parse().ok().filter(|&s| s > 0.0 && s < 1e6).ok_or_else(|| wrong(&text))?);
            }
            "--device" => {
                let text = value()?;
                words.device = text.parse().map_err(|_| wrong(&text))?;
            }
            "--low-delay" => words.low_delay = true,
            "--leave" => words.leave = true,
            "--map" => match value()?.as_str() {
                "feed" => words.map_on_feed = true,
                "thread" => words.map_on_feed = false,
                other => return Err(wrong(other)),
            },
            _ if arg.starts_with("--") => return Err(format!("no option is called {arg}; {USAGE}")),
            _ => words.clips.push(arg),
        }
    }
    Ok(words)
}

/// Whether all was well.
fn run() -> Result<bool, String> {
    let mut args = std::env::args().skip(1);
    let what = args.next().unwrap_or_default();
    let words = words(args)?;
    let one = || match &words.clips[..] {
        [clip] => Ok(clip.as_str()),
        _ => Err(format!("one clip is expected; {USAGE}")),
    };
    let player = || Player::open(words.device, words.low_delay, words.map_on_feed);
    match what.as_str() {
        "md5" => {
            let out = words.out.as_deref().ok_or_else(|| format!("--out is missing; {USAGE}"))?;
            checksum::write(&player()?, one()?, out)
        }
        "check" => checksum::check(&player()?, &words.clips, words.json.as_deref()),
        "delay" if !words.clips.is_empty() => delay::measure(words.device, &words.clips, words.json.as_deref()),
        "end" => end::measure(words.device, one()?, words.sessions, words.leave),
        "rate" => rate::measure(&player()?, one()?, words.sessions, words.seconds),
        _ => Err(USAGE.to_owned()),
    }
}

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("gpu_decode: {e}");
            ExitCode::FAILURE
        }
    }
}
