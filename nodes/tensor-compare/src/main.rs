//! `tensor-compare`: the tensors of two arms, element by element.
#![forbid(unsafe_code)]

mod compare;
mod config;
mod node;
#[cfg(test)]
mod tests;

fn main() -> std::process::ExitCode {
    millrace_node::main::<node::TensorCompare>()
}
