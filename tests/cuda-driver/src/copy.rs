//! Copies and fills. They are checked when they are called, and done when their stream comes to them.

use crate::code::{INVALID_VALUE, StatusCode, status};
use crate::memory::Use;
use crate::state::{State, in_context, misuse};
use std::ffi::{c_uint, c_void};

/// Rows of bytes at one side of a copy.
#[derive(Clone, Copy)]
struct Side {
    at: u64,
    pitch: u64,
}

/// `rows` rows of `row_bytes`.
#[derive(Clone, Copy)]
struct Shape {
    row_bytes: u64,
    rows: u64,
}

impl Shape {
    /// From the first byte to the last, and the gaps between rows.
    fn extent(self, pitch: u64) -> Result<u64, StatusCode> {
        if pitch < self.row_bytes && self.rows > 1 {
            return Err(INVALID_VALUE);
        }
        let gaps = self.rows.checked_sub(1).and_then(|n| n.checked_mul(pitch)).ok_or(INVALID_VALUE)?;
        gaps.checked_add(self.row_bytes).ok_or(INVALID_VALUE)
    }

    /// # Safety
    /// Both sides have these rows for as long as it runs.
    unsafe fn copy(self, from: Side, to: Side) {
        for row in 0..self.rows {
            let from = (from.at + row * from.pitch) as *const u8;
            let to = (to.at + row * to.pitch) as *mut u8;
            // SAFETY: a row of each side: the caller's contract. `copy` allows what overlaps.
            unsafe { to.copy_from(from, self.row_bytes as usize) };
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Where {
    Device,
    Host,
}

/// A side as a call describes it: the range is checked, and used until the copy is done.
struct Checked {
    side: Side,
    extent: u64,
    place: Where,
    /// Of pageable host memory there is none.
    uses: Option<Use>,
}

impl State {
    fn side(&self, call: &str, place: Where, side: Side, shape: Shape, write: bool) -> Result<Checked, StatusCode> {
        let extent = shape.extent(side.pitch)?;
        let uses = match place {
            Where::Device => Some(self.device_range(call, side.at, extent, write)?),
            Where::Host if side.at == 0 => return Err(INVALID_VALUE),
            Where::Host => self.pinned_range(call, side.at, extent)?,
        };
        Ok(Checked { side, extent, place, uses })
    }
}

fn copy(
    call: &str,
    from: (Where, Side),
    to: (Where, Side),
    shape: Shape,
    stream: *mut c_void,
) -> Result<(), StatusCode> {
    let state = in_context(call)?;
    let stream = state.stream(call, stream)?;
    if shape.row_bytes == 0 || shape.rows == 0 {
        return Ok(());
    }
    let from = state.side(call, from.0, from.1, shape, false)?;
    let to = state.side(call, to.0, to.1, shape, true)?;
    let (start, end) = (from.side.at.max(to.side.at), (from.side.at + from.extent).min(to.side.at + to.extent));
    // planes of one picture may be woven into each other; one run of bytes over itself may not
    if start < end && from.side.pitch == to.side.pitch && shape.rows == 1 {
        return Err(misuse(INVALID_VALUE, format_args!("{call}: source and destination overlap")));
    }
    drop(state);
    if from.place == Where::Host && from.uses.is_none() {
        // pageable: read before the call returns
        let mut staged = vec![0u8; (shape.row_bytes * shape.rows) as usize];
        let packed = Side { at: staged.as_mut_ptr() as u64, pitch: shape.row_bytes };
        // SAFETY: the C caller's memory, during the call; the other side has just been allocated.
        unsafe { shape.copy(from.side, packed) };
        stream.submit(move || {
            let packed = Side { at: staged.as_ptr() as u64, pitch: shape.row_bytes };
            // SAFETY: `staged` and `to` live as long as this operation.
            unsafe { shape.copy(packed, to.side) };
            drop((staged, to));
        });
        return Ok(());
    }
    let wait = to.place == Where::Host && to.uses.is_none();
    let number = stream.submit(move || {
        // SAFETY: both were checked, and may not go while they are used. Pageable memory waits below.
        unsafe { shape.copy(from.side, to.side) };
        drop((from, to));
    });
    if wait {
        stream.wait_until(number);
    }
    Ok(())
}

fn flat(at: u64, bytes: usize) -> Side {
    Side { at, pitch: bytes as u64 }
}

fn one_row(bytes: usize) -> Shape {
    Shape { row_bytes: bytes as u64, rows: 1 }
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn cuMemcpyHtoDAsync_v2(
    to: u64,
    from: *const c_void,
    bytes: usize,
    stream: *mut c_void,
) -> StatusCode {
    let (from, to) = ((Where::Host, flat(from as u64, bytes)), (Where::Device, flat(to, bytes)));
    status(copy("cuMemcpyHtoDAsync", from, to, one_row(bytes), stream))
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn cuMemcpyDtoHAsync_v2(
    to: *mut c_void,
    from: u64,
    bytes: usize,
    stream: *mut c_void,
) -> StatusCode {
    let (from, to) = ((Where::Device, flat(from, bytes)), (Where::Host, flat(to as u64, bytes)));
    status(copy("cuMemcpyDtoHAsync", from, to, one_row(bytes), stream))
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn cuMemcpyDtoDAsync_v2(
    to: u64,
    from: u64,
    bytes: usize,
    stream: *mut c_void,
) -> StatusCode {
    let (from, to) = ((Where::Device, flat(from, bytes)), (Where::Device, flat(to, bytes)));
    status(copy("cuMemcpyDtoDAsync", from, to, one_row(bytes), stream))
}

/// One side of `CUDA_MEMCPY2D`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Side2D {
    x_bytes: usize,
    y: usize,
    kind: c_uint,
    host: u64,
    device: u64,
    array: u64,
    pitch: usize,
}

/// `CUDA_MEMCPY2D`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Copy2D {
    from: Side2D,
    to: Side2D,
    width_bytes: usize,
    height: usize,
}

const HOST: c_uint = 1;
const DEVICE: c_uint = 2;

fn side(described: &Side2D, shape: Shape) -> Result<(Where, Side), StatusCode> {
    let (place, start) = match described.kind {
        HOST => (Where::Host, described.host),
        DEVICE => (Where::Device, described.device),
        _ => return Err(INVALID_VALUE),
    };
    // a pitch of 0 stands for packed rows
    let pitch = if described.pitch == 0 { shape.row_bytes } else { described.pitch as u64 };
    if described.array != 0 || pitch < (described.x_bytes as u64).saturating_add(shape.row_bytes) {
        return Err(INVALID_VALUE);
    }
    let skipped = (described.y as u64).checked_mul(pitch).and_then(|rows| rows.checked_add(described.x_bytes as u64));
    let at = skipped.and_then(|skipped| start.checked_add(skipped)).ok_or(INVALID_VALUE)?;
    Ok((place, Side { at, pitch }))
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn cuMemcpy2DAsync_v2(described: *const Copy2D, stream: *mut c_void) -> StatusCode {
    status((|| {
        // SAFETY: the C caller's description, during the call.
        let described = unsafe { described.as_ref() }.ok_or(INVALID_VALUE)?;
        let shape = Shape { row_bytes: described.width_bytes as u64, rows: described.height as u64 };
        copy("cuMemcpy2DAsync", side(&described.from, shape)?, side(&described.to, shape)?, shape, stream)
    })())
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn cuMemsetD8Async(to: u64, byte: u8, bytes: usize, stream: *mut c_void) -> StatusCode {
    status((|| {
        let state = in_context("cuMemsetD8Async")?;
        let stream = state.stream_or_recording("cuMemsetD8Async", stream)?;
        if bytes == 0 {
            return Ok(());
        }
        stream.submit_or_record(&state, move |state| {
            let uses = state.device_range("cuMemsetD8Async", to, bytes as u64, true)?;
            Ok(Box::new(move || {
                // SAFETY: the range was checked, and may not go while it is used.
                unsafe { (to as *mut u8).write_bytes(byte, bytes) };
                drop(uses);
            }))
        })
    })())
}
