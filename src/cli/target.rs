//! Which workflow a command is about where none is named.

use std::path::{Path, PathBuf};

use petgraph::graph::NodeIndex;

use super::outcome::Failed;
use crate::workflow::Graph;

/// The workflow that is named, or `workflow.toml` here, or the only workflow here.
pub(crate) fn workflow_path(named: Option<&Path>) -> Result<PathBuf, Failed> {
    if let Some(path) = named {
        return Ok(path.to_path_buf());
    }
    let usual = PathBuf::from("workflow.toml");
    if usual.is_file() {
        return Ok(usual);
    }
    let mut found: Vec<PathBuf> = fs_err::read_dir(".")?
        .flatten()
        .map(|entry| PathBuf::from(entry.file_name()))
        .filter(|path| path.extension().is_some_and(|ending| ending == "toml") && is_workflow(path))
        .collect();
    found.sort();
    match found.as_slice() {
        [only] => Ok(only.clone()),
        [] => Err(Failed::input_with_hint("there is no workflow in this folder", "name one with `--workflow FILE`")),
        several => {
            let names: Vec<_> = several.iter().map(|path| format!("`{}`", path.display())).collect();
            Err(Failed::input_with_hint(
                format!("there are several workflows in this folder: {}", names.join(", ")),
                "name one with `--workflow FILE`",
            ))
        }
    }
}

fn is_workflow(path: &Path) -> bool {
    let text = fs_err::read_to_string(path).unwrap_or_default();
    text.lines().any(|line| line.starts_with("extends") || line.starts_with("[stages") || line.starts_with("[dataset]"))
}

/// The nodes that a pattern names.
pub(crate) fn nodes(graph: &Graph, pattern: &str) -> Result<Vec<NodeIndex>, Failed> {
    graph.find(pattern).map_err(|diagnostic| Failed::Workflow(diagnostic.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workflow_is_told_from_other_toml() {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let is_one = |text: &str| {
            let path = folder.path().join("file.toml");
            fs_err::write(&path, text).expect("a file can be written");
            is_workflow(&path)
        };
        assert!(is_one("# mine\nextends = \"nnunet-v2\"\n") && is_one("[dataset]\npath = \".\"\n"));
        assert!(!is_one("[package]\nname = \"x\"\n") && !is_one("# extends\n"));
    }
}
