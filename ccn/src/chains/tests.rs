//! Real nodes follow a chain that a provider of the tests' own makes up, takes back and lies about.

mod contradictions;
mod fake;
mod loading;
mod sync;
mod tokens;
