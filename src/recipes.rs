//! The recipes that come with nnflow: complete workflows that others extend by name.

use crate::workflow::Recipe;

/// Every recipe.
pub const RECIPES: &[Recipe] = &[
    Recipe { name: "nnunet-v2", text: include_str!("../workflows/recipes/nnunet-v2.toml") },
    Recipe { name: "nnunet-v2-finetune", text: include_str!("../workflows/recipes/nnunet-v2-finetune.toml") },
    Recipe { name: "nnunet-2018", text: include_str!("../workflows/recipes/nnunet-2018.toml") },
    Recipe { name: "nnunet-2018-paper", text: include_str!("../workflows/recipes/nnunet-2018-paper.toml") },
    Recipe { name: "predict", text: include_str!("../workflows/recipes/predict.toml") },
    Recipe { name: "predict-2018", text: include_str!("../workflows/recipes/predict-2018.toml") },
];
