//! Where things lie in the guest's physical memory.
//!
//! RAM starts at 0. Its first MiB holds what the kernel is given: descriptor tables, the start
//! structures of both entry protocols, page tables, the command line, and just below 640 KiB the MP
//! table. The kernel lies from its load address, the initramfs at the end of low RAM. RAM ends at 3 GiB
//! at most; what is more continues at 4 GiB. Between them is the window of device registers: one page per
//! virtio device from [`VIRTIO_MMIO_GPA`], and the two interrupt controllers, which KVM emulates.
//!
//! ```text
//! 0                 descriptor tables, start_info, zero page, page tables, command line
//! 0x0009_fc00       MP floating pointer and table (the kernel looks in the last KiB of base memory)
//! 0x000a_0000       reserved to 1 MiB
//! 0x0010_0000       RAM: kernel (at its load address), then free, then initramfs
//! 0xc000_0000       end of low RAM at the latest
//! 0xd000_0000       virtio-mmio devices, 4 KiB each
//! 0xfec0_0000       IOAPIC        0xfee0_0000  local APIC        0xfffb_d000  KVM's TSS (Intel)
//! 0x1_0000_0000     high RAM
//! ```

/// Global descriptor table.
pub const GDT_GPA: u64 = 0x500;
/// Interrupt descriptor table: empty, never used before the kernel installs its own.
pub const IDT_GPA: u64 = 0x520;
/// PVH: `hvm_start_info`.
pub const PVH_START_INFO_GPA: u64 = 0x6000;
/// PVH: the module list, one entry, the initramfs.
pub const PVH_MODULES_GPA: u64 = 0x6040;
/// PVH: the memory map.
pub const PVH_MEMORY_MAP_GPA: u64 = 0x6100;
/// 64-bit entry: `boot_params`.
pub const ZERO_PAGE_GPA: u64 = 0x7000;
/// 64-bit entry: initial stack pointer.
pub const BOOT_STACK_GPA: u64 = 0x8ff0;
/// 64-bit entry: page map level 4, followed by one page directory pointer table and one directory.
pub const PML4_GPA: u64 = 0x9000;
/// Page directory pointer table.
pub const PDPT_GPA: u64 = 0xa000;
/// Page directory: 512 pages of 2 MiB, an identity map of the first GiB.
pub const PD_GPA: u64 = 0xb000;
/// Kernel command line.
pub const COMMAND_LINE_GPA: u64 = 0x2_0000;
/// Longest command line with its end, bytes: `COMMAND_LINE_SIZE` of x86 Linux.
pub const COMMAND_LINE_MAX_BYTES: usize = 2048;
/// MP floating pointer structure: 639 KiB, where the kernel looks for it.
pub const MP_TABLE_GPA: u64 = 0x9_fc00;
/// End of base memory as the kernel is told.
pub const BASE_MEMORY_END_GPA: u64 = 0x9_fc00;
/// End of the first MiB.
pub const FIRST_MIB_END_GPA: u64 = 0x10_0000;

/// Low RAM ends here at the latest: below it one memslot is enough.
pub const LOW_RAM_END_GPA: u64 = 3 << 30;
/// High RAM starts here.
pub const HIGH_RAM_GPA: u64 = 4 << 30;

/// Registers of the first virtio-mmio device.
pub const VIRTIO_MMIO_GPA: u64 = 0xd000_0000;
/// Distance between devices, bytes.
pub const VIRTIO_MMIO_BYTES: u64 = 0x1000;
/// First interrupt line given to a device: below are the lines that PC hardware had.
pub const FIRST_DEVICE_GSI: u32 = 5;
/// Last interrupt line of the IOAPIC.
pub const LAST_GSI: u32 = 23;
/// Devices that fit the interrupt lines.
pub const MAX_DEVICES: usize = (LAST_GSI - FIRST_DEVICE_GSI + 1) as usize;

/// IOAPIC registers.
pub const IOAPIC_GPA: u32 = 0xfec0_0000;
/// Local APIC registers.
pub const LAPIC_GPA: u32 = 0xfee0_0000;
/// Three pages that KVM needs on Intel processors, outside of RAM.
pub const KVM_TSS_GPA: usize = 0xfffb_d000;

const _: () = assert!(MAX_DEVICES == crate::config::MAX_DEVICES);
const _: () = assert!(VIRTIO_MMIO_GPA >= LOW_RAM_END_GPA);
const _: () = assert!(COMMAND_LINE_GPA + (COMMAND_LINE_MAX_BYTES as u64) < MP_TABLE_GPA);

/// The RAM of a guest of that size: (start, length) in bytes, in order.
#[must_use]
pub fn ram_regions(memory_bytes: u64) -> Vec<(u64, u64)> {
    if memory_bytes <= LOW_RAM_END_GPA {
        vec![(0, memory_bytes)]
    } else {
        vec![(0, LOW_RAM_END_GPA), (HIGH_RAM_GPA, memory_bytes - LOW_RAM_END_GPA)]
    }
}

/// Register address of the device at that position.
#[must_use]
pub fn device_gpa(position: usize) -> u64 {
    VIRTIO_MMIO_GPA + position as u64 * VIRTIO_MMIO_BYTES
}

/// Interrupt line of the device at that position, below [`MAX_DEVICES`].
#[must_use]
pub fn device_gsi(position: usize) -> u32 {
    debug_assert!(position < MAX_DEVICES);
    u32::try_from(position).map_or(LAST_GSI, |position| FIRST_DEVICE_GSI + position)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_three_gib_continue_above_four() {
        assert_eq!(ram_regions(128 << 20), [(0, 128 << 20)]);
        assert_eq!(ram_regions(3 << 30), [(0, 3 << 30)]);
        assert_eq!(ram_regions(5 << 30), [(0, 3 << 30), (4 << 30, 2 << 30)]);
    }

    #[test]
    fn every_device_has_a_line() {
        assert_eq!(device_gsi(0), 5);
        assert_eq!(device_gsi(MAX_DEVICES - 1), LAST_GSI);
    }
}
