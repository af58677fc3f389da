//! `nnflow phantom`: makes a labelled dataset that needs no download.

use std::path::PathBuf;

use nnflow_nnunet::phantom::PhantomDataset;
use serde_json::{Map, Value, json};

use super::outcome::{Exit, Failed, print};

/// What `nnflow phantom` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct PhantomArguments {
    /// The folder to write, which must not exist yet.
    folder: PathBuf,
    /// Training cases.
    #[arg(long)]
    cases: Option<u32>,
    /// Further cases in `imagesTs`, with their labels in `labelsTs`.
    #[arg(long)]
    test_cases: Option<u32>,
    /// Slices (`2d`) or volumes (`3d`).
    #[arg(long, value_parser = ["2d", "3d"])]
    dimension: Option<String>,
    /// Voxels along z, y and x of a case of average size, such as `64,96,96`.
    #[arg(long, value_delimiter = ',')]
    shape: Option<Vec<usize>>,
    /// How much the shape varies between cases, from 0 to 0.5.
    #[arg(long)]
    shape_variation: Option<f64>,
    /// Spacing in mm along z, y and x, such as `3,1.5,1.5`.
    #[arg(long, value_delimiter = ',')]
    spacing: Option<Vec<f64>>,
    /// How the images are taken.
    #[arg(long, value_parser = ["mr", "ct"])]
    modality: Option<String>,
    /// Channels of an image.
    #[arg(long)]
    channels: Option<usize>,
    /// Labelled organs.
    #[arg(long)]
    organs: Option<usize>,
    /// Another seed, another dataset.
    #[arg(long)]
    seed: Option<u64>,
}

/// Writes the dataset.
pub(crate) fn phantom(arguments: &PhantomArguments) -> Result<Exit, Failed> {
    let folder = &arguments.folder;
    if folder.read_dir().is_ok_and(|mut entries| entries.next().is_some()) || folder.is_file() {
        return Err(Failed::input_with_hint(format!("`{}` is there already", folder.display()), "name another folder"));
    }
    let dataset = PhantomDataset::from_value(&settings(arguments)).map_err(|error| error.report())?;
    dataset.write(folder).map_err(|error| error.report())?;
    print(&format!(
        "wrote {} training and {} test cases to {}; next: nnflow init {}",
        dataset.cases,
        dataset.test_cases,
        folder.display(),
        folder.display()
    ));
    Ok(Exit::Done)
}

/// What was given, as the table that a workflow would have.
fn settings(arguments: &PhantomArguments) -> Value {
    let given = [
        ("cases", arguments.cases.map(Value::from)),
        ("test_cases", arguments.test_cases.map(Value::from)),
        ("dimension", arguments.dimension.clone().map(Value::from)),
        ("shape", arguments.shape.as_ref().map(|shape| json!(shape))),
        ("shape_variation", arguments.shape_variation.map(Value::from)),
        ("spacing", arguments.spacing.as_ref().map(|spacing| json!(spacing))),
        ("modality", arguments.modality.clone().map(Value::from)),
        ("channels", arguments.channels.map(Value::from)),
        ("organs", arguments.organs.map(Value::from)),
        ("seed", arguments.seed.map(Value::from)),
    ];
    let set = given.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    Value::Object(set.collect::<Map<_, _>>())
}
