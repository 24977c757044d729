#!/usr/bin/env python3
"""Which features differ between building one node and building everything: what runtime/feature-unification/Cargo.toml has to name.

usage: tests/features.py      exits 1 when a shared dependency would be compiled twice
"""
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent


def features(*selection):
    """{package: the feature sets it is built with}; one set each for the target and for build scripts and macros."""
    command = ["cargo", "tree", "--locked", "--prefix", "none", "--no-dedupe", "--format", "{p}|{f}", *selection]
    text = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    found = {}
    for line in filter(lambda line: "|" in line, text.splitlines()):
        package, names = line.split("|", 1)
        found.setdefault(" ".join(package.split()[:2]), set()).add(names)
    return found


def main():
    everything = features("--workspace", "--edges", "normal,build,dev")
    bad = 0
    nodes = sorted(path.parent.name for path in ROOT.glob("nodes/*/Cargo.toml"))
    # and the program of those that share a process
    for node in [*nodes, "millrace-stages"]:
        for package, found in features("--package", node, "--edges", "normal,build").items():
            strange = found - everything.get(package, set())
            if strange and not package.startswith("millrace"):
                print(f"{node}: {package} has {sorted(strange)}, everything has {sorted(everything[package])}")
                bad += 1
    print("one feature set" if not bad else f"{bad} differences: name the features in runtime/feature-unification/Cargo.toml")
    return bad > 0


if __name__ == "__main__":
    sys.exit(main())
