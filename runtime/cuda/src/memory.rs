//! Memory of a GPU, of this process and of others, and pinned memory of the host.
#![allow(unsafe_code, reason = "calls of the driver")]

use crate::sys::{self, DevicePtr, IpcHandle, MemAccessDesc, MemAllocationProp, MemLocation};
use crate::{CudaError, Gpu, Stream, driver};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// A range of a GPU's memory. It does not keep the memory: that is its maker's [`DeviceMemory`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    ptr: DevicePtr,
    bytes: u64,
}

impl Span {
    /// The address, in the GPU's address space of this process.
    pub fn ptr(self) -> u64 {
        self.ptr
    }

    /// Its length.
    pub fn bytes(self) -> u64 {
        self.bytes
    }

    /// A part of it.
    ///
    /// # Panics
    /// When it ends after this one.
    pub fn part(self, offset_bytes: u64, bytes: u64) -> Self {
        let inside = offset_bytes.checked_add(bytes).is_some_and(|end| end <= self.bytes);
        assert!(inside, "{bytes} bytes from {offset_bytes} of a span of {}", self.bytes);
        Self { ptr: self.ptr + offset_bytes, bytes }
    }

    /// A span of memory that another library allocated.
    ///
    /// # Safety
    /// `bytes` from `ptr` are memory of the GPU for as long as work on the span is queued.
    pub unsafe fn from_raw(ptr: u64, bytes: u64) -> Self {
        Self { ptr, bytes }
    }
}

/// How a [`DeviceMemory`] came to be, and so how it goes.
#[derive(Debug)]
enum Origin {
    /// `cuMemAlloc`.
    Allocated,
    /// Another process's, by its legacy IPC handle.
    Opened,
    /// A mapping of physical memory, ours or another process's, by its file descriptor. The mapping is that much long.
    Mapped { mapped_bytes: usize, fd: OwnedFd },
}

/// Memory of a GPU.
///
/// Plain `cuMemAlloc`: stream-ordered allocations cannot be exported by legacy IPC handles.
#[derive(Debug)]
pub struct DeviceMemory {
    gpu: Gpu,
    ptr: DevicePtr,
    bytes: u64,
    origin: Origin,
}

impl DeviceMemory {
    /// Allocates `bytes` for `what`.
    ///
    /// # Errors
    /// The GPU's memory is full.
    pub fn allocate(gpu: &Gpu, bytes: u64, what: &str) -> Result<Self, CudaError> {
        let mut ptr = 0;
        // the pointer to the address is valid for writes until the call returns
        driver!(gpu, format!("{bytes} B of {what}"), cuMemAlloc_v2(&raw mut ptr, bytes as usize))?;
        Ok(Self { gpu: gpu.clone(), ptr, bytes, origin: Origin::Allocated })
    }

    /// What another process opens an allocation by.
    ///
    /// # Errors
    /// The driver's: legacy IPC is not offered everywhere.
    pub fn export_ipc(&self) -> Result<[u8; 64], CudaError> {
        let mut handle = IpcHandle([0; 64]);
        // the pointer to the handle is valid for writes until the call returns; the address is the start of our
        // allocation
        driver!(&self.gpu, format!("{} B to share", self.bytes), cuIpcGetMemHandle(&raw mut handle, self.ptr))?;
        Ok(handle.0)
    }

    /// Opens another process's allocation of `bytes`. The memory stays until the last process has let it go.
    ///
    /// # Errors
    /// A handle of this process, of one that has ended, or of another device.
    pub fn open_ipc(gpu: &Gpu, handle: [u8; 64], bytes: u64) -> Result<Self, CudaError> {
        let mut ptr = 0;
        let flags = sys::IPC_MEM_LAZY_ENABLE_PEER_ACCESS;
        // the pointer to the address is valid for writes until the call returns; the driver checks the handle
        driver!(
            gpu,
            format!("{bytes} B of another process"),
            cuIpcOpenMemHandle_v2(&raw mut ptr, IpcHandle(handle), flags)
        )?;
        Ok(Self { gpu: gpu.clone(), ptr, bytes, origin: Origin::Opened })
    }

    /// Allocates `bytes` for `what` so that a file descriptor names them: the way to share where legacy IPC handles
    /// are not offered.
    ///
    /// # Errors
    /// The GPU's memory is full, or the device does not offer it.
    pub fn allocate_shareable(gpu: &Gpu, bytes: u64, what: &str) -> Result<Self, CudaError> {
        let prop = MemAllocationProp {
            kind: sys::MEM_ALLOCATION_PINNED,
            requested_handle_types: sys::MEM_HANDLE_POSIX_FD,
            location: MemLocation { kind: sys::MEM_LOCATION_DEVICE, id: gpu.ordinal() as i32 },
            win32_meta_data: std::ptr::null_mut(),
            compression_type: 0,
            gpu_direct_rdma_capable: 0,
            usage: 0,
            reserved: [0; 4],
        };
        let mut granularity = 0;
        // the pointer to the number is valid for writes until the call returns, and the description is fully initialized
        driver!(gpu, what, cuMemGetAllocationGranularity(&raw mut granularity, &raw const prop, 0))?;
        let mapped_bytes = (bytes as usize).next_multiple_of(granularity.max(1));
        let mut handle = 0;
        let described = || format!("{mapped_bytes} B of {what}");
        // the pointer to the handle is valid for writes until the call returns, and the description is fully initialized
        driver!(gpu, described(), cuMemCreate(&raw mut handle, mapped_bytes, &raw const prop, 0))?;
        let physical = Physical { gpu, handle };
        let mut fd: i32 = -1;
        // the pointer to the descriptor is valid for writes until the call returns
        driver!(
            gpu,
            described(),
            cuMemExportToShareableHandle((&raw mut fd).cast(), handle, sys::MEM_HANDLE_POSIX_FD, 0)
        )?;
        // SAFETY: the driver has just opened it for us.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let ptr = physical.map(mapped_bytes, sys::MEM_ACCESS_READ_WRITE)?;
        Ok(Self { gpu: gpu.clone(), ptr, bytes, origin: Origin::Mapped { mapped_bytes, fd } })
    }

    /// The descriptor of memory that was allocated shareable, or opened by one.
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        match &self.origin {
            Origin::Mapped { fd, .. } => Some(fd.as_fd()),
            _ => None,
        }
    }

    /// Maps what another process shared by `fd`, to be read: `bytes` were allocated there.
    ///
    /// # Errors
    /// A descriptor that is no memory of a GPU, or less than `bytes` of it.
    pub fn open_descriptor(gpu: &Gpu, fd: OwnedFd, bytes: u64, granularity_bytes: u64) -> Result<Self, CudaError> {
        let mapped_bytes = bytes.next_multiple_of(granularity_bytes.max(1)) as usize;
        let mut handle = 0;
        let raw = fd.as_raw_fd() as usize as *mut std::ffi::c_void;
        // the pointer to the handle is valid for writes until the call returns; the descriptor is open, and passed by
        // value as the page of the call says
        driver!(
            gpu,
            format!("{bytes} B of another process"),
            cuMemImportFromShareableHandle(&raw mut handle, raw, sys::MEM_HANDLE_POSIX_FD)
        )?;
        let ptr = Physical { gpu, handle }.map(mapped_bytes, sys::MEM_ACCESS_READ)?;
        Ok(Self { gpu: gpu.clone(), ptr, bytes, origin: Origin::Mapped { mapped_bytes, fd } })
    }

    /// Bytes of the mapping of memory that was allocated shareable: what its opener has to map as well.
    pub fn mapped_bytes(&self) -> u64 {
        match &self.origin {
            Origin::Mapped { mapped_bytes, .. } => *mapped_bytes as u64,
            _ => self.bytes,
        }
    }

    /// Its device.
    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// All of it.
    pub fn span(&self) -> Span {
        Span { ptr: self.ptr, bytes: self.bytes }
    }
}

impl Drop for DeviceMemory {
    fn drop(&mut self) {
        // the address is not used again; the code that queued work on it keeps the memory until that work is done
        let freed = match &self.origin {
            Origin::Allocated => driver!(&self.gpu, "memory to free", cuMemFree_v2(self.ptr)),
            Origin::Opened => driver!(&self.gpu, "memory to let go", cuIpcCloseMemHandle(self.ptr)),
            Origin::Mapped { mapped_bytes, .. } => unmap(&self.gpu, self.ptr, *mapped_bytes),
        };
        // at the end of the process the driver may be gone before us
        let _ = freed.inspect_err(|e| tracing::debug!("{e}"));
    }
}

/// A handle of physical memory. The mapping keeps the memory, so the handle goes when it has been made.
struct Physical<'a> {
    gpu: &'a Gpu,
    handle: u64,
}

impl Physical<'_> {
    fn map(&self, bytes: usize, access: u32) -> Result<DevicePtr, CudaError> {
        let what = || format!("{bytes} B of addresses");
        let mut ptr = 0;
        // the pointer to the address is valid for writes until the call returns
        driver!(self.gpu, what(), cuMemAddressReserve(&raw mut ptr, bytes, 0, 0, 0))?;
        // the range that was reserved, and the handle that we hold
        driver!(self.gpu, what(), cuMemMap(ptr, bytes, 0, self.handle, 0)).inspect_err(|_| {
            let _ = driver_quiet(self.gpu, ptr, bytes);
        })?;
        let location = MemLocation { kind: sys::MEM_LOCATION_DEVICE, id: self.gpu.ordinal() as i32 };
        let desc = MemAccessDesc { location, flags: access };
        // the range that was mapped, and one description
        driver!(self.gpu, what(), cuMemSetAccess(ptr, bytes, &raw const desc, 1)).inspect_err(|_| {
            let _ = unmap(self.gpu, ptr, bytes);
        })?;
        Ok(ptr)
    }
}

impl Drop for Physical<'_> {
    fn drop(&mut self) {
        // the handle is ours and not used again
        let _ =
            driver!(self.gpu, "a handle of memory", cuMemRelease(self.handle)).inspect_err(|e| tracing::debug!("{e}"));
    }
}

fn driver_quiet(gpu: &Gpu, ptr: DevicePtr, bytes: usize) -> Result<(), CudaError> {
    // the range was reserved with these numbers and nothing is mapped there
    driver!(gpu, "addresses to give back", cuMemAddressFree(ptr, bytes))
}

fn unmap(gpu: &Gpu, ptr: DevicePtr, bytes: usize) -> Result<(), CudaError> {
    // the range was mapped with these numbers
    driver!(gpu, "a mapping to undo", cuMemUnmap(ptr, bytes))?;
    driver_quiet(gpu, ptr, bytes)
}

/// Host memory that the GPU copies to and from by itself.
#[derive(Debug)]
pub struct PinnedMemory {
    gpu: Gpu,
    start: std::ptr::NonNull<u8>,
    bytes: usize,
}

// SAFETY: an address range of the process, whose bytes are reached through `&self` and `&mut self` only.
unsafe impl Send for PinnedMemory {}
// SAFETY: as above.
unsafe impl Sync for PinnedMemory {}

impl PinnedMemory {
    /// Allocates `bytes` for `what`, all zero.
    ///
    /// # Errors
    /// The host's memory, or what may be pinned of it, is full.
    pub fn allocate(gpu: &Gpu, bytes: usize, what: &str) -> Result<Self, CudaError> {
        let mut start = std::ptr::null_mut();
        // the pointer to the address is valid for writes until the call returns
        driver!(gpu, format!("{bytes} pinned B of {what}"), cuMemHostAlloc(&raw mut start, bytes.max(1), 0))?;
        let start = std::ptr::NonNull::new(start.cast::<u8>())
            .ok_or_else(|| CudaError::misuse(what, "the driver gave no address for pinned memory"))?;
        // SAFETY: the driver has just allocated this many bytes for us.
        unsafe { start.as_ptr().write_bytes(0, bytes) };
        Ok(Self { gpu: gpu.clone(), start, bytes })
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: allocated with this length, initialized, and written through `&mut self` or by copies whose caller
        // vouches for them (`Stream::download_unordered`).
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.bytes) }
    }

    /// The bytes, to write.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and `&mut self` is the only way in.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.bytes) }
    }
}

impl Drop for PinnedMemory {
    fn drop(&mut self) {
        // allocated by the matching call, not used again
        let _ = driver!(&self.gpu, "pinned memory", cuMemFreeHost(self.start.as_ptr().cast()))
            .inspect_err(|e| tracing::debug!("{e}"));
    }
}

/// A part of a plane to copy: `rows` rows of `row_bytes` each, `pitch_bytes` from one to the next on each side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rows {
    /// Bytes of a row.
    pub row_bytes: u64,
    /// Number of rows.
    pub rows: u64,
    /// Pitch of the source.
    pub from_pitch_bytes: u64,
    /// Pitch of the destination.
    pub to_pitch_bytes: u64,
}

impl Rows {
    fn fits(&self, from: Span, to: Span) -> Result<(), CudaError> {
        let needs = |pitch: u64| self.rows.checked_sub(1).map_or(Some(0), |n| (n * pitch).checked_add(self.row_bytes));
        let fits = |pitch: u64, have: u64| pitch >= self.row_bytes && needs(pitch).is_some_and(|need| need <= have);
        if fits(self.from_pitch_bytes, from.bytes) && fits(self.to_pitch_bytes, to.bytes) {
            return Ok(());
        }
        Err(CudaError::misuse("a copy of rows", format!("{self:?} from {} B to {} B", from.bytes, to.bytes)))
    }
}

impl Stream {
    /// Queues a copy of rows within the GPU.
    ///
    /// # Errors
    /// Rows that leave one of the spans; the driver's.
    pub fn copy_rows(&self, from: Span, to: Span, rows: Rows) -> Result<(), CudaError> {
        rows.fits(from, to)?;
        let copy = sys::Memcpy2D {
            src_x_bytes: 0,
            src_y: 0,
            src_kind: sys::MEMORY_DEVICE,
            src_host: std::ptr::null(),
            src_device: from.ptr,
            src_array: std::ptr::null_mut(),
            src_pitch: rows.from_pitch_bytes as usize,
            dst_x_bytes: 0,
            dst_y: 0,
            dst_kind: sys::MEMORY_DEVICE,
            dst_host: std::ptr::null_mut(),
            dst_device: to.ptr,
            dst_array: std::ptr::null_mut(),
            dst_pitch: rows.to_pitch_bytes as usize,
            width_bytes: rows.row_bytes as usize,
            height: rows.rows as usize,
        };
        // a whole description, inside both spans
        driver!(self.gpu(), format!("{rows:?}"), cuMemcpy2DAsync_v2(&raw const copy, self.raw()))
    }

    /// Queues a copy within the GPU.
    ///
    /// # Errors
    /// Spans of different lengths; the driver's.
    pub fn copy(&self, from: Span, to: Span) -> Result<(), CudaError> {
        if from.bytes != to.bytes {
            return Err(CudaError::misuse("a copy", format!("{} B to {} B", from.bytes, to.bytes)));
        }
        // both spans have that many bytes
        driver!(
            self.gpu(),
            format!("{} B", from.bytes),
            cuMemcpyDtoDAsync_v2(to.ptr, from.ptr, from.bytes as usize, self.raw())
        )
    }

    /// Queues filling with one byte.
    ///
    /// # Errors
    /// The driver's.
    pub fn fill(&self, to: Span, byte: u8) -> Result<(), CudaError> {
        // the span has that many bytes
        driver!(self.gpu(), format!("{} B", to.bytes), cuMemsetD8Async(to.ptr, byte, to.bytes as usize, self.raw()))
    }

    /// Copies from the host and waits for it, and for everything before in the stream.
    ///
    /// # Errors
    /// Different lengths; the driver's.
    pub fn upload(&self, from: &[u8], to: Span) -> Result<(), CudaError> {
        // SAFETY: `from` is borrowed until `synchronize` has seen the copy's end.
        unsafe { self.upload_unordered(from, to) }?;
        self.synchronize()
    }

    /// Copies to the host and waits for it, and for everything before in the stream.
    ///
    /// # Errors
    /// Different lengths; the driver's.
    pub fn download(&self, from: Span, to: &mut [u8]) -> Result<(), CudaError> {
        // SAFETY: `to` is borrowed until `synchronize` has seen the copy's end.
        unsafe { self.download_unordered(from, to) }?;
        self.synchronize()
    }

    /// Queues a copy from the host. Only from pinned memory does the call return before the bytes have been read.
    ///
    /// # Errors
    /// Different lengths; the driver's.
    ///
    /// # Safety
    /// `from` lives and is not written until the copy is done.
    pub unsafe fn upload_unordered(&self, from: &[u8], to: Span) -> Result<(), CudaError> {
        if from.len() as u64 != to.bytes {
            return Err(CudaError::misuse("a copy to the GPU", format!("{} B to {} B", from.len(), to.bytes)));
        }
        // both sides have that many bytes; their life is the caller's contract
        driver!(
            self.gpu(),
            format!("{} B from the host", to.bytes),
            cuMemcpyHtoDAsync_v2(to.ptr, from.as_ptr().cast(), from.len(), self.raw())
        )
    }

    /// Queues a copy to the host. Only to pinned memory does the call return before the bytes are there.
    ///
    /// # Errors
    /// Different lengths; the driver's.
    ///
    /// # Safety
    /// `to` lives and is neither read nor written until the copy is done.
    pub unsafe fn download_unordered(&self, from: Span, to: &mut [u8]) -> Result<(), CudaError> {
        if to.len() as u64 != from.bytes {
            return Err(CudaError::misuse("a copy to the host", format!("{} B to {} B", from.bytes, to.len())));
        }
        // both sides have that many bytes; their life is the caller's contract
        driver!(
            self.gpu(),
            format!("{} B to the host", from.bytes),
            cuMemcpyDtoHAsync_v2(to.as_mut_ptr().cast(), from.ptr, to.len(), self.raw())
        )
    }
}
