//! Whether a GPU's memory and events can be shared between processes, tried with a real one: the owner makes something
//! on the first GPU and starts a peer, which opens it and reads.

use super::check::{Check, INSTEAD, Need};
use super::child;
use super::probe::Probe;
use millrace_cuda::{CudaError, DeviceMemory, Event, Gpu, Stream};
use rustix::process::{PTracer, Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open, set_ptracer};
use serde::{Deserialize, Serialize};
use std::os::fd::AsRawFd;
use std::time::Duration;

/// The three ways, each a check.
pub(super) const WAYS: [Probe; 3] = [Probe::IpcMemory, Probe::IpcEvent, Probe::Descriptor];

const BYTES: usize = 1 << 20;
/// The peer's share of the time.
const PEER_LIMIT: Duration = Duration::from_secs(20);

/// What the owner tells its peer.
#[derive(Serialize, Deserialize)]
struct Offer {
    /// Of memory or an event.
    handle: Vec<u8>,
    /// Where descriptors are shared: the owner, its descriptor, and how much is mapped.
    pid: i32,
    fd: i32,
    mapped_bytes: u64,
}

/// Bytes that no fresh memory holds by chance.
fn pattern() -> Vec<u8> {
    (0..BYTES as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

fn name_of(probe: Probe) -> (&'static str, Need) {
    probe.promises()[0]
}

/// The owner's side: the peer's line, or why there was no offer.
pub(super) fn owner(probe: Probe) -> Vec<Check> {
    let (name, need) = name_of(probe);
    match offer(probe) {
        Ok(checks) => checks,
        // the driver's own line says what is missing
        Err(CudaError::Library { library, .. }) => {
            vec![Check::missing(name, need, format!("not tried: {library} cannot be opened"), INSTEAD)]
        }
        Err(e) => vec![Check::failed(name, need, &e)],
    }
}

fn offer(probe: Probe) -> Result<Vec<Check>, CudaError> {
    let gpu = Gpu::open(0)?;
    let stream = Stream::new(&gpu)?;
    let mut offer = Offer { handle: Vec::new(), pid: std::process::id() as i32, fd: -1, mapped_bytes: 0 };
    // what is offered lives until the peer has ended
    let (memory, event);
    let peer = match probe {
        Probe::IpcMemory => {
            memory = DeviceMemory::allocate(&gpu, BYTES as u64, "a test of IPC")?;
            stream.upload(&pattern(), memory.span())?;
            offer.handle = memory.export_ipc()?.to_vec();
            Probe::IpcMemoryPeer
        }
        Probe::IpcEvent => {
            event = Event::interprocess(&gpu)?;
            stream.record(&event)?;
            stream.synchronize()?;
            offer.handle = event.export()?.to_vec();
            Probe::IpcEventPeer
        }
        _ => {
            memory = DeviceMemory::allocate_shareable(&gpu, BYTES as u64, "a test of descriptors")?;
            stream.upload(&pattern(), memory.span())?;
            offer.fd = memory.descriptor().map_or(-1, |fd| fd.as_raw_fd());
            offer.mapped_bytes = memory.mapped_bytes();
            // as pools do: Yama lets a process be reached only by those that it names
            let _ = set_ptracer(PTracer::Any);
            Probe::DescriptorPeer
        }
    };
    let offer = serde_json::to_string(&offer).map_err(|e| CudaError::misuse("an offer", e.to_string()))?;
    Ok(child::run(peer, &offer, peer.promises(), PEER_LIMIT))
}

/// The peer's side.
pub(super) fn peer(probe: Probe, offer: &str) -> Check {
    let (name, need) = name_of(probe);
    let opened = serde_json::from_str(offer)
        .map_err(|e| CudaError::misuse("an offer", e.to_string()))
        .and_then(|offer| open(probe, &offer));
    match opened {
        Ok(value) => Check::ok(name, need, value),
        Err(e) => Check::failed(name, need, &e),
    }
}

fn open(probe: Probe, offer: &Offer) -> Result<String, CudaError> {
    let gpu = Gpu::open(0)?;
    let stream = Stream::new(&gpu)?;
    let handle = || {
        <[u8; 64]>::try_from(&offer.handle[..])
            .map_err(|_| CudaError::misuse("a handle", format!("{} bytes in place of 64", offer.handle.len())))
    };
    let memory = match probe {
        Probe::IpcMemoryPeer => DeviceMemory::open_ipc(&gpu, handle()?, BYTES as u64)?,
        Probe::IpcEventPeer => {
            let event = Event::open(&gpu, handle()?)?;
            stream.wait(&event)?;
            stream.synchronize()?;
            event.synchronize()?;
            return Ok("an event of another process was waited for on GPU 0".to_owned());
        }
        _ => {
            let refused = |call: &str| {
                let call = call.to_owned();
                move |e: rustix::io::Errno| {
                    let why = format!(
                        "{e}; processes of one user in one PID namespace may, where ptrace_scope and the sandbox allow it"
                    );
                    CudaError::misuse(call, why)
                }
            };
            let owner = Pid::from_raw(offer.pid).ok_or_else(|| CudaError::misuse("an offer", "no process"))?;
            let owner = pidfd_open(owner, PidfdFlags::empty()).map_err(refused("pidfd_open"))?;
            let fd = pidfd_getfd(&owner, offer.fd, PidfdGetfdFlags::empty()).map_err(refused("pidfd_getfd"))?;
            DeviceMemory::open_descriptor(&gpu, fd, BYTES as u64, offer.mapped_bytes)?
        }
    };
    let mut bytes = vec![0; BYTES];
    stream.download(memory.span(), &mut bytes)?;
    if bytes != pattern() {
        return Err(CudaError::misuse(
            "memory of another process",
            "it opens, but holds other bytes than were written",
        ));
    }
    Ok(format!("{BYTES} B of another process were read right on GPU 0"))
}
