//! What the kernel is told at its entry: command line, memory map, where the initramfs is.

use super::layout;
use crate::{
    config::{Config, Entry},
    kernel,
    memory::{Initramfs, Ram},
};
use linux_loader::{
    bootparam::{boot_e820_entry, boot_params},
    configurator::{BootConfigurator as _, BootParams, linux::LinuxBootConfigurator, pvh::PvhBootConfigurator},
    loader::elf::start_info::{hvm_memmap_table_entry, hvm_modlist_entry, hvm_start_info},
};
use vm_memory::{Bytes as _, GuestAddress};

/// Type of RAM in an e820 map; everything else is not to be used.
const E820_RAM: u32 = 1;
const E820_RESERVED: u32 = 2;
/// `boot_flag` and `header` of a setup header, `loaded by something without a number`.
const BOOT_FLAG: u16 = 0xaa55;
const SETUP_HEADER: u32 = 0x5372_6448;
const LOADER_TYPE: u8 = 0xff;
const KERNEL_ALIGNMENT: u32 = 0x0100_0000;
/// Magic of `hvm_start_info` and the version with a memory map.
const XEN_HVM_START_MAGIC: u32 = 0x336e_c578;
const XEN_HVM_START_VERSION: u32 = 1;

/// Why the start structures cannot be written. A kernel or configuration of an impossible size.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// The command line is longer than the kernel reads.
    #[error("the kernel's command line of {0} bytes is longer than the {max} bytes it reads", max = layout::COMMAND_LINE_MAX_BYTES)]
    CommandLine(usize),
    /// The kernel has no such entry.
    #[error("the kernel has no PVH entry point: it was built without CONFIG_PVH")]
    NoPvhEntry,
    /// A structure lies outside RAM.
    #[error("cannot write the start structures: {0}")]
    Write(String),
}

/// Where the first processor starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Start {
    /// How.
    pub entry: Entry,
    /// The first instruction, guest-physical.
    pub gpa: u64,
}

/// Smallest free blocks that a guest reports: 2^5 pages, 128 KiB. A guest reports when at least 32 of them are free beyond its
/// reserve. Of the default, 4 MiB, a guest of 128 MiB never has as many. Counted for one that had freed 56 MiB: it kept
/// 85 MB at the default, 42 at 2 MiB, 23 at 128 KiB and 21 at single pages, which take up to 32 times the reports.
const REPORTED_ORDER: u32 = 5;

/// The production command line (vmm spec section 2), the devices, then what the configuration adds.
/// No secrets: a template of the machine would keep them.
#[must_use]
pub fn command_line(config: &Config, devices: usize) -> String {
    let mut words: Vec<String> = Vec::new();
    if config.console {
        words.push("earlyprintk=ttyS0,115200,keep loglevel=7".into());
    } else {
        words.push("quiet loglevel=0".into());
    }
    words.push(
        // A triple fault is the cheapest reset; a panic resets at once and the host sees it. A kernel for several
        // processors that finds one would take the lock prefix out of 5,700 instructions, with two changes of
        // address space for each.
        "reboot=t panic=-1 noreplace-smp \
         tsc=reliable no_timer_check random.trust_cpu=on cryptomgr.notests swiotlb=noforce nomodule \
         rdinit=/init"
            .into(),
    );
    if config.balloon {
        words.push(format!("page_reporting.page_reporting_order={REPORTED_ORDER}"));
    }
    for position in 0..devices {
        words.push(format!(
            "virtio_mmio.device=4K@{:#x}:{}",
            layout::device_gpa(position),
            layout::device_gsi(position)
        ));
    }
    if !config.extra_command_line.is_empty() {
        words.push(config.extra_command_line.clone());
    }
    words.join(" ")
}

/// Writes everything the kernel reads at its entry.
///
/// # Errors
/// See [`BootError`].
pub fn write(
    ram: &Ram,
    memory_bytes: u64,
    kernel: &kernel::Header,
    initramfs: Initramfs,
    command_line: &str,
    entry: Entry,
) -> Result<Start, BootError> {
    let length = command_line.len() + 1;
    if length > layout::COMMAND_LINE_MAX_BYTES {
        return Err(BootError::CommandLine(length));
    }
    let mut text = command_line.as_bytes().to_vec();
    text.push(0);
    ram.write_slice(&text, GuestAddress(layout::COMMAND_LINE_GPA)).map_err(write_error)?;
    match entry {
        Entry::Linux64 => {
            write_zero_page(ram, memory_bytes, initramfs, length)?;
            Ok(Start { entry, gpa: kernel.entry64_gpa })
        }
        Entry::Pvh => {
            let gpa = kernel.entry_pvh_gpa.ok_or(BootError::NoPvhEntry)?;
            write_start_info(ram, memory_bytes, initramfs)?;
            Ok(Start { entry, gpa })
        }
    }
}

/// The memory map as (start, length, type).
fn memory_map(memory_bytes: u64) -> Vec<(u64, u64, u32)> {
    let mut map = vec![
        (0, layout::BASE_MEMORY_END_GPA, E820_RAM),
        (layout::BASE_MEMORY_END_GPA, layout::FIRST_MIB_END_GPA - layout::BASE_MEMORY_END_GPA, E820_RESERVED),
    ];
    for (start, bytes) in layout::ram_regions(memory_bytes) {
        let from = start.max(layout::FIRST_MIB_END_GPA);
        map.push((from, start + bytes - from, E820_RAM));
    }
    map
}

fn write_zero_page(
    ram: &Ram,
    memory_bytes: u64,
    initramfs: Initramfs,
    command_line_bytes: usize,
) -> Result<(), BootError> {
    let mut params = Box::new(boot_params::default());
    params.hdr.boot_flag = BOOT_FLAG;
    params.hdr.header = SETUP_HEADER;
    params.hdr.type_of_loader = LOADER_TYPE;
    params.hdr.kernel_alignment = KERNEL_ALIGNMENT;
    params.hdr.cmd_line_ptr = low_address(layout::COMMAND_LINE_GPA)?;
    params.hdr.cmdline_size = low_address(command_line_bytes as u64)?;
    params.hdr.ramdisk_image = low_address(initramfs.gpa)?;
    params.hdr.ramdisk_size = low_address(initramfs.bytes)?;
    for (slot, (addr, size, type_)) in params.e820_table.iter_mut().zip(memory_map(memory_bytes)) {
        *slot = boot_e820_entry { addr, size, r#type: type_ };
        params.e820_entries += 1;
    }
    LinuxBootConfigurator::write_bootparams(&BootParams::new(&*params, GuestAddress(layout::ZERO_PAGE_GPA)), ram)
        .map_err(write_error)
}

fn write_start_info(ram: &Ram, memory_bytes: u64, initramfs: Initramfs) -> Result<(), BootError> {
    let map: Vec<hvm_memmap_table_entry> = memory_map(memory_bytes)
        .into_iter()
        .map(|(addr, size, type_)| hvm_memmap_table_entry { addr, size, type_, reserved: 0 })
        .collect();
    let info = hvm_start_info {
        magic: XEN_HVM_START_MAGIC,
        version: XEN_HVM_START_VERSION,
        cmdline_paddr: layout::COMMAND_LINE_GPA,
        memmap_paddr: layout::PVH_MEMORY_MAP_GPA,
        memmap_entries: low_address(map.len() as u64)?,
        nr_modules: 1,
        modlist_paddr: layout::PVH_MODULES_GPA,
        ..Default::default()
    };
    let module = hvm_modlist_entry { paddr: initramfs.gpa, size: initramfs.bytes, ..Default::default() };
    let mut params = BootParams::new(&info, GuestAddress(layout::PVH_START_INFO_GPA));
    params.set_sections(&map, GuestAddress(layout::PVH_MEMORY_MAP_GPA));
    params.set_modules(&[module], GuestAddress(layout::PVH_MODULES_GPA));
    PvhBootConfigurator::write_bootparams(&params, ram).map_err(write_error)
}

fn low_address(value: u64) -> Result<u32, BootError> {
    u32::try_from(value).map_err(write_error)
}

fn write_error(error: impl std::fmt::Display) -> BootError {
    BootError::Write(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory;

    const KERNEL: kernel::Header = kernel::Header {
        load_gpa: 0x100_0000,
        image_bytes: 0x1000,
        end_gpa: 0x100_2000,
        entry64_gpa: 0x100_0200,
        entry_pvh_gpa: Some(0x100_0100),
        build_id: [0; 20],
    };
    const INITRAMFS: Initramfs = Initramfs { gpa: 0x200_0000, bytes: 1234 };

    #[test]
    fn the_zero_page_says_what_there_is() {
        let ram = memory::allocate(64 << 20).expect("memory");
        let start = write(&ram, 64 << 20, &KERNEL, INITRAMFS, "quiet", Entry::Linux64).expect("written");
        assert_eq!(start, Start { entry: Entry::Linux64, gpa: 0x100_0200 });
        let params: Box<boot_params> = Box::new(ram.read_obj(GuestAddress(layout::ZERO_PAGE_GPA)).expect("a read"));
        let (image, size, entries) = (params.hdr.ramdisk_image, params.hdr.ramdisk_size, params.e820_entries);
        assert_eq!((image, size, entries), (0x200_0000, 1234, 3));
        let last = params.e820_table[2];
        let (addr, length) = (last.addr, last.size);
        assert_eq!((addr, addr + length), (layout::FIRST_MIB_END_GPA, 64 << 20));
        let mut text = [0; 6];
        ram.read_slice(&mut text, GuestAddress(layout::COMMAND_LINE_GPA)).expect("a read");
        assert_eq!(&text, b"quiet\0");
    }

    #[test]
    fn pvh_needs_a_kernel_that_has_it() {
        let ram = memory::allocate(64 << 20).expect("memory");
        let start = write(&ram, 64 << 20, &KERNEL, INITRAMFS, "", Entry::Pvh).expect("written");
        assert_eq!(start.gpa, 0x100_0100);
        let info: hvm_start_info = ram.read_obj(GuestAddress(layout::PVH_START_INFO_GPA)).expect("a read");
        assert_eq!((info.magic, info.memmap_entries, info.nr_modules), (XEN_HVM_START_MAGIC, 3, 1));
        let without = kernel::Header { entry_pvh_gpa: None, ..KERNEL };
        let refused = write(&ram, 64 << 20, &without, INITRAMFS, "", Entry::Pvh);
        assert!(matches!(refused, Err(BootError::NoPvhEntry)));
    }

    #[test]
    fn the_command_line_names_every_device() {
        let mut config = Config::new(128, 1);
        config.extra_command_line = "init_debug".into();
        let line = command_line(&config, 2);
        assert!(line.ends_with("virtio_mmio.device=4K@0xd0000000:5 virtio_mmio.device=4K@0xd0001000:6 init_debug"));
        assert!(line.starts_with("quiet"));
        let ram = memory::allocate(64 << 20).expect("memory");
        let long = "x".repeat(layout::COMMAND_LINE_MAX_BYTES);
        let refused = write(&ram, 64 << 20, &KERNEL, INITRAMFS, &long, Entry::Linux64);
        assert!(matches!(refused, Err(BootError::CommandLine(_))));
    }
}
