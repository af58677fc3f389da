//! `nnflow init`: writes a first workflow for a dataset.

use std::path::{Path, PathBuf};

use super::outcome::{Exit, Failed, print};

/// What `nnflow init` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct InitArguments {
    /// The dataset's folder, in nnU-Net's raw layout.
    dataset: PathBuf,
    /// The file to write; the dataset's name by default.
    output: Option<PathBuf>,
    /// The recipe to extend.
    #[arg(long, default_value = "nnunet-v2")]
    recipe: String,
}

/// Writes a workflow that names the dataset and shows what is most often changed.
pub(crate) fn init(arguments: &InitArguments) -> Result<Exit, Failed> {
    let listing = nnflow_nnunet::sources::dataset(&arguments.dataset, None).map_err(|error| error.report())?;
    let known = crate::recipes::RECIPES.iter().map(|recipe| recipe.name);
    if !known.clone().any(|name| name == arguments.recipe) {
        let names: Vec<_> = known.map(|name| format!("`{name}`")).collect();
        return Err(Failed::input(format!(
            "there is no recipe `{}`; there are {}",
            arguments.recipe,
            names.join(", ")
        )));
    }
    let folder = fs_err::canonicalize(&arguments.dataset)?;
    let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or("dataset").to_owned();
    let short = name
        .split_once('_')
        .filter(|(number, _)| number.starts_with("Dataset"))
        .map_or(&*name, |(_, rest)| rest)
        .to_lowercase();
    let output = arguments.output.clone().unwrap_or_else(|| PathBuf::from(format!("{short}.toml")));
    if output.exists() {
        return Err(Failed::input_with_hint(
            format!("`{}` is there already", output.display()),
            "name another file as the second argument",
        ));
    }
    let beside = output.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new("."));
    let path = relative(&folder, &fs_err::canonicalize(beside)?);
    let text = workflow_text(&short, &arguments.recipe, &path, listing.cases.len());
    fs_err::write(&output, text)?;
    print(&format!("wrote {}; next: nnflow run {}", output.display(), output.display()));
    Ok(Exit::Done)
}

fn workflow_text(name: &str, recipe: &str, dataset: &str, n_cases: usize) -> String {
    format!(
        "# {name}: {n_cases} training cases.\n\
         \n\
         name = \"{name}\"\n\
         extends = \"{recipe}\"\n\
         seed = 1234\n\
         \n\
         [dataset]\n\
         path = \"{dataset}\"\n\
         \n\
         # Which networks are trained, and in how many folds. Configurations that the plan has no use for are skipped.\n\
         [axes]\n\
         configuration = [\"2d\", \"3d_fullres\", \"3d_lowres\", \"3d_cascade_fullres\"]\n\
         fold = [0, 1, 2, 3, 4]\n\
         \n\
         # `nnflow stage show train` lists all that can be set here.\n\
         [stages.train.with]\n\
         # epochs = 250\n\
         \n\
         # What the result must reach; `nnflow run` exits with 6 where it falls short.\n\
         [expect]\n\
         # \"evaluate.foreground_mean.dice\" = \">= 0.80\"\n"
    )
}

/// `path` as seen from `folder`, both absolute.
fn relative(path: &Path, folder: &Path) -> String {
    let common = path.components().zip(folder.components()).take_while(|(a, b)| a == b).count();
    let ups = folder.components().count() - common;
    let mut relative: PathBuf = std::iter::repeat_n("..", ups).collect();
    relative.extend(path.components().skip(common));
    relative.display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_written_relative_to_the_workflow() {
        assert_eq!(relative(Path::new("/data/sets/a"), Path::new("/data/flows")), "../sets/a");
    }
}
