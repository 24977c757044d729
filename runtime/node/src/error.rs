//! What a node can fail with.

use std::fmt::Display;

/// A node's fault: of one item, which is lost while the node goes on, or of the node.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct NodeError {
    pub(crate) kind: Kind,
    message: String,
}

#[derive(Debug)]
pub(crate) enum Kind {
    Fatal,
    Item { cause: &'static str, source: String },
    Stopped,
}

impl NodeError {
    /// The node cannot go on: it ends with exit code 1, and `message` is what the user sees. It says what, where, what
    /// was expected and how to correct it.
    pub fn fatal(message: impl Display) -> Self {
        Self { kind: Kind::Fatal, message: message.to_string() }
    }

    /// One item of camera `source` is lost. It is counted under `cause`, logged, and the node goes on.
    pub fn frame(cause: &'static str, source: &str, message: impl Display) -> Self {
        Self { kind: Kind::Item { cause, source: source.to_owned() }, message: message.to_string() }
    }

    /// A wait was cut short because the dataflow stops. A node passes it on.
    pub(crate) fn stopped() -> Self {
        Self { kind: Kind::Stopped, message: "the dataflow stops".into() }
    }

    /// A wait was cut short because the dataflow stops.
    pub fn is_stopped(&self) -> bool {
        matches!(self.kind, Kind::Stopped)
    }

    /// The item alone is lost, under this cause.
    pub fn cause(&self) -> Option<&'static str> {
        match &self.kind {
            Kind::Item { cause, .. } => Some(cause),
            Kind::Fatal | Kind::Stopped => None,
        }
    }
}
