//! The architecture's arrows, read from `cargo metadata`: this fails when one turns.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use serde_json::Value;
use std::collections::BTreeMap;
use std::process::Command;

fn metadata() -> Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--locked"])
        .current_dir(millrace_tests::root())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// Package -> (its folder from the root, its normal and build dependencies).
fn packages() -> BTreeMap<String, (String, Vec<String>)> {
    let metadata = metadata();
    let root = metadata["workspace_root"].as_str().unwrap().to_owned();
    let packages = metadata["packages"].as_array().unwrap();
    packages
        .iter()
        .map(|p| {
            let manifest = p["manifest_path"].as_str().unwrap();
            let folder = manifest.trim_start_matches(&root).trim_matches('/').trim_end_matches("/Cargo.toml");
            let dependencies = p["dependencies"].as_array().unwrap().iter();
            let dependencies =
                dependencies.filter(|d| d["kind"] != "dev").map(|d| d["name"].as_str().unwrap().to_owned());
            (p["name"].as_str().unwrap().to_owned(), (folder.to_owned(), dependencies.collect()))
        })
        .collect()
}

#[test]
fn dependencies_run_one_way() {
    let packages = packages();
    // what each of ours may use of ours; a node may use any library, and no node
    let allowed: BTreeMap<&str, &[&str]> = BTreeMap::from([
        ("millrace-frame", &[][..]),
        ("millrace-feature-unification", &[]),
        ("millrace-cuda", &[]),
        ("millrace-graph", &[]),
        ("millrace-pool", &["millrace-frame", "millrace-cuda"]),
        ("millrace-kernels", &["millrace-frame", "millrace-cuda"]),
        ("millrace-kernels-host", &[]),
        ("millrace-ingest", &["millrace-frame"]),
        ("millrace-detect", &["millrace-frame", "millrace-kernels"]),
        ("millrace-sandbox", &[]),
        (
            "millrace-node",
            &[
                "millrace-frame",
                "millrace-cuda",
                "millrace-pool",
                "millrace-graph",
                "millrace-sandbox",
                "millrace-feature-unification",
            ],
        ),
        (
            "millrace-cameras",
            &["millrace-frame", "millrace-cuda", "millrace-graph", "millrace-ingest", "millrace-node"],
        ),
        (
            "millrace-infer",
            &["millrace-frame", "millrace-cuda", "millrace-detect", "millrace-kernels", "millrace-node"],
        ),
        ("millrace-ab", &["millrace-frame"]),
        (
            "millrace",
            &[
                "millrace-frame",
                "millrace-graph",
                "millrace-cuda",
                "millrace-ab",
                "millrace-detect",
                "millrace-sandbox",
            ],
        ),
        // nodes that can share a process are in one program: no other crate depends on a node
        (
            "millrace-stages",
            &["millrace-node", "cpu-infer", "nv12-to-rgb", "nvdec-nv12", "ort-infer", "sw-nv12", "trt-infer"],
        ),
        ("intruder", &["millrace-cameras", "millrace-frame", "millrace-ingest", "millrace-node"]),
        ("faulty-node", &["millrace-frame", "millrace-node"]),
        ("millrace-needs", &[]),
        ("millrace-tests", &["millrace-needs"]),
        ("millrace-cuda-driver", &["millrace-kernels-host"]),
        ("millrace-cuda-driver-folder", &["millrace-needs"]),
    ]);
    let libraries = [
        "millrace-frame",
        "millrace-cuda",
        "millrace-kernels",
        "millrace-ingest",
        "millrace-cameras",
        "millrace-detect",
        "millrace-node",
        "millrace-infer",
        // the record of a comparison, which its nodes write lines of
        "millrace-ab",
    ];
    for (name, (folder, dependencies)) in &packages {
        let may: &[&str] = match allowed.get(name.as_str()) {
            Some(may) => may,
            None if folder.starts_with("nodes/") => &libraries,
            None => panic!("{name} in {folder} is new: give it its place in the architecture and here"),
        };
        for dependency in dependencies.iter().filter(|d| packages.contains_key(*d)) {
            assert!(may.contains(&dependency.as_str()), "{name} must not use {dependency}");
        }
    }
}

#[test]
fn a_node_is_a_folder_a_binary_and_a_page() {
    let root = millrace_tests::root();
    for (name, (folder, _)) in packages().iter().filter(|(_, (folder, _))| folder.starts_with("nodes/")) {
        assert_eq!(folder, &format!("nodes/{name}"), "crate name = folder = binary");
        assert!(root.join(format!("docs/nodes/{name}.md")).exists(), "docs/nodes/{name}.md is missing");
        assert!(root.join(folder).join("src/main.rs").exists());
    }
}

#[test]
fn dora_is_named_by_the_harness_alone() {
    for (name, (_, dependencies)) in packages() {
        let names_dora = dependencies.iter().any(|d| d.starts_with("dora"));
        assert!(!names_dora || name == "millrace-node", "{name} depends on dora");
    }
}

#[test]
fn unsafe_code_is_where_memory_is_shared_and_libraries_are_called() {
    let root = millrace_tests::root();
    for (name, (folder, _)) in packages() {
        let manifest = std::fs::read_to_string(root.join(&folder).join("Cargo.toml")).unwrap();
        assert!(manifest.contains("[lints]\nworkspace = true"), "{name} does not inherit the workspace's lints");
        if ["millrace-pool", "millrace-cuda", "millrace-cuda-driver", "millrace-kernels-host"].contains(&name.as_str())
        {
            continue;
        }
        let mut sources = vec![root.join(&folder).join("src")];
        while let Some(path) = sources.pop() {
            if path.is_dir() {
                sources.extend(std::fs::read_dir(path).unwrap().map(|e| e.unwrap().path()));
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                // addresses of a GPU's memory, to ONNX Runtime's C interface and to kernels; copies that nobody waits for
                let of_a_gpu =
                    ["launch", "candidates", "download", "turn"].map(|name| format!("kernels/src/cuda/{name}.rs"));
                if of_a_gpu.iter().any(|of| path.ends_with(of)) || path.ends_with("nodes/ort-infer/src/device.rs") {
                    continue;
                }
                let allows = text.lines().any(|l| l.contains("allow(") && l.contains("unsafe_code"));
                assert!(!allows, "{} lifts the ban on unsafe code", path.display());
            }
        }
    }
}

/// Without a window, dora counts restarts over the whole run: a node that is killed once a month would be gone after a few.
/// Graphs for live cameras give no node up: it is tried ever more rarely.
#[test]
fn graphs_that_run_for_months_give_no_node_up() {
    let mut endless = 0;
    for entry in std::fs::read_dir(millrace_tests::root().join("graphs")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "yml") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let has = |key: &str| text.lines().filter(|line| line.trim_start().starts_with(key)).count();
        let (bounded, capped) = (has("max_restarts:"), has("max_restart_delay:"));
        assert_eq!(bounded + capped, has("restart_window:"), "{}", path.display());
        if text.contains("CAMERAS:") {
            let again = has("restart_policy: on-failure");
            assert_eq!((bounded, capped, has("restart_delay:")), (0, again, again), "{}", path.display());
            endless += again;
        }
    }
    assert!(endless > 15, "only {endless} nodes are started again for ever");
}
