#!/usr/bin/env python3
"""What a test in Python needs that may be missing; README.md has the table of names, and src/lib.rs the same for Rust.

    tests/needs/needs.py begin    checks MILLRACE_REQUIRE, and starts an empty target/skipped.txt
    tests/needs/needs.py list     prints and counts what was skipped since
"""

import collections
import os
import pathlib
import re
import sys

HERE = pathlib.Path(__file__).resolve().parent
TARGET = HERE.parent.parent / "target"


def names():
    """{name: whether CI installs it}"""
    rows = re.findall(r"^\| `(\w+)` \|([^|]*)\|", (HERE / "README.md").read_text(), re.MULTILINE)
    return {name: ci.strip() == "yes" for name, ci in rows}


def required():
    """The names without which a test fails."""
    known = names()
    asked = [name.strip() for name in os.environ.get("MILLRACE_REQUIRE", "").split(",") if name.strip()]
    for name in asked:
        if name not in known:
            sys.exit(f"MILLRACE_REQUIRE has '{name}', which tests/needs/README.md does not list; it lists {', '.join(known)}")
    return {*asked, *(name for name in known if known[name] and os.environ.get("MILLRACE_CI") == "1")}


def skipped_file():
    return pathlib.Path(os.environ.get("MILLRACE_SKIPPED") or TARGET / "skipped.txt")


def skip_without(name, why):
    """Records that the calling test does nothing without `name`; ends the program with an error if `name` is required."""
    assert name in names(), f"tests/needs/README.md does not list '{name}'"
    if name in required():
        sys.exit(f"FAILED: '{name}' is required (MILLRACE_REQUIRE, or MILLRACE_CI=1), and it is missing: {why}")
    print(f"skipped: without {name}: {why}", flush=True)
    if skipped_file().parent.is_dir():
        with open(skipped_file(), "a") as file:
            file.write(f"{os.path.basename(sys.argv[0])}\t{name}\t{why}\n")


def list_skipped():
    lines = skipped_file().read_text().splitlines() if skipped_file().exists() else []
    skipped = collections.defaultdict(set)
    for line in lines:
        test, name, why = line.split("\t", 2)
        skipped[name, why].add(test)
    count = len({test for tests in skipped.values() for test in tests})
    print(f"\n{count} tests were skipped, or left out a part" + (":" if count else ""))
    for (name, why), tests in sorted(skipped.items()):
        print(f"  without {name} ({why}):")
        for test in sorted(tests):
            print(f"    {test}")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["begin"]:
            required()
            skipped_file().unlink(missing_ok=True)
        case ["list"]:
            list_skipped()
        case _:
            sys.exit(__doc__)
