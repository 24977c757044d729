//! The page of a soak, and its stored form.

use super::html::{document, figure, table};
use super::plots::{Drawing, WIDTH, escape};
use super::scale::Scale;
use super::spark::{raw_table, spark, strip};
use super::tables;
use crate::soak::{
    CameraRow, ProcessRow, Row, SOAK_SCHEMA, Soak, SoakVerdict, SoakWord, Standing, Trend, Trended, time,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Faults and lines that the page shows; the record has more.
const SHOWN: usize = 200;

/// The record with what follows from it, as it is stored.
///
/// # Errors
/// Those of the serializer.
pub fn soak_json(soak: &Soak) -> Result<String, serde_json::Error> {
    #[derive(Serialize)]
    struct Stored<'a> {
        soak: &'a Soak,
        verdict: SoakVerdict,
    }
    serde_json::to_string(&Stored { soak, verdict: soak.verdict() })
}

/// Reads a stored record; what follows from it is worked out from it again.
///
/// # Errors
/// Why the text is not one, or that another version wrote it.
pub fn soak_read(text: &str) -> Result<Soak, String> {
    #[derive(Deserialize)]
    struct Version {
        soak: Schema,
    }
    #[derive(Deserialize)]
    struct Schema {
        schema: u32,
    }
    #[derive(Deserialize)]
    struct Stored {
        soak: Soak,
    }
    let version: Version = serde_json::from_str(text).map_err(|error| format!("not the record of a soak: {error}"))?;
    if version.soak.schema != SOAK_SCHEMA {
        let found = version.soak.schema;
        return Err(format!("the record of a soak of schema {found}; this millrace reads {SOAK_SCHEMA}"));
    }
    serde_json::from_str::<Stored>(text)
        .map(|stored| stored.soak)
        .map_err(|error| format!("not the record of a soak: {error}"))
}

/// The whole soak as one self-contained page.
#[must_use]
pub fn soak_html(soak: &Soak) -> String {
    let verdict = soak.verdict();
    let title = format!("Soak of {}", soak.graph);
    let class = match verdict.word {
        SoakWord::Held => "faster",
        SoakWord::DidNotHold => "failed",
        SoakWord::NotFinished => "open",
    };
    let mut main = format!(
        "<h1>{}</h1>\n<p class=\"soft\">begun {} · {} · {}</p>\n<section class=\"verdict {class}\"><strong>{}</strong>{}</section>\n",
        escape(&title),
        escape(&soak.date),
        escape(&soak.machine.cpu),
        time(soak.measured_s),
        verdict.word.text(),
        escape(&verdict.reason()),
    );
    main += &findings(&verdict);
    main += &course(soak);
    main += &cameras(soak);
    main += &processes(soak, &verdict.trends);
    main += &faults(soak);
    main += &events(soak);
    main += &conditions(soak);
    document(&format!("{title}: {}", verdict.word.text()), &main)
}

fn findings(verdict: &SoakVerdict) -> String {
    let rows: String = verdict
        .findings
        .iter()
        .map(|finding| {
            let (class, word) = match finding.standing {
                Standing::Met => ("met", "holds"),
                Standing::NotMet => ("unmet", "does not hold"),
                Standing::Open => ("open", "not shown"),
            };
            let (what, figures) = (escape(finding.what), escape(&finding.figures));
            format!("<tr><th scope=\"row\">{what}</th><td class=\"{class}\">{word}</td><td>{figures}</td></tr>\n")
        })
        .collect();
    format!(
        "<section><div class=\"scroll\"><table><caption>What has to hold</caption><thead><tr><th scope=\"col\">what</th>\
         <th scope=\"col\">outcome</th><th scope=\"col\">figures</th></tr></thead><tbody>\n{rows}</tbody></table></div></section>\n"
    )
}

/// A figure over time.
struct Trace {
    title: &'static str,
    caption: &'static str,
    of: fn(&Row) -> Option<f64>,
}

const TRACES: [Trace; 8] = [
    Trace {
        title: "results a second, all cameras",
        caption: "What came out at the end of the graph.",
        of: |row| (!row.cameras.is_empty()).then(|| row.cameras.values().map(|camera| camera.fps).sum()),
    },
    Trace {
        title: "age of results, p99, ms",
        caption: "Of the camera whose results are oldest.",
        of: |row| row.cameras.values().filter_map(|camera| camera.age_ms).map(|age| age[2]).max_by(f64::total_cmp),
    },
    Trace {
        title: "frames lost, a minute",
        caption: "Of all cameras, by any cause.",
        of: |row| {
            let lost: u64 = row.cameras.values().map(|camera| camera.lost).sum();
            (!row.cameras.is_empty()).then(|| lost as f64 * 60.0 / row.seconds.max(1e-9))
        },
    },
    Trace {
        title: "memory of all processes, MiB",
        caption: "By proportional share.",
        of: |row| Some(row.whole.pss_mib),
    },
    Trace {
        title: "processor time, cores",
        caption: "Of all processes of the graph.",
        of: |row| Some(row.whole.cores),
    },
    Trace {
        title: "/dev/shm in use, MiB",
        caption: "By any program of this machine.",
        of: |row| Some(row.whole.shm_mib),
    },
    Trace { title: "GPU memory in use, MiB", caption: "By any program of this machine.", of: |row| row.whole.gpu_mib },
    Trace {
        title: "GPU busy, %",
        caption: "Share of the time in which a kernel ran.",
        of: |row| row.whole.gpu_percent,
    },
];

fn course(soak: &Soak) -> String {
    let plots: String = TRACES.iter().map(|trace| figure(plot(soak, trace), trace.caption)).collect();
    let about = "Upright lines are faults, dotted ones interruptions of the soak itself.";
    format!(
        "<section><h2>Over time</h2>\n<p class=\"soft\">{about}</p>\n<div class=\"plots\">\n{plots}</div></section>\n"
    )
}

fn plot(soak: &Soak, trace: &Trace) -> Option<String> {
    let points: Vec<(f64, f64)> = soak.rows.rows.iter().filter_map(|row| Some((row.at_s, (trace.of)(row)?))).collect();
    let last_s = points.last()?.0;
    let (unit, unit_s) = match last_s {
        s if s < 300.0 => ("seconds", 1.0),
        s if s < 7_200.0 => ("minutes", 60.0),
        s if s < 172_800.0 => ("hours", 3_600.0),
        _ => ("days", 86_400.0),
    };
    let mut d = Drawing::new(&format!("{} over time", trace.title), 214.0);
    let x = Scale { from: 0.0, to: last_s / unit_s, start_px: 52.0, end_px: WIDTH - 10.0 };
    let y = Scale::around(points.iter().map(|point| point.1).chain([0.0]), 176.0, 28.0);
    for v in y.ticks() {
        d.line("grid", [48.0, y.pixel(v), WIDTH - 8.0, y.pixel(v)]);
        d.text("e", 44.0, y.pixel(v) + 4.0, &y.label(v));
    }
    for v in x.ticks() {
        d.text("m", x.pixel(v), 194.0, &x.label(v));
    }
    let bottom = y.pixel(0.0);
    for fault in soak.faults.iter().rev().take(SHOWN) {
        let at = x.pixel(fault.at_s / unit_s);
        d.hinted("fault-mark", [at, 26.0, at, bottom], &fault.name);
    }
    for pause in &soak.breaks {
        let at = x.pixel(pause.at_s / unit_s);
        d.hinted("break-mark", [at, 26.0, at, bottom], "interrupted");
    }
    d.path("trace", &points.iter().map(|(at_s, value)| (x.pixel(at_s / unit_s), y.pixel(*value))).collect::<Vec<_>>());
    d.text("", 8.0, 14.0, trace.title);
    d.text("m", WIDTH / 2.0, 210.0, unit);
    Some(d.finish())
}

fn cameras(soak: &Soak) -> String {
    let row = |(id, account): (&String, &crate::soak::Account)| {
        let of = |row: &Row| row.cameras.get(id).cloned();
        let all: Vec<Option<CameraRow>> = soak.rows.rows.iter().map(of).collect();
        let states: Vec<&str> = all.iter().map(|row| row.as_ref().map_or("", |row| row.state.as_str())).collect();
        let fps: Vec<Option<f64>> = all.iter().map(|row| row.as_ref().map(|row| row.fps)).collect();
        let p99: Vec<Option<f64>> = all.iter().map(|row| row.as_ref().and_then(|row| Some(row.age_ms?[2]))).collect();
        let last = |values: &[Option<f64>]| values.iter().rev().flatten().next().copied();
        let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.1}"));
        let ages = all.iter().rev().flatten().find_map(|row| row.age_ms);
        let ages = ages.map_or_else(|| "-".to_owned(), |age| format!("{:.1} / {:.1} / {:.1}", age[0], age[1], age[2]));
        let share =
            |n: usize| account.availability().map_or_else(|| "-".to_owned(), |shares| format!("{:.3}", shares[n]));
        let lost = soak.lost.get(id).filter(|lost| !lost.is_empty());
        let lost = lost.map_or_else(
            || "0".to_owned(),
            |lost| {
                lost.iter().map(|(cause, count)| format!("{}: {count}", escape(cause))).collect::<Vec<_>>().join("<br>")
            },
        );
        vec![
            escape(id),
            strip(&states),
            share(0),
            share(1),
            format!("{:.1}", account.missing_s),
            format!("{:.1}", account.fault_s),
            format!("{:.1}", account.own_s),
            format!("{}{}", spark(&fps), number(last(&fps))),
            format!("{}{ages}", spark(&p99)),
            lost,
        ]
    };
    let rows: Vec<Vec<String>> = soak.cameras.iter().map(row).collect();
    let heads = [
        "camera",
        "state",
        "served, %",
        "with faults, %",
        "missing, s",
        "in faults, s",
        "its own, s",
        "results a second",
        "age p50 / p95 / p99, ms",
        "lost",
    ];
    let caption = "Served is the share of the due time in which results came, without the times of injected faults and with \
                   them. The camera's own outages are due in neither. Ages are of the last sample, their line is the p99.";
    format!("<section><h2>Cameras</h2>\n{}</section>\n", raw_table(caption, &heads, &rows))
}

fn trend_cell(trended: &Trended) -> String {
    let class = match trended.trend {
        Trend::Grows => "grows",
        Trend::Flat => "flat",
        Trend::NotShown => "open",
    };
    let slope = trended.slope.map_or_else(
        || "too little time".to_owned(),
        |slope| {
            let n = tables::number;
            format!("{} a day ({} to {}), {} blocks", n(slope.per_day), n(slope.low), n(slope.high), slope.blocks)
        },
    );
    format!("<span class=\"{class}\" title=\"{}\">{}</span>", escape(&slope), trended.trend.word())
}

/// A figure of a process at one sample.
type Quantity = fn(&ProcessRow) -> f64;

fn processes(soak: &Soak, trends: &[Trended]) -> String {
    let names: BTreeSet<&String> = soak.rows.rows.iter().flat_map(|row| row.processes.keys()).collect();
    let quantities: [(&str, Quantity); 4] = [
        ("memory, MiB", |p| p.pss_mib),
        ("descriptors", |p| p.descriptors),
        ("threads", |p| p.threads),
        ("mappings", |p| p.mappings),
    ];
    let row = |name: &&String| {
        let values = |of: Quantity| -> Vec<Option<f64>> {
            soak.rows.rows.iter().map(|row| row.processes.get(*name).map(of)).collect()
        };
        let last = |of| values(of).into_iter().rev().flatten().next().map_or_else(String::new, tables::number);
        let cells = quantities.iter().map(|(what, of)| {
            let trend = trends.iter().find(|trended| trended.who == **name && trended.what == *what);
            format!("{}{} {}", spark(&values(*of)), last(*of), trend.map_or_else(String::new, trend_cell))
        });
        let cores: Quantity = |p| p.cores;
        let rss: Quantity = |p| p.rss_mib;
        std::iter::once(escape(name))
            .chain(cells)
            .chain([last(rss), format!("{}{}", spark(&values(cores)), last(cores))])
            .collect()
    };
    let rows: Vec<Vec<String>> = names.iter().map(row).collect();
    let heads = ["process", "memory (PSS), MiB", "descriptors", "threads", "mappings", "resident, MiB", "cores"];
    let caption = "Each line is the whole time, each number the last sample. 'flat' grows by less than 16 a day; 'not shown' needs \
                   more time or less noise.";
    let mut out = format!("<section><h2>Processes</h2>\n{}", raw_table(caption, &heads, &rows));
    let slopes: Vec<Vec<String>> = trends.iter().map(slope_row).collect();
    let heads = ["", "what", "last", "a day", "from", "to", "later half", "blocks", "processes", "verdict"];
    let caption = "Slopes with their intervals, which hold all together with 95 %";
    out += &format!(
        "<details><summary>All slopes</summary>{}</details></section>\n",
        table(caption, &heads, &slopes, true)
    );
    out
}

fn slope_row(trended: &Trended) -> Vec<String> {
    let n = tables::number;
    let slope = trended.slope.map_or_else(
        || vec!["-".to_owned(); 6],
        |s| {
            let numbers = [s.per_day, s.low, s.high, s.later_per_day].map(n);
            numbers.into_iter().chain([s.blocks.to_string(), s.lives.to_string()]).collect()
        },
    );
    let head = [trended.who.clone(), trended.what.to_owned(), n(trended.last)];
    head.into_iter().chain(slope).chain([trended.trend.word().to_owned()]).collect()
}

fn faults(soak: &Soak) -> String {
    if soak.fault_sums.is_empty() {
        return String::new();
    }
    let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.1}"));
    let sums: Vec<Vec<String>> = soak
        .fault_sums
        .iter()
        .map(|(name, sum)| {
            let most = |spread: crate::soak::Spread| number((spread.count > 0).then_some(spread.most));
            let bad = sum.unseen + sum.unhealed + sum.troubled;
            vec![
                name.clone(),
                sum.count.to_string(),
                bad.to_string(),
                number(sum.seen_s.mean()),
                most(sum.seen_s),
                number(sum.healed_s.mean()),
                most(sum.healed_s),
            ]
        })
        .collect();
    let heads = ["fault", "times", "not as asked", "seen after, s", "most", "healed after, s", "most"];
    let mut out = format!("<section><h2>Faults</h2>\n{}", table("By name", &heads, &sums, true));
    let log: Vec<Vec<String>> = soak
        .faults
        .iter()
        .rev()
        .take(SHOWN)
        .map(|fault| {
            let seen = match (fault.seen_s, fault.has_to_be_seen) {
                (None, false) => "too short to be".to_owned(),
                (seen, _) => number(seen),
            };
            let healed = fault.healed_s.map_or_else(|| "not".to_owned(), |healed| format!("{healed:.1}"));
            vec![
                time(fault.at_s),
                fault.name.clone(),
                number(Some(fault.lasted_s)),
                seen,
                healed,
                fault.trouble.clone(),
            ]
        })
        .collect();
    let heads = ["at", "fault", "for, s", "seen after, s", "healed after, s", "trouble"];
    let caption = format!("The last {} of them, the newest first", log.len());
    out += &format!(
        "<details open><summary>Log of faults</summary>{}</details></section>\n",
        table(&caption, &heads, &log, false)
    );
    out
}

fn events(soak: &Soak) -> String {
    let lines: Vec<Vec<String>> =
        soak.events.iter().rev().take(SHOWN).map(|event| vec![time(event.at_s), event.text.clone()]).collect();
    let all = soak.events.len() as u64 + soak.events_left_out;
    let caption = format!("The last {} of {all} lines, the newest first", lines.len());
    let table = table(&caption, &["at", "what"], &lines, false);
    format!("<section><h2>What the graph said</h2>\n<details><summary>Lines</summary>{table}</details></section>\n")
}

fn conditions(soak: &Soak) -> String {
    let mut rows = tables::machine(&soak.date, &soak.machine);
    rows.extend(soak.sets.iter().map(|set| ("--set".to_owned(), set.clone())));
    rows.push(("samples".to_owned(), format!("{}, one in {}", soak.rows.rows.len(), time(soak.rows.every_s))));
    let rows: Vec<Vec<String>> = rows.into_iter().map(|(what, value)| vec![what, value]).collect();
    let mut out = "<section><h2>Conditions</h2>\n".to_owned();
    out += &table("Where and with what", &["", ""], &rows, false);
    if !soak.schedule.is_empty() {
        out += &format!("<h3>The file of faults</h3>\n<pre><code>{}</code></pre>\n", escape(&soak.schedule));
    }
    out += &format!("<h3>To repeat it</h3>\n<pre><code>{}</code></pre>\n</section>\n", escape(&soak.command));
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::soak::tests::{fault, soak};
    use crate::soak::{Account, Usage};

    fn sampled() -> Soak {
        let mut soak = soak();
        soak.schedule = "faults: [{ kill: <each> }]".into();
        for n in 1..=60_u32 {
            let at_s = f64::from(n) * 10.0;
            let process = ProcessRow { pid: 7, pss_mib: 40.0 + f64::from(n % 3), ..ProcessRow::default() };
            let state = if n == 30 { "stalled" } else { "live" }.to_owned();
            let camera = CameraRow { state, fps: 25.0, age_ms: Some([1.0, 2.0, 3.0]), lost: 0 };
            soak.rows.push(Row {
                at_s,
                seconds: 10.0,
                processes: [("dec<ode>".to_owned(), process)].into(),
                cameras: [("gate&".to_owned(), camera)].into(),
                whole: Usage { pss_mib: 40.0, ..Usage::default() },
            });
            soak.measured_s = at_s;
        }
        soak.cameras.insert("gate&".into(), Account { served_s: 590.0, missing_s: 10.0, ..Account::default() });
        soak.lost.insert("gate&".into(), [("detect: late".to_owned(), 7)].into());
        soak.fault(fault(Some(1.0), Some(2.0)));
        soak.event("camera gate&: stalled".into());
        soak
    }

    #[test]
    fn the_page_needs_nothing_else_and_shows_everything() {
        let page = soak_html(&sampled());
        for part in [
            "<strong>did not hold</strong>",
            "availability",
            "98.333",
            "dec&lt;ode&gt;",
            "gate&amp;",
            "detect: late: 7",
            "state-stalled",
            "kill detect",
            "Log of faults",
            "All slopes",
            "kill: &lt;each&gt;",
            "--for 2h",
        ] {
            assert!(page.contains(part), "{part}: {page}");
        }
        // rates, ages, losses, memory, processor time, /dev/shm; no GPU was looked at
        assert_eq!(page.matches("over time</title>").count(), 6);
        let own = page.replace("http://www.w3.org/2000/svg", "");
        assert!(!["http://", "https://", "<script", "src="].iter().any(|outside| own.contains(outside)));
    }

    #[test]
    fn a_page_of_nothing_is_a_page() {
        let page = soak_html(&soak());
        assert!(page.contains("<strong>not finished</strong>") && !page.contains("<svg"), "{page}");
    }

    #[test]
    fn a_record_is_read_back_as_it_was() {
        let written = soak_json(&sampled()).unwrap();
        let read = soak_read(&written).unwrap();
        assert_eq!(soak_json(&read).unwrap(), written);
        let other = written.replacen("\"schema\":1", "\"schema\":2", 1);
        assert!(soak_read(&other).unwrap_err().starts_with("the record of a soak of schema 2"));
        assert!(soak_read("{}").unwrap_err().starts_with("not the record of a soak"));
    }
}
