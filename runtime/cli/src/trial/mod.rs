//! A graph as an experiment runs it: changed, started under dora, watched to its end, on a machine that is described.

pub(crate) mod gpu;
pub(crate) mod launch;
pub(crate) mod machine;
pub(crate) mod plan;
