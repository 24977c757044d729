//! The bytes of a control block, written by hand from the layout in `control.rs`: fields one after the other, in the machine's own
//! order of bytes (little-endian on every machine that this test runs on). Processes of different builds share a block, so a change
//! here needs a new number in `LAYOUT`.
#![cfg(not(loom))]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use millrace_pool::process::Owner;
use millrace_pool::{Flow, MemorySpec, PollResult, Pool, PoolSpec, Reader};

/// The header has 216 bytes, each of 64 state words 8, each of 31 consumers 136, and each of 64 descriptions 528.
const SLOTS: usize = 216;
const CONSUMERS: usize = SLOTS + 64 * 8;
const DESCRIPTIONS: usize = CONSUMERS + 31 * 136;
const BYTES: usize = DESCRIPTIONS + 64 * 528;

fn hex(digits: &str) -> Vec<u8> {
    let digits: String = digits.split_whitespace().collect();
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

#[test]
fn a_control_block_has_these_bytes() {
    let spec = PoolSpec {
        name: "golden/frame".into(),
        slots: 3,
        slot_bytes: 1000,
        flow: Flow::Lossless,
        incarnation: 2,
        consumers: vec!["a/in".into(), "bb/in".into()],
        memory: MemorySpec::Host,
    };
    let mut pool = Pool::create(&spec).unwrap();
    let at = pool.locator();
    let block = || std::fs::read(format!("/proc/self/fd/{}", at.owner_fd)).unwrap();
    let me = Owner::me().unwrap().0;
    assert_eq!((me >> 32) as u32, std::process::id());

    let mut wanted = vec![0; BYTES];
    let mut put = |at: usize, bytes: &[u8]| wanted[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &hex("45 43 41 52 4c 4c 49 4d  04 00 00 00  03 00 00 00  e8 03 00 00 00 00 00 00")); // MILLRACE, 4, 3, 1000
    put(24, &((at.pool >> 64) as u64).to_le_bytes());
    put(32, &(at.pool as u64).to_le_bytes());
    put(40, &hex("02 00 00 00 00 00 00 00")); // incarnation
    put(48, &me.to_le_bytes());
    put(56, &hex("01 00 00 00  01 00 00 00  0c 00 00 00  00 00 00 00")); // lossless, host memory, 12 bytes of export, open
    // the descriptor and the inode of the slots' file, which is the process's other memfd of this name
    let slots = std::fs::read_dir("/proc/self/fd").unwrap().map(|fd| fd.unwrap()).find_map(|fd| {
        let is_it =
            std::fs::read_link(fd.path()).is_ok_and(|to| to.as_os_str() == "/memfd:millrace golden/frame (deleted)");
        let number: u32 = fd.file_name().to_str()?.parse().ok()?;
        is_it.then(|| (number, std::os::linux::fs::MetadataExt::st_ino(&std::fs::metadata(fd.path()).unwrap())))
    });
    let (number, inode) = slots.unwrap();
    put(72, &number.to_le_bytes());
    put(76, &inode.to_le_bytes());
    for (index, name) in ["612f696e", "62622f696e"].into_iter().enumerate() {
        put(CONSUMERS + 136 * index, &hex("01 00 00 00 00 00 00 00")); // expected
        put(CONSUMERS + 136 * index + 40, &hex(name));
    }
    assert_eq!(block(), wanted, "as it was made");

    // the first consumer attaches, and one frame is published: ticket 0, in the first slot, at generation 1, for both
    let mut reader = Reader::open(&at, "a/in").unwrap();
    let slot = pool.acquire().unwrap();
    pool.publish(slot, &hex("01 02 03")).unwrap();
    let mut put = |at: usize, bytes: &[u8]| wanted[at..at + bytes.len()].copy_from_slice(bytes);
    put(200, &hex("01 00 00 00 00 00 00 00")); // one ticket was published
    put(SLOTS, &hex("03 00 00 00  01 00 00 00")); // the bits of both consumers; the generation
    put(CONSUMERS, &me.to_le_bytes());
    put(DESCRIPTIONS, &hex("01 00 00 00 00 00 00 00  03 00 00 00 00 00 00 00  01 02 03")); // ticket + 1, length, description
    let found = block();
    // how often the producer's bell was rung is no part of this
    let rung = 208..212;
    assert_eq!(found[..rung.start], wanted[..rung.start], "after a publication, the header");
    assert_eq!(found[rung.end..], wanted[rung.end..], "after a publication");

    // the first consumer's lease, and its end
    let PollResult::Frame(lease) = reader.poll() else { panic!("it was published") };
    let cursor = CONSUMERS + 8;
    assert_eq!(block()[SLOTS..SLOTS + 8], hex("03 00 00 00  01 00 00 00"));
    assert_eq!(block()[cursor..cursor + 16], hex("00 00 00 00 00 00 00 00  01 00 00 00 00 00 00 00"), "cursor, next");
    drop(lease);
    assert_eq!(block()[SLOTS..SLOTS + 8], hex("02 00 00 00  01 00 00 00"), "the second consumer's bit is left");
    drop(reader);
    assert_eq!(block()[CONSUMERS..CONSUMERS + 8], hex("02 00 00 00 00 00 00 00"), "it has left");
    pool.close();
    assert_eq!(block()[68..72], hex("01 00 00 00"), "closed");
}
