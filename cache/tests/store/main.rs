//! The store as its users see it: several processes, crashes, damage, full and protected disks.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails by panicking")]

mod child;
mod collect;
mod crash;
mod damage;
mod limits;
mod publish;
mod support;
