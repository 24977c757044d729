//! The GPU's video decoder, by `libnvcuvid.so.1`.
//!
//! | part | what |
//! |---|---|
//! | [`Nvdec`] | the library, and what a GPU's decoder can do |
//! | [`Session`] | a stream's parser: encoded pictures in, [`Picture`]s out, in presentation or in decoding order |
//! | [`Picture`] | a decoded picture whose surface is kept; mapping waits for the decoder |
//! | [`Mapped`] | its pixels, until it is dropped |
//! | [`Closer`] | ends a stream's waits for surfaces, at the end of a process |
//!
//! Architecture invariant: nothing unwinds into the library, and no decoder is changed or destroyed while a picture of it
//! is held.

/// Runs a call of the library with the GPU's context current, and names it in the error.
macro_rules! cuvid {
    ($nvdec:expr, $gpu:expr, $what:expr, $call:ident($($arg:expr),* $(,)?)) => {{
        let gpu: &$crate::Gpu = $gpu;
        gpu.enter().and_then(|()| {
            #[allow(unused_unsafe, unsafe_code, reason = "a call of the library")]
            // SAFETY: the caller states at the call why its arguments are valid.
            let code = unsafe { ($nvdec.cuvid.$call)($($arg),*) };
            if code == $crate::sys::SUCCESS {
                Ok(())
            } else {
                Err($crate::error::call_error(gpu.api(), stringify!($call), $what, gpu.ordinal(), code))
            }
        })
    }};
}

mod decoder;
mod error;
mod format;
mod session;
mod surfaces;
mod survey;
mod sys;
#[cfg(test)]
mod tests;

pub use decoder::{DecodeStatus, Mapped, MappedPlane, Picture};
pub use error::NvdecError;
pub use format::{Caps, Codec, Format, Signal};
pub use session::{PictureOrder, Session, SessionOptions, Sink};
pub use surfaces::Closer;
pub use survey::Surveyed;

use crate::{CudaError, Gpu};
use std::sync::OnceLock;
use sys::Cuvid;

const LIBRARY: &str = "libnvcuvid.so.1";
const BRINGS: &str = "NVIDIA's driver brings it; a container shows it with the 'video' capability \
                      (NVIDIA_DRIVER_CAPABILITIES=compute,utility,video)";
const INSTEAD: &str = "use sw-nv12 in place of nvdec-nv12";

fn library() -> Result<&'static Cuvid, CudaError> {
    static LOADED: OnceLock<Result<Cuvid, CudaError>> = OnceLock::new();
    let loaded = LOADED.get_or_init(|| {
        #[allow(unsafe_code, reason = "opens a library")]
        // SAFETY: the driver's library, whose initializers are made to run in any process.
        let library = unsafe { libloading::Library::new(LIBRARY) }.map_err(|e| CudaError::Library {
            library: LIBRARY.to_owned(),
            cause: crate::error::loader_words(&e),
            brings: BRINGS,
            instead: INSTEAD,
        })?;
        let table = Cuvid::of(&library).map_err(|symbol| CudaError::Symbol {
            library: LIBRARY.to_owned(),
            symbol,
            since: "driver 525 (Video Codec SDK 12.0)",
            instead: INSTEAD,
        })?;
        // it is never unloaded: its functions are used to the end of the process
        std::mem::forget(library);
        Ok(table)
    });
    loaded.as_ref().map_err(Clone::clone)
}

/// The video decoder of a GPU. Clones share it.
#[derive(Clone, Copy)]
pub struct Nvdec {
    cuvid: &'static Cuvid,
}

impl std::fmt::Debug for Nvdec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(LIBRARY)
    }
}

impl Nvdec {
    /// Opens the library, once a process.
    ///
    /// # Errors
    /// It is missing, or older than driver 525.
    pub fn open() -> Result<Self, NvdecError> {
        Ok(Self { cuvid: library()? })
    }

    /// What `gpu` can decode of `codec` at 4:2:0 with `bit_depth` bits a sample.
    ///
    /// # Errors
    /// The driver's.
    pub fn caps(&self, gpu: &Gpu, codec: Codec, bit_depth: u8) -> Result<Caps, NvdecError> {
        let mut raw = sys::DecodeCaps {
            codec: codec.raw(),
            chroma_format: sys::CHROMA_420,
            bit_depth_minus8: u32::from(bit_depth.saturating_sub(8)),
            ..sys::DecodeCaps::default()
        };
        // a whole description, which the call completes
        cuvid!(self, gpu, format!("{codec} at {bit_depth} bit"), cuvidGetDecoderCaps(&raw mut raw))?;
        Ok(Caps::of(&raw))
    }
}
