//! The rules that every file has to keep, whoever writes it.
//!
//! A rule that only reviewers know is forgotten. Each one stands here as a test that lists all its offenders at once.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package};

/// Which crates of ours each crate may use, and does: ARCHITECTURE.md says why.
const EDGES: [(&str, &[&str]); 12] = [
    ("nnflow", &["nnflow-cache", "nnflow-nnunet", "nnflow-shared", "nnflow-stage"]),
    ("nnflow-bench", &["nnflow-cache", "nnflow-io", "nnflow-kernels"]),
    ("nnflow-cache", &[]),
    ("nnflow-conformance", &["nnflow-io", "nnflow-kernels", "nnflow-net", "nnflow-nnunet", "nnflow-stage"]),
    ("nnflow-io", &["nnflow-kernels"]),
    ("nnflow-kernels", &[]),
    ("nnflow-net", &["nnflow-kernels"]),
    ("nnflow-nnunet", &["nnflow-io", "nnflow-kernels", "nnflow-stage"]),
    ("nnflow-shared", &["nnflow-cache"]),
    ("nnflow-stage", &[]),
    ("nnflow-torch", &["nnflow-io", "nnflow-kernels", "nnflow-net", "nnflow-nnunet", "nnflow-stage"]),
    ("xtask", &[]),
];

/// The crates that bind libtorch.
const BINDINGS: [&str; 2] = ["tch", "torch-sys"];

/// Longer files are hard to find one's way in.
const LONGEST_SOURCE: usize = 700;

/// Dependencies that need no reason.
const OBVIOUS: [&str; 2] = ["serde", "serde_json"];

/// Folders whose name begins with a dot and that are part of the sources all the same.
const HIDDEN_SOURCES: [&str; 3] = [".cargo", ".ci", ".github"];

/// Endings of the files that people write.
const WRITTEN: [&str; 8] = ["html", "json", "md", "py", "rs", "sh", "toml", "yml"];

#[test]
fn crates_use_each_other_as_the_architecture_says() {
    let metadata = metadata();
    let packages = metadata.workspace_packages();
    let ours: BTreeSet<&str> = packages.iter().map(|package| package.name.as_str()).collect();
    let found: BTreeMap<&str, BTreeSet<&str>> =
        packages.iter().map(|package| (package.name.as_str(), uses(package, &ours))).collect();
    let expected = EDGES.map(|(name, uses)| (name, uses.iter().copied().collect()));
    assert_eq!(found, BTreeMap::from(expected));
}

#[test]
fn only_one_crate_binds_libtorch() {
    let metadata = metadata();
    let bindings = BTreeSet::from(BINDINGS);
    let packages = metadata.workspace_packages();
    let binding = packages.iter().filter(|package| !uses(package, &bindings).is_empty());
    assert_eq!(binding.map(|package| package.name.as_str()).collect::<Vec<_>>(), ["nnflow-net"]);
}

#[test]
fn the_engine_is_free_of_libtorch() {
    let reached = closure_in_lock_file("nnflow");
    assert!(reached.contains("nnflow-nnunet"), "the lock file was not understood");
    assert_none("`nnflow` reaches libtorch", BINDINGS.iter().filter(|name| reached.contains(**name)));
}

#[test]
fn every_crate_keeps_the_lints_of_the_workspace() {
    let metadata = metadata();
    let manifests = metadata.workspace_packages().into_iter().map(|package| &package.manifest_path);
    let lax = manifests.filter(|manifest| !read(manifest.as_std_path()).contains("[lints]\nworkspace = true\n"));
    assert_none("a crate without `[lints] workspace = true`", lax);
}

#[test]
fn every_dependency_says_why_it_is_there() {
    let manifest = read(&root().join("Cargo.toml"));
    let table = manifest.split_once("[workspace.dependencies]\n").expect("the workspace lists its dependencies").1;
    let table = table.split("\n[").next().unwrap_or(table);
    let lines = table.lines().filter(|line| line.contains('=') && !line.starts_with('#'));
    let unexplained = lines.filter(|line| {
        let name = line.split([' ', '=']).next().unwrap_or(line);
        !line.contains('#') && !line.contains("path = ") && !OBVIOUS.contains(&name)
    });
    assert_none("a dependency without a reason", unexplained);
}

#[test]
fn no_source_is_too_long() {
    let lengths = sources().into_iter().map(|(path, text)| (path, text.lines().count()));
    let long = lengths.filter(|(_, lines)| *lines > LONGEST_SOURCE).map(|(path, lines)| format!("{path}: {lines}"));
    assert_none("a source of more than 700 lines", long);
}

#[test]
fn nothing_is_left_unfinished() {
    // Put together here, lest this file should find itself.
    let marks = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("todo", "!("), concat!("unimplemented", "!(")];
    assert_none("left unfinished", lines_with(&written_files(), |line| marks.iter().any(|mark| line.contains(mark))));
}

#[test]
fn lints_are_expected_not_allowed() {
    let marks = [concat!("#[", "allow"), concat!("#![", "allow")];
    let found = lines_with(&sources(), |line| marks.iter().any(|mark| line.contains(mark)));
    assert_none("a lint that is allowed; use `#[expect(…, reason = \"…\")]`", found);
}

#[test]
fn no_test_is_ignored() {
    let mark = concat!("#[", "ignore");
    assert_none("a test that is never run", lines_with(&sources(), |line| line.contains(mark)));
}

#[test]
fn no_file_names_a_folder_of_one_machine() {
    let found = lines_with(&written_files(), names_a_machines_folder);
    assert_none("a path of one machine", found);
}

#[test]
fn a_path_of_a_machine_is_told_from_other_paths() {
    let folder = |name: &str| format!("\"/{name}/user/file\"");
    assert!(names_a_machines_folder(&folder("home")) && names_a_machines_folder(&folder("Users")));
    assert!(!names_a_machines_folder(".nnflow/work/node") && !names_a_machines_folder("/usr/lib/libcuda.so.1"));
}

#[test]
fn every_workflow_says_what_it_is_for() {
    let silent = workflows().into_iter().filter(|(_, text)| !text.starts_with("# "));
    assert_none("a workflow without a comment at its beginning", silent.map(|(path, _)| path));
}

#[test]
fn every_workflow_is_in_the_readme() {
    let readme = read(&root().join("README.md"));
    let unnamed = workflows().into_iter().map(|(path, _)| path).filter(|path| {
        let is_recipe = path.contains("/recipes/");
        let file = path.rsplit('/').next().unwrap_or(path);
        !readme.contains(if is_recipe { file.trim_end_matches(".toml") } else { file })
    });
    assert_none("a workflow that README.md does not mention", unnamed);
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn metadata() -> Metadata {
    let manifest = root().join("Cargo.toml");
    MetadataCommand::new().manifest_path(manifest).no_deps().exec().expect("cargo describes the workspace")
}

/// Those of `names` that a package uses outside its tests.
fn uses<'a>(package: &'a Package, names: &BTreeSet<&str>) -> BTreeSet<&'a str> {
    let used = package.dependencies.iter().filter(|dependency| dependency.kind != DependencyKind::Development);
    used.map(|dependency| dependency.name.as_str()).filter(|name| names.contains(name)).collect()
}

/// The names of all packages that one can reach in Cargo.lock, which counts what only tests use as well.
fn closure_in_lock_file(package: &str) -> BTreeSet<String> {
    let lock: toml::Table = read(&root().join("Cargo.lock")).parse().expect("cargo writes a valid Cargo.lock");
    let packages = lock["package"].as_array().expect("Cargo.lock lists packages");
    let mut reached = BTreeSet::new();
    let mut open = vec![package.to_owned()];
    while let Some(name) = open.pop() {
        if !reached.insert(name.clone()) {
            continue;
        }
        let of_this_name = packages.iter().filter(|package| package["name"].as_str() == Some(&name));
        let dependencies = of_this_name.filter_map(|package| package.get("dependencies")?.as_array()).flatten();
        // An entry is a name, followed by the version where there are several.
        open.extend(dependencies.filter_map(|entry| Some(entry.as_str()?.split(' ').next()?.to_owned())));
    }
    reached
}

/// Rust sources, each with its path from the root and its text.
fn sources() -> Vec<(String, String)> {
    written_files().into_iter().filter(|(path, _)| path.ends_with(".rs")).collect()
}

/// Ready-made workflows and recipes.
fn workflows() -> Vec<(String, String)> {
    let in_folder = |path: &str| path.starts_with("workflows/") && path.ends_with(".toml");
    let found: Vec<_> = written_files().into_iter().filter(|(path, _)| in_folder(path)).collect();
    assert!(!found.is_empty(), "no workflow was found");
    found
}

/// All files that people write, but no data, nothing built, and nothing that tools keep in hidden folders.
fn written_files() -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut open = vec![root().to_path_buf()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of the sources can be read") {
            let path = entry.expect("a folder of the sources can be read").path();
            if path.is_dir() {
                open.extend(is_source_folder(&path).then_some(path));
            } else if is_written(&path) {
                let name = path.strip_prefix(root()).expect("the walk stays below the root");
                found.push((name.to_string_lossy().into_owned(), read(&path)));
            }
        }
    }
    assert!(found.iter().any(|(path, _)| path == "tests/it/tidy.rs"), "the walk does not even find this file");
    found.sort();
    found
}

fn is_source_folder(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let is_hidden = name.starts_with('.') && !HIDDEN_SOURCES.contains(&&*name);
    let is_made = path.parent() == Some(root()) && matches!(&*name, "target" | "data");
    !is_hidden && !is_made
}

fn is_written(path: &Path) -> bool {
    let ending = path.extension().unwrap_or_default().to_string_lossy();
    WRITTEN.contains(&&*ending) || path == root().join(".ci/run")
}

/// Each line that offends, as `path:number: line`.
fn lines_with(files: &[(String, String)], offends: impl Fn(&str) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for (path, text) in files {
        let offending = text.lines().enumerate().filter(|(_, line)| offends(line));
        found.extend(offending.map(|(number, line)| format!("{path}:{}: {}", number + 1, line.trim())));
    }
    found
}

/// Whether a line has an absolute path to a place where only one machine has something.
fn names_a_machines_folder(line: &str) -> bool {
    let begins_a_path = |before: &str| {
        let last = before.chars().next_back();
        last.is_none_or(|letter| letter.is_whitespace() || "\"'`(=:,[".contains(letter))
    };
    ["home", "root", "Users", "work", "mnt"].iter().any(|name| {
        let folder = format!("/{name}/");
        line.match_indices(&folder).any(|(place, _)| begins_a_path(&line[..place]))
    })
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()))
}

/// Fails with the list of all offenders, unless there is none.
fn assert_none<T: std::fmt::Display>(rule: &str, offenders: impl IntoIterator<Item = T>) {
    let offenders: Vec<String> = offenders.into_iter().map(|offender| format!("  {offender}")).collect();
    assert!(offenders.is_empty(), "{rule}:\n{}", offenders.join("\n"));
}
