//! What is said of where a model's nodes are computed.

use crate::device::Part;
use ort::ep::{self, ExecutionProvider};
use std::collections::BTreeMap;

/// Operators that are named; the rest are counted together.
const NAMED: usize = 8;
/// Operators that handle shapes and indices: small numbers, which the GPU would be no faster with.
const OF_SHAPES: [&str; 21] = [
    "Shape",
    "Size",
    "Gather",
    "Concat",
    "Slice",
    "Unsqueeze",
    "Squeeze",
    "Reshape",
    "Cast",
    "Add",
    "Sub",
    "Mul",
    "Div",
    "Range",
    "Expand",
    "ConstantOfShape",
    "Equal",
    "Where",
    "ReduceProd",
    "Constant",
    "Identity",
];

/// How many nodes the provider of this name computes.
pub(crate) fn nodes(parts: &[Part], provider: &str) -> usize {
    parts.iter().filter(|part| part.provider == provider).map(|part| part.operators.len()).sum()
}

/// How many nodes each provider computes.
pub(crate) fn counts(parts: &[Part]) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for part in parts {
        *counts.entry(&part.provider).or_default() += part.operators.len();
    }
    counts.into_iter().map(|(name, n)| format!("{n} on {name}")).collect::<Vec<_>>().join(", ")
}

/// What the CPU computes of a model that a GPU was asked for, if anything: how many nodes, which operators, and how many copies
/// between GPU and CPU each inference has, where that is known.
pub(crate) fn on_the_cpu(parts: &[Part], copies: Option<usize>) -> Option<String> {
    let mut operators: BTreeMap<&str, usize> = BTreeMap::new();
    let of_cpu = parts.iter().filter(|part| part.provider == ep::CPU::NAME);
    for operator in of_cpu.flat_map(|part| &part.operators) {
        *operators.entry(operator).or_default() += 1;
    }
    let (n, all) = (operators.values().sum::<usize>(), parts.iter().map(|part| part.operators.len()).sum::<usize>());
    if n == 0 {
        return None;
    }
    let heavy = operators.keys().any(|name| !OF_SHAPES.contains(name));
    // what may cost much first, and of that what is most frequent
    let mut list: Vec<(&str, usize)> = operators.into_iter().collect();
    list.sort_by_key(|&(name, n)| (OF_SHAPES.contains(&name), std::cmp::Reverse(n)));
    let mut named: Vec<String> = list.iter().take(NAMED).map(|(name, n)| format!("{n} {name}")).collect();
    let more: usize = list.iter().skip(NAMED).map(|(_, n)| n).sum();
    if more > 0 {
        named.push(format!("{more} more"));
    }
    let copies = match copies {
        Some(1) => ", with 1 copy between GPU and CPU in each inference".to_owned(),
        Some(n) => format!(", with {n} copies between GPU and CPU in each inference"),
        None => String::new(),
    };
    let cure = if heavy {
        "docs/models.md, \"Nodes on the CPU\", says what can be done"
    } else {
        "These operators mostly handle shapes, which costs little"
    };
    Some(format!("{n} of the model's {all} nodes are computed on the CPU{copies}: {}. {cure}", named.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(provider: &str, operators: &[(&str, usize)]) -> Part {
        let names = operators.iter().flat_map(|(name, n)| std::iter::repeat_n((*name).to_owned(), *n));
        Part { provider: provider.to_owned(), operators: names.collect() }
    }

    #[test]
    fn what_is_on_the_cpu_is_said_with_its_operators_the_costly_ones_first() {
        let cuda = part("CUDAExecutionProvider", &[("Conv", 60)]);
        assert_eq!(on_the_cpu(std::slice::from_ref(&cuda), Some(3)), None);
        let cpu = part("CPUExecutionProvider", &[("Shape", 12), ("GridSample", 2), ("NonZero", 4)]);
        let parts = [cuda, cpu, part("CPUExecutionProvider", &[("GridSample", 1)])];
        assert_eq!(counts(&parts), "19 on CPUExecutionProvider, 60 on CUDAExecutionProvider");
        assert_eq!((nodes(&parts, "CPUExecutionProvider"), nodes(&parts, "CUDAExecutionProvider")), (19, 60));
        assert_eq!(
            on_the_cpu(&parts, Some(14)).unwrap_or_default(),
            "19 of the model's 79 nodes are computed on the CPU, with 14 copies between GPU and CPU in each inference: \
             4 NonZero, 3 GridSample, 12 Shape. docs/models.md, \"Nodes on the CPU\", says what can be done"
        );
        let shapes = [part("CUDAExecutionProvider", &[("Conv", 1)]), part("CPUExecutionProvider", &[("Shape", 2)])];
        let text = on_the_cpu(&shapes, None).unwrap_or_default();
        assert!(
            text.ends_with("on the CPU: 2 Shape. These operators mostly handle shapes, which costs little"),
            "{text}"
        );
    }
}
