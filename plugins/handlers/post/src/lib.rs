//! What POST messages mean.
