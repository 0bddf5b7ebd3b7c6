//! The user's program: where its code goes, how it is started, what it is told.

use crate::{
    mount::{self, MountError, device_path},
    unpack::{self, UnpackError},
};
use guest_protocol::{Code, Configuration, Encoding, Failure, Program, Stage};
use rustix::{
    fs::{CWD, Mode},
    process::Pid,
};
use std::{
    fs::{self, File},
    io::{self, Read as _},
    os::unix::{
        fs::{OpenOptionsExt as _, PermissionsExt as _},
        process::CommandExt as _,
    },
    path::{Component, Path, PathBuf},
    process::{Child, Command, Stdio},
};

/// Where programs listen.
pub(crate) const SOCKET_PATH: &str = "/run/beth/program.sock";
/// TCP port of binaries.
pub(crate) const BINARY_PORT: u16 = 8080;
const LAUNCHER_PATH: &str = "/run/beth/launcher.py";
const REPORT_PATH: &str = "/run/beth/report";
const LAUNCHER: &str = include_str!("../asgi/launcher.py");
/// Largest single file of code, bytes: it is copied into memory.
const MAX_PLAIN_BYTES: u64 = 256 << 20;
/// Share of the guest's memory, in percent, that code and data may unfold to.
const UNPACK_PERCENT: u64 = 60;

/// A program that was started.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) child: Child,
    /// Where an ASGI launcher reports; binaries are watched by their port.
    pub(crate) report: Option<File>,
}

/// Why there is no program.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProgramError {
    #[error(transparent)]
    Mount(#[from] MountError),
    #[error(transparent)]
    Unpack(#[from] UnpackError),
    #[error("cannot take the machine's place in the network: {0}")]
    Network(io::Error),
    /// The entry point is not where it should be.
    #[error("{0}")]
    Entrypoint(String),
    #[error("cannot start {what}: {error}")]
    Start { what: String, error: io::Error },
}

impl ProgramError {
    pub(crate) fn to_failure(&self) -> Failure {
        let stage = match self {
            Self::Mount(_) => Stage::Mount,
            Self::Unpack(_) => Stage::Unpack,
            Self::Network(_) => Stage::Network,
            Self::Entrypoint(_) | Self::Start { .. } => Stage::Start,
        };
        Failure { stage, error: self.to_string(), traceback: String::new() }
    }
}

/// Puts code and data where the program expects them. Returns the folder that holds the code.
pub(crate) fn place_code(configuration: &Configuration) -> Result<PathBuf, ProgramError> {
    let limit = unpack_limit();
    if let Some(data) = configuration.data {
        mount::make_folder(Path::new("/data"))?;
        let device = open_device(&device_path(data))?;
        unpack::unpack(&device, data.length_bytes, Path::new("/data"), limit)?;
    }
    let code = &configuration.code;
    // Today's network unpacks Python archives to /opt, everything else to /opt/code (crn spec 4.4).
    let folder = match (configuration.program, code.encoding) {
        (Program::Asgi, Encoding::Zip | Encoding::Plain) => PathBuf::from("/opt"),
        (Program::Asgi, Encoding::Squashfs) | (Program::Binary, _) => PathBuf::from("/opt/code"),
    };
    mount::make_folder(&folder)?;
    let device = device_path(code.device);
    match code.encoding {
        Encoding::Squashfs => mount::mount_image(&device, &folder, true, "the code")?,
        Encoding::Zip => unpack::unpack(&open_device(&device)?, code.device.length_bytes, &folder, limit)?,
        Encoding::Plain => copy_plain(&device, code, configuration.program, &folder)?,
    }
    Ok(folder)
}

/// Starts the program.
pub(crate) fn start(configuration: &Configuration, folder: &Path) -> Result<Started, ProgramError> {
    mount::make_folder(Path::new("/run/beth"))?;
    match configuration.program {
        Program::Asgi => start_asgi(configuration, folder),
        Program::Binary => start_binary(configuration, folder),
    }
}

fn start_asgi(configuration: &Configuration, folder: &Path) -> Result<Started, ProgramError> {
    let fail = |what: &str| {
        let what = what.to_owned();
        move |error| ProgramError::Start { what, error }
    };
    fs::write(LAUNCHER_PATH, LAUNCHER).map_err(fail("the ASGI launcher"))?;
    rustix::fs::mknodat(CWD, REPORT_PATH, rustix::fs::FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)
        .map_err(|error| fail("the ASGI launcher")(error.into()))?;
    // Opened for both ways, so that it does not read as ended before the launcher has opened it.
    let report = File::options()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open(REPORT_PATH)
        .map_err(fail("the ASGI launcher"))?;
    let mut command = Command::new("/usr/bin/python3");
    command.arg(LAUNCHER_PATH).arg(folder);
    command.arg(python_entrypoint(&configuration.code)).args([SOCKET_PATH, REPORT_PATH]);
    let child = spawn(&mut command, configuration).map_err(fail("python3 (is the runtime one for Python?)"))?;
    Ok(Started { child, report: Some(report) })
}

fn start_binary(configuration: &Configuration, folder: &Path) -> Result<Started, ProgramError> {
    let entrypoint = &configuration.code.entrypoint;
    let path = inside(folder, entrypoint).ok_or_else(|| {
        ProgramError::Entrypoint(format!("the entry point `{entrypoint}` is not a path inside the code"))
    })?;
    let metadata = fs::metadata(&path)
        .ok()
        .filter(fs::Metadata::is_file)
        .ok_or_else(|| ProgramError::Entrypoint(format!("there is no file `{entrypoint}` in the code")))?;
    let fail = |error| ProgramError::Start { what: format!("`{entrypoint}`"), error };
    let mut path = path;
    if metadata.permissions().mode() & 0o111 == 0 {
        let executable = fs::Permissions::from_mode(metadata.permissions().mode() | 0o755);
        if fs::set_permissions(&path, executable.clone()).is_err() {
            // A read-only image: what cannot be made executable in place is copied.
            let copy = Path::new("/run/beth/program");
            fs::copy(&path, copy).map_err(fail)?;
            fs::set_permissions(copy, executable).map_err(fail)?;
            path = copy.to_owned();
        }
    }
    let child = match spawn(&mut Command::new(&path), configuration) {
        // A script without a first line that names its interpreter: as shells do.
        Err(error) if error.raw_os_error() == Some(libc::ENOEXEC) => {
            spawn(Command::new("/bin/sh").arg(&path), configuration)
        }
        other => other,
    };
    Ok(Started { child: child.map_err(fail)?, report: None })
}

fn spawn(command: &mut Command, configuration: &Configuration) -> io::Result<Child> {
    command
        .args(&configuration.arguments)
        .env_clear()
        .envs(environment(configuration))
        .current_dir("/")
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
}

/// The environment of programs (crn spec 4.4); the user's own variables come last and win.
pub(crate) fn environment(configuration: &Configuration) -> Vec<(String, String)> {
    let fixed = [
        ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
        ("HOME", "/root"),
        ("LANG", "C.UTF-8"),
        ("PYTHONPATH", "/opt/aleph/libs"),
        // What a program prints is seen when it is printed.
        ("PYTHONUNBUFFERED", "1"),
        ("ALEPH_INIT_VERSION", "2.0.0"),
        ("ALEPH_API_HOST", "http://localhost"),
        ("ALEPH_API_UNIX_SOCKET", "/tmp/socat-socket"),
        ("ALEPH_REMOTE_CRYPTO_HOST", "http://localhost"),
        ("ALEPH_REMOTE_CRYPTO_UNIX_SOCKET", "/tmp/socat-socket"),
    ];
    let mut variables: Vec<(String, String)> =
        fixed.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    variables.push(("ALEPH_ADDRESS_TO_USE".into(), configuration.hostname.clone()));
    // A name with `=` or a NUL byte would make the start fail as a whole; such a variable cannot exist anyway.
    let possible =
        |(name, value): &&(String, String)| !name.is_empty() && !name.contains(['=', '\0']) && !value.contains('\0');
    variables.extend(configuration.variables.iter().filter(possible).cloned());
    variables
}

/// Writes the keys that may log in, if the runtime has somebody who looks.
pub(crate) fn write_authorized_keys(keys: &[String]) -> Result<(), ProgramError> {
    if keys.is_empty() {
        return Ok(());
    }
    mount::make_folder(Path::new("/root/.ssh"))?;
    let fail = |error| ProgramError::Start { what: "with the owner's keys".into(), error };
    let path = Path::new("/root/.ssh/authorized_keys");
    fs::write(path, keys.join("\n") + "\n").map_err(fail)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(fail)
}

/// Sends a signal to the program and everything it has started in its group.
pub(crate) fn signal(child: &Child, signal: rustix::process::Signal) {
    if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        // A group that is gone needs no signal.
        let _ = rustix::process::kill_process_group(group, signal);
    }
}

/// True when some process listens on the port: read from the kernel's tables, so that programs which take one connection at a
/// time are not disturbed by a trial.
pub(crate) fn listens_on(port: u16) -> bool {
    ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .any(|path| fs::read_to_string(path).is_ok_and(|table| table_has_listener(&table, port)))
}

fn table_has_listener(table: &str, port: u16) -> bool {
    const LISTEN: &str = "0A";
    let suffix = format!(":{port:04X}");
    table.lines().skip(1).any(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let local = fields.next();
        let state = fields.nth(1);
        local.is_some_and(|local| local.ends_with(&suffix)) && state == Some(LISTEN)
    })
}

/// `module:attribute` for the launcher. A plain file may name only the attribute; its module is then `main`.
fn python_entrypoint(code: &Code) -> String {
    match (code.encoding, code.entrypoint.contains(':')) {
        (Encoding::Plain, false) => format!("main:{}", code.entrypoint),
        _ => code.entrypoint.clone(),
    }
}

/// Name of the file that plain code becomes.
fn plain_name(code: &Code, program: Program) -> Result<PathBuf, ProgramError> {
    let name = match program {
        Program::Binary => code.entrypoint.clone(),
        Program::Asgi => {
            let entrypoint = python_entrypoint(code);
            let module = entrypoint.split(':').next().unwrap_or("main").to_owned();
            if module.contains('.') || module.is_empty() {
                return Err(ProgramError::Entrypoint(format!(
                    "`{}` names a package, but the code is one plain file: use `name:attribute`",
                    code.entrypoint
                )));
            }
            format!("{module}.py")
        }
    };
    inside(Path::new(""), &name)
        .ok_or_else(|| ProgramError::Entrypoint(format!("the entry point `{name}` is not a path inside the code")))
}

fn copy_plain(device: &Path, code: &Code, program: Program, folder: &Path) -> Result<(), ProgramError> {
    let path = folder.join(plain_name(code, program)?);
    let fail = |error| ProgramError::Unpack(UnpackError::Write { path: path.display().to_string(), error });
    if code.device.length_bytes > MAX_PLAIN_BYTES {
        return Err(UnpackError::TooLarge { limit: MAX_PLAIN_BYTES }.into());
    }
    if let Some(parent) = path.parent() {
        mount::make_folder(parent)?;
    }
    let mut from = File::open(device).map_err(fail)?.take(code.device.length_bytes);
    let mut to = File::create(&path).map_err(fail)?;
    io::copy(&mut from, &mut to).map_err(fail)?;
    Ok(())
}

/// A relative path that does not climb, below a folder.
fn inside(folder: &Path, path: &str) -> Option<PathBuf> {
    let mut result = folder.to_owned();
    let mut any = false;
    for component in Path::new(path).components() {
        match component {
            Component::Normal(part) => {
                result.push(part);
                any = true;
            }
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    any.then_some(result)
}

fn open_device(path: &Path) -> Result<File, ProgramError> {
    File::open(path).map_err(|error| ProgramError::Start { what: format!("with {}", path.display()), error })
}

/// What archives may unfold to on this machine, bytes.
fn unpack_limit() -> u64 {
    let total = rustix::system::sysinfo().totalram as u64;
    total / 100 * UNPACK_PERCENT
}

#[cfg(test)]
mod tests {
    use super::*;
    use guest_protocol::Device;

    fn code(encoding: Encoding, entrypoint: &str) -> Code {
        Code { device: Device { index: 1, length_bytes: 10 }, encoding, entrypoint: entrypoint.into() }
    }

    #[test]
    fn plain_code_becomes_a_module() {
        let check = |entrypoint: &str, program, expect: Option<&str>| {
            let name = plain_name(&code(Encoding::Plain, entrypoint), program).ok();
            assert_eq!(name.as_deref(), expect.map(Path::new), "{entrypoint}");
        };
        check("app", Program::Asgi, Some("main.py"));
        check("server:app", Program::Asgi, Some("server.py"));
        check("package.server:app", Program::Asgi, None);
        check("../server:app", Program::Asgi, None);
        check("run", Program::Binary, Some("run"));
        check("bin/run", Program::Binary, Some("bin/run"));
        check("/bin/sh", Program::Binary, None);
        check("../../bin/sh", Program::Binary, None);
        check("", Program::Binary, None);
        assert_eq!(python_entrypoint(&code(Encoding::Zip, "main:app")), "main:app");
    }

    #[test]
    fn the_launcher_passes_its_own_tests() {
        let tests = concat!(env!("CARGO_MANIFEST_DIR"), "/asgi/test_launcher.py");
        let run = Command::new("python3").args(["-B", tests]).output().expect("python3");
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    }

    #[test]
    fn listeners_are_seen_in_the_kernels_tables() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue\n\
                     0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000\n\
                     1: 0100007F:1F91 0100007F:1234 01 00000000:00000000 00:00000000\n";
        assert!(table_has_listener(table, 8080));
        assert!(!table_has_listener(table, 8081));
        assert!(!table_has_listener("", 8080));
        let six = "h\n 0: 00000000000000000000000000000000:1F90 00000000000000000000000000000000:0000 0A 0\n";
        assert!(table_has_listener(six, 8080));
    }

    #[test]
    fn the_owners_variables_win_and_impossible_ones_are_left_out() {
        let configuration = Configuration {
            hostname: "label".into(),
            wall_time_us: 0,
            seed: [0; 32],
            code: code(Encoding::Zip, "main:app"),
            program: Program::Asgi,
            arguments: vec![],
            variables: vec![
                ("HOME".into(), "/data".into()),
                ("A=B".into(), "x".into()),
                ("N".into(), "a\0b".into()),
                (String::new(), "x".into()),
            ],
            data: None,
            volumes: vec![],
            authorized_keys: vec![],
            name_servers: vec![],
            network: None,
        };
        let variables = environment(&configuration);
        let last = |name: &str| variables.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        assert_eq!(last("HOME"), Some("/data"));
        assert_eq!(last("ALEPH_ADDRESS_TO_USE"), Some("label"));
        assert_eq!(last("A=B"), None);
        assert_eq!(last("N"), None);
    }
}
