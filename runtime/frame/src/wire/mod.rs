//! The wire schema (being written).
