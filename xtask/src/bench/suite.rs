//! What is measured in one go, and where its figures stand.

use super::network_rows::NETWORKS;
use super::rows::{GROUPS, Group};

/// Groups that are measured together.
pub(crate) struct Suite {
    /// The groups.
    pub(crate) groups: &'static [Group],
    /// The lines around the tables in the page.
    pub(crate) begin: &'static str,
    pub(crate) end: &'static str,
    /// The file with every single run.
    pub(crate) figures: &'static str,
    /// Whether networks take part, which are built with libtorch.
    pub(crate) has_networks: bool,
}

/// From images to what a network reads, and from its answers to measures.
pub(crate) static DATA: Suite = Suite {
    groups: &GROUPS,
    begin: "<!-- figures: written by `cargo xtask bench` -->",
    end: "<!-- end of figures -->",
    figures: "docs/benchmarks.json",
    has_networks: false,
};

/// Augmentation, training and prediction.
pub(crate) static NETWORK: Suite = Suite {
    groups: &NETWORKS,
    begin: "<!-- figures of networks: written by `cargo xtask bench --networks` -->",
    end: "<!-- end of figures of networks -->",
    figures: "docs/benchmarks-networks.json",
    has_networks: true,
};
