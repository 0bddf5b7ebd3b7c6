//! What every plugin must be before a node looks at it: a valid component that asks for nothing but the contract and carries its manifest.

use crate::{BUNDLE, INDEXERS, Plugin};
use serde_json::Value;
use wasmparser::{Parser, Payload, Validator, WasmFeatures};

/// Largest manifest, bytes (plugins spec 4.1).
const MAX_MANIFEST_BYTES: usize = 16 << 10;
/// A plugin's size is its load time. The largest has about half of this.
const MAX_PLUGIN_BYTES: usize = 1 << 20;

/// Holds a plugin against the contract: imports of these interfaces at most, exports of those at least. Returns its manifest.
fn check(plugin: &Plugin, imported: &[&str], exported: &[&str]) -> Value {
    let name = plugin.name;
    // What the node's engine allows: no threads, no relaxed SIMD, no exceptions, no 64-bit memories.
    let features = WasmFeatures::WASM2 | WasmFeatures::COMPONENT_MODEL;
    Validator::new_with_features(features).validate_all(plugin.bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert!(plugin.bytes.len() <= MAX_PLUGIN_BYTES, "{name} has {} bytes", plugin.bytes.len());

    let (mut depth, mut imports, mut exports, mut manifests) = (0, vec![], vec![], vec![]);
    for payload in Parser::new(0).parse_all(plugin.bytes) {
        match payload.expect("it is valid") {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth -= 1,
            Payload::ComponentImportSection(section) if depth == 0 => {
                imports.extend(section.into_iter().map(|import| import.expect("it is valid").name.name.to_owned()));
            }
            Payload::ComponentExportSection(section) if depth == 0 => {
                exports.extend(section.into_iter().map(|export| export.expect("it is valid").name.name.to_owned()));
            }
            Payload::CustomSection(section) if section.name() == "aleph:manifest" => manifests.push(section.data()),
            _ => {}
        }
    }
    let interface = |name: &&str| format!("aleph:plugin/{name}@0.2.0");
    let imported: Vec<String> = imported.iter().map(interface).collect();
    assert!(imports.iter().all(|import| imported.contains(import)), "{name} imports {imports:?}");
    for export in exported.iter().map(interface) {
        assert!(exports.contains(&export), "{name} exports {exports:?}");
    }
    let [manifest] = manifests.as_slice() else { panic!("{name} carries {} manifests", manifests.len()) };
    assert!(manifest.len() <= MAX_MANIFEST_BYTES, "{name}");
    serde_json::from_slice(manifest).unwrap_or_else(|error| panic!("{name}: {error}"))
}

#[test]
fn every_plugin_is_a_component_of_the_contract() {
    for plugin in BUNDLE {
        let manifest = check(plugin, &["types", "view", "crypto", "log"], &["handler", "query"]);
        let name = plugin.name;
        assert_eq!(manifest["name"], name);
        assert_eq!((&manifest["wit"], &manifest["kind"]), (&"aleph:plugin@0.2".into(), &"handler".into()), "{name}");
        assert_eq!(manifest["state"]["own"], name);
        // A hyphen is for names on the network; crates and namespaces have none.
        let kind = manifest["types"][0].as_str().unwrap_or_default();
        assert_eq!((kind.replace('-', ""), manifest["types"][1].is_null()), (name.to_uppercase(), true));
        let texts = |value: &Value| value.as_array().is_some_and(|list| list.iter().all(Value::is_string));
        assert!(
            texts(&manifest["state"]["read"]) && texts(&manifest["grants"]) && texts(&manifest["routes"]),
            "{name}"
        );
        for limit in ["fuel", "memory-mib", "write-kib", "writes"] {
            assert!(manifest["limits"][limit].as_u64().is_some_and(|limit| limit > 0), "{name}: {limit}");
        }
    }
}

#[test]
fn every_indexer_is_a_component_of_its_world() {
    for plugin in INDEXERS {
        let manifest = check(plugin, &["types", "chain-view", "crypto", "log"], &["indexer"]);
        let name = plugin.name;
        assert_eq!((&manifest["name"], &manifest["state"]["own"]), (&name.into(), &name.into()));
        assert_eq!((&manifest["wit"], &manifest["kind"]), (&"aleph:plugin@0.2".into(), &"indexer".into()), "{name}");
        assert_eq!(manifest["types"], serde_json::json!([]), "{name}");
    }
}

#[test]
fn no_path_of_the_building_machine_is_inside() {
    for plugin in BUNDLE.iter().chain(INDEXERS) {
        for needle in [env!("CARGO_MANIFEST_DIR"), "/.cargo/", "/rustc-"] {
            let found = plugin.bytes.windows(needle.len()).any(|window| window == needle.as_bytes());
            assert!(!found, "{} holds {needle}", plugin.name);
        }
    }
}
