//! The interleavings of the pool's protocol that the C11 memory model allows, with up to three preemptions (two where
//! three threads run), on the smallest block that can go wrong: 2 slots, 2 consumers. Each slot has a payload that loom
//! itself watches, so that a read beside a write fails whatever the bytes are; and each payload carries its ticket, so
//! that a lease on the wrong frame fails too.
//!
//! ```sh
//! RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR=target/loom cargo test --release -p millrace-pool --test loom
//! ```
//!
//! loom's own limits: at most 4 threads, and `SeqCst` only as fences, which is how the protocol uses it.
#![cfg(loom)]
#![allow(
    unsafe_code,
    reason = "the payload is a cell that loom watches; the protocol under test is what makes it sound"
)]

use loom::cell::UnsafeCell;
use loom::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;
use millrace_pool::Flow;
use millrace_pool::control::{Bell, Block, EXPECTED, LEFT, MAX_SLOTS};
use millrace_pool::protocol::{self, Attached, Taken, Writing};

/// Owners: anything but the block's own small numbers. In these models an owner is dead if `is_dead` says so.
const A: u64 = 0xa << 32;
const B: u64 = 0xb << 32;

struct Pool {
    block: Block,
    payload: [UnsafeCell<u64>; MAX_SLOTS],
}

// SAFETY: the payload is accessed under the protocol alone; loom fails the model where that is not enough.
unsafe impl Sync for Pool {}
// SAFETY: as above.
unsafe impl Send for Pool {}

impl Pool {
    fn new(expected: usize) -> Arc<Self> {
        let block = Block::default();
        block.header.slots.store(MAX_SLOTS as u32, Relaxed);
        for place in &block.consumers[..expected] {
            place.owner.store(EXPECTED, Relaxed);
        }
        Arc::new(Self { block, payload: std::array::from_fn(|_| UnsafeCell::new(u64::MAX)) })
    }

    /// Writes and publishes one frame, whose payload and description are its ticket; `false` when every slot is leased.
    fn produce(&self, flow: Flow) -> bool {
        let Some(writing) = protocol::acquire(&self.block, MAX_SLOTS as u32) else { return false };
        let ticket = self.block.header.head.load(Relaxed);
        // SAFETY: the slot is in writing state.
        self.payload[writing.slot as usize].with_mut(|payload| unsafe { *payload = ticket });
        assert_eq!(protocol::publish(&self.block, flow, writing, &description(ticket)), ticket);
        true
    }

    /// Produces frames until `tickets` are published, waiting where every slot is leased.
    fn produce_all(&self, flow: Flow, tickets: u64) {
        while self.block.header.head.load(Relaxed) < tickets {
            if !self.produce(flow) {
                thread::yield_now();
            }
        }
    }

    /// Reads the payload under a lease on `of`.
    fn check(&self, of: Writing, item: &[u8], ticket: u64) {
        assert_eq!(item, description(ticket), "the description is of this ticket, whole");
        // SAFETY: the lease is held.
        let payload = self.payload[of.slot as usize].with(|payload| unsafe { *payload });
        assert_eq!(payload, ticket, "the lease is on this ticket's frame");
    }

    /// Takes, checks and gives back ticket `ticket`; `None` when it is not there yet, `Some(false)` when it is gone.
    fn consume(&self, flow: Flow, index: usize, ticket: u64) -> Option<bool> {
        match protocol::take(&self.block, MAX_SLOTS as u32, flow, index, ticket) {
            Taken::NotYet => None,
            Taken::Gone => Some(false),
            Taken::Lease(of, item) => {
                self.check(of, &item, ticket);
                protocol::release(&self.block, index, of.slot);
                Some(true)
            }
        }
    }

    fn attach(&self, flow: Flow, index: usize, me: u64, dead: &[u64]) -> Result<(Attached, u64), u64> {
        let how = protocol::attach(&self.block, flow, index, me, |owner| dead.contains(&owner))?;
        Ok((how, self.block.consumers[index].cursor.load(Acquire)))
    }

    /// Nobody has a lease: every slot can be written.
    fn assert_all_free(&self) {
        for slot in 0..MAX_SLOTS as u32 {
            let state = self.block.slots[slot as usize].load(Relaxed);
            assert_eq!(state as u32, 0, "no lease is left behind on slot {slot}");
        }
    }
}

/// Two words, so that a torn read shows: each names the ticket.
fn description(ticket: u64) -> [u8; 16] {
    let mut words = [0; 16];
    words[..8].copy_from_slice(&(ticket + 10).to_le_bytes());
    words[8..].copy_from_slice(&(!ticket).to_le_bytes());
    words
}

/// Reads on from `cursor` until `end`, and returns what came.
fn drain(pool: &Pool, flow: Flow, index: usize, cursor: u64, end: u64) -> Vec<u64> {
    let mut came = Vec::new();
    for ticket in cursor..end {
        loop {
            match pool.consume(flow, index, ticket) {
                Some(true) => came.push(ticket),
                Some(false) => {}
                None => {
                    thread::yield_now();
                    continue;
                }
            }
            break;
        }
    }
    came
}

/// Tries the orders in which a running thread is interrupted at most `preemptions` times; `LOOM_MAX_PREEMPTIONS`
/// overrides that. The bounds below keep the whole file under a minute on one core.
fn model(preemptions: usize, body: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(preemptions));
    builder.max_branches = 10_000;
    builder.check(body);
}

#[test]
fn live_no_reader_ever_sees_a_frame_being_written() {
    model(3, || {
        let pool = Pool::new(0);
        let reader = {
            let pool = pool.clone();
            thread::spawn(move || {
                let (_, cursor) = pool.attach(Flow::Live, 0, A, &[]).unwrap();
                // each ticket that is there is read or gone; none is waited for
                (cursor..3).take_while(|&ticket| pool.consume(Flow::Live, 0, ticket).is_some()).count();
            })
        };
        let mut from = 0;
        for _ in 0..3 {
            // one reader leases one slot, but it may change to the other while both are looked at
            if pool.produce(Flow::Live) {
                from = 1 - from;
            }
        }
        reader.join().unwrap();
        pool.assert_all_free();
    });
}

#[test]
fn live_two_readers_share_a_frame_and_the_producer_keeps_off_it() {
    model(3, || {
        let pool = Pool::new(2);
        pool.attach(Flow::Live, 0, A, &[]).unwrap();
        pool.attach(Flow::Live, 1, B, &[]).unwrap();
        assert!(pool.produce(Flow::Live));
        let readers = [0, 1].map(|index| {
            let pool = pool.clone();
            thread::spawn(move || pool.consume(Flow::Live, index, 0))
        });
        // the ticket's own slot, while it is read or not
        pool.produce(Flow::Live);
        for reader in readers {
            assert!(reader.join().unwrap().is_some(), "published before they came");
        }
        pool.assert_all_free();
    });
}

#[test]
fn live_an_abandoned_slot_is_never_read_as_the_frame_that_it_had() {
    model(3, || {
        let pool = Pool::new(1);
        assert!(pool.produce(Flow::Live));
        let reader = {
            let pool = pool.clone();
            thread::spawn(move || {
                pool.attach(Flow::Live, 0, A, &[]).unwrap();
                pool.consume(Flow::Live, 0, 0)
            })
        };
        if let Some(writing) = protocol::acquire(&pool.block, MAX_SLOTS as u32) {
            // SAFETY: the slot is in writing state.
            pool.payload[writing.slot as usize].with_mut(|payload| unsafe { *payload = 77 });
            protocol::abandon(&pool.block, writing);
        }
        assert!(reader.join().unwrap().is_some(), "published before it came");
        pool.assert_all_free();
    });
}

#[test]
fn lossless_every_ticket_arrives_exactly_once_at_each_consumer() {
    // With three threads, waiting for each other would be more orders than can be tried: each takes what is there, and
    // the rest is done when they have ended.
    model(2, || {
        let pool = Pool::new(2);
        let readers = [(0, A), (1, B)].map(|(index, me)| {
            let pool = pool.clone();
            thread::spawn(move || {
                let (how, cursor) = pool.attach(Flow::Lossless, index, me, &[]).unwrap();
                assert_eq!((how, cursor), (Attached::Fresh, 0), "named by the graph: from the first ticket on");
                let came = (0..2).take_while(|&ticket| match pool.consume(Flow::Lossless, index, ticket) {
                    None => false,
                    Some(came) => came || panic!("ticket {ticket} is owed from the start"),
                });
                came.count() as u64
            })
        });
        for from in [0, 1, 0] {
            pool.produce(Flow::Lossless);
        }
        let came = readers.map(|reader| reader.join().unwrap());
        for index in 0..2 {
            let published = pool.block.header.head.load(Relaxed);
            let rest: Vec<u64> = (came[index]..published).collect();
            assert_eq!(drain(&pool, Flow::Lossless, index, came[index], published), rest);
        }
        pool.assert_all_free();
    });
}

#[test]
fn lossless_a_late_joiner_gets_every_ticket_from_its_first_on() {
    model(3, || {
        let pool = Pool::new(0);
        let reader = {
            let pool = pool.clone();
            thread::spawn(move || {
                let (how, cursor) = pool.attach(Flow::Lossless, 0, A, &[]).unwrap();
                assert_eq!(how, Attached::Fresh);
                let came = drain(&pool, Flow::Lossless, 0, cursor, 4);
                // the ticket under way while it came may have been published without it
                let owed: Vec<u64> = (cursor..4).collect();
                assert!(came == owed || came == owed[1..], "from {cursor} on came {came:?}");
            })
        };
        pool.produce_all(Flow::Lossless, 4);
        reader.join().unwrap();
        pool.assert_all_free();
    });
}

#[test]
fn lossless_leaving_and_coming_while_the_producer_publishes_leaves_no_lease_behind() {
    model(3, || {
        let pool = Pool::new(1);
        assert_eq!(pool.attach(Flow::Lossless, 0, A, &[]), Ok((Attached::Fresh, 0)));
        assert!(pool.produce(Flow::Lossless));
        let other = {
            let pool = pool.clone();
            thread::spawn(move || {
                protocol::detach(&pool.block, 0, A);
                match pool.attach(Flow::Lossless, 0, B, &[]) {
                    Ok((how, cursor)) => {
                        assert_eq!(how, Attached::Fresh, "its predecessor said goodbye");
                        let came = drain(&pool, Flow::Lossless, 0, cursor, 3);
                        let owed: Vec<u64> = (cursor..3).collect();
                        assert!(came == owed || came == owed[1..], "from {cursor} on came {came:?}");
                        protocol::detach(&pool.block, 0, B);
                    }
                    Err(owner) => assert_eq!(owner, millrace_pool::control::REAPING),
                }
            })
        };
        let mut from = 1;
        while pool.block.header.head.load(Relaxed) < 3 {
            if pool.produce(Flow::Lossless) {
                from = 1 - from;
            } else {
                if pool.block.consumers[0].owner.load(Acquire) == LEFT {
                    protocol::reap(&pool.block, Flow::Lossless, 0, LEFT);
                }
                thread::yield_now();
            }
        }
        other.join().unwrap();
        protocol::reap(&pool.block, Flow::Lossless, 0, LEFT);
        pool.assert_all_free();
    });
}

#[test]
fn lossless_one_who_leaves_takes_nothing_from_the_next_at_its_place() {
    model(3, || {
        let pool = Pool::new(1);
        pool.attach(Flow::Lossless, 0, A, &[]).unwrap();
        assert!(pool.produce(Flow::Lossless));
        let leaving = {
            let pool = pool.clone();
            thread::spawn(move || protocol::detach(&pool.block, 0, A))
        };
        let cursor = loop {
            match pool.attach(Flow::Lossless, 0, B, &[]) {
                Ok((how, cursor)) => break (how == Attached::Fresh).then_some(cursor),
                Err(_alive) => thread::yield_now(),
            }
        };
        assert_eq!(cursor, Some(1));
        assert!(pool.produce(Flow::Lossless), "this counts the newcomer");
        assert_eq!(pool.consume(Flow::Lossless, 0, 1), Some(true));
        leaving.join().unwrap();
        pool.assert_all_free();
    });
}

#[test]
fn lossless_a_successor_inherits_what_the_dead_had_not_given_back() {
    model(3, || {
        let pool = Pool::new(1);
        assert_eq!(pool.attach(Flow::Lossless, 0, A, &[]), Ok((Attached::Fresh, 0)));
        assert!(pool.produce(Flow::Lossless));
        // A has leased ticket 0 and dies with it, sooner or later in the run of the producer
        let successor = {
            let pool = pool.clone();
            thread::spawn(move || {
                let (how, cursor) = pool.attach(Flow::Lossless, 0, B, &[A]).unwrap();
                assert_eq!((how, cursor), (Attached::Inherited { lost: 0 }, 0));
                assert_eq!(drain(&pool, Flow::Lossless, 0, cursor, 4), [0, 1, 2, 3]);
            })
        };
        pool.produce_all(Flow::Lossless, 4);
        successor.join().unwrap();
        pool.assert_all_free();
    });
}

#[test]
fn a_ticket_that_the_dead_had_given_back_does_not_come_again() {
    model(3, || {
        let pool = Pool::new(1);
        pool.attach(Flow::Lossless, 0, A, &[]).unwrap();
        pool.produce_all(Flow::Lossless, 2);
        // out of order: 1 is done, 0 still held
        assert_eq!(pool.consume(Flow::Lossless, 0, 1), Some(true));
        let successor = {
            let pool = pool.clone();
            thread::spawn(move || {
                let (_, cursor) = pool.attach(Flow::Lossless, 0, B, &[A]).unwrap();
                assert_eq!(drain(&pool, Flow::Lossless, 0, cursor, 3), [0, 2]);
            })
        };
        pool.produce_all(Flow::Lossless, 3);
        successor.join().unwrap();
        pool.assert_all_free();
    });
}

/// The producer finds a consumer dead while its successor comes: either it reaps, and the successor starts afresh, or
/// it keeps off. Never does it take the successor's leases.
fn reap_against_attach(flow: Flow) {
    model(3, move || {
        let pool = Pool::new(1);
        pool.attach(flow, 0, A, &[]).unwrap();
        assert!(pool.produce(flow));
        assert!(
            matches!(protocol::take(&pool.block, MAX_SLOTS as u32, flow, 0, 0), Taken::Lease(..)),
            "A dies with a lease on ticket 0"
        );
        let successor = {
            let pool = pool.clone();
            thread::spawn(move || {
                let (how, cursor) = loop {
                    match pool.attach(flow, 0, B, &[A]) {
                        Ok(attached) => break attached,
                        Err(_reaping) => thread::yield_now(),
                    }
                };
                let came = drain(&pool, flow, 0, cursor, 3);
                if flow == Flow::Live {
                    assert_eq!(
                        (how, cursor),
                        (Attached::Inherited { lost: 1 }, 1),
                        "ticket 0 is lost, and counted once"
                    );
                } else {
                    let owed: Vec<u64> = (cursor..3).collect();
                    let all = came == owed;
                    assert!(
                        all || (how == Attached::Fresh && came == owed[1..]),
                        "{how:?}, from {cursor} on: {came:?}"
                    );
                }
            })
        };
        let reaped = protocol::reap(&pool.block, flow, 0, A);
        if reaped && flow == Flow::Live {
            assert!(pool.produce(flow), "a reaped lease is free at once");
        }
        pool.produce_all(flow, 3);
        successor.join().unwrap();
        pool.assert_all_free();
    });
}

#[test]
fn live_reaping_the_dead_while_a_successor_comes() {
    reap_against_attach(Flow::Live);
}

#[test]
fn lossless_reaping_the_dead_while_a_successor_comes() {
    reap_against_attach(Flow::Lossless);
}

/// A futex as the kernel has it: the comparison and the falling asleep are one step.
struct Futex {
    lock: Mutex<()>,
    woken: Condvar,
}

#[test]
fn a_sleeping_producer_is_woken_by_what_it_waits_for() {
    model(3, || {
        let pool = Pool::new(1);
        let futex = Arc::new(Futex { lock: Mutex::new(()), woken: Condvar::new() });
        pool.attach(Flow::Lossless, 0, A, &[]).unwrap();
        pool.produce_all(Flow::Lossless, 2);
        let reader = {
            let (pool, futex) = (pool.clone(), futex.clone());
            thread::spawn(move || {
                assert_eq!(pool.consume(Flow::Lossless, 0, 0), Some(true));
                pool.block.consumers[0].cursor.store(1, Release);
                if protocol::ring(&pool.block.header.bell) {
                    let _guard = futex.lock.lock().unwrap();
                    futex.woken.notify_one();
                }
            })
        };
        // no time limit here: a lost wake-up is a deadlock, which loom reports
        loop {
            let ring_count = protocol::ring_count(&pool.block.header.bell);
            if pool.produce(Flow::Lossless) {
                break;
            }
            protocol::announce_sleep(&pool.block.header.bell);
            let guard = futex.lock.lock().unwrap();
            if protocol::ring_count(&pool.block.header.bell) == ring_count {
                drop(futex.woken.wait(guard).unwrap());
            }
            protocol::announce_awake(&pool.block.header.bell);
        }
        reader.join().unwrap();
    });
}

#[test]
fn a_sleeping_consumer_is_woken_by_a_publication() {
    model(3, || {
        let pool = Pool::new(1);
        // its own, in another file than the pool's
        let bell = Arc::new(Bell::default());
        let futex = Arc::new(Futex { lock: Mutex::new(()), woken: Condvar::new() });
        let (_, mut cursor) = pool.attach(Flow::Lossless, 0, A, &[]).unwrap();
        let producer = {
            let (pool, bell, futex) = (pool.clone(), bell.clone(), futex.clone());
            thread::spawn(move || {
                for slot in 0..2 {
                    assert!(pool.produce(Flow::Lossless));
                    if protocol::ring(&bell) {
                        let _guard = futex.lock.lock().unwrap();
                        futex.woken.notify_one();
                    }
                }
            })
        };
        while cursor < 2 {
            let ring_count = protocol::ring_count(&bell);
            if pool.consume(Flow::Lossless, 0, cursor) == Some(true) {
                cursor += 1;
                continue;
            }
            protocol::announce_sleep(&bell);
            let guard = futex.lock.lock().unwrap();
            if protocol::ring_count(&bell) == ring_count {
                drop(futex.woken.wait(guard).unwrap());
            }
            protocol::announce_awake(&bell);
        }
        producer.join().unwrap();
    });
}
