//! Tests of the workflow language, with stages and a recipe of their own.

mod conditions;
mod expansion;
mod fixtures;
mod fuzz;
mod graph_errors;
mod graphs;
mod language_errors;
mod loading;
mod stage_errors;
mod value_errors;
