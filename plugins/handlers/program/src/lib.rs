//! What PROGRAM messages mean.
