//! Tests of the heads.
