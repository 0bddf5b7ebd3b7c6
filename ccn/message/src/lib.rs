//! The words of the Aleph Cloud network: hashes, chains, envelopes, contents, signatures.
