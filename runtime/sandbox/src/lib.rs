//! What a process gives up before it reads what strangers send ([ADR 0031](../../../docs/adr/0031-sandbox.md)).
//!
//! In two steps. [`confine`] comes while the process has one thread, since Landlock restricts a thread and those that it
//! starts: files and ports beyond a [`Reach`] are out of reach from then on. [`seal`] comes when everything is set up, and
//! refuses system calls to all threads that there are by then and to all that follow.
#![forbid(unsafe_code)]

mod calls;
mod reach;

pub use reach::{Ports, Reach};

use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities, set_no_new_privs};
use std::io;

/// Why a process is not confined.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the message names each field")]
pub enum Error {
    #[error("the process has {0} threads already, and Landlock restricts one")]
    Threads(usize),
    #[error("{call}: {source}")]
    System { call: &'static str, source: io::Error },
    #[error("Landlock: {0}")]
    Landlock(#[from] landlock::RulesetError),
    #[error("seccomp: {0}")]
    Seccomp(#[from] seccompiler::Error),
    #[error("seccomp: {0}")]
    Filter(#[from] seccompiler::BackendError),
}

impl Error {
    fn system(call: &'static str) -> impl Fn(rustix::io::Errno) -> Self {
        move |e| Self::System { call, source: e.into() }
    }
}

/// Gives up, in this thread and in those that it starts, what is beyond `reach`, privileges that a program could gain or
/// has, and core dumps, which would hold pictures. Gives what this kernel's Landlock does not restrict.
///
/// # Errors
/// The process has several threads. The kernel refuses; what was given up by then stays given up.
pub fn confine(reach: &Reach) -> Result<Vec<&'static str>, Error> {
    let threads = std::fs::read_dir("/proc/self/task");
    let threads = threads.map_err(|source| Error::System { call: "/proc/self/task", source })?.count();
    if threads != 1 {
        return Err(Error::Threads(threads));
    }
    set_no_new_privs(true).map_err(Error::system("prctl(PR_SET_NO_NEW_PRIVS)"))?;
    dump_no_core()?;
    let lacks = reach::restrict(reach)?;
    // to read what belongs to others is limited by the reach
    let kept =
        CapabilitySet::DAC_READ_SEARCH & rustix::thread::capabilities(None).map_err(Error::system("capget"))?.permitted;
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    set_capabilities(None, sets).map_err(Error::system("capset"))?;
    Ok(lacks)
}

/// Refuses, to every thread of the process from now on, the system calls that no node makes once it is set up, with
/// `EPERM`; privileges that a program could gain; and core dumps. `confined`: also those that change the owner, the mode
/// or the times of files, which Landlock does not restrict.
///
/// # Errors
/// The kernel refuses.
pub fn seal(confined: bool) -> Result<(), Error> {
    dump_no_core()?;
    calls::refuse(confined)
}

/// A limit of 1 byte: to 0 the kernel pays no regard where a program gets the core by a pipe (core(5)).
fn dump_no_core() -> Result<(), Error> {
    let limit = Rlimit { current: Some(1), maximum: Some(1) };
    setrlimit(Resource::Core, limit).map_err(Error::system("setrlimit(RLIMIT_CORE)"))
}

/// What a kernel has for a sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// The version of Landlock's interface; 0 where there is none.
    pub landlock: i32,
    /// What this Landlock does not restrict; where there is none, nothing is listed.
    pub lacks: Vec<&'static str>,
    /// Why system calls cannot be refused.
    pub seccomp: Result<(), String>,
}

/// Finds out what this kernel has, by trying it in a thread that ends.
pub fn offered() -> Offer {
    let landlock = std::thread::spawn(|| {
        let _ = set_no_new_privs(true);
        reach::version()
    });
    let landlock = landlock.join().unwrap_or_default();
    let seccomp = std::thread::spawn(|| calls::refuse_here(true).map_err(|e| e.to_string()));
    let seccomp = seccomp.join().unwrap_or_else(|_| Err("the thread that tried it panicked".to_owned()));
    Offer { landlock, lacks: if landlock > 0 { reach::lacks(landlock) } else { Vec::new() }, seccomp }
}
