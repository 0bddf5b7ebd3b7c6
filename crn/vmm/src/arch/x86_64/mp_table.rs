//! The MP table (Intel MultiProcessor Specification 1.4): tells the kernel of its processors, of the
//! IOAPIC and of the interrupt lines, without ACPI and its interpreter.
//!
//! It also makes the kernel set its APIC up in a mode that needs no PIT (vmm spec 1.3).

use super::layout;
use crate::memory::Ram;
use vm_memory::{Bytes as _, GuestAddress};

/// Entry types of the table.
const PROCESSOR: u8 = 0;
const BUS: u8 = 1;
const IO_APIC: u8 = 2;
const IO_INTERRUPT: u8 = 3;
const LOCAL_INTERRUPT: u8 = 4;

/// Interrupt types.
const INTERRUPT_VECTORED: u8 = 0;
const INTERRUPT_NMI: u8 = 1;
const INTERRUPT_EXTERNAL: u8 = 3;

const PROCESSOR_ENABLED: u8 = 1;
const PROCESSOR_BOOTSTRAP: u8 = 2;
/// Integrated local APIC.
const LOCAL_APIC_VERSION: u8 = 0x14;
const IO_APIC_VERSION: u8 = 0x20;
const ISA_BUS: u8 = 0;
/// All local APICs.
const EVERY_APIC: u8 = 0xff;
/// Family 6 with an FPU and an APIC: what the field asks for, nobody reads it.
const CPU_SIGNATURE: u32 = 0x600;
const CPU_FEATURES: u32 = 0x201;

const FLOATING_POINTER_BYTES: usize = 16;
const HEADER_BYTES: usize = 44;
/// The table ends where the first MiB's reserved part may be used for it.
const MAX_BYTES: u64 = layout::FIRST_MIB_END_GPA - layout::MP_TABLE_GPA;

/// Writes the floating pointer and the table.
///
/// # Errors
/// The text is for an operator: RAM is missing where the table goes.
pub fn write(ram: &Ram, vcpus: u8) -> Result<(), String> {
    let bytes = build(vcpus);
    ram.write_slice(&bytes, GuestAddress(layout::MP_TABLE_GPA)).map_err(|error| error.to_string())
}

/// The APIC id of the IOAPIC: the first that no processor has.
fn io_apic_id(vcpus: u8) -> u8 {
    vcpus
}

#[expect(clippy::cast_possible_truncation, reason = "the table and its address are below 1 MiB, a few KiB long")]
fn build(vcpus: u8) -> Vec<u8> {
    let mut entries: Vec<u8> = Vec::new();
    let mut count: u16 = 0;
    let mut add = |bytes: &[u8]| {
        entries.extend_from_slice(bytes);
        count += 1;
    };
    for id in 0..vcpus {
        let flags = PROCESSOR_ENABLED | if id == 0 { PROCESSOR_BOOTSTRAP } else { 0 };
        let mut entry = vec![PROCESSOR, id, LOCAL_APIC_VERSION, flags];
        entry.extend(CPU_SIGNATURE.to_le_bytes());
        entry.extend(CPU_FEATURES.to_le_bytes());
        entry.extend([0; 8]);
        add(&entry);
    }
    add(&[BUS, ISA_BUS, b'I', b'S', b'A', b' ', b' ', b' ']);
    let mut io_apic = vec![IO_APIC, io_apic_id(vcpus), IO_APIC_VERSION, 1];
    io_apic.extend(layout::IOAPIC_GPA.to_le_bytes());
    add(&io_apic);
    // Line n of the bus is pin n of the IOAPIC.
    for line in 0..=layout::LAST_GSI.to_le_bytes()[0] {
        add(&[IO_INTERRUPT, INTERRUPT_VECTORED, 0, 0, ISA_BUS, line, io_apic_id(vcpus), line]);
    }
    add(&[LOCAL_INTERRUPT, INTERRUPT_EXTERNAL, 0, 0, ISA_BUS, 0, 0, 0]);
    add(&[LOCAL_INTERRUPT, INTERRUPT_NMI, 0, 0, ISA_BUS, 0, EVERY_APIC, 1]);

    let mut table = Vec::with_capacity(HEADER_BYTES + entries.len());
    table.extend(b"PCMP");
    table.extend(((HEADER_BYTES + entries.len()) as u16).to_le_bytes());
    table.extend([4, 0]); // specification 1.4; the checksum comes last
    table.extend(b"BETH    ");
    table.extend(b"MICROVM     ");
    table.extend([0; 6]); // no OEM table
    table.extend(count.to_le_bytes());
    table.extend(layout::LAPIC_GPA.to_le_bytes());
    table.extend([0; 4]); // no extended table
    table.extend(entries);
    table[7] = checksum(&table);

    let table_gpa = layout::MP_TABLE_GPA as u32 + FLOATING_POINTER_BYTES as u32;
    let mut bytes = Vec::with_capacity(FLOATING_POINTER_BYTES + table.len());
    bytes.extend(b"_MP_");
    bytes.extend(table_gpa.to_le_bytes());
    bytes.extend([1, 4, 0, 0, 0, 0, 0, 0]);
    bytes[10] = checksum(&bytes);
    bytes.extend(table);
    debug_assert!(bytes.len() as u64 <= MAX_BYTES);
    bytes
}

/// The byte that makes a sum zero.
fn checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)).wrapping_neg()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_zero_and_lengths_are_right() {
        for vcpus in [1, 2, 64] {
            let bytes = build(vcpus);
            let (pointer, table) = bytes.split_at(FLOATING_POINTER_BYTES);
            assert_eq!(pointer.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)), 0);
            assert_eq!(table.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)), 0);
            assert_eq!(usize::from(u16::from_le_bytes([table[4], table[5]])), table.len());
            let entries = usize::from(vcpus) + 2 + 24 + 2;
            assert_eq!(usize::from(u16::from_le_bytes([table[34], table[35]])), entries);
            assert!(bytes.len() as u64 <= MAX_BYTES);
        }
    }
}
