//! The pipeline as a whole: real store, real plugins.

mod copies;
mod fixtures;
mod folders;
mod orders;
mod rebuild;
mod removal;
mod rules;
