//! From a core module to a component. Shared by the build script and the example of the same name.

use anyhow::{Context as _, Result};
use wit_component::ComponentEncoder;

/// Makes a component of a core module that was built against `plugins/wit`, and validates it.
///
/// # Errors
/// The bytes are no module, or one that imports or exports other than the contract that it carries.
pub(crate) fn componentize(module: &[u8]) -> Result<Vec<u8>> {
    ComponentEncoder::default()
        .module(module)
        .context("this is not a core module built against the contract")?
        .validate(true)
        .encode()
        .context("this module does not make a component")
}
