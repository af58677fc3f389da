//! Which of the trained configurations in a folder make up the model.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use nnflow_io::json;
use nnflow_io::plans::Plans;
use nnflow_stage::StageError;
use serde::Deserialize;
use serde_json::Value;

use super::files::Files;
use super::{DESCRIPTION, FOLD_PREFIX, INFERENCE, ImportOptions, PLANS, SEPARATOR, checkpoint_file};

/// The configuration that the cascade of the recipe `predict` ends with.
const CASCADE: &str = "3d_cascade_fullres";
/// The fold that was trained on all cases.
const ALL: &str = "all";

/// A trained configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trained {
    /// Its folder within the model's, with a slash at the end, or empty.
    pub(super) folder: String,
    /// Trainer, plans and configuration, if the folder's name tells them.
    pub(super) identity: Option<Identity>,
    /// Names of the checkpoints of each fold.
    checkpoints: BTreeMap<String, BTreeSet<String>>,
}

/// What the name of a trained configuration's folder tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) trainer: String,
    pub(super) plans: String,
    pub(super) configuration: String,
}

/// A trained configuration that was chosen.
pub(super) struct Chosen {
    /// Its files: those of the model, or those beside the model's folder.
    pub(super) files: Files,
    pub(super) trained: Trained,
    /// The folds that are imported.
    pub(super) folds: Vec<String>,
    /// Its plans.
    pub(super) plans: Plans,
    /// Whether its probabilities are averaged; else it only serves a cascade.
    pub(super) is_member: bool,
}

/// What of `inference_information.json` is read.
#[derive(Debug, Deserialize)]
struct Inference {
    best_model_or_ensemble: Best,
}

#[derive(Debug, Deserialize)]
struct Best {
    selected_model_or_models: Vec<Selected>,
}

#[derive(Debug, Deserialize)]
struct Selected {
    configuration: String,
    trainer: String,
    plans_identifier: String,
}

impl Identity {
    fn of(folder: &str) -> Option<Self> {
        let name = folder.trim_end_matches('/').rsplit('/').next()?;
        match name.split(SEPARATOR).collect::<Vec<_>>().as_slice() {
            [trainer, plans, configuration] => Some(Self {
                trainer: (*trainer).to_owned(),
                plans: (*plans).to_owned(),
                configuration: (*configuration).to_owned(),
            }),
            _ => None,
        }
    }
}

impl Trained {
    /// A file in its folder.
    pub(super) fn file(&self, name: &str) -> String {
        format!("{}{name}", self.folder)
    }

    /// The checkpoint of a fold.
    pub(super) fn checkpoint(&self, fold: &str, name: &str) -> String {
        self.file(&format!("{FOLD_PREFIX}{fold}/{}", checkpoint_file(name)))
    }

    fn title(&self) -> &str {
        if self.folder.is_empty() { "the folder" } else { self.folder.trim_end_matches('/') }
    }

    /// The folder around its own.
    fn dataset_folder(&self) -> &str {
        let own = self.folder.trim_end_matches('/');
        own.rfind('/').map_or("", |place| &own[..=place])
    }

    /// The folds that have the checkpoint; numbered ones only if there are any, as nnU-Net does.
    fn folds(&self, options: &ImportOptions) -> Result<Vec<String>, StageError> {
        let has = |fold: &String| self.checkpoints[fold].contains(&options.checkpoint);
        let missing: Vec<_> = options
            .folds
            .iter()
            .filter(|fold| !self.checkpoints.contains_key(*fold) || !has(fold))
            .map(|fold| format!("fold `{fold}` of {} has no `{}`", self.title(), checkpoint_file(&options.checkpoint)))
            .collect();
        if !missing.is_empty() {
            return Err(StageError::input("the model lacks folds that were asked for").with_details(missing));
        }
        if !options.folds.is_empty() {
            return Ok(options.folds.clone());
        }
        let found: Vec<String> = self.checkpoints.keys().filter(|fold| has(fold)).cloned().collect();
        let numbered: Vec<String> = found.iter().filter(|fold| *fold != ALL).cloned().collect();
        let folds = if numbered.is_empty() { found } else { numbered };
        if folds.is_empty() {
            let others: BTreeSet<&str> = self.checkpoints.values().flatten().map(String::as_str).collect();
            let others: Vec<_> = others.into_iter().map(|name| format!("`--checkpoint {name}`")).collect();
            let message = format!("no fold of {} has a `{}`", self.title(), checkpoint_file(&options.checkpoint));
            return Err(StageError::input(message).with_hint(format!("there is {}", others.join(" and "))));
        }
        Ok(folds)
    }
}

/// The trained configurations among these files.
fn trained_in(files: &Files) -> Result<Vec<Trained>, StageError> {
    let names: BTreeSet<String> = files.names()?.into_iter().collect();
    let mut found: BTreeMap<String, Trained> = BTreeMap::new();
    for name in &names {
        let Some((folder, fold, checkpoint)) = checkpoint_parts(name) else { continue };
        if !names.contains(&format!("{folder}{PLANS}")) || !names.contains(&format!("{folder}{DESCRIPTION}")) {
            continue;
        }
        let trained = found.entry(folder.to_owned()).or_insert_with(|| Trained {
            folder: folder.to_owned(),
            identity: Identity::of(&if folder.is_empty() { own_name(files.path()) } else { folder.to_owned() }),
            checkpoints: BTreeMap::new(),
        });
        trained.checkpoints.entry(fold.to_owned()).or_default().insert(checkpoint.to_owned());
    }
    Ok(found.into_values().collect())
}

fn own_name(path: &Path) -> String {
    let whole = fs_err::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    whole.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Folder, fold and name of a checkpoint: `a/b/fold_0/checkpoint_final.pth` gives `a/b/`, `0` and `final`.
fn checkpoint_parts(name: &str) -> Option<(&str, &str, &str)> {
    let (folder, file) = name.rsplit_once('/')?;
    let checkpoint = file.strip_prefix("checkpoint_")?.strip_suffix(".pth")?;
    let start = folder.rfind('/').map_or(0, |place| place + 1);
    let fold = folder[start..].strip_prefix(FOLD_PREFIX)?;
    let is_fold = fold == ALL || (!fold.is_empty() && fold.bytes().all(|digit| digit.is_ascii_digit()));
    is_fold.then_some((&folder[..start], fold, checkpoint))
}

/// Chooses what is imported; each first stage of a cascade stands before the second.
pub(super) fn choose(path: &Path, options: &ImportOptions) -> Result<Vec<Chosen>, StageError> {
    let files = Files::open(path)?;
    let all = trained_in(&files)?;
    let trained: Vec<Trained> = all.iter().filter(|trained| is_wanted(trained, options)).cloned().collect();
    if trained.is_empty() {
        return Err(nothing_found(path, &all));
    }
    check_one_dataset(&trained)?;
    let members = members(&files, &trained, options)?;
    let mut chosen: Vec<Chosen> = Vec::new();
    for member in &members {
        let plans = plans(&files, member)?;
        let configuration = member.identity.as_ref().map(|identity| identity.configuration.clone());
        let previous = configuration.map_or(Ok(None), |name| previous_stage(&plans, &name))?;
        if let Some(previous) = previous.filter(|name| !members.iter().any(|other| is_named(other, name))) {
            add_first_stage(path, &trained, member, &previous, options, &mut chosen)?;
        }
        let (files, folds) = (Files::open(path)?, member.folds(options)?);
        chosen.push(Chosen { files, trained: member.clone(), folds, plans, is_member: true });
    }
    // A first stage that is a member itself has to run before the second as well.
    chosen.sort_by_key(|one| usize::from(is_named(&one.trained, CASCADE)));
    Ok(chosen)
}

fn is_wanted(trained: &Trained, options: &ImportOptions) -> bool {
    trained.identity.as_ref().is_none_or(|identity| {
        options.trainer.as_ref().is_none_or(|trainer| *trainer == identity.trainer)
            && options.plans.as_ref().is_none_or(|plans| *plans == identity.plans)
    })
}

fn is_named(trained: &Trained, configuration: &str) -> bool {
    trained.identity.as_ref().is_some_and(|identity| identity.configuration == configuration)
}

fn nothing_found(path: &Path, all: &[Trained]) -> StageError {
    if all.is_empty() {
        return StageError::input(format!("`{}` holds no model of nnU-Net's", path.display())).with_hint(
            "a model is a folder with `plans.json`, `dataset.json` and `fold_0/checkpoint_final.pth`, a folder of such \
             folders, or a zip of them",
        );
    }
    let found = all.iter().map(|trained| trained.title().to_owned());
    StageError::input("no model is of that trainer and those plans").with_details(found)
}

fn check_one_dataset(trained: &[Trained]) -> Result<(), StageError> {
    let datasets: BTreeSet<&str> = trained.iter().map(Trained::dataset_folder).collect();
    if datasets.len() == 1 {
        return Ok(());
    }
    let names = datasets.iter().map(|name| name.trim_end_matches('/').to_owned());
    Err(StageError::input("there are models of several datasets")
        .with_details(names)
        .with_hint("name the folder of one of them"))
}

/// The configurations that are averaged.
fn members(files: &Files, trained: &[Trained], options: &ImportOptions) -> Result<Vec<Trained>, StageError> {
    if !options.configurations.is_empty() {
        return options.configurations.iter().map(|name| only(trained, name)).collect();
    }
    if let [one] = trained {
        return Ok(vec![one.clone()]);
    }
    if let Some(selected) = selected_by_nnunet(files, trained)? {
        return Ok(selected);
    }
    let serving = serving(files, trained)?;
    let others: Vec<&Trained> = trained.iter().filter(|one| !serving.contains(&one.folder)).collect();
    match others.as_slice() {
        [one] => Ok(vec![(*one).clone()]),
        _ => Err(ambiguous(trained)),
    }
}

fn only(trained: &[Trained], name: &str) -> Result<Trained, StageError> {
    let found: Vec<&Trained> =
        trained.iter().filter(|one| is_named(one, name) || (one.identity.is_none() && trained.len() == 1)).collect();
    match found.as_slice() {
        [one] => Ok((*one).clone()),
        [] => Err(StageError::input(format!("there is no model of the configuration `{name}`"))
            .with_details(trained.iter().map(|one| one.title().to_owned()))),
        several => Err(StageError::input(format!("there are several models of the configuration `{name}`"))
            .with_details(several.iter().map(|one| one.title().to_owned()))
            .with_hint("choose with `--trainer` or `--plans`")),
    }
}

fn ambiguous(trained: &[Trained]) -> StageError {
    StageError::input("there are several trained configurations, and nnU-Net has not chosen between them")
        .with_details(trained.iter().map(|one| one.title().to_owned()))
        .with_hint(
            "choose with `nnflow import --configuration NAME`, once for each that is to be averaged (and `--trainer`, `--plans`)",
        )
}

/// What `nnUNetv2_find_best_configuration` chose, if its choice is here.
fn selected_by_nnunet(files: &Files, trained: &[Trained]) -> Result<Option<Vec<Trained>>, StageError> {
    let name = format!("{}{INFERENCE}", trained.first().map_or("", Trained::dataset_folder));
    if !files.names()?.contains(&name) {
        return Ok(None);
    }
    let document: Inference = json::from_slice(&files.read(&name)?, Path::new(&name))
        .map_err(|error| StageError::input(error.to_string()))?;
    let find = |selected: &Selected| {
        let is_it = |identity: &Identity| {
            identity.configuration == selected.configuration
                && identity.trainer == selected.trainer
                && identity.plans == selected.plans_identifier
        };
        trained.iter().find(|one| one.identity.as_ref().is_some_and(is_it)).cloned()
    };
    let selected: Option<Vec<Trained>> =
        document.best_model_or_ensemble.selected_model_or_models.iter().map(find).collect();
    Ok(selected.filter(|selected| !selected.is_empty()))
}

/// The folders of those that are the first stage of another one.
fn serving(files: &Files, trained: &[Trained]) -> Result<BTreeSet<String>, StageError> {
    let mut folders = BTreeSet::new();
    for one in trained {
        let Some(identity) = &one.identity else { continue };
        if let Some(previous) = previous_stage(&plans(files, one)?, &identity.configuration)? {
            folders.extend(trained.iter().filter(|other| is_named(other, &previous)).map(|one| one.folder.clone()));
        }
    }
    Ok(folders)
}

pub(super) fn previous_stage(plans: &Plans, configuration: &str) -> Result<Option<String>, StageError> {
    let planned = plans.configuration(configuration).map_err(|error| StageError::input(error.to_string()))?;
    let Some(previous) = planned.previous_stage else { return Ok(None) };
    if configuration != CASCADE {
        return Err(StageError::input(format!(
            "configuration `{configuration}` takes the segmentation of `{previous}` as input: only a cascade whose second \
             stage is called `{CASCADE}` can be predicted"
        )));
    }
    Ok(Some(previous))
}

/// The first stage of a cascade: among the model's own folders, or beside the model's folder.
fn add_first_stage(
    path: &Path,
    trained: &[Trained],
    second: &Trained,
    configuration: &str,
    options: &ImportOptions,
    chosen: &mut Vec<Chosen>,
) -> Result<(), StageError> {
    let beside = fs_err::canonicalize(path)?.parent().map(Path::to_path_buf).filter(|_| second.folder.is_empty());
    let mut candidates = vec![(path.to_path_buf(), trained.to_vec())];
    if let Some(folder) = beside.filter(|_| path.is_dir()) {
        let found = trained_in(&Files::Folder(folder.clone()))?;
        candidates.push((folder, found));
    }
    let fits = |one: &&Trained| match (&one.identity, &second.identity) {
        (Some(one), Some(second)) => {
            one.configuration == configuration && one.trainer == second.trainer && one.plans == second.plans
        }
        _ => false,
    };
    let found = candidates.iter().find_map(|(path, trained)| Some((path, trained.iter().find(fits)?)));
    let Some((path, first)) = found else {
        return Err(StageError::input(format!(
            "the model is the second stage of a cascade, and its first, `{configuration}`, is not beside it"
        ))
        .with_hint(format!(
            "name the folder around both, or the zip; the first stage is a folder `…{SEPARATOR}{configuration}` of the \
             same trainer and plans"
        )));
    };
    let files = Files::open(path)?;
    let (folds, plans) = (first.folds(options)?, plans(&files, first)?);
    chosen.push(Chosen { files, trained: first.clone(), folds, plans, is_member: false });
    Ok(())
}

fn plans(files: &Files, trained: &Trained) -> Result<Plans, StageError> {
    let name = trained.file(PLANS);
    Plans::from_slice(&files.read(&name)?, Path::new(&name)).map_err(|error| StageError::input(error.to_string()))
}

/// Whether two plans say the same of a configuration.
pub(super) fn same_configuration(one: &Plans, other: &Plans, configuration: &str) -> bool {
    let of = |plans: &Plans| plans.resolved(configuration).ok().map(Value::Object);
    of(one) == of(other) && one.transpose_forward == other.transpose_forward
}
