//! How a program comes up: by the quickest way that works.
//!
//! ```text
//! template of the function ──▶ template of the runtime ──▶ boot ──▶ boot without making templates
//!        goes on                 goes on, configures         prepares, configures
//! ```
//!
//! A way that fails for a reason that is not the program's is counted and logged, its template goes, and the next is taken: a caller waits
//! longer and sees no error. Templates are made on the way: the machine that comes up stands still where they begin, is copied, and goes on
//! as if it were a clone itself.

use super::{StartError, Workshop};
use crate::{
    cache::{CachedFile, program::Blueprint},
    config::seconds,
    guest::{self, Guest, GuestError},
    host_name,
    machine::{Machine, MachineError},
    network::card::Card,
    random,
    template::{
        Draft, Template,
        key::{Key, Level},
    },
};
use ccn_message::content::program::{Encoding, Interface};
use guest_protocol::{
    Code, Configuration, Device, Event as GuestEvent, GUEST_CID, LOG_PORT, Preparation, Program, Volume, record::Record,
};
use std::{
    fmt,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};
use tokio::time::timeout;
use vmm::config::{Config, Disk, Restore, Vsock};

/// Variable of a program that says how far its templates may go: `off`, `runtime` or `function`. For programs that do not bear being copied.
const LEVEL_VARIABLE: &str = "BETH_SNAPSHOT";

/// A program that listens.
pub(super) struct CameUp {
    pub(super) machine: Machine,
    /// The control stream; none for a clone that nobody has greeted yet.
    pub(super) guest: Option<Guest>,
    pub(super) way: Way,
    /// What it went on from, if that was its own.
    pub(super) template: Option<Arc<Template>>,
    /// The template is to learn what this clone has written to once its first call is answered.
    pub(super) watched: bool,
}

/// By which way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Boot,
    Template(Level),
}

impl fmt::Display for Way {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Boot => formatter.write_str("boot"),
            Self::Template(level) => write!(formatter, "template of its {level}"),
        }
    }
}

/// One start.
pub(super) struct Start<'a> {
    workshop: &'a Workshop,
    blueprint: &'a Blueprint,
    files: &'a [CachedFile],
    /// Of a program that asks for a network, where there is one.
    card: Option<&'a Card>,
    /// Told when the program runs; it may not listen yet.
    started: &'a (dyn Fn() + Send + Sync),
    config: Config,
    /// What the guest is told, without what differs from start to start.
    lasting: Configuration,
    level: Level,
    /// The machine that is tried: whoever gives the start up ends it.
    machine: Option<Machine>,
}

impl<'a> Start<'a> {
    pub(super) fn new(
        workshop: &'a Workshop,
        blueprint: &'a Blueprint,
        files: &'a [CachedFile],
        card: Option<&'a Card>,
        started: &'a (dyn Fn() + Send + Sync),
    ) -> Self {
        // More than a machine can have was refused by admission long ago, or is by the configuration's check.
        let memory_mib = u32::try_from(super::run::memory_mib(blueprint)).unwrap_or(u32::MAX);
        let vcpus = u8::try_from(blueprint.vcpus).unwrap_or(u8::MAX);
        let mut config = Config::new(memory_mib, vcpus);
        config.disks = files.iter().map(|_| Disk { read_only: true }).collect();
        config.vsock = Some(Vsock { guest_cid: GUEST_CID, accept_ports: Vec::new() });
        // For programs that run long: what they do not use others can, and their random numbers do not hang on one seed.
        config.balloon = true;
        config.entropy = true;
        config.nets = card.map(Card::net).into_iter().collect();
        let level = allowed_level(blueprint).min(workshop.templates.level());
        let name_servers = workshop.network.as_ref().map(|network| network.name_servers().to_vec());
        let lasting =
            lasting_configuration(blueprint, files, name_servers.filter(|_| card.is_some()).unwrap_or_default());
        Self { workshop, blueprint, files, card, started, config, lasting, level, machine: None }
    }

    /// The machine that was tried last, when the start is given up.
    pub(super) fn into_machine(self) -> Option<Machine> {
        self.machine
    }

    /// Brings the program up.
    ///
    /// # Errors
    /// The last way's.
    pub(super) async fn come_up(&mut self) -> Result<CameUp, StartError> {
        if let Some(template) = self.find(Level::Function).await {
            match self.go_on(&template).await {
                Ok((machine, watched)) => {
                    (self.started)();
                    self.workshop.templates.succeeded();
                    let way = Way::Template(Level::Function);
                    return Ok(CameUp { machine, guest: None, way, template: Some(template), watched });
                }
                Err(error) => self.give_up(&template, &error).await,
            }
        }
        if let Some(template) = self.find(Level::Runtime).await {
            match self.go_on_from_runtime(&template).await {
                Err(error) if blames_the_way(&error) => self.give_up(&template, &error).await,
                came_up => return came_up,
            }
        }
        match self.boot(self.level).await {
            Err(error @ StartError::NotFrozen(_)) => {
                tracing::warn!(item_hash = %self.blueprint.item_hash, %error, "a program starts again, without a template");
                self.end().await;
                self.boot(Level::Off).await
            }
            came_up => came_up,
        }
    }

    fn key(&self, level: Level) -> Option<Key> {
        let installation = &self.workshop.images.installation;
        let memory_mib = u64::from(self.config.memory_mib);
        match level {
            Level::Off => None,
            Level::Runtime => Some(installation.runtime_key(self.blueprint, memory_mib, self.config.nets.len())),
            Level::Function => {
                installation.function_key(self.blueprint, memory_mib, self.config.nets.len(), self.files, &self.lasting)
            }
        }
    }

    async fn find(&self, level: Level) -> Option<Arc<Template>> {
        if level > self.level {
            return None;
        }
        self.workshop.templates.find(self.key(level)?).await
    }

    fn begin(&self, level: Level, allowed: Level) -> Option<Draft> {
        if level > allowed {
            return None;
        }
        self.workshop.templates.begin(self.key(level)?, level, u64::from(self.config.memory_mib) << 20)
    }

    /// What the guest is told, now.
    fn configuration(&self) -> Configuration {
        let mut seed = [0; 32];
        random::fill(&mut seed);
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let wall_time_us = u64::try_from(since_epoch.as_micros()).unwrap_or(u64::MAX);
        Configuration { wall_time_us, seed, network: self.card.map(Card::guest), ..self.lasting.clone() }
    }

    /// A template that did not become this program's machine.
    async fn give_up(&mut self, template: &Template, error: &StartError) {
        let item_hash = &self.blueprint.item_hash;
        tracing::warn!(%item_hash, key = %template.key, level = %template.level, %error, "a template is of no use and goes");
        self.workshop.templates.failed(template);
        self.end().await;
    }

    async fn end(&mut self) {
        if let Some(machine) = self.machine.take() {
            super::run::end(&machine).await;
        }
    }

    fn boot_limit(&self) -> Duration {
        seconds(self.workshop.settings.boot_seconds)
    }

    async fn within<T>(&self, work: impl Future<Output = Result<T, StartError>>) -> Result<T, StartError> {
        let limit = self.boot_limit();
        timeout(limit, work).await.unwrap_or(Err(StartError::BootTimedOut(limit)))
    }

    /// A machine that has gone on from a template and is itself; and whether it is watched.
    async fn go_on(&mut self, template: &Template) -> Result<(Machine, bool), StartError> {
        let monitor = self.workshop.pool.take(self.config.nets.len()).await?;
        let restore = Restore {
            config: self.config.clone(),
            record: record(self.card),
            working_set: template.working_set().to_vec(),
            watched: template.is_to_be_watched(),
        };
        let machine =
            monitor.restore(template, &restore, self.files, self.card, self.blueprint.item_hash.to_string())?;
        self.machine = Some(machine.clone());
        let generation = restore.record.generation;
        self.within(async {
            match machine.thawed(generation).await {
                true => Ok(()),
                false => Err(StartError::Ended(Box::new(machine.ended().await))),
            }
        })
        .await?;
        Ok((machine, restore.watched))
    }

    async fn go_on_from_runtime(&mut self, template: &Template) -> Result<CameUp, StartError> {
        let began = Instant::now();
        let (machine, _) = self.go_on(template).await?;
        let guest = self.within(async { Ok(Guest::greet(&machine).await?) }).await?;
        self.workshop.templates.succeeded();
        let guest = self.become_program(&machine, guest, self.level, began).await?;
        Ok(CameUp { machine, guest: Some(guest), way: Way::Template(Level::Runtime), template: None, watched: false })
    }

    /// From the kernel's first instruction on; templates up to that level are made on the way.
    async fn boot(&mut self, level: Level) -> Result<CameUp, StartError> {
        let began = Instant::now();
        let monitor = self.workshop.pool.take(self.config.nets.len()).await?;
        let images = &self.workshop.images;
        let machine =
            monitor.boot(images, &self.config, self.files, self.card, self.blueprint.item_hash.to_string())?;
        self.machine = Some(machine.clone());
        let mut guest = self
            .within(async {
                if !machine.init_up().await {
                    return Err(StartError::Ended(Box::new(machine.ended().await)));
                }
                Ok(Guest::greet(&machine).await?)
            })
            .await?;
        let root = device(0, self.files);
        self.within(async {
            guest.prepare(Preparation { root }).await?;
            match guest.next().await? {
                GuestEvent::Prepared => Ok(()),
                GuestEvent::Failed(failure) => Err(StartError::Program(failure)),
                other => Err(GuestError::Unexpected(Box::new(other)).into()),
            }
        })
        .await?;
        if let Some(draft) = self.begin(Level::Runtime, level) {
            guest = self.copy(&machine, guest, draft, None, began.elapsed()).await?;
        }
        let guest = self.become_program(&machine, guest, level, began).await?;
        Ok(CameUp { machine, guest: Some(guest), way: Way::Boot, template: None, watched: false })
    }

    /// From a guest whose root is mounted to a program that listens.
    async fn become_program(
        &self,
        machine: &Machine,
        mut guest: Guest,
        level: Level,
        began: Instant,
    ) -> Result<Guest, StartError> {
        attach_log(self.workshop, self.blueprint, machine).await?;
        self.within(async { Ok(guest.configure(self.configuration()).await?) }).await?;
        let start = seconds(self.workshop.settings.start_seconds);
        timeout(start, self.until_ready(&mut guest)).await.map_err(|_| StartError::StartTimedOut(start))??;
        if let Some(draft) = self.begin(Level::Function, level) {
            let program = Some(self.blueprint.item_hash.to_string());
            guest = self.copy(machine, guest, draft, program, began.elapsed()).await?;
            attach_log(self.workshop, self.blueprint, machine).await?;
        }
        Ok(guest)
    }

    async fn until_ready(&self, guest: &mut Guest) -> Result<(), StartError> {
        loop {
            match guest.next().await? {
                GuestEvent::Started => (self.started)(),
                GuestEvent::Ready => return Ok(()),
                GuestEvent::Failed(failure) => return Err(StartError::Program(failure)),
                GuestEvent::Exited { status } => return Err(StartError::Exited(status)),
                other @ (GuestEvent::Hello { .. } | GuestEvent::Prepared) => {
                    return Err(GuestError::Unexpected(Box::new(other)).into());
                }
            }
        }
    }

    /// Has a guest stand still, copies its machine, and lets it go on as another one.
    async fn copy(
        &self,
        machine: &Machine,
        mut guest: Guest,
        draft: Draft,
        program: Option<String>,
        saves: Duration,
    ) -> Result<Guest, StartError> {
        let freezes = machine.freezes();
        guest.freeze().await?;
        let limit = self.boot_limit();
        match timeout(limit, machine.frozen_after(freezes)).await {
            Ok(true) => {}
            Ok(false) => return Err(StartError::Ended(Box::new(machine.ended().await))),
            Err(_) => return Err(StartError::NotFrozen(limit)),
        }
        let copied = machine.snapshot(&draft.memory, &draft.state).await;
        let record = record(self.card);
        machine.resume(record).await?;
        drop(guest);
        match copied {
            Ok(size_bytes) => {
                if let Err(error) = draft.finish(program, size_bytes, saves) {
                    tracing::warn!(%error, "a template cannot be kept");
                }
            }
            Err(MachineError::NotCopied(reason)) => {
                tracing::warn!(item_hash = %self.blueprint.item_hash, reason, "a machine is not copied");
            }
            Err(error) => return Err(error.into()),
        }
        self.within(async {
            if !machine.thawed(record.generation).await {
                return Err(StartError::Ended(Box::new(machine.ended().await)));
            }
            Ok(Guest::greet(machine).await?)
        })
        .await
    }
}

/// Takes what the program prints, until the machine ends or is copied.
pub(super) async fn attach_log(
    workshop: &Workshop,
    blueprint: &Blueprint,
    machine: &Machine,
) -> Result<(), StartError> {
    let log = workshop.logs.of(&blueprint.item_hash).map_err(GuestError::Closed)?;
    let stream = machine.connect(LOG_PORT).await?;
    // Ends with the machine, and not before it has written what the machine said last.
    tokio::spawn(async move {
        let end = guest::collect_log(stream, &log).await;
        tracing::debug!(?end, "a log stream ended");
    });
    Ok(())
}

/// How far templates of a program may go.
fn allowed_level(blueprint: &Blueprint) -> Level {
    if blueprint.vcpus != 1 {
        // A machine of several processors is not copied.
        return Level::Off;
    }
    let said = blueprint.variables.iter().find(|(name, _)| name == LEVEL_VARIABLE);
    match said.map(|(_, value)| value.as_str()) {
        Some("off") => Level::Off,
        Some("runtime") => Level::Runtime,
        Some(_) | None => Level::Function,
    }
}

/// Whether a start may have failed for a reason that another way to start does not have.
fn blames_the_way(error: &StartError) -> bool {
    match error {
        StartError::Machine(_)
        | StartError::Guest(_)
        | StartError::Ended(_)
        | StartError::BootTimedOut(_)
        | StartError::NotFrozen(_) => true,
        StartError::Lookup(_)
        | StartError::Files(_)
        | StartError::Network(_)
        | StartError::StartTimedOut(_)
        | StartError::Program(_)
        | StartError::Exited(_)
        | StartError::Stopped
        | StartError::Defect => false,
    }
}

/// What makes a machine another one than all that go on from the same template.
fn record(card: Option<&Card>) -> Record {
    let (mut generation, mut seed) = ([0; 8], [0; 32]);
    random::fill(&mut generation);
    random::fill(&mut seed);
    // The monitor sets the time, when the guest goes on.
    Record { generation: u64::from_le_bytes(generation), wall_time_us: 0, seed, network: card.map(Card::guest) }
}

/// A disk of the machine as its guest is told of it.
fn device(index: u8, files: &[CachedFile]) -> Device {
    let file = files.get(usize::from(index)).expect("a disk was made for every file of the blueprint");
    Device { index, length_bytes: file.length_bytes }
}

/// The record that makes a guest this program (order of the disks: [`Blueprint::files`]), without seed, time and addresses.
fn lasting_configuration(blueprint: &Blueprint, files: &[CachedFile], name_servers: Vec<IpAddr>) -> Configuration {
    // The first is the root, of which the guest knows.
    let mut devices = (1..).map(|index| device(index, files));
    let mut next = || devices.next().expect("there is no last number");
    let code = Code {
        device: next(),
        encoding: match blueprint.encoding {
            Encoding::Plain => guest_protocol::Encoding::Plain,
            Encoding::Zip => guest_protocol::Encoding::Zip,
            Encoding::Squashfs => guest_protocol::Encoding::Squashfs,
        },
        entrypoint: blueprint.entrypoint.clone(),
    };
    let data = blueprint.data.as_ref().map(|_| next());
    let volumes = blueprint
        .volumes
        .iter()
        .map(|volume| Volume { device: next(), mount: volume.path.clone(), read_only: true })
        .collect();
    Configuration {
        hostname: host_name::label(&blueprint.item_hash),
        wall_time_us: 0,
        seed: [0; 32],
        code,
        program: match blueprint.interface {
            Interface::Asgi => Program::Asgi,
            Interface::Binary => Program::Binary,
        },
        arguments: blueprint.arguments.clone(),
        variables: blueprint.variables.clone(),
        data,
        volumes,
        authorized_keys: blueprint.authorized_keys.clone(),
        name_servers,
        network: None,
    }
}
