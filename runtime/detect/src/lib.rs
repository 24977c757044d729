//! millrace-detect
