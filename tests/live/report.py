#!/usr/bin/env python3
"""Prints the figures of a run as tables in Markdown, for docs/reliability.md.

    tests/live/run.py ... --json result.json; tests/live/report.py result.json
"""

import json
import sys


def largest(values):
    known = [value for value in (values or {}).values() if value is not None]
    return max(known) if known else None


def seconds(ms):
    return "-" if ms is None else f"{ms / 1000:.2f}"


def faults(result):
    yield "| fault | seen after, s | well again after the cure, s | largest gap of the others, s |"
    yield "|---|---|---|---|"
    for fault in result["faults"]:
        noticed = fault["hang_seen_ms"] if "hang_seen_ms" in fault else largest(fault.get("seen_ms"))
        yield f"| {fault['name']} | {seconds(noticed)} | {seconds(largest(fault['healed_ms']))} | {seconds(largest(fault.get('others_gap_ms')))} |"


def cameras(result):
    yield "| camera | sent | delivered | missing | counted, by cause | mixed | again | backwards | stale | age p50 / p99 / max, ms | in undisturbed time |"
    yield "|---|---|---|---|---|---|---|---|---|---|---|"
    ages = lambda a: " / ".join(str(a.get(q, "-")) for q in ("p50", "p99", "max"))  # noqa: E731
    for name, c in result["cameras"].items():
        named = ", ".join(f"{cause} {count}" for cause, count in c["named_losses"].items()) or "-"
        yield (
            f"| {name} | {c['sent']} | {c['delivered']} | {c['missing']['all']} | {named} | {c['mixed']} | {c['repeated']} | {c['backwards']} | {len(c['stale'])} "
            f"| {ages(c['age_from_sent_ms'])} | {ages(c['quiet']['age_from_sent_ms'])} |"
        )


def main():
    with open(sys.argv[1]) as file:
        result = json.load(file)
    print(f"`{result['command']}`\n{result['machine']}, load average {result['load_average'][0]:.1f}\n")
    if result["faults"]:
        print("\n".join(faults(result)) + "\n")
    print("\n".join(cameras(result)))
    print(f"\n{result['processes']} processes, {result['memory_pss_kib'] / 1024:.0f} MiB (PSS); processor cores: {result['cpu_share']}; ended in {result['stop_s']} s")
    print("all as it has to be" if result["ok"] else "\n".join(result["problems"]))


if __name__ == "__main__":
    main()
