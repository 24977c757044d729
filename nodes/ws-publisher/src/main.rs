//! `ws-publisher`: detections over WebSocket, and the live page.

mod access;
mod client;
mod config;
mod connections;
mod h264;
mod health;
mod hub;
mod jpeg;
mod node;
mod page;
mod pictures;
mod protocol;
mod queue;
mod server;
mod stats;
#[cfg(test)]
mod tests;

fn main() -> std::process::ExitCode {
    millrace_node::main::<node::WsPublisher>()
}
