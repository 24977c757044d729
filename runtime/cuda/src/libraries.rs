//! Libraries that are opened by name: whether they are there, which file the system's loader took, and its version.
//!
//! For reports such as `millrace doctor`. Opening a library runs its initializers, so a report asks in a process of its
//! own, which may crash. What was opened stays open.
#![allow(unsafe_code, reason = "libraries are opened, and functions of them called")]

use crate::CudaError;
use crate::error::loader_words;
use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
use std::ffi::{CStr, c_char, c_int, c_void};
use std::path::{Path, PathBuf};

/// Major versions of TensorRT, the newest first, whose version can be asked for.
const TENSORRT: [&str; 3] = ["libnvinfer.so.11", "libnvinfer.so.10", "libnvinfer.so.8"];

/// CUDA's libraries that ONNX Runtime's CUDA provider opens, each with its name in the CUDA releases that such builds
/// exist for, the newest first.
pub const CUDA_LIBRARIES: [(&str, &[&str]); 7] = [
    ("libcudart", &["libcudart.so.13", "libcudart.so.12"]),
    ("libcublas", &["libcublas.so.13", "libcublas.so.12"]),
    ("libcublasLt", &["libcublasLt.so.13", "libcublasLt.so.12"]),
    ("libcurand", &["libcurand.so.10"]),
    ("libcufft", &["libcufft.so.12", "libcufft.so.11"]),
    ("libcudnn", &["libcudnn.so.9"]),
    ("libnvrtc", &["libnvrtc.so.13", "libnvrtc.so.12"]),
];

/// A library that could be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The file, with links followed, as this process has it mapped.
    pub file: PathBuf,
    /// What it says of itself, where it was asked.
    pub version: Option<String>,
}

/// Opens for good.
fn open(name: &Path, flags: c_int) -> Result<(Library, PathBuf), String> {
    // SAFETY: the callers name NVIDIA's libraries and ONNX Runtime, whose initializers are made to run in any process.
    // One that breaks this one does so in the process of the report, which is there for that.
    let library = unsafe { Library::open(Some(name), flags) }.map_err(|e| loader_words(&e))?;
    let file = mapped(name).unwrap_or_else(|| name.to_owned());
    Ok((library, file))
}

/// The file of this process's memory map that has the name of `library`, whatever version follows `.so`.
fn mapped(library: &Path) -> Option<PathBuf> {
    let name = library.file_name()?.to_str()?;
    let stem = &name[..name.find(".so")? + ".so".len()];
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let file_of = |line: &str| Some(PathBuf::from(&line[line.find('/')?..]));
    let is_it = |file: &PathBuf| {
        let name = file.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        name.strip_prefix(stem).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    maps.lines().filter_map(file_of).find(is_it)
}

/// The file of the driver's library, once something of the driver was asked for.
pub fn driver_library() -> Option<PathBuf> {
    mapped(Path::new("libcuda.so.1"))
}

/// Opens the first of `names` that is there.
fn first_of(names: &[&str]) -> Result<(Library, PathBuf), String> {
    let mut causes = Vec::new();
    for name in names {
        match open(Path::new(name), RTLD_NOW | RTLD_LOCAL) {
            Ok(found) => return Ok(found),
            Err(cause) => causes.push(cause),
        }
    }
    Err(causes.join("; "))
}

/// Opens one of [`CUDA_LIBRARIES`] by its first column.
///
/// # Errors
/// None of its versions can be opened: the loader's words.
pub fn cuda_library(name: &str) -> Result<Found, String> {
    let known = CUDA_LIBRARIES.iter().find(|(known, _)| *known == name);
    let (_, names) = known.ok_or_else(|| format!("'{name}' is none of CUDA's libraries that are known here"))?;
    let (library, file) = first_of(names)?;
    std::mem::forget(library);
    Ok(Found { file, version: None })
}

/// Opens the library of the hardware's decoder.
///
/// # Errors
/// It is not there.
pub fn nvcuvid() -> Result<Found, CudaError> {
    let (library, file) = first_of(&["libnvcuvid.so.1"]).map_err(|cause| CudaError::Library {
        library: "libnvcuvid.so.1".to_owned(),
        cause,
        brings: "NVIDIA's driver brings it; a container gets it by NVIDIA_DRIVER_CAPABILITIES=compute,video,utility",
        instead: "decode with sw-nv12 in place of nvdec-nv12",
    })?;
    std::mem::forget(library);
    Ok(Found { file, version: None })
}

/// Opens TensorRT and asks for its version.
///
/// # Errors
/// It is not there, or it is no TensorRT.
pub fn tensorrt() -> Result<Found, CudaError> {
    let instead = "use ort-infer or cpu-infer in place of trt-infer";
    let (library, file) = first_of(&TENSORRT).map_err(|cause| CudaError::Library {
        library: TENSORRT.join(" or "),
        cause,
        brings: "NVIDIA's TensorRT 8.5 to 11 brings it (packages libnvinfer10 and libnvonnxparsers10, or the tar archive \
                 with its lib/ in LD_LIBRARY_PATH)",
        instead,
    })?;
    // SAFETY: NvInferRuntime.h declares it so in every release: no argument, a C int.
    let version = unsafe {
        let symbol = library.get::<unsafe extern "C" fn() -> c_int>(b"getInferLibVersion\0");
        symbol.map(|ask| ask()).map_err(|_| CudaError::Symbol {
            library: file.display().to_string(),
            symbol: "getInferLibVersion",
            since: "TensorRT 8",
            instead,
        })?
    };
    std::mem::forget(library);
    Ok(Found { file, version: Some(tensorrt_version(version)) })
}

/// TensorRT's number as text: 10 000 x major + 100 x minor + patch, in releases before 10 1000 x major.
fn tensorrt_version(number: i32) -> String {
    let major = if number >= 100_000 { 10_000 } else { 1_000 };
    format!("{}.{}.{}", number / major, number % major / 100, number % 100)
}

/// The table that ONNX Runtime's one exported function gives: `OrtApiBase` of `onnxruntime_c_api.h`.
#[repr(C)]
struct OrtApiBase {
    get_api: unsafe extern "C" fn(u32) -> *const c_void,
    get_version_string: unsafe extern "C" fn() -> *const c_char,
}

/// Opens an ONNX Runtime library and asks for its version.
///
/// # Errors
/// It cannot be opened, or it is no ONNX Runtime.
pub fn onnxruntime(path: &Path) -> Result<Found, String> {
    let (library, file) = open(path, RTLD_NOW | RTLD_LOCAL)?;
    // SAFETY: `OrtGetApiBase` of that signature is what makes a library ONNX Runtime's C API; the table and the text are
    // static in it.
    let version = unsafe {
        let symbol = library.get::<unsafe extern "C" fn() -> *const OrtApiBase>(b"OrtGetApiBase\0");
        let base = symbol.map_err(|_| "it has no 'OrtGetApiBase': it is no ONNX Runtime".to_owned())?();
        let text = base.as_ref().map(|base| (base.get_version_string)()).filter(|text| !text.is_null());
        text.map(|text| CStr::from_ptr(text).to_string_lossy().into_owned())
    };
    std::mem::forget(library);
    Ok(Found { file, version })
}

/// Finds a provider beside an ONNX Runtime library, with every library that it needs. It is not opened: its
/// initializers call back into ONNX Runtime, and without one they break the process down.
///
/// # Errors
/// The first library that the system's loader does not find for it.
pub fn onnxruntime_provider(folder: &Path, provider: &str) -> Result<Found, String> {
    let file = folder.join(format!("libonnxruntime_providers_{provider}.so"));
    for file in [&folder.join("libonnxruntime_providers_shared.so"), &file] {
        if let Some(missing) = not_found(file)? {
            return Err(format!("{missing}: cannot open shared object file: No such file or directory"));
        }
    }
    Ok(Found { file, version: None })
}

/// The first library that the system's loader does not find for `library`, of those that it and they name.
fn not_found(library: &Path) -> Result<Option<String>, String> {
    if !library.exists() {
        return Ok(Some(library.display().to_string()));
    }
    let maps = std::fs::read_to_string("/proc/self/maps").map_err(|e| format!("/proc/self/maps: {e}"))?;
    let loader = maps.lines().filter_map(|line| line.find('/').map(|at| &line[at..]));
    let loader = loader.into_iter().find(|path| path.rsplit('/').next().is_some_and(|name| name.starts_with("ld-")));
    let loader = loader.ok_or("this process has no loader in its memory map")?;
    // ld.so(8): --list prints what a program or library would be given, and runs nothing of it
    let listed = std::process::Command::new(loader).arg("--list").arg(library).output();
    let listed = listed.map_err(|e| format!("{loader} --list: {e}"))?;
    let text = String::from_utf8_lossy(&listed.stdout).into_owned() + &String::from_utf8_lossy(&listed.stderr);
    let lacks = |line: &str| line.trim().strip_suffix("=> not found").map(|name| name.trim().to_owned());
    let missing = text.lines().find_map(lacks);
    if missing.is_none() && !listed.status.success() {
        return Err(format!("{}: {}", library.display(), text.trim()));
    }
    Ok(missing)
}

/// A version of CUDA as text, from the driver's number.
pub fn cuda_version(number: u32) -> String {
    format!("{}.{}", number / 1000, number % 1000 / 10)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn versions_read_as_their_makers_write_them() {
        // NvInferVersion.h of TensorRT 8.6.1, 10.3.0 and 10.13.2, and CUDA's 12.4 and 13.0
        assert_eq!([8601, 100_300, 101_302].map(tensorrt_version), ["8.6.1", "10.3.0", "10.13.2"]);
        assert_eq!([12_040, 13_000].map(cuda_version), ["12.4", "13.0"]);
    }

    #[test]
    fn a_library_that_every_process_has_is_found_in_its_file() {
        let (_, file) = first_of(&["libno-such-thing.so.1", "libc.so.6"]).unwrap();
        assert!(file.is_absolute() && file.exists(), "{}", file.display());
        assert!(file.file_name().unwrap().to_str().unwrap().starts_with("libc.so"));
        assert!(first_of(&["libno-such-thing.so.1"]).unwrap_err().contains("libno-such-thing.so.1"));
    }

    #[test]
    fn what_is_no_onnx_runtime_is_refused() {
        assert!(onnxruntime(Path::new("libc.so.6")).unwrap_err().contains("OrtGetApiBase"));
        assert!(cuda_library("libc").is_err());
    }
}
