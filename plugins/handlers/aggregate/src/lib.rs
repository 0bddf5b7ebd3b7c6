//! What AGGREGATE messages mean.
