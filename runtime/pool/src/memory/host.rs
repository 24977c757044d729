//! Slots in host shared memory.
#![allow(unsafe_code, reason = "slices of memory that other processes map")]

use crate::PoolError;
use crate::map::{Mapping, open_shared, shared_file};

/// Slots in one memfd, each at a multiple of the page size, so that a device could register them.
#[derive(Debug)]
pub(crate) struct HostMemory {
    mapping: Mapping,
    slot_bytes: u64,
    stride_bytes: u64,
}

const PAGE_BYTES: u64 = 4096;
/// A descriptor and an inode.
const EXPORT_BYTES: usize = 12;

impl HostMemory {
    /// The bytes of a slot.
    ///
    /// # Safety
    /// The caller holds a lease on the slot for as long as the slice lives.
    pub(crate) unsafe fn slot(&self, slot: u32) -> &[u8] {
        // SAFETY: the protocol lets nobody write a leased slot.
        unsafe { self.mapping.slice(self.offset(slot), self.slot_bytes as usize) }
    }

    /// The bytes of a slot, to write.
    ///
    /// # Safety
    /// The caller created this memory, holds the slot's writing state, and makes no second slice of it meanwhile.
    #[allow(clippy::mut_from_ref, reason = "exclusiveness comes from the slot's state")]
    pub(crate) unsafe fn slot_mut(&self, slot: u32) -> &mut [u8] {
        // SAFETY: the protocol gives no lease on a slot in writing state, and the mapping of a creator is writable.
        unsafe { self.mapping.slice_mut(self.offset(slot), self.slot_bytes as usize) }
    }

    fn offset(&self, slot: u32) -> usize {
        (u64::from(slot) * self.stride_bytes) as usize
    }

    fn of(mapping: Mapping, slot_bytes: u64) -> Self {
        Self { mapping, slot_bytes, stride_bytes: slot_bytes.next_multiple_of(PAGE_BYTES) }
    }
}

fn total_bytes(slots: u32, slot_bytes: u64) -> Option<u64> {
    slot_bytes.checked_next_multiple_of(PAGE_BYTES)?.checked_mul(u64::from(slots)).filter(|&b| b <= i64::MAX as u64)
}

impl HostMemory {
    pub(crate) const KIND: u32 = 1;

    pub(crate) fn create(what: &str, slots: u32, slot_bytes: u64) -> Result<Self, PoolError> {
        let too_big = || PoolError::Memory {
            call: "allocate",
            bytes: slot_bytes,
            what: format!("{slots} slots of pool {what}"),
            source: std::io::ErrorKind::OutOfMemory.into(),
            hint: "no machine addresses that many bytes",
        };
        let bytes = total_bytes(slots, slot_bytes).ok_or_else(too_big)?;
        let file = shared_file(what, bytes)?;
        let mapping = Mapping::new(what, file, bytes, true)?;
        mapping.forbid_writers();
        Ok(Self::of(mapping, slot_bytes))
    }

    /// The descriptor's number, and the file that has it now: the number may be another file's by the time it is opened.
    pub(crate) fn export(&self) -> Vec<u8> {
        let inode = self.mapping.inode().expect("a descriptor that is open has a file");
        [&self.mapping.raw_fd().to_le_bytes()[..], &inode.to_le_bytes()].concat()
    }

    pub(crate) fn open(pool: u128, pid: u32, export: &[u8], slots: u32, slot_bytes: u64) -> Result<Self, PoolError> {
        let parts = export.split_first_chunk().zip(export.last_chunk().filter(|_| export.len() == EXPORT_BYTES));
        let ((fd, _), inode) = parts.ok_or_else(|| PoolError::NotAPool {
            pool,
            pid,
            fd: 0,
            why: format!("its memory is described by {} bytes, not {EXPORT_BYTES}", export.len()),
        })?;
        let (fd, inode) = (u32::from_le_bytes(*fd), u64::from_le_bytes(*inode));
        let bytes = total_bytes(slots, slot_bytes).ok_or_else(|| PoolError::NotAPool {
            pool,
            pid,
            fd,
            why: format!("it claims {slots} slots of {slot_bytes} bytes"),
        })?;
        let file = open_shared(pool, pid, fd, bytes, false)?;
        let mapping = Mapping::new("slots", file, bytes, false)?;
        if !mapping.inode().is_ok_and(|found| found == inode) {
            let why = "it is not the file of the pool's slots, whose process took the descriptor over".to_owned();
            return Err(PoolError::NotAPool { pool, pid, fd, why });
        }
        Ok(Self::of(mapping, slot_bytes))
    }
}
