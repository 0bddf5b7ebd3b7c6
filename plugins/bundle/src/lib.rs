//! The standard plugins, built as components and embedded, so that a core node is one file.
//!
//! They are ordinary plugins: the node loads them through the door that an operator's own files go through.

/// A plugin as it would lie in the folder of plugins.
#[derive(Debug, Clone, Copy)]
pub struct Plugin {
    /// Its name, which is also that of its folder in `plugins/handlers` or `plugins/indexers`.
    pub name: &'static str,
    /// The component.
    pub bytes: &'static [u8],
}

/// The standard plugins.
pub const BUNDLE: &[Plugin] = &include!(concat!(env!("OUT_DIR"), "/bundle.rs"));

/// The standard indexers of chains.
pub const INDEXERS: &[Plugin] = &include!(concat!(env!("OUT_DIR"), "/indexers.rs"));

#[cfg(test)]
mod tests;
