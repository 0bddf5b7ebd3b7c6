//! The x86_64 machine: where things lie, and the state in which a kernel is entered.

pub mod boot;
pub mod cpuid;
pub mod emulator;
pub mod layout;
pub mod mp_table;
pub mod msr;
pub mod paging;
pub mod processor;
pub mod registers;
