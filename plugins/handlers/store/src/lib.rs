//! What STORE messages mean.
