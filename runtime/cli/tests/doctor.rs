//! `millrace doctor` from outside: on a machine without a GPU, with libraries that crash and hang, and with a driver that
//! is a stand-in.

#![allow(clippy::unwrap_used)]

use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

/// Variables that decide what is found: a test sets its own.
const VARIABLES: [&str; 5] = [
    "CUDA_VISIBLE_DEVICES",
    "NVIDIA_VISIBLE_DEVICES",
    "NVIDIA_DRIVER_CAPABILITIES",
    "ORT_DYLIB_PATH",
    "LD_LIBRARY_PATH",
];

struct Doctor {
    command: Command,
}

impl Doctor {
    /// With a dora on PATH, so that nothing of this machine's set-up counts.
    fn new(args: &[&str]) -> Self {
        let fake = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fake");
        let path = std::env::var_os("PATH").unwrap();
        let path = std::env::join_paths(std::iter::once(fake).chain(std::env::split_paths(&path))).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_millrace"));
        command.arg("doctor").args(args).env("PATH", path);
        for variable in VARIABLES {
            command.env_remove(variable);
        }
        Self { command }
    }

    fn with(mut self, key: &str, value: impl AsRef<std::ffi::OsStr>) -> Self {
        self.command.env(key, value);
        self
    }

    fn output(mut self) -> Output {
        self.command.output().unwrap()
    }

    /// The JSON report's lines by name, and the report.
    fn report(self) -> (BTreeMap<String, Value>, Value) {
        let output = self.output();
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let checks = report["checks"].as_array().unwrap().iter();
        (checks.map(|c| (c["name"].as_str().unwrap().to_owned(), c.clone())).collect(), report)
    }
}

/// A machine with a driver is another test's: this file's lines about missing libraries do not hold there.
fn has_driver() -> bool {
    let known = Command::new("sh").args(["-c", "ldconfig -p 2>/dev/null || /sbin/ldconfig -p"]).output();
    Path::new("/proc/driver/nvidia/version").exists()
        || known.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains("libcuda.so.1"))
}

/// A library of this name made from C, in a folder of its own.
fn library(name: &str, code: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("library.c");
    std::fs::write(&source, code).unwrap();
    let made = Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .arg(folder.path().join(name))
        .arg(&source)
        .status()
        .unwrap();
    assert!(made.success());
    folder
}

/// Everything that is reported on a machine without a GPU: always one line for each.
const LINES: [&str; 30] = [
    "cores",
    "memory",
    "/dev/shm",
    "memfd",
    "open files",
    "locked memory",
    "ptrace",
    "dora",
    "kernel driver",
    "CUDA_VISIBLE_DEVICES",
    "container",
    "CUDA MPS",
    "driver",
    "gpu",
    "libnvcuvid",
    "nvdec",
    "ipc memory",
    "ipc events",
    "memory by descriptor",
    "onnxruntime",
    "onnxruntime cuda",
    "onnxruntime tensorrt",
    "libcudart",
    "libcublas",
    "libcublasLt",
    "libcurand",
    "libcufft",
    "libcudnn",
    "libnvrtc",
    "tensorrt",
];

#[test]
fn a_machine_without_a_gpu_is_fine_for_graphs_on_the_cpu_and_is_told_what_is_missing() {
    if has_driver() {
        return millrace_needs::skip_without("no_gpu", "a driver is installed");
    }
    let output = Doctor::new(&[]).output();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    assert!(text.starts_with("CPU graphs  ok\nGPU graphs  missing: "), "{text}");
    for name in LINES {
        let of = |line: &&str| line.get(8..).is_some_and(|rest| rest.starts_with(&format!("{name} ")));
        let line = text.lines().find(of).unwrap_or_else(|| panic!("no line of '{name}' in:\n{text}"));
        assert!(["ok      ", "warn    ", "missing "].contains(&&line[..8]), "{line}");
        // what is missing is said, and what to do
        assert!(!line.starts_with("missing") || line.contains("; "), "{line}");
    }
    for (name, what, instead) in [
        ("driver", "libcuda.so.1 cannot be opened: libcuda.so.1: cannot open shared object file", "sw-nv12"),
        ("libnvcuvid", "libnvcuvid.so.1 cannot be opened", "sw-nv12"),
        ("tensorrt", "libnvinfer.so.8 cannot be opened", "ort-infer"),
        ("ipc memory", "libcuda.so.1 cannot be opened", "CPU nodes"),
    ] {
        let line = text.lines().find(|line| line.starts_with(&format!("missing {name} "))).unwrap();
        assert!(line.contains(what) && line.contains(instead), "{line}");
    }
    // asked for a GPU, it fails
    let output = Doctor::new(&["--gpu"]).output();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout).unwrap();
    let result = text.lines().nth(1).unwrap();
    assert!(result.starts_with("GPU graphs  missing: driver, gpu, libnvcuvid"), "{result}");
    assert!(result.contains("ipc memory or memory by descriptor"), "{result}");
}

#[test]
fn the_json_is_whole() {
    let (checks, report) = Doctor::new(&["--json"]).report();
    assert!(report["cpu"]["ok"].as_bool().unwrap());
    assert!(report["gpu"]["missing"].is_array() && report["version"].is_string());
    let has = |name: &str| checks.keys().any(|k| k == name || k.starts_with(&format!("{name} ")));
    let lacks: Vec<_> = LINES.iter().filter(|name| !has(name)).collect();
    assert!(lacks.is_empty(), "{lacks:?}");
    for (name, check) in &checks {
        let status = check["status"].as_str().unwrap();
        assert!(["ok", "warn", "missing"].contains(&status), "{name}");
        assert!(["cpu", "gpu", "gpu-memory", "gpu-detector", "option"].contains(&check["need"].as_str().unwrap()));
        assert!(check["value"].as_str().is_some_and(|value| !value.is_empty()), "{name}");
        assert_eq!(check["mend"].is_string(), status != "ok", "{name}: what to do goes with what is not ok");
    }
}

#[test]
fn a_driver_that_crashes_or_hangs_is_a_line() {
    let crash = "__attribute__((constructor)) static void f(void) { *(volatile int *)0 = 1; }";
    let hang = "#include <unistd.h>\n__attribute__((constructor)) static void f(void) { for (;;) pause(); }";
    let report = |code: &str| {
        let folder = library("libcuda.so.1", code);
        let start = Instant::now();
        let found = Doctor::new(&["--json", "--time-limit", "500ms"]).with("LD_LIBRARY_PATH", folder.path()).report();
        (found.0, found.1, start.elapsed())
    };
    let (checks, report_of, _) = report(crash);
    for name in ["driver", "gpu", "ipc memory", "ipc events", "memory by descriptor"] {
        assert_eq!(checks[name]["status"], "missing", "{name}");
        assert!(checks[name]["value"].as_str().unwrap().contains("signal: 11"), "{}", checks[name]);
    }
    assert_eq!(report_of["cpu"]["ok"], true, "graphs on the CPU are not concerned");
    let (checks, _, took) = report(hang);
    for name in ["driver", "gpu", "ipc memory"] {
        assert!(checks[name]["value"].as_str().unwrap().contains("did not answer within 0.5 s"), "{}", checks[name]);
    }
    assert!(took < Duration::from_secs(20), "{took:?}");
}

#[test]
fn what_a_library_prints_does_not_harm_the_report() {
    let code = "#include <stdio.h>\n__attribute__((constructor)) static void f(void)\
                { puts(\"{\\\"hello\\\": 1}\\nhello\"); fflush(stdout); }";
    let folder = library("libcuda.so.1", code);
    let (checks, _) = Doctor::new(&["--json"]).with("LD_LIBRARY_PATH", folder.path()).report();
    let value = checks["driver"]["value"].as_str().unwrap();
    assert!(value.contains("has no 'cuInit'"), "{value}");
    assert!(checks["driver"]["mend"].as_str().unwrap().contains("525"));
}

#[test]
fn onnx_runtime_is_asked_for_its_version_and_its_providers() {
    let code = |version: &str| {
        format!(
            "static const char *v(void) {{ return \"{version}\"; }}\n\
             static const void *api(unsigned n) {{ return 0; }}\n\
             static struct {{ const void *(*get)(unsigned); const char *(*version)(void); }} base = {{ api, v }};\n\
             const void *OrtGetApiBase(void) {{ return &base; }}"
        )
    };
    let name = "libonnxruntime.so.1.99.0";
    let report = |folder: &Path| Doctor::new(&["--json"]).with("ORT_DYLIB_PATH", folder.join(name)).report().0;

    let new = library(name, &code("1.99.0"));
    let checks = report(new.path());
    assert_eq!(checks["onnxruntime"]["status"], "ok", "{}", checks["onnxruntime"]);
    assert!(checks["onnxruntime"]["value"].as_str().unwrap().starts_with("1.99.0 at /"));
    assert!(checks["onnxruntime cuda"]["value"].as_str().unwrap().contains("a build for the CPU"));

    // a provider that needs a library which is nowhere
    let put = |from: &tempfile::TempDir, name: &str| {
        std::fs::copy(from.path().join(name), new.path().join(name)).unwrap();
    };
    let shared = "libonnxruntime_providers_shared.so";
    put(&library(shared, "int shared_by_providers(void) { return 1; }"), shared);
    let cuda = "libonnxruntime_providers_cuda.so";
    let needed = library("libmillrace-no-such.so.7", "int absent(void) { return 1; }");
    let made = Command::new("cc")
        .args(["-shared", "-fPIC", "-Wl,--no-as-needed", "-o"])
        .args([new.path().join(cuda), needed.path().join("libmillrace-no-such.so.7")])
        .status();
    assert!(made.unwrap().success());
    drop(needed);
    let checks = report(new.path());
    let value = checks["onnxruntime cuda"]["value"].as_str().unwrap();
    assert!(value.contains("libmillrace-no-such.so.7"), "{value}");

    // one whose initializer calls back into an ONNX Runtime that is not there: it is looked at, not opened
    let code_of_provider = "__attribute__((constructor)) static void begin(void) { *(volatile int *)0 = 1; }";
    put(&library(cuda, code_of_provider), cuda);
    let checks = report(new.path());
    assert_eq!(checks["onnxruntime cuda"]["status"], "ok", "{}", checks["onnxruntime cuda"]);

    let old = library(name, &code("1.20.1"));
    let checks = report(old.path());
    assert_eq!(checks["onnxruntime"]["status"], "missing");
    assert!(checks["onnxruntime"]["mend"].as_str().unwrap().contains("1.24"));

    let checks = Doctor::new(&["--json"]).with("ORT_DYLIB_PATH", "/no/such/libonnxruntime.so").report().0;
    assert!(checks["onnxruntime"]["value"].as_str().unwrap().contains("ORT_DYLIB_PATH is '/no/such/"));
    assert_eq!(checks["onnxruntime cuda"]["status"], "missing");
}

#[test]
fn tensorrt_is_asked_for_its_version() {
    let folder = library("libnvinfer.so.10", "int getInferLibVersion(void) { return 101302; }");
    let (checks, _) = Doctor::new(&["--json"]).with("LD_LIBRARY_PATH", folder.path()).report();
    assert!(checks["tensorrt"]["value"].as_str().unwrap().starts_with("10.13.2 at /"), "{}", checks["tensorrt"]);
}

#[test]
fn a_container_that_hides_the_decoder_is_told() {
    let doctor = Doctor::new(&["--json"])
        .with("NVIDIA_VISIBLE_DEVICES", "all")
        .with("NVIDIA_DRIVER_CAPABILITIES", "compute,utility")
        .with("CUDA_VISIBLE_DEVICES", "");
    let (checks, _) = doctor.report();
    assert!(checks["container"]["value"].as_str().unwrap().contains("lacks video"));
    assert_eq!(checks["CUDA_VISIBLE_DEVICES"]["status"], "warn");
}

#[test]
fn sharing_is_tried_with_another_process() {
    let folder = millrace_cuda_driver_folder::folder();
    let report = |no_ipc: &str| {
        let doctor = Doctor::new(&["--json"]).with("LD_LIBRARY_PATH", &folder);
        doctor.with("MILLRACE_FAKE_CUDA_NO_IPC", no_ipc).report()
    };
    let (checks, found) = report("0");
    for name in ["driver", "gpu 0", "ipc memory", "ipc events", "memory by descriptor"] {
        assert_eq!(checks[name]["status"], "ok", "{}", checks[name]);
    }
    assert!(checks["gpu 0"]["value"].as_str().unwrap().contains("stand-in"), "{}", checks["gpu 0"]);
    assert!(checks["ipc memory"]["value"].as_str().unwrap().contains("were read right"));
    assert!(found["gpu"]["missing"].as_array().unwrap().contains(&"libnvcuvid".into()), "it decodes nothing");

    let (checks, found) = report("1");
    assert_eq!(checks["ipc memory"]["status"], "missing", "{}", checks["ipc memory"]);
    assert!(checks["ipc memory"]["value"].as_str().unwrap().contains("cuIpcGetMemHandle"));
    assert!(checks["ipc memory"]["value"].as_str().unwrap().contains("801"));
    assert_eq!(checks["memory by descriptor"]["status"], "ok");
    let missing = found["gpu"]["missing"].to_string();
    assert!(!missing.contains("ipc memory"), "descriptors are enough: {missing}");
}
