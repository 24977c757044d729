//! What a pool says where it cannot be had: another thing behind the descriptor than it should be, and a process or a
//! machine that has no room. Each limit is set in a process of its own.
#![cfg(not(loom))]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use millrace_frame::SlotRef;
use millrace_pool::control::{Block, Header};
use millrace_pool::process::Owner;
use millrace_pool::{Flow, PoolError, PoolSpec};
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::process::{Resource, Rlimit, setrlimit};
use std::fs::File;
use std::io::Write;
use std::mem::offset_of;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

type Pool = millrace_pool::Pool;
type Reader = millrace_pool::Reader;

fn spec(slots: u32, slot_bytes: u64) -> PoolSpec {
    let consumers = vec!["a/in".to_owned()];
    PoolSpec {
        name: "limits/frame".into(),
        slots,
        slot_bytes,
        flow: Flow::Live,
        incarnation: 0,
        consumers,
        memory: millrace_pool::MemorySpec::Host,
    }
}

fn refusal(at: &SlotRef) -> String {
    let error = Reader::open(at, "a/in").expect_err("not a pool");
    assert!(matches!(error, PoolError::NotAPool { .. } | PoolError::Open { .. }), "{error:?}");
    error.to_string()
}

fn sealed(bytes: &[u8], seals: SealFlags) -> OwnedFd {
    let fd = rustix::fs::memfd_create("hostile", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    File::from(fd.try_clone().unwrap()).write_all(bytes).unwrap();
    rustix::fs::fcntl_add_seals(&fd, seals).unwrap();
    fd
}

fn with_fd(pool: &SlotRef, fd: &impl AsRawFd) -> SlotRef {
    SlotRef { owner_fd: fd.as_raw_fd() as u32, ..*pool }
}

#[test]
fn what_is_no_pool_is_refused_before_it_is_mapped() {
    let pool = Pool::create(&spec(2, 64)).unwrap();
    let good = pool.locator();
    let refused = |what: &SlotRef, why: &str| {
        let text = refusal(what);
        assert!(text.contains(why), "expected '{why}' in: {text}");
    };
    refused(&SlotRef { owner_fd: 9999, ..good }, "its node has ended");
    refused(&SlotRef { owner_pid: 0x7fff_ffff, ..good }, "its node has ended");
    refused(&SlotRef { owner_pid: 1 << 31, owner_fd: u32::MAX, ..good }, "its node has ended");
    refused(&with_fd(&good, &File::open("/dev/null").unwrap()), "/dev/null");
    let (pipe, _write) = std::io::pipe().unwrap();
    refused(&with_fd(&good, &pipe), "pipe:");
    refused(&with_fd(&good, &sealed(&[0; 8], SealFlags::empty())), "not sealed");
    refused(&with_fd(&good, &sealed(&[0; 8], SealFlags::SHRINK)), "has 8 bytes");
    refused(&SlotRef { pool: good.pool ^ 1, ..good }, "whose process took the descriptor over");
    Reader::open(&good, "a/in").expect("the pool itself is none of these");
}

#[test]
fn a_control_block_that_lies_is_refused() {
    let pool = Pool::create(&spec(2, 64)).unwrap();
    let good = pool.locator();
    let genuine = std::fs::read(format!("/proc/self/fd/{}", good.owner_fd)).unwrap();
    let header = offset_of!(Block, header);
    let lie = |field: usize, bytes: &[u8]| {
        let mut block = genuine.clone();
        block[header + field..][..bytes.len()].copy_from_slice(bytes);
        sealed(&block, SealFlags::SHRINK)
    };
    let refused = |fd: OwnedFd, why: &str| {
        let text = refusal(&with_fd(&good, &fd));
        assert!(text.contains(why), "expected '{why}' in: {text}");
    };
    refused(lie(offset_of!(Header, magic), &[0; 8]), "magic number");
    refused(lie(offset_of!(Header, layout), &9u32.to_ne_bytes()), "its layout is 9");
    for slots in [0u32, 65, u32::MAX] {
        refused(lie(offset_of!(Header, slots), &slots.to_ne_bytes()), "slots");
    }
    // more than the slots' file has, none, and what overflows
    for bytes in [1u64 << 20, 0, u64::MAX, u64::MAX - 4095, i64::MAX as u64] {
        refused(lie(offset_of!(Header, slot_bytes), &bytes.to_ne_bytes()), "bytes");
    }
    refused(lie(offset_of!(Header, memory_kind), &77u32.to_ne_bytes()), "memory of kind 77");
    for len in [0u32, 3, 129, u32::MAX] {
        refused(lie(offset_of!(Header, export_len), &len.to_ne_bytes()), "bytes");
    }
    // the slots' descriptor: none, and one that is no memfd
    refused(lie(offset_of!(Header, export), &9999u32.to_ne_bytes()), "cannot open");
    let null = File::open("/dev/null").unwrap();
    refused(lie(offset_of!(Header, export), &(null.as_raw_fd() as u32).to_ne_bytes()), "/dev/null");
    refused(sealed(&genuine[..genuine.len() - 1], SealFlags::SHRINK), "fewer than");
    // and the copy itself is good
    Reader::open(&with_fd(&good, &lie(0, &[])), "a/in").unwrap();
}

#[test]
fn memory_that_took_the_descriptor_over_is_refused() {
    let (pool, other) = (Pool::create(&spec(2, 64)).unwrap(), Pool::create(&spec(2, 64)).unwrap());
    let genuine = |pool: &Pool| std::fs::read(format!("/proc/self/fd/{}", pool.locator().owner_fd)).unwrap();
    let export = offset_of!(Block, header) + offset_of!(Header, export);
    // the block names its own file by the number that the other pool's file has now: a good memfd, of the same size
    let mut block = genuine(&pool);
    let number = genuine(&other)[export..export + 4].to_vec();
    block[export..export + 4].copy_from_slice(&number);
    let text = refusal(&with_fd(&pool.locator(), &sealed(&block, SealFlags::SHRINK)));
    assert!(text.contains("it is not the file of the pool's slots"), "{text}");
    Reader::open(&pool.locator(), "a/in").expect("the number and the file belong together");
}

#[test]
fn what_another_user_made_is_refused_and_not_given() {
    const NOBODY: u32 = 65_534;
    if !rustix::process::geteuid().is_root() {
        return millrace_needs::skip_without("root", "only root can be two users");
    }
    let pool = Pool::create(&spec(2, 64)).unwrap();
    let good = pool.locator();
    let block = std::fs::read(format!("/proc/self/fd/{}", good.owner_fd)).unwrap();
    let theirs = sealed(&block, SealFlags::SHRINK);
    std::os::unix::fs::fchown(&theirs, Some(NOBODY), None).unwrap();
    let text = refusal(&with_fd(&good, &theirs));
    assert!(text.contains("it was made by user 65534, and this process is of user 0"), "{text}");
    // the kernel's own part: what another user has open cannot be opened by its number
    let path = format!("/proc/{}/fd/{}", good.owner_pid, good.owner_fd);
    let cat = Command::new("cat").arg(&path).uid(NOBODY).gid(NOBODY).output().unwrap();
    let said = String::from_utf8_lossy(&cat.stderr);
    assert!(!cat.status.success() && cat.stdout.is_empty() && said.contains("Permission denied"), "{said}");
}

#[test]
fn nobody_but_the_producer_can_map_frames_to_write() {
    let pool = Pool::create(&PoolSpec { name: "read-only/frame".into(), ..spec(2, 64) }).unwrap();
    let name = format!("millrace {}", pool.name());
    let fds = std::fs::read_dir("/proc/self/fd").unwrap().map(|fd| fd.unwrap().path());
    let of_slots = |path: &std::path::PathBuf| {
        std::fs::read_link(path).is_ok_and(|to| to.to_string_lossy() == format!("/memfd:{name} (deleted)"))
    };
    let path = fds.into_iter().find(of_slots).expect("the slots' memfd");
    let again = std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    assert!((&again).write_all(&[1; 64]).is_err(), "a sealed file takes no writes");
    assert!(rustix::fs::ftruncate(&again, 0).is_err(), "and does not shrink");
    let seals = rustix::fs::fcntl_get_seals(&again).unwrap();
    assert!(seals.contains(SealFlags::FUTURE_WRITE | SealFlags::SHRINK | SealFlags::GROW));
}

#[test]
fn a_file_size_limit_is_an_error_and_no_signal() {
    in_child("file-size");
}

#[test]
fn an_address_space_limit_is_an_error() {
    in_child("address-space");
}

#[test]
fn more_than_the_machine_has_is_an_error_and_kills_nobody() {
    // 64 slots of 1 TiB each
    let error = Pool::create(&spec(64, 1 << 40)).unwrap_err();
    assert!(matches!(error, PoolError::Room { bytes, .. } if bytes == 64 << 40), "{error}");
    assert!(error.to_string().contains("lower SLOTS"), "{error}");
}

#[test]
fn a_process_without_descriptors_takes_nobody_for_dead() {
    in_child("descriptors");
}

fn in_child(limit: &str) {
    let exe = std::env::current_exe().unwrap();
    let child =
        Command::new(exe).args(["--exact", "child", "--nocapture"]).env("MILLRACE_LIMIT", limit).output().unwrap();
    let said = String::from_utf8_lossy(&child.stderr);
    assert!(child.status.success(), "{limit}: {}\n{said}", child.status);
    assert!(said.contains(&format!("{limit} held")), "the child did its work: {said}");
}

/// Does nothing by itself; with `MILLRACE_LIMIT` it is the process that a test above limits.
#[test]
fn child() {
    let Ok(limit) = std::env::var("MILLRACE_LIMIT") else { return };
    let at_most = |resource, bytes| setrlimit(resource, Rlimit { current: Some(bytes), maximum: Some(bytes) }).unwrap();
    let try_create = || Pool::create(&spec(4, 1 << 20));
    match limit.as_str() {
        "file-size" => {
            at_most(Resource::Fsize, 1 << 20);
            let error = try_create().unwrap_err();
            assert!(matches!(error, PoolError::Room { left, .. } if left == 1 << 20), "{error:?}");
            assert!(error.to_string().contains("ulimit -f"), "{error}");
        }
        "address-space" => {
            at_most(Resource::As, 1 << 30);
            let error = Pool::create(&spec(2, 600 << 20)).unwrap_err();
            let expected = matches!(error, PoolError::Memory { call: "mmap", .. } | PoolError::Room { .. });
            assert!(expected && error.to_string().contains("lower SLOTS"), "{error}");
        }
        "descriptors" => {
            let mut pool = try_create().unwrap();
            let mut reader = Reader::open(&pool.locator(), "a/in").unwrap();
            let slot = pool.acquire().unwrap();
            pool.publish(slot, b"0").unwrap();
            let millrace_pool::PollResult::Frame(_lease) = reader.poll() else { panic!("published") };
            let me = Owner::me().unwrap();
            at_most(Resource::Nofile, 3);
            assert!(File::open("/proc/self/stat").is_err(), "no descriptor is left");
            assert!(!me.is_dead() && !reader.producer_is_dead());
            assert!(pool.reap(true).is_empty(), "the consumer lives, and reads");
            assert!(Owner::me().is_err());
        }
        other => panic!("no limit '{other}'"),
    }
    eprintln!("{limit} held");
}
