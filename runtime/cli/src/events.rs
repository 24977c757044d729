//! `millrace run --json`: a JSON document a line, each with the name of its `event`. docs/commands.md has the list.

use crate::out::outln;
use crate::totals::Totals;
use crate::view::{End, state};
use millrace_graph::fault::Report;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Prints an event with these fields.
pub(crate) fn print(event: &str, mut fields: Value) {
    fields["event"] = event.into();
    outln!("{fields}");
}

/// A graph with faults, which is not run.
pub(crate) fn refused(report: &Report) {
    print("faults", report.json());
    print("end", json!({ "code": 1, "error": report.summary() }));
}

/// A run that could not begin, or could not be watched.
pub(crate) fn broken(error: &anyhow::Error) {
    print("end", json!({ "code": 1, "error": format!("{error:#}") }));
}

/// How the nodes are now.
pub(crate) fn nodes(nodes: &[Totals], elapsed: Duration, now: Instant) {
    let of = |node: &Totals| {
        let mut fields = counts(node);
        let (fps, cpu) = node.rates(now).unzip();
        fields["fps"] = json!(fps);
        fields["cpu"] = json!(cpu);
        fields["age_ms"] = ages(node.ages_ms(now));
        let vital = node.vital.text();
        fields["state"] = match (vital.as_str(), state(node)) {
            ("", "") => "running".into(),
            ("", state) => state.into(),
            (vital, _) => vital.into(),
        };
        fields
    };
    print("nodes", json!({ "seconds": elapsed.as_secs_f64(), "nodes": nodes.iter().map(of).collect::<Vec<_>>() }));
}

/// How it went.
pub(crate) fn end(nodes: &[Totals], end: &End) {
    let End { ends, elapsed, code, more } = end;
    let of = |(node, end): (&Totals, &String)| {
        let mut fields = counts(node);
        fields["age_ms"] = ages(node.ages_since_start_ms());
        fields["restarts"] = node.restarts.into();
        fields["counters"] = json!(node.own_counters());
        fields["end"] = end.as_str().into();
        fields
    };
    let losses = nodes.iter().flat_map(|node| {
        node.losses().into_iter().map(|((cause, port), count)| {
            let why = node.reason(&cause, &port);
            json!({ "node": node.id, "port": port, "cause": cause, "count": count, "why": why.trim_start_matches([':', ' ']) })
        })
    });
    print(
        "end",
        json!({
            "code": code,
            "seconds": elapsed.as_secs_f64(),
            "frames": nodes.iter().map(Totals::frames).max().unwrap_or(0),
            "nodes": nodes.iter().zip(ends).map(of).collect::<Vec<_>>(),
            "dropped": losses.collect::<Vec<_>>(),
            "more": more,
        }),
    );
}

fn counts(node: &Totals) -> Value {
    json!({ "id": node.id, "in": node.items("in"), "out": node.items("out"), "dropped": node.dropped() })
}

fn ages(ms: Option<[f64; 3]>) -> Value {
    ms.map_or(Value::Null, |[p50, p95, p99]| json!({ "p50": p50, "p95": p95, "p99": p99 }))
}
