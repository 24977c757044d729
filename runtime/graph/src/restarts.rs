//! Whether dora starts a node again, and how long that may last.

use crate::model::text_of;
use crate::yaml::Yaml;
use std::time::Duration;

/// dora doubles the delay so often at most.
const DOUBLINGS: u32 = 16;
/// A longer delay than this counts as this one.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// What a graph says of the restarts of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restarts {
    /// How often dora starts it again, within its `restart_window` where it has one; none for as often as it takes.
    pub most: Option<u32>,
    /// The longest time from an end to the next start. dora doubles `restart_delay` from one end to the next, up to
    /// `max_restart_delay`.
    pub longest_delay: Duration,
}

impl Restarts {
    /// Those of a node with a policy; none where dora does not start it again.
    pub(crate) fn read(item: &Yaml, policy: Option<&str>, has_inputs: bool) -> Option<Self> {
        if !has_inputs || policy.is_none_or(|policy| policy == "never") {
            return None;
        }
        let text = |key: &str| text_of(item, key).map(|value| value.value);
        let seconds = |key: &str| Duration::try_from_secs_f64(text(key)?.parse().ok()?).ok();
        let most = text("max_restarts").and_then(|text| text.parse().ok()).filter(|most| *most > 0);
        let doublings = most.map_or(DOUBLINGS, |most: u32| (most - 1).min(DOUBLINGS));
        let delay = seconds("restart_delay").unwrap_or_default().saturating_mul(1 << doublings);
        let longest_delay = delay.min(seconds("max_restart_delay").unwrap_or(LONGEST)).min(LONGEST);
        Some(Self { most, longest_delay })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use crate::fault::Report;
    use crate::model::Graph;

    /// Whether a node with these keys comes back: how often, and after how many milliseconds at most.
    fn of(keys: &str) -> Option<(Option<u32>, u128)> {
        let text = format!("nodes:\n  - id: a\n    path: x\n{keys}");
        let mut report = Report::new("g.yml".to_owned(), &text);
        let graph = Graph::read(&text, &mut report).unwrap();
        graph.nodes[0].restarts.map(|restarts| (restarts.most, restarts.longest_delay.as_millis()))
    }

    #[test]
    fn delays_are_those_that_dora_doubles() {
        let with = |keys: &str| of(&format!("    inputs: {{ i: dora/timer/secs/1 }}\n{keys}"));
        assert_eq!(with(""), None);
        assert_eq!(with("    restart_policy: never\n"), None);
        assert_eq!(of("    restart_policy: always\n"), None, "dora restarts no node without inputs");
        let policy = "    restart_policy: on-failure\n";
        assert_eq!(with(policy), Some((None, 0)), "at once");
        let three = "    max_restarts: 3\n    restart_delay: 0.5\n";
        assert_eq!(with(&format!("{policy}{three}")), Some((Some(3), 2_000)), "0.5, 1, 2");
        let capped = "    restart_delay: 0.5\n    max_restart_delay: 30\n";
        assert_eq!(with(&format!("{policy}{capped}")), Some((None, 30_000)));
        let endless = "    max_restarts: 0\n    restart_delay: 0.5\n";
        assert_eq!(with(&format!("{policy}{endless}")), Some((None, 32_768_000)), "0.5 s, sixteen times doubled");
        assert_eq!(
            with(&format!("{policy}    restart_delay: 1e9\n")),
            Some((None, 86_400_000)),
            "a day is long enough"
        );
    }
}
