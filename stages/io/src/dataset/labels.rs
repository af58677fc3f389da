//! What the voxels of a dataset's label images mean.
//!
//! nnU-Net knows two kinds of target: labels, of which each voxel has one, and regions, unions of labels that may
//! overlap (whole tumour, tumour core). One `labels` object of `dataset.json` declares both, and an ignore label. The
//! rules are those of `LabelManager` of nnU-Net 2.8.1.

use std::fmt;
use std::str::FromStr;

/// A target of the segmentation: one label, or a region made of several.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum LabelValue {
    /// The voxels with this label.
    Label(i16),
    /// The voxels with one of these labels, in the order of the file.
    Region(Vec<i16>),
}

impl LabelValue {
    /// The labels that belong to the target.
    #[must_use]
    pub fn members(&self) -> &[i16] {
        match self {
            Self::Label(label) => std::slice::from_ref(label),
            Self::Region(labels) => labels,
        }
    }

    /// True if a voxel with this label belongs to the target.
    #[must_use]
    pub fn contains(&self, label: i16) -> bool {
        self.members().contains(&label)
    }
}

/// The key that nnU-Net uses in its JSON files: `3`, or a Python tuple such as `(1, 2)`.
impl fmt::Display for LabelValue {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Label(label) => write!(formatter, "{label}"),
            Self::Region(labels) => {
                let members = labels.iter().map(i16::to_string).collect::<Vec<_>>().join(", ");
                let comma = if labels.len() == 1 { "," } else { "" };
                write!(formatter, "({members}{comma})")
            }
        }
    }
}

/// A text that is no key of a target.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no label and no region: expected a key such as `3` or `(1, 2)`")]
pub struct TargetKeyError {
    /// The text.
    pub text: String,
}

/// The inverse of the display: `3` or `(1, 2)`.
impl FromStr for LabelValue {
    type Err = TargetKeyError;

    fn from_str(text: &str) -> Result<Self, TargetKeyError> {
        let failed = || TargetKeyError { text: text.to_owned() };
        let number = |text: &str| text.trim().parse::<i16>().map_err(|_| failed());
        let Some(members) = text.strip_prefix('(').and_then(|text| text.strip_suffix(')')) else {
            return number(text).map(Self::Label);
        };
        let members = members.strip_suffix(',').unwrap_or(members);
        members.split(',').map(number).collect::<Result<_, _>>().map(Self::Region)
    }
}

/// The declared labels of a dataset, in the order of the file.
///
/// Made by reading a `dataset.json`, which guarantees that the background is label 0 and that an ignore label, if any,
/// is one above the highest other label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Labels {
    pub(super) entries: Vec<(String, LabelValue)>,
}

/// Name under which `dataset.json` declares the label of voxels that nobody annotated.
pub(super) const IGNORE: &str = "ignore";
/// Name under which `dataset.json` declares label 0.
pub(super) const BACKGROUND: &str = "background";

impl Labels {
    /// Names and targets as declared, background and ignore label included.
    pub fn entries(&self) -> impl Iterator<Item = (&str, &LabelValue)> {
        self.entries.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// All labels but the ignore label, ascending, background first.
    #[must_use]
    pub fn all(&self) -> Vec<i16> {
        let declared = self.entries().filter(|(name, _)| *name != IGNORE);
        let mut labels: Vec<i16> = declared.flat_map(|(_, value)| value.members().to_vec()).collect();
        labels.sort_unstable();
        labels.dedup();
        labels
    }

    /// All labels but background and ignore label, ascending.
    #[must_use]
    pub fn foreground(&self) -> Vec<i16> {
        self.all().into_iter().filter(|&label| label != 0).collect()
    }

    /// True if at least one target unites several labels; the network then predicts regions.
    #[must_use]
    pub fn has_regions(&self) -> bool {
        self.entries.iter().any(|(_, value)| matches!(value, LabelValue::Region(labels) if labels.len() > 1))
    }

    /// The targets of a dataset with regions, background and ignore label left out, in the order of the file.
    ///
    /// Empty for a dataset without regions.
    #[must_use]
    pub fn regions(&self) -> Vec<LabelValue> {
        if !self.has_regions() {
            return Vec::new();
        }
        let targets = self.entries().filter(|(name, value)| *name != IGNORE && !is_background(value));
        targets.map(|(_, value)| value.clone()).collect()
    }

    /// What is evaluated, and what a network has heads for besides the background: regions, or foreground labels.
    #[must_use]
    pub fn foreground_targets(&self) -> Vec<LabelValue> {
        if self.has_regions() {
            return self.regions();
        }
        self.foreground().into_iter().map(LabelValue::Label).collect()
    }

    /// Number of output channels of a network for this dataset.
    #[must_use]
    pub fn segmentation_heads(&self) -> usize {
        if self.has_regions() { self.regions().len() } else { self.all().len() }
    }

    /// The label of voxels that take no part in training and evaluation.
    #[must_use]
    pub fn ignore(&self) -> Option<i16> {
        self.entries().find_map(|(name, value)| match value {
            LabelValue::Label(label) if name == IGNORE => Some(*label),
            _ => None,
        })
    }

    /// Labels between 0 and the highest, the ignore label included, that are not declared; empty if all are consecutive.
    #[must_use]
    pub fn missing(&self) -> Vec<i16> {
        let declared: Vec<i16> = self.all().into_iter().chain(self.ignore()).collect();
        let highest = declared.iter().copied().max().unwrap_or(0);
        (0..highest).filter(|label| !declared.contains(label)).collect()
    }
}

fn is_background(value: &LabelValue) -> bool {
    value.members().iter().all(|&label| label == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(entries: &[(&str, LabelValue)]) -> Labels {
        Labels { entries: entries.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect() }
    }

    fn brats() -> Labels {
        labels(&[
            ("background", LabelValue::Label(0)),
            ("whole tumor", LabelValue::Region(vec![1, 2, 3])),
            ("tumor core", LabelValue::Region(vec![2, 3])),
            ("enhancing tumor", LabelValue::Label(3)),
            ("ignore", LabelValue::Label(4)),
        ])
    }

    #[test]
    fn a_region_is_keyed_as_a_python_tuple() {
        assert_eq!(LabelValue::Region(vec![1, 2, 3]).to_string(), "(1, 2, 3)");
    }

    #[test]
    fn a_region_of_one_label_keeps_pythons_comma() {
        assert_eq!(LabelValue::Region(vec![1]).to_string(), "(1,)");
    }

    #[test]
    fn keys_are_read_back() {
        for value in [LabelValue::Label(7), LabelValue::Region(vec![1]), LabelValue::Region(vec![1, 2, 30])] {
            assert_eq!(value.to_string().parse(), Ok(value));
        }
    }

    #[test]
    fn a_text_that_is_no_key_is_refused() {
        for text in ["", "()", "(1, x)", "1.0", "(1", "40000"] {
            assert!(text.parse::<LabelValue>().is_err(), "{text}");
        }
    }

    #[test]
    fn all_labels_leave_the_ignore_label_out() {
        assert_eq!(brats().all(), [0, 1, 2, 3]);
    }

    #[test]
    fn regions_keep_the_files_order_without_background_and_ignore() {
        let keys: Vec<String> = brats().regions().iter().map(ToString::to_string).collect();
        assert_eq!(keys, ["(1, 2, 3)", "(2, 3)", "3"]);
    }

    #[test]
    fn a_network_for_regions_has_no_background_head() {
        assert_eq!(brats().segmentation_heads(), 3);
    }

    #[test]
    fn a_network_for_labels_has_a_background_head() {
        let plain = labels(&[("background", LabelValue::Label(0)), ("a", LabelValue::Label(1))]);
        assert_eq!(plain.segmentation_heads(), 2);
    }

    #[test]
    fn lists_of_one_label_make_no_regions() {
        let single = labels(&[("background", LabelValue::Label(0)), ("a", LabelValue::Region(vec![1]))]);
        assert!(!single.has_regions());
    }

    #[test]
    fn gaps_between_labels_are_named() {
        let gap =
            labels(&[("background", LabelValue::Label(0)), ("a", LabelValue::Label(2)), ("b", LabelValue::Label(5))]);
        assert_eq!(gap.missing(), [1, 3, 4]);
    }
}
