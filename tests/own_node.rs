//! The tutorial `docs/your-own-node.md`, word for word: the files and the commands of the page, in the order of the page, in a folder
//! beside a link to this checkout. What the page says that the commands print has to be printed.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "what was run")]

use millrace_tests::{finish, millrace, printed, program, root};
use serde_json::Value;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// The build reuses the dependencies that the checkout has built, and compiles eight crates.
const LIMIT: Duration = Duration::from_secs(600);

/// A fenced block of a page.
struct Block {
    language: String,
    /// The file that the line before the block names: "`NAME`:".
    file: Option<String>,
    text: String,
}

fn blocks(page: &str) -> Vec<Block> {
    let (mut found, mut before): (Vec<Block>, &str) = (Vec::new(), "");
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        if let Some(language) = line.strip_prefix("```") {
            let text = lines.by_ref().take_while(|line| *line != "```").map(|line| format!("{line}\n")).collect();
            let file = before.strip_prefix('`').and_then(|rest| rest.strip_suffix("`:"));
            found.push(Block { language: language.to_owned(), file: file.map(str::to_owned), text });
            before = "";
        } else if !line.is_empty() {
            before = line;
        }
    }
    found
}

#[test]
fn the_tutorial_runs_word_for_word() {
    let page = std::fs::read_to_string(root().join("docs/your-own-node.md")).unwrap();
    let blocks = blocks(&page);
    program("millrace");
    // always the same folder for this checkout: another one would leave other libraries in the target folder at each run
    let mut checkout = DefaultHasher::new();
    root().hash(&mut checkout);
    let folder = std::env::temp_dir().join(format!("millrace-own-node-{:x}", checkout.finish()));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir(&folder).unwrap();
    std::os::unix::fs::symlink(root(), folder.join("millrace")).unwrap();
    // a build of a test has what it needs on this machine, as the lock file names it
    let mut script = "set -euo pipefail\nexport CARGO_NET_OFFLINE=true\n".to_owned();
    for block in &blocks {
        match (&block.file, block.language.as_str()) {
            (Some(file), _) => script.push_str(&format!("cat > {file} <<'END OF FILE'\n{}END OF FILE\n", block.text)),
            (None, "sh") => script.push_str(&block.text),
            (None, "text") => {}
            (None, other) => panic!("a block of {other} without a file: {}", block.text),
        }
    }
    let began = std::time::Instant::now();
    let output = finish(Command::new("bash").args(["-c", &script]).current_dir(&folder), LIMIT);
    let text = printed(&output);
    println!("{text}\n{:?}", began.elapsed());
    assert!(output.status.success(), "{text}");
    let plain = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let lines: Vec<String> = text.lines().map(plain).collect();
    for wanted in blocks.iter().filter(|block| block.language == "text").flat_map(|block| block.text.lines()) {
        let wanted = plain(wanted);
        assert!(lines.iter().any(|line| fits(line, &wanted)), "the page promises '{wanted}':\n{text}");
    }
    // the same frames without the node, from which the test removes the boxes
    let all = folder.join("all.jsonl");
    let sets = ["decode.FRAMES=100", "decode.CAMERA=street", &format!("write.PATH={}", all.display())];
    let sets = sets.iter().flat_map(|set| ["--set", set]);
    let mut detect = millrace(&["run", "graphs/detect.yml", "--no-build"]);
    let output = finish(detect.args(sets), LIMIT);
    assert!(output.status.success(), "{}", printed(&output));
    let (mut all, cars) = (frames(&all), frames(&folder.join("class-filter/cars.jsonl")));
    let (mut before, mut after) = (0, 0);
    for frame in &mut all {
        let boxes = frame["boxes"].as_array_mut().unwrap();
        before += boxes.len();
        boxes.retain(|found| found["label"] == "car");
        after += boxes.len();
    }
    assert_eq!((all.len(), &cars), (100, &all));
    assert!(after > 0 && before > after);
    assert!(lines.contains(&format!("only-cars removed: {}", before - after)), "{text}");
    std::fs::remove_dir_all(&folder).unwrap();
}

/// Whether a line begins as the page has it, where three dots are any text.
fn fits(line: &str, wanted: &str) -> bool {
    let mut parts = wanted.split("...");
    let Some(mut rest) = line.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    true
}

fn frames(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}
