//! Confidential computing (messages spec section 7): trusted execution, measurements, confidential GPUs. All closed.

use crate::{
    ItemHash,
    json::{FormatError, Object, Value},
};

/// Most measurements of a machine.
const MAX_MEASUREMENTS: usize = 16;
/// Longest name of a processor type, characters.
const MAX_VCPU_TYPE_CHARS: usize = 64;
/// Digits of a register.
const REGISTER_DIGITS: usize = 96;
/// Most confidential GPUs of a machine, and most models among which to choose.
const MAX_GPUS: i64 = 8;
const MAX_GPU_MODELS: usize = 16;
/// The policy of SEV and of a machine that says none.
const DEFAULT_POLICY: i128 = 1;
/// Bit that is set in every policy of SEV-SNP.
const SNP_RESERVED_BIT: i128 = 1 << 17;

/// How the processor keeps the host out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// AMD SEV: the launch is watched by the owner through the compute node.
    Sev,
    /// AMD SEV-SNP: the launch is measured.
    SevSnp,
    /// Intel TDX: the launch is measured.
    Tdx,
}

impl Mode {
    /// Those that measure what they start, with their words.
    pub const MEASURED: [(&'static str, Self); 2] = [("sev_snp", Self::SevSnp), ("tdx", Self::Tdx)];
    const ALL: [(&'static str, Self); 3] = [("sev", Self::Sev), ("sev_snp", Self::SevSnp), ("tdx", Self::Tdx)];

    /// The word for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Sev => "sev",
            Self::SevSnp => "sev_snp",
            Self::Tdx => "tdx",
        }
    }
}

/// What an INSTANCE says of its trusted execution.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustedExecution {
    /// How; SEV unless it says otherwise.
    pub mode: Mode,
    /// The firmware of SEV.
    pub firmware: Option<ItemHash>,
    /// The manifest of what is measured.
    pub runtime: Option<ItemHash>,
    /// Whether it asks for confidential GPUs.
    pub has_gpu: bool,
}

impl TrustedExecution {
    /// Reads trusted execution.
    ///
    /// # Errors
    /// Another value, or one whose members do not go together.
    pub fn read(value: Value<'_>) -> Result<Self, FormatError> {
        let mut object = value.object()?;
        let mode = object.optional("mode", |value| value.one_of(&Mode::ALL))?.unwrap_or(Mode::Sev);
        let firmware = object.optional("firmware", Value::item_hash)?;
        let policy = object.defaulted("policy", read_policy)?.unwrap_or(DEFAULT_POLICY);
        let runtime = object.optional("runtime", Value::item_hash)?;
        let measurements = object.optional("measurements", read_measurements)?;
        let port = object.optional("attestation_port", |value| value.integer(1..=65_535))?;
        let has_gpu = object.optional("gpu", read_gpu)?.is_some();
        object.close()?;
        let refuse = |field: &str, problem: String| Err(FormatError::new(field, problem));
        let name = mode.name();
        if mode == Mode::Sev {
            let measured = [
                ("runtime", runtime.is_some()),
                ("measurements", measurements.is_some()),
                ("attestation_port", port.is_some()),
                ("gpu", has_gpu),
            ];
            if let Some((field, _)) = measured.iter().find(|(_, is_there)| *is_there) {
                return refuse(field, "belongs to the modes sev_snp and tdx".into());
            }
        } else {
            if firmware.is_some() {
                return refuse("firmware", format!("belongs to the mode sev; {name} takes `runtime`"));
            }
            if runtime.is_none() {
                return refuse("runtime", format!("is required in mode {name}"));
            }
            check_measurements(mode, measurements.as_deref().unwrap_or_default())?;
            match mode {
                Mode::SevSnp => check_snp_policy(policy)?,
                _ if has_gpu => return refuse("gpu", "belongs to the mode sev_snp".into()),
                _ if policy != DEFAULT_POLICY => {
                    return refuse("policy", format!("is not for the owner in mode {name}"));
                }
                _ => {}
            }
        }
        Ok(Self { mode, firmware, runtime, has_gpu })
    }
}

/// A whole number of any size that occurs, leniently.
fn read_policy(value: Value<'_>) -> Result<i128, FormatError> {
    let number = if value.is_string() { value.string()?.trim().parse().ok() } else { value.text().parse().ok() };
    match number {
        Some(number) => Ok(number),
        None => value.integer(i64::MIN..=i64::MAX).map(i128::from),
    }
}

/// A policy of SEV-SNP: 64 bits, of which one is always set.
///
/// # Errors
/// Another number.
pub(super) fn check_snp_policy(policy: i128) -> Result<(), FormatError> {
    if !(0..1 << 64).contains(&policy) || policy & SNP_RESERVED_BIT == 0 {
        let problem = format!("{policy} is no policy of sev_snp: 64 bits, of which bit 17 is set");
        return Err(FormatError::new("policy", problem));
    }
    Ok(())
}

/// Reads measurements; the mode that each is of.
///
/// # Errors
/// Another value.
pub(super) fn read_measurements(value: Value<'_>) -> Result<Vec<Mode>, FormatError> {
    value.list_of(MAX_MEASUREMENTS, |value| {
        let mut measurement = value.object()?;
        let platform = measurement.required("platform", |value| value.one_of(&Mode::MEASURED))?;
        measurement.required("registers", |value| {
            let mut registers = value.object()?;
            let names: &[&str] = match platform {
                Mode::Tdx => &["mrtd", "rtmr1", "rtmr2", "mrconfigid"],
                Mode::Sev | Mode::SevSnp => &["launch"],
            };
            for name in names {
                registers.required(name, |value| read_digits(value, REGISTER_DIGITS))?;
            }
            registers.close()
        })?;
        measurement.optional("vcpu_type", |value| value.string_up_to(MAX_VCPU_TYPE_CHARS))?;
        measurement.close()?;
        Ok(platform)
    })
}

/// Each measurement is of that mode, and there are as many as it takes.
///
/// # Errors
/// They are not.
pub(super) fn check_measurements(mode: Mode, measurements: &[Mode]) -> Result<(), FormatError> {
    let name = mode.name();
    if let Some(place) = measurements.iter().position(|platform| *platform != mode) {
        let problem = format!("{name} was expected, not {}", measurements[place].name());
        return Err(FormatError::new(format!("measurements[{place}].platform"), problem));
    }
    match (mode, measurements.len()) {
        (_, 0) => Err(FormatError::new("measurements", format!("at least one is required in mode {name}"))),
        (Mode::Tdx, 2..) => Err(FormatError::new("measurements", "exactly one is required in mode tdx")),
        _ => Ok(()),
    }
}

/// Lower-case hex digits, that many.
pub(super) fn read_digits(value: Value<'_>, count: usize) -> Result<String, FormatError> {
    let text = value.string()?;
    if text.len() != count || !text.bytes().all(is_hex_digit) {
        return Err(FormatError::new("", format!("{count} lower-case hex digits were expected")));
    }
    Ok(text)
}

fn is_hex_digit(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

/// Reads a wish for confidential GPUs; their number.
///
/// # Errors
/// Another value.
pub(super) fn read_gpu(value: Value<'_>) -> Result<i64, FormatError> {
    let mut gpu = value.object()?;
    gpu.required("vendor", |value| value.one_of(&[("nvidia", ())]))?;
    gpu.required("arch", |value| value.one_of(&[("hopper", ()), ("blackwell", ())]))?;
    let count = gpu.required("count", |value| value.strict_integer(1..=MAX_GPUS))?;
    gpu.optional("models", |value| {
        let mut models = value.list_of(MAX_GPU_MODELS, read_model)?;
        let count = models.len();
        models.sort_unstable();
        models.dedup();
        match count {
            0 => Err(FormatError::new("", "at least one is required")),
            _ if models.len() < count => Err(FormatError::new("", "each may be named once")),
            _ => Ok(()),
        }
    })?;
    gpu.required("mode", |value| value.one_of(&[("cc", ())]))?;
    gpu.close()?;
    Ok(count)
}

fn read_model(value: Value<'_>) -> Result<String, FormatError> {
    let model = value.string()?;
    let parts = model.split_once(':').filter(|(vendor, device)| {
        [vendor, device].iter().all(|part| part.len() == 4 && part.bytes().all(is_hex_digit))
    });
    match parts {
        Some(_) => Ok(model),
        None => Err(FormatError::new("", "vendor and device were expected, such as 10de:2b85")),
    }
}

/// Takes nothing: an object that must be empty but for what was taken. Used where unmeasured inputs are refused.
pub(super) fn refuse_unless_empty(object: &mut Object<'_>, field: &str) -> Result<(), FormatError> {
    match object.take(field) {
        Some(value) if !matches!(value.text().split_whitespace().collect::<String>().as_str(), "{}" | "[]") => {
            Err(FormatError::new(field, "would reach the machine unmeasured"))
        }
        _ => Ok(()),
    }
}
