//! Debian's archive: resolves and downloads packages with apt, whose signature checks, proxies and
//! mirrors we keep, in a state of its own, so that any Debian or Ubuntu host will do and nothing
//! of the host changes. Packages are never installed.

use crate::{Cache, ImagesError, Package, Progress, at, cache, digest, process, system::DEBIAN_KEYRING};
use std::{
    collections::BTreeSet,
    env,
    ffi::OsString,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, SystemTime},
};

/// The release that everything is made of.
pub(crate) const RELEASE: &str = "trixie";
/// The mirror, unless `BETH_DEBIAN_MIRROR` names another.
const MIRROR: &str = "http://deb.debian.org/debian";
/// Security updates, unless `BETH_DEBIAN_SECURITY_MIRROR` names another.
const SECURITY_MIRROR: &str = "http://deb.debian.org/debian-security";
/// Package lists older than this are fetched again before something is built from them.
const LISTS_MAX_AGE: Duration = Duration::from_secs(24 * 3600);
/// apt's program that downloads single files with their hash.
const APT_HELPER: &str = "/usr/lib/apt/apt-helper";

/// Whether a request means the named packages alone or everything they depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dependencies {
    Ignored,
    Included,
}

/// Debian's archive as this cache sees it.
pub(crate) struct Archive<'a> {
    cache: &'a Cache,
    folder: PathBuf,
}

impl<'a> Archive<'a> {
    pub(crate) fn new(cache: &'a Cache) -> Self {
        let folder = cache.root().join("archive");
        Self { cache, folder }
    }

    /// Finds the newest versions of packages and downloads them.
    pub(crate) fn packages(
        &self,
        names: &[&str],
        dependencies: Dependencies,
        wanted: impl Fn(&str) -> bool,
        progress: &dyn Progress,
    ) -> Result<Vec<Package>, ImagesError> {
        let _turn = self.cache.lock("archive", progress)?;
        let fresh = self.refresh_if_old(progress)?;
        let resolve = || -> Result<Vec<Package>, ImagesError> {
            let mut packages = self.resolve(names, dependencies)?;
            packages.retain(|package| wanted(&package.name));
            Ok(packages)
        };
        let packages = resolve()?;
        match self.fetch(&packages, progress) {
            // A version that is gone was replaced: newer lists know by what.
            Err(ImagesError::Download { .. }) if !fresh => {
                self.refresh(progress)?;
                let packages = resolve()?;
                self.fetch(&packages, progress)?;
                Ok(packages)
            }
            Err(error) => Err(error),
            Ok(()) => Ok(packages),
        }
    }

    /// Downloads exactly these packages, unless they are here already.
    pub(crate) fn exactly(&self, packages: &[Package], progress: &dyn Progress) -> Result<(), ImagesError> {
        let _turn = self.cache.lock("archive", progress)?;
        self.configure()?;
        self.fetch(packages, progress)
    }

    /// Where the file of a downloaded package is.
    pub(crate) fn file(&self, package: &Package) -> PathBuf {
        self.cache.root().join("packages").join(format!("{}.deb", package.sha256))
    }

    fn refresh_if_old(&self, progress: &dyn Progress) -> Result<bool, ImagesError> {
        self.configure()?;
        let stamp = self.folder.join("refreshed");
        let age = fs::metadata(&stamp)
            .and_then(|metadata| metadata.modified())
            .ok()
            .and_then(|time| SystemTime::now().duration_since(time).ok());
        if age.is_some_and(|age| age < LISTS_MAX_AGE) {
            return Ok(false);
        }
        self.refresh(progress)?;
        Ok(true)
    }

    fn refresh(&self, progress: &dyn Progress) -> Result<(), ImagesError> {
        progress.update(None, "package lists");
        let result = process::run(
            "apt-get update",
            // `Error-Mode=any`: a list that did not come is an error, not a warning.
            self.apt("apt-get").args(["update", "-o", "APT::Update::Error-Mode=any"]),
            |line| progress.update(None, line),
        );
        result.map_err(|error| download_error("the package lists".to_owned(), error))?;
        let stamp = self.folder.join("refreshed");
        fs::write(&stamp, "").map_err(at(stamp))
    }

    fn resolve(&self, names: &[&str], dependencies: Dependencies) -> Result<Vec<Package>, ImagesError> {
        let mut command = self.apt("apt-get");
        command.arg(match dependencies {
            Dependencies::Included => "install",
            Dependencies::Ignored => "download",
        });
        command.args(["-qq", "--print-uris", "-o", "Acquire::ForceHash=SHA256"]).args(names);
        let answer = process::output("apt-get", &mut command).map_err(|error| {
            let reason = match error {
                ImagesError::Command { tail, .. } => tail,
                other => other.to_string(),
            };
            ImagesError::Unresolved { suite: RELEASE, names: names.join(" "), reason }
        })?;
        parse_uris(&String::from_utf8_lossy(&answer)).map_err(|line| ImagesError::Unresolved {
            suite: RELEASE,
            names: names.join(" "),
            reason: format!("apt answered a line that is not a package: {line:?}"),
        })
    }

    fn fetch(&self, packages: &[Package], progress: &dyn Progress) -> Result<(), ImagesError> {
        let folder = self.cache.root().join("packages");
        let arriving = folder.join("arriving");
        fs::create_dir_all(&arriving).map_err(at(&arriving))?;
        let missing: Vec<&Package> = packages.iter().filter(|package| !self.file(package).exists()).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let mut command = self.apt(APT_HELPER);
        command.arg("download-file");
        let partial = |package: &Package| arriving.join(format!("{}.deb", package.sha256));
        for package in &missing {
            command.arg(&package.uri).arg(partial(package)).arg(format!("SHA256:{}", package.sha256));
        }
        let mut arrived = 0;
        let result = process::run("apt-helper", &mut command, |line| {
            if line.starts_with("Get:") {
                arrived += 1;
            }
            let size_mb: u64 = missing.iter().map(|package| package.size_bytes).sum::<u64>() >> 20;
            let status = format!("package {arrived} of {} ({size_mb} MiB)", missing.len());
            progress.update(None, &status);
        });
        let what = || match missing.as_slice() {
            [package] => package.name.clone(),
            several => format!("{} packages", several.len()),
        };
        result.map_err(|error| download_error(what(), error))?;
        for package in missing {
            let from = partial(package);
            // apt compared the hash already; this costs little and does not trust its options.
            if digest::of_file(&from)? != package.sha256 {
                cache::remove(&from)?;
                return Err(ImagesError::Download {
                    what: package.name.clone(),
                    reason: "what came has another sha256 than the package list says".to_owned(),
                });
            }
            let to = self.file(package);
            fs::rename(&from, &to).map_err(at(to))?;
        }
        Ok(())
    }

    /// A command of apt that sees our sources, our state and nothing of the host's but its proxies.
    fn apt(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("APT_CONFIG", self.folder.join("apt.conf")).env("LC_ALL", "C");
        command
    }

    /// Writes apt's configuration and sources, anew each time: environment and host may change.
    fn configure(&self) -> Result<(), ImagesError> {
        process::require("apt-get", "apt")?;
        if !Path::new(DEBIAN_KEYRING).exists() {
            return Err(ImagesError::MissingProgram {
                program: DEBIAN_KEYRING.to_owned(),
                package: "debian-archive-keyring",
            });
        }
        for folder in ["state/lists/partial", "cache/archives/partial", "etc"] {
            let folder = self.folder.join(folder);
            fs::create_dir_all(&folder).map_err(at(&folder))?;
        }
        let mirror = |name, default: &str| {
            env::var(name).ok().filter(|value| !value.is_empty()).unwrap_or_else(|| default.into())
        };
        let sources = format!(
            "Types: deb\nURIs: {}\nSuites: {RELEASE} {RELEASE}-updates\nComponents: main\n\
             Signed-By: {DEBIAN_KEYRING}\n\n\
             Types: deb\nURIs: {}\nSuites: {RELEASE}-security\nComponents: main\n\
             Signed-By: {DEBIAN_KEYRING}\n",
            mirror("BETH_DEBIAN_MIRROR", MIRROR),
            mirror("BETH_DEBIAN_SECURITY_MIRROR", SECURITY_MIRROR),
        );
        let write = |name: &str, text: &str| {
            let path = self.folder.join(name);
            fs::write(&path, text).map_err(at(path))
        };
        write("etc/debian.sources", &sources)?;
        write("status", "")?;
        write("apt.conf", &self.configuration()?)
    }

    fn configuration(&self) -> Result<String, ImagesError> {
        let mut text = String::from("// Written by the `images` builders at each use.\n");
        let folder = self.folder.display();
        // The host's own configuration is not read (its hooks are its own business), save for how
        // it reaches the network: proxies, retries, time limits.
        text.push_str("Dir::Etc::parts \"/dev/null\";\nDir::Etc::main \"/dev/null\";\n");
        let host = process::output(
            "apt-config",
            Command::new("apt-config").args(["dump", "--format", "%F \"%v\";%n", "Acquire"]),
        )?;
        for line in String::from_utf8_lossy(&host).lines() {
            let foreign = ["Acquire::IndexTargets", "Acquire::Languages", "Acquire \""];
            if !foreign.iter().any(|prefix| line.starts_with(prefix)) {
                text.push_str(line);
                text.push('\n');
            }
        }
        let result = write!(
            text,
            "Dir::State \"{folder}/state\";\n\
             Dir::State::status \"{folder}/status\";\n\
             Dir::Cache \"{folder}/cache\";\n\
             Dir::Etc::sourcelist \"/dev/null\";\n\
             Dir::Etc::sourceparts \"{folder}/etc\";\n\
             Dir::Etc::preferences \"/dev/null\";\n\
             Dir::Etc::preferencesparts \"/dev/null\";\n\
             Dir::Etc::trusted \"/dev/null\";\n\
             Dir::Etc::trustedparts \"/dev/null\";\n\
             APT::Architecture \"amd64\";\n\
             APT::Architectures {{ \"amd64\"; }};\n\
             APT::Install-Recommends \"false\";\n\
             APT::Install-Suggests \"false\";\n\
             APT::Sandbox::User \"\";\n\
             Acquire::Languages \"none\";\n"
        );
        debug_assert!(result.is_ok(), "writing to a string does not fail");
        Ok(text)
    }
}

fn download_error(what: String, error: ImagesError) -> ImagesError {
    match error {
        ImagesError::Command { tail, .. } => {
            let errors: Vec<&str> = tail.lines().filter(|line| line.starts_with("E:")).collect();
            let reason = if errors.is_empty() { tail } else { errors.join("; ") };
            ImagesError::Download { what, reason }
        }
        other => other,
    }
}

/// Reads what `apt-get --print-uris` writes: `'uri' name_version_architecture.deb size SHA256:…`.
/// The order is apt's; ours is by name, so that equal sets are equal lists.
fn parse_uris(text: &str) -> Result<Vec<Package>, String> {
    let mut seen = BTreeSet::new();
    let mut packages = Vec::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let package = parse_uri(line).ok_or_else(|| line.to_owned())?;
        if seen.insert(package.sha256.clone()) {
            packages.push(package);
        }
    }
    packages.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(packages)
}

fn parse_uri(line: &str) -> Option<Package> {
    let (uri, rest) = line.strip_prefix('\'')?.split_once("' ")?;
    let mut words = rest.split_ascii_whitespace();
    let (file, size, hash) = (words.next()?, words.next()?, words.next()?);
    let mut parts = file.strip_suffix(".deb")?.split('_');
    let (name, version, architecture) = (parts.next()?, parts.next()?, parts.next()?);
    let sha256 = hash.strip_prefix("SHA256:")?;
    let is_hash = sha256.len() == 64 && sha256.bytes().all(|byte| byte.is_ascii_hexdigit());
    if parts.next().is_some() || words.next().is_some() || !is_hash {
        return None;
    }
    Some(Package {
        name: name.to_owned(),
        // The epoch's colon is the one character that file names escape.
        version: version.replace("%3a", ":"),
        architecture: architecture.to_owned(),
        sha256: sha256.to_ascii_lowercase(),
        size_bytes: size.parse().ok()?,
        uri: uri.to_owned(),
    })
}

/// Runs the packages' own unpacker: a tar archive comes out of its standard output.
pub(crate) fn unpacker(package: &Path) -> Command {
    let mut command = Command::new("dpkg-deb");
    command.args([OsString::from("--fsys-tarfile"), package.into()]);
    command
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HASH: &str = "b59b0625cd1a791375d40dab23a4d5d3d0641e3d0a773501becdc3725b7f99cf";

    #[test]
    fn apt_lines_become_packages_sorted_by_name() {
        let text = format!(
            "'http://deb.debian.org/z/zlib1g_1%3a1.3_amd64.deb' zlib1g_1%3a1.3_amd64.deb 89 SHA256:{HASH}\n\
             'http://deb.debian.org/c/ca_1_all.deb' ca_1_all.deb 7 SHA256:{}\n",
            HASH.replace('b', "c"),
        );
        let packages = parse_uris(&text).expect("apt wrote it");
        let short: Vec<_> = packages
            .iter()
            .map(|package| (package.name.as_str(), package.version.as_str(), package.size_bytes))
            .collect();
        assert_eq!(short, [("ca", "1", 7), ("zlib1g", "1:1.3", 89)]);
        assert_eq!(packages[1].architecture, "amd64");
    }

    #[test]
    fn other_lines_are_refused() {
        for line in [
            "E: Unable to locate package",
            "'http://x/a_1_all.deb' a_1_all.deb 7 MD5Sum:00",
            &format!("'http://x/a_1_all.deb' a_1.deb 7 SHA256:{HASH}"),
            &format!("'http://x/a_1_all.deb' a_1_all.deb seven SHA256:{HASH}"),
        ] {
            assert_eq!(parse_uris(line), Err(line.to_owned()));
        }
    }

    proptest! {
        #[test]
        fn no_line_is_a_panic(line in ".*") {
            let _ = parse_uri(&line);
        }
    }
}
