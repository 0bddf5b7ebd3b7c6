//! Makes a flat kernel image of an ELF `vmlinux`: `cargo run -p vmm --features flatten --example flatten -- IN OUT`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(from), Some(to)) = (arguments.next(), arguments.next()) else {
        return Err("usage: flatten VMLINUX FLAT".into());
    };
    std::fs::write(to, vmm::kernel::flatten(&std::fs::read(from)?)?)?;
    Ok(())
}
