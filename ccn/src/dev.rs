//! A private network for development.
