//! What a person or a program sees of a run.

mod failure;
mod journal;
mod plain;
mod terminal;
mod text;

pub use failure::{render_failure, render_report};
pub use journal::Journal;
pub use plain::Plain;
pub use terminal::Terminal;
pub use text::{duration, list_cases, size};
