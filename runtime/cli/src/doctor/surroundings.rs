//! What the kernel and the environment say of a GPU, without opening a library.

use super::check::{Check, Need};
use std::path::Path;

const KERNEL_DRIVER: &str = "/proc/driver/nvidia/version";
/// The variable that says where MPS has its pipes.
const MPS_FOLDER: &str = "CUDA_MPS_PIPE_DIRECTORY";

pub(super) fn checks() -> Vec<Check> {
    let text = std::fs::read_to_string(KERNEL_DRIVER).ok();
    let variable = |name: &str| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
    let exists = |path: &&str| Path::new(path).exists();
    // one that has the device was given it in another way than by variables
    let without = ["/.dockerenv", "/run/.containerenv"].iter().any(exists) && !exists(&"/dev/nvidiactl");
    vec![
        kernel_driver(text.as_deref()),
        visible(variable("CUDA_VISIBLE_DEVICES").as_deref()),
        container(
            without,
            variable("NVIDIA_VISIBLE_DEVICES").as_deref(),
            variable("NVIDIA_DRIVER_CAPABILITIES").as_deref(),
        ),
        mps(Path::new(&variable(MPS_FOLDER).unwrap_or_else(|| "/tmp/nvidia-mps".to_owned()))),
    ]
}

/// The version in the kernel driver's own words: the first word of digits and dots.
pub(super) fn kernel_version(text: &str) -> Option<&str> {
    let is_version = |word: &&str| {
        word.contains('.') && word.chars().all(|c| c.is_ascii_digit() || c == '.') && !word.starts_with('.')
    };
    text.lines().next()?.split_whitespace().find(is_version)
}

/// The version of the kernel driver that runs, where this system shows it.
pub(super) fn running_kernel_driver() -> Option<String> {
    kernel_version(&std::fs::read_to_string(KERNEL_DRIVER).ok()?).map(str::to_owned)
}

fn kernel_driver(text: Option<&str>) -> Check {
    const NAME: &str = "kernel driver";
    match text.map(kernel_version) {
        Some(Some(version)) => Check::ok(NAME, Need::Option, format!("NVIDIA {version}")),
        Some(None) => Check::warn(NAME, Need::Option, format!("{KERNEL_DRIVER} names no version"), "see `nvidia-smi`"),
        None => Check::warn(
            NAME,
            Need::Option,
            format!("there is no {KERNEL_DRIVER}: no NVIDIA driver is loaded, or this container does not show it"),
            "install NVIDIA's driver on the host where it has an NVIDIA GPU; graphs on the CPU need none",
        ),
    }
}

fn visible(devices: Option<&str>) -> Check {
    const NAME: &str = "CUDA_VISIBLE_DEVICES";
    match devices.map(str::trim) {
        None => Check::ok(NAME, Need::Option, "not set: all GPUs are seen"),
        Some(hides) if hides.is_empty() || hides.starts_with('-') => {
            Check::warn(NAME, Need::Option, format!("'{hides}' hides every GPU"), "unset it, or name a GPU")
        }
        Some(devices) => Check::ok(NAME, Need::Option, devices),
    }
}

fn container(without: bool, devices: Option<&str>, capabilities: Option<&str>) -> Check {
    const NAME: &str = "container";
    const RUN: &str = "start the container with --gpus all -e NVIDIA_DRIVER_CAPABILITIES=compute,video,utility";
    let has = |list: &str, wanted: &str| list.split(',').any(|have| have.trim() == wanted || have.trim() == "all");
    match (devices, capabilities) {
        (_, Some(list)) if !list.is_empty() && (!has(list, "video") || !has(list, "compute")) => {
            let lacks: Vec<&str> = ["compute", "video"].into_iter().filter(|wanted| !has(list, wanted)).collect();
            let value = format!("NVIDIA_DRIVER_CAPABILITIES is '{list}' and lacks {}", lacks.join(" and "));
            Check::warn(
                NAME,
                Need::Option,
                value,
                format!("without 'video' there is no NVDEC, without 'compute' no CUDA; {RUN}"),
            )
        }
        (Some("none" | "void" | ""), _) => {
            Check::warn(NAME, Need::Option, "NVIDIA_VISIBLE_DEVICES gives this container no GPU", RUN)
        }
        (Some(_), None | Some("")) => {
            Check::warn(NAME, Need::Option, "NVIDIA_DRIVER_CAPABILITIES is not set: NVDEC's library stays outside", RUN)
        }
        (_, Some(list)) => Check::ok(NAME, Need::Option, format!("NVIDIA_DRIVER_CAPABILITIES is '{list}'")),
        (None, None) if without => {
            Check::warn(NAME, Need::Option, "a container without /dev/nvidiactl: it was given no GPU", RUN)
        }
        (None, None) => Check::ok(NAME, Need::Option, "none that this system shows"),
    }
}

/// Whether CUDA's Multi-Process Service serves the processes that are started here.
fn mps(folder: &Path) -> Check {
    const NAME: &str = "CUDA MPS";
    let shown = folder.display();
    let is_there = |file: &str| folder.join(file).exists();
    // its own words of who it is; one that was killed leaves the file
    let pid = std::fs::read_to_string(folder.join("nvidia-cuda-mps-control.pid")).ok();
    let lives = |pid: &String| pid.trim().parse::<u32>().is_ok_and(|pid| Path::new(&format!("/proc/{pid}")).exists());
    match pid {
        Some(pid) if lives(&pid) => {
            Check::ok(NAME, Need::Option, format!("runs as process {}, with its pipes in {shown}", pid.trim()))
        }
        None if is_there("control") => {
            Check::ok(NAME, Need::Option, format!("its pipes are in {shown}: it seems to run"))
        }
        left => {
            let left = if left.is_some() { ", although it has left files there" } else { "" };
            Check::warn(
                NAME,
                Need::Option,
                format!(
                    "does not run in {shown}{left}: processes take turns on a GPU, and a frame waits for each turn"
                ),
                "give the GPU's nodes of a graph one process (PROCESS), or start `nvidia-cuda-mps-control -d` before the graph: a \
                 hand-over between two processes takes 142 us on an H200, and 47 us with MPS",
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::CheckOutcome;
    use super::*;

    #[test]
    fn the_kernel_drivers_words() {
        let open = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.159.04  Release Build  (dvs@x)\nGCC version: gcc 12.2.0";
        let closed = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023";
        assert_eq!([open, closed].map(kernel_version), [Some("580.159.04"), Some("535.104.05")]);
        assert_eq!(["", "NVRM version: none"].map(kernel_version), [None, None]);
    }

    #[test]
    fn a_container_without_video_is_told() {
        let status = |devices, capabilities| container(true, devices, capabilities).status;
        assert_eq!(status(Some("all"), Some("compute,video,utility")), CheckOutcome::Ok);
        assert_eq!(status(Some("0"), Some("all")), CheckOutcome::Ok);
        assert_eq!(status(Some("all"), Some("compute,utility")), CheckOutcome::Warn);
        assert!(container(true, Some("all"), Some("compute,utility")).value.ends_with("lacks video"));
        assert!(container(true, None, Some("graphics")).value.ends_with("lacks compute and video"));
        assert_eq!(status(Some("all"), None), CheckOutcome::Warn);
        assert_eq!(status(Some("none"), None), CheckOutcome::Warn);
        assert_eq!(status(None, None), CheckOutcome::Warn);
        assert_eq!(container(false, None, None).status, CheckOutcome::Ok);
    }

    #[test]
    fn mps_is_seen_by_its_pipes_and_its_process() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let write = |file: &str, text: &str| std::fs::write(folder.path().join(file), text).expect("it is ours");
        let found = || mps(folder.path());
        assert_eq!((found().status, mps(Path::new("/nowhere")).status), (CheckOutcome::Warn, CheckOutcome::Warn));
        write("control", "");
        assert_eq!(found().status, CheckOutcome::Ok);
        write("nvidia-cuda-mps-control.pid", &std::process::id().to_string());
        assert!(found().value.contains(&format!("process {}", std::process::id())));
        write("nvidia-cuda-mps-control.pid", "4194304999");
        assert!(found().status == CheckOutcome::Warn && found().value.contains("has left files"));
    }

    #[test]
    fn hidden_gpus_are_told() {
        let status = |devices| visible(devices).status;
        let all = [None, Some("0"), Some(""), Some("-1")].map(status);
        assert_eq!(all, [CheckOutcome::Ok, CheckOutcome::Ok, CheckOutcome::Warn, CheckOutcome::Warn]);
    }
}
