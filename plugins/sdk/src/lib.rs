//! What a plugin author needs: bindings, lenient schema types, an in-memory host for tests.
