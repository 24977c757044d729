//! millrace-ingest
