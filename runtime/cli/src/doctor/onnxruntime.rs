//! ONNX Runtime as `ort-infer` finds it, and its providers.

use super::check::{Check, Need};
use std::path::{Path, PathBuf};

const NAME: &str = "libonnxruntime.so";
/// Where pip puts the library, in its target folder `tools/onnxruntime`.
const IN_TOOLS: &str = "tools/onnxruntime/onnxruntime/capi";
/// The oldest release 1.x whose C API `ort-infer` speaks.
const OLDEST_MINOR: u32 = 24;
const GET_CPU: &str = "`pip install --target target/tools/onnxruntime --no-deps onnxruntime` in the repository's root";
const GET_GPU: &str =
    "`pip install --target target/tools/onnxruntime --no-deps onnxruntime-gpu` in the repository's root";

/// Where `ort-infer` looks when no setting names the library: `ORT_DYLIB_PATH`, beside the binaries, in the tools of the
/// folders above these and above the working folder, and last by the system's loader. Its page has the same list.
pub(super) fn find() -> Result<PathBuf, String> {
    if let Some(path) = std::env::var_os("ORT_DYLIB_PATH").filter(|v| !v.is_empty()).map(PathBuf::from) {
        return std::fs::canonicalize(&path)
            .map_err(|e| format!("ORT_DYLIB_PATH is '{}', which cannot be opened: {e}", path.display()));
    }
    let mut folders = Vec::new();
    if let Some(beside) = std::env::current_exe().ok().as_deref().and_then(Path::parent) {
        folders.push(beside.to_owned());
        folders.extend(beside.ancestors().skip(1).take(3).map(|above| above.join(IN_TOOLS)));
    }
    let working = std::env::current_dir().unwrap_or_default();
    folders.extend(working.ancestors().take(4).map(|above| above.join("target").join(IN_TOOLS)));
    // the bare name leaves it to the system's loader
    Ok(folders.iter().find_map(|folder| in_folder(folder)).unwrap_or_else(|| PathBuf::from(NAME)))
}

/// The library in `folder`: the plain name, else the highest version by name.
fn in_folder(folder: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(folder).ok()?.filter_map(Result::ok).map(|entry| entry.path());
    let is_it = |path: &PathBuf| {
        let rest = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_prefix(NAME));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    let mut found: Vec<PathBuf> = entries.filter(is_it).collect();
    found.sort();
    // the plain name sorts first
    match found.first() {
        Some(first) if first.ends_with(NAME) => Some(first.clone()),
        _ => found.pop(),
    }
}

/// The lines when there is no library to ask.
pub(super) fn without(why: &str) -> Vec<Check> {
    let mut checks = vec![Check::missing("onnxruntime", Need::Option, why, format!("{GET_CPU}, or use cpu-infer"))];
    for (name, need, _) in PROVIDERS {
        let mend = format!("{GET_GPU}, or use trt-infer, or cpu-infer on the CPU");
        checks.push(Check::missing(name, need, "there is no ONNX Runtime that could have it", mend));
    }
    checks
}

/// The providers for a GPU: the line, who needs it, and what is in the file's name.
pub(super) const PROVIDERS: [(&str, Need, &str); 2] =
    [("onnxruntime cuda", Need::GpuDetector, "cuda"), ("onnxruntime tensorrt", Need::Option, "tensorrt")];

/// Opens the library and asks for its version.
pub(super) fn library(path: &Path) -> Check {
    const LINE: &str = "onnxruntime";
    match millrace_cuda::libraries::onnxruntime(path) {
        Err(why) => Check::missing(
            LINE,
            Need::Option,
            why,
            format!("ort-infer needs it: {GET_CPU}; or use cpu-infer, which needs no library"),
        ),
        Ok(found) => {
            let version = found.version.unwrap_or_default();
            let value = format!("{version} at {}", found.file.display());
            if minor(&version).is_some_and(|minor| minor >= OLDEST_MINOR) {
                Check::ok(LINE, Need::Option, value)
            } else {
                let mend = format!("ort-infer needs 1.{OLDEST_MINOR} or newer: {GET_CPU}");
                Check::missing(LINE, Need::Option, value, mend)
            }
        }
    }
}

/// The minor version of a release 1.x; a later major is newer than any.
fn minor(version: &str) -> Option<u32> {
    let mut parts = version.split('.');
    match (parts.next()?.parse::<u32>().ok()?, parts.next()?.parse().ok()?) {
        (0, _) => None,
        (1, minor) => Some(minor),
        _ => Some(u32::MAX),
    }
}

/// Opens a provider as ONNX Runtime would.
pub(super) fn provider(library: &Path, (name, need, provider): (&str, Need, &str)) -> Check {
    // a bare name was left to the loader, which alone knows where it found the file
    let library = match library.is_absolute() {
        true => library.to_owned(),
        false => match millrace_cuda::libraries::onnxruntime(library) {
            Ok(found) => found.file,
            Err(why) => return Check::missing(name, need, format!("there is no ONNX Runtime: {why}"), GET_GPU),
        },
    };
    let folder = library.parent().unwrap_or(Path::new("/"));
    if !folder.join(format!("libonnxruntime_providers_{provider}.so")).exists() {
        return Check::missing(
            name,
            need,
            format!(
                "there is no libonnxruntime_providers_{provider}.so in {}: it is a build for the CPU",
                folder.display()
            ),
            format!("{GET_GPU}, or use trt-infer, or cpu-infer on the CPU"),
        );
    }
    match millrace_cuda::libraries::onnxruntime_provider(folder, provider) {
        Ok(found) => Check::ok(name, need, format!("{} opens", found.file.display())),
        Err(why) => {
            let mend = match provider {
                "tensorrt" => "install NVIDIA's TensorRT and cuDNN 9, or leave the TensorRT provider",
                _ => {
                    "`pip install --target target/tools/onnxruntime 'onnxruntime-gpu[cuda,cudnn]'` brings CUDA's libraries; \
                     then put the lib folders below target/tools/onnxruntime/nvidia into LD_LIBRARY_PATH"
                }
            };
            Check::missing(name, need, format!("it does not open: {why}"), mend)
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_plain_name_comes_first_and_then_the_highest_version() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| std::fs::write(folder.path().join(name), "").unwrap();
        let found = || in_folder(folder.path()).map(|path| path.file_name().unwrap().to_str().unwrap().to_owned());
        file("libonnxruntime_providers_cuda.so");
        file("libonnxruntime.sox");
        assert_eq!(found(), None);
        file("libonnxruntime.so.1.24.0");
        file("libonnxruntime.so.1.31.1");
        assert_eq!(found().unwrap(), "libonnxruntime.so.1.31.1");
        file("libonnxruntime.so");
        assert_eq!(found().unwrap(), "libonnxruntime.so");
    }

    #[test]
    fn releases() {
        let known = ["1.24.0", "1.9.1", "2.0.0", "0.5", "x", ""].map(minor);
        assert_eq!(known, [Some(24), Some(9), Some(u32::MAX), None, None, None]);
    }
}
