//! The checks that have a process of their own. This side runs in that process.

use super::check::{Check, INSTEAD, Need};
use super::{onnxruntime, sharing, surroundings};
use crate::out::outln;
use millrace_cuda::libraries::{self, CUDA_LIBRARIES, Found, cuda_version};
use millrace_cuda::nvdec::{Caps, Nvdec, NvdecError, Surveyed};
use millrace_cuda::{CudaError, Gpu, device_count, driver_version};
use rustix::process::{Signal, set_parent_process_death_signal};
use std::io::Read;
use std::path::Path;
use std::process::ExitCode;

/// What one process looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Probe {
    Driver,
    Nvdec,
    IpcMemory,
    IpcEvent,
    Descriptor,
    /// The other process of the three above.
    IpcMemoryPeer,
    IpcEventPeer,
    DescriptorPeer,
    Onnxruntime,
    OrtCuda,
    OrtTensorrt,
    CudaLibraries,
    Tensorrt,
}

impl Probe {
    /// The name on the command line.
    pub(super) fn name(self) -> String {
        use clap::ValueEnum;
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// The lines that it gives in any case.
    pub(super) fn promises(self) -> &'static [(&'static str, Need)] {
        match self {
            Self::Driver => &[("driver", Need::Gpu), ("gpu", Need::Gpu)],
            Self::Nvdec => &[("libnvcuvid", Need::Gpu), ("nvdec", Need::Gpu)],
            Self::IpcMemory | Self::IpcMemoryPeer => &[("ipc memory", Need::GpuMemory)],
            Self::IpcEvent | Self::IpcEventPeer => &[("ipc events", Need::Gpu)],
            Self::Descriptor | Self::DescriptorPeer => &[("memory by descriptor", Need::GpuMemory)],
            Self::Onnxruntime => &[("onnxruntime", Need::Option)],
            Self::OrtCuda => &[("onnxruntime cuda", Need::GpuDetector)],
            Self::OrtTensorrt => &[("onnxruntime tensorrt", Need::Option)],
            Self::CudaLibraries => &[
                ("libcudart", Need::Option),
                ("libcublas", Need::Option),
                ("libcublasLt", Need::Option),
                ("libcurand", Need::Option),
                ("libcufft", Need::Option),
                ("libcudnn", Need::Option),
                ("libnvrtc", Need::Option),
            ],
            Self::Tensorrt => &[("tensorrt", Need::GpuDetector)],
        }
    }
}

/// What the kernels' PTX is built for: `kernels/ptx/build.py`.
const OLDEST_CAPABILITY: (i32, i32) = (7, 5);

fn tell(check: &Check) -> anyhow::Result<()> {
    outln!("{}", serde_json::to_string(check)?);
    Ok(())
}

/// Runs one, telling each line at once: what was found before a crash is kept.
pub(super) fn run(probe: Probe) -> anyhow::Result<ExitCode> {
    // nobody would wait for it any more
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let mut input = String::new();
    std::io::stdin().read_to_string(&mut input)?;
    match probe {
        Probe::Driver => driver()?,
        Probe::Nvdec => nvdec()?,
        Probe::IpcMemory | Probe::IpcEvent | Probe::Descriptor => {
            for check in sharing::owner(probe) {
                tell(&check)?;
            }
        }
        Probe::IpcMemoryPeer | Probe::IpcEventPeer | Probe::DescriptorPeer => tell(&sharing::peer(probe, &input))?,
        Probe::Onnxruntime => tell(&onnxruntime::library(Path::new(&input)))?,
        Probe::OrtCuda => tell(&onnxruntime::provider(Path::new(&input), onnxruntime::PROVIDERS[0]))?,
        Probe::OrtTensorrt => tell(&onnxruntime::provider(Path::new(&input), onnxruntime::PROVIDERS[1]))?,
        Probe::CudaLibraries => {
            for (name, names) in CUDA_LIBRARIES {
                tell(&cuda_library(name, names))?;
            }
        }
        Probe::Tensorrt => tell(&library("tensorrt", Need::GpuDetector, libraries::tensorrt()))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn library(name: &str, need: Need, found: Result<Found, CudaError>) -> Check {
    match found {
        Ok(Found { file, version: Some(version) }) => Check::ok(name, need, format!("{version} at {}", file.display())),
        Ok(Found { file, version: None }) => Check::ok(name, need, file.display().to_string()),
        Err(e) => Check::failed(name, need, &e),
    }
}

fn cuda_library(name: &str, names: &[&str]) -> Check {
    match libraries::cuda_library(name) {
        Ok(found) => Check::ok(name, Need::Option, found.file.display().to_string()),
        Err(_) => Check::missing(
            name,
            Need::Option,
            format!("the loader finds no {}", names.join(" and no ")),
            "ort-infer on a GPU needs it: CUDA's toolkit and cuDNN 9 bring it, or `pip install 'onnxruntime-gpu[cuda,cudnn]'` \
             with its nvidia/*/lib folders in LD_LIBRARY_PATH",
        ),
    }
}

fn driver() -> anyhow::Result<()> {
    let version = match driver_version() {
        Ok(version) => cuda_version(version),
        Err(e) => {
            tell(&Check::failed("driver", Need::Gpu, &e))?;
            let why = "no GPU can be asked for without the driver";
            return tell(&Check::missing("gpu", Need::Gpu, why, INSTEAD));
        }
    };
    let file = libraries::driver_library();
    let place = file.as_deref().map_or("a file that is not shown".to_owned(), |file| file.display().to_string());
    let value = format!("CUDA {version} by {place}");
    // libcuda.so.580.159.04 belongs to the kernel driver of that number
    let its = file.as_deref().and_then(|file| file.to_str()?.split_once(".so.").map(|(_, version)| version.to_owned()));
    let check = match (its.filter(|v| v.contains('.')), surroundings::running_kernel_driver()) {
        (Some(library), Some(kernel)) if library != kernel => Check::warn(
            "driver",
            Need::Gpu,
            value,
            format!(
                "the library is of {library} and the kernel driver of {kernel}: reboot, or install both of one version"
            ),
        ),
        _ => Check::ok("driver", Need::Gpu, value),
    };
    tell(&check)?;
    match device_count() {
        Ok(0) => tell(&Check::missing(
            "gpu",
            Need::Gpu,
            "the driver shows no GPU",
            format!("look at nvidia-smi, CUDA_VISIBLE_DEVICES and the container's devices; or {INSTEAD}"),
        )),
        Ok(count) => (0..count).try_for_each(|ordinal| tell(&gpu(ordinal))),
        Err(e) => tell(&Check::failed("gpu", Need::Gpu, &e)),
    }
}

fn gpu(ordinal: u32) -> Check {
    let name = format!("gpu {ordinal}");
    let describe = || -> Result<(String, bool), CudaError> {
        let gpu = Gpu::open(ordinal)?;
        let (major, minor) = gpu.compute_capability()?;
        let (free, total) = gpu.memory_bytes()?;
        let value = format!(
            "{}, {}, compute capability {major}.{minor}, {} of {} MiB free, PCI {}",
            gpu.name(),
            uuid(gpu.uuid()),
            free >> 20,
            total >> 20,
            gpu.pci_bus_id()?
        );
        Ok((value, (major, minor) >= OLDEST_CAPABILITY))
    };
    match describe() {
        Ok((value, true)) => Check::ok(&name, Need::Gpu, value),
        Ok((value, false)) => {
            let (major, minor) = OLDEST_CAPABILITY;
            let mend = format!("the kernels need compute capability {major}.{minor} (Turing) or newer: {INSTEAD}");
            Check::missing(&name, Need::Gpu, value, mend)
        }
        Err(e) => Check::failed(&name, Need::Gpu, &e),
    }
}

/// As `nvidia-smi -L` writes it.
fn uuid(bytes: [u8; 16]) -> String {
    let mut text = String::from("GPU-");
    for (i, byte) in bytes.iter().enumerate() {
        text.push_str(if matches!(i, 4 | 6 | 8 | 10) { "-" } else { "" });
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

fn nvdec() -> anyhow::Result<()> {
    tell(&library("libnvcuvid", Need::Gpu, libraries::nvcuvid()))?;
    let not_asked = |why: &str| tell(&Check::missing("nvdec", Need::Gpu, why, "use sw-nv12 in place of nvdec-nv12"));
    let count = match device_count() {
        Ok(0) | Err(_) => return not_asked("there is no GPU whose decoder could be asked"),
        Ok(count) => count,
    };
    let nvdec = match Nvdec::open() {
        Ok(nvdec) => nvdec,
        Err(_) => return not_asked("libnvcuvid.so.1 cannot be opened, and so no decoder can be asked"),
    };
    for ordinal in 0..count {
        let gpu = match Gpu::open(ordinal) {
            Ok(gpu) => gpu,
            Err(e) => {
                tell(&Check::failed(&format!("nvdec {ordinal}"), Need::Gpu, &e))?;
                continue;
            }
        };
        for surveyed in nvdec.survey(&gpu) {
            tell(&decoder(ordinal, surveyed))?;
        }
    }
    Ok(())
}

fn decoder(ordinal: u32, Surveyed { name, fed, caps }: Surveyed) -> Check {
    let line = format!("nvdec {ordinal} {name}");
    // cameras have these two; others are good to know
    let need = if fed && name.ends_with(" 8 bit") { Need::Gpu } else { Need::Option };
    let mend = match fed {
        true => "use sw-nv12 for such streams, where it decodes them",
        false => "no graph needs it: nvdec-nv12 decodes H.264 and H.265",
    };
    match caps {
        Ok(Caps { supported: true, engines, min_px, max_px, .. }) => {
            let value = format!("{}x{} to {}x{}, engines: {engines}", min_px.0, min_px.1, max_px.0, max_px.1);
            Check::ok(&line, need, value)
        }
        Ok(_) => Check::missing(&line, need, "this GPU does not decode it", mend),
        Err(NvdecError::Cuda(e)) => Check::failed(&line, need, &e),
        Err(e) => Check::missing(&line, need, e.to_string(), mend),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum;

    #[test]
    fn a_uuid_is_written_as_nvidia_smi_does() {
        let bytes = std::array::from_fn(|i| i as u8 * 17);
        assert_eq!(uuid(bytes), "GPU-00112233-4455-6677-8899-aabbccddeeff");
    }

    #[test]
    fn what_cameras_send_is_needed_and_what_they_do_not_is_not() {
        use super::super::check::CheckOutcome;
        let caps = |supported| Caps {
            supported,
            engines: 7,
            min_px: (48, 16),
            max_px: (4096, 4096),
            max_macroblocks: 65_536,
            nv12: true,
            p016: false,
        };
        let line = |name, fed, supported| decoder(1, Surveyed { name, fed, caps: Ok(caps(supported)) });
        let h264 = line("H.264 8 bit", true, true);
        assert_eq!((h264.name.as_str(), h264.status, h264.need), ("nvdec 1 H.264 8 bit", CheckOutcome::Ok, Need::Gpu));
        assert_eq!(h264.value, "48x16 to 4096x4096, engines: 7");
        let av1 = line("AV1 8 bit", false, false);
        assert_eq!((av1.status, av1.need), (CheckOutcome::Missing, Need::Option));
        assert_eq!(line("H.265 10 bit", true, false).need, Need::Option);
    }

    #[test]
    fn every_probe_promises_lines_and_every_library_is_promised() {
        assert!(Probe::value_variants().iter().all(|probe| !probe.promises().is_empty() && !probe.name().is_empty()));
        let promised: Vec<&str> = Probe::CudaLibraries.promises().iter().map(|(name, _)| *name).collect();
        assert_eq!(promised, CUDA_LIBRARIES.map(|(name, _)| name));
    }
}
