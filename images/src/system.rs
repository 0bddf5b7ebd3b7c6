//! What this machine must have installed before anything can be built.

/// A Debian package of the machine that builds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SystemPackage {
    /// The package's name.
    pub name: &'static str,
    /// How to see that it is installed, without a package manager.
    pub sign: Sign,
    /// What it is needed for.
    pub purpose: &'static str,
}

/// How to see that a package is installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    /// A program on the search path.
    Program(&'static str),
    /// A file.
    File(&'static str),
}

impl SystemPackage {
    /// Whether it is installed.
    #[must_use]
    pub fn is_installed(&self) -> bool {
        match self.sign {
            Sign::Program(program) => crate::process::exists(program),
            Sign::File(path) => std::path::Path::new(path).exists(),
        }
    }
}

const fn program(program: &'static str, name: &'static str, purpose: &'static str) -> SystemPackage {
    SystemPackage { name, sign: Sign::Program(program), purpose }
}

const fn file(path: &'static str, name: &'static str, purpose: &'static str) -> SystemPackage {
    SystemPackage { name, sign: Sign::File(path), purpose }
}

/// The keys that Debian signs its package lists with.
pub(crate) const DEBIAN_KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

static SYSTEM_PACKAGES: &[SystemPackage] = &[
    program("apt-get", "apt", "finds and downloads packages, into a state of its own"),
    program("dpkg-deb", "dpkg", "unpacks them"),
    file(DEBIAN_KEYRING, "debian-archive-keyring", "checks that they are Debian's"),
    program("gcc", "gcc", "compiles the guest kernel"),
    file("/usr/include/stdlib.h", "libc6-dev", "the C library's headers, for the programs of the kernel's build"),
    program("make", "make", "runs the guest kernel's build"),
    program("flex", "flex", "the kernel's configuration language"),
    program("bison", "bison", "the same"),
    program("bc", "bc", "the kernel's time constants"),
    program("perl", "perl", "scripts of the kernel's build"),
    program("ld", "binutils", "links the guest kernel"),
    file("/usr/include/gelf.h", "libelf-dev", "objtool, which checks the kernel's machine code"),
    program("tar", "tar", "unpacks the kernel's source"),
    program("xz", "xz-utils", "decompresses it, and the modules of the KVM host"),
];

/// The packages that building images needs, with how to see each and why.
#[must_use]
pub fn system_packages() -> &'static [SystemPackage] {
    SYSTEM_PACKAGES
}

/// Checks that all of them are there.
pub(crate) fn require_all() -> Result<(), crate::ImagesError> {
    for package in SYSTEM_PACKAGES {
        if !package.is_installed() {
            let (Sign::Program(program) | Sign::File(program)) = package.sign;
            return Err(crate::ImagesError::MissingProgram { program: program.to_owned(), package: package.name });
        }
    }
    Ok(())
}
