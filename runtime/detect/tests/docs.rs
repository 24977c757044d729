//! The tables of heads in docs/models.md are what the heads say of themselves. `MILLRACE_WRITE_DOCS=1` writes them.
#![allow(clippy::unwrap_used, reason = "a test fails where it stands")]

use millrace_detect::heads::KINDS;
use std::fmt::Write;
use std::path::Path;

/// The heads, and the keys of all heads: a row for each meaning.
fn tables() -> String {
    let mut text = "| `kind` | for | output | its numbers |\n|---|---|---|---|\n".to_owned();
    for kind in KINDS {
        writeln!(text, "| `{}` | {} | {} | {} |", kind.name, kind.serves, kind.outputs, kind.numbers).unwrap();
    }
    text += "\n| key | heads | default | meaning |\n|---|---|---|---|\n";
    let mut rows: Vec<(&str, Vec<String>, &str, &str)> = Vec::new();
    for kind in KINDS {
        for key in kind.keys {
            let (default, head) = (key.default.unwrap_or("required"), format!("`{}`", kind.name));
            match rows.iter_mut().find(|(name, _, of, doc)| (*name, *of, *doc) == (key.name, default, key.doc)) {
                Some((_, heads, ..)) => heads.push(head),
                None => rows.push((key.name, vec![head], default, key.doc)),
            }
        }
    }
    for (name, heads, default, doc) in rows {
        writeln!(text, "| `{name}` | {} | {default} | {doc} |", heads.join(", ")).unwrap();
    }
    text
}

#[test]
fn the_documentation_has_every_head_and_key() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/models.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (begin, end) = ("<!-- heads: written by runtime/detect/tests/docs.rs -->\n", "<!-- end of heads -->\n");
    let (before, rest) = page.split_once(begin).expect("the mark before the tables");
    let (found, after) = rest.split_once(end).expect("the mark behind the tables");
    let want = format!("\n{}\n", tables());
    if std::env::var_os("MILLRACE_WRITE_DOCS").is_some() {
        std::fs::write(&path, format!("{before}{begin}{want}{end}{after}")).unwrap();
    } else {
        assert_eq!(found, want, "run `MILLRACE_WRITE_DOCS=1 cargo test --release -p millrace-detect --test docs`");
    }
}
