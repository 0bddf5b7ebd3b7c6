//! The manifest: a custom section of the component, JSON (plugins spec 4.1).

use serde::{Deserialize, Serialize};
use wasmparser::{Encoding, Parser, Payload};

/// The section.
const SECTION: &str = "aleph:manifest";
/// The contract that this host speaks.
const CONTRACT: &str = "aleph:plugin@0.2";
/// The kind of plugin that a message type is.
const HANDLER: &str = "handler";
/// The kind of plugin that says what events of a chain mean.
const INDEXER: &str = "indexer";
/// What a plugin asks for to move credits and tokens.
pub(super) const LEDGER: &str = "ledger";
/// What a plugin asks for in its manifest to hide messages.
pub(super) const HIDE: &str = "hide";
/// Largest manifest, bytes.
const MAX_BYTES: usize = 16 << 10;
/// Most entries of a list.
const MAX_ENTRIES: usize = 64;
/// Longest word, bytes.
const MAX_WORD_BYTES: usize = 128;

/// Most fuel that a manifest may ask for: a few seconds.
pub(super) const MAX_FUEL: u64 = 10_000_000_000;
/// Most memory that a manifest may ask for, MiB.
pub(super) const MAX_MEMORY_MIB: u64 = 64;
/// Most that a message may write, KiB.
pub(super) const MAX_WRITE_KIB: u64 = 64 << 10;
/// Most keys that a message may write.
pub(super) const MAX_WRITES: u64 = 100_000;

/// What a plugin says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Manifest {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    wit: String,
    kind: String,
    /// The message types that are its.
    pub types: Vec<String>,
    state: State,
    /// What else it asks for: `ledger`.
    #[serde(default)]
    pub grants: Vec<String>,
    /// Patterns of the HTTP paths that it answers.
    #[serde(default)]
    pub routes: Vec<String>,
    /// What it says of these paths.
    #[serde(default)]
    pub operations: Vec<Operation>,
    /// What a call may take.
    pub limits: Limits,
}

/// What a plugin says of some of its paths, which the reference of the interface shows to clients. The node goes by none of it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Operation {
    /// The patterns of these paths.
    pub routes: Vec<String>,
    /// In a few words.
    pub summary: String,
    /// More than that.
    #[serde(default)]
    pub description: Option<String>,
    /// What can be asked for beside the path.
    #[serde(default)]
    pub query: Vec<QueryParameter>,
    /// The shape of the answer, JSON Schema.
    #[serde(default)]
    pub answer: Option<serde_json::Value>,
}

/// What can be asked for beside a path.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueryParameter {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// What it can be, JSON Schema.
    pub schema: serde_json::Value,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct State {
    own: String,
    /// Of the layout of its state: another one has the state made anew from the messages.
    #[serde(default = "first_version")]
    version: u32,
    #[serde(default)]
    read: Vec<String>,
}

fn first_version() -> u32 {
    1
}

/// What a call may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Limits {
    /// Instructions, about.
    pub fuel: u64,
    /// Memory, MiB.
    pub memory_mib: u64,
    /// Keys and values written, KiB.
    pub write_kib: u64,
    /// Keys written.
    pub writes: u64,
}

/// Why a file is no plugin of this node. Its author's to mend.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// Not WebAssembly.
    #[error("it is no WebAssembly component: {0}")]
    NoComponent(String),
    /// There is none, or more than one.
    #[error("it carries {0} manifests (custom section `{SECTION}`), not one")]
    Count(usize),
    /// Too long.
    #[error("its manifest has {0} bytes, more than {MAX_BYTES}")]
    TooLong(usize),
    /// It does not parse.
    #[error("its manifest is not valid: {0}")]
    Invalid(String),
    /// It is for another host.
    #[error("it is a {kind} for {wit}; this node takes a {HANDLER} or an {INDEXER} for {CONTRACT}")]
    Contract {
        /// What it is.
        kind: String,
        /// The contract it was made for.
        wit: String,
    },
    /// A value beyond its bound.
    #[error("its manifest asks for {name} {value}; allowed are 1 to {most}")]
    Limit {
        /// Which.
        name: &'static str,
        /// What it says.
        value: u64,
        /// The bound.
        most: u64,
    },
}

impl Manifest {
    /// Reads the manifest of a component.
    ///
    /// # Errors
    /// See [`ManifestError`].
    pub fn of(component: &[u8]) -> Result<Self, ManifestError> {
        let (mut is_outermost, mut found) = (true, Vec::new());
        for payload in Parser::new(0).parse_all(component) {
            match payload.map_err(|error| {
                ManifestError::NoComponent(error.message().lines().next().unwrap_or_default().into())
            })? {
                Payload::Version { encoding, .. } => {
                    if is_outermost && encoding == Encoding::Module {
                        return Err(ManifestError::NoComponent("it is a core module".into()));
                    }
                    is_outermost = false;
                }
                // It may be in the module from which the component was made. Two of them are one too many, wherever they are.
                Payload::CustomSection(section) if section.name() == SECTION => found.push(section.data().to_vec()),
                _ => {}
            }
        }
        match found.as_slice() {
            [manifest] => Self::parse(manifest),
            others => Err(ManifestError::Count(others.len())),
        }
    }

    fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        if bytes.len() > MAX_BYTES {
            return Err(ManifestError::TooLong(bytes.len()));
        }
        let invalid = ManifestError::Invalid;
        let manifest: Self = serde_json::from_slice(bytes).map_err(|error| invalid(error.to_string()))?;
        if ![HANDLER, INDEXER].contains(&manifest.kind.as_str()) || manifest.wit != CONTRACT {
            return Err(ManifestError::Contract { kind: manifest.kind, wit: manifest.wit });
        }
        let lists =
            [&manifest.types, &manifest.state.read, &manifest.grants, &manifest.routes].map(|list| list.as_slice());
        if lists.iter().any(|list| list.len() > MAX_ENTRIES) {
            return Err(invalid(format!("a list has more than {MAX_ENTRIES} entries")));
        }
        let known = |operation: &Operation| operation.routes.iter().all(|route| manifest.routes.contains(route));
        if manifest.operations.len() > MAX_ENTRIES || !manifest.operations.iter().all(known) {
            return Err(invalid("it describes what is none of its routes".to_owned()));
        }
        let words = [&manifest.name, &manifest.version, &manifest.state.own];
        for word in words.into_iter().chain(lists.into_iter().flatten()) {
            if word.is_empty() || word.len() > MAX_WORD_BYTES || word.chars().any(char::is_control) {
                return Err(invalid(format!("{word:?} is not a word of 1 to {MAX_WORD_BYTES} bytes")));
            }
        }
        let limits = &manifest.limits;
        for (name, value, most) in [
            ("fuel", limits.fuel, MAX_FUEL),
            ("memory-mib", limits.memory_mib, MAX_MEMORY_MIB),
            ("write-kib", limits.write_kib, MAX_WRITE_KIB),
            ("writes", limits.writes, MAX_WRITES),
        ] {
            if !(1..=most).contains(&value) {
                return Err(ManifestError::Limit { name, value, most });
            }
        }
        Ok(manifest)
    }

    /// The contract that it was made for.
    #[must_use]
    pub fn contract(&self) -> &str {
        &self.wit
    }

    /// What kind of plugin it is.
    #[must_use]
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// True for an indexer of chains.
    #[must_use]
    pub fn is_indexer(&self) -> bool {
        self.kind == INDEXER
    }

    /// The namespace of its state.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.state.own
    }

    /// The version of the layout of its state.
    #[must_use]
    pub fn state_version(&self) -> u32 {
        self.state.version
    }

    /// The namespaces of others that it asks to read.
    #[must_use]
    pub fn reads(&self) -> &[String] {
        &self.state.read
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GOOD: &str = r#"{"name":"n","version":"1","wit":"aleph:plugin@0.2","kind":"handler","types":["T"],
        "state":{"own":"n","version":1,"read":["m"]},"limits":{"fuel":1,"memory-mib":1,"write-kib":1,"writes":1}}"#;

    const LIMITS: &str = r#""fuel":1,"memory-mib":1,"write-kib":1,"writes":1"#;

    fn check(from: &str, to: &str, expect: &str) {
        let error = Manifest::parse(GOOD.replace(from, to).as_bytes()).expect_err("a refusal").to_string();
        assert!(error.contains(expect), "{to}: {error}");
    }

    #[test]
    fn manifests_are_held_against_their_bounds() {
        let manifest = Manifest::parse(GOOD.as_bytes()).expect("a manifest");
        assert_eq!((manifest.namespace(), manifest.reads()), ("n", &["m".to_owned()][..]));
        check("@0.2", "@0.3", "this node takes a handler or an indexer for aleph:plugin@0.2");
        check("\"kind\":\"handler\"", "\"kind\":\"oracle\"", "it is a oracle for");
        check("\"fuel\":1", "\"fuel\":0", "fuel 0; allowed are 1 to");
        check("\"memory-mib\":1", "\"memory-mib\":65", "memory-mib 65; allowed are 1 to 64");
        check("\"types\":[\"T\"]", "\"types\":[\"\"]", "is not a word");
        check("\"types\":[\"T\"],", "", "types");
        let operation = |routes: &str| {
            format!(
                "\"limits\":{{{LIMITS}}},\"routes\":[\"/api/a\"],\"operations\":[{{\"routes\":[{routes}],\"summary\":\"a\"}}]"
            )
        };
        let limits = format!("\"limits\":{{{LIMITS}}}");
        check(&limits, &operation("\"/api/b\""), "it describes what is none of its routes");
        let described =
            Manifest::parse(GOOD.replace(&limits, &operation("\"/api/a\"")).as_bytes()).expect("a manifest");
        assert_eq!(described.operations[0].summary, "a");
        check("\"own\":\"n\"", &format!("\"own\":\"{}\"", "x".repeat(129)), "is not a word");
        assert_eq!(Manifest::parse(&vec![b' '; MAX_BYTES + 1]), Err(ManifestError::TooLong(MAX_BYTES + 1)));
        assert!(matches!(Manifest::of(b"\0asm\x01\0\0\0"), Err(ManifestError::NoComponent(_))));
        assert_eq!(Manifest::of(b"\0asm\x0d\0\x01\0"), Err(ManifestError::Count(0)));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_do_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Manifest::parse(&bytes);
            let _ = Manifest::of(&bytes);
            let _ = Manifest::of(&[b"\0asm\x0d\0\x01\0", bytes.as_slice()].concat());
        }
    }
}
