//! A peer of the same graph that writes garbage into a control block, from a process of its own, while this one reads and
//! publishes: nothing is read out of bounds, nothing hangs, and nothing panics. What is read may be nonsense.
#![cfg(not(loom))]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking, and its child speaks")]

use millrace_frame::{Fence, SlotRef};
use millrace_pool::control::{Block, Consumer, Description, Header};
use millrace_pool::{Flow, MemorySpec, PollResult, Pool, PoolSpec, Reader};
use std::fs::OpenOptions;
use std::io::{BufRead, BufReader};
use std::mem::{offset_of, size_of};
use std::os::unix::fs::FileExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Longer than any of these calls takes on a machine that is busy, and shorter than for ever.
const HANGS: Duration = Duration::from_secs(60);
const SLOT_BYTES: usize = 5000;
/// Of each seed and flow.
const ROUNDS: usize = 20_000;

/// Numbers from a seed (xorshift64*), so that a failure comes again.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, most: usize) -> usize {
        (self.next() % most as u64) as usize
    }
}

fn pool(name: &str, flow: Flow) -> Pool {
    let consumers = vec!["a/in".to_owned(), "b/in".to_owned()];
    let spec = PoolSpec {
        name: name.into(),
        slots: 4,
        slot_bytes: SLOT_BYTES as u64,
        flow,
        incarnation: 1,
        consumers,
        memory: MemorySpec::Host,
    };
    Pool::create(&spec).unwrap()
}

/// Ends with the test.
struct Scribbler(Child);

impl Drop for Scribbler {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Scribbler {
    fn start(at: &SlotRef, seed: u64) -> Self {
        let path = format!("/proc/{}/fd/{}", at.owner_pid, at.owner_fd);
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "scribbler", "--nocapture"])
            .env("MILLRACE_SCRIBBLE", path)
            .env("MILLRACE_SEED", seed.to_string())
            .stdout(Stdio::piped())
            .spawn();
        let mut child = child.unwrap();
        // garbage has to be there before anything is used
        let said = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        assert!(said.into_iter().any(|line| line.contains("it scribbles")), "the scribbler does not start");
        Self(child)
    }
}

/// Does nothing by itself; with `MILLRACE_SCRIBBLE` it is the process that writes garbage there until it is killed.
#[test]
fn scribbler() {
    let Some(path) = std::env::var_os("MILLRACE_SCRIBBLE") else { return };
    let mut numbers = Numbers(std::env::var("MILLRACE_SEED").unwrap().parse().unwrap());
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let genuine = {
        let mut bytes = vec![0; size_of::<Block>()];
        file.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    };
    let word = |at: usize| u64::from_ne_bytes(genuine[at..at + 8].try_into().unwrap());
    let mut written = 0_u32;
    loop {
        written = written.saturating_add(1);
        if written == 100 {
            println!("it scribbles");
        }
        // everywhere, and more often where it hurts
        let at = match numbers.below(6) {
            0 => numbers.below(size_of::<Block>() / 8) * 8,
            1 => numbers.below(size_of::<Header>() / 8) * 8,
            2 => offset_of!(Block, header) + offset_of!(Header, head),
            3 => offset_of!(Block, slots) + numbers.below(4) * 8,
            4 => offset_of!(Block, consumers) + numbers.below(3 * size_of::<Consumer>() / 8) * 8,
            _ => offset_of!(Block, descriptions) + numbers.below(4 * size_of::<Description>() / 8) * 8,
        };
        let value = match numbers.below(8) {
            0 => 0,
            1 => u64::MAX,
            2 => numbers.next(),
            3 => numbers.next() & 0xffff,
            4 => 1 << numbers.below(64),
            5 => word(at),
            6 => u64::from(u32::MAX) << 32 | numbers.next() & 0xff,
            _ => word(at).wrapping_add(numbers.next() & 7),
        };
        file.write_all_at(&value.to_ne_bytes(), at as u64).unwrap();
        // sometimes all is as it was, so that what has been refused is tried again
        if numbers.below(200) == 0 {
            file.write_all_at(&genuine, 0).unwrap();
        }
    }
}

/// All that a consumer does, and all that a producer does, for so many rounds. How many frames came.
fn use_it(pool: &mut Pool, numbers: &mut Numbers, rounds: usize) -> usize {
    let at = pool.locator();
    let (mut readers, mut held, mut frames) = (Vec::new(), Vec::new(), 0);
    for _ in 0..rounds {
        match numbers.below(12) {
            0 | 1 => {
                let name = ["a/in", "b/in", "stranger/in"][numbers.below(3)];
                // what is refused is said in words
                match Reader::open(&at, name) {
                    Ok(reader) => readers.push(reader),
                    Err(why) => assert!(!why.to_string().is_empty()),
                }
            }
            2 if !readers.is_empty() => drop(readers.swap_remove(numbers.below(readers.len()))),
            3 if !held.is_empty() => drop(held.swap_remove(numbers.below(held.len()))),
            4 => {
                pool.reap(numbers.below(2) == 0);
                let (_, _) = (pool.behind(), pool.expected());
                pool.ring();
            }
            5 | 6 => {
                if let Some(mut slot) = pool.acquire() {
                    slot.write(&[7; SLOT_BYTES]).unwrap();
                    pool.publish(slot, b"{}").unwrap();
                }
            }
            _ if !readers.is_empty() => {
                let at = numbers.below(readers.len());
                let reader: &mut Reader = &mut readers[at];
                reader.pass_over();
                let next = if numbers.below(4) == 0 { reader.newest() } else { reader.poll() };
                assert!((1..=64).contains(&reader.slots()));
                let (_, _, _) = (reader.pending(), reader.is_closed(), reader.producer_is_dead());
                if let PollResult::Frame(lease) = next {
                    frames += 1;
                    assert!(lease.item().len() <= millrace_pool::control::ITEM_BYTES);
                    let bytes = lease.read(&Fence::Complete, lease.slot_bytes() as usize).unwrap();
                    assert_eq!(bytes.len() as u64, lease.slot_bytes());
                    if held.len() < 8 {
                        held.push(lease);
                    }
                }
            }
            _ => {}
        }
        if readers.len() > 4 {
            readers.clear();
        }
    }
    frames
}

/// Runs it in a thread that has to come to its end.
fn within_time(what: &str, work: impl FnOnce() -> usize + Send + 'static) -> usize {
    let (done, wait) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        let frames = work();
        let _ = done.send(frames);
    });
    match wait.recv_timeout(HANGS) {
        Ok(frames) => frames,
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("{what}: a reader or a producer hangs"),
        Err(mpsc::RecvTimeoutError::Disconnected) => {
            std::panic::resume_unwind(thread.join().expect_err("it sent nothing"))
        }
    }
}

#[test]
fn garbage_in_a_control_block_is_read_without_harm() {
    let begun = Instant::now();
    let (mut frames, mut rounds) = (0, 0);
    // some seconds in all, whatever the machine; every seed by itself says the same again
    for seed in 1..=8 {
        for flow in [Flow::Live, Flow::Lossless] {
            frames += within_time(&format!("seed {seed}, {flow:?}"), move || {
                let mut pool = pool(&format!("hostile-{seed}/frame"), flow);
                let scribbler = Scribbler::start(&pool.locator(), seed);
                let mut numbers = Numbers(seed << 32 | 1);
                let frames = use_it(&mut pool, &mut numbers, ROUNDS);
                drop(scribbler);
                frames
            });
            rounds += ROUNDS;
        }
    }
    eprintln!("{rounds} rounds, {frames} frames, {:?}", begun.elapsed());
    assert!(frames > 0, "something was read between the garbage");
}

/// The worst that one word can say, by itself.
#[test]
fn a_head_that_lies_ends_the_pool_and_holds_nobody_up() {
    for flow in [Flow::Live, Flow::Lossless] {
        within_time(&format!("{flow:?}"), move || {
            let pool = pool("head/frame", flow);
            let at = pool.locator();
            let path = format!("/proc/{}/fd/{}", at.owner_pid, at.owner_fd);
            let block = OpenOptions::new().write(true).open(path).unwrap();
            let set = |field: usize, value: u64| {
                block.write_all_at(&value.to_ne_bytes(), (offset_of!(Block, header) + field) as u64).unwrap();
            };
            let head = offset_of!(Header, head);
            let mut reader = Reader::open(&at, "a/in").unwrap();
            // far, and possible: what cannot be there is passed over, in live flow counted
            set(head, 1 << 30);
            let passed = reader.pass_over();
            assert_eq!(passed, if flow == Flow::Live { (1 << 30) - (1 << 16) } else { 0 });
            assert!(matches!(reader.poll(), PollResult::Gone(_) | PollResult::Empty));
            assert!(matches!(reader.newest(), PollResult::Empty), "no slot holds it, however often it is looked for");
            // what cannot be
            set(head, u64::MAX);
            assert!(matches!(reader.poll(), PollResult::End) && matches!(reader.poll(), PollResult::End));
            assert!(reader.is_closed() && reader.pending() == 0 && reader.pass_over() == 0);
            // as many slots as there are numbers, or none
            let mut other = Reader::open(&at, "b/in").unwrap();
            for slots in [u32::MAX, 0, 64] {
                block
                    .write_all_at(&slots.to_ne_bytes(), (offset_of!(Block, header) + offset_of!(Header, slots)) as u64)
                    .unwrap();
                set(head, 3);
                set(offset_of!(Header, slot_bytes), u64::MAX);
                let _ = (other.poll(), other.newest());
                assert_eq!((other.slots(), other.slot_bytes()), (4, SLOT_BYTES as u64));
            }
            0
        });
    }
}
