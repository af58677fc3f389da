//! Models of nnU-Net's: imported, exported, and predicted with as they are.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use crate::support::{Ended, Project, WORKFLOW, exit};

/// Where the model of one configuration of the workflow lies when it was exported to `exported`.
const EXPORTED: &str = "exported";

/// A project that has run, with its model in nnU-Net's form.
fn exported() -> Project {
    let project = Project::finished();
    project.output(&["export", WORKFLOW, "--output", EXPORTED]);
    project
}

fn predict(project: &Project, model: &str, output: &str) -> Ended {
    project.nnflow(&["predict", model, "data/Dataset001_Tiny/imagesTs", output])
}

/// The files of a folder, by name.
fn files(project: &Project, folder: &str) -> BTreeMap<String, Vec<u8>> {
    let entries = fs_err::read_dir(project.path(folder)).expect("the folder is there").flatten();
    let files = entries.filter(|entry| entry.path().is_file());
    let read = |path| fs_err::read(path).expect("the file can be read");
    files.map(|entry| (entry.file_name().to_string_lossy().into_owned(), read(entry.path()))).collect()
}

/// Puts everything below a folder into a zip.
fn zip(folder: &Path, to: &Path) {
    let mut writer = zip::ZipWriter::new(fs_err::File::create(to).expect("the zip can be made"));
    let mut open = vec![folder.to_path_buf()];
    while let Some(next) = open.pop() {
        for entry in fs_err::read_dir(&next).expect("the folder is there").flatten() {
            let path = entry.path();
            if path.is_dir() {
                open.push(path);
                continue;
            }
            let name = path.strip_prefix(folder).expect("it is below").to_string_lossy().into_owned();
            writer.start_file(name, zip::write::SimpleFileOptions::default()).expect("the zip can be written");
            writer.write_all(&fs_err::read(&path).expect("the file can be read")).expect("the zip can be written");
        }
    }
    writer.finish().expect("the zip can be written");
}

#[test]
fn a_model_predicts_the_same_in_all_its_forms() {
    let project = exported();
    zip(&project.path(EXPORTED), &project.path("exported.zip"));
    project.output(&["import", "exported.zip", "--output", "bundle"]);
    for (model, output) in
        [(WORKFLOW, "by-workflow"), (EXPORTED, "by-folder"), ("exported.zip", "by-zip"), ("bundle", "by-bundle")]
    {
        let ended = predict(&project, model, output);
        assert_eq!(ended.code, exit::DONE, "{model}: {}", ended.err);
        assert!(!files(&project, output).is_empty());
        assert_eq!(files(&project, output), files(&project, "by-workflow"), "{model}");
    }
}

#[test]
fn a_model_that_was_exported_and_imported_is_the_same_bundle() {
    let project = exported();
    let digest = |text: &str| {
        let words = text.split_whitespace().skip_while(|word| *word != "bundle");
        words.skip(1).map(str::to_owned).next().expect("the digest is told")
    };
    let first = digest(&project.output(&["import", EXPORTED, "--output", "first"]));
    project.output(&["export", "first", "--output", "again"]);
    assert_eq!(digest(&project.output(&["import", "again", "--output", "second"])), first);
}

#[test]
fn exporting_tells_how_nnunet_predicts() {
    let project = Project::finished();
    let text = project.output(&["export", WORKFLOW, "--output", EXPORTED]);
    assert!(text.contains("  nnUNetv2_predict_from_modelfolder -i IMAGES -o RESULTS -m exported/"), "{text}");
}

#[test]
fn a_folder_that_is_there_is_not_written_over() {
    let project = exported();
    let again = project.nnflow(&["export", WORKFLOW, "--output", EXPORTED]);
    assert_eq!(again.code, exit::WRONG_INPUT);
    assert!(again.err.contains("is there already") && again.err.contains("hint: name another folder"), "{}", again.err);
    project.output(&["import", EXPORTED, "--output", "bundle"]);
    assert_eq!(project.nnflow(&["import", EXPORTED, "--output", "bundle"]).code, exit::WRONG_INPUT);
}

#[test]
fn what_is_no_model_cannot_be_imported() {
    let project = Project::fresh();
    project.write("letter.pdf", "a letter");
    for (path, message) in [("absent", "there is no model `absent`"), ("letter.pdf", "is no whole zip archive")] {
        let ended = project.nnflow(&["import", path, "--output", "bundle"]);
        assert_eq!(ended.code, exit::WRONG_INPUT);
        assert!(ended.err.contains(message), "{}", ended.err);
        assert!(!project.path("bundle").exists());
    }
}

#[test]
fn a_checkpoint_that_would_run_something_is_refused_on_the_way_to_a_prediction() {
    let project = exported();
    let mut open = vec![project.path(EXPORTED)];
    while let Some(folder) = open.pop() {
        for entry in fs_err::read_dir(&folder).expect("the folder is there").flatten() {
            let path = entry.path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|ending| ending == "pth") {
                let mut writer = zip::ZipWriter::new(fs_err::File::create(&path).expect("can be made"));
                let options = zip::write::SimpleFileOptions::default();
                writer.start_file("archive/data.pkl", options).expect("can be written");
                writer.write_all(b"\x80\x02cos\nsystem\nX\x0d\x00\x00\x00touch touched\x85R.").expect("can be written");
                writer.finish().expect("can be written");
            }
        }
    }
    let ended = predict(&project, EXPORTED, "labels");
    assert_eq!(ended.code, exit::WRONG_INPUT);
    assert!(ended.err.contains("wants to use `os.system` of Python"), "{}", ended.err);
    assert!(!project.path("touched").exists() && !project.path("labels/touched").exists());
}
