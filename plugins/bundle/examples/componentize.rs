//! Makes a plugin file of a core module: `cargo run -p plugin-bundle --example componentize -- IN.wasm OUT.wasm`.

use anyhow::{Context as _, Result, bail};
use std::{env, fs};

#[path = "../src/componentize.rs"]
mod componentize;

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [input, output] = arguments.as_slice() else {
        bail!("expected two arguments: the core module to read and the plugin file to write");
    };
    let module = fs::read(input).with_context(|| input.clone())?;
    fs::write(output, componentize::componentize(&module)?).with_context(|| output.clone())
}
