//! One line of the report, and what all of them say together.

use crate::out::wrapped;
use millrace_cuda::CudaError;
use serde::{Deserialize, Serialize};

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum CheckOutcome {
    Ok,
    /// It works, with something to know.
    Warn,
    /// What needs it does not work.
    Missing,
}

/// Which graphs need it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Need {
    /// Every graph.
    Cpu,
    /// Every graph on a GPU.
    Gpu,
    /// A graph on a GPU needs one of these: how slots are shared.
    GpuMemory,
    /// A graph on a GPU needs one of these: what detects there.
    GpuDetector,
    /// Some settings or models.
    Option,
}

/// One line of the report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Check {
    pub(super) name: String,
    pub(super) status: CheckOutcome,
    pub(super) need: Need,
    /// What was found, or what is missing.
    pub(super) value: String,
    /// What to do, or to use instead.
    pub(super) mend: Option<String>,
}

impl Check {
    fn new(name: &str, need: Need, status: CheckOutcome, value: String, mend: Option<String>) -> Self {
        // a line is a line, whatever a library says
        let line = |text: String| text.split_whitespace().collect::<Vec<_>>().join(" ");
        Self { name: name.to_owned(), status, need, value: line(value), mend: mend.map(line) }
    }

    pub(super) fn ok(name: &str, need: Need, value: impl Into<String>) -> Self {
        Self::new(name, need, CheckOutcome::Ok, value.into(), None)
    }

    pub(super) fn warn(name: &str, need: Need, value: impl Into<String>, mend: impl Into<String>) -> Self {
        Self::new(name, need, CheckOutcome::Warn, value.into(), Some(mend.into()))
    }

    pub(super) fn missing(name: &str, need: Need, value: impl Into<String>, mend: impl Into<String>) -> Self {
        Self::new(name, need, CheckOutcome::Missing, value.into(), Some(mend.into()))
    }

    /// The line of an error, which has both halves.
    pub(super) fn failed(name: &str, need: Need, error: &CudaError) -> Self {
        let (value, mend) = match error {
            CudaError::Library { library, cause, brings, instead } => {
                (format!("{library} cannot be opened: {cause}"), format!("{brings}; without it, {instead}"))
            }
            CudaError::Symbol { library, symbol, since, instead } => {
                (format!("{library} has no '{symbol}'"), format!("install {since} or newer, or {instead}"))
            }
            CudaError::Call { hint, .. } => {
                let text = error.to_string();
                let value = text.strip_suffix(hint).map(|t| t.trim_end_matches([' ', ';']).to_owned());
                (value.unwrap_or(text), (*hint).to_owned())
            }
            other => (other.to_string(), INSTEAD.to_owned()),
        };
        Self::missing(name, need, value, mend)
    }
}

/// What to do without a GPU.
pub(super) const INSTEAD: &str =
    "use the CPU nodes: sw-nv12 for nvdec-nv12, cpu-infer or ort-infer for the detector; docs/hardware.md has more";

/// All lines.
pub(super) struct Report {
    pub(super) checks: Vec<Check>,
}

impl Report {
    /// What graphs without a GPU lack.
    pub(super) fn cpu_lacks(&self) -> Vec<String> {
        self.lacking(Need::Cpu)
    }

    /// What graphs on a GPU lack besides.
    pub(super) fn gpu_lacks(&self) -> Vec<String> {
        let mut lacks = self.lacking(Need::Gpu);
        for need in [Need::GpuMemory, Need::GpuDetector] {
            let missing = self.lacking(need);
            if missing.len() == self.checks.iter().filter(|check| check.need == need).count() {
                lacks.push(missing.join(" or "));
            }
        }
        lacks
    }

    fn lacking(&self, need: Need) -> Vec<String> {
        let lacking = |check: &&Check| check.need == need && check.status == CheckOutcome::Missing;
        self.checks.iter().filter(lacking).map(|check| check.name.clone()).collect()
    }

    /// For people: a line for each kind of graph, and below them one for each check, in lines of so many columns.
    pub(super) fn text(&self, columns: usize) -> String {
        let verdict = |lacks: Vec<String>| match lacks.is_empty() {
            true => "ok".to_owned(),
            false => format!("missing: {}", lacks.join(", ")),
        };
        let mut text = String::new();
        let mut line = |line: &str, indent: usize| {
            for part in wrapped(line, columns, &" ".repeat(indent)) {
                text.push_str(part.trim_end());
                text.push('\n');
            }
        };
        line(&format!("CPU graphs  {}", verdict(self.cpu_lacks())), 12);
        line(&format!("GPU graphs  {}", verdict(self.gpu_lacks())), 12);
        line("", 0);
        let width = self.checks.iter().map(|check| check.name.chars().count()).max().unwrap_or(0);
        for Check { name, status, value, mend, .. } in &self.checks {
            let status = match status {
                CheckOutcome::Ok => "ok",
                CheckOutcome::Warn => "warn",
                CheckOutcome::Missing => "missing",
            };
            let mend = mend.as_ref().map(|mend| format!("; {mend}")).unwrap_or_default();
            // text beside a long name is a narrow column on a small terminal
            let indent = if columns < width + 60 { 8 } else { width + 10 };
            line(&format!("{status:<7} {name:<width$}  {value}{mend}"), indent);
        }
        text
    }

    /// For machines.
    pub(super) fn json(&self) -> serde_json::Value {
        let verdict = |lacks: Vec<String>| serde_json::json!({ "ok": lacks.is_empty(), "missing": lacks });
        serde_json::json!({
            "version": env!("CARGO_PKG_VERSION"),
            "cpu": verdict(self.cpu_lacks()),
            "gpu": verdict(self.gpu_lacks()),
            "checks": self.checks,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(checks: &[(&str, Need, CheckOutcome)]) -> Report {
        let check =
            |&(name, need, status): &(&str, Need, CheckOutcome)| Check::new(name, need, status, "v".into(), None);
        Report { checks: checks.iter().map(check).collect() }
    }

    #[test]
    fn one_of_several_ways_is_enough() {
        use {CheckOutcome::*, Need::*};
        let some = report(&[("a", GpuMemory, Missing), ("b", GpuMemory, Warn), ("c", GpuDetector, Ok), ("d", Gpu, Ok)]);
        assert_eq!(some.gpu_lacks(), [""; 0]);
        let none = report(&[("a", GpuMemory, Missing), ("b", GpuMemory, Missing), ("c", GpuDetector, Ok)]);
        assert_eq!(none.gpu_lacks(), ["a or b"]);
        let gpu = report(&[("x", Option, Missing), ("c", GpuDetector, Ok), ("b", GpuMemory, Ok), ("d", Gpu, Missing)]);
        assert_eq!((gpu.cpu_lacks(), gpu.gpu_lacks()), (vec![], vec!["d".to_owned()]));
        assert_eq!(report(&[("m", Cpu, Missing)]).cpu_lacks(), ["m"]);
    }

    #[test]
    fn the_two_results_come_first_and_lines_fit() {
        use {CheckOutcome::*, Need::*};
        let mut report = report(&[
            ("cores", Cpu, Ok),
            ("driver", Gpu, Missing),
            ("a long name", GpuMemory, Warn),
            ("onnxruntime", GpuDetector, Ok),
        ]);
        report.checks[1].value = "libcuda.so.1 cannot be opened ".repeat(9).trim_end().to_owned();
        let text = report.text(80);
        assert!(text.starts_with("CPU graphs  ok\nGPU graphs  missing: driver\n\nok      cores"), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert_eq!(text.matches("cannot be opened").count() + text.matches("cannot be\n").count(), 9, "{text}");
        // in a pipe a check is a line
        assert_eq!(report.text(usize::MAX).lines().count(), 3 + report.checks.len());
    }

    #[test]
    fn an_error_is_parted_into_what_and_how_and_nothing_is_lost() {
        let error = CudaError::Call {
            call: "cuInit",
            what: "this process".into(),
            device: 0,
            code: 803,
            name: "N".into(),
            text: "t".into(),
            hint: "do this",
        };
        let check = Check::failed("driver", Need::Gpu, &error);
        assert_eq!(format!("{}; {}", check.value, check.mend.unwrap_or_default()), error.to_string());
    }

    #[test]
    fn a_line_is_a_line() {
        assert_eq!(Check::ok("a", Need::Cpu, "one\n two\t three").value, "one two three");
    }
}
