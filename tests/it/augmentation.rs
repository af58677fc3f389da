//! Training samples that the network's device augments, which is the CPU here.

use crate::support::{Project, exit};

/// One training, of volumes.
const ON_DEVICE: [&str; 6] = [
    "--set",
    "axes.configuration=[\"3d_fullres\"]",
    "--set",
    "stages.train.with.augment_on=\"device\"",
    "--until",
    "train[3d_fullres,0]",
];

#[test]
fn a_training_whose_device_augments_tells_how_long_it_waited_for_samples() {
    let run = Project::fresh().run(&ON_DEVICE).expect(exit::DONE);
    let log = run.log("train[3d_fullres,0]");
    assert!(log.iter().any(|line| line.starts_with("epoch 5 of 5") && line.contains("  waits ")), "{log:?}");
}

#[test]
fn the_number_of_threads_changes_no_weight_where_the_device_augments() {
    let [one, three] = ["1", "3"].map(|threads| {
        let project = Project::fresh();
        project.run(&[&ON_DEVICE[..], &["--threads", threads]].concat()).expect(exit::DONE);
        project.results(&ON_DEVICE[..4]).remove("train[3d_fullres,0].model").expect("it has run")
    });
    assert_eq!(one, three);
}
