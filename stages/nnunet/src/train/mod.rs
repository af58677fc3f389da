//! What training needs besides tensors: settings, schedules, patches, batches, the learning curve.
//!
//! All of it is tested without libtorch; the worker puts a network in the middle.

pub mod augmentation;
pub mod curve;
pub mod loader;
pub mod model;
pub mod patches;
pub mod schedule;
pub mod settings;
pub mod slices;
pub mod stop;
