//! millrace-node
