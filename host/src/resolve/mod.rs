//! What the kernel did not resolve, the daemon resolves in the container's own files, after the event.
//!
//! The kernel gives the resolved path of what ends in an open file. For the rest (`stat`, `access`, ...)
//! it gives what was asked for and where that starts; and of the links that were crossed it tells nothing.
//! Both are found here, by a walk below the root of the container's mount namespace (`walk`), and so are
//! the ELF interpreters that the kernel loads without a system call (`interpreter`). What was found so
//! carries the flag `inferred`; what cannot be found stays `unresolved` and is never guessed.
//!
//! Takes batches of admitted events and gives batches in the same order, with more events in them. Runs on
//! a thread of its own ([`stage`]): a walk may wait for a disk, and capture may not.

mod interpreter;
mod mounts;
mod roots;
pub mod stage;
mod walk;

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::fstatfs;
use rustix::io::Errno;

use crate::directory::Directory;
use crate::event::{Attribute, AttributeKey, Batch, ContainerId, Event, Flags, Kind, Standpoint};
use crate::filter::Excluded;
use roots::{Namespace, NamespaceId, Process, Roots};
use walk::{Crossed, Found, Route, Stopped};

/// How many links and interpreters are remembered as told; more than these are told again.
const TOLD_AT_MOST: usize = 1 << 16;
/// How many folders are remembered with what they lead to.
const FOLDERS_AT_MOST: usize = 1 << 12;
/// How long: a link may be changed.
const FOLDERS_AGE: Duration = Duration::from_secs(1);
/// How many interpreters follow each other at most: a script's, that one's, ... The kernel takes 5
/// (`exec_binprm` of `fs/exec.c`), and one of them may have an ELF interpreter.
const INTERPRETERS_AT_MOST: usize = 6;

/// Resolves batches of events.
pub struct Resolver {
    directory: Arc<Directory>,
    excluded: Excluded,
    roots: Roots,
    /// Whether the kernel programs tell the interpreters.
    interpreters_told: bool,
    /// Folders as they were asked for, and what they led to.
    folders: HashMap<(ContainerId, NamespaceId, Box<[u8]>), Folder>,
    folders_since: Instant,
    /// Hashes of what was told of a container.
    told: HashSet<(ContainerId, u64)>,
    hasher: RandomState,
}

/// What a folder led to.
#[derive(Clone)]
struct Folder {
    path: Arc<[u8]>,
    links: Arc<[Crossed]>,
}

/// The events that come out, with what they refer to.
struct Outgoing {
    batch: Batch,
    /// How many events were added or taken.
    changes: usize,
}

/// Where an event's path can be walked.
struct Ground {
    container: ContainerId,
    process: Process,
    id: NamespaceId,
    /// The root that the process has in its mount namespace.
    chroot: Vec<u8>,
}

impl Resolver {
    /// A resolver that knows nothing yet. `cgroup_root` is where the cgroup v2 hierarchy is mounted, and
    /// `excluded` what no event may be about. Where the kernel programs tell interpreters, only what they did not
    /// tell is added.
    pub fn new(
        directory: Arc<Directory>,
        excluded: Excluded,
        cgroup_root: PathBuf,
        interpreters_told: bool,
    ) -> Resolver {
        Resolver {
            interpreters_told,
            roots: Roots::new(Arc::clone(&directory), cgroup_root),
            directory,
            excluded,
            folders: HashMap::new(),
            folders_since: Instant::now(),
            told: HashSet::new(),
            hasher: RandomState::new(),
        }
    }

    /// Resolves the events of a batch. None where nothing came of it.
    pub fn resolve(&mut self, batch: &Batch) -> Option<Batch> {
        let now = Instant::now();
        if now.duration_since(self.folders_since) > FOLDERS_AGE
            || self.folders.len() > FOLDERS_AT_MOST
        {
            self.folders.clear();
            self.folders_since = now;
        }
        if self.told.len() > TOLD_AT_MOST {
            self.told.clear();
        }
        let mut out = Outgoing {
            batch: Batch {
                events: Vec::with_capacity(batch.events.len()),
                attributes: batch.attributes.clone(),
                text: batch.text.clone(),
            },
            changes: 0,
        };
        for event in &batch.events {
            self.event(batch, event, now, &mut out);
        }
        (out.changes > 0).then_some(out.batch)
    }

    /// Makes everything that was told before news once more.
    pub fn forget_told(&mut self) {
        self.told.clear();
    }

    /// Lets go of what nobody used for a while.
    pub fn forget_idle(&mut self) {
        self.roots.forget_idle(Instant::now());
    }

    fn event(&mut self, batch: &Batch, event: &Event, now: Instant, out: &mut Outgoing) {
        match event.kind {
            Kind::ContainerEnded => {
                self.roots.forget(event.container);
                self.told.retain(|(container, _)| *container != event.container);
            }
            kind if is_about_a_file(kind) && event.outcome == 0 => {
                return self.access(batch, event, now, out);
            }
            _ => {}
        }
        out.batch.events.push(*event);
    }

    /// An access that worked.
    fn access(&mut self, batch: &Batch, event: &Event, now: Instant, out: &mut Outgoing) {
        let (path, requested) = (batch.text_of(event.path), batch.text_of(event.requested));
        let skipped = Flags::SETUP.0 | Flags::TRUNCATED.0;
        let settled = event.flags.0 & skipped != 0 || path.is_empty();
        let unresolved = event.flags.contains(Flags::UNRESOLVED);
        let detached = event.flags.contains(Flags::DETACHED);
        let loads = self.loads(event.kind);
        if self.interpreters_told && event.kind == Kind::Load && !unresolved {
            // The kernel opens an interpreter before the program is executed.
            self.is_news(event.container, (Kind::Load.code(), path));
        }
        let direct = !unresolved && !detached && asked_directly(path, requested);
        if settled || (direct && !loads) {
            out.batch.events.push(*event);
            return;
        }
        let Some(ground) = self.ground(batch, event, now) else {
            out.batch.events.push(*event);
            return;
        };
        if detached {
            // Which file it was is known, and that it has no place; only the way to it is not.
            out.batch.events.push(*event);
            if requested.starts_with(b"/") {
                let requested = [ground.chroot_prefix(), requested].concat();
                if let Err(stopped) = self.walk(&ground, &requested, true, now)
                    && stopped.at_pseudo()
                {
                    self.tell_links(event, &stopped.links, out);
                }
            }
            return;
        }
        if unresolved {
            return self.unresolved(batch, event, &ground, now, out);
        }
        out.batch.events.push(*event);
        if !direct && let Some(found) = self.cross_check(batch, event, &ground, now) {
            self.tell_links(event, &found.links, out);
        }
        if loads && let Ok(found) = self.walk(&ground, path, true, now) {
            self.tell_interpreters(event, &ground, found, now, out);
        }
    }

    /// An access of which only the request is known.
    fn unresolved(
        &mut self,
        batch: &Batch,
        event: &Event,
        ground: &Ground,
        now: Instant,
        out: &mut Outgoing,
    ) {
        let path = batch.text_of(event.path);
        let changes_a_name =
            matches!(event.kind, Kind::Rename | Kind::Link | Kind::Unlink | Kind::Make);
        let walked = if changes_a_name {
            // The name may be gone, or be another file by now; the folder that it stands in is what counts.
            self.walk_to_name(ground, path, now).map(|(path, links)| (path, links, None))
        } else {
            let follow = !event.standpoint.no_follow;
            self.walk(ground, path, follow, now)
                .map(|found| (found.path.clone(), found.links.clone(), Some(found)))
                .map_err(|stopped| stopped.links)
        };
        let (path, links, found) = match walked {
            Ok(walked) => walked,
            Err(links) => {
                out.batch.events.push(*event);
                // Up to there, the way is certain.
                return self.tell_links(event, &links, out);
            }
        };
        if self.excluded.covers(&path) {
            out.changes += 1;
            return self.tell_links(event, &links, out);
        }
        let mut resolved = *event;
        resolved.flags = event.flags.without(Flags::UNRESOLVED).with(Flags::INFERRED);
        resolved.path = out.batch.push_text(&path);
        if let Some(found) = &found {
            let own = &batch.attributes[event.attributes_first as usize..]
                [..event.attributes_count as usize];
            let known = own.iter().any(|attribute| attribute.key == AttributeKey::Inode);
            if !known {
                let first = out.batch.attributes.len();
                out.batch.attributes.extend_from_slice(own);
                push_identity(&mut out.batch, found);
                resolved.attributes_first = first as u32;
                resolved.attributes_count = (out.batch.attributes.len() - first) as u32;
            }
        }
        out.changes += 1;
        out.batch.events.push(resolved);
        self.tell_links(event, &links, out);
        if let Some(found) = found
            && self.loads(event.kind)
        {
            self.tell_interpreters(event, ground, found, now, out);
        }
    }

    /// Walks the request of an access that the kernel resolved. Gives what it found only if that is the
    /// file that the kernel found.
    fn cross_check(
        &mut self,
        batch: &Batch,
        event: &Event,
        ground: &Ground,
        now: Instant,
    ) -> Option<Found> {
        let requested = batch.text_of(event.requested);
        let route = if requested.starts_with(b"/") {
            [ground.chroot_prefix(), requested].concat()
        } else if requested.is_empty() || !roots::lives(ground.process) {
            return None;
        } else {
            // Most relative requests start at the working directory; those that do not end elsewhere.
            let mut base = roots::working_directory(ground.process.pid)?;
            base.push(b'/');
            base.extend_from_slice(requested);
            base
        };
        let found = self.walk(ground, &route, !event.standpoint.no_follow, now).ok()?;
        let attribute = |key| {
            let own = &batch.attributes[event.attributes_first as usize..]
                [..event.attributes_count as usize];
            own.iter().find(|attribute| attribute.key == key).map(|attribute| attribute.value)
        };
        let same = found.path == batch.text_of(event.path)
            && attribute(AttributeKey::Inode) == Some(found.node.inode);
        same.then_some(found)
    }

    /// Where the process of an event is. None where it cannot be known any more.
    fn ground(&mut self, batch: &Batch, event: &Event, now: Instant) -> Option<Ground> {
        let known = self.directory.process(event.process?)?;
        let process = Process { pid: known.pid, started_ns: known.started_ns };
        let Standpoint { mount_namespace, root, .. } = event.standpoint;
        // It may end between two looks, and one that nobody waited for yet has neither of both: then what is known of its
        // container counts.
        let id = match mount_namespace {
            0 => match roots::namespace_of(process.pid).filter(|_| roots::lives(process)) {
                Some(id) => id,
                // Most containers have one and no other.
                None => self.roots.only_one(event.container)?,
            },
            id => NamespaceId(u64::from(id)),
        };
        self.roots.namespace(event.container, id, process, now)?;
        let told = batch.text_of(root);
        let chroot = if told.is_empty() {
            match roots::chroot_of(process.pid) {
                Ok(chroot) if roots::lives(process) => chroot,
                Ok(_) | Err(Errno::NOENT | Errno::SRCH) => b"/".to_vec(),
                Err(_) => return None,
            }
        } else {
            told.to_vec()
        };
        Some(Ground { container: event.container, process, id, chroot })
    }

    fn namespace(&mut self, ground: &Ground, now: Instant) -> Option<&mut Namespace> {
        self.roots.namespace(ground.container, ground.id, ground.process, now)
    }

    /// Walks a path. Folders that lead over links are remembered for a moment, since many files of one
    /// folder are asked for in a row.
    fn walk(
        &mut self,
        ground: &Ground,
        path: &[u8],
        follow: bool,
        now: Instant,
    ) -> Result<Found, Stopped> {
        let chroot = &ground.chroot;
        let lost = || Stopped::lost();
        let remembered = split(path).filter(|_| chroot == b"/").and_then(|(folder, name)| {
            let key = (ground.container, ground.id, folder.into());
            Some((self.folders.get(&key)?.clone(), name))
        });
        if let Some((folder, name)) = remembered {
            let namespace = self.namespace(ground, now).ok_or_else(lost)?;
            let path = [&folder.path, &b"/"[..], name].concat();
            let mut found = namespace.walk(Route { chroot, path: &path, follow })?;
            found.links.splice(0..0, folder.links.iter().cloned());
            return Ok(found);
        }
        let namespace = self.namespace(ground, now).ok_or_else(lost)?;
        let found = namespace.walk(Route { chroot, path, follow })?;
        if !found.links.is_empty()
            && chroot == b"/"
            && let Some((folder, _)) = split(path)
        {
            let route = Route { chroot, path: folder, follow: true };
            if let Ok(above) = namespace.walk(route) {
                let key = (ground.container, ground.id, folder.into());
                let path = if above.path == b"/" { Vec::new() } else { above.path };
                let links = above.links.into();
                self.folders.insert(key, Folder { path: path.into(), links });
            }
        }
        Ok(found)
    }

    /// Walks the folder of a path, whose last name stays as it is.
    fn walk_to_name(
        &mut self,
        ground: &Ground,
        path: &[u8],
        now: Instant,
    ) -> Result<(Vec<u8>, Vec<Crossed>), Vec<Crossed>> {
        let mut end = path;
        while let Some(shorter) = end.strip_suffix(b"/") {
            end = shorter;
        }
        let Some((folder, name)) = split(end).filter(|(_, name)| *name != b".." && *name != b".")
        else {
            return Err(Vec::new());
        };
        let folder = if folder.is_empty() { b"/" } else { folder };
        let found = self.walk(ground, folder, true, now).map_err(|stopped| stopped.links)?;
        let separator = if found.path == b"/" { &b""[..] } else { b"/" };
        Ok(([&found.path, separator, name].concat(), found.links))
    }

    /// Adds an event for each link that was not told yet.
    fn tell_links(&mut self, cause: &Event, links: &[Crossed], out: &mut Outgoing) {
        for Crossed { link, target } in links {
            if self.excluded.covers(link) {
                continue;
            }
            if self.is_news(cause.container, (Kind::Follow.code(), link, target)) {
                let event = inferred(cause, Kind::Follow, link, target, out);
                out.batch.events.push(event);
            }
        }
    }

    /// Adds an event for each interpreter that the kernel loads for a file that was executed.
    fn tell_interpreters(
        &mut self,
        cause: &Event,
        ground: &Ground,
        executed: Found,
        now: Instant,
        out: &mut Outgoing,
    ) {
        let mut file = executed;
        for _ in 0..INTERPRETERS_AT_MOST {
            let node = file.node;
            if !self.is_news(cause.container, (Kind::Exec.code(), node.device, node.inode)) {
                return;
            }
            let Some(named) = interpreter::interpreter(file.file.as_fd(), node.kind) else {
                return;
            };
            let asked = if named.starts_with(b"/") {
                [ground.chroot_prefix(), &named].concat()
            } else if let Some(mut base) = roots::working_directory(ground.process.pid) {
                // A relative one starts where the process is.
                base.push(b'/');
                base.extend_from_slice(&named);
                base
            } else {
                return;
            };
            let Ok(found) = self.walk(ground, &asked, true, now) else { return };
            let by_kernel = self.interpreters_told
                && !self.is_news(cause.container, (Kind::Load.code(), &found.path[..]));
            if !by_kernel && !self.excluded.covers(&found.path) {
                let mut event = inferred(cause, Kind::Load, &found.path, &named, out);
                event.attributes_first = out.batch.attributes.len() as u32;
                push_identity(&mut out.batch, &found);
                event.attributes_count = out.batch.attributes.len() as u32 - event.attributes_first;
                out.batch.events.push(event);
            }
            self.tell_links(cause, &found.links, out);
            file = found;
        }
    }

    /// Whether an event of this kind is one after which interpreters are looked for. Where the kernel programs tell
    /// them, that of a script's interpreter may be still to come when it is told itself, and none is when the program
    /// is executed.
    fn loads(&self, kind: Kind) -> bool {
        kind == Kind::Exec || (kind == Kind::Load && !self.interpreters_told)
    }

    fn is_news(&mut self, container: ContainerId, what: impl std::hash::Hash) -> bool {
        self.told.insert((container, self.hasher.hash_one(what)))
    }
}

impl Ground {
    /// What stands before an absolute path of the process.
    fn chroot_prefix(&self) -> &[u8] {
        if self.chroot == b"/" { b"" } else { &self.chroot }
    }
}

/// Whether a kind of event is about a file that a path leads to.
fn is_about_a_file(kind: Kind) -> bool {
    match kind {
        Kind::Open
        | Kind::Exec
        | Kind::Stat
        | Kind::Access
        | Kind::Readlink
        | Kind::Chdir
        | Kind::List
        | Kind::Map
        | Kind::Load
        | Kind::Truncate
        | Kind::Rename
        | Kind::Link
        | Kind::Unlink
        | Kind::Make
        | Kind::Attributes
        | Kind::OtherUse => true,
        Kind::ContainerStarted
        | Kind::ContainerEnded
        | Kind::Follow
        | Kind::ProcessForked
        | Kind::ProcessExecuted
        | Kind::ProcessExited
        | Kind::SignalGenerated
        | Kind::SignalDelivered
        | Kind::OomKill
        | Kind::CpuThrottled => false,
    }
}

/// Whether a request leads to a path by its text: then it crossed no link. `path` has none in it.
fn asked_directly(path: &[u8], requested: &[u8]) -> bool {
    if requested.is_empty() || path == requested {
        return true;
    }
    // A relative one: its names are the last ones of the path.
    !requested.starts_with(b"/")
        && path.strip_suffix(requested).is_some_and(|base| base.ends_with(b"/"))
        && !requested.split(|byte| *byte == b'/').any(|name| matches!(name, b"" | b"." | b".."))
}

/// The folder and the last name of a path that has both.
fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = path.iter().rposition(|byte| *byte == b'/')?;
    let name = &path[at + 1..];
    (!matches!(name, b"" | b"." | b"..")).then_some((&path[..at], name))
}

/// An event that was found in the files, beside the one that made us look.
fn inferred(cause: &Event, kind: Kind, path: &[u8], requested: &[u8], out: &mut Outgoing) -> Event {
    out.changes += 1;
    Event {
        kind,
        flags: Flags::INFERRED,
        outcome: 0,
        path: out.batch.push_text(path),
        requested: out.batch.push_text(requested),
        attributes_first: out.batch.attributes.len() as u32,
        attributes_count: 0,
        standpoint: Standpoint::default(),
        ..*cause
    }
}

/// Adds the attributes of a file that a walk found.
fn push_identity(batch: &mut Batch, found: &Found) {
    let mut push = |key, value| batch.attributes.push(Attribute { key, value });
    push(AttributeKey::Device, u64::from(found.node.device));
    push(AttributeKey::Inode, found.node.inode);
    if let Ok(file_system) = fstatfs(&found.file) {
        push(AttributeKey::FileSystem, file_system.f_type as u64);
    }
    push(AttributeKey::Mount, u64::from(found.node.mount));
}

#[cfg(test)]
mod tests;
