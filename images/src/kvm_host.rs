//! The KVM host: Debian's cloud kernel with its KVM modules and a small user land, to be run in
//! QEMU where this machine has no usable KVM. `images/kvm-host` is its init and starts it.

mod modules;
mod vmlinux;

use crate::{
    Cache, ImagesError, Manifest, Progress,
    archive::{Archive, Dependencies, RELEASE},
    at, digest,
    digest::Key,
    initramfs::{self, Entry},
    process, system,
    tree::{Node, Tree},
};
use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

/// Raised when what the builder makes of the same packages changes.
const FORMAT: u32 = 1;
/// The package that depends on the newest cloud kernel.
const KERNEL_PACKAGE: &str = "linux-image-cloud-amd64";
/// A user land in one static program: shell, `mount`, `ip`, and what tests look around with.
const BUSYBOX_PACKAGE: &str = "busybox-static";

/// Modules that the host loads, and why. What they depend on is found by reading them.
const MODULES: [(&str, &str); 15] = [
    ("kvm-amd", "KVM on the processor that QEMU emulates, which has AMD's extensions"),
    ("virtio_net", "the network card"),
    ("virtio_blk", "disks that are handed in"),
    ("virtio-rng", "entropy from the machine outside"),
    ("tun", "network cards of microVMs"),
    ("overlay", "writable folders over read-only images"),
    ("erofs", "looking into our runtimes"),
    ("squashfs", "looking into users' images"),
    ("loop", "mounting files"),
    ("nf_tables", "address translation for microVMs"),
    ("nft_chain_nat", "the same"),
    ("nft_masq", "the same"),
    ("nft_ct", "the same: answers to connections that microVMs opened"),
    ("nft_fib_inet", "the same: whether the sender of a packet is where it came from"),
    ("veth", "wires to networks that tests make inside"),
];

/// Files of the user land.
const FILES: [(&str, &str); 4] = [
    ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n"),
    ("etc/group", "root:x:0:\nnogroup:x:65534:\n"),
    ("etc/hosts", "127.0.0.1 localhost\n::1 localhost\n10.0.2.2 outside\n"),
    // QEMU's user network answers names there.
    ("etc/resolv.conf", "nameserver 10.0.2.3\n"),
];

/// Folders that something is mounted on or written to.
const FOLDERS: [&str; 12] =
    ["proc", "sys", "dev", "run", "tmp", "root", "var", "var/tmp", "var/lib", "mnt", "srv", "newroot"];

/// What starts the KVM host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KvmHostImage {
    /// The kernel, for QEMU's `-kernel`.
    pub kernel: PathBuf,
    /// The initramfs with the init in it, for QEMU's `-initrd`.
    pub initramfs: PathBuf,
}

impl Cache {
    /// The KVM host with `init` (the static `kvm-host` program) as its first process.
    ///
    /// # Errors
    /// A missing program, a failed download, or an init that cannot be read.
    pub fn kvm_host(&self, init: &Path, progress: &dyn Progress) -> Result<KvmHostImage, ImagesError> {
        let folder = self.find_or_build("kvm-host", &folder_name(), progress, |work| {
            system::require_all()?;
            progress.step("KVM host");
            build(self, work, progress)
        })?;

        let init = fs::read(init).map_err(at(init))?;
        let mut key = Key::new("kvm-host-initramfs", FORMAT);
        key.add(&folder_name()).add(&digest::of_bytes(&init));
        let name = key.finish();
        let complete = self.find_or_build("initramfs", &name, progress, |work| {
            let path = work.join("initramfs.cpio");
            let mut bytes = fs::read(folder.join("base.cpio")).map_err(at(&folder))?;
            // The kernel unpacks archives that follow each other, aligned to four bytes.
            bytes.resize(bytes.len().next_multiple_of(4), 0);
            let entry = ("init", Entry::File { mode: 0o755, content: &init });
            initramfs::write(&mut bytes, [entry]).map_err(at(&path))?;
            fs::write(&path, bytes).map_err(at(path))
        })?;
        Ok(KvmHostImage { kernel: folder.join("vmlinux"), initramfs: complete.join("initramfs.cpio") })
    }
}

fn folder_name() -> String {
    let mut key = Key::new("kvm-host", FORMAT);
    key.add(RELEASE).add(KERNEL_PACKAGE).add(BUSYBOX_PACKAGE);
    for (one, other) in MODULES.iter().chain(&FILES) {
        key.add(one).add(other);
    }
    for folder in FOLDERS {
        key.add(folder);
    }
    key.finish()
}

fn build(cache: &Cache, work: &Path, progress: &dyn Progress) -> Result<(), ImagesError> {
    let archive = Archive::new(cache);
    // Only the kernel itself and busybox: what else the kernel's package depends on configures
    // installed systems.
    let wanted = |name: &str| {
        let kernel = name.starts_with("linux-image-") && name.ends_with("-cloud-amd64");
        name == BUSYBOX_PACKAGE || kernel && name != KERNEL_PACKAGE
    };
    let packages = archive.packages(&[KERNEL_PACKAGE, BUSYBOX_PACKAGE], Dependencies::Included, wanted, progress)?;
    let mut tree = Tree::default();
    for package in &packages {
        progress.update(None, &package.name);
        tree.add_package(&archive.file(package))?;
    }

    progress.update(None, "kernel and modules");
    let file_named = |pattern: &str| -> Result<(String, Vec<u8>), ImagesError> {
        let found = tree.matching(pattern).map_err(|error| wrong(&error.to_string()))?;
        let (path, content) = found.first().ok_or_else(|| wrong(&format!("no {pattern}")))?;
        Ok(((*path).to_owned(), content.to_vec()))
    };
    let (_, compressed) = file_named("/boot/vmlinuz-*")?;
    let kernel = work.join("vmlinux");
    fs::write(&kernel, vmlinux::unpacked(&compressed)?).map_err(at(kernel))?;

    let names: Vec<&str> = MODULES.iter().map(|(name, _)| *name).collect();
    let modules = modules::in_load_order(&tree, &names, work)?;
    let (_, busybox) = file_named("/usr/bin/busybox")?;
    let applets = applets(&busybox, work)?;

    let mut list = String::new();
    for module in &modules {
        list.push_str(&format!("/lib/modules/{}.ko\n", module.name));
    }
    let mut entries: Vec<(String, Entry<'_>)> = Vec::new();
    for folder in ["bin", "lib", "lib/modules", "etc"].iter().chain(&FOLDERS) {
        entries.push(((*folder).to_owned(), Entry::Directory));
    }
    for link in ["sbin", "usr"] {
        let target = if link == "sbin" { "bin" } else { "." };
        entries.push((link.to_owned(), Entry::Link { target }));
    }
    entries.extend(
        initramfs::DEVICES.into_iter().filter(|(path, _)| *path != "dev").map(|(path, entry)| (path.to_owned(), entry)),
    );
    for (path, content) in FILES {
        entries.push((path.to_owned(), Entry::File { mode: 0o644, content: content.as_bytes() }));
    }
    entries.push(("bin/busybox".to_owned(), Entry::File { mode: 0o755, content: &busybox }));
    for applet in &applets {
        entries.push((format!("bin/{applet}"), Entry::Link { target: "busybox" }));
    }
    entries.push(("lib/modules/order".to_owned(), Entry::File { mode: 0o644, content: list.as_bytes() }));
    for module in &modules {
        let path = format!("lib/modules/{}.ko", module.name);
        entries.push((path, Entry::File { mode: 0o644, content: &module.content }));
    }
    let path = work.join("base.cpio");
    let mut bytes = Vec::new();
    let borrowed = entries.iter().map(|(path, entry)| (path.as_str(), entry.clone()));
    initramfs::write(&mut bytes, borrowed).map_err(at(&path))?;
    bytes.flush().map_err(at(&path))?;
    fs::write(&path, &bytes).map_err(at(&path))?;

    let manifest = Manifest {
        name: "kvm-host".to_owned(),
        digest: digest::of_bytes(&bytes),
        release: RELEASE.to_owned(),
        host_programs: Vec::new(),
        tools: Vec::new(),
        packages,
    };
    manifest.write(work)
}

/// The names that busybox answers to.
fn applets(busybox: &[u8], work: &Path) -> Result<Vec<String>, ImagesError> {
    let mut alone = Tree::default();
    alone.put("busybox", Node::File { mode: 0o755, content: busybox.into() });
    alone.write_folder(work)?;
    let program = work.join("busybox");
    let list = process::output("busybox", Command::new(&program).arg("--list"))?;
    crate::cache::remove(&program)?;
    let names = String::from_utf8_lossy(&list);
    Ok(names.lines().filter(|name| *name != "busybox").map(str::to_owned).collect())
}

fn wrong(reason: &str) -> ImagesError {
    ImagesError::Package { package: KERNEL_PACKAGE.to_owned(), reason: reason.to_owned() }
}
