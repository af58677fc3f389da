//! The shared store from outside: against a folder and against a server that speaks S3.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails by panicking")]

mod collect;
mod exchange;
mod faults;
mod independent;
mod s3_server;
mod support;
