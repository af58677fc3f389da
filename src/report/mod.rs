//! What a person or a program sees of a run.

mod failure;
mod journal;
mod live;
mod markdown;
mod plain;
mod run_folder;
mod terminal;
mod text;

pub use failure::{render_failure, render_report};
pub use journal::Journal;
pub use live::Live;
pub use markdown::{Closing, MetricLine, NodeLine};
pub use plain::Plain;
pub(crate) use plain::line_of;
pub use run_folder::RunFolder;
pub use terminal::Terminal;
pub use text::{duration, list_cases, size};
