//! The standard plugins, built as components and embedded.
