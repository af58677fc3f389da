//! The stages, one file each.

pub(crate) mod bundle;
pub(crate) mod crop;
pub(crate) mod ensemble;
pub mod evaluate;
pub(crate) mod export;
pub(crate) mod fingerprint;
pub(crate) mod ingest;
pub(crate) mod normalize;
pub(crate) mod plan;
pub(crate) mod postprocess;
pub(crate) mod predict;
pub(crate) mod resample;
pub(crate) mod select;
pub(crate) mod split;
pub(crate) mod train;
