//! What a pool promises, for every kind of memory: one suite, instantiated for each kind at the end of this file.
#![cfg(not(loom))]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{CudaDescriptor, CudaIpc, Host, Kind};
use millrace_cuda::Stream;
use millrace_frame::{Fence, SlotRef};
use millrace_pool::control::{ITEM_BYTES, MAX_CONSUMERS, MAX_SLOTS};
use millrace_pool::protocol::Attached;
use millrace_pool::{Flow, MemorySpec, PollResult, Pool, PoolError, PoolSpec, Reader, SlotLease};
use proptest::prelude::*;
use proptest::test_runner::Config;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Neither a multiple of a page nor of a word.
const SLOT_BYTES: usize = 5003;

fn spec<K: Kind>(flow: Flow, slots: u32, consumers: &[&str]) -> PoolSpec {
    // unique, so that this test's descriptors and mappings can be told from those of the tests beside it
    static NEXT: AtomicU32 = AtomicU32::new(0);
    PoolSpec {
        name: format!("conformance-{}/frame", NEXT.fetch_add(1, Ordering::Relaxed)),
        slots,
        slot_bytes: SLOT_BYTES as u64,
        flow,
        incarnation: 7,
        consumers: consumers.iter().map(|&name| name.to_owned()).collect(),
        memory: K::memory(),
    }
}

fn create<K: Kind>(flow: Flow, slots: u32, consumers: &[&str]) -> Pool {
    Pool::create(&spec::<K>(flow, slots, consumers)).unwrap()
}

/// Bytes that no other ticket has.
fn payload(ticket: u64) -> Vec<u8> {
    (0..SLOT_BYTES as u64).map(|i| (i.wrapping_mul(31) ^ ticket.wrapping_mul(0x9e37_79b9)) as u8).collect()
}

fn try_put(pool: &mut Pool) -> Option<SlotRef> {
    let ticket = pool.published();
    let mut slot = pool.acquire()?;
    slot.write(&payload(ticket)).unwrap();
    let at = pool.publish(slot, &ticket.to_be_bytes()).unwrap();
    assert_eq!(at.ticket, ticket);
    Some(at)
}

fn put(pool: &mut Pool) -> SlotRef {
    try_put(pool).expect("a slot is free")
}

fn put_many(pool: &mut Pool, frames: usize) {
    for _ in 0..frames {
        put(pool);
    }
}

fn get(reader: &mut Reader) -> SlotLease {
    match reader.poll() {
        PollResult::Frame(lease) => {
            check(&lease);
            lease
        }
        other => panic!("expected a frame, found {other:?}"),
    }
}

fn check(lease: &SlotLease) {
    assert_eq!(lease.item(), lease.ticket().to_be_bytes(), "the description is this ticket's");
    assert!(
        lease.read(&Fence::Complete, SLOT_BYTES).unwrap() == payload(lease.ticket()),
        "the bytes are ticket {}'s",
        lease.ticket()
    );
}

fn a_frame_is_read_as_it_was_written<K: Kind>() {
    let mut pool = create::<K>(Flow::Live, 4, &["a/in"]);
    assert_eq!((pool.slots(), pool.slot_bytes(), pool.published()), (4, SLOT_BYTES as u64, 0));
    let mut reader = Reader::open(&pool.locator(), "a/in").unwrap();
    assert_eq!((reader.pool(), reader.flow(), reader.incarnation()), (pool.locator().pool, Flow::Live, 7));
    assert_eq!((reader.attached(), reader.slot_bytes()), (Attached::Fresh, SLOT_BYTES as u64));
    assert!(matches!(reader.poll(), PollResult::Empty));
    let at = put(&mut pool);
    assert_eq!((at.incarnation, at.owner_pid, reader.pending()), (7, std::process::id(), 1));
    assert_eq!(get(&mut reader).slot_bytes(), SLOT_BYTES as u64);
    assert_eq!(reader.pending(), 0);
    assert!(matches!(reader.poll(), PollResult::Empty));
    assert!(!reader.producer_is_dead());
}

fn each_reuse_of_a_slot_is_a_new_generation<K: Kind>() {
    let mut pool = create::<K>(Flow::Live, 3, &[]);
    let refs: Vec<SlotRef> = (0..9).map(|_| put(&mut pool)).collect();
    let slots: Vec<u32> = refs.iter().map(|at| at.slot).collect();
    let generations: Vec<u32> = refs.iter().map(|at| at.generation).collect();
    assert_eq!(slots, [0, 1, 2, 0, 1, 2, 0, 1, 2], "the oldest first");
    assert_eq!(generations, [1, 1, 1, 2, 2, 2, 3, 3, 3]);
}

/// What a producer says of a slot's bytes is there when it writes the slot again, once; a new pool says nothing.
fn a_slot_says_what_its_producer_said_of_it<K: Kind>() {
    let mut pool = create::<K>(Flow::Live, 3, &["a/in"]);
    let mut reader = Reader::open(&pool.locator(), "a/in").unwrap();
    let mut round = |says: &dyn Fn(u64) -> Option<u64>| {
        let found = [(); 3].map(|()| {
            let ticket = pool.published();
            let mut slot = pool.acquire().unwrap();
            let found = slot.take_contents();
            slot.write(&payload(ticket)).unwrap();
            if let Some(contents) = says(ticket) {
                slot.set_contents(contents);
            }
            pool.publish(slot, &ticket.to_be_bytes()).unwrap();
            found
        });
        // that it was read changes nothing
        let read = std::iter::from_fn(|| match reader.poll() {
            PollResult::Frame(lease) => {
                check(&lease);
                Some(())
            }
            _ => None,
        });
        assert_eq!(read.count(), 3);
        found
    };
    assert_eq!(round(&|ticket| Some(7 + ticket)), [0; 3]);
    assert_eq!(round(&|ticket| (ticket != 4).then_some(7 + ticket)), [7, 8, 9]);
    assert_eq!(round(&|_| None), [10, 0, 12]);
    assert_eq!(round(&|_| None), [0; 3]);
    let mut slot = pool.acquire().unwrap();
    slot.set_contents(5);
    assert_eq!((slot.take_contents(), slot.take_contents()), (5, 0), "it is said once");
}

/// Two of three slots are leased out of turn, so that a walk round the slots would overwrite a newer frame than it has to.
fn live_the_oldest_free_frame_is_overwritten<K: Kind>() {
    let mut pool = create::<K>(Flow::Live, 3, &["a/in", "b/in"]);
    let mut a = Reader::open(&pool.locator(), "a/in").unwrap();
    let mut b = Reader::open(&pool.locator(), "b/in").unwrap();
    put(&mut pool);
    let oldest = get(&mut a); // ticket 0, in slot 0
    put_many(&mut pool, 5); // tickets 1 to 5 in the other two slots
    drop(oldest);
    assert_eq!(put(&mut pool).slot, 0, "ticket 0 goes before tickets 4 and 5");
    let came: Vec<u64> = std::iter::from_fn(|| match b.poll() {
        PollResult::Frame(lease) => Some(Some(lease.ticket())),
        PollResult::Gone(_) => Some(None),
        _ => None,
    })
    .flatten()
    .collect();
    assert_eq!(came, [4, 5, 6]);
}

/// What a directory is read by: the newest publication, whether it came before or after the reader.
fn the_newest_publication_is_found_by_late_joiners<K: Kind>() {
    let mut pool = create::<K>(Flow::Live, 3, &[]);
    put_many(&mut pool, 7);
    let mut late = Reader::open(&pool.locator(), "late/in").unwrap();
    let newest = |reader: &mut Reader| match reader.newest() {
        PollResult::Frame(lease) => {
            check(&lease);
            Some(lease.ticket())
        }
        PollResult::Empty | PollResult::End => None,
        PollResult::Gone(ticket) => panic!("{ticket} is gone"),
    };
    assert_eq!((newest(&mut late), newest(&mut late)), (Some(6), None));
    put_many(&mut pool, 5);
    assert_eq!((newest(&mut late), newest(&mut late)), (Some(11), None));
    put(&mut pool);
    pool.close();
    assert_eq!(newest(&mut late), Some(12));
    assert!(matches!(late.newest(), PollResult::End));
}

fn live_an_overwritten_frame_is_gone_and_counted<K: Kind>() {
    let mut pool = create::<K>(Flow::Live, 2, &["a/in"]);
    let mut reader = Reader::open(&pool.locator(), "a/in").unwrap();
    put_many(&mut pool, 5);
    assert_eq!(pool.behind(), [("a/in".to_owned(), 5, true)]);
    for ticket in 0..3 {
        assert!(matches!(reader.poll(), PollResult::Gone(gone) if gone == ticket));
    }
    assert_eq!([get(&mut reader).ticket(), get(&mut reader).ticket()], [3, 4]);
    assert!(matches!(reader.poll(), PollResult::Empty));
    assert!(pool.behind().is_empty());
}

fn live_the_producer_keeps_off_leased_slots<K: Kind>() {
    let mut pool = create::<K>(Flow::Live, 3, &["a/in", "b/in"]);
    let mut a = Reader::open(&pool.locator(), "a/in").unwrap();
    let mut b = Reader::open(&pool.locator(), "b/in").unwrap();
    put_many(&mut pool, 3);
    let held = [get(&mut a), get(&mut b), get(&mut b), get(&mut b)];
    assert!(pool.acquire().is_none(), "every slot is leased");
    held.iter().for_each(check);
    let [a0, b0, b1, b2] = held;
    drop(b0);
    assert!(pool.acquire().is_none(), "the other consumer still has it");
    drop((b1, b2));
    put_many(&mut pool, 10);
    check(&a0);
    assert!(matches!(a.poll(), PollResult::Gone(1)));
    drop(a0);
}

fn clones_share_one_lease_that_outlives_the_reader<K: Kind>() {
    let mut pool = create::<K>(Flow::Live, 2, &["a/in"]);
    let mut reader = Reader::open(&pool.locator(), "a/in").unwrap();
    put_many(&mut pool, 2);
    let (first, second) = (get(&mut reader), get(&mut reader));
    let (first_clone, second_clone) = (first.clone(), second.clone());
    drop((first, second, reader));
    assert!(pool.acquire().is_none());
    assert!(
        matches!(Reader::open(&pool.locator(), "a/in"), Err(PoolError::NameTaken { .. })),
        "it is not gone while it reads"
    );
    check(&first_clone);
    std::thread::spawn(move || check(&second_clone)).join().unwrap();
    assert_eq!(put(&mut pool).slot, 1, "the slot of the lease that ended in another thread");
    drop(first_clone);
    Reader::open(&pool.locator(), "a/in").unwrap();
}

fn an_unpublished_slot_is_given_back_unseen<K: Kind>() {
    let mut pool = create::<K>(Flow::Live, 2, &["a/in"]);
    let mut reader = Reader::open(&pool.locator(), "a/in").unwrap();
    put(&mut pool);
    put(&mut pool);
    let mut slot = pool.acquire().unwrap();
    slot.write(&[0xee; SLOT_BYTES]).unwrap();
    drop(slot);
    assert!(matches!(reader.poll(), PollResult::Gone(0)), "its slot was written over");
    assert_eq!(get(&mut reader).ticket(), 1);
    put(&mut pool);
    assert_eq!(get(&mut reader).ticket(), 2, "no ticket was spent on it");
}

fn lossless_nobody_misses_anything<K: Kind>() {
    const FRAMES: u64 = 400;
    let mut pool = create::<K>(Flow::Lossless, 3, &["a/in", "b/in", "c/in"]);
    let at = pool.locator();
    let read_all = |name: &'static str, hold: usize, pause_us: u64| {
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(pause_us));
            let mut reader = Reader::open(&at, name).unwrap();
            let mut held = VecDeque::new();
            let mut came = Vec::new();
            loop {
                match reader.poll() {
                    PollResult::Frame(lease) => {
                        check(&lease);
                        came.push(lease.ticket());
                        held.push_back(lease);
                        std::thread::sleep(Duration::from_micros(pause_us));
                    }
                    PollResult::Empty => {
                        held.pop_front();
                        std::thread::yield_now();
                    }
                    PollResult::Gone(ticket) => panic!("{name} missed {ticket}"),
                    PollResult::End => return came,
                }
                held.truncate(hold);
            }
        })
    };
    let readers = [read_all("a/in", 0, 0), read_all("b/in", 2, 0), read_all("c/in", 1, 50)];
    let until = Instant::now() + Duration::from_secs(60);
    while pool.published() < FRAMES {
        if try_put(&mut pool).is_none() {
            assert!(Instant::now() < until, "stuck at {} behind {:?}", pool.published(), pool.behind());
            pool.wait(Duration::from_secs(1));
        }
    }
    pool.close();
    for reader in readers {
        assert_eq!(reader.join().unwrap(), Vec::from_iter(0..FRAMES));
    }
    assert!(pool.behind().is_empty());
}

fn lossless_the_producer_waits_for_who_is_yet_to_come<K: Kind>() {
    let mut pool = create::<K>(Flow::Lossless, 4, &["a/in"]);
    put_many(&mut pool, 4);
    assert!(pool.acquire().is_none());
    assert_eq!(pool.behind(), [("a/in".to_owned(), 4, false)]);
    let mut reader = Reader::open(&pool.locator(), "a/in").unwrap();
    assert_eq!(get(&mut reader).ticket(), 0, "given back at once");
    put(&mut pool);
    (1..5).for_each(|ticket| assert_eq!(get(&mut reader).ticket(), ticket));
}

fn lossless_leaving_frees_the_producer<K: Kind>() {
    let mut pool = create::<K>(Flow::Lossless, 2, &["a/in"]);
    let mut reader = Reader::open(&pool.locator(), "a/in").unwrap();
    put(&mut pool);
    put(&mut pool);
    let held = get(&mut reader);
    assert!(pool.acquire().is_none());
    drop((reader, held));
    put_many(&mut pool, 5);
    assert!(pool.behind().is_empty() && pool.reap(false).is_empty());
}

fn a_late_joiner_starts_with_the_next_ticket<K: Kind>() {
    for flow in [Flow::Live, Flow::Lossless] {
        let mut pool = create::<K>(flow, 2, &[]);
        put_many(&mut pool, 7);
        let mut late = Reader::open(&pool.locator(), "tool/in").unwrap();
        assert!(matches!(late.poll(), PollResult::Empty));
        put(&mut pool);
        assert_eq!(get(&mut late).ticket(), 7);
    }
}

fn the_end_comes_after_the_last_frame<K: Kind>() {
    let mut pool = create::<K>(Flow::Lossless, 2, &["a/in"]);
    let mut reader = Reader::open(&pool.locator(), "a/in").unwrap();
    put(&mut pool);
    pool.close();
    assert_eq!(get(&mut reader).ticket(), 0);
    assert!(matches!(reader.poll(), PollResult::End));
    assert!(matches!(reader.poll(), PollResult::End), "and stays");

    let mut pool = create::<K>(Flow::Live, 2, &["a/in"]);
    let mut reader = Reader::open(&pool.locator(), "a/in").unwrap();
    put(&mut pool);
    let at = pool.locator();
    drop(pool);
    let lease = get(&mut reader);
    assert!(matches!(reader.poll(), PollResult::End), "a dropped pool has ended");
    check(&lease);
    assert!(Reader::open(&at, "b/in").is_err(), "nobody else can come any more");
}

fn names_are_taken_once_and_places_run_out<K: Kind>() {
    let pool = create::<K>(Flow::Live, 2, &["a/in"]);
    let at = pool.locator();
    let first = Reader::open(&at, "a/in").unwrap();
    let taken = Reader::open(&at, "a/in").unwrap_err();
    assert!(matches!(&taken, PoolError::NameTaken { name, pid, .. } if name == "a/in" && *pid == std::process::id()));
    let mut others: Vec<_> = (1..MAX_CONSUMERS).map(|i| Reader::open(&at, &format!("{i}/in")).unwrap()).collect();
    assert!(matches!(Reader::open(&at, "late/in"), Err(PoolError::Full { name, .. }) if name == "late/in"));
    others.pop();
    let late = Reader::open(&at, "late/in").unwrap();
    assert_eq!(late.attached(), Attached::Fresh);
    drop(first);
    Reader::open(&at, "a/in").unwrap();
    let long = "x".repeat(1000);
    drop(others.pop());
    let _long = Reader::open(&at, &long).unwrap();
    assert!(matches!(Reader::open(&at, &long), Err(PoolError::NameTaken { .. })));
}

fn what_cannot_be_published_gives_its_slot_back<K: Kind>() {
    let mut pool = create::<K>(Flow::Live, 2, &[]);
    let mut other = create::<K>(Flow::Live, 2, &[]);
    for _ in 0..5 {
        let slot = pool.acquire().unwrap();
        let error = pool.publish(slot, &[0; ITEM_BYTES + 1]).unwrap_err();
        assert!(matches!(error, PoolError::Description { found } if found == ITEM_BYTES + 1));
        let slot = other.acquire().unwrap();
        assert!(matches!(pool.publish(slot, b"x"), Err(PoolError::ForeignSlot { .. })));
    }
    assert_eq!((pool.published(), other.published()), (0, 0));
    let slot = pool.acquire().unwrap();
    pool.publish(slot, &[1; ITEM_BYTES]).unwrap();
}

fn impossible_pools_are_refused<K: Kind>() {
    let base = spec::<K>(Flow::Live, 2, &[]);
    for slots in [0, 1, MAX_SLOTS as u32 + 1, u32::MAX] {
        let error = Pool::create(&PoolSpec { slots, ..base.clone() }).unwrap_err();
        assert!(matches!(error, PoolError::Slots { slots: found, .. } if found == slots));
    }
    assert!(matches!(Pool::create(&PoolSpec { slot_bytes: 0, ..base.clone() }), Err(PoolError::SlotBytes { .. })));
    for slot_bytes in [1 << 50, u64::MAX / 64, i64::MAX as u64, u64::MAX - 4095, u64::MAX] {
        let error = Pool::create(&PoolSpec { slot_bytes, ..base.clone() }).unwrap_err();
        let expected = matches!(error, PoolError::Memory { .. } | PoolError::Room { .. } | PoolError::Cuda(_));
        assert!(expected, "{slot_bytes}: {error}");
    }
    let consumers = vec!["x".to_owned(); MAX_CONSUMERS + 1];
    let error = Pool::create(&PoolSpec { consumers, ..base.clone() }).unwrap_err();
    assert!(matches!(error, PoolError::Consumers { count, .. } if count == MAX_CONSUMERS + 1));
    let long = "x".repeat(96);
    for (a, b) in [("a/in", "a/in"), (&format!("{long}a"), &format!("{long}b"))] {
        let consumers = vec![a.to_owned(), b.to_owned()];
        let error = Pool::create(&PoolSpec { consumers, ..base.clone() }).unwrap_err();
        assert!(matches!(error, PoolError::SameName { consumer, .. } if consumer == b));
    }
    let error = Pool::create(&PoolSpec { name: "n\0ul".into(), ..base.clone() }).unwrap_err();
    assert!(matches!(error, PoolError::Memory { call: "memfd_create", .. }), "{error}");
}

fn the_producer_sleeps_until_something_happens<K: Kind>() {
    let mut pool = create::<K>(Flow::Lossless, 2, &["a/in"]);
    let mut reader = Reader::open(&pool.locator(), "a/in").unwrap();
    let brief = Duration::from_millis(60);
    // a slot is free, and nothing happens
    put(&mut pool);
    assert_eq!(pool.behind().len(), 1);
    let from = Instant::now();
    pool.wait(brief);
    assert!(from.elapsed() >= brief / 2, "woke after {:?}: a wait that does not sleep is a busy loop", from.elapsed());
    // every slot is leased, until another thread gives one back
    put(&mut pool);
    assert!(pool.acquire().is_none());
    let other = std::thread::spawn(move || {
        std::thread::sleep(brief);
        drop(get(&mut reader));
        reader
    });
    let from = Instant::now();
    pool.wait(Duration::from_secs(60));
    assert!(from.elapsed() < Duration::from_secs(30), "the lease given back rang the bell");
    put(&mut pool);
    // what happens between the look and the wait is not slept over
    assert!(pool.acquire().is_none());
    let mut reader = other.join().unwrap();
    drop(get(&mut reader));
    let from = Instant::now();
    pool.wait(Duration::from_secs(60));
    assert!(from.elapsed() < Duration::from_secs(30), "the bell had rung before the wait");
}

/// Descriptors and mappings of this process whose name contains `name`, and such files in /dev/shm.
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

fn nothing_is_left_after_the_last_drop<K: Kind>() {
    let spec = spec::<K>(Flow::Live, 4, &["a/in"]);
    for _ in 0..20 {
        let mut pool = Pool::create(&spec).unwrap();
        let mut reader = Reader::open(&pool.locator(), "a/in").unwrap();
        let refused = Reader::open(&pool.locator(), "a/in").unwrap_err();
        assert!(matches!(refused, PoolError::NameTaken { .. }));
        put(&mut pool);
        let lease = get(&mut reader);
        let [fds, maps, shm] = traces(&spec.name);
        let files = K::FILES..=2 * K::FILES;
        assert!(files.contains(&fds) && files.contains(&maps), "{fds} descriptors, {maps} mappings");
        assert_eq!(shm, 0, "no name in /dev/shm");
        drop((pool, reader));
        check(&lease);
    }
    assert_eq!(traces(&spec.name), [0, 0, 0]);
}

/// Between stages of one process nothing is opened or mapped: the address is the producer's, and so is the event.
fn a_reader_in_the_producers_process_has_its_address<K: Kind>() {
    let MemorySpec::Cuda(gpu, _) = K::memory() else { return };
    let mut pool = create::<K>(Flow::Live, 2, &["a/in"]);
    let mut reader = Reader::open(&pool.locator(), "a/in").unwrap();
    let [ours, theirs] = [(); 2].map(|()| Stream::new(&gpu).unwrap());
    let slot = pool.acquire().unwrap();
    let written = slot.span().unwrap();
    ours.upload(&payload(0), written).unwrap();
    let ready = slot.mark_ready(&ours).unwrap();
    pool.publish(slot, &0u64.to_be_bytes()).unwrap();
    let PollResult::Frame(lease) = reader.poll() else { panic!("it was published") };
    assert_eq!(lease.span(&ready, &theirs).unwrap(), written);
    // the memory lasts as long as its reader
    drop(pool);
    assert!(lease.read(&ready, SLOT_BYTES).unwrap() == payload(0));
    drop((reader, lease));
    let ended = create::<K>(Flow::Live, 2, &["a/in"]).locator();
    assert!(Reader::open(&ended, "a/in").is_err(), "nothing of an ended pool is found");
}

/// Random publications, polls and returns of one producer and two consumers, against a model with no slots in it: what
/// a consumer holds stays whole, a producer finds a slot exactly while not all are leased, and every ticket is seen
/// once, as a frame or as gone.
fn any_order_of_steps_keeps_what_is_leased<K: Kind>() {
    let steps = prop::collection::vec((0u8..6, 0usize..2), 1..120);
    let config = Config { cases: 48, failure_persistence: None, ..Config::default() };
    let flows = prop::sample::select(&[Flow::Live, Flow::Lossless][..]);
    proptest!(config, |(flow in flows, slots in 2u32..5, steps in steps)| {
        let mut pool = create::<K>(flow, slots, &["a/in", "b/in"]);
        let mut readers = ["a/in", "b/in"].map(|name| Reader::open(&pool.locator(), name).unwrap());
        let mut held: [VecDeque<SlotLease>; 2] = Default::default();
        let mut next = [0; 2];
        for (step, who) in steps {
            match step {
                0..3 => {
                    let published = pool.published();
                    // in lossless flow what is not polled yet is leased as well
                    let unread = |who: usize| if flow == Flow::Lossless { next[who]..published } else { 0..0 };
                    let leases = (0..2).flat_map(|who| held[who].iter().map(SlotLease::ticket).chain(unread(who)));
                    let leased = leases.collect::<std::collections::BTreeSet<u64>>().len();
                    prop_assert_eq!(try_put(&mut pool).is_some(), leased < slots as usize);
                }
                3..5 => match readers[who].poll() {
                    PollResult::Frame(lease) => {
                        prop_assert_eq!(lease.ticket(), next[who]);
                        next[who] += 1;
                        held[who].push_back(lease);
                    }
                    PollResult::Gone(ticket) => {
                        prop_assert_eq!((ticket, flow), (next[who], Flow::Live));
                        next[who] += 1;
                    }
                    PollResult::Empty => prop_assert_eq!(next[who], pool.published()),
                    PollResult::End => prop_assert!(false, "not closed"),
                },
                _ => drop(held[who].pop_front()),
            }
            held.iter().flatten().for_each(check);
        }
    });
}

macro_rules! conformance {
    ($kind:ident, $marker:ty: $($test:ident)*) => {
        mod $kind {
            $(#[test] fn $test() { if <$marker as super::Kind>::is_on_trial() { super::$test::<$marker>() } })*
        }
    };
    ($($kind:ident: $marker:ty;)*) => {
        $(conformance! { $kind, $marker:
            a_frame_is_read_as_it_was_written
            each_reuse_of_a_slot_is_a_new_generation
            a_slot_says_what_its_producer_said_of_it
            live_an_overwritten_frame_is_gone_and_counted
            live_the_producer_keeps_off_leased_slots
            live_the_oldest_free_frame_is_overwritten
            the_newest_publication_is_found_by_late_joiners
            clones_share_one_lease_that_outlives_the_reader
            an_unpublished_slot_is_given_back_unseen
            lossless_nobody_misses_anything
            lossless_the_producer_waits_for_who_is_yet_to_come
            lossless_leaving_frees_the_producer
            a_late_joiner_starts_with_the_next_ticket
            the_end_comes_after_the_last_frame
            names_are_taken_once_and_places_run_out
            what_cannot_be_published_gives_its_slot_back
            impossible_pools_are_refused
            the_producer_sleeps_until_something_happens
            nothing_is_left_after_the_last_drop
            a_reader_in_the_producers_process_has_its_address
            any_order_of_steps_keeps_what_is_leased
        })*
    };
}

conformance! {
    host: super::Host;
    cuda_ipc: super::CudaIpc;
    cuda_descriptor: super::CudaDescriptor;
}

/// The two kinds above that need a driver, once more, on the stand-in.
#[test]
fn on_the_stand_in() {
    millrace_cuda_driver_folder::run_on_the_stand_in("cuda_", &[]);
}
