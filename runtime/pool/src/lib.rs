//! millrace-pool
