#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;
use std::process::Command;

/// What the environment of this run requires exists, also if no test is skipped.
#[test]
fn the_required_names_exist() {
    let value = |variable| std::env::var(variable).unwrap_or_default();
    required(&value(REQUIRE), &value(CI)).unwrap();
}

#[test]
fn ci_requires_what_it_installs_and_an_unknown_name_is_an_error() {
    let of = |require, ci| required(require, ci).map(|names| names.into_iter().collect::<Vec<_>>());
    assert_eq!(of("", ""), Ok(vec![]));
    assert_eq!(of(" root, data,", "0"), Ok(vec!["data".to_owned(), "root".to_owned()]));
    let ci = of("data", "1").unwrap();
    assert!(["chromium", "gstreamer", "onnxruntime", "tensorrt_rtx", "data"].iter().all(|n| ci.iter().any(|c| c == n)));
    assert!(!ci.contains(&"root".to_owned()), "CI cannot install the rights of root");
    let error = of("chromuim", "").unwrap_err();
    assert!(error.contains("'chromuim'") && error.contains("chromium, compiler, data"), "{error}");
}

const CHILD: &str = "MILLRACE_TEST_SKIPS";

#[test]
fn child_that_skips() {
    if std::env::var_os(CHILD).is_some() {
        skip_without("stand_in", "this is a test of skipping");
    }
}

/// In a process of its own, since it is about the environment: in Rust and in Python, the same.
#[test]
fn a_skip_without_a_required_name_fails() {
    let python = "import sys; sys.path.insert(0, sys.argv[1]); import needs; needs.skip_without('stand_in', 'a test of skipping')";
    for (require, ci, passes, says) in [
        ("", "", true, "skipped: without stand_in"),
        ("data", "1", true, "skipped: without stand_in"),
        ("stand_in", "", false, "'stand_in' is required"),
        ("stand-in", "", false, "'stand-in'"),
    ] {
        let mut rust = Command::new(std::env::current_exe().unwrap());
        rust.args(["--exact", "tests::child_that_skips", "--nocapture"]).env(CHILD, "1");
        let mut script = Command::new("python3");
        script.args(["-c", python, env!("CARGO_MANIFEST_DIR")]);
        for mut command in [rust, script] {
            let record = std::env::temp_dir().join(format!("millrace-skipped-{}", std::process::id()));
            let output = command.env(REQUIRE, require).env(CI, ci).env(RECORD, &record).output().unwrap();
            let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success() == passes && text.contains(says), "{require} {ci}: {text}");
            let lines = std::fs::read_to_string(&record).unwrap_or_default();
            let _ = std::fs::remove_file(&record);
            assert_eq!(
                lines.lines().filter(|line| line.contains("\tstand_in\t")).count(),
                usize::from(passes),
                "{lines}"
            );
        }
    }
}

/// Every source file of ours in Rust and Python.
fn sources() -> Vec<PathBuf> {
    let (mut found, mut folders) =
        (Vec::new(), ["nodes", "runtime", "kernels", "tests"].map(|name| root().join(name)).to_vec());
    while let Some(folder) = folders.pop() {
        for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() && !path.ends_with("tests/needs") && !path.ends_with("target") {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs" || extension == "py") {
                found.push(path);
            }
        }
    }
    found
}

#[test]
fn every_skip_names_what_it_needs_and_every_name_is_in_use() {
    let mut used: BTreeSet<String> = ["data", "onnxruntime", "tensorrt_rtx"].map(str::to_owned).into();
    for path in sources() {
        let text = std::fs::read_to_string(&path).unwrap();
        let calls = text.split("skip_without(\"").skip(1).map(|rest| rest.split('"').next().unwrap().to_owned());
        let calls: Vec<String> = calls.collect();
        // unittest and the exit code 77 are other ways to pass without a test
        let otherwise = ["SkipTest", "skipUnless", "skipIf", "exit(77)"].iter().any(|way| text.contains(way));
        assert!(!otherwise || !calls.is_empty(), "{} skips and does not call skip_without", path.display());
        assert!(!text.contains("\"skipped: "), "{} has to call skip_without", path.display());
        used.extend(calls);
    }
    assert_eq!(used, names().map(|(name, _)| name.to_owned()).collect(), "the names of tests/needs/README.md");
}
