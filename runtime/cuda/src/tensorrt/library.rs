//! Opening TensorRT: which file, which version, and its factories.
#![allow(unsafe_code, reason = "a library is opened and functions of it are looked up")]

use super::layout::{Layout, UNDERSTOOD, Version};
use super::{TensorrtError, calls};
use crate::CudaError;
use crate::error::loader_words;
use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
use std::ffi::{c_int, c_void};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// The library by the names that the system's loader knows, the newest first.
const NAMES: [&str; 3] = ["libnvinfer.so.11", "libnvinfer.so.10", "libnvinfer.so.8"];
/// How a library's name begins, and the name of the parser that goes with it.
const PARSERS: [(&str, &str, bool); 2] =
    [("libnvinfer.so", "libnvonnxparser.so", false), ("libtensorrt_rtx.so", "libtensorrt_onnxparser_rtx.so", true)];
const BRINGS: &str = "NVIDIA's TensorRT 8.5 to 11 brings it (Debian packages libnvinfer and libnvonnxparsers, or \
                      the archive's lib/ folder in LD_LIBRARY_PATH)";
const INSTEAD: &str = "use ort-infer or cpu-infer in place of trt-infer";

type Make = unsafe extern "C" fn(*mut c_void, c_int) -> *mut c_void;
type MakeParser = unsafe extern "C" fn(*mut c_void, *mut c_void, c_int) -> *mut c_void;
type Number = unsafe extern "C" fn() -> c_int;

/// TensorRT, opened; copies are the same library. It stays open to the end of the process, and a process opens one.
#[derive(Clone, Copy, Debug)]
pub struct Tensorrt {
    pub(crate) opened: &'static Opened,
}

#[derive(Debug)]
pub(crate) struct Opened {
    file: PathBuf,
    version: Version,
    build: u32,
    pub(crate) layout: &'static Layout,
    pub(crate) number: c_int,
    pub(crate) parser_number: c_int,
    pub(crate) make_builder: Make,
    pub(crate) make_runtime: Make,
    pub(crate) make_parser: MakeParser,
    pub(crate) logger: *mut c_void,
    /// Held while something is made or built: the errors of the only logger belong to the holder.
    pub(crate) turn: Mutex<()>,
}

// SAFETY: the logger is never changed and may be called from any thread; the functions are the library's factories,
// called with `turn` held.
unsafe impl Send for Opened {}
// SAFETY: as above.
unsafe impl Sync for Opened {}

impl Opened {
    pub(crate) fn version(&self) -> Version {
        self.version
    }
}

fn missing(file: &Path, cause: String) -> TensorrtError {
    let library = file.display().to_string();
    CudaError::Library { library, cause, brings: BRINGS, instead: INSTEAD }.into()
}

fn open_library(file: &Path) -> Result<Library, String> {
    // SAFETY: NVIDIA's library, whose initializers are made to run in any process; the user named another at his risk.
    unsafe { Library::open(Some(file), RTLD_NOW | RTLD_LOCAL) }.map_err(|e| loader_words(&e))
}

/// Looks a function up; `T` is its type.
///
/// # Safety
/// The header declares the function of this name with type `T`.
unsafe fn function<T: Copy>(library: &Library, file: &Path, symbol: &'static str) -> Result<T, TensorrtError> {
    // SAFETY: as the caller states.
    unsafe { library.get::<T>(symbol.as_bytes()) }.map(|f| *f).map_err(|_| {
        let library = file.display().to_string();
        CudaError::Symbol { library, symbol, since: "TensorRT 8.5", instead: INSTEAD }.into()
    })
}

impl Tensorrt {
    /// Opens `file`, or where none is named the newest that the system's loader finds, and the ONNX parser beside it.
    /// What it can be used for is decided by its version, before anything of it is made.
    ///
    /// # Errors
    /// It is not there, lacks a function, or has a version that is not understood; another was opened before.
    pub fn open(file: Option<&Path>) -> Result<Self, TensorrtError> {
        static OPENED: Mutex<Option<(Option<PathBuf>, Tensorrt)>> = Mutex::new(None);
        // absolute, or else the loader would look elsewhere
        let whole = |file: &Path| std::fs::canonicalize(file).map_err(|e| missing(file, e.to_string()));
        let asked = file.map(whole).transpose()?;
        let mut opened = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((before, tensorrt)) = opened.as_ref() {
            if *before == asked {
                return Ok(*tensorrt);
            }
            let before = tensorrt.opened.file.display().to_string();
            let file = asked.unwrap_or_else(|| NAMES[0].into()).display().to_string();
            return Err(TensorrtError::Second { before, file });
        }
        let tensorrt = match &asked {
            Some(file) => Self::open_as(file, open_library(file).map_err(|cause| missing(file, cause))?)?,
            None => {
                let mut causes = Vec::new();
                let mut found = NAMES.iter().map(Path::new).filter_map(|name| {
                    open_library(name).map_err(|cause| causes.push(cause)).ok().map(|library| (name, library))
                });
                let first = found.next();
                let (file, library) =
                    first.ok_or_else(|| missing(Path::new(&NAMES.join(" or ")), causes.join("; ")))?;
                Self::open_as(file, library)?
            }
        };
        *opened = Some((asked, tensorrt));
        Ok(tensorrt)
    }

    fn open_as(file: &Path, library: Library) -> Result<Self, TensorrtError> {
        let name = file.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        let known = PARSERS.iter().find_map(|(prefix, parser, rtx)| Some((name.strip_prefix(prefix)?, parser, *rtx)));
        let (version_suffix, parser, rtx) =
            known.ok_or_else(|| TensorrtError::Name { file: file.display().to_string() })?;
        // SAFETY: NvInferRuntime.h declares both so in every release.
        let (number, build) = unsafe {
            let number: Number = function(&library, file, "getInferLibVersion")?;
            let build = function::<Number>(&library, file, "getInferLibBuildVersion").map_or(0, |ask| ask());
            (number(), build)
        };
        let version = Version::of(number.unsigned_abs(), rtx);
        let layout = version.layout().ok_or_else(|| TensorrtError::Version {
            file: file.display().to_string(),
            version: version.to_string(),
            understood: UNDERSTOOD,
        })?;
        let parser_file = file.with_file_name(format!("{parser}{version_suffix}"));
        let parser = open_library(&parser_file).or_else(|_| {
            // an archive names the libraries by all of their version, and links by its first part
            open_library(&file.with_file_name(format!("{parser}.{}", version.major)))
        });
        let parser = parser.map_err(|cause| missing(&parser_file, cause))?;
        // SAFETY: NvInfer.h, NvInferRuntime.h and NvOnnxParser.h declare them so in every release with a layout.
        let opened = unsafe {
            Opened {
                file: file.to_owned(),
                version,
                build: build.unsigned_abs(),
                layout,
                number,
                parser_number: function::<Number>(&parser, &parser_file, "getNvOnnxParserVersion")?(),
                make_builder: function(&library, file, "createInferBuilder_INTERNAL")?,
                make_runtime: function(&library, file, "createInferRuntime_INTERNAL")?,
                make_parser: function(&parser, &parser_file, "createNvOnnxParser_INTERNAL")?,
                logger: calls::logger(layout),
                turn: Mutex::new(()),
            }
        };
        // never unloaded: objects of it live as long as their owners like
        std::mem::forget((library, parser));
        Ok(Self { opened: Box::leak(Box::new(opened)) })
    }

    /// Its version.
    pub fn version(&self) -> Version {
        self.opened.version()
    }

    /// Which build of that version it is.
    pub fn build_number(&self) -> u32 {
        self.opened.build
    }

    /// The file, as it was named.
    pub fn file(&self) -> &Path {
        &self.opened.file
    }
}
