//! Does this machine really run guests?
//!
//! The file `/dev/kvm` proves nothing: there are hosts whose KVM carries out the instructions of an ordinary guest one by
//! one in software, a thousand times too slow. So a few million real instructions are run, and counted against the clock.

use crate::{
    arch::x86_64::boot::Start,
    config::Entry,
    memory::{self, Ram},
    vcpu,
    vm::{Vm, VmError},
};
use kvm_ioctls::{Kvm, VcpuExit};
use std::{
    fmt,
    time::{Duration, Instant},
};
use vm_memory::{Bytes as _, GuestAddress};

/// Least speed of a usable machine, guest instructions per second. Hardware runs billions, a machine under full emulation (which the
/// tests use, and which is usable) tens of millions, a KVM without hardware support under it a million.
pub const MIN_INSTRUCTIONS_PER_SECOND: u64 = 8_000_000;

const MEMORY_BYTES: u64 = 32 << 20;
const CODE_GPA: u64 = 0x10_0000;
/// Instructions of one turn of the loop.
const LOOP_INSTRUCTIONS: u64 = 2;
/// A first, short run: on a hopeless host it must end soon as well.
const SHORT_TURNS: u32 = 5_000;
/// Growth from one run to the next, and the time of a run that is long enough to trust: entering a guest for the first time costs
/// an emulated host as much as a hundred thousand instructions.
const GROWTH: u32 = 20;
const LONG_ENOUGH: Duration = Duration::from_millis(200);
const MAX_TURNS: u32 = 500_000_000;

/// What was found out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Guests run.
    Usable {
        /// How fast.
        instructions_per_second: u64,
    },
    /// There is a KVM, but guests do not run at a useful speed.
    TooSlow {
        /// How fast.
        instructions_per_second: u64,
    },
    /// No KVM.
    Missing,
    /// A KVM that this user may not use.
    Forbidden,
    /// A KVM that cannot do it, in its own words.
    Broken(String),
}

impl Verdict {
    /// True when machines can run here.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        matches!(self, Self::Usable { .. })
    }

    /// What the operator can do about it; nothing when all is well.
    #[must_use]
    pub fn advice(&self) -> Option<&'static str> {
        match self {
            Self::Usable { .. } => None,
            Self::TooSlow { .. } => Some(
                "This is a virtual machine whose host offers KVM without hardware support. Use a bare-metal server, or ask \
                 the provider for nested virtualization. For trying things out, `cargo xtask demo` runs everything in an \
                 emulated host.",
            ),
            Self::Missing => Some(
                "Load the module (`modprobe kvm-intel` or `modprobe kvm-amd`). If it does not load, enable virtualization \
                 (VT-x or AMD-V) in the firmware; in a virtual machine, ask the provider for nested virtualization.",
            ),
            Self::Forbidden => {
                Some("Add the user to the group of /dev/kvm (`usermod -aG kvm USER`), then log in again.")
            }
            Self::Broken(_) => {
                Some("Update the host's kernel: Linux 5.10 or newer is needed, 6.1 or newer is recommended.")
            }
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usable { instructions_per_second } => {
                write!(
                    formatter,
                    "KVM runs guests: {} million instructions a second",
                    instructions_per_second / 1_000_000
                )
            }
            Self::TooSlow { instructions_per_second } => write!(
                formatter,
                "KVM is there but emulates guests: {:.1} million instructions a second, {} are needed",
                *instructions_per_second as f64 / 1e6,
                MIN_INSTRUCTIONS_PER_SECOND / 1_000_000,
            ),
            Self::Missing => write!(formatter, "there is no /dev/kvm"),
            Self::Forbidden => write!(formatter, "/dev/kvm is there, but this user may not open it"),
            Self::Broken(reason) => write!(formatter, "KVM is there but does not work: {reason}"),
        }
    }
}

/// Runs guest instructions and judges. Takes a second or two at most.
#[must_use]
pub fn probe() -> Verdict {
    match Kvm::new() {
        Ok(kvm) => measure(&kvm).unwrap_or_else(Verdict::Broken),
        Err(error) => match error.errno() {
            libc::ENOENT | libc::ENXIO | libc::ENODEV => Verdict::Missing,
            libc::EACCES | libc::EPERM => Verdict::Forbidden,
            _ => Verdict::Broken(VmError::Open(error).to_string()),
        },
    }
}

fn measure(kvm: &Kvm) -> Result<Verdict, String> {
    let mut turns = SHORT_TURNS;
    loop {
        let took = run_loop(kvm, turns)?;
        let speed = (u128::from(turns) * u128::from(LOOP_INSTRUCTIONS) * 1_000_000_000) / took.as_nanos().max(1);
        let instructions_per_second = u64::try_from(speed).unwrap_or(u64::MAX);
        if took >= LONG_ENOUGH || turns >= MAX_TURNS {
            let usable = instructions_per_second >= MIN_INSTRUCTIONS_PER_SECOND;
            return Ok(if usable {
                Verdict::Usable { instructions_per_second }
            } else {
                Verdict::TooSlow { instructions_per_second }
            });
        }
        turns = turns.saturating_mul(GROWTH).min(MAX_TURNS);
    }
}

/// Runs an empty loop in 64-bit mode with paging, as a kernel runs, and times it from entry to exit.
fn run_loop(kvm: &Kvm, turns: u32) -> Result<Duration, String> {
    let ram: Ram = memory::allocate(MEMORY_BYTES).map_err(|error| error.to_string())?;
    let mut code = vec![0xb9]; // mov ecx, turns
    code.extend(turns.to_le_bytes());
    code.extend([
        0xff, 0xc9, // again: dec ecx
        0x75, 0xfc, // jnz again
        0xe6, 0x80, // out 0x80, al
    ]);
    ram.write_slice(&code, GuestAddress(CODE_GPA)).map_err(|error| error.to_string())?;
    let vm = Vm::create(kvm).map_err(|error| error.to_string())?;
    vm.map(&ram).map_err(|error| error.to_string())?;
    let mut fd = vm.create_vcpu(0).map_err(|error| error.to_string())?;
    let start = Start { entry: Entry::Linux64, gpa: CODE_GPA };
    vcpu::prepare(&fd, 0, 1, vm.supported_cpuid(), &ram, start).map_err(|error| error.to_string())?;
    let started = Instant::now();
    loop {
        match fd.run() {
            Ok(VcpuExit::IoOut(..)) => return Ok(started.elapsed()),
            Ok(VcpuExit::Intr) => {}
            Ok(exit) => return Err(format!("a guest of three instructions ended with {exit:?}")),
            Err(error) if error.errno() == libc::EINTR => {}
            Err(error) => {
                return Err(format!("a guest of three instructions does not run: {error}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verdict_says_what_to_do() {
        let verdicts = [
            Verdict::TooSlow { instructions_per_second: 900_000 },
            Verdict::Missing,
            Verdict::Forbidden,
            Verdict::Broken("x".into()),
        ];
        for verdict in verdicts {
            assert!(verdict.advice().is_some());
            assert!(!verdict.is_usable());
        }
        let good = Verdict::Usable { instructions_per_second: 2_000_000_000 };
        assert_eq!(good.to_string(), "KVM runs guests: 2000 million instructions a second");
        assert_eq!(good.advice(), None);
    }

    /// On any host: an answer, soon.
    #[test]
    fn a_probe_ends() {
        let started = Instant::now();
        let verdict = probe();
        assert!(!verdict.to_string().is_empty());
        assert!(started.elapsed() < Duration::from_secs(30), "{verdict}");
    }
}
