//! Names of files that people have: each plays as `SOURCE` and is written as `PATH`, by `--set` and by YAML, word for word.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use millrace_tests::{finish, millrace, printed, program, root};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(120);
/// Frames of each.
const FRAMES: usize = 3;
/// Cameras of a graph: each is two processes.
const TOGETHER: usize = 8;

/// The list holds names as escaped text: `\n`, `\xe9` and `\u0301` are characters, and `\udcNN` is the byte NN, which is
/// not UTF-8.
fn name(escaped: &str) -> OsString {
    let mut bytes = Vec::new();
    let mut rest = escaped;
    let hex = |digits: &str| u32::from_str_radix(digits, 16).unwrap();
    while let Some(c) = rest.chars().next() {
        let (value, length) = match (c, rest.as_bytes().get(1)) {
            ('\\', Some(b'n')) => (u32::from('\n'), 2),
            ('\\', Some(b'\\')) => (u32::from('\\'), 2),
            ('\\', Some(b'x')) => (hex(&rest[2..4]), 4),
            ('\\', Some(b'u')) => (hex(&rest[2..6]), 6),
            _ => (u32::from(c), c.len_utf8()),
        };
        match char::from_u32(value) {
            Some(c) => bytes.extend(c.encode_utf8(&mut [0; 4]).bytes()),
            None => bytes.push(value as u8),
        }
        rest = &rest[length..];
    }
    OsString::from_vec(bytes)
}

fn names() -> Vec<OsString> {
    let text = std::fs::read_to_string(root().join("tests/data/names.json")).unwrap();
    let list: Vec<String> = serde_json::from_str(&text).unwrap();
    assert_eq!(list.len(), 37);
    list.iter().map(|escaped| name(escaped)).collect()
}

/// A folder in which each name is the demo clip, by a link of its own; and the names.
fn folder() -> (tempfile::TempDir, Vec<OsString>) {
    let folder = tempfile::tempdir().unwrap();
    let clip = folder.path().join("the clip");
    std::fs::copy(root().join("tests/data/demo/clip.mp4"), &clip).unwrap();
    std::fs::create_dir(folder.path().join("written")).unwrap();
    let names = names();
    for (n, name) in names.iter().enumerate() {
        let path = folder.path().join(name);
        // by turns as another name and as a link
        if n % 2 == 0 { std::fs::hard_link(&clip, path).unwrap() } else { symlink("the clip", path).unwrap() }
    }
    (folder, names)
}

/// A graph of decoders, each with a writer of checksums; `env` gives the lines of the camera with this number.
fn graph(folder: &Path, cameras: usize, env: impl Fn(usize) -> [String; 2]) -> String {
    let mut text = String::from("exit_when_nodes_finish: true\nenv: { FLOW: lossless }\nnodes:\n");
    for n in 0..cameras {
        let [source, path] = env(n);
        text.push_str(&format!(
            "  - id: d{n}\n    path: {}\n    inputs: {{ tick: dora/timer/secs/5 }}\n    outputs: [frame]\n    \
             restart_policy: never\n    env: {{ PACE: asfast, FRAMES: {FRAMES}{source} }}\n  - id: w{n}\n    path: {}\n    \
             inputs: {{ frame: d{n}/frame }}\n    restart_policy: never\n    env: {{ {path} }}\n",
            program("sw-nv12").display(),
            program("frame-checksum").display(),
        ));
    }
    let file = folder.join("graph.yml");
    std::fs::write(&file, text).unwrap();
    file.display().to_string()
}

fn run(folder: &Path, graph: &str, sets: &[OsString]) -> Output {
    let mut command = millrace(&["run", graph]);
    command.current_dir(folder);
    for set in sets {
        command.arg("--set").arg(set);
    }
    finish(&mut command, LIMIT)
}

fn lines(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
}

/// FFmpeg's checksums of the clip's first frames would be the same for all: what counts is that each name gave them.
fn assert_written(folder: &Path, names: &[OsString], output: &Output) {
    assert_eq!(output.status.code(), Some(0), "{names:?}\n{}", printed(output));
    for name in names {
        let found = lines(&folder.join("written").join(name));
        assert_eq!(found.len(), FRAMES, "{name:?}\n{}", printed(output));
    }
    assert_eq!(std::fs::read_dir(folder.join("written")).unwrap().count(), names.len(), "names that nobody gave");
    std::fs::remove_dir_all(folder.join("written")).unwrap();
    std::fs::create_dir(folder.join("written")).unwrap();
}

fn set(key: String, before: &str, value: &OsStr) -> OsString {
    [OsStr::new(&key), OsStr::new("="), OsStr::new(before), value].into_iter().collect()
}

#[test]
fn each_name_plays_and_is_written_by_set() {
    let (folder, names) = folder();
    let text: Vec<OsString> = names.into_iter().filter(|name| name.to_str().is_some()).collect();
    assert_eq!(text.len(), 36);
    for some in text.chunks(TOGETHER) {
        let graph = graph(folder.path(), some.len(), |_| ["", "PATH: written/never"].map(str::to_owned));
        let sets = some
            .iter()
            .enumerate()
            .flat_map(|(n, name)| [set(format!("d{n}.SOURCE"), "", name), set(format!("w{n}.PATH"), "written/", name)]);
        let output = run(folder.path(), &graph, &sets.collect::<Vec<_>>());
        assert_written(folder.path(), some, &output);
    }
}

/// In YAML, `$` is written `$$`, and a name that is a number as a path: `./1.10`.
#[test]
fn each_name_plays_and_is_written_by_yaml_under_millrace_and_under_dora() {
    let (folder, names) = folder();
    let text: Vec<OsString> = names.into_iter().filter(|name| name.to_str().is_some()).collect();
    for (n, some) in text.chunks(TOGETHER).enumerate() {
        let value = |before: &str, name: &OsString| {
            let name = name.to_str().unwrap().replace('$', "$$");
            let before = if name.parse::<f64>().is_ok() && before.is_empty() { "./" } else { before };
            serde_json::to_string(&format!("{before}{name}")).unwrap()
        };
        let env =
            |n: usize| [format!(", SOURCE: {}", value("", &some[n])), format!("PATH: {}", value("written/", &some[n]))];
        let graph = graph(folder.path(), some.len(), env);
        // by turns, since each takes seconds; the first ones have the dollars, which both have to get right
        if n % 2 == 0 {
            assert_written(folder.path(), some, &run(folder.path(), &graph, &[]));
        }
        if n % 2 == 1 || n == 0 {
            let mut dora = Command::new(root().join("target/tools/bin/dora"));
            let output = finish(dora.args(["run", &graph]).current_dir(folder.path()), LIMIT);
            assert_written(folder.path(), some, &output);
        }
    }
}

#[test]
fn a_name_that_is_not_utf8_is_refused_in_words_and_plays_by_a_file_url() {
    let (folder, names) = folder();
    let odd = names.iter().find(|name| name.to_str().is_none()).unwrap();
    let graph = graph(folder.path(), 1, |_| ["", "PATH: written/a"].map(str::to_owned));
    for refused in [set("d0.SOURCE".into(), "", odd), set("w0.PATH".into(), "written/", odd)] {
        let output = run(folder.path(), &graph, &[refused]);
        assert!(!output.status.success(), "{}", printed(&output));
        assert!(printed(&output).contains("is not UTF-8"), "{}", printed(&output));
    }
    let url = format!("file://{}/latin1_caf%E9.mp4", folder.path().display());
    let output = run(folder.path(), &graph, &[set("d0.SOURCE".into(), "", OsStr::new(&url))]);
    assert_written(folder.path(), &["a".into()], &output);
    assert_eq!(odd.as_bytes(), b"latin1_caf\xe9.mp4");
}

/// What is no file is refused in words, before anything is started and, under dora alone, by the node; nothing waits.
#[test]
fn links_to_nothing_folders_pipes_and_devices_are_refused_in_words() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    std::fs::create_dir(at.join("written")).unwrap();
    std::fs::create_dir(at.join("folder.mp4")).unwrap();
    symlink("nowhere", at.join("dangling.mp4")).unwrap();
    symlink("loop.mp4", at.join("loop.mp4")).unwrap();
    symlink("/dev/null", at.join("null.mp4")).unwrap();
    mknodat(CWD, at.join("pipe.mp4"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    for (name, checked, by_node) in [
        ("folder.mp4", "is a folder", "is a folder"),
        ("dangling.mp4", "does not exist", "No such file"),
        ("loop.mp4", "Too many levels of symbolic links", "Too many levels of symbolic links"),
        ("null.mp4", "is a device", "is a device"),
        ("pipe.mp4", "is a pipe", "is a pipe"),
    ] {
        let graph = graph(at, 1, |_| [format!(", SOURCE: {name}"), "PATH: written/a".to_owned()]);
        let output = run(at, &graph, &[]);
        assert_eq!(output.status.code(), Some(1), "{name}: {}", printed(&output));
        assert!(printed(&output).contains(checked), "{name}: {}", printed(&output));
        assert!(!at.join("written/a").exists(), "{name}: a writer was started");
        let mut dora = Command::new(root().join("target/tools/bin/dora"));
        let output = finish(dora.args(["run", &graph]).current_dir(at), LIMIT);
        assert!(!output.status.success() && printed(&output).contains(by_node), "{name}: {}", printed(&output));
        std::fs::remove_file(at.join("written/a")).ok();
    }
    let graph = graph(at, 1, |_| [String::new(), "PATH: pipe.mp4".to_owned()]);
    let clip = root().join("tests/data/demo/clip.mp4");
    let output = run(at, &graph, &[set("d0.SOURCE".into(), "", clip.as_os_str())]);
    assert!(printed(&output).contains("nobody reads this pipe"), "{}", printed(&output));
}

#[test]
fn a_recording_is_never_the_file_that_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let clip = folder.path().join("clip.mp4");
    std::fs::copy(root().join("tests/data/demo/clip.mp4"), &clip).unwrap();
    symlink("clip.mp4", folder.path().join("link")).unwrap();
    let graph = graph(folder.path(), 1, |_| [", SOURCE: clip.mp4".to_owned(), "PATH: link".to_owned()]);
    let before = std::fs::metadata(&clip).unwrap().len();
    let output = run(folder.path(), &graph, &[]);
    assert_eq!(output.status.code(), Some(1), "{}", printed(&output));
    assert!(printed(&output).contains("it would be emptied"), "{}", printed(&output));
    assert_eq!(std::fs::metadata(&clip).unwrap().len(), before);
}

/// What a variable holds is not expanded again, whoever starts the graph.
#[test]
fn dollars_of_a_variable_arrive_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("written")).unwrap();
    let clip = "no$HOME ${USER} a$$b $1.mp4";
    std::fs::copy(root().join("tests/data/demo/clip.mp4"), folder.path().join(clip)).unwrap();
    let graph = graph(folder.path(), 1, |_| [", SOURCE: '${CLIP}'".to_owned(), "PATH: written/a".to_owned()]);
    let dora = Command::new(root().join("target/tools/bin/dora"));
    for mut command in [millrace(&[]), dora] {
        let output = finish(command.args(["run", &graph]).env("CLIP", clip).current_dir(folder.path()), LIMIT);
        assert_written(folder.path(), &["a".into()], &output);
    }
}
