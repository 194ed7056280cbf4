//! One container of the report: who it is, its totals over every run of the daemon, its paths.

use std::collections::BTreeMap;

use whodunit_sdk::directory::{self, Container as Known, Mount};
use whodunit_sdk::{AttributeKey, ContainerTotals, Event, Flags, Kind, Outcome};

use crate::paths::{self, Addition, Marks, Operations, Paths, Taken, Whereabouts};

/// The counters of a container, by the names of the contract and of the document.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Counters {
    pub(crate) received: u64,
    pub(crate) setup: u64,
    pub(crate) admitted: u64,
    pub(crate) excluded: u64,
    #[serde(default)]
    pub(crate) filtered: u64,
    pub(crate) duplicate: u64,
    pub(crate) evicted: u64,
}

/// Numbers of lost events by reason.
pub(crate) type Lost = BTreeMap<String, u64>;

/// Exact totals.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Totals {
    pub(crate) counters: Counters,
    pub(crate) lost: Lost,
}

impl Totals {
    fn of(totals: &ContainerTotals) -> Totals {
        Totals {
            counters: Counters {
                received: totals.counter("received"),
                setup: totals.counter("setup"),
                admitted: totals.counter("admitted"),
                excluded: totals.counter("excluded"),
                filtered: totals.counter("filtered"),
                duplicate: totals.counter("duplicate"),
                evicted: totals.counter("evicted"),
            },
            lost: lost_of(totals.counters()),
        }
    }

    /// The sums of both.
    pub(crate) fn plus(&self, other: &Totals) -> Totals {
        let (a, b) = (self.counters, other.counters);
        Totals {
            counters: Counters {
                received: a.received + b.received,
                setup: a.setup + b.setup,
                admitted: a.admitted + b.admitted,
                excluded: a.excluded + b.excluded,
                filtered: a.filtered + b.filtered,
                duplicate: a.duplicate + b.duplicate,
                evicted: a.evicted + b.evicted,
            },
            lost: lost_plus(&self.lost, &other.lost),
        }
    }

    /// Events that were lost for any reason.
    pub(crate) fn lost_total(&self) -> u64 {
        self.lost.values().sum()
    }
}

/// The counters whose names begin with `lost.`, by what follows, without zeros.
pub(crate) fn lost_of<'a>(counters: impl Iterator<Item = (&'a str, u64)>) -> Lost {
    let lost = counters
        .filter(|(_, value)| *value > 0)
        .filter_map(|(name, value)| Some((name.strip_prefix("lost.")?.to_owned(), value)));
    lost.collect()
}

/// The sums by reason.
pub(crate) fn lost_plus(left: &Lost, right: &Lost) -> Lost {
    let mut sum = left.clone();
    for (reason, count) in right {
        *sum.entry(reason.clone()).or_default() += count;
    }
    sum
}

/// The `name_source` of a container that goes by its id.
pub(crate) const NAMELESS: &str = "id";

/// Who a container is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) name: String,
    pub(crate) name_source: String,
    pub(crate) id: String,
    pub(crate) runtime: String,
    pub(crate) cgroup_id: String,
    pub(crate) cgroup_path: String,
    /// What else is known, by name.
    pub(crate) attributes: BTreeMap<String, String>,
}

impl Identity {
    pub(crate) fn of(known: Known) -> Identity {
        Identity {
            name: known.name,
            name_source: known.name_source,
            id: known.runtime_id,
            runtime: known.runtime,
            cgroup_id: known.cgroup_id.to_string(),
            cgroup_path: known.cgroup_path,
            attributes: known.attributes.into_iter().collect(),
        }
    }

    /// Of a container that the directory does not know any more.
    pub(crate) fn unknown(number: u32) -> Identity {
        Identity {
            name: format!("container-{number}"),
            name_source: "unknown".to_owned(),
            id: String::new(),
            runtime: String::new(),
            cgroup_id: "0".to_owned(),
            cgroup_path: String::new(),
            attributes: BTreeMap::new(),
        }
    }

    /// Whether both are the same container of the same boot: names may arrive late.
    pub(crate) fn is_same_cgroup(&self, other: &Identity) -> bool {
        self.cgroup_id == other.cgroup_id && self.cgroup_path == other.cgroup_path
    }
}

/// A container of the report.
#[derive(Debug)]
pub(crate) struct Container {
    /// Its number in the directory, as long as that may still learn its name.
    pub(crate) number: Option<u32>,
    pub(crate) identity: Identity,
    /// RFC 3339, as are all times here.
    pub(crate) watched_since: String,
    pub(crate) from_birth: bool,
    pub(crate) first_exec_seen: bool,
    /// How often no daemon watched it since `watched_since`.
    pub(crate) gaps: u32,
    pub(crate) last_event_at: Option<String>,
    pub(crate) ended_at: Option<String>,
    /// Of the runs of the daemon before this one.
    pub(crate) earlier_runs: Totals,
    /// Of this run, as of the last tick.
    pub(crate) this_run: Totals,
    /// Accesses of files that found no room.
    pub(crate) truncated: u64,
    pub(crate) paths: Paths,
    /// By their ids.
    pub(crate) mounts: BTreeMap<u32, Mount>,
}

/// What a kind of event that worked does to its file. None for kinds that are about no file, or that
/// are not known.
fn effect_of(kind: Kind) -> Option<Marks> {
    Some(match kind {
        Kind::Open
        | Kind::Exec
        | Kind::Stat
        | Kind::Access
        | Kind::Readlink
        | Kind::Chdir
        | Kind::List
        | Kind::Map
        | Kind::Load
        | Kind::OtherUse => Marks::USED,
        Kind::Truncate
        | Kind::Rename
        | Kind::Link
        | Kind::Unlink
        | Kind::Make
        | Kind::Attributes => Marks::CHANGED,
        Kind::Follow => Marks::LINK,
        Kind::ContainerStarted
        | Kind::ContainerEnded
        | Kind::ProcessForked
        | Kind::ProcessExecuted
        | Kind::ProcessExited
        | Kind::SignalGenerated
        | Kind::SignalDelivered
        | Kind::OomKill
        | Kind::CpuThrottled
        | Kind::Other(_) => return None,
    })
}

fn identity_of(event: &Event<'_>) -> Option<paths::Identity> {
    let number = |key| event.attribute(key);
    Some(paths::Identity {
        inode: number(AttributeKey::Inode)?,
        whereabouts: Whereabouts {
            mount: number(AttributeKey::Mount).unwrap_or_default() as u32,
            device: number(AttributeKey::Device).unwrap_or_default() as u32,
            file_system: number(AttributeKey::FileSystem).unwrap_or_default(),
        },
    })
}

impl Container {
    pub(crate) fn new(identity: Identity, now: String, paths: Paths) -> Container {
        Container {
            number: None,
            identity,
            watched_since: now,
            from_birth: false,
            first_exec_seen: false,
            gaps: 0,
            last_event_at: None,
            ended_at: None,
            earlier_runs: Totals::default(),
            this_run: Totals::default(),
            truncated: 0,
            paths,
            mounts: BTreeMap::new(),
        }
    }

    /// The totals of every run.
    pub(crate) fn totals(&self) -> Totals {
        self.earlier_runs.plus(&self.this_run)
    }

    /// Takes one file event.
    pub(crate) fn take(&mut self, event: &Event<'_>) {
        let flags = event.flags();
        if flags.contains(Flags::DETACHED) {
            return;
        }
        let kind = event.kind();
        let Some(effect) = effect_of(kind) else {
            return;
        };
        let path = if event.path().is_empty() { event.requested() } else { event.path() };
        let unresolved =
            event.path().is_empty() || flags.intersects(Flags::UNRESOLVED.with(Flags::TRUNCATED));
        let setup = flags.contains(Flags::SETUP);
        let (marks, errno) = match event.outcome() {
            // What a runtime looked for in vain, changed, or reached by an unsure path says nothing
            // about the container.
            Outcome::Used if setup && !unresolved && effect == Marks::USED => (Marks::SETUP, 0),
            _ if setup => return,
            Outcome::Used if unresolved => (Marks::UNRESOLVED, 0),
            Outcome::Used => (effect, 0),
            Outcome::Missing => (Marks::MISSING, 0),
            Outcome::Refused(errno) => (Marks::REFUSED, u8::try_from(errno).unwrap_or(u8::MAX)),
            Outcome::Interrupted => return,
        };
        let mut addition = Addition { errno, ..Addition::marks(marks) };
        if marks == effect {
            addition.identity = identity_of(event);
            if marks == Marks::LINK {
                addition.target = event.requested();
            } else {
                addition.operations = Operations::of(kind);
                addition.requested = event.requested();
            }
        }
        self.add(path, &addition);
    }

    /// Adds to what is known of a path, or counts what found no room.
    pub(crate) fn add(&mut self, path: &[u8], addition: &Addition<'_>) {
        if !path.is_empty() && self.paths.add(path, addition) == Taken::Full {
            self.truncated += 1;
        }
    }

    /// Asks the directory again who it is, if that is a container that ended without a name: some are gone before
    /// anybody can say what they are called. Returns whether it is wanted, as far as that is known.
    pub(crate) fn is_wanted_by_its_name(&mut self) -> bool {
        let Some(number) = self.number else {
            return true;
        };
        match directory::container(number) {
            Some(known) if known.name_source != NAMELESS => {
                let is_wanted = directory::left_out(&known).is_none();
                self.identity = Identity::of(known);
                self.number = None;
                return is_wanted;
            }
            Some(_) => {}
            None => self.number = None,
        }
        true
    }

    /// Takes the mounts as they are now. Those that are gone stay: files were used there.
    pub(crate) fn take_mounts(&mut self, mounts: Vec<Mount>) {
        for mount in mounts {
            self.mounts.insert(mount.id, mount);
        }
    }

    /// Takes the totals of this run. What is known from before this run stays.
    pub(crate) fn take_totals(&mut self, totals: &ContainerTotals) {
        if self.gaps == 0 {
            self.watched_since = crate::report::rfc3339(totals.watched_since());
            self.from_birth = totals.from_birth();
            self.first_exec_seen = totals.first_exec_seen();
        }
        if let Some(time) = totals.last_event() {
            self.last_event_at = Some(crate::report::rfc3339(time));
        }
        self.ended_at = totals.ended().map(crate::report::rfc3339);
        self.this_run = Totals::of(totals);
    }
}
