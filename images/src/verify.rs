//! Builds an output a second time, from the manifest of the first and in another folder, and
//! compares the bytes.

use crate::{Cache, ImagesError, Manifest, Progress, cache::remove, digest, kernel, rootfs};

/// Two builds gave the same bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// The output.
    pub name: String,
    /// Digest of both, sha256 in hex.
    pub digest: String,
}

impl Cache {
    /// Builds the kernel twice: as long again as the first build took.
    ///
    /// # Errors
    /// The two differ, or one cannot be built.
    pub fn verify_kernel(&self, progress: &dyn Progress) -> Result<Verified, ImagesError> {
        let first = self.kernel(progress)?;
        let folder = first.flat.with_file_name("");
        let manifest = Manifest::read(&folder)?;
        progress.step("guest kernel, second build");
        let _turn = self.lock("verify-kernel", progress)?;
        // A longer path than the first build's, to find out whether it shows.
        let work = self.work("verify-that-the-kernel-does-not-know-its-path")?;
        let second = kernel::rebuild(self, &manifest, &work, progress)?;
        compare("the ELF kernel", &digest::of_file(&first.elf)?, &digest::of_file(&second.elf)?)?;
        let verified = compare("the kernel", &digest::of_file(&first.flat)?, &digest::of_file(&second.flat)?);
        remove(&work)?;
        verified
    }

    /// Builds a runtime twice.
    ///
    /// # Errors
    /// The two differ, or one cannot be built.
    pub fn verify_rootfs(&self, name: &str, progress: &dyn Progress) -> Result<Verified, ImagesError> {
        let first = self.rootfs(name, progress)?;
        let manifest = Manifest::read(&first.manifest.with_file_name(""))?;
        progress.step(&format!("runtime {name}, second build"));
        let label = format!("verify-{name}");
        let _turn = self.lock(&label, progress)?;
        let work = self.work(&label)?;
        let second = rootfs::rebuild(self, &manifest, &work, progress)?;
        let verified = compare(name, &digest::of_file(&first.image)?, &digest::of_file(&second.image)?);
        remove(&work)?;
        verified
    }
}

fn compare(what: &str, first: &str, second: &str) -> Result<Verified, ImagesError> {
    if first == second {
        return Ok(Verified { name: what.to_owned(), digest: first.to_owned() });
    }
    Err(ImagesError::Differs { what: what.to_owned(), first: first.to_owned(), second: second.to_owned() })
}
