//! OpenStack Swift on this machine, asked as S3: a real object store, and not one that was made for tests.

use crate::{process::Process, python::Environment};
use anyhow::{Context as _, Result, bail, ensure};
use std::{
    fs,
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

/// The key of its one user.
pub const ACCESS_KEY_ID: &str = "test:tester";
/// The secret of that key.
pub const SECRET_ACCESS_KEY: &str = "a-secret-of-the-tests";

/// How long it may take to listen.
const READY_WITHIN: Duration = Duration::from_secs(120);
/// Its servers, in the order in which they are started: the last one is the way in, the others keep what their names say.
const SERVERS: [&str; 4] = ["account", "container", "object", "proxy"];
/// What keeps files of a store alike: any words, as long as they stay.
const COMMON: &str = "[swift-hash]\nswift_hash_path_suffix = tests\nswift_hash_path_prefix = tests\n\
    [storage-policy:0]\nname = one\ndefault = yes\n";
/// What a request passes through on its way in. Without a cache server each request is looked up, and parts go with their object, not when a further server
/// gets to them.
const WAY_IN: &str = "[pipeline:main]\npipeline = catch_errors cache listing_formats bulk s3api tempauth slo proxy-server\n\
    [app:proxy-server]\nuse = egg:swift#proxy\naccount_autocreate = true\n\
    [filter:catch_errors]\nuse = egg:swift#catch_errors\n\
    [filter:cache]\nuse = egg:swift#memcache\nmemcache_servers = 127.0.0.1:1\n\
    [filter:listing_formats]\nuse = egg:swift#listing_formats\n\
    [filter:bulk]\nuse = egg:swift#bulk\n\
    [filter:s3api]\nuse = egg:swift#s3api\n\
    [filter:slo]\nuse = egg:swift#slo\nallow_async_delete = false\n";
/// The way of its own client, which asks from inside.
const INSIDE: &str = "[pipeline:main]\npipeline = catch_errors proxy-server\n\
    [app:proxy-server]\nuse = egg:swift#proxy\naccount_autocreate = true\n\
    [filter:catch_errors]\nuse = egg:swift#catch_errors\n";

/// A store.
#[derive(Debug)]
pub struct Swift {
    environment: Environment,
    folder: PathBuf,
    ports: [u16; 4],
    processes: Vec<Process>,
}

impl Swift {
    /// Starts an empty store that keeps its files in `folder`, with the programs of that environment.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(environment: Environment, folder: &Path) -> Result<Self> {
        let mut swift = Self { environment, folder: folder.to_owned(), ports: free_ports()?, processes: Vec::new() };
        swift.configure()?;
        swift.start_again()?;
        Ok(swift)
    }

    /// Where it is, a base URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports[3])
    }

    /// Ends it as a power cut would.
    ///
    /// # Errors
    /// A server cannot be waited for.
    pub fn kill(&mut self) -> Result<()> {
        self.processes.drain(..).try_for_each(|mut process| process.kill())
    }

    /// Stops its servers where they are: who asks is connected and gets no answer.
    ///
    /// # Errors
    /// A server is gone.
    pub fn freeze(&self) -> Result<()> {
        self.processes.iter().try_for_each(Process::freeze)
    }

    /// Lets them go on.
    ///
    /// # Errors
    /// A server is gone.
    pub fn thaw(&self) -> Result<()> {
        self.processes.iter().try_for_each(Process::thaw)
    }

    /// Starts it where it was, with what it kept.
    ///
    /// # Errors
    /// It does not start.
    pub fn start_again(&mut self) -> Result<()> {
        for name in SERVERS {
            let mut command = Command::new(self.environment.python());
            command.arg(self.program(&format!("swift-{name}-server"))).arg(self.configuration(name));
            let log = self.folder.join(format!("{name}.log"));
            self.processes.push(Process::start(&mut command, &log)?);
        }
        let deadline = Instant::now() + READY_WITHIN;
        for port in self.ports {
            while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
                for process in &mut self.processes {
                    ensure!(process.is_running()?, "a server of swift ended:\n{}", process.log_end());
                }
                ensure!(Instant::now() < deadline, "swift does not listen after {READY_WITHIN:?}");
                thread::sleep(Duration::from_millis(50));
            }
        }
        Ok(())
    }

    /// Makes a bucket, by that program: `PROGRAM CONFIGURATION make BUCKET`.
    ///
    /// # Errors
    /// It is not made.
    pub fn make_bucket(&self, program: &Path, bucket: &str) -> Result<()> {
        self.ask(program, &["make", bucket]).map(drop)
    }

    /// The names of all objects of a bucket, by that program: `PROGRAM CONFIGURATION list BUCKET`.
    ///
    /// # Errors
    /// It does not answer.
    pub fn objects(&self, program: &Path, bucket: &str) -> Result<Vec<String>> {
        Ok(self.ask(program, &["list", bucket])?.lines().map(str::to_owned).collect())
    }

    fn ask(&self, program: &Path, words: &[&str]) -> Result<String> {
        let mut command = Command::new(self.environment.python());
        self.run(command.arg(program).arg(self.configuration("inside")).args(words))
    }

    fn run(&self, command: &mut Command) -> Result<String> {
        let output = command.output().with_context(|| format!("cannot start {command:?}"))?;
        if !output.status.success() {
            bail!("{command:?} failed:\n{}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn program(&self, name: &str) -> PathBuf {
        self.environment.programs().join(name)
    }

    fn configuration(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.conf"))
    }

    /// One disk, one copy of everything, one process a server.
    fn configure(&self) -> Result<()> {
        fs::create_dir_all(self.folder.join("devices/disk"))?;
        fs::write(self.configuration("swift"), COMMON)?;
        let user = self.run(Command::new("id").arg("-un"))?;
        let user = user.trim();
        for (name, port) in SERVERS.into_iter().zip(self.ports) {
            let folder = self.folder.display();
            let common = format!(
                "[DEFAULT]\nswift_dir = {folder}\ndevices = {folder}/devices\nmount_check = false\nbind_ip = 127.0.0.1\n\
                 bind_port = {port}\nworkers = 0\nuser = {user}\nlog_address = {folder}/no-log\ndisable_fallocate = true\n"
            );
            let rest = match name {
                "proxy" => format!(
                    "{WAY_IN}[filter:tempauth]\nuse = egg:swift#tempauth\nuser_test_tester = {SECRET_ACCESS_KEY} .admin\n"
                ),
                _ => {
                    format!("[pipeline:main]\npipeline = {name}-server\n[app:{name}-server]\nuse = egg:swift#{name}\n")
                }
            };
            fs::write(self.configuration(name), format!("{common}{rest}"))?;
            if name == "proxy" {
                fs::write(self.configuration("inside"), format!("{common}{INSIDE}"))?;
                continue;
            }
            let builder = self.folder.join(format!("{name}.builder"));
            let device = format!("r1z1-127.0.0.1:{port}/disk");
            for words in [&["create", "4", "1", "0"][..], &["add", &device, "1"], &["rebalance"]] {
                let mut command = Command::new(self.environment.python());
                command.arg(self.program("swift-ring-builder")).arg(&builder).args(words);
                self.run(&mut command)?;
            }
        }
        Ok(())
    }
}

fn free_ports() -> Result<[u16; 4]> {
    // All are held until all are chosen, so that they differ.
    let held = [(); 4].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
    let mut ports = [0; 4];
    for (port, listener) in ports.iter_mut().zip(held) {
        *port = listener.context("no free port")?.local_addr()?.port();
    }
    Ok(ports)
}
