//! The kernel room: loads the programs, attaches them, and reads their rings and maps.
//!
//! The only user of aya. Takes sizes, gives raw records and counters; interprets nothing. What this
//! kernel cannot run is said in one sentence for each probe and left out.

pub mod gate;

mod btf;
mod layout;
mod meter;
mod preemption;
mod probes;
mod rings;
pub mod roads;

use std::os::fd::AsFd as _;
use std::time::Duration;

use aya::maps::{Array, HashMap as BpfHashMap, MapData, PerCpuArray, PerCpuHashMap};
use aya::programs::raw_trace_point::RawTracePoint;
use aya::programs::{Program, ProgramError, RawTracePointRunOptions, TestRun as _};
use aya::{Ebpf, EbpfLoader};
use rustix::time::{ClockId, clock_gettime};
use thiserror::Error;
use whodunit_ebpf::{
    CgroupCounters, Settings, backup, control, counter, epochs, machine_counter, operation,
};
use zerocopy::IntoBytes as _;

use crate::config;
use crate::event::CgroupId;
use crate::privilege;

use gate::{Gate, GateError};
use layout::{Layout, LayoutError};
use meter::Counts;
pub use meter::{Meter, MeterError, Runs};
use preemption::Holding;
use probes::Wanted;
pub use probes::{INTERPRETERS, ProbeStatus, Tier};
pub use rings::DeathRing;
use rings::Rings;

/// The kernel programs, as the build script left them.
static PROGRAMS: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/programs"));

/// How many cgroups may flood at once before one that does not can lose anything: half of the ring
/// is kept for those within their budget, on each CPU.
const BUDGETS_IN_A_RING: u64 = 64;

/// How many workers of rings may be at a path at once, with 8 KiB for each. What a further one does is counted as
/// lost.
const RING_WORKERS: u32 = 128;

/// Why capture cannot start at all.
#[derive(Debug, Error)]
pub enum StartError {
    /// The kernel describes its structures nowhere.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The kernel refuses BPF to this process.
    #[error(
        "the kernel refuses BPF to this process: it needs the capabilities CAP_BPF and CAP_PERFMON \
         (CAP_SYS_ADMIN before Linux 5.8); run it as root, or grant them"
    )]
    Permission(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The kernel refuses BPF to this process, which has the capabilities.
    #[error(
        "something forbids BPF to this process, which has the capabilities for it: a seccomp profile or a \
         security module; let the system call `bpf` through (in Kubernetes `seccompProfile: {{ type: \
         Unconfined }}`, or a profile that allows it)"
    )]
    Forbidden(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Maps count against the limit of locked memory here, and it is too low.
    #[error(
        "the kernel refuses the maps, which count against the limit of locked memory before Linux 5.11 ({limit_bytes} \
         bytes here): lift it (`LimitMEMLOCK=infinity`, `ulimit -l unlimited`), or grant CAP_SYS_RESOURCE"
    )]
    Locked {
        /// The limit that nobody may go beyond, in bytes.
        limit_bytes: u64,
        /// What the kernel says.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The programs or maps were not accepted.
    #[error(
        "the kernel does not accept the maps of whodunit's programs; `whodunit doctor` shows what it can do"
    )]
    Load(#[source] Box<aya::EbpfError>),
    /// A map is not what it should be: the object is of another build.
    #[error("the kernel programs of this build have no usable map {name}: build whodunit anew")]
    Map {
        /// Its name.
        name: &'static str,
        /// What aya says.
        #[source]
        source: Option<Box<aya::maps::MapError>>,
    },
    /// The program that finds the daemon's own cgroup did not run.
    #[error("the kernel did not tell whodunit's own cgroup (BPF_PROG_TEST_RUN, Linux 5.10)")]
    OwnCgroup(#[source] Box<aya::programs::ProgramError>),
    /// The exact tier was demanded.
    #[error(
        "`capture.tier` demands the exact tier, and this kernel does not run its probe `{probe}`: {reason}; \
         with tier = \"auto\" whodunit does without it"
    )]
    Tier {
        /// A probe of it that does not run.
        probe: &'static str,
        /// Why, in one sentence.
        reason: String,
    },
    /// A ring cannot be waited for.
    #[error("the kernel's rings cannot be waited for")]
    Wait(#[source] std::io::Error),
}

/// The counters that the kernel programs keep for one cgroup, over all CPUs. Each counts accesses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KernelCounters {
    /// By the container's own programs, repeats included, by [`operation`].
    pub by_operation: [u64; operation::COUNT],
    /// During setup, repeats included.
    pub setup: u64,
    /// Absorbed by the kernel's dedup.
    pub absorbed: u64,
    /// Sent to the daemon.
    pub submitted: u64,
    /// Lost because the ring was full.
    pub ring_full: u64,
    /// Lost because the cgroup was over its budget while the ring was short of room.
    pub throttled: u64,
    /// Lost because another program of ours was at work on that CPU, which this one interrupted.
    pub busy: u64,
    /// Programs executed.
    pub executed: u64,
    /// How long the programs ran for it, in nanoseconds, where that is measured.
    pub time_ns: u64,
}

impl KernelCounters {
    /// Accesses by the container's own programs, repeats and what was lost included.
    pub fn received(&self) -> u64 {
        self.by_operation.iter().sum::<u64>() + self.busy
    }

    /// Adds another cgroup's counters.
    pub fn add(&mut self, other: &KernelCounters) {
        for (sum, value) in self.by_operation.iter_mut().zip(other.by_operation) {
            *sum += value;
        }
        self.throttled += other.throttled;
        self.busy += other.busy;
        self.setup += other.setup;
        self.absorbed += other.absorbed;
        self.submitted += other.submitted;
        self.ring_full += other.ring_full;
        self.executed += other.executed;
        self.time_ns += other.time_ns;
    }
}

/// The machine-wide counters of the kernel programs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MachineCounters {
    /// New cgroups that could not be traced because `capture.max_cgroups` was reached.
    pub cgroups_full: u64,
    /// Cgroup records that were lost: a rescan repairs it.
    pub lifecycle_lost: u64,
    /// Processes of a container runtime that could not be remembered as such: what they do counts as
    /// their container's.
    pub entering_full: u64,
    /// Records about processes that found their ring full.
    pub deaths_lost: u64,
    /// Calls of any process of the machine that the kernel kept from a program, because it had interrupted
    /// that program on the same CPU, and that no second program took up.
    pub interrupted: u64,
}

/// The loaded programs.
pub struct Kernel {
    programs: Ebpf,
    probes: Vec<ProbeStatus>,
    rings: Rings,
    deaths: Option<DeathRing>,
    traced: PerCpuHashMap<MapData, u64, CgroupCounters>,
    watched: BpfHashMap<MapData, u64, u8>,
    entering: BpfHashMap<MapData, u32, u8>,
    machine: PerCpuArray<MapData, u64>,
    control: Array<MapData, u64>,
    epochs: Array<MapData, u64>,
    own_cgroup: CgroupId,
    epoch: u64,
    /// What the kernel kept from programs that are not loaded any more.
    interrupted_before: u64,
    cpus: usize,
    max_cgroups: u32,
}

impl Kernel {
    /// Loads and attaches every probe that this kernel can run.
    ///
    /// Nothing is captured until [`Gate::trace`] or [`Gate::watch`] name a cgroup.
    ///
    /// # Errors
    ///
    /// If nothing at all can run: no permission, no BTF. A probe that cannot run is no error: see
    /// [`Kernel::probes`].
    pub fn start(sizes: &config::Capture) -> Result<Kernel, StartError> {
        let mut layout = Layout::of_running_kernel()?;
        let ring_bytes = u64::from(sizes.ring_bytes);
        let wanted = Wanted {
            exact: sizes.tier != config::Tier::Base,
            backup: match sizes.backup {
                config::Backup::Auto => layout.interrupts_tracepoints,
                config::Backup::Always => true,
                config::Backup::Never => false,
            },
        };
        let settings = Settings {
            seed: random_seed(),
            started_ns: boot_time_ns(),
            wake_at_bytes: ring_bytes / 4,
            budget_bytes: ring_bytes / BUDGETS_IN_A_RING,
            short_at_bytes: ring_bytes / 2,
            call_number: layout.call.number,
            thread_status: layout.call.thread_status,
            arguments: layout.call.arguments,
            compat_arguments: layout.call.compat_arguments,
            open_no_follow: layout.call.open_no_follow,
            call_result: layout.call.result,
            backup: u32::from(wanted.backup),
            measure: u32::from(sizes.measure),
            reserved: 0,
            typed_task: u32::from(layout.typed_task),
        };
        let roads = roads::roads();
        let load = |object: &[u8]| {
            EbpfLoader::new()
                // Nothing in them is relocated by types, which are some megabytes to read.
                .btf(None)
                .override_global("LAYOUT", layout.kernel.as_bytes(), true)
                .override_global("SETTINGS", settings.as_bytes(), true)
                .override_global("FATE", layout.fate.as_bytes(), true)
                .override_global("ROADS", roads.as_bytes(), true)
                .map_max_entries("RINGS", if wanted.exact { RING_WORKERS } else { 1 })
                .map_max_entries("SEEN", if wanted.backup { backup::WORDS } else { 1 })
                .map_max_entries("FILES", sizes.ring_bytes)
                .map_max_entries("REPEATS", sizes.kernel_dedup_entries)
                .map_max_entries("TRACED", sizes.max_cgroups)
                .map_max_entries("WATCHED", sizes.max_cgroups)
                .load(object)
                .map_err(|error| refused(error, layout.locks_maps))
        };
        let (mut programs, control, own_cgroup) = begin(load, layout.holding)?;
        if layout.lacks_registers() {
            match find_registers(&mut programs, &control) {
                Ok(true) => layout.registers_found(),
                // What needs them says that it does not run.
                Ok(false) => tracing::debug!("no call of this process was seen"),
                Err(error) => tracing::debug!(%error, "saved registers were not looked for"),
            }
        }
        let rings = Rings::open(take(&mut programs, "FILES")?, take(&mut programs, "LIFECYCLE")?)
            .map_err(StartError::Wait)?;
        let deaths = DeathRing::open(take(&mut programs, "DEATHS")?, second(&programs, "MACHINE")?)
            .map_err(StartError::Wait)?;
        let mut kernel = Kernel {
            rings,
            deaths: Some(deaths),
            traced: take(&mut programs, "TRACED")?,
            watched: take(&mut programs, "WATCHED")?,
            entering: take(&mut programs, "ENTERING")?,
            machine: take(&mut programs, "MACHINE")?,
            epochs: take(&mut programs, "EPOCHS")?,
            control,
            own_cgroup,
            epoch: 0,
            interrupted_before: 0,
            cpus: aya::util::nr_cpus().unwrap_or(1),
            max_cgroups: sizes.max_cgroups,
            probes: Vec::new(),
            programs,
        };
        kernel.probes = probes::attach_all(&mut kernel.programs, &layout, wanted);
        let runs = |name: &&str| kernel.probes.iter().any(|it| it.name == *name && it.live());
        if probes::OF_RUNTIMES.iter().all(runs) {
            // A failure leaves a moment of each runtime to the container, which is how it was before.
            let _ = kernel.control.set(control::COMPLETE, 1, 0);
        }
        let missing = kernel.probes.iter().find(|probe| probe.tier == Tier::Exact && !probe.live());
        match missing.filter(|_| sizes.tier == config::Tier::Exact) {
            Some(ProbeStatus { name, reason, .. }) => {
                Err(StartError::Tier { probe: name, reason: reason.clone().unwrap_or_default() })
            }
            None => Ok(kernel),
        }
    }

    /// The cgroup of the calling process in the v2 hierarchy.
    pub fn own_cgroup(&self) -> CgroupId {
        self.own_cgroup
    }

    /// The ring of deaths, for the thread that reads it. None the second time.
    pub fn take_deaths(&mut self) -> Option<DeathRing> {
        self.deaths.take()
    }

    /// Every probe of this build, and whether it runs.
    pub fn probes(&self) -> &[ProbeStatus] {
        &self.probes
    }

    /// Has the kernel measure how often and how long the programs run, for as long as the answer lives.
    ///
    /// # Errors
    ///
    /// If the kernel does not let this process do that. Nothing else depends on it.
    pub fn measure(&self) -> Result<Meter, MeterError> {
        Meter::begin(&self.programs)
    }

    /// The counters of a cgroup as of now; zero for one that is not traced.
    pub fn counters(&self, cgroup: CgroupId) -> KernelCounters {
        let Ok(values) = self.traced.get(&cgroup.0, 0) else {
            return KernelCounters::default();
        };
        let sum = |index: usize| values.iter().map(|cpu| cpu[index]).sum();
        KernelCounters {
            by_operation: std::array::from_fn(|operation| sum(counter::RECEIVED + operation)),
            throttled: sum(counter::THROTTLED),
            busy: sum(counter::BUSY),
            setup: sum(counter::SETUP),
            absorbed: sum(counter::ABSORBED),
            submitted: sum(counter::SUBMITTED),
            ring_full: sum(counter::LOST_RING_FULL),
            executed: sum(counter::EXECUTED),
            time_ns: sum(counter::TIME_NS),
        }
    }

    /// The machine-wide counters as of now.
    pub fn machine_counters(&self) -> MachineCounters {
        let sum = |index: u32| {
            self.machine.get(&index, 0).map_or(0, |values| values.iter().copied().sum())
        };
        MachineCounters {
            cgroups_full: sum(machine_counter::CGROUPS_FULL),
            lifecycle_lost: sum(machine_counter::LIFECYCLE_LOST),
            entering_full: sum(machine_counter::ENTERING_FULL),
            deaths_lost: sum(machine_counter::DEATHS_LOST),
            interrupted: (self.interrupted_before + self.interrupted())
                .saturating_sub(sum(machine_counter::TAKEN_UP)),
        }
    }

    /// What the kernel kept from the programs that are loaded now. What it kept from the second one of a tracepoint the first one
    /// saw, or the kernel kept it from that one too.
    fn interrupted(&self) -> u64 {
        let first = self.programs.programs().filter(|(name, _)| !name.ends_with(backup::SUFFIX));
        let loaded = first.filter_map(|(_, program)| program.fd().ok());
        loaded.map(|program| Counts::of(program).misses).sum()
    }

    /// Makes the kernel's dedup begin anew: whatever is accessed from now on is sent once more.
    pub fn forget_repeats(&mut self) {
        self.epoch += 1;
        if let Err(error) = self.control.set(control::EPOCH, self.epoch, 0) {
            tracing::error!(%error, "the kernel's dedup could not be restarted");
        }
    }

    /// Makes the kernel's dedup of one cgroup begin anew. Others that share its place in the map are
    /// sent once more as well, which are repeats to the daemon.
    pub fn forget_repeats_of(&mut self, cgroup: CgroupId) {
        let place = epochs::of(cgroup.0);
        let next = self.epochs.get(&place, 0).unwrap_or(0) + 1;
        if let Err(error) = self.epochs.set(place, next, 0) {
            tracing::error!(cgroup = cgroup.0, %error, "the kernel's dedup could not be restarted");
        }
    }

    /// Tells the programs when nobody is in setup any more, so that they stop asking.
    pub fn settle(&mut self) {
        let word = |index: u32| self.control.get(&index, 0).unwrap_or(0);
        // The stamp is read before the map: whoever comes later changes it again.
        let entered = word(control::ENTERED);
        if entered != word(control::SETTLED) && self.entering.keys().next().is_none() {
            // A failure leaves the programs asking, which is slower and right.
            let _ = self.control.set(control::SETTLED, entered, 0);
        }
    }

    /// Waits until the programs wake the daemon, for a cgroup or because the ring fills up, or until
    /// the time is over.
    pub fn wait(&mut self, at_most: Duration) {
        self.rings.wait(at_most);
    }

    /// Takes every cgroup record that waits.
    pub fn drain_lifecycle(&mut self, each: impl FnMut(&[u8])) {
        self.rings.drain_lifecycle(each);
    }

    /// Takes the file records that wait, at most `at_most`. Returns how many there were.
    pub fn drain_files(&mut self, at_most: usize, each: impl FnMut(&[u8])) -> usize {
        self.rings.drain_files(at_most, each)
    }

    fn gate_error(&self, cgroup: CgroupId, error: aya::maps::MapError) -> GateError {
        match &error {
            // What a hash map says when it is full (`kernel/bpf/hashtab.c`).
            aya::maps::MapError::SyscallError(call)
                if call.io_error.kind() == std::io::ErrorKind::ArgumentListTooLong =>
            {
                GateError::Full { cgroup, capacity: self.max_cgroups }
            }
            _ => GateError::Refused { cgroup, source: std::io::Error::other(error) },
        }
    }

    /// Takes the programs off their hooks. The rings and counters stay readable.
    pub fn detach(&mut self) {
        self.interrupted_before += self.interrupted();
        let names: Vec<String> =
            self.programs.programs().map(|(name, _)| name.to_owned()).collect();
        for name in names {
            let unloaded = match self.programs.program_mut(&name) {
                Some(Program::BtfTracePoint(program)) => program.unload(),
                Some(Program::RawTracePoint(program)) => program.unload(),
                Some(Program::FExit(program)) => program.unload(),
                Some(Program::FEntry(program)) => program.unload(),
                _ => Ok(()),
            };
            if let Err(error) = unloaded {
                tracing::debug!(program = name, %error, "a program was not loaded");
            }
        }
    }
}

impl Gate for Kernel {
    fn trace(&mut self, cgroup: CgroupId) -> Result<(), GateError> {
        const NO_EXIST: u64 = 1;
        let zero = aya::maps::PerCpuValues::try_from(vec![[0; counter::COUNT]; self.cpus])
            .map_err(|source| GateError::Refused { cgroup, source })?;
        match self.traced.insert(cgroup.0, zero, NO_EXIST) {
            Ok(()) => Ok(()),
            // The programs began to trace it by themselves, and its counters run.
            Err(_) if self.traced.get(&cgroup.0, 0).is_ok() => Ok(()),
            Err(error) => Err(self.gate_error(cgroup, error)),
        }
    }

    fn untrace(&mut self, cgroup: CgroupId) {
        // It may never have been traced.
        let _ = self.traced.remove(&cgroup.0);
    }

    fn watch(&mut self, cgroup: CgroupId) -> Result<(), GateError> {
        self.watched.insert(cgroup.0, 1, 0).map_err(|error| self.gate_error(cgroup, error))
    }

    fn unwatch(&mut self, cgroup: CgroupId) {
        // It may never have been watched.
        let _ = self.watched.remove(&cgroup.0);
    }
}

/// Nanoseconds since boot, suspended time included: the clock of the kernel programs.
pub fn boot_time_ns() -> u64 {
    nanoseconds(ClockId::Boottime)
}

/// Nanoseconds since the Unix epoch.
pub fn real_time_ns() -> u64 {
    nanoseconds(ClockId::Realtime)
}

/// Processor time that this process used, over all its threads.
pub fn processor_time() -> Duration {
    Duration::from_nanos(nanoseconds(ClockId::ProcessCPUTime))
}

fn nanoseconds(clock: ClockId) -> u64 {
    let now = clock_gettime(clock);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

fn random_seed() -> u64 {
    use std::hash::{BuildHasher as _, RandomState};
    RandomState::new().hash_one(boot_time_ns())
}

/// Why there are no maps. `locks_maps`: they count against the limit of locked memory.
fn refused(error: aya::EbpfError, locks_maps: bool) -> StartError {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Memlock).maximum;
    match (is_refusal(&error), limit) {
        (false, _) => StartError::Load(Box::new(error)),
        (true, Some(limit_bytes)) if locks_maps && privilege::may_use_bpf() => {
            StartError::Locked { limit_bytes, source: Box::new(error) }
        }
        (true, _) => denied(Box::new(error)),
    }
}

/// Whether the kernel says that this process may not.
fn is_refusal(error: &(dyn std::error::Error + 'static)) -> bool {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let mut kinds = causes.filter_map(|cause| cause.downcast_ref::<std::io::Error>());
    kinds.any(|error| error.kind() == std::io::ErrorKind::PermissionDenied)
}

/// Whose fault it is that this process may not.
fn denied(error: Box<dyn std::error::Error + Send + Sync>) -> StartError {
    match privilege::may_use_bpf() {
        true => StartError::Forbidden(error),
        false => StartError::Permission(error),
    }
}

fn take<M>(programs: &mut Ebpf, name: &'static str) -> Result<M, StartError>
where
    M: TryFrom<aya::maps::Map, Error = aya::maps::MapError>,
{
    let map = programs.take_map(name).ok_or(StartError::Map { name, source: None })?;
    M::try_from(map).map_err(|error| StartError::Map { name, source: Some(Box::new(error)) })
}

/// A second hand on a map, for another thread.
fn second(programs: &Ebpf, name: &'static str) -> Result<PerCpuArray<MapData, u64>, StartError> {
    let wrong = |source| StartError::Map { name, source };
    let Some(aya::maps::Map::PerCpuArray(map)) = programs.map(name) else {
        return Err(wrong(None));
    };
    let descriptor = map.fd().as_fd().try_clone_to_owned().map_err(StartError::Wait)?;
    MapData::from_fd(descriptor)
        .and_then(|map| PerCpuArray::try_from(aya::maps::Map::PerCpuArray(map)))
        .map_err(|error| wrong(Some(Box::new(error))))
}

/// Makes the maps and runs the first program. Where the kernel refuses that with its functions for holding on to a CPU (it has no
/// compiler for programs), without them.
fn begin(
    load: impl Fn(&[u8]) -> Result<Ebpf, StartError>,
    holding: Option<Holding>,
) -> Result<(Ebpf, Array<MapData, u64>, CgroupId), StartError> {
    let begin = |holding| {
        let mut programs = load(preemption::with_calls(PROGRAMS, holding).as_bytes())?;
        let mut control: Array<MapData, u64> = take(&mut programs, "CONTROL")?;
        let own_cgroup = ask_own_cgroup(&mut programs, &mut control)?;
        Ok((programs, control, own_cgroup))
    };
    begin(holding).or_else(|error| {
        if holding.is_none() {
            return Err(error);
        }
        tracing::debug!(%error, "programs cannot hold on to their CPU");
        begin(None)
    })
}

fn ask_own_cgroup(
    programs: &mut Ebpf,
    control: &mut Array<MapData, u64>,
) -> Result<CgroupId, StartError> {
    let own_cgroup = |error: ProgramError| match is_refusal(&error) {
        true => denied(Box::new(error)),
        false => StartError::OwnCgroup(Box::new(error)),
    };
    let program: &mut RawTracePoint = programs
        .program_mut("whoami")
        .and_then(|program| program.try_into().ok())
        .ok_or(StartError::Map { name: "whoami", source: None })?;
    program.load().map_err(own_cgroup)?;
    program.test_run(RawTracePointRunOptions::new()).map_err(own_cgroup)?;
    let id = control
        .get(&control::OWN_CGROUP, 0)
        .map_err(|error| StartError::Map { name: "CONTROL", source: Some(Box::new(error)) })?;
    Ok(CgroupId(id))
}

/// Has a program see where the registers of a system call are, as one of this process ends.
/// Gives whether it saw that.
fn find_registers(
    programs: &mut Ebpf,
    control: &Array<MapData, u64>,
) -> Result<bool, ProgramError> {
    let program = programs.program_mut("find_registers").ok_or(ProgramError::NotLoaded)?;
    let program: &mut RawTracePoint = program.try_into()?;
    program.load()?;
    program.attach("sys_exit")?;
    // Any call will do, of whichever process.
    let _ = rustix::thread::gettid();
    program.unload()?;
    Ok(control.get(&control::REGISTERS, 0)? != 0)
}
