//! Datasets made of a few numbers, whose plans can be worked out by hand.

use nnflow_io::dataset::DatasetDescription;
use nnflow_io::fingerprint::Fingerprint;
use nnflow_io::plans::{Configuration, Plans, UNetArguments};
use nnflow_nnunet::planner::{PlannerError, PlannerSettings, Reasons, plan};
use serde_json::{Value, json};

/// Equal cases of one channel and two labels.
pub(crate) struct Dataset {
    pub(crate) spacing: [f64; 3],
    pub(crate) shape: [usize; 3],
    pub(crate) n_cases: usize,
    /// `numTraining` of `dataset.json`.
    pub(crate) declared: Option<usize>,
    pub(crate) channel: &'static str,
    pub(crate) relative_size: f64,
}

impl Dataset {
    /// MR images that cropping does not shrink.
    pub(crate) fn new(spacing: [f64; 3], shape: [usize; 3], n_cases: usize) -> Self {
        Self { spacing, shape, n_cases, declared: Some(n_cases), channel: "MRI", relative_size: 1.0 }
    }

    pub(crate) fn plan(&self, settings: &PlannerSettings) -> Planned {
        self.try_plan(settings).expect("a plan")
    }

    pub(crate) fn try_plan(&self, settings: &PlannerSettings) -> Result<Planned, PlannerError> {
        let fingerprint: Fingerprint = serde_json::from_value(json!({
            "spacings": vec![self.spacing; self.n_cases],
            "shapes_after_crop": vec![self.shape; self.n_cases],
            "foreground_intensity_properties_per_channel": {"0": {
                "mean": 1.0, "median": 1.0, "std": 1.0, "min": 0.0, "max": 2.0,
                "percentile_99_5": 2.0, "percentile_00_5": 0.0
            }},
            "median_relative_size_after_cropping": self.relative_size
        }))
        .expect("a fingerprint");
        let mut description = json!({
            "channel_names": {"0": self.channel},
            "labels": {"background": 0, "anterior": 1, "posterior": 2},
            "file_ending": ".nii.gz"
        });
        if let Some(declared) = self.declared {
            description["numTraining"] = json!(declared);
        }
        let description: DatasetDescription = serde_json::from_value(description).expect("a description");
        let (plans, reasons) = plan("Dataset001_Test", &fingerprint, &description, settings)?;
        Ok(Planned { plans, reasons })
    }
}

/// A plan and its reasons.
pub(crate) struct Planned {
    pub(crate) plans: Plans,
    pub(crate) reasons: Reasons,
}

impl Planned {
    pub(crate) fn configuration(&self, name: &str) -> Configuration {
        self.plans.configuration(name).expect("a valid configuration")
    }

    pub(crate) fn unet(&self, name: &str) -> UNetArguments {
        self.configuration(name).architecture.unet(name).expect("a U-Net")
    }

    pub(crate) fn patch(&self, name: &str) -> Vec<usize> {
        self.configuration(name).patch_size
    }

    pub(crate) fn batch(&self, name: &str) -> usize {
        self.configuration(name).batch_size
    }

    pub(crate) fn names(&self) -> Vec<&str> {
        self.plans.configurations.keys().map(String::as_str).collect()
    }

    /// Places of numbers in the plans, the foreground's intensities included, for which there is no reason.
    pub(crate) fn unexplained(&self) -> Vec<String> {
        let document = serde_json::to_value(&self.plans).expect("plans are JSON");
        let mut places = Vec::new();
        numbers("", &document, &mut places);
        places.retain(|place| self.reasons.why(place).is_none());
        places
    }
}

fn numbers(path: &str, value: &Value, places: &mut Vec<String>) {
    let inside = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    match value {
        Value::Number(_) | Value::Bool(_) => places.push(path.to_owned()),
        Value::Array(values) => {
            values.iter().enumerate().for_each(|(index, value)| numbers(&inside(&index.to_string()), value, places));
        }
        Value::Object(map) => map.iter().for_each(|(key, value)| numbers(&inside(key), value, places)),
        Value::Null | Value::String(_) => {}
    }
}
