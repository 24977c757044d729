//! `zenoh-publisher`: detections on zenoh keys.

mod config;
mod key;
mod link;
mod message;
mod node;
mod outbox;
#[cfg(test)]
mod tests;

fn main() -> std::process::ExitCode {
    millrace_node::main::<node::ZenohPublisher>()
}
