//! Models as nnU-Net keeps them, made by hand with small networks.

use std::io::Write;
use std::path::{Path, PathBuf};

use nnflow_io::pickle::{Pickled, to_vec};
use nnflow_io::plans::Plans;
use nnflow_io::state_dict::{aliases, parameters};
use nnflow_io::tensors::TensorFile;
use nnflow_io::torch_file::{FloatStorage, write_torch_file};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::sources;

/// A configuration for images of one channel with a network of two stages.
fn configuration() -> Value {
    let resampling = json!({"is_seg": false, "order": 3, "order_z": 0, "force_separate_z": null});
    json!({
        "data_identifier": "nnUNetPlans_3d",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": [8, 8, 8],
        "median_image_size_in_voxels": [16.0, 16.0, 16.0],
        "spacing": [1.0, 1.0, 1.0],
        "normalization_schemes": ["ZScoreNormalization"],
        "use_mask_for_norm": [false],
        "resampling_fn_data": "resample_data_or_seg_to_shape",
        "resampling_fn_seg": "resample_data_or_seg_to_shape",
        "resampling_fn_data_kwargs": resampling,
        "resampling_fn_seg_kwargs": resampling,
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
        "resampling_fn_probabilities_kwargs": resampling,
        "architecture": {
            "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
            "arch_kwargs": {
                "n_stages": 2,
                "features_per_stage": [2, 3],
                "conv_op": "torch.nn.modules.conv.Conv3d",
                "kernel_sizes": [[1, 3, 3], [3, 3, 3]],
                "strides": [[1, 1, 1], [1, 2, 2]],
                "n_conv_per_stage": [1, 1],
                "n_conv_per_stage_decoder": [1],
                "conv_bias": true,
                "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
                "norm_op_kwargs": {"eps": 1e-05, "affine": true},
                "dropout_op": null,
                "dropout_op_kwargs": null,
                "nonlin": "torch.nn.LeakyReLU",
                "nonlin_kwargs": {"inplace": true}
            },
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"]
        },
        "batch_dice": false
    })
}

fn plans() -> Value {
    let mut low = configuration();
    low["next_stage"] = json!("3d_cascade_fullres");
    json!({
        "dataset_name": "Dataset007_Example",
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": [1.0, 1.0, 1.0],
        "original_median_shape_after_transp": [16, 16, 16],
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {
            "3d_fullres": configuration(),
            "3d_lowres": low,
            "3d_cascade_fullres": {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"}
        },
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {"0": {
            "max": 2.0, "mean": 1.0, "median": 1.0, "min": 0.0,
            "percentile_00_5": 0.0, "percentile_99_5": 2.0, "std": 0.5
        }}
    })
}

fn description() -> Value {
    json!({
        "channel_names": {"0": "MRI"},
        "labels": {"background": 0, "front": 1, "back": 2},
        "numTraining": 3,
        "file_ending": ".nii.gz"
    })
}

/// A checkpoint to be written, and what is wrong with it.
struct Writer {
    entries: Vec<(String, Pickled)>,
    storages: Vec<(String, Vec<f32>)>,
}

impl Writer {
    /// The checkpoint of a network whose weights tell which one it is.
    fn new(plans: &Value, configuration: &str, fold: u8) -> Self {
        let read = Plans::from_slice(plans.to_string().as_bytes(), Path::new("plans.json")).expect("plans");
        let architecture = read.configuration(configuration).expect("planned").architecture;
        let channels = if configuration == "3d_cascade_fullres" { 3 } else { 1 };
        let arguments = architecture.unet(configuration).expect("a U-Net");
        let list = parameters(architecture.network().expect("plain"), &arguments, channels, 3);
        let mut state = Vec::new();
        let mut storages = Vec::new();
        for (index, parameter) in list.into_iter().enumerate() {
            let (key, count) = (index.to_string(), parameter.shape.iter().product::<usize>());
            let tensor = Pickled::Tensor { storage: key.clone(), shape: parameter.shape };
            state.extend(aliases(&parameter.name).into_iter().map(|name| (name, tensor.clone())));
            let first = f32::from(fold) + index as f32;
            storages.push((key, (0..count).map(|number| first + number as f32 / 1024.0).collect()));
        }
        let entries = vec![
            ("network_weights".to_owned(), Pickled::Dict(state)),
            ("logging".to_owned(), Pickled::Dict(vec![logged("train_losses", -0.5), logged("ema_fg_dice", 0.75)])),
            ("current_epoch".to_owned(), Pickled::Int(1000)),
            ("init_args".to_owned(), Pickled::Dict(vec![("configuration".to_owned(), configuration.into())])),
            ("trainer_name".to_owned(), "nnUNetTrainer".into()),
            ("inference_allowed_mirroring_axes".to_owned(), Pickled::Tuple(vec![Pickled::Int(0), Pickled::Int(2)])),
        ];
        Self { entries, storages }
    }

    fn state(&mut self) -> &mut Vec<(String, Pickled)> {
        match &mut self.entries[0].1 {
            Pickled::Dict(state) => state,
            other => panic!("the weights are {other:?}"),
        }
    }

    fn write(&self, path: &Path) {
        fs_err::create_dir_all(path.parent().expect("a folder")).expect("can be made");
        let storages: Vec<FloatStorage<'_>> = self
            .storages
            .iter()
            .map(|(key, values)| FloatStorage { key, bytes: bytemuck::cast_slice(values) })
            .collect();
        write_torch_file(path, &Pickled::Dict(self.entries.clone()), &storages).expect("can be written");
    }
}

fn logged(name: &str, value: f64) -> (String, Pickled) {
    (name.to_owned(), Pickled::List(vec![Pickled::Float(0.0), Pickled::Float(value)]))
}

/// A folder of a dataset's models.
struct Results {
    folder: TempDir,
}

impl Results {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a temporary folder") }
    }

    /// With one configuration trained in these folds.
    fn with(configuration: &str, folds: &[u8]) -> Self {
        let results = Self::new();
        results.add(configuration, folds, &plans());
        results
    }

    fn path(&self, below: &str) -> PathBuf {
        self.folder.path().join("Dataset007_Example").join(below)
    }

    fn model(&self, configuration: &str) -> PathBuf {
        self.path(&format!("nnUNetTrainer__nnUNetPlans__{configuration}"))
    }

    fn add(&self, configuration: &str, folds: &[u8], plans: &Value) {
        let model = self.model(configuration);
        for fold in folds {
            let path = model.join(format!("fold_{fold}/checkpoint_final.pth"));
            Writer::new(plans, configuration, *fold).write(&path);
        }
        write(&model.join("plans.json"), plans);
        write(&model.join("dataset.json"), &description());
    }

    fn import(&self, from: &Path, options: &ImportOptions) -> Result<(Imported, PathBuf), nnflow_stage::StageError> {
        let output = self.folder.path().join("bundle");
        if output.exists() {
            fs_err::remove_dir_all(&output).expect("can be removed");
        }
        import(from, options, &output).map(|imported| (imported, output))
    }

    fn error(&self, from: &Path, options: &ImportOptions) -> String {
        let error = self.import(from, options).expect_err("cannot be imported").report();
        let left = fs_err::read_dir(self.folder.path()).expect("is there").flatten().map(|entry| entry.file_name());
        assert_eq!(left.collect::<Vec<_>>(), ["Dataset007_Example"], "something was left");
        [vec![error.message], error.details].concat().join("\n")
    }
}

fn write(path: &Path, document: &Value) {
    fs_err::create_dir_all(path.parent().expect("a folder")).expect("can be made");
    fs_err::write(path, document.to_string()).expect("can be written");
}

fn bundle_document(folder: &Path) -> Value {
    nnflow_io::json::read(&folder.join("bundle.json")).expect("a bundle")
}

fn defaults() -> ImportOptions {
    ImportOptions::default()
}

#[test]
fn a_folder_becomes_a_bundle_with_its_folds() {
    let results = Results::with("3d_fullres", &[0, 3]);
    let (imported, bundle) = results.import(&results.model("3d_fullres"), &defaults()).expect("a model");
    assert_eq!(imported.members, ["3d_fullres"]);
    assert_eq!(bundle_document(&bundle)["folds"], json!({"3d_fullres": ["0", "3"]}));
    let record: Value = nnflow_io::json::read(&bundle.join("models/3d_fullres/fold_3/model.json")).expect("a record");
    assert_eq!(record["mirror_axes"], json!([0, 2]));
    assert_eq!(record["training"]["average_dice"], json!(0.75));
    assert_eq!((record["outputs"].as_u64(), record["input_channels"].as_u64()), (Some(3), Some(1)));
}

#[test]
fn weights_keep_their_numbers_and_get_one_name() {
    let results = Results::with("3d_fullres", &[2]);
    let (_, bundle) = results.import(&results.model("3d_fullres"), &defaults()).expect("a model");
    let weights = TensorFile::open(&bundle.join("models/3d_fullres/fold_2/weights.safetensors")).expect("weights");
    assert!(weights.names().iter().all(|name| !name.contains("all_modules") && !name.contains("decoder.encoder")));
    let first = weights.tensor("encoder.stages.0.0.convs.0.conv.weight").expect("the first parameter");
    assert_eq!(first.shape, [2, 1, 1, 3, 3]);
    let expected: Vec<f32> = (0..18).map(|number| 2.0 + number as f32 / 1024.0).collect();
    assert_eq!(first.bytes, bytemuck::cast_slice::<f32, u8>(&expected));
}

#[test]
fn what_is_exported_is_imported_as_the_same_bundle() {
    let results = Results::with("3d_fullres", &[0, 1]);
    let model = results.model("3d_fullres");
    let keep = json!({
        "postprocessing_fns": ["remove_all_but_largest_component_from_segmentation"],
        "postprocessing_kwargs": [{"labels_or_regions": [1, 2]}]
    });
    write(&model.join("crossval_results_folds_0_1/postprocessing.json"), &keep);
    let (_, bundle) = results.import(&model, &defaults()).expect("a model");
    let listing = sources::bundle(&bundle).expect("a bundle");
    let exported = export(&listing.documents["bundle"], &results.folder.path().join("exported")).expect("exported");
    let again = results.folder.path().join("again");
    import(&exported.folders[0], &defaults(), &again).expect("a model");
    for file in &listing.documents["bundle"] {
        let (before, after) = (fs_err::read(&file.path), fs_err::read(again.join(&file.name)));
        assert!(before.expect("is there") == after.expect("is there"), "{} is another", file.name);
    }
}

#[test]
fn a_zip_gives_the_same_bundle_as_its_folder() {
    let results = Results::with("3d_fullres", &[0]);
    let (_, by_folder) = results.import(&results.path(""), &defaults()).expect("a model");
    let kept = results.folder.path().join("by-folder");
    fs_err::rename(by_folder, &kept).expect("can be renamed");
    let zip = results.path("model.zip");
    let names = ["plans.json", "dataset.json", "fold_0/checkpoint_final.pth"];
    let folder = "Dataset007_Example/nnUNetTrainer__nnUNetPlans__3d_fullres";
    zip_of(&zip, names.map(|name| (format!("{folder}/{name}"), results.model("3d_fullres").join(name))));
    let (_, by_zip) = results.import(&zip, &defaults()).expect("a model");
    for file in &sources::bundle(&kept).expect("a bundle").documents["bundle"] {
        assert_eq!(
            fs_err::read(&file.path).expect("is there"),
            fs_err::read(by_zip.join(&file.name)).expect("is there")
        );
    }
}

fn zip_of(path: &Path, members: impl IntoIterator<Item = (String, PathBuf)>) {
    let mut writer = zip::write::ZipWriter::new(fs_err::File::create(path).expect("can be made"));
    for (name, from) in members {
        writer.start_file(name, zip::write::SimpleFileOptions::default()).expect("can be written");
        writer.write_all(&fs_err::read(from).expect("is there")).expect("can be written");
    }
    writer.finish().expect("can be written");
}

#[test]
fn a_zip_that_would_write_elsewhere_is_refused() {
    let results = Results::with("3d_fullres", &[0]);
    let (zip, plans) = (results.path("model.zip"), results.model("3d_fullres").join("plans.json"));
    zip_of(&zip, [("../../escaped/plans.json".to_owned(), plans)]);
    let error = results.error(&zip, &defaults());
    assert!(error.contains("leads out of the archive's folder"), "{error}");
}

#[test]
fn a_checkpoint_that_would_run_something_is_refused() {
    let results = Results::with("3d_fullres", &[0]);
    let path = results.model("3d_fullres").join("fold_0/checkpoint_final.pth");
    let mut writer = zip::write::ZipWriter::new(fs_err::File::create(&path).expect("can be made"));
    let options = zip::write::SimpleFileOptions::default();
    writer.start_file("archive/data.pkl", options).expect("can be written");
    let target = results.path("touched");
    let mut pickle = b"\x80\x02cposix\nsystem\n".to_vec();
    let command = to_vec(&Pickled::from(format!("touch {}", target.display()).as_str()));
    pickle.extend(&command[2..command.len() - 1]);
    pickle.extend(b"\x85R.");
    writer.write_all(&pickle).expect("can be written");
    writer.finish().expect("can be written");
    let error = results.error(&results.model("3d_fullres"), &defaults());
    assert!(error.contains("`posix.system`") && error.contains("nothing was run"), "{error}");
    assert!(!target.exists());
}

/// What importing says of a checkpoint that was changed.
fn refused(change: impl FnOnce(&mut Writer)) -> String {
    let results = Results::with("3d_fullres", &[0]);
    let mut writer = Writer::new(&plans(), "3d_fullres", 0);
    change(&mut writer);
    writer.write(&results.model("3d_fullres").join("fold_0/checkpoint_final.pth"));
    results.error(&results.model("3d_fullres"), &defaults())
}

#[test]
fn a_missing_tensor_is_named() {
    let error = refused(|writer| writer.state().retain(|(name, _)| name != "decoder.transpconvs.0.bias"));
    assert!(
        error.contains("does not fit the network of the plans\n`decoder.transpconvs.0.bias` is missing"),
        "{error}"
    );
}

#[test]
fn a_tensor_of_another_shape_is_named() {
    let error = refused(|writer| {
        let tensor = Pickled::Tensor { storage: "0".to_owned(), shape: vec![9, 2] };
        writer.state().iter_mut().filter(|(name, _)| name.starts_with("decoder.seg_layers.0.w")).for_each(
            |(_, value)| {
                value.clone_from(&tensor);
            },
        );
    });
    assert!(error.contains("`decoder.seg_layers.0.weight` has the shape [9, 2], expected [3, 2, 1, 1, 1]"), "{error}");
}

#[test]
fn a_tensor_that_the_network_does_not_have_is_named() {
    let error = refused(|writer| {
        let tensor = writer.state()[0].1.clone();
        writer.state().push(("encoder.stages.0.0.convs.0.norm.running_mean".to_owned(), tensor));
    });
    assert!(
        error.contains("`encoder.stages.0.0.convs.0.norm.running_mean` is no parameter of the planned network"),
        "{error}"
    );
}

#[test]
fn a_weight_that_is_no_number_is_refused() {
    let error = refused(|writer| writer.storages[0].1[3] = f32::NAN);
    assert!(error.contains("`encoder.stages.0.0.convs.0.conv.weight` of the checkpoint"), "{error}");
    assert!(error.contains("not finite"), "{error}");
}

#[test]
fn two_values_under_the_names_of_one_parameter_are_refused() {
    let error = refused(|writer| {
        writer.storages.push(("other".to_owned(), vec![5.0; 18]));
        let other = Pickled::Tensor { storage: "other".to_owned(), shape: vec![2, 1, 1, 3, 3] };
        let name = "encoder.stages.0.0.convs.0.all_modules.0.weight";
        writer.state().iter_mut().filter(|(key, _)| key == name).for_each(|(_, value)| value.clone_from(&other));
    });
    assert!(error.contains("two different tensors for `encoder.stages.0.0.convs.0.conv.weight`"), "{error}");
}

#[test]
fn names_of_a_parallel_training_are_understood() {
    let results = Results::with("3d_fullres", &[0]);
    let mut writer = Writer::new(&plans(), "3d_fullres", 0);
    writer.state().iter_mut().for_each(|(name, _)| *name = format!("module.{name}"));
    writer.write(&results.model("3d_fullres").join("fold_0/checkpoint_final.pth"));
    results.import(&results.model("3d_fullres"), &defaults()).expect("a model");
}

#[test]
fn a_cut_checkpoint_is_refused() {
    let results = Results::with("3d_fullres", &[0]);
    let path = results.model("3d_fullres").join("fold_0/checkpoint_final.pth");
    let whole = fs_err::read(&path).expect("is there");
    fs_err::write(&path, &whole[..whole.len() / 2]).expect("can be written");
    let error = results.error(&results.model("3d_fullres"), &defaults());
    assert!(error.contains("is no whole zip archive"), "{error}");
}

#[test]
fn the_fold_of_all_cases_is_taken_only_where_there_is_no_other() {
    let results = Results::with("3d_fullres", &[0]);
    let all = results.model("3d_fullres").join("fold_all/checkpoint_final.pth");
    Writer::new(&plans(), "3d_fullres", 9).write(&all);
    let folds = |results: &Results, options: &ImportOptions| {
        let (_, bundle) = results.import(&results.path(""), options).expect("a model");
        bundle_document(&bundle)["folds"]["3d_fullres"].clone()
    };
    assert_eq!(folds(&results, &defaults()), json!(["0"]));
    assert_eq!(folds(&results, &ImportOptions { folds: vec!["all".to_owned()], ..defaults() }), json!(["all"]));
    fs_err::remove_dir_all(results.model("3d_fullres").join("fold_0")).expect("can be removed");
    assert_eq!(folds(&results, &defaults()), json!(["all"]));
}

#[test]
fn a_fold_that_was_not_trained_is_named() {
    let results = Results::with("3d_fullres", &[0]);
    let options = ImportOptions { folds: vec!["0".to_owned(), "4".to_owned()], ..defaults() };
    let error = results.error(&results.path(""), &options);
    assert!(
        error.ends_with("fold `4` of nnUNetTrainer__nnUNetPlans__3d_fullres has no `checkpoint_final.pth`"),
        "{error}"
    );
}

#[test]
fn several_configurations_need_a_choice() {
    let results = Results::with("3d_fullres", &[0]);
    results.add("3d_lowres", &[0], &plans());
    let error = results.error(&results.path(""), &defaults());
    assert!(error.starts_with("there are several trained configurations"), "{error}");
    let both = ["3d_lowres", "3d_fullres"].map(str::to_owned).to_vec();
    let (imported, _) =
        results.import(&results.path(""), &ImportOptions { configurations: both.clone(), ..defaults() }).expect("both");
    assert_eq!(imported.members, both);
}

#[test]
fn the_choice_of_nnunet_is_taken() {
    let results = Results::with("3d_fullres", &[0]);
    results.add("3d_lowres", &[0], &plans());
    let selected =
        json!([{"configuration": "3d_lowres", "trainer": "nnUNetTrainer", "plans_identifier": "nnUNetPlans"}]);
    let document = json!({"best_model_or_ensemble": {"selected_model_or_models": selected}});
    write(&results.path("inference_information.json"), &document);
    let (imported, _) = results.import(&results.path(""), &defaults()).expect("a model");
    assert_eq!(imported.members, ["3d_lowres"]);
}

#[test]
fn a_cascade_brings_its_first_stage_along() {
    let results = Results::with("3d_cascade_fullres", &[0]);
    results.add("3d_lowres", &[0], &plans());
    for from in [results.path(""), results.model("3d_cascade_fullres")] {
        let (imported, bundle) = results.import(&from, &defaults()).expect("a model");
        assert_eq!(imported.members, ["3d_cascade_fullres"]);
        let axes = &bundle_document(&bundle)["axes"];
        assert_eq!(*axes, json!({"configuration": ["3d_lowres", "3d_cascade_fullres"]}));
    }
}

#[test]
fn a_cascade_without_its_first_stage_is_refused() {
    let results = Results::with("3d_cascade_fullres", &[0]);
    let error = results.error(&results.model("3d_cascade_fullres"), &defaults());
    assert!(error.contains("its first, `3d_lowres`, is not beside it"), "{error}");
}

#[test]
fn postprocessing_found_for_other_folds_is_left_out() {
    let results = Results::with("3d_fullres", &[0, 1]);
    let keep = json!({"postprocessing_fns": [], "postprocessing_kwargs": []});
    write(&results.model("3d_fullres").join("crossval_results_folds_0_1_2_3_4/postprocessing.json"), &keep);
    let (imported, _) = results.import(&results.path(""), &defaults()).expect("a model");
    assert_eq!(imported.steps, 0);
    assert!(imported.notes[0].ends_with("is left out: it was found for other folds"), "{:?}", imported.notes);
}

#[test]
fn plans_of_the_first_versions_are_understood() {
    let mut old = plans();
    let fullres = old["configurations"]["3d_fullres"].as_object_mut().expect("an object");
    fullres.remove("architecture");
    fullres.extend(
        json!({
            "UNet_class_name": "PlainConvUNet", "UNet_base_num_features": 2, "unet_max_num_features": 3,
            "n_conv_per_stage_encoder": [1, 1], "n_conv_per_stage_decoder": [1], "num_pool_per_axis": [0, 1, 1],
            "pool_op_kernel_sizes": [[1, 1, 1], [1, 2, 2]], "conv_kernel_sizes": [[1, 3, 3], [3, 3, 3]]
        })
        .as_object()
        .expect("an object")
        .clone(),
    );
    let results = Results::new();
    results.add("3d_fullres", &[0], &old);
    results.import(&results.path(""), &defaults()).expect("a model");
}

/// What importing says of a model with other plans.
fn refused_plans(change: impl FnOnce(&mut Value)) -> String {
    let results = Results::with("3d_fullres", &[0]);
    let mut changed = plans();
    change(&mut changed);
    write(&results.model("3d_fullres").join("plans.json"), &changed);
    results.error(&results.path(""), &defaults())
}

#[test]
fn what_cannot_be_predicted_alike_is_refused() {
    let turned = refused_plans(|plans| plans["image_reader_writer"] = json!("NibabelIOWithReorient"));
    assert!(turned.contains("turns them to one orientation"), "{turned}");
    let other =
        |key: &str, value: &str| refused_plans(|plans| plans["configurations"]["3d_fullres"][key] = json!(value));
    let preprocessor = other("preprocessor_name", "MyPreprocessor");
    assert!(preprocessor.contains("is preprocessed by `MyPreprocessor`"), "{preprocessor}");
    let function = other("resampling_fn_data", "no_resampling_data_or_seg_to_shape");
    assert!(function.contains("names the function `no_resampling_data_or_seg_to_shape`"), "{function}");
}

#[test]
fn a_network_of_somebodys_own_is_refused() {
    let error = refused_plans(|plans| {
        plans["configurations"]["3d_fullres"]["architecture"]["network_class_name"] = json!("mine.Transformer");
    });
    assert!(error.contains("the plans ask for the network `mine.Transformer`"), "{error}");
}

#[test]
fn a_model_is_told_from_a_bundle() {
    let results = Results::with("3d_fullres", &[0]);
    let (_, bundle) = results.import(&results.path(""), &defaults()).expect("a model");
    assert!(is_foreign(&results.path("")) && is_foreign(&results.model("3d_fullres")));
    assert!(!is_foreign(&bundle) && !is_foreign(&bundle.join("plans.json")));
}

#[test]
fn a_folder_without_models_is_refused() {
    let results = Results::new();
    fs_err::create_dir_all(results.path("")).expect("can be made");
    let error = results.error(&results.path(""), &defaults());
    assert!(error.contains("holds no model of nnU-Net's"), "{error}");
}
