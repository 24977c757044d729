//! Two graphs in one, with what is the same in both running once.

use crate::trial::plan::{Plan, PlanNode, Port, Source};
use millrace_ab::model::Side;
use std::collections::BTreeMap;

/// Two graphs in one. A node of A alone is called `a.ID`, one of B alone `b.ID`; what both have keeps its name.
#[derive(Clone, Debug)]
pub(super) struct Merged {
    pub(super) plan: Plan,
    names: [BTreeMap<String, String>; 2],
}

impl Merged {
    /// Joins them. Shared are the nodes with the same program, the same effective settings and the same inputs, all of
    /// which are shared themselves.
    pub(super) fn of(a: &Plan, b: &Plan) -> Self {
        let shared = shared(a, b);
        let names = [(a, "a."), (b, "b.")].map(|(plan, prefix)| {
            let name = |id: &str| if shared.iter().any(|s| s == id) { id.to_owned() } else { format!("{prefix}{id}") };
            plan.nodes.iter().map(|node| (node.id.clone(), name(&node.id))).collect::<BTreeMap<_, _>>()
        });
        let mut nodes: Vec<PlanNode> = Vec::new();
        for (plan, names) in [a, b].into_iter().zip(&names) {
            for node in &plan.nodes {
                if !nodes.iter().any(|known| known.id == names[&node.id]) {
                    nodes.push(renamed(node, names));
                }
            }
        }
        Self { plan: Plan { nodes, common: a.common.clone() }, names }
    }

    /// A port of one arm, as it is called here.
    pub(super) fn port(&self, side: Side, port: &Port) -> Port {
        let node = self.names[side as usize].get(&port.node).unwrap_or(&port.node);
        Port { node: node.clone(), output: port.output.clone() }
    }

    /// Whose a node is: A's, B's, or both's.
    pub(super) fn side(&self, id: &str) -> Option<Side> {
        let of = |side: Side| self.names[side as usize].values().any(|name| name == id);
        match (of(Side::A), of(Side::B)) {
            (true, false) => Some(Side::A),
            (false, true) => Some(Side::B),
            _ => None,
        }
    }
}

/// The ids of the nodes that run once for both.
fn shared(a: &Plan, b: &Plan) -> Vec<String> {
    let mut shared: Vec<String> = Vec::new();
    loop {
        let fed = |node: &PlanNode| {
            node.inputs.iter().all(|input| match &input.source {
                Source::Port(port) => shared.contains(&port.node),
                Source::Dora(_) => true,
            })
        };
        let next = a.nodes.iter().find(|node| {
            let twin = b.node(&node.id);
            !shared.contains(&node.id)
                && fed(node)
                && twin.is_some_and(|twin| node.is_like(twin) && node.inputs == twin.inputs)
        });
        match next.map(|node| node.id.clone()) {
            Some(id) => shared.push(id),
            None => return shared,
        }
    }
}

fn renamed(node: &PlanNode, names: &BTreeMap<String, String>) -> PlanNode {
    let mut node = node.clone();
    node.id = names[&node.id].clone();
    for input in &mut node.inputs {
        if let Source::Port(port) = &mut input.source
            && let Some(name) = names.get(&port.node)
        {
            port.node = name.clone();
        }
    }
    // a camera is called after its node where nobody named it, and both arms' frames are of the same one
    let named = ["CAMERA", "SOURCES"].iter().any(|key| node.settings.get(*key).is_some_and(|value| !value.is_empty()));
    if node.id != node.original && node.is_source() && node.has("CAMERA") && !named {
        let original = node.original.clone();
        node.give("CAMERA", &original);
    }
    node
}
