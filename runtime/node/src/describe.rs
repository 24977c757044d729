//! `--describe`: a node's ports and settings as JSON, for the graph check and for editors.

use crate::node::{Node, Order, PortIn, PortOut};
use crate::settings::CommonSettings;
use serde_json::{Value, json};

/// Stands in every node's binary, so that a check runs `--describe` only on programs that know it. The check looks for
/// these bytes before it starts anything.
pub(crate) const MARKER: &str = "millrace-node-describe-v1";

pub(crate) fn describe<N: Node>() -> Value {
    let input = |p: &PortIn| {
        let order = match p.order {
            Order::Newest => "newest",
            Order::Every => "every",
        };
        json!({ "name": p.name, "accepts": p.accepts, "order": order, "required": p.required, "doc": p.doc })
    };
    let output = |p: &PortOut| json!({ "name": p.name, "carries": p.carries, "doc": p.doc });
    json!({
        "describe": 1,
        "marker": MARKER,
        "name": N::NAME,
        "version": env!("CARGO_PKG_VERSION"),
        "summary": N::SUMMARY,
        "shares_process": N::SHARES_PROCESS,
        "checks": true,
        "inputs": N::PORTS.inputs.iter().map(input).collect::<Vec<_>>(),
        "outputs": N::PORTS.outputs.iter().map(output).collect::<Vec<_>>(),
        "settings": schema::<N::Settings>(),
        "common_settings": schema::<CommonSettings>(),
    })
}

pub(crate) fn schema<T: schemars::JsonSchema>() -> Value {
    schemars::schema_for!(T).to_value()
}
