//! The consumer: asleep on its bell but when a frame or the end of its work has come.

use crate::stamp::{Arm, FRAME_BYTES, Stamps, Way, cpu_ns, now_ns};
use millrace_cuda::{DeviceMemory, Event, Gpu, Stream, Waker};
use millrace_frame::{Fence, SlotRef};
use millrace_pool::{Bell, PollResult, Reader, SlotLease};
use std::error::Error;
use std::io::{BufRead, BufReader, Read, Write};
use std::time::Duration;

type Outcome<T> = Result<T, Box<dyn Error>>;

struct Seen {
    arm: usize,
    awake_ns: u64,
    published_ns: u64,
    cpu_ns: u64,
}

/// The producer's words, and where the consumer answers.
pub(crate) struct Talk {
    from: Box<dyn BufRead>,
    to: Box<dyn Write>,
}

impl Talk {
    pub(crate) fn new(from: impl Read + 'static, to: impl Write + 'static) -> Self {
        Self { from: Box::new(BufReader::new(from)), to: Box::new(to) }
    }

    fn say(&mut self, words: &[&str]) -> Outcome<()> {
        writeln!(self.to, "{}", words.join(" "))?;
        self.to.flush()?;
        Ok(())
    }
}

/// `at`: the number of frames, then for each arm `POOL:PID:FD`.
pub(crate) fn run<S: AsRef<str>>(at: &[S], talk: &mut Talk) -> Outcome<()> {
    let at: Vec<&str> = at.iter().map(AsRef::as_ref).collect();
    let [frames, pools @ ..] = &at[..] else { return Err("a number of frames and the pools".into()) };
    let frames: usize = frames.parse()?;
    let arms = Arm::all();
    let gpu = Gpu::open(0)?;
    let stamps = Stamps::new(&gpu, arms.len() * frames + 1)?;
    let (stream, calls, done) = (Stream::new(&gpu)?, Stream::new(&gpu)?, Event::new(&gpu)?);
    let own = DeviceMemory::allocate(&gpu, FRAME_BYTES, "frames that came through host memory")?;
    let bell = Bell::create()?;
    let waker = {
        let bell = bell.clone();
        Waker::new(move || bell.ring())
    };
    let mut readers = Vec::new();
    for (arm, pool) in arms.iter().zip(pools) {
        readers.push(match open(pool) {
            Ok(Some(reader)) => {
                reader.listen(&bell);
                talk.say(&["open"])?;
                Some(reader)
            }
            Ok(None) => {
                talk.say(&["none"])?;
                None
            }
            Err(e) => {
                talk.say(&[&format!("refused {}: {e}", arm.way())])?;
                None
            }
        });
    }
    let mut seen: Vec<Seen> = Vec::new();
    let mut held: Option<(SlotLease, usize)> = None;
    let mut counted_ns = cpu_ns();
    loop {
        let ring_count = bell.ring_count();
        // the work on a frame is done: the lease goes back
        if let Some((lease, record)) = held.take_if(|_| matches!(done.is_done(), Ok(true))) {
            let now = cpu_ns();
            seen[record].cpu_ns = now - counted_ns;
            counted_ns = now;
            if lease.ticket() == 0 && arms[seen[record].arm].way != Way::ThroughHost {
                look_again(&stamps, &stream, &lease, record, talk)?;
                counted_ns = cpu_ns();
            }
        }
        let mut ended = 0;
        for (index, reader) in readers.iter_mut().enumerate() {
            // one frame at a time: a GPU that others use may need longer than the pause between two
            if held.is_some() {
                break;
            }
            let Some(reader) = reader else {
                ended += 1;
                continue;
            };
            match reader.poll() {
                PollResult::Frame(lease) => {
                    let awake_ns = now_ns();
                    let (fence, published_ns) = description(lease.item())?;
                    let record = seen.len();
                    let span = match arms[index].way {
                        Way::ThroughHost => {
                            stream.upload(lease.bytes(), own.span())?;
                            own.span()
                        }
                        _ => lease.span(&fence, &stream)?,
                    };
                    stamps.consume(&stream, record, span)?;
                    stream.record(&done)?;
                    calls.wait(&done)?;
                    calls.wake(&waker)?;
                    seen.push(Seen { arm: index, awake_ns, published_ns, cpu_ns: 0 });
                    held = Some((lease, record));
                }
                PollResult::Gone(ticket) => return Err(format!("frame {ticket} is gone in lossless flow").into()),
                PollResult::Empty => {}
                PollResult::End => ended += 1,
            }
        }
        if ended == readers.len() && held.is_none() {
            break;
        }
        bell.wait(ring_count, Duration::from_secs(5));
    }
    for (record, seen) in seen.iter().enumerate() {
        let [stamp, first, last] = stamps.record(record);
        let latency = seen.awake_ns.saturating_sub(seen.published_ns);
        talk.say(&[
            "frame",
            &[seen.arm as u64, stamp, first, last, latency, seen.cpu_ns].map(|n| n.to_string()).join(" "),
        ])?;
    }
    Ok(())
}

fn open(pool: &str) -> Outcome<Option<Reader>> {
    let [pool, owner_pid, owner_fd] = pool.split(':').collect::<Vec<_>>()[..] else { return Ok(None) };
    let (pool, owner_pid, owner_fd) = (pool.parse()?, owner_pid.parse()?, owner_fd.parse()?);
    let at = SlotRef { pool, owner_pid, owner_fd, incarnation: 0, ticket: 0, slot: 0, generation: 0 };
    Ok(Some(Reader::open(&at, "consumer/frame")?))
}

/// A description: when the frame was published, and its event's 64 bytes where it is not complete.
fn description(item: &[u8]) -> Outcome<(Fence, u64)> {
    let (published_ns, event) = item.split_at(8);
    let fence = if event.is_empty() { Fence::Complete } else { Fence::CudaEvent(event.to_vec()) };
    Ok((fence, u64::from_ne_bytes(published_ns.try_into()?)))
}

/// Says the tag, waits until the producer has written another, and says that: seen where the first one stood.
fn look_again(stamps: &Stamps, stream: &Stream, lease: &SlotLease, record: usize, talk: &mut Talk) -> Outcome<()> {
    talk.say(&["tag", &stamps.record(record)[1].to_string()])?;
    talk.from.read_line(&mut String::new())?;
    let span = lease.span(&Fence::Complete, stream)?;
    let kept = stamps.record(record);
    stamps.consume(stream, record, span)?;
    stream.synchronize()?;
    let [_, first, last] = stamps.record(record);
    talk.say(&["tag", &first.to_string(), &last.to_string(), &kept[2].to_string()])
}
