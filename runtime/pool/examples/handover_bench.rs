//! What it costs to hand a 1080p NV12 frame to another process: by a slot of a pool and a doorbell, and by sending the
//! same bytes through a Unix stream socket. Both in one run, in turns, frame by frame.
//!
//! ```sh
//! cargo run --release -p millrace-pool --example handover_bench -- [FRAMES]
//! ```
//!
//! The producer writes the whole frame first, in both arms, and outside the measured time. Measured is from the moment
//! that it begins to hand over to the moment when the consumer, with the whole frame at hand, has read its first byte,
//! and to the moment when it has read (summed) all of them. The doorbell is 256 bytes through the same kind of socket. Latencies are by `CLOCK_MONOTONIC`, which all processes
//! share. `through the kernel` is what the producer wrote by system calls, by its `/proc/self/io`.
#![cfg_attr(loom, allow(unused))]
#![allow(clippy::print_stdout, reason = "a benchmark prints")]

#[cfg(loom)]
fn main() {}

#[cfg(not(loom))]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.as_slice() {
        [role, at @ ..] if role == "consumer" => bench::consume(at),
        [] => bench::produce(1000),
        [frames] => bench::produce(frames.parse()?),
        _ => Err("usage: handover_bench [FRAMES]".into()),
    }
}

#[cfg(not(loom))]
mod bench {
    use millrace_frame::SlotRef;
    use millrace_pool::{Flow, MemorySpec, PollResult, Pool, PoolSpec, Reader};
    use std::error::Error;
    use std::fs;
    use std::io::{Read, Write};
    use std::os::fd::{AsFd, OwnedFd};
    use std::os::unix::net::UnixStream;
    use std::process::{Command, Stdio};

    const FRAME_BYTES: usize = 1920 * 1080 * 3 / 2;
    const BELL_BYTES: usize = 256;

    #[derive(Clone, Copy, PartialEq)]
    enum Arm {
        Pool,
        Socket,
    }

    fn sum(bytes: &[u8]) -> u64 {
        std::hint::black_box(bytes.iter().map(|&byte| u64::from(byte)).sum())
    }

    /// Nanoseconds on the clock that all processes of the machine share.
    fn now_ns() -> u64 {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
    }

    /// The file (device and inode) that lies behind an address of this process, from `/proc/self/maps`.
    fn file_behind(bytes: &[u8]) -> Result<String, Box<dyn Error>> {
        let address = bytes.as_ptr().addr();
        for line in fs::read_to_string("/proc/self/maps")?.lines() {
            let mut fields = line.split_ascii_whitespace();
            let (range, _perms, _offset) = (fields.next(), fields.next(), fields.next());
            let (from, to) = range.and_then(|range| range.split_once('-')).ok_or("a range")?;
            if (usize::from_str_radix(from, 16)?..usize::from_str_radix(to, 16)?).contains(&address) {
                return Ok(format!("{}:{}", fields.next().ok_or("a device")?, fields.next().ok_or("an inode")?));
            }
        }
        Err("an address outside of every mapping".into())
    }

    fn written_bytes() -> Result<u64, Box<dyn Error>> {
        let io = fs::read_to_string("/proc/self/io")?;
        Ok(io.lines().find_map(|line| line.strip_prefix("wchar: ")).ok_or("no wchar")?.parse()?)
    }

    pub(crate) fn produce(frames: usize) -> Result<(), Box<dyn Error>> {
        let mut pool = Pool::create(&PoolSpec {
            name: "handover-bench/frame".into(),
            slots: 4,
            slot_bytes: FRAME_BYTES as u64,
            flow: Flow::Lossless,
            incarnation: 0,
            consumers: vec!["consumer/frame".into()],
            memory: MemorySpec::Host,
        })?;
        let SlotRef { pool: id, owner_pid, owner_fd, .. } = pool.locator();
        let (ours, theirs) = UnixStream::pair()?;
        // as a file: write(2) counts in /proc/self/io, send(2) does not
        let mut socket = fs::File::from(OwnedFd::from(ours));
        let mut child = Command::new(std::env::current_exe()?)
            .args(["consumer", &id.to_string(), &owner_pid.to_string(), &owner_fd.to_string()])
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::piped())
            .spawn()?;
        let mut replies = child.stdout.take().ok_or("a pipe")?;
        let mut own = vec![0; FRAME_BYTES];
        let mut latencies: [[Vec<u64>; 2]; 2] = Default::default();
        let mut written = [0; 2];
        let mut slots_file = String::new();

        const WARM_UP: usize = 20;
        for frame in 0..WARM_UP + frames {
            for arm in [Arm::Pool, Arm::Socket] {
                let mut bell = [0; BELL_BYTES];
                let before = written_bytes()?;
                let begun = match arm {
                    Arm::Pool => {
                        let mut slot = pool.acquire().ok_or("a free slot: the consumer answers each frame")?;
                        slot.bytes_mut().fill(frame as u8);
                        if frame == 0 {
                            slots_file = file_behind(slot.bytes_mut())?;
                        }
                        let begun = now_ns();
                        pool.publish(slot, &frame.to_ne_bytes())?;
                        socket.write_all(&bell)?;
                        begun
                    }
                    Arm::Socket => {
                        own.fill(frame as u8);
                        bell[0] = 1;
                        let begun = now_ns();
                        socket.write_all(&bell)?;
                        socket.write_all(&own)?;
                        begun
                    }
                };
                let by_kernel = written_bytes()? - before;
                let mut reply = [0; 24];
                replies.read_exact(&mut reply)?;
                let word = |i: usize| reply[8 * i..][..8].try_into().map(u64::from_ne_bytes);
                let (readable, all_read, sum) = (word(0)?, word(1)?, word(2)?);
                if sum != u64::from(frame as u8) * FRAME_BYTES as u64 {
                    return Err(format!("frame {frame} arrived with the sum {sum}").into());
                }
                if frame >= WARM_UP {
                    let [first, all] = &mut latencies[arm as usize];
                    first.push(readable - begun);
                    all.push(all_read - begun);
                    written[arm as usize] += by_kernel;
                }
            }
        }
        drop(socket);
        let mut theirs = String::new();
        replies.read_to_string(&mut theirs)?;
        if !child.wait()?.success() || theirs != slots_file {
            return Err(format!("the consumer read file {theirs}, the producer wrote file {slots_file}").into());
        }

        println!("{frames} frames of {FRAME_BYTES} bytes in each arm, in turns");
        let [by_pool, by_socket] = latencies.map(|moments| {
            moments.map(|mut ns| {
                ns.sort_unstable();
                [0.5, 0.99].map(|part| ns[((ns.len() - 1) as f64 * part).round() as usize] as f64 / 1e3)
            })
        });
        println!("{:14} {:>21} {:>21}", "", "first byte", "all bytes");
        println!("{:14} {:>10} {:>10} {:>10} {:>10}  through the kernel", "us", "p50", "p99", "p50", "p99");
        for (name, [[a, b], [c, d]], arm) in [("pool", by_pool, Arm::Pool), ("Unix socket", by_socket, Arm::Socket)] {
            let per_frame = written[arm as usize] / frames as u64;
            println!("{name:14} {a:10.1} {b:10.1} {c:10.1} {d:10.1}  {per_frame} bytes a frame");
        }
        let ratio = |moment: usize, part: usize| by_socket[moment][part] / by_pool[moment][part];
        let ratios = [ratio(0, 0), ratio(0, 1), ratio(1, 0), ratio(1, 1)].map(|r| format!("{r:10.1}"));
        println!("{:14} {}", "socket / pool", ratios.join(" "));
        println!("frame bytes copied by the pool: 0; both processes map the slots' file {slots_file}");
        Ok(())
    }

    pub(crate) fn consume(at: &[String]) -> Result<(), Box<dyn Error>> {
        let [pool, owner_pid, owner_fd] = at else { return Err("a pool, a process and a descriptor".into()) };
        let (pool, owner_pid, owner_fd) = (pool.parse()?, owner_pid.parse()?, owner_fd.parse()?);
        let at = SlotRef { pool, owner_pid, owner_fd, incarnation: 0, ticket: 0, slot: 0, generation: 0 };
        let mut reader = Reader::open(&at, "consumer/frame")?;
        let mut socket = fs::File::from(std::io::stdin().as_fd().try_clone_to_owned()?);
        let mut replies = fs::File::from(std::io::stdout().as_fd().try_clone_to_owned()?);
        let mut own = vec![0; FRAME_BYTES];
        let mut slots_file = String::new();
        let mut bell = [0; BELL_BYTES];
        while socket.read_exact(&mut bell).is_ok() {
            let (readable, sum) = if bell[0] == 0 {
                let PollResult::Frame(lease) = reader.poll() else { return Err("the bell rang for a frame".into()) };
                let bytes = lease.bytes();
                std::hint::black_box(bytes[0]);
                let readable = now_ns();
                if slots_file.is_empty() {
                    slots_file = file_behind(bytes)?;
                }
                (readable, sum(bytes))
            } else {
                socket.read_exact(&mut own)?;
                std::hint::black_box(own[0]);
                (now_ns(), sum(&own))
            };
            replies.write_all(&[readable, now_ns(), sum].map(u64::to_ne_bytes).concat())?;
        }
        replies.write_all(slots_file.as_bytes())?;
        Ok(())
    }
}
