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

use super::{Inputs, StartError, Workshop};
use crate::{
    cache::program::{Blueprint, Source},
    config::seconds,
    guest::{self, Guest, GuestError},
    host_name,
    machine::{Disks, Machine, MachineError},
    network::card::Card,
    random,
    template::{
        Draft, Template,
        key::{Key, Level},
    },
    volume::{self, Volume},
};
use ccn_message::content::program::{Encoding, Interface};
use guest_protocol::{
    Code, Configuration, Device, Event as GuestEvent, GUEST_CID, LOG_PORT, Preparation, Program, record::Record,
};
use std::{
    fmt, io,
    net::IpAddr,
    os::fd::AsFd as _,
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
    /// The template is to learn what this clone has touched once its first call is answered.
    pub(super) watched: bool,
    /// Its ephemeral volumes: they take their room until it has ended.
    pub(super) ephemeral: Vec<Volume>,
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
    inputs: &'a Inputs,
    /// Of a program that asks for a network, where there is one.
    card: Option<&'a Card>,
    /// Told when the program runs; it may not listen yet.
    started: &'a (dyn Fn() + Send + Sync),
    config: Config,
    /// What the guest is told, without what differs from start to start.
    lasting: Configuration,
    level: Level,
    /// The ephemeral volumes of the machine that is tried, in order.
    ephemeral: Vec<Volume>,
    /// The machine that is tried: whoever gives the start up ends it.
    machine: Option<Machine>,
}

impl<'a> Start<'a> {
    pub(super) fn new(
        workshop: &'a Workshop,
        blueprint: &'a Blueprint,
        inputs: &'a Inputs,
        card: Option<&'a Card>,
        started: &'a (dyn Fn() + Send + Sync),
    ) -> Self {
        // More than a machine can have was refused by admission long ago, or is by the configuration's check.
        let memory_mib = u32::try_from(super::run::memory_mib(blueprint)).unwrap_or(u32::MAX);
        let vcpus = u8::try_from(blueprint.vcpus).unwrap_or(u8::MAX);
        let mut config = Config::new(memory_mib, vcpus);
        config.disks = blueprint.disks().map(|disk| Disk { read_only: matches!(disk, Source::Image(_)) }).collect();
        config.vsock = Some(Vsock { guest_cid: GUEST_CID, accept_ports: Vec::new() });
        // For programs that run long: what they do not use others can, and their random numbers do not hang on one seed.
        config.balloon = true;
        config.entropy = true;
        config.nets = card.map(Card::net).into_iter().collect();
        let level = allowed_level(blueprint).min(workshop.templates.level());
        let name_servers = workshop.network.as_ref().map(|network| network.name_servers().to_vec());
        let name_servers = name_servers.filter(|_| card.is_some()).unwrap_or_default();
        let lasting = lasting_configuration(blueprint, devices(blueprint, inputs), name_servers);
        Self {
            workshop,
            blueprint,
            inputs,
            card,
            started,
            config,
            lasting,
            level,
            ephemeral: Vec::new(),
            machine: None,
        }
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
                    return Ok(self.came_up(machine, None, way, Some(template), watched));
                }
                Err(error) if blames_the_way(&error) => self.give_up(&template, &error).await,
                Err(error) => return Err(error),
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
            Level::Function => installation.function_key(
                self.blueprint,
                memory_mib,
                self.config.nets.len(),
                &self.inputs.files,
                &self.lasting,
            ),
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

    fn came_up(
        &mut self,
        machine: Machine,
        guest: Option<Guest>,
        way: Way,
        template: Option<Arc<Template>>,
        watched: bool,
    ) -> CameUp {
        CameUp { machine, guest, way, template, watched, ephemeral: std::mem::take(&mut self.ephemeral) }
    }

    /// New ephemeral volumes for the next machine that is tried: empty ones, or, for a clone of the program, copies of what the template's
    /// machine had on them when it stood still. Its memory knows their file systems as mounted, and no other bytes fit that.
    async fn make_ephemeral(&mut self, template: Option<&Template>) -> Result<(), StartError> {
        self.ephemeral.clear();
        let originals = template.filter(|template| template.level == Level::Function).map(|template| &template.volumes);
        let sizes = self.blueprint.disks().filter_map(|disk| match disk {
            Source::Ephemeral { size_mib } => Some(size_mib),
            Source::Image(_) | Source::Persistent { .. } => None,
        });
        for (index, size_mib) in sizes.enumerate() {
            let original = match originals {
                None => None,
                Some(originals) => {
                    let original = originals.get(index).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound));
                    Some(original.and_then(|original| original.try_clone()).map_err(MachineError::Host)?)
                }
            };
            self.ephemeral.push(self.workshop.volumes.ephemeral(size_mib, original).await?);
        }
        Ok(())
    }

    /// What is behind the machine's disks, in their order.
    fn disks(&self) -> Disks<'_> {
        let (mut files, mut persistent) = (self.inputs.files.iter(), self.inputs.persistent.iter());
        let mut ephemeral = self.ephemeral.iter();
        let descriptors = self.blueprint.disks().filter_map(|disk| match disk {
            Source::Image(_) => files.next().map(|file| file.file.as_fd()),
            Source::Ephemeral { .. } => ephemeral.next().map(|volume| volume.file.as_fd()),
            Source::Persistent { .. } => persistent.next().map(|volume| volume.file.as_fd()),
        });
        let descriptors = descriptors.collect();
        let in_memory_mib = self.workshop.volumes.memory_mib(self.inputs.persistent.iter().chain(&self.ephemeral));
        Disks { descriptors, in_memory_mib }
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
        self.make_ephemeral(Some(template)).await?;
        let monitor = self.workshop.pool.take(self.config.nets.len()).await?;
        let restore = Restore {
            config: self.config.clone(),
            record: record(self.card),
            holes: template.holes.clone(),
            working_set: template.working_set(),
            watched: template.is_to_be_watched(),
        };
        let name = self.blueprint.item_hash.to_string();
        let machine = monitor.restore(template, &restore, &self.disks(), self.card, name)?;
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
        Ok(self.came_up(machine, Some(guest), Way::Template(Level::Runtime), None, false))
    }

    /// From the kernel's first instruction on; templates up to that level are made on the way.
    async fn boot(&mut self, level: Level) -> Result<CameUp, StartError> {
        let began = Instant::now();
        self.make_ephemeral(None).await?;
        let monitor = self.workshop.pool.take(self.config.nets.len()).await?;
        let images = &self.workshop.images;
        let name = self.blueprint.item_hash.to_string();
        let machine = monitor.boot(images, &self.config, &self.disks(), self.card, name)?;
        self.machine = Some(machine.clone());
        let mut guest = self
            .within(async {
                if !machine.init_up().await {
                    return Err(StartError::Ended(Box::new(machine.ended().await)));
                }
                Ok(Guest::greet(&machine).await?)
            })
            .await?;
        let root = devices(self.blueprint, self.inputs).next().ok_or(StartError::Defect)?;
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
        Ok(self.came_up(machine, Some(guest), Way::Boot, None, false))
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
        mut draft: Draft,
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
        let mut copied = machine.snapshot(&draft.memory, &draft.state).await;
        if draft.level() == Level::Function && copied.is_ok() {
            // Before it goes on: memory and disks are of one instant.
            match draft.keep_volumes(self.ephemeral.iter().map(|volume| Arc::clone(&volume.file)).collect()).await {
                Ok(volume_bytes) => copied = copied.map(|memory_bytes| memory_bytes + volume_bytes),
                Err(error) => copied = Err(MachineError::NotCopied(error.to_string())),
            }
        }
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
    // A clone of the program knows the file system of each volume as it was when the template was made. Of a volume that goes on changing
    // that is not true any more: its first write would destroy it. Below that level no volume is mounted yet.
    let most = if blueprint.has_persistent_volume() { Level::Runtime } else { Level::Function };
    match blueprint.variable(LEVEL_VARIABLE) {
        Some("off") => Level::Off,
        Some("runtime") => Level::Runtime,
        Some(_) | None => most,
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
        | StartError::Volume(_)
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

/// The disks of the machine as its guest is told of them, in order.
fn devices(blueprint: &Blueprint, inputs: &Inputs) -> impl Iterator<Item = Device> {
    let mut files = inputs.files.iter();
    (0..).zip(blueprint.disks()).map(move |(index, disk)| {
        let length_bytes = match disk {
            Source::Image(_) => files.next().map_or(0, |file| file.length_bytes),
            Source::Ephemeral { size_mib } | Source::Persistent { size_mib, .. } => volume::length_bytes(size_mib),
        };
        Device { index, length_bytes }
    })
}

/// The record that makes a guest this program (order of the disks: [`Blueprint::disks`]), without seed, time and addresses.
fn lasting_configuration(
    blueprint: &Blueprint,
    devices: impl Iterator<Item = Device>,
    name_servers: Vec<IpAddr>,
) -> Configuration {
    // The first is the root, of which the guest knows.
    let mut devices = devices.skip(1);
    let mut next = || devices.next().expect("there is a disk for everything in the blueprint");
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
        .map(|volume| guest_protocol::Volume {
            device: next(),
            mount: volume.path.clone(),
            read_only: matches!(volume.source, Source::Image(_)),
        })
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::program::tests::blueprint;
    use serde_json::{Value, json};

    /// A clone of a program whose volume has changed since would write over it what it remembers.
    #[test]
    fn no_template_of_a_function_has_a_persistent_volume() {
        let check = |volumes: Value, variables: Value, vcpus, level| {
            let blueprint = blueprint(&volumes, &variables, vcpus).expect("a blueprint");
            assert_eq!(allowed_level(&blueprint), level, "{volumes} {variables}");
        };
        let persistent =
            json!([{"ephemeral": true, "size_mib": 1}, {"persistence": "host", "name": "a", "size_mib": 5}]);
        check(json!([]), json!({}), 1, Level::Function);
        check(json!([{"ephemeral": true, "size_mib": 1}]), json!({}), 1, Level::Function);
        check(persistent.clone(), json!({}), 1, Level::Runtime);
        check(persistent.clone(), json!({"BETH_SNAPSHOT": "function"}), 1, Level::Runtime);
        check(persistent.clone(), json!({"BETH_SNAPSHOT": "off"}), 1, Level::Off);
        check(persistent, json!({}), 2, Level::Off);
    }

    #[test]
    fn a_guest_is_told_what_it_may_write_to() {
        let volumes = json!([
            {"persistence": "host", "name": "a", "size_mib": 5, "mount": "/a"},
            {"ref": "cd".repeat(32), "mount": "/b"},
            {"ephemeral": true, "size_mib": 1, "mount": "/c"},
        ]);
        let blueprint = blueprint(&volumes, &json!({}), 1).expect("a blueprint");
        let configuration = lasting_configuration(&blueprint, devices(&blueprint, &Inputs::default()), Vec::new());
        let told: Vec<_> = configuration
            .volumes
            .iter()
            .map(|volume| (volume.mount.as_str(), volume.device.index, volume.device.length_bytes, volume.read_only))
            .collect();
        assert_eq!(told, [("/a", 2, 5 << 20, false), ("/b", 3, 0, true), ("/c", 4, 2 << 20, false)]);
    }
}
