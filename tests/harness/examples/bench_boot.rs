//! `bench_boot VMM KVM_HOST KERNEL VMLINUX INITRAMFS QEMU_IMAGE [RUNS]`: the comparison alone, as JSON, for work on the monitor.

#![expect(clippy::print_stdout, reason = "this is a command line: its output is its product")]

use harness::bench_boot::{Comparison, MIN_RUNS, compare};

fn main() -> anyhow::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [vmm, kvm_host, kernel_flat, kernel_elf, initramfs, qemu_image, rest @ ..] = words.as_slice() else {
        anyhow::bail!("usage: bench_boot VMM KVM_HOST KERNEL VMLINUX INITRAMFS QEMU_IMAGE [RUNS]");
    };
    let report = compare(&Comparison {
        vmm: vmm.into(),
        kvm_host: kvm_host.into(),
        kernel_flat: kernel_flat.into(),
        kernel_elf: kernel_elf.into(),
        initramfs: initramfs.into(),
        qemu_image: qemu_image.into(),
        runs: rest.first().map_or(Ok(MIN_RUNS), |runs| runs.parse())?,
    })?;
    println!("{}", serde_json::to_string_pretty(&report)?);
    Ok(())
}
