//! millrace-graph
