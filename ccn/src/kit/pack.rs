//! Puts a manifest into a component: a custom section at its end.

use crate::host::Manifest;
use anyhow::{Context as _, Result};
use std::{fs, path::Path};

/// Id of custom sections, in modules and components alike.
const CUSTOM: u8 = 0;
const NAME: &str = "aleph:manifest";

pub(super) fn pack(component: &Path, manifest: &Path, out: &Path) -> Result<()> {
    let read = |path: &Path| fs::read(path).with_context(|| path.display().to_string());
    let plugin = packed(read(component)?, &read(manifest)?);
    let manifest = Manifest::of(&plugin)?;
    fs::write(out, &plugin).with_context(|| out.display().to_string())?;
    println!("{} {} is {}, {} bytes", manifest.name, manifest.version, out.display(), plugin.len());
    Ok(())
}

fn packed(mut component: Vec<u8>, manifest: &[u8]) -> Vec<u8> {
    let mut body = leb128(NAME.len());
    body.extend_from_slice(NAME.as_bytes());
    body.extend_from_slice(manifest);
    component.push(CUSTOM);
    component.extend(leb128(body.len()));
    component.extend(body);
    component
}

/// A number as WebAssembly writes it: seven bits a byte, the lowest first.
fn leb128(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = (number & 0x7f) as u8;
        number >>= 7;
        if number == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packed_manifest_is_found_again() {
        let manifest = |padding: usize| {
            format!(
                r#"{{"name":"n","version":"1","wit":"aleph:plugin@0.2","kind":"handler","types":["T"],"state":{{"own":"n"}},
                "limits":{{"fuel":1,"memory-mib":1,"write-kib":1,"writes":1}}}}{}"#,
                " ".repeat(padding)
            )
        };
        // Lengths of one, two and three bytes.
        for padding in [0, 200, 16_000] {
            let component = b"\0asm\x0d\0\x01\0".to_vec();
            let plugin = packed(component.clone(), manifest(padding).as_bytes());
            assert_eq!(Manifest::of(&plugin).expect("a manifest").name, "n", "{padding}");
            assert!(Manifest::of(&packed(plugin, manifest(0).as_bytes())).is_err(), "two manifests are one too many");
        }
    }

    #[test]
    fn numbers_are_written_as_webassembly_does() {
        assert_eq!(leb128(0), [0]);
        assert_eq!(leb128(127), [0x7f]);
        assert_eq!(leb128(128), [0x80, 1]);
        assert_eq!(leb128(624_485), [0xe5, 0x8e, 0x26]);
    }
}
