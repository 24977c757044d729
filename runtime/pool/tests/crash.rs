//! `kill -9`, for real: producer and consumers are processes of their own (this very binary, in the role that its
//! environment names), and each frame carries a checksum that its description repeats.
#![cfg(not(loom))]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{CudaDescriptor, CudaIpc, Host, Kind};
use millrace_frame::{Fence, SlotRef};
use millrace_pool::{Flow, PollResult, Pool, PoolError, PoolSpec, Reader, SlotLease};
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

const SLOT_BYTES: usize = 64 * 1024 + 8;
const PATIENCE: Duration = Duration::from_secs(60);

fn create<K: Kind>(name: &str, flow: Flow, slots: u32, consumers: &[&str], incarnation: u64) -> Pool {
    let consumers = consumers.iter().map(|&name| name.to_owned()).collect();
    let (slot_bytes, memory) = (SLOT_BYTES as u64, K::memory());
    let spec = PoolSpec { name: name.into(), slots, slot_bytes, flow, incarnation, consumers, memory };
    Pool::create(&spec).unwrap()
}

/// FNV-1a over 64-bit words.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.chunks_exact(8).fold(0xcbf2_9ce4_8422_2325, |hash: u64, word| {
        (hash ^ u64::from_ne_bytes(word.try_into().unwrap())).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// A frame that says its ticket in every word.
fn fill(bytes: &mut [u8], ticket: u64) {
    for (i, word) in bytes.chunks_exact_mut(8).enumerate() {
        word.copy_from_slice(&(ticket.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ i as u64).to_ne_bytes());
    }
}

fn try_put(pool: &mut Pool) -> bool {
    let Some(mut slot) = pool.acquire() else { return false };
    let ticket = pool.published();
    let mut bytes = vec![0; SLOT_BYTES];
    fill(&mut bytes, ticket);
    slot.write(&bytes).unwrap();
    let item = [ticket, checksum(&bytes)].map(u64::to_ne_bytes).concat();
    pool.publish(slot, &item).unwrap();
    true
}

/// The frame is its ticket's and whole, and stays so while it is held.
fn check(lease: &SlotLease) {
    let mut expected = vec![0; SLOT_BYTES];
    fill(&mut expected, lease.ticket());
    let item = [lease.ticket(), checksum(&expected)].map(u64::to_ne_bytes).concat();
    assert_eq!(lease.item(), item, "the description is ticket {}'s", lease.ticket());
    for look in 0..2 {
        assert_eq!(
            checksum(&lease.read(&Fence::Complete, SLOT_BYTES).unwrap()),
            checksum(&expected),
            "look {look} at ticket {}",
            lease.ticket()
        );
        std::thread::yield_now();
    }
}

/// A process in one of the roles of [`child`]. Killed when dropped.
struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
    says: mpsc::Receiver<String>,
}

impl Process {
    fn start<K: Kind>(role: &str, name: &str, at: &SlotRef) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--nocapture"])
            .env("MILLRACE_ROLE", role)
            .env("MILLRACE_KIND", K::NAME)
            .env("MILLRACE_NAME", name)
            .env("MILLRACE_AT", print(at))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (stdin, stderr) = (child.stdin.take(), BufReader::new(child.stderr.take().unwrap()));
        let (send, says) = mpsc::channel();
        // read at once, so that no full pipe slows it
        std::thread::spawn(move || stderr.lines().map_while(Result::ok).try_for_each(|line| send.send(line)));
        Self { child, stdin, says }
    }

    fn line(&self) -> String {
        self.says.recv_timeout(PATIENCE).unwrap_or_else(|e| panic!("it says nothing more: {e}"))
    }

    /// Kills it, and returns what it had said and not been asked for. It fails where it had ended by itself.
    fn kill(mut self) -> Vec<String> {
        self.child.kill().unwrap();
        let rest = self.rest();
        let status = self.child.wait().unwrap();
        assert_eq!(status.signal(), Some(9), "it had ended by itself: {status}: {rest:#?}");
        rest
    }

    /// Waits for its end, which must be a good one.
    fn end(mut self) -> Vec<String> {
        drop(self.stdin.take());
        let rest = self.rest();
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}: {rest:#?}");
        rest
    }

    fn rest(&self) -> Vec<String> {
        self.says.iter().collect()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn tickets(said: &[String]) -> Vec<u64> {
    said.iter().map(|line| line.parse().unwrap_or_else(|_| panic!("a ticket, not '{line}': {said:#?}"))).collect()
}

fn say(what: impl std::fmt::Display) {
    std::io::stderr().write_all(format!("{what}\n").as_bytes()).unwrap();
}

/// Publishes until `tickets` are out, and takes back the leases of the dead meanwhile.
fn publish_until(pool: &mut Pool, tickets: u64) {
    let until = Instant::now() + PATIENCE;
    while pool.published() < tickets {
        if !try_put(pool) {
            assert!(Instant::now() < until, "stuck at {}, behind: {:?}", pool.published(), pool.behind());
            pool.reap(false);
            pool.wait(Duration::from_millis(5));
        }
    }
}

fn reap_until_found(pool: &mut Pool, give_up: bool) -> Vec<String> {
    let until = Instant::now() + PATIENCE;
    loop {
        let dead = pool.reap(give_up);
        if !dead.is_empty() {
            return dead;
        }
        assert!(Instant::now() < until, "its death is never noticed");
        std::thread::yield_now();
    }
}

fn live_a_killed_consumer_gives_its_slots_back<K: Kind>() {
    let mut pool = create::<K>("crash-live/frame", Flow::Live, 3, &["a/in"], 0);
    let mut consumer = Process::start::<K>("hold 3", "a/in", &pool.locator());
    assert_eq!(consumer.line(), "Fresh");
    publish_until(&mut pool, 3);
    assert_eq!([consumer.line(), consumer.line(), consumer.line()], ["0", "1", "2"]);
    assert!(pool.acquire().is_none(), "it holds every slot");
    assert!(pool.reap(false).is_empty(), "and lives");
    // not waited for: a zombie holds nothing any more
    consumer.child.kill().unwrap();
    assert_eq!(reap_until_found(&mut pool, false), ["a/in"]);
    assert!(try_put(&mut pool) && try_put(&mut pool) && try_put(&mut pool), "every slot is back");
    assert!(pool.reap(false).is_empty(), "a death is told once");
    consumer.kill();
    let successor = Process::start::<K>("hold 1", "a/in", &pool.locator());
    assert_eq!(successor.line(), "Inherited { lost: 3 }", "what the dead consumer had leased is lost, and counted");
    assert_eq!(successor.line(), "3", "it goes on with the first frame that the dead consumer had not looked at");
}

fn lossless_a_successor_gets_every_frame_that_the_dead_had_not_given_back<K: Kind>() {
    const FRAMES: u64 = 60;
    let mut pool = create::<K>("crash-lossless/frame", Flow::Lossless, 4, &["a/in", "b/in"], 0);
    let dying = Process::start::<K>("hold 2", "a/in", &pool.locator());
    let other = Process::start::<K>("read", "b/in", &pool.locator());
    publish_until(&mut pool, 4);
    assert_eq!([dying.line(), dying.line(), dying.line()], ["Fresh", "0", "1"]);
    dying.kill();
    assert_eq!(reap_until_found(&mut pool, false), ["a/in"]);
    std::thread::sleep(Duration::from_millis(20));
    assert!(pool.acquire().is_none(), "the producer waits for a successor");
    let successor = Process::start::<K>("read", "a/in", &pool.locator());
    publish_until(&mut pool, FRAMES);
    pool.close();
    let said = successor.end();
    assert_eq!(said[0], "Inherited { lost: 0 }");
    assert_eq!(tickets(&said[1..]), Vec::from_iter(0..FRAMES), "0 and 1 once more, and all the rest");
    assert_eq!(tickets(&other.end()[1..]), Vec::from_iter(0..FRAMES), "its neighbour noticed nothing");
}

fn lossless_giving_up_frees_the_producer<K: Kind>() {
    let mut pool = create::<K>("crash-give-up/frame", Flow::Lossless, 2, &["a/in"], 0);
    let dying = Process::start::<K>("hold 1", "a/in", &pool.locator());
    publish_until(&mut pool, 2);
    assert_eq!([dying.line(), dying.line()], ["Fresh", "0"]);
    dying.kill();
    assert_eq!(reap_until_found(&mut pool, true), ["a/in"]);
    publish_until(&mut pool, 10);
    assert!(pool.behind().is_empty());
    let late = Process::start::<K>("read", "a/in", &pool.locator());
    assert_eq!(late.line(), "Fresh");
    publish_until(&mut pool, 20);
    pool.close();
    assert_eq!(tickets(&late.end()), Vec::from_iter(10..20));
}

fn a_producer_killed_in_mid_write_leaves_whole_frames_only<K: Kind>() {
    let nowhere = SlotRef { pool: 0, owner_pid: 0, owner_fd: 0, incarnation: 0, ticket: 0, slot: 0, generation: 0 };
    let producer = Process::start::<K>("produce 4 then half", "dying/frame", &nowhere);
    let at = parse(&producer.line());
    let mut reader = Reader::open(&at, "a/in").unwrap();
    assert_eq!(producer.line(), "half");
    assert!(!reader.producer_is_dead());
    producer.kill();
    assert!(reader.producer_is_dead());
    // two slots: 0 and 1 were overwritten, 2 was about to be
    for gone in 0..3 {
        assert!(matches!(reader.poll(), PollResult::Gone(ticket) if ticket == gone));
    }
    let PollResult::Frame(last) = reader.poll() else { panic!("ticket 3 is whole") };
    assert_eq!(last.ticket(), 3);
    check(&last);
    assert!(matches!(reader.poll(), PollResult::Empty) && reader.pending() == 0);
    let late = Reader::open(&at, "b/in").unwrap_err();
    assert!(matches!(&late, PoolError::Open { pid, .. } if *pid == at.owner_pid), "{late}");

    let again = SlotRef { incarnation: 1, ..nowhere };
    let restarted = Process::start::<K>("produce 1 then half", "dying/frame", &again);
    let next = parse(&restarted.line());
    assert_ne!(next.pool, at.pool);
    let mut second = Reader::open(&next, "a/in").unwrap();
    assert_eq!(second.incarnation(), 1);
    let PollResult::Frame(first) = second.poll() else { panic!("ticket 0 of the second run") };
    check(&first);
    check(&last);
    drop((reader, last));
    assert_eq!(
        traces("dying/frame")[1],
        K::FILES,
        "of the first run's memory nothing is left here, of the second's all files"
    );
}

fn lossless_lost_doorbells_lose_no_frame<K: Kind>() {
    const FRAMES: u64 = 95;
    let mut pool = create::<K>("bells/frame", Flow::Lossless, 16, &["a/in"], 0);
    let mut consumer = Process::start::<K>("answer bells", "a/in", &pool.locator());
    assert_eq!(consumer.line(), "Fresh");
    let mut bell = consumer.stdin.take().unwrap();
    for ticket in 0..FRAMES {
        publish_until(&mut pool, ticket + 1);
        if ticket % 10 == 9 {
            bell.write_all(b"x").unwrap();
        }
    }
    pool.close();
    drop(bell); // dora tells that an input has closed
    assert_eq!(tickets(&consumer.end()), Vec::from_iter(0..FRAMES));
}

/// Consumers are killed at random moments while the producer runs at full speed. Whoever sees a frame that is not whole
/// or not its ticket's ends by itself, which fails the test.
fn churn<K: Kind>(flow: Flow, name: &str) {
    let names = ["a/in", "b/in", "c/in"];
    let mut pool = create::<K>(name, flow, 5, &names, 0);
    let at = pool.locator();
    let mut consumers: Vec<Process> =
        names.iter().map(|name| Process::start::<K>("read silently", name, &at)).collect();
    let mut came: [Vec<u64>; 3] = Default::default();
    let mut kills = 0;
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let end = Instant::now() + Duration::from_millis(2500);
    let mut next_kill = Instant::now();
    while Instant::now() < end {
        if !try_put(&mut pool) {
            pool.reap(false);
            pool.wait(Duration::from_millis(1));
        }
        if Instant::now() >= next_kill {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let victim = (random % 3) as usize;
            let dead = consumers.remove(victim);
            came[victim].extend(tickets(&dead.kill()));
            consumers.insert(victim, Process::start::<K>("read silently", names[victim], &at));
            kills += 1;
            next_kill = Instant::now() + Duration::from_millis(10 + random / 7 % 60);
        }
    }
    pool.close();
    for (consumer, came) in consumers.into_iter().zip(&mut came) {
        came.extend(tickets(&consumer.end()));
    }
    let frames = pool.published();
    let read = came.each_ref().map(Vec::len);
    eprintln!("{flow:?}: {frames} frames, {kills} kills, read and found whole: {read:?}");
    assert!(kills >= 10 && read.iter().all(|&n| n > 0));
    if flow == Flow::Lossless {
        for came in &came {
            let owed = BTreeSet::from_iter(0..frames);
            assert_eq!(BTreeSet::from_iter(came.iter().copied()), owed, "each frame came to every consumer");
            // at most what each of the dead held comes twice
            assert!(came.len() as u64 <= frames + kills, "{} came of {frames}", came.len());
        }
    }
    assert!(pool.behind().is_empty());
    pool.reap(false);
    for slots in 1..=5 {
        assert!(try_put(&mut pool), "slot {slots} of 5 is free: no lease is left behind");
    }
    let [fds, maps, shm] = traces(name);
    assert_eq!(
        (fds, maps, shm),
        (K::FILES, K::FILES, 0),
        "this process has the control block and the slots, and /dev/shm has nothing"
    );
    drop(pool);
    assert_eq!(traces(name), [0, 0, 0]);
}

fn live_no_frame_is_torn_while_consumers_are_killed<K: Kind>() {
    churn::<K>(Flow::Live, "churn-live/frame");
}

fn lossless_no_frame_is_torn_or_lost_while_consumers_are_killed<K: Kind>() {
    churn::<K>(Flow::Lossless, "churn-lossless/frame");
}

macro_rules! crash {
    ($kind:ident, $marker:ty: $($test:ident)*) => {
        mod $kind {
            use super::Kind;
            $(#[test] fn $test() { if <$marker>::is_on_trial() { super::$test::<$marker>() } })*
        }
    };
    ($($kind:ident: $marker:ty;)*) => {
        $(crash! { $kind, $marker:
            live_a_killed_consumer_gives_its_slots_back
            lossless_a_successor_gets_every_frame_that_the_dead_had_not_given_back
            lossless_giving_up_frees_the_producer
            a_producer_killed_in_mid_write_leaves_whole_frames_only
            lossless_lost_doorbells_lose_no_frame
            live_no_frame_is_torn_while_consumers_are_killed
            lossless_no_frame_is_torn_or_lost_while_consumers_are_killed
        })*
    };
}

crash! {
    host: super::Host;
    cuda_ipc: super::CudaIpc;
    cuda_descriptor: super::CudaDescriptor;
}

/// The two kinds above that need a driver, once more, on the stand-in.
#[test]
fn on_the_stand_in() {
    millrace_cuda_driver_folder::run_on_the_stand_in("cuda_", &[]);
}

/// Descriptors and mappings of this process whose name contains `name`, and our files in /dev/shm.
fn traces(name: &str) -> [usize; 3] {
    let fds = std::fs::read_dir("/proc/self/fd").unwrap().filter_map(|fd| std::fs::read_link(fd.unwrap().path()).ok());
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let shm: Vec<_> = std::fs::read_dir("/dev/shm").map(|dir| dir.filter_map(Result::ok).collect()).unwrap_or_default();
    [
        fds.filter(|link| link.to_string_lossy().contains(name)).count(),
        maps.lines().filter(|line| line.contains(name)).count(),
        shm.iter().filter(|file| file.file_name().to_string_lossy().contains("millrace")).count(),
    ]
}

fn parse(at: &str) -> SlotRef {
    let parts: Vec<u128> =
        at.split(' ').map(|part| part.parse().unwrap_or_else(|_| panic!("a place, not '{at}'"))).collect();
    let [pool, owner_pid, owner_fd, incarnation] = parts[..] else { panic!("four numbers, not '{at}'") };
    let (owner_pid, owner_fd) = (owner_pid as u32, owner_fd as u32);
    SlotRef { pool, owner_pid, owner_fd, incarnation: incarnation as u64, ticket: 0, slot: 0, generation: 0 }
}

fn print(at: &SlotRef) -> String {
    format!("{} {} {} {}", at.pool, at.owner_pid, at.owner_fd, at.incarnation)
}

/// Does nothing by itself; with `MILLRACE_ROLE` it is one of the processes that a test above started. It says what it
/// does on standard error, a line each.
#[test]
fn child() {
    let Ok(role) = std::env::var("MILLRACE_ROLE") else { return };
    let name = std::env::var("MILLRACE_NAME").unwrap();
    let at = parse(&std::env::var("MILLRACE_AT").unwrap());
    let role: Vec<&str> = role.split(' ').collect();
    match role[..] {
        ["hold", frames] => {
            let mut reader = attach(&at, &name);
            say(format!("{:?}", reader.attached()));
            let mut held = Vec::new();
            while held.len() < frames.parse().unwrap() {
                match reader.poll() {
                    PollResult::Frame(lease) => {
                        check(&lease);
                        say(lease.ticket());
                        held.push(lease);
                    }
                    _ => std::thread::yield_now(),
                }
            }
            sleep_until_killed();
        }
        ["read"] => {
            let mut reader = attach(&at, &name);
            say(format!("{:?}", reader.attached()));
            read_on(&mut reader, true);
        }
        ["read", "silently"] => read_on(&mut attach(&at, &name), true),
        ["answer", "bells"] => {
            let mut reader = attach(&at, &name);
            say(format!("{:?}", reader.attached()));
            for _bell in std::io::stdin().lock().bytes() {
                read_on(&mut reader, false);
            }
            read_on(&mut reader, true);
        }
        ["produce", frames, "then", "half"] => {
            let made_in = match std::env::var("MILLRACE_KIND").as_deref() {
                Ok(CudaIpc::NAME) => create::<CudaIpc>,
                Ok(CudaDescriptor::NAME) => create::<CudaDescriptor>,
                _ => create::<Host>,
            };
            let mut pool = made_in(&name, Flow::Live, 2, &["a/in"], at.incarnation);
            publish_until(&mut pool, frames.parse().unwrap());
            say(print(&pool.locator()));
            let mut slot = pool.acquire().unwrap();
            slot.write(&[0xee; SLOT_BYTES / 2]).unwrap();
            say("half");
            sleep_until_killed();
        }
        _ => panic!("no role {role:?}"),
    }
}

fn attach(at: &SlotRef, name: &str) -> Reader {
    Reader::open(at, name).unwrap_or_else(|e| panic!("{e}"))
}

/// Reads what is there, or until the end, and says each ticket before it gives it back.
fn read_on(reader: &mut Reader, to_the_end: bool) {
    let until = Instant::now() + PATIENCE;
    loop {
        match reader.poll() {
            PollResult::Frame(lease) => {
                check(&lease);
                say(lease.ticket());
            }
            PollResult::Gone(ticket) => assert_eq!(reader.flow(), Flow::Live, "{ticket} is lost"),
            PollResult::Empty if to_the_end => {
                assert!(Instant::now() < until, "no end");
                std::thread::yield_now();
            }
            PollResult::Empty | PollResult::End => return,
        }
    }
}

fn sleep_until_killed() -> ! {
    loop {
        std::thread::sleep(Duration::from_secs(1));
        // nobody is left to kill it
        if std::os::unix::process::parent_id() == 1 {
            std::process::exit(1);
        }
    }
}
