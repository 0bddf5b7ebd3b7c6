//! The guest kernel: Debian's source, our configuration, one set of bytes.

mod config;

use crate::{
    Cache, ImagesError, Manifest, Progress,
    archive::{self, Archive, Dependencies, RELEASE},
    at,
    cache::remove,
    digest::{self, Key},
    process, system,
};
use config::Configuration;
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
};

/// Raised when what the builder makes of the same source and configuration changes.
const FORMAT: u32 = 1;
/// The package with the kernel's source.
pub(crate) const SOURCE_PACKAGE: &str = "linux-source-6.12";
/// Files that the build compiles or assembles, about: only for the progress line.
const COMPILED_FILES: f32 = 1_080.0;
/// The kernel keeps a date; any will do as long as it is always the same.
const BUILD_DATE: &str = "Thu Jan  1 00:00:00 UTC 1970";

/// A built guest kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    /// The stripped, uncompressed ELF file with its PVH note, for other virtual machine monitors.
    pub elf: PathBuf,
    /// The page-aligned image that `crn/vmm` maps (`vmm::kernel`).
    pub flat: PathBuf,
    /// The sha256 of the flat image, in hex.
    pub id: String,
}

/// Which kernel: the base configuration with a fragment laid over it.
#[derive(Debug, Clone, Copy)]
struct Variant {
    name: &'static str,
    fragment: &'static str,
}

/// For guests of one to 64 virtual processors. A sibling without SMP joins as another constant: tried, it was in
/// init after 0.92 of this one's time (both with `noreplace-smp`), too little for a second build.
const SMP: Variant = Variant { name: "smp", fragment: config::SMP };

impl Cache {
    /// The guest kernel, built if it is not there: a few minutes.
    ///
    /// # Errors
    /// A missing program, a failed download, or a failed build, each said in one sentence.
    pub fn kernel(&self, progress: &dyn Progress) -> Result<Kernel, ImagesError> {
        let folder = self.find_or_build("kernel", &folder_name(SMP), progress, |work| {
            system::require_all()?;
            progress.step("guest kernel");
            build(self, SMP, None, work, progress)
        })?;
        kernel_in(&folder)
    }

    /// The folder of the current kernel, if it was built.
    pub(crate) fn kernel_folder(&self) -> Option<PathBuf> {
        self.find("kernel", &folder_name(SMP))
    }
}

/// Builds the kernel of a manifest anew in `work`.
pub(crate) fn rebuild(
    cache: &Cache,
    manifest: &Manifest,
    work: &Path,
    progress: &dyn Progress,
) -> Result<Kernel, ImagesError> {
    build(cache, SMP, Some(manifest), work, progress)?;
    kernel_in(work)
}

pub(crate) fn kernel_in(folder: &Path) -> Result<Kernel, ImagesError> {
    Ok(Kernel { elf: folder.join("vmlinux"), flat: folder.join("vmlinux.flat"), id: Manifest::read(folder)?.digest })
}

fn folder_name(variant: Variant) -> String {
    let mut key = Key::new("kernel", FORMAT);
    key.add(RELEASE).add(SOURCE_PACKAGE).add(config::BASE).add(variant.fragment);
    key.add(&vmm::kernel::VERSION.to_string());
    format!("{}-{}", variant.name, key.finish())
}

fn build(
    cache: &Cache,
    variant: Variant,
    like: Option<&Manifest>,
    work: &Path,
    progress: &dyn Progress,
) -> Result<(), ImagesError> {
    let configuration = Configuration::of(&[config::BASE, variant.fragment]).map_err(ImagesError::KernelOptions)?;
    let archive = Archive::new(cache);
    let packages = match like {
        Some(manifest) => {
            archive.exactly(&manifest.packages, progress)?;
            manifest.packages.clone()
        }
        None => archive.packages(&[SOURCE_PACKAGE], Dependencies::Ignored, |_| true, progress)?,
    };
    let package = packages.first().ok_or_else(|| ImagesError::Unresolved {
        suite: RELEASE,
        names: SOURCE_PACKAGE.to_owned(),
        reason: "apt names no file".to_owned(),
    })?;
    let source = unpack(&archive.file(package), work, progress)?;
    configure(&source, &configuration, progress)?;
    compile(&source, progress)?;

    progress.update(None, "flat image");
    let elf = work.join("vmlinux");
    let mut strip = Command::new("strip");
    strip.arg("-o").arg(&elf).arg(source.join("vmlinux"));
    process::run("strip", &mut strip, |_| {})?;
    let flat = vmm::kernel::flatten(&fs::read(&elf).map_err(at(&elf))?)?;
    let flat_path = work.join("vmlinux.flat");
    fs::write(&flat_path, &flat).map_err(at(flat_path))?;
    for (from, to) in [(".config", "config"), ("System.map", "System.map")] {
        let from = source.join(from);
        fs::rename(&from, work.join(to)).map_err(at(from))?;
    }
    let manifest = Manifest {
        name: format!("kernel-{}", variant.name),
        digest: digest::of_bytes(&flat),
        release: RELEASE.to_owned(),
        host_programs: vec![first_line("gcc")?, first_line("ld")?],
        tools: Vec::new(),
        packages,
    };
    manifest.write(work)?;
    remove(&work.join("source"))
}

/// Unpacks the source that a package carries as a compressed archive, without a copy in between.
fn unpack(package: &Path, work: &Path, progress: &dyn Progress) -> Result<PathBuf, ImagesError> {
    progress.update(None, "unpacking the source");
    let folder = work.join("source");
    fs::create_dir_all(&folder).map_err(at(&folder))?;
    let mut unpacker =
        archive::unpacker(package).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().map_err(at("dpkg-deb"))?;
    let stdout = unpacker.stdout.take().ok_or_else(|| ImagesError::Package {
        package: package.display().to_string(),
        reason: "no output".to_owned(),
    })?;
    let inner = format!("./usr/src/{SOURCE_PACKAGE}.tar.xz");
    let mut outer = Command::new("tar")
        .args(["--extract", "--to-stdout", "--file=-", &inner])
        .stdin(stdout)
        .stdout(Stdio::piped())
        .spawn()
        .map_err(at("tar"))?;
    let archive = outer.stdout.take().ok_or_else(|| ImagesError::Package {
        package: package.display().to_string(),
        reason: "no output".to_owned(),
    })?;
    let output = Command::new("tar")
        .args(["--extract", "--xz", "--file=-", "--strip-components=1"])
        // What no build of ours reads; Kconfig and Makefiles of these folders are read.
        .args(["--exclude=*/Documentation/*.rst", "--exclude=*/drivers/gpu/*.[ch]"])
        .args(["--exclude=*/tools/testing/*", "--exclude=*.dts", "--exclude=*.dtsi"])
        .arg("--directory")
        .arg(&folder)
        .stdin(archive)
        .output()
        .map_err(at("tar"))?;
    let statuses = [unpacker.wait(), outer.wait()];
    let ended = statuses.iter().all(|status| status.as_ref().is_ok_and(|status| status.success()));
    if ended && output.status.success() && folder.join("Makefile").exists() {
        return Ok(folder);
    }
    Err(ImagesError::Package {
        package: package.display().to_string(),
        reason: format!("no kernel source in it: {}", String::from_utf8_lossy(&output.stderr)),
    })
}

/// A `make` that says nothing of who builds, when and where.
fn make(source: &Path) -> Command {
    let mut command = Command::new("make");
    command
        .current_dir(source)
        .args(["ARCH=x86_64", "CC=gcc"])
        .env("KBUILD_BUILD_TIMESTAMP", BUILD_DATE)
        .env("KBUILD_BUILD_USER", "beth")
        .env("KBUILD_BUILD_HOST", "beth")
        .env("KBUILD_BUILD_VERSION", "1")
        .env("LC_ALL", "C")
        // What a shell or an outer make may have set would change the kernel.
        .env_remove("CFLAGS")
        .env_remove("KCFLAGS")
        .env_remove("LDFLAGS")
        .env_remove("LOCALVERSION")
        .env_remove("CROSS_COMPILE")
        .env_remove("LLVM")
        .env_remove("MAKEFLAGS")
        .env_remove("MFLAGS")
        .env_remove("CARGO_MAKEFLAGS");
    command
}

fn configure(source: &Path, configuration: &Configuration, progress: &dyn Progress) -> Result<(), ImagesError> {
    progress.update(None, "configuring");
    let ours = source.join("beth.config");
    fs::write(&ours, configuration.to_text()).map_err(at(&ours))?;
    // `allnoconfig` with our lines forced: what we do not name is off, unlike with `olddefconfig`,
    // which takes upstream's defaults for it.
    let mut command = make(source);
    command.arg("KCONFIG_ALLCONFIG=beth.config").arg("allnoconfig");
    process::run("configuring the kernel", &mut command, |_| {})?;
    let path = source.join(".config");
    let config = fs::read_to_string(&path).map_err(at(path))?;
    let lost = configuration.lost_in(&config);
    if lost.is_empty() {
        return Ok(());
    }
    Err(ImagesError::KernelOptions(lost.join(", ")))
}

fn compile(source: &Path, progress: &dyn Progress) -> Result<(), ImagesError> {
    let jobs = thread::available_parallelism().map_or(1, usize::from);
    let mut command = make(source);
    command.arg(format!("-j{jobs}")).arg("vmlinux");
    let mut compiled = 0.0;
    process::run("compiling the kernel", &mut command, |line| {
        let mut words = line.split_ascii_whitespace();
        if let (Some("CC" | "AS"), Some(file)) = (words.next(), words.next()) {
            compiled += 1.0;
            progress.update(Some(f32::min(compiled / COMPILED_FILES, 0.99)), file);
        }
    })
}

/// What a program says its version is.
fn first_line(program: &str) -> Result<String, ImagesError> {
    let answer = process::output(program, Command::new(program).arg("--version"))?;
    let text = String::from_utf8_lossy(&answer);
    Ok(text.lines().next().unwrap_or_default().to_owned())
}
