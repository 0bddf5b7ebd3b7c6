//! `cargo xtask images`: guest kernel, initramfs, runtimes and the KVM host, and the compute node beside them.

use crate::{
    build,
    progress::{Progress, seconds},
    setup,
};
use ::images::{Cache, State};
use anyhow::{Context as _, Result};
use harness::installation::Installation;
use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    time::Instant,
};

/// Runtimes that programs run in.
pub(crate) const RUNTIMES: [&str; 2] = ["base", "python"];

/// What to build beyond what a node needs.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Build further runtimes too, by name: qemu is what `bench boot` compares with
    #[arg(long, value_name = "NAME")]
    runtime: Vec<String>,
}

pub(crate) fn run(arguments: &Arguments, yes: bool) -> Result<()> {
    let began = Instant::now();
    let mut runtimes: Vec<&str> = RUNTIMES.to_vec();
    runtimes.extend(arguments.runtime.iter().map(String::as_str));
    let built = make(&runtimes, yes)?;
    println!("{}", build::installation().folder().display());
    if built {
        println!("images are ready ({})", seconds(began.elapsed()));
    } else {
        println!("nothing to do: everything is up to date ({})", seconds(began.elapsed()));
    }
    Ok(())
}

/// Builds what is missing; returns whether anything was.
pub(crate) fn make(runtimes: &[&str], yes: bool) -> Result<bool> {
    setup::packages(&[setup::TO_COMPILE], yes)?;
    setup::targets(&[setup::STATIC_TARGET])?;
    let mut built = build::static_programs()?;
    let cache = Cache::open()?;
    // Building a kernel takes more than running one: asked for only where something is to be built.
    let missing = |outputs: Vec<::images::Output>| {
        outputs.into_iter().any(|output| {
            let wanted = match output.name.strip_prefix("runtime ") {
                Some(name) => runtimes.contains(&name),
                None => true,
            };
            wanted && !matches!(output.state, State::Built { .. })
        })
    };
    if missing(cache.outputs()?) {
        setup::packages(&[::images::system_packages()], yes)?;
        built = true;
    }
    let installation = build::installation();
    put_images(&cache, &installation)?;
    for name in runtimes {
        let image = step(&format!("runtime {name}"), |progress| Ok(cache.rootfs(name, progress)?.image))?;
        place(&image, &installation.runtime(name))?;
    }
    step("KVM host", |progress| Ok(cache.kvm_host(&installation.program("kvm-host"), progress)?.initramfs))?;
    Ok(built)
}

fn put_images(cache: &Cache, installation: &Installation) -> Result<()> {
    let kernel = step("guest kernel", |progress| Ok(cache.kernel(progress)?.flat))?;
    place(&kernel, &installation.kernel())?;
    place(&cache.initramfs(&installation.program("guest-init"))?, &installation.initramfs())
}

/// A step that says nothing when there was nothing to do.
fn step(name: &str, build: impl FnOnce(&Progress) -> Result<PathBuf>) -> Result<PathBuf> {
    let progress = Progress::start_quietly(name);
    let output = build(&progress)?;
    progress.done_unless_quick("built");
    Ok(output)
}

/// Names an output of the cache in the installation. A link: outputs are large and never change.
fn place(output: &Path, place: &Path) -> Result<()> {
    if fs::read_link(place).is_ok_and(|target| target == output) {
        return Ok(());
    }
    let folder = place.parent().context("a place is in a folder")?;
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    let new = place.with_extension("new");
    if new.symlink_metadata().is_ok() {
        fs::remove_file(&new).with_context(|| new.display().to_string())?;
    }
    symlink(output, &new).with_context(|| new.display().to_string())?;
    fs::rename(&new, place).with_context(|| place.display().to_string())
}
