//! What the stages that export declare alike.

use nnflow_stage::{InputPort, OutputPort, Read};

/// The plan as [`super::ExportPlan::slice`] cuts it.
pub(crate) const PLAN: InputPort = InputPort {
    name: "plan",
    kinds: &["plan"],
    read: Read::Document,
    per_case: false,
    many: false,
    optional: false,
    doc: "how scores are resampled, and the grid of the next stage",
};

/// What [`super::Exporter::export`] makes of a case.
pub(crate) const OUTPUTS: &[OutputPort] = &[
    OutputPort {
        name: "labels",
        kind: "labels",
        per_case: true,
        optional: false,
        document: None,
        doc: "`labels.nii.gz`, or with the dataset's own ending: labels on the image's own grid",
    },
    OutputPort {
        name: "probabilities",
        kind: "probabilities",
        per_case: true,
        optional: true,
        document: None,
        doc: "`probabilities.nna` (f32, [class, z, y, x]) on the image's own grid, if asked for",
    },
    OutputPort {
        name: "next_stage",
        kind: "next_stage",
        per_case: true,
        optional: true,
        document: None,
        doc: "`next_stage.nna` (i16) on the grid of a cascade's next stage",
    },
];
