//! The pipeline as a whole: real store, real plugins.

mod fixtures;
mod orders;
mod rules;
