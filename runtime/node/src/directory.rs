//! A port's directory: which pools it has, and what its cameras do.
//!
//! Each camera has a pool of its own on each output port. A consumer finds them in the port's directory, which is a small
//! pool in live flow: each publication in it is the whole list, so the newest one is all that anybody has to read.

use crate::error::NodeError;
use millrace_frame::{CameraStatus, SlotRef};
use millrace_pool::{Flow, MemorySpec, PollResult, Pool, PoolError, PoolSpec, Reader, SlotLease};
use serde::{Deserialize, Serialize};

/// What a directory lists.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Listing {
    /// The pools that can be read, those of one camera from the oldest to the newest.
    pub(crate) pools: Vec<Entry>,
    /// The cameras that the node serves, those without a frame among them.
    pub(crate) cameras: Vec<CameraStatus>,
    /// What the node waits for before it lists its cameras; empty where it waits for nothing.
    pub(crate) waits: String,
}

/// A pool of a camera.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) source: String,
    pub(crate) at: SlotRef,
}

/// Slots of a directory: one to write, one to read, and one for a reader that was interrupted.
const SLOTS: u32 = 4;
/// Room for some twenty cameras; a longer listing gets a larger pool.
const LEAST_BYTES: u64 = 4096;

/// What became of a listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Published {
    /// Readers will find it.
    Yes,
    /// It had no room in the pool that there was. Readers see that pool's end and need the new one's locator.
    InNewPool,
    /// Consumers hold every slot: to be tried again.
    NoSlot,
}

/// The producer's side.
pub(crate) struct Directory {
    pool: Pool,
    spec: PoolSpec,
}

impl Directory {
    /// Makes the directory of the port `name` (`node/port`), which `consumers` are to read.
    pub(crate) fn create(name: String, consumers: Vec<String>, incarnation: u64) -> Result<Self, NodeError> {
        let spec = PoolSpec {
            name,
            slots: SLOTS,
            slot_bytes: LEAST_BYTES,
            flow: Flow::Live,
            incarnation,
            consumers,
            memory: MemorySpec::Host,
        };
        let pool = Pool::create(&spec).map_err(NodeError::fatal)?;
        Ok(Self { pool, spec })
    }

    /// Where it is.
    pub(crate) fn locator(&self) -> SlotRef {
        self.pool.locator()
    }

    /// The consumers that the graph names and that have not attached yet.
    pub(crate) fn missing(&self) -> Vec<String> {
        self.pool.expected()
    }

    /// Wakes the consumers. `true`: some of them cannot be woken, or are not there yet.
    pub(crate) fn wake(&mut self) -> bool {
        self.pool.ring()
    }

    /// Keeps places for the successors of consumers that died.
    pub(crate) fn reap(&mut self) {
        self.pool.reap(false);
    }

    /// Publishes a listing.
    pub(crate) fn publish(&mut self, listing: &Listing) -> Result<Published, NodeError> {
        let bytes = postcard::to_allocvec(listing).map_err(NodeError::fatal)?;
        let mut published = Published::Yes;
        if bytes.len() as u64 + 8 > self.pool.slot_bytes() {
            self.spec.slot_bytes = (bytes.len() as u64 + 8).next_power_of_two();
            let pool = Pool::create(&self.spec).map_err(NodeError::fatal)?;
            let mut old = std::mem::replace(&mut self.pool, pool);
            old.close();
            old.ring();
            published = Published::InNewPool;
        }
        let mut slot = self.pool.acquire();
        if slot.is_none() {
            self.pool.reap(false);
            slot = self.pool.acquire();
        }
        // A consumer holds its lease for as long as it takes to copy the listing. One that is stopped in the middle holds one
        // slot of four.
        let Some(mut slot) = slot else { return Ok(Published::NoSlot) };
        let room = slot.bytes_mut();
        room[..8].copy_from_slice(&(bytes.len() as u64).to_le_bytes());
        room[8..8 + bytes.len()].copy_from_slice(&bytes);
        self.pool.publish(slot, &[]).map_err(NodeError::fatal)?;
        Ok(published)
    }

    /// No further listing will come.
    pub(crate) fn close(&mut self) {
        self.pool.close();
        self.pool.ring();
    }
}

/// The consumer's side.
pub(crate) struct DirectoryReader {
    reader: Reader,
}

/// What [`DirectoryReader::read`] found.
pub(crate) enum Listed {
    /// A listing that was not read before.
    New(Listing),
    /// Nothing new.
    Same,
    /// Nothing more will come: it was closed, or its producer is dead.
    End,
}

impl DirectoryReader {
    /// Attaches to the directory at `at` as `name` (`node/input`).
    pub(crate) fn open(at: &SlotRef, name: &str, bell: &millrace_pool::Bell) -> Result<Self, PoolError> {
        let reader = Reader::open(at, name)?;
        reader.listen(bell);
        Ok(Self { reader })
    }

    /// The directory's id.
    pub(crate) fn pool(&self) -> u128 {
        self.reader.pool()
    }

    /// Its producer runs no more.
    pub(crate) fn is_orphaned(&self) -> bool {
        self.reader.producer_is_dead()
    }

    /// The newest listing.
    pub(crate) fn read(&mut self) -> Listed {
        match self.reader.newest() {
            PollResult::Frame(lease) => listing(&lease).map_or(Listed::Same, Listed::New),
            PollResult::End => Listed::End,
            PollResult::Empty | PollResult::Gone(_) => Listed::Same,
        }
    }
}

/// A listing that cannot be read is passed over: another build's, which the pool's layout number would have refused.
fn listing(lease: &SlotLease) -> Option<Listing> {
    let bytes = lease.bytes();
    let (len, rest) = bytes.split_first_chunk::<8>()?;
    // a copy: a producer that was taken over may write while this is read
    let listing = rest.get(..usize::try_from(u64::from_le_bytes(*len)).ok()?)?.to_vec();
    match postcard::from_bytes(&listing) {
        Ok(listing) => Some(listing),
        Err(e) => {
            tracing::warn!("a directory cannot be read ({e}): build all nodes from the same Millrace version");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use millrace_pool::Bell;

    #[test]
    fn readers_find_the_newest_listing_whenever_they_come_and_however_long_it_is() {
        let mut directory = Directory::create("a/out".into(), vec!["b/in".into()], 0).unwrap();
        let bell = Bell::create().unwrap();
        let listing = |cameras: usize| Listing {
            cameras: (0..cameras).map(|n| CameraStatus::new(format!("camera {n}"))).collect(),
            ..Listing::default()
        };
        let few = listing(2);
        assert_eq!(directory.publish(&few).unwrap(), Published::Yes);
        let mut reader = DirectoryReader::open(&directory.locator(), "b/in", &bell).unwrap();
        assert!(matches!(reader.read(), Listed::New(found) if found == few));
        assert!(matches!(reader.read(), Listed::Same));
        // more than the first pool has room for
        let many = listing(2_000);
        assert_eq!(directory.publish(&many).unwrap(), Published::InNewPool);
        assert!(matches!(reader.read(), Listed::End));
        let mut reader = DirectoryReader::open(&directory.locator(), "b/in", &bell).unwrap();
        assert!(matches!(reader.read(), Listed::New(found) if found == many));
        directory.close();
        assert!(matches!(reader.read(), Listed::End));
    }
}
