//! `nnflow phantom`: makes a labelled dataset that needs no download.

use super::outcome::{Exit, Failed};

#[derive(Debug, clap::Args)]
pub(crate) struct PhantomArguments {}

pub(crate) fn phantom(_: &PhantomArguments) -> Result<Exit, Failed> {
    Ok(Exit::Done)
}
