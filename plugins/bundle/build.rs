//! Builds the standard plugins for WebAssembly, makes a component of each and writes the list that `src/lib.rs` includes.
//!
//! A build within a build: another cargo, with a target directory of its own under `OUT_DIR`, so that neither waits for the other's lock. It
//! shares the job server of the outer one, and sees none of what only the outer one is meant to see.

use anyhow::{Context as _, Result, ensure};
use std::{
    env,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

#[path = "src/componentize.rs"]
mod componentize;
use componentize::componentize;

/// The standard plugins: folders of `plugins/handlers`, in the order in which they are listed.
const HANDLERS: [&str; 7] = ["aggregate", "forget", "instance", "post", "program", "store", "vprogram"];
/// The standard indexers of chains: folders of `plugins/indexers`.
const INDEXERS: [&str; 2] = ["erc20", "ethereum"];
/// What their text is made of, relative to the root of the workspace.
const SOURCES: [&str; 10] = [
    "Cargo.lock",
    "Cargo.toml",
    "ccn/message/Cargo.toml",
    "ccn/message/src",
    "plugins/handlers",
    "plugins/indexers",
    "plugins/sdk/Cargo.toml",
    "plugins/sdk/src",
    "plugins/wit",
    "rust-toolchain.toml",
];
/// What a core module is built for: no operating system, so no import but the contract's.
const TARGET: &str = "wasm32-unknown-unknown";
const PROFILE: &str = "plugin";

fn main() -> ExitCode {
    match bundle() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The sentence alone: a backtrace of a build script helps nobody.
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn bundle() -> Result<()> {
    // Of this run, not of the compilation: a target directory may be that of another clone.
    let here = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").context("cargo sets CARGO_MANIFEST_DIR")?);
    let root = here.join("../..").canonicalize().with_context(|| here.display().to_string())?;
    let out = PathBuf::from(env::var_os("OUT_DIR").context("cargo sets OUT_DIR")?);
    for source in SOURCES {
        println!("cargo::rerun-if-changed={}", root.join(source).display());
    }
    println!("cargo::rerun-if-changed=src/componentize.rs");
    check_target()?;
    let modules = build(&root, &out.join("target"))?;
    fs::write(out.join("bundle.rs"), list(&modules, &out, "handler", &HANDLERS)?)?;
    fs::write(out.join("indexers.rs"), list(&modules, &out, "indexer", &INDEXERS)?)?;
    Ok(())
}

/// Makes a component of each module; returns the list of them as an expression.
fn list(modules: &Path, out: &Path, kind: &str, names: &[&str]) -> Result<String> {
    let mut list = String::from("[\n");
    for name in names {
        let module = modules.join(format!("{kind}_{name}.wasm"));
        let module = fs::read(&module).with_context(|| module.display().to_string())?;
        let component = componentize(&module).with_context(|| format!("{kind}-{name}"))?;
        let path = out.join(format!("{name}.wasm"));
        fs::write(&path, component).with_context(|| path.display().to_string())?;
        writeln!(list, "    Plugin {{ name: {name:?}, bytes: include_bytes!({path:?}) }},")?;
    }
    list.push(']');
    Ok(list)
}

/// Says what is missing before a compiler says it in a hundred lines.
fn check_target() -> Result<()> {
    let rustc = env::var_os("RUSTC").context("cargo sets RUSTC")?;
    let output = Command::new(rustc).args(["--print", "target-libdir", "--target", TARGET]).output()?;
    let folder = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    ensure!(
        output.status.success() && Path::new(&folder).is_dir(),
        "the standard plugins are built for {TARGET}, whose standard library is not installed: run `rustup target add {TARGET}`"
    );
    Ok(())
}

/// Builds all plugins, one after the other; returns the folder of their core modules. Their crates are ordinary libraries, so that tests put several
/// together; as modules they are made here, and only so are they optimised as a whole.
fn build(root: &Path, target_dir: &Path) -> Result<PathBuf> {
    let handlers = HANDLERS.map(|name| format!("handler-{name}"));
    let indexers = INDEXERS.map(|name| format!("indexer-{name}"));
    for package in handlers.iter().chain(&indexers) {
        let mut command = Command::new(env::var_os("CARGO").context("cargo sets CARGO")?);
        command
            .current_dir(root)
            .args(["rustc", "--quiet", "--locked", "--lib", "--crate-type", "cdylib", "--package", package])
            .args(["--target", TARGET, "--profile", PROFILE])
            .arg("--target-dir")
            .arg(target_dir);
        for (variable, _) in env::vars_os() {
            if is_of_the_outer_build(&variable.to_string_lossy()) {
                command.env_remove(variable);
            }
        }
        command.env("CARGO_ENCODED_RUSTFLAGS", rust_flags(root));
        let status = command.status().context("cannot start cargo")?;
        ensure!(status.success(), "{package} does not build; try `cargo check -p {package} --target {TARGET}`");
    }
    Ok(target_dir.join(TARGET).join(PROFILE))
}

/// True for variables that would make the inner build another one: flags and wrappers that lints and coverage set, targets, profiles. Which
/// compiler and which proxies are used stays.
fn is_of_the_outer_build(variable: &str) -> bool {
    let prefixes =
        ["CARGO_BUILD_", "CARGO_PROFILE_", "CARGO_TARGET_", "CARGO_CFG_", "CARGO_FEATURE_", "CARGO_PKG_", "DEP_"];
    let names = [
        "CARGO_ENCODED_RUSTFLAGS",
        "CARGO_INCREMENTAL",
        "CLIPPY_ARGS",
        "CLIPPY_CONF_DIR",
        "RUSTC_WORKSPACE_WRAPPER",
        "RUSTFLAGS",
    ];
    names.contains(&variable) || prefixes.iter().any(|prefix| variable.starts_with(prefix))
}

/// Keeps the machine's paths out of the modules, so that the same sources give the same bytes everywhere.
fn rust_flags(root: &Path) -> String {
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| env::home_dir().map(|home| home.join(".cargo")));
    let mut flags = vec![format!("--remap-path-prefix={}=", root.display())];
    if let Some(home) = home {
        flags.push(format!("--remap-path-prefix={}=cargo", home.display()));
    }
    flags.join("\u{1f}")
}
