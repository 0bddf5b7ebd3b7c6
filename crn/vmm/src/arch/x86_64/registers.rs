//! Processor state at entry: segments, control registers, page tables.

use super::{boot::Start, layout};
use crate::{config::Entry, memory::Ram};
use kvm_bindings::{kvm_fpu, kvm_lapic_state, kvm_regs, kvm_segment, kvm_sregs};
use vm_memory::{Bytes as _, GuestAddress};

const CR0_PE: u64 = 1;
const CR0_ET: u64 = 1 << 4;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;
/// Reserved bit of RFLAGS that is always set; interrupts are off.
const RFLAGS_RESERVED: u64 = 2;
/// Present, writable; and for the directory a page of 2 MiB.
const PAGE_PRESENT_WRITABLE: u64 = 3;
const PAGE_LARGE: u64 = 1 << 7;
const LARGE_PAGE_BYTES: u64 = 2 << 20;
const ENTRIES: u64 = 512;

const FPU_CONTROL_WORD: u16 = 0x37f;
const MXCSR: u32 = 0x1f80;

/// Offsets of the local interrupt pins in the APIC page, and the delivery modes they get.
const APIC_LVT_LINT0: usize = 0x350;
const APIC_LVT_LINT1: usize = 0x360;
const APIC_MODE_EXTINT: u32 = 0x7;
const APIC_MODE_NMI: u32 = 0x4;

/// Entries of the table, and the offset of its last byte.
const GDT_ENTRIES: usize = 4;
const GDT_LIMIT: u16 = 4 * 8 - 1;
/// Descriptors in the order of the table: null, code, data, TSS.
const CODE: (u16, u16) = (1, 0xa09b);
const CODE_32: (u16, u16) = (1, 0xc09b);
const DATA: (u16, u16) = (2, 0xc093);
const TSS: (u16, u16) = (3, 0x808b);
/// The same, its limit in bytes.
const TSS_BYTES: (u16, u16) = (3, 0x008b);

/// General registers of the boot processor.
#[must_use]
pub fn general(start: Start) -> kvm_regs {
    match start.entry {
        Entry::Linux64 => kvm_regs {
            rip: start.gpa,
            rflags: RFLAGS_RESERVED,
            rsp: layout::BOOT_STACK_GPA,
            rbp: layout::BOOT_STACK_GPA,
            rsi: layout::ZERO_PAGE_GPA,
            ..Default::default()
        },
        Entry::Pvh => {
            kvm_regs { rip: start.gpa, rflags: RFLAGS_RESERVED, rbx: layout::PVH_START_INFO_GPA, ..Default::default() }
        }
    }
}

/// Segments and control registers of the boot processor, from what KVM has given it; writes the
/// tables that they point to.
///
/// # Errors
/// RAM is missing where the tables go.
pub fn special(ram: &Ram, start: Start, mut sregs: kvm_sregs) -> Result<kvm_sregs, String> {
    let code = match start.entry {
        Entry::Linux64 => CODE,
        Entry::Pvh => CODE_32,
    };
    let (tss, tss_limit) = match start.entry {
        Entry::Linux64 => (TSS, 0xf_ffff),
        Entry::Pvh => (TSS_BYTES, 0x67),
    };
    let table: [u64; GDT_ENTRIES] =
        [0, descriptor(code.1, 0xf_ffff), descriptor(DATA.1, 0xf_ffff), descriptor(tss.1, tss_limit)];
    for (index, entry) in table.iter().enumerate() {
        let address = GuestAddress(layout::GDT_GPA + index as u64 * 8);
        ram.write_obj(*entry, address).map_err(|error| error.to_string())?;
    }
    ram.write_obj(0_u64, GuestAddress(layout::IDT_GPA)).map_err(|error| error.to_string())?;

    let code_segment = segment(code, 0xf_ffff);
    let data_segment = segment(DATA, 0xf_ffff);
    sregs.gdt.base = layout::GDT_GPA;
    sregs.gdt.limit = GDT_LIMIT;
    sregs.idt.base = layout::IDT_GPA;
    sregs.idt.limit = 7;
    sregs.cs = code_segment;
    (sregs.ds, sregs.es, sregs.fs) = (data_segment, data_segment, data_segment);
    (sregs.gs, sregs.ss) = (data_segment, data_segment);
    sregs.tr = segment(tss, tss_limit);
    match start.entry {
        Entry::Pvh => {
            sregs.cr0 = CR0_PE | CR0_ET;
            sregs.cr4 = 0;
        }
        Entry::Linux64 => {
            write_page_tables(ram)?;
            sregs.cr3 = layout::PML4_GPA;
            sregs.cr4 |= CR4_PAE;
            sregs.cr0 |= CR0_PE | CR0_PG;
            sregs.efer |= EFER_LME | EFER_LMA;
        }
    }
    Ok(sregs)
}

/// Floating point state of every processor.
#[must_use]
pub fn floating_point() -> kvm_fpu {
    kvm_fpu { fcw: FPU_CONTROL_WORD, mxcsr: MXCSR, ..Default::default() }
}

/// Wires the local interrupt pins: pin 0 to the PIC, pin 1 to NMI, as firmware does.
pub fn wire_local_apic(apic: &mut kvm_lapic_state) {
    for (offset, mode) in [(APIC_LVT_LINT0, APIC_MODE_EXTINT), (APIC_LVT_LINT1, APIC_MODE_NMI)] {
        // The delivery mode is bits 8 to 10 of the register, in its second byte.
        let byte = &mut apic.regs[offset + 1];
        let bits = (byte.to_ne_bytes()[0] & !0x7) | mode.to_le_bytes()[0];
        *byte = bits as std::ffi::c_char;
    }
}

/// An identity map of the first GiB in pages of 2 MiB.
fn write_page_tables(ram: &Ram) -> Result<(), String> {
    let write = |value: u64, gpa: u64| ram.write_obj(value, GuestAddress(gpa)).map_err(|error| error.to_string());
    write(layout::PDPT_GPA | PAGE_PRESENT_WRITABLE, layout::PML4_GPA)?;
    write(layout::PD_GPA | PAGE_PRESENT_WRITABLE, layout::PDPT_GPA)?;
    for index in 0..ENTRIES {
        write((index * LARGE_PAGE_BYTES) | PAGE_PRESENT_WRITABLE | PAGE_LARGE, layout::PD_GPA + index * 8)?;
    }
    Ok(())
}

/// A descriptor of the table: flags as in its bits 40 to 55, base 0, the limit in pages or bytes.
fn descriptor(flags: u16, limit: u32) -> u64 {
    let limit = u64::from(limit);
    (limit & 0xffff) | (u64::from(flags) << 40) | ((limit & 0xf_0000) << 32)
}

/// The same as the processor keeps it.
fn segment((index, flags): (u16, u16), limit: u32) -> kvm_segment {
    let bit = |position: u16| (flags >> position & 1) as u8;
    let granular = bit(15) == 1;
    kvm_segment {
        base: 0,
        limit: if granular { (limit << 12) | 0xfff } else { limit },
        selector: index * 8,
        type_: (flags & 0xf) as u8,
        s: bit(4),
        dpl: (flags >> 5 & 3) as u8,
        present: bit(7),
        avl: bit(12),
        l: bit(13),
        db: bit(14),
        g: bit(15),
        unusable: 0,
        padding: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory;

    #[test]
    fn long_mode_has_an_identity_map() {
        let ram = memory::allocate(32 << 20).expect("memory");
        let start = Start { entry: Entry::Linux64, gpa: 0x100_0000 };
        let sregs = special(&ram, start, kvm_sregs::default()).expect("written");
        assert_eq!(sregs.cs.l, 1);
        assert_eq!(sregs.cs.db, 0);
        assert_eq!(sregs.efer, EFER_LME | EFER_LMA);
        assert_eq!(sregs.cr3, layout::PML4_GPA);
        let entry: u64 = ram.read_obj(GuestAddress(layout::PD_GPA + 8)).expect("a read");
        assert_eq!(entry, 0x20_0083);
        assert_eq!(general(start).rsi, layout::ZERO_PAGE_GPA);
    }

    #[test]
    fn pvh_is_flat_and_unpaged() {
        let ram = memory::allocate(32 << 20).expect("memory");
        let start = Start { entry: Entry::Pvh, gpa: 0x100_0000 };
        let sregs = special(&ram, start, kvm_sregs::default()).expect("written");
        assert_eq!((sregs.cr0, sregs.cr4), (CR0_PE | CR0_ET, 0));
        assert_eq!((sregs.cs.l, sregs.cs.db, sregs.cs.limit), (0, 1, 0xffff_ffff));
        assert_eq!(sregs.tr.limit, 0x67);
        assert_eq!(general(start).rbx, layout::PVH_START_INFO_GPA);
        // A code descriptor as every manual prints it.
        assert_eq!(descriptor(CODE_32.1, 0xf_ffff), 0x00cf_9b00_0000_ffff);
    }

    #[test]
    fn local_pins_are_wired() {
        let mut apic = kvm_lapic_state::default();
        wire_local_apic(&mut apic);
        assert_eq!((apic.regs[APIC_LVT_LINT0 + 1], apic.regs[APIC_LVT_LINT1 + 1]), (7, 4));
    }
}
