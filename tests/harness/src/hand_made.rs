//! Plugins written by hand in WebAssembly's text form: small, and able to do what no toolchain would let them do.

use anyhow::{Context as _, Result};
use std::path::Path;
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};

/// Memory from here on is zero: an empty plan, an acceptance without effects, an empty list.
pub const NOTHING: &str = "i32.const 4096";

/// A message type as function bodies. Each gets its message at `(local.get 0)`, answers with a place in memory, and finds `secret` at 1024 and
/// room from 8192 on; `$i` is a local of its own.
#[derive(Debug, Clone)]
pub struct HandMade {
    /// The body of `validate`.
    pub validate: String,
    /// The body of `process`.
    pub process: String,
    /// The body of `withdraw`.
    pub withdraw: String,
    /// The body of `query.run`.
    pub query: String,
    /// JSON.
    pub manifest: String,
}

impl HandMade {
    /// A harmless one: it accepts everything and changes nothing.
    #[must_use]
    pub fn new(manifest: &str) -> Self {
        let body = NOTHING.to_owned();
        Self {
            validate: body.clone(),
            process: body.clone(),
            withdraw: body,
            // Status 200, `text/plain`, an empty body.
            query: "(i32.store16 (i32.const 8192) (i32.const 200)) (i32.store (i32.const 8196) (i32.const 1040))
                (i32.store (i32.const 8200) (i32.const 10)) (i32.const 8192)"
                .to_owned(),
            manifest: manifest.to_owned(),
        }
    }

    /// The component with its manifest.
    ///
    /// # Errors
    /// A body is no WebAssembly text.
    pub fn component(&self) -> Result<Vec<u8>> {
        let Self { validate, process, withdraw, query, manifest } = self;
        let text = format!(
            r#"(module
            (import "aleph:plugin/view@0.2.0" "get" (func $get (param i32 i32 i32)))
            (import "aleph:plugin/view@0.2.0" "get-in" (func $get_in (param i32 i32 i32 i32 i32)))
            (import "aleph:plugin/view@0.2.0" "scan" (func $scan (param i32 i32 i32 i32 i32 i32 i32)))
            (import "aleph:plugin/crypto@0.2.0" "hash" (func $hash (param i32 i32 i32 i32)))
            (import "aleph:plugin/log@0.2.0" "write" (func $log (param i32 i32 i32)))
            (memory (export "memory") 2)
            (global $free (mut i32) (i32.const 65536))
            (data (i32.const 1024) "secret")
            (data (i32.const 1040) "text/plain")
            (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
                (local $at i32)
                (local.set $at (i32.and (i32.add (global.get $free) (i32.const 7)) (i32.const -8)))
                (global.set $free (i32.add (local.get $at) (local.get 3)))
                (local.get $at))
            (func $deep (param i32) (result i32) (i32.add (i32.const 1) (call $deep (local.get 0))))
            (func (export "aleph:plugin/handler@0.2.0#validate") (param i32) (result i32) (local $i i32) {validate})
            (func (export "aleph:plugin/handler@0.2.0#process") (param i32) (result i32) (local $i i32) {process})
            (func (export "aleph:plugin/handler@0.2.0#withdraw") (param i32) (result i32) (local $i i32) {withdraw})
            (func (export "aleph:plugin/handler@0.2.0#price") (param i32) (result i32) unreachable)
            (func (export "aleph:plugin/query@0.2.0#run") (param i32 i32 i32 i32 i32 i32) (result i32) (local $i i32)
                {query}))"#
        );
        let mut module = wat::parse_str(text).context("a body is no WebAssembly text")?;
        let mut contract = wit_parser::Resolve::default();
        let wit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugins/wit");
        let (package, _) = contract.push_dir(&wit).context("the contract")?;
        let world = contract.select_world(&[package], Some("message-handler"))?;
        embed_component_metadata(&mut module, &contract, world, StringEncoding::UTF8)?;
        let mut component = ComponentEncoder::default().validate(true).module(&module)?.encode()?;
        let section = [&[14_u8][..], b"aleph:manifest", manifest.as_bytes()].concat();
        component.push(0);
        // The length in LEB128, on five bytes.
        let length = u32::try_from(section.len())?;
        component.extend((0..5).map(|place| ((length >> (7 * place)) & 0x7f) as u8 | if place < 4 { 0x80 } else { 0 }));
        component.extend(section);
        Ok(component)
    }
}
