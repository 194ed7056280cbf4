//! Which cgroup is what: the tree of cgroups, classified and kept up to date.
//!
//! Owns what is known of every cgroup in scope, and decides through the `Gate` which of them the kernel
//! traces. Takes records of cgroups made and gone, and reads the hierarchy again (`scan`) to repair what
//! they missed. Gives the owner of a cgroup, changes of containers, and fills the directory. Never reads
//! the kernel's maps, and never decides by anything but a cgroup's path and id.

pub mod root;
pub mod rules;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use foldhash::fast::RandomState;

use crate::config::Scope;
use crate::directory::{self, Container, Directory};
use crate::event::{CgroupId, ContainerId, UnixNanos};
use crate::kernel::gate::{Gate, GateError};

pub use root::{CgroupRoot, RootError};

use root::{join, split};
use rules::Component;

/// How many ended containers stay known, so that late events and late questions find them.
const ENDED_CONTAINERS: usize = 1_024;
/// How many removed cgroups of one container stay known. Bounded for each container by itself: one that
/// makes and removes cgroups without end makes nobody else's forgotten.
const DEPARTED_PER_CONTAINER: usize = 1_024;
/// How many cgroups of no container stay known after they are gone.
const DEPARTED_IGNORED: usize = 4_096;
/// Digits of a container id that people use for its name.
const SHORT_ID: usize = 12;

/// A cgroup was made: a decoded record of the kernel's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CgroupMade<'a> {
    /// Its id.
    pub id: CgroupId,
    /// Id of its parent.
    pub parent: CgroupId,
    /// Its path in the machine's whole hierarchy, with a leading `/`. Bytes. May be cut.
    pub path: &'a [u8],
}

/// Whose the events of a cgroup are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// A container's.
    Container(ContainerId),
    /// Nobody's who is watched: no container, infrastructure, out of scope, or the daemon itself.
    Ignored,
    /// Not known yet: the record of its making may still be on its way.
    Unknown,
}

/// What changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// A container is watched from now on. It stands in the directory.
    Started(ContainerId),
    /// A container is gone. It stays in the directory for a while.
    Ended(ContainerId),
    /// A cgroup is nested in a container.
    Nested(CgroupId, ContainerId),
    /// A nested cgroup is gone.
    NestedGone(CgroupId, ContainerId),
}

/// Why containers cannot be discovered.
#[derive(Debug, thiserror::Error)]
pub enum DiscoveryError {
    /// The hierarchy ends at the daemon's own container.
    #[error(
        "{root:?} shows only the daemon's own container; mount the host's cgroup hierarchy into the \
         container (for example the host's /sys/fs/cgroup at /host/cgroup) and set \
         `discovery.cgroup_root` to that folder"
    )]
    PrivateNamespace {
        /// The root of the hierarchy.
        root: PathBuf,
    },
    /// The daemon's own cgroup is not in the hierarchy.
    #[error(
        "the daemon's own cgroup {own} is not below {root:?}, so its pod cannot be found; mount the \
         host's whole cgroup hierarchy and set `discovery.cgroup_root` to it"
    )]
    OwnNotFound {
        /// The daemon's own cgroup.
        own: CgroupId,
        /// The root of the hierarchy.
        root: PathBuf,
    },
    /// The daemon is in no pod.
    #[error(
        "the daemon runs in the root cgroup, which is in no pod; set `discovery.scope` to `node` or \
         `cgroups`"
    )]
    NoPod,
    /// The scope `cgroups` without any.
    #[error(
        "`discovery.scope` is `cgroups` but `discovery.cgroups` names none; add a path such as \
         `system.slice/nginx.service`"
    )]
    NoSubtrees,
    /// A subtree that cannot be one.
    #[error(
        "`discovery.cgroups` names {subtree:?}, which is no path of a cgroup below the root; write it \
         like `system.slice/nginx.service`"
    )]
    Subtree {
        /// The configured path.
        subtree: String,
    },
    /// There is nothing to watch in the daemon's pod.
    #[error("no containers discovered (pod has only whodunit?)")]
    OnlyUs,
    /// The top of what is in scope cannot be read.
    #[error(
        "the cgroup folder {path:?} cannot be read ({source}); check that it is mounted and readable"
    )]
    Read {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// What is in sight, resolved.
#[derive(Debug)]
enum Territory {
    /// The children of the folder at this path.
    Pod(Vec<u8>),
    /// Everything.
    Node,
    /// The cgroups at these paths.
    Cgroups(Vec<Vec<u8>>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// A container's own cgroup.
    Container(ContainerId),
    /// Below a container's own cgroup.
    Nested(ContainerId),
    /// No container; those in scope may be made in it.
    Interior,
    /// Out of scope with everything below it.
    Ignored,
    /// A container that the gate had no room for. Tried again by the next scan.
    Refused,
}

/// What the gate was told of a cgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hold {
    Nothing,
    Traced,
    Watched,
}

#[derive(Debug)]
struct Cgroup {
    parent: CgroupId,
    path: Vec<u8>,
    standing: Standing,
    hold: Hold,
    /// Whether every child that is not known yet was made while this one was traced or watched.
    guarded: bool,
    children: Vec<CgroupId>,
    /// The last scan that saw it; of one that was made since the last scan, the scan to come.
    seen: u64,
    /// The last scan that read its children.
    listed: u64,
}

/// The cgroups of a container.
#[derive(Debug)]
struct Members {
    /// Its own, then the nested ones in the order in which they were found.
    cgroups: Vec<CgroupId>,
    /// Nested ones that are gone, oldest first.
    departed: VecDeque<CgroupId>,
}

/// What a container is called, and by whom.
struct Identity {
    name: String,
    name_source: &'static str,
    runtime: &'static str,
    runtime_id: String,
    pod_uid: Option<String>,
}

/// What is to become of a cgroup that was not known.
enum Plan {
    Container(Identity),
    Nested(ContainerId),
    Interior,
    Ignore,
}

/// The tree of cgroups, classified.
pub struct Discovery {
    root: CgroupRoot,
    territory: Territory,
    /// The cgroup of the daemon's own container. Never in scope, nor what is below it.
    own: Option<CgroupId>,
    directory: Arc<Directory>,
    cgroups: HashMap<CgroupId, Cgroup, RandomState>,
    containers: HashMap<ContainerId, Members, RandomState>,
    next_container: u32,
    /// Who owned the cgroups that are gone, for events that arrive late.
    departed: HashMap<CgroupId, Owner, RandomState>,
    /// Those of them that nobody owned, oldest first.
    departed_ignored: VecDeque<CgroupId>,
    /// Containers that are gone, oldest first.
    ended: VecDeque<ContainerId>,
    scans: u64,
    scan_due: bool,
}

impl Discovery {
    /// Finds the daemon's own place in the hierarchy and what is in scope.
    ///
    /// `own` is the daemon's own cgroup as the kernel names it, since `/proc/self/cgroup` says `/` in a
    /// cgroup namespace. `cgroups` are the subtrees of the scope `cgroups`.
    pub fn new(
        root: CgroupRoot,
        scope: Scope,
        cgroups: Vec<String>,
        own: CgroupId,
        directory: Arc<Directory>,
    ) -> Result<Discovery, DiscoveryError> {
        let read = |path: &[u8], source| DiscoveryError::Read {
            path: root.path().join(escaped(path.strip_prefix(b"/").unwrap_or(path))),
            source,
        };
        if own == root.id() && !root.is_whole() {
            return Err(DiscoveryError::PrivateNamespace { root: root.path().to_owned() });
        }
        let own_path = root.path_of(own).map_err(|source| read(b"", source))?;
        let own_shape = own_path.as_deref().and_then(rules::nearest_container);
        // Without a container around the daemon its own cgroup stands for one, but for the root, which
        // holds everything.
        let own_container = match (&own_shape, &own_path) {
            (Some(shape), _) => Some(shape.path.to_vec()),
            (None, path) => path.clone().filter(|path| !path.is_empty()),
        };
        let not_found = || DiscoveryError::OwnNotFound { own, root: root.path().to_owned() };
        let scope = match scope {
            Scope::Auto => {
                own_path.as_ref().ok_or_else(not_found)?;
                if own_shape.is_some() { Scope::Pod } else { Scope::Node }
            }
            Scope::Pod | Scope::Node | Scope::Cgroups => scope,
        };
        let territory = match scope {
            Scope::Pod => {
                own_path.as_ref().ok_or_else(not_found)?;
                let (pod, _) =
                    own_container.as_deref().and_then(split).ok_or(DiscoveryError::NoPod)?;
                Territory::Pod(pod.to_vec())
            }
            Scope::Cgroups => Territory::Cgroups(subtrees(cgroups)?),
            Scope::Auto | Scope::Node => Territory::Node,
        };
        let own = own_container
            .map(|path| root.id_of(&path).map_err(|source| read(&path, source)))
            .transpose()?;
        Ok(Discovery {
            root,
            territory,
            own,
            directory,
            cgroups: HashMap::default(),
            containers: HashMap::default(),
            next_container: 1,
            departed: HashMap::default(),
            departed_ignored: VecDeque::new(),
            ended: VecDeque::new(),
            scans: 0,
            scan_due: true,
        })
    }

    /// The scope, resolved: never `Auto`.
    pub fn scope(&self) -> Scope {
        match self.territory {
            Territory::Pod(_) => Scope::Pod,
            Territory::Node => Scope::Node,
            Territory::Cgroups(_) => Scope::Cgroups,
        }
    }

    /// Reads what is in scope from the hierarchy: finds what was made and misses what is gone, also
    /// where a record of it was lost.
    ///
    /// Fails where the top of what is in scope cannot be read.
    pub fn scan(
        &mut self,
        gate: &mut dyn Gate,
        now: UnixNanos,
    ) -> Result<Vec<Change>, DiscoveryError> {
        self.scans += 1;
        let mut found = Vec::new();
        let top = match &self.territory {
            Territory::Pod(pod) => pod.clone(),
            Territory::Node | Territory::Cgroups(_) => Vec::new(),
        };
        let read = |root: &CgroupRoot, source| DiscoveryError::Read {
            path: root.path().join(escaped(top.strip_prefix(b"/").unwrap_or(&top))),
            source,
        };
        let top_id = self.root.id_of(&top).map_err(|source| read(&self.root, source))?;
        self.settle(top_id, top_id, top.clone(), gate, now, &mut found);
        let mut folders = vec![top_id];
        while let Some(folder) = folders.pop() {
            let Some(cgroup) = self.cgroups.get(&folder) else {
                continue;
            };
            match cgroup.standing {
                Standing::Container(_) | Standing::Nested(_) | Standing::Interior => {}
                Standing::Ignored | Standing::Refused => continue,
            }
            // The gate was told before this, so that nothing can be made unseen in between.
            let path = cgroup.path.clone();
            let children = match self.root.children(&path, folder) {
                Ok(children) => children,
                Err(source) if folder == top_id => return Err(read(&self.root, source)),
                Err(error) => {
                    if error.kind() != io::ErrorKind::NotFound {
                        tracing::debug!(cgroup = %escaped(&path), %error, "cgroup not read");
                    }
                    continue;
                }
            };
            for child in children.iter() {
                self.settle(child.id, folder, join(&path, &child.name), gate, now, &mut found);
            }
            // The stack turns the order around.
            folders.extend(children.iter().rev().map(|child| child.id));
            if let Some(cgroup) = self.cgroups.get_mut(&folder) {
                cgroup.listed = self.scans;
                cgroup.guarded = cgroup.hold != Hold::Nothing;
            }
        }
        let mut changes = self.sweep(gate, now);
        changes.append(&mut found);
        self.scan_due = false;
        Ok(changes)
    }

    /// Whether there is anybody to watch where there must be: in the scope `pod`, beside the daemon's own container.
    ///
    /// # Errors
    ///
    /// If not.
    pub fn check_company(&self) -> Result<(), DiscoveryError> {
        match matches!(self.territory, Territory::Pod(_)) && self.is_empty() {
            true => Err(DiscoveryError::OnlyUs),
            false => Ok(()),
        }
    }

    /// Whether a record of a making was lost, so that a scan is needed to understand what follows it.
    pub fn scan_due(&self) -> bool {
        self.scan_due
    }

    /// Takes in a cgroup that was made. The kernel traces it provisionally if its parent was traced or
    /// watched; here it is decided whether that stays.
    pub fn made(
        &mut self,
        made: &CgroupMade<'_>,
        gate: &mut dyn Gate,
        now: UnixNanos,
    ) -> Vec<Change> {
        let mut changes = Vec::new();
        if self.cgroups.contains_key(&made.id) || self.departed.contains_key(&made.id) {
            return changes;
        }
        if let Some(owner) = self.departed.get(&made.parent).copied() {
            // What is made in a cgroup that is gone is gone too; its events are those of its parent.
            gate.untrace(made.id);
            self.depart_as(made.id, owner);
            return changes;
        }
        let Some((parent_path, name)) = split(made.path) else {
            return changes;
        };
        if !self.cgroups.contains_key(&made.parent)
            && !self.adopt(made.parent, parent_path, gate, now, &mut changes)
        {
            self.scan_due |= self.may_hold(made.path);
            return changes;
        }
        let Some(parent) = self.cgroups.get(&made.parent) else {
            return changes;
        };
        let path = if parent_path.ends_with(&parent.path) {
            join(&parent.path, name)
        } else {
            // The kernel cut the path. The name still stands in the parent's folder.
            let siblings = self.root.children(&parent.path, made.parent).unwrap_or_default();
            let Some(this) = siblings.into_iter().find(|child| child.id == made.id) else {
                self.scan_due = true;
                return changes;
            };
            join(&parent.path, &this.name)
        };
        self.insert(made.id, made.parent, path, gate, now, &mut changes);
        changes
    }

    /// Takes in that a cgroup was removed, and with it everything that is known below it.
    pub fn gone(&mut self, cgroup: CgroupId, now: UnixNanos) -> Vec<Change> {
        let mut changes = Vec::new();
        self.depart(cgroup, now, &mut changes);
        changes
    }

    /// Whose the events of a cgroup are. Cgroups that are gone are remembered for a while.
    pub fn owner(&self, cgroup: CgroupId) -> Owner {
        match self.cgroups.get(&cgroup) {
            Some(known) => match known.standing {
                Standing::Container(container) | Standing::Nested(container) => {
                    Owner::Container(container)
                }
                Standing::Interior | Standing::Ignored | Standing::Refused => Owner::Ignored,
            },
            None => self.departed.get(&cgroup).copied().unwrap_or(Owner::Unknown),
        }
    }

    /// The cgroups of a container: its own first, then those that are nested in it now. Of a container
    /// that ended its own alone, and none once it is forgotten.
    pub fn cgroups_of(&self, container: ContainerId) -> &[CgroupId] {
        self.containers.get(&container).map_or(&[], |members| &members.cgroups)
    }

    /// How many cgroups in scope the gate has no room for.
    pub fn refused(&self) -> usize {
        self.cgroups.values().filter(|cgroup| cgroup.lacks_its_hold()).count()
    }

    /// Lets go of a container that is not wanted after all, for as long as its cgroup is there: nothing in
    /// it is traced any more, and it ends as far as anybody is told. Returns whether it was watched.
    pub fn leave_out(
        &mut self,
        container: ContainerId,
        gate: &mut dyn Gate,
        now: UnixNanos,
    ) -> bool {
        let members = self.containers.get_mut(&container);
        let own = members.and_then(|members| {
            let own = members.cgroups.first().copied();
            members.cgroups.clear();
            own
        });
        let Some(own) = own.filter(|own| self.cgroups.contains_key(own)) else {
            return false;
        };
        let mut below = vec![own];
        while let Some(id) = below.pop() {
            let Some(cgroup) = self.cgroups.get_mut(&id) else {
                continue;
            };
            cgroup.standing = Standing::Ignored;
            cgroup.hold = Hold::Nothing;
            below.extend_from_slice(&cgroup.children);
            release(gate, &[id]);
            self.directory.put_owner(id, directory::Owner::Nobody);
        }
        self.end(container, now);
        true
    }

    /// Whether nothing is watched, nor was refused.
    pub fn is_empty(&self) -> bool {
        !self
            .cgroups
            .values()
            .any(|cgroup| matches!(cgroup.standing, Standing::Container(_) | Standing::Refused))
    }

    /// Takes in that a scan saw a cgroup.
    fn settle(
        &mut self,
        id: CgroupId,
        parent: CgroupId,
        path: Vec<u8>,
        gate: &mut dyn Gate,
        now: UnixNanos,
        changes: &mut Vec<Change>,
    ) {
        let scans = self.scans;
        match self.cgroups.get_mut(&id) {
            Some(known) if known.lacks_its_hold() => {
                let wanted = known.wanted_hold();
                match tell(gate, id, wanted) {
                    Ok(()) if known.standing == Standing::Refused => {
                        self.cgroups.remove(&id);
                        self.detach(id, parent);
                        self.insert(id, parent, path, gate, now, changes);
                    }
                    Ok(()) => known.hold = wanted,
                    // Was reported when it was refused first.
                    Err(error) => {
                        tracing::debug!(cgroup = %escaped(&path), %error, "still not watched")
                    }
                }
            }
            Some(_) => {}
            None => self.insert(id, parent, path, gate, now, changes),
        }
        if let Some(cgroup) = self.cgroups.get_mut(&id) {
            cgroup.seen = scans;
        }
    }

    /// Takes in a cgroup that was not known and whose parent is, unless it is the top of the scope.
    fn insert(
        &mut self,
        id: CgroupId,
        parent: CgroupId,
        path: Vec<u8>,
        gate: &mut dyn Gate,
        now: UnixNanos,
        changes: &mut Vec<Change>,
    ) {
        self.replace_holder(id, parent, &path, gate, now, changes);
        let parents_standing = self.cgroups.get(&parent).map(|cgroup| cgroup.standing);
        // What appears in a folder that was guarded was made under guard.
        let from_birth = self.cgroups.get(&parent).is_some_and(|cgroup| cgroup.guarded);
        let plan = self.plan(id, &path, parents_standing);
        let wanted = match plan {
            Plan::Container(_) | Plan::Nested(_) => Hold::Traced,
            Plan::Interior => Hold::Watched,
            Plan::Ignore => Hold::Nothing,
        };
        let held = match tell(gate, id, wanted) {
            Ok(()) => wanted,
            Err(error) => {
                tracing::warn!(cgroup = %escaped(&path), %error, "cgroup not watched");
                Hold::Nothing
            }
        };
        if held != Hold::Traced {
            // After it is watched: what is made in it in between must not slip through.
            gate.untrace(id);
        }
        let standing = match plan {
            Plan::Container(_) if held == Hold::Nothing => Standing::Refused,
            Plan::Container(identity) => {
                let container = self.start(id, &path, identity, from_birth, now);
                changes.push(Change::Started(container));
                Standing::Container(container)
            }
            Plan::Nested(container) => {
                if let Some(members) = self.containers.get_mut(&container) {
                    members.cgroups.push(id);
                }
                changes.push(Change::Nested(id, container));
                Standing::Nested(container)
            }
            Plan::Interior => Standing::Interior,
            Plan::Ignore => {
                if matches!(parents_standing, Some(Standing::Ignored | Standing::Refused)) {
                    // No scan goes there, so that only a bounded memory may hold it.
                    self.depart_as(id, Owner::Ignored);
                    return;
                }
                Standing::Ignored
            }
        };
        if let Some(parent) = self.cgroups.get_mut(&parent) {
            parent.children.push(id);
        }
        self.directory.put_owner(id, standing.owner());
        self.cgroups.insert(
            id,
            Cgroup {
                parent,
                path,
                standing,
                hold: held,
                guarded: from_birth && held != Hold::Nothing,
                children: Vec::new(),
                seen: self.scans + 1,
                listed: 0,
            },
        );
    }

    /// What is to become of the cgroup with this id and path.
    fn plan(&self, id: CgroupId, path: &[u8], parent: Option<Standing>) -> Plan {
        if self.own == Some(id) {
            return Plan::Ignore;
        }
        match parent {
            // The top of the scope.
            None => return Plan::Interior,
            Some(Standing::Container(container) | Standing::Nested(container)) => {
                return Plan::Nested(container);
            }
            Some(Standing::Ignored | Standing::Refused) => return Plan::Ignore,
            Some(Standing::Interior) => {}
        }
        match &self.territory {
            Territory::Node => match rules::component(path) {
                Component::Container(shape) => Plan::Container(Identity::by_shape(&shape)),
                Component::Infra => Plan::Ignore,
                Component::Interior | Component::Unknown => Plan::Interior,
            },
            Territory::Pod(_) => match rules::component(path) {
                Component::Container(shape) => Plan::Container(Identity::by_shape(&shape)),
                Component::Infra | Component::Interior => Plan::Ignore,
                Component::Unknown => Plan::Container(Identity::by_folder(path)),
            },
            Territory::Cgroups(subtrees) => {
                if subtrees.iter().any(|subtree| subtree == path) {
                    Plan::Container(Identity::by_subtree(path))
                } else if subtrees.iter().any(|subtree| is_below(subtree, path)) {
                    Plan::Interior
                } else {
                    Plan::Ignore
                }
            }
        }
    }

    /// Learns a cgroup whose making was missed from the hierarchy, and those above it. False where it
    /// is gone already or out of scope.
    fn adopt(
        &mut self,
        id: CgroupId,
        path: &[u8],
        gate: &mut dyn Gate,
        now: UnixNanos,
        changes: &mut Vec<Change>,
    ) -> bool {
        if self.cgroups.contains_key(&id) {
            return true;
        }
        if !self.may_hold(path) || !self.root.id_of(path).is_ok_and(|there| there == id) {
            return false;
        }
        let Some((above, _)) = split(path) else {
            return false;
        };
        let Ok(parent) = self.root.id_of(above) else {
            return false;
        };
        if !self.adopt(parent, above, gate, now, changes) {
            return false;
        }
        self.insert(id, parent, path.to_vec(), gate, now, changes);
        self.cgroups.contains_key(&id)
    }

    /// Whether the cgroup at this path, or what is below it, can be in scope.
    fn may_hold(&self, path: &[u8]) -> bool {
        match &self.territory {
            Territory::Node => true,
            Territory::Pod(pod) => path == pod || is_below(path, pod),
            Territory::Cgroups(subtrees) => subtrees.iter().any(|subtree| {
                path == subtree || is_below(path, subtree) || is_below(subtree, path)
            }),
        }
    }

    /// A path has one cgroup at a time: if another one is known to have this path, it is gone.
    fn replace_holder(
        &mut self,
        id: CgroupId,
        parent: CgroupId,
        path: &[u8],
        gate: &mut dyn Gate,
        now: UnixNanos,
        changes: &mut Vec<Change>,
    ) {
        let siblings = self.cgroups.get(&parent).map_or(&[][..], |cgroup| &cgroup.children);
        let holder = siblings.iter().copied().find(|sibling| {
            *sibling != id && self.cgroups.get(sibling).is_some_and(|other| other.path == path)
        });
        if let Some(holder) = holder {
            release(gate, &self.depart(holder, now, changes));
        }
    }

    /// Gives a container its number and its entry in the directory.
    fn start(
        &mut self,
        cgroup: CgroupId,
        path: &[u8],
        identity: Identity,
        from_birth: bool,
        now: UnixNanos,
    ) -> ContainerId {
        let id = ContainerId(self.next_container);
        self.next_container = self
            .next_container
            .checked_add(1)
            .expect("fewer than four billion containers in a run");
        self.containers.insert(id, Members { cgroups: vec![cgroup], departed: VecDeque::new() });
        self.directory.put_container(Container {
            id,
            name: identity.name,
            name_source: identity.name_source,
            runtime_id: identity.runtime_id,
            runtime: identity.runtime,
            cgroup,
            cgroup_path: path.to_vec(),
            attributes: identity
                .pod_uid
                .map(|uid| ("pod-uid".to_owned(), uid))
                .into_iter()
                .collect(),
            watched_since: now,
            from_birth,
            ended: None,
        });
        id
    }

    /// Removes what a scan did not see where it looked.
    fn sweep(&mut self, gate: &mut dyn Gate, now: UnixNanos) -> Vec<Change> {
        let mut missing: Vec<CgroupId> = self
            .cgroups
            .iter()
            .filter(|(id, cgroup)| {
                // A cgroup announces its making a moment before its folder can be read, so one that
                // was made since the last scan has time until the next.
                cgroup.seen < self.scans
                    && **id != cgroup.parent
                    && self
                        .cgroups
                        .get(&cgroup.parent)
                        .is_none_or(|parent| parent.listed == self.scans)
            })
            .map(|(id, _)| *id)
            .collect();
        missing.sort_unstable();
        let mut changes = Vec::new();
        for id in missing {
            release(gate, &self.depart(id, now, &mut changes));
        }
        changes
    }

    /// Forgets a cgroup that is gone and all that is known below it, the innermost first. Returns their
    /// ids.
    fn depart(&mut self, id: CgroupId, now: UnixNanos, changes: &mut Vec<Change>) -> Vec<CgroupId> {
        let mut below = vec![id];
        let mut next = 0;
        while let Some(cgroup) = below.get(next) {
            if let Some(known) = self.cgroups.get(cgroup) {
                below.extend_from_slice(&known.children);
            }
            next += 1;
        }
        below.reverse();
        for cgroup in &below {
            let Some(known) = self.cgroups.remove(cgroup) else {
                continue;
            };
            match known.standing {
                Standing::Container(container) => {
                    self.end(container, now);
                    self.depart_as(*cgroup, Owner::Container(container));
                    changes.push(Change::Ended(container));
                }
                Standing::Nested(container) => {
                    if let Some(members) = self.containers.get_mut(&container) {
                        remove_last(&mut members.cgroups, *cgroup);
                    }
                    self.depart_as(*cgroup, Owner::Container(container));
                    changes.push(Change::NestedGone(*cgroup, container));
                }
                Standing::Interior | Standing::Ignored | Standing::Refused => {
                    self.depart_as(*cgroup, Owner::Ignored);
                }
            }
            if *cgroup == id {
                self.detach(id, known.parent);
            }
        }
        below
    }

    fn detach(&mut self, id: CgroupId, parent: CgroupId) {
        if let Some(parent) = self.cgroups.get_mut(&parent) {
            remove_last(&mut parent.children, id);
        }
    }

    /// Marks a container as ended and forgets the one that ended longest ago, if there are too many.
    fn end(&mut self, container: ContainerId, now: UnixNanos) {
        self.directory.update_container(container, |entry| entry.ended = Some(now));
        self.ended.push_back(container);
        if self.ended.len() <= ENDED_CONTAINERS {
            return;
        }
        let Some(oldest) = self.ended.pop_front() else {
            return;
        };
        self.directory.remove_container(oldest);
        if let Some(members) = self.containers.remove(&oldest) {
            for cgroup in members.cgroups.iter().chain(&members.departed) {
                self.departed.remove(cgroup);
                self.directory.remove_owner(*cgroup);
            }
        }
    }

    /// Remembers whose the late events of a cgroup are.
    fn depart_as(&mut self, cgroup: CgroupId, owner: Owner) {
        let (queue, room) = match owner {
            Owner::Container(container) => match self.containers.get_mut(&container) {
                // Its own cgroup stays as long as the container does.
                Some(members) if members.cgroups.first() == Some(&cgroup) => {
                    self.departed.insert(cgroup, owner);
                    return;
                }
                Some(members) => (&mut members.departed, DEPARTED_PER_CONTAINER),
                None => {
                    self.directory.remove_owner(cgroup);
                    return;
                }
            },
            Owner::Ignored => {
                self.directory.put_owner(cgroup, directory::Owner::Nobody);
                (&mut self.departed_ignored, DEPARTED_IGNORED)
            }
            Owner::Unknown => return,
        };
        queue.push_back(cgroup);
        if queue.len() > room
            && let Some(oldest) = queue.pop_front()
        {
            self.departed.remove(&oldest);
            self.directory.remove_owner(oldest);
        }
        if let Owner::Container(container) = owner {
            self.directory.put_owner(cgroup, directory::Owner::Container(container));
        }
        self.departed.insert(cgroup, owner);
    }
}

impl Standing {
    /// Whose the cgroup is, for the directory.
    fn owner(self) -> directory::Owner {
        match self {
            Standing::Container(container) | Standing::Nested(container) => {
                directory::Owner::Container(container)
            }
            Standing::Interior | Standing::Ignored | Standing::Refused => directory::Owner::Nobody,
        }
    }
}

impl Cgroup {
    fn wanted_hold(&self) -> Hold {
        match self.standing {
            Standing::Container(_) | Standing::Nested(_) | Standing::Refused => Hold::Traced,
            Standing::Interior => Hold::Watched,
            Standing::Ignored => Hold::Nothing,
        }
    }

    fn lacks_its_hold(&self) -> bool {
        self.hold != self.wanted_hold()
    }
}

impl Identity {
    fn by_shape(shape: &rules::Shape<'_>) -> Identity {
        let runtime_id = escaped(shape.id);
        let is_generated = shape.id.len() == 64 && shape.id.iter().all(u8::is_ascii_hexdigit);
        let name = if is_generated { &runtime_id[..SHORT_ID] } else { &runtime_id };
        Identity {
            name: name.to_owned(),
            name_source: "id",
            runtime: shape.runtime,
            runtime_id,
            pod_uid: shape.pod_uid.clone(),
        }
    }

    /// Of a folder beside the daemon's own that no rule knows.
    fn by_folder(path: &[u8]) -> Identity {
        let name = escaped(split(path).map_or(path, |(_, name)| name));
        Identity {
            name: name.clone(),
            name_source: "cgroup",
            runtime: "unknown",
            runtime_id: name,
            pod_uid: None,
        }
    }

    /// Of a configured subtree, which goes by its path.
    fn by_subtree(path: &[u8]) -> Identity {
        Identity {
            name: escaped(path.strip_prefix(b"/").unwrap_or(path)),
            name_source: "cgroup",
            ..Identity::by_folder(path)
        }
    }
}

fn tell(gate: &mut dyn Gate, id: CgroupId, wanted: Hold) -> Result<(), GateError> {
    match wanted {
        Hold::Nothing => Ok(()),
        Hold::Traced => gate.trace(id),
        Hold::Watched => gate.watch(id),
    }
}

/// Takes cgroups that are gone from the gate, in case their removal was missed there too.
fn release(gate: &mut dyn Gate, cgroups: &[CgroupId]) {
    for cgroup in cgroups {
        gate.untrace(*cgroup);
        gate.unwatch(*cgroup);
    }
}

/// The configured subtrees as paths with a leading `/`, each once.
fn subtrees(configured: Vec<String>) -> Result<Vec<Vec<u8>>, DiscoveryError> {
    let mut paths = Vec::new();
    for subtree in configured {
        let trimmed = subtree.trim_matches('/');
        if trimmed.split('/').any(|component| matches!(component, "" | "." | "..")) {
            return Err(DiscoveryError::Subtree { subtree });
        }
        paths.push([b"/", trimmed.as_bytes()].concat());
    }
    if paths.is_empty() {
        return Err(DiscoveryError::NoSubtrees);
    }
    paths.sort_unstable();
    paths.dedup();
    Ok(paths)
}

/// Searches from the end: what is made and removed without end is found at once.
fn remove_last(cgroups: &mut Vec<CgroupId>, gone: CgroupId) {
    if let Some(at) = cgroups.iter().rposition(|cgroup| *cgroup == gone) {
        cgroups.remove(at);
    }
}

fn is_below(path: &[u8], above: &[u8]) -> bool {
    path.strip_prefix(above).is_some_and(|rest| rest.first() == Some(&b'/'))
}

/// Bytes as text: what is not UTF-8 becomes `\xNN`, and a backslash is doubled.
pub(crate) fn escaped(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text += &chunk.valid().replace('\\', "\\\\");
        for byte in chunk.invalid() {
            text += &format!("\\x{byte:02x}");
        }
    }
    text
}

#[cfg(test)]
mod tests;
