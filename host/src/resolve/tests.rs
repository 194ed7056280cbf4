//! The resolver on this test's own process, as if it was a container's.

use std::fs;
use std::num::NonZeroUsize;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::*;
use crate::event::UnixNanos;

const WEB: ContainerId = ContainerId(1);

/// A folder with `real/file`, and `way`, which leads to `real`.
struct World {
    folder: TempDir,
    resolver: Resolver,
    directory: Arc<Directory>,
}

fn world(excluded: &[String]) -> World {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("real")).unwrap();
    fs::write(folder.path().join("real/file"), "").unwrap();
    symlink("real", folder.path().join("way")).unwrap();
    let directory = Arc::new(Directory::new(NonZeroUsize::new(8).unwrap()));
    let nowhere = PathBuf::from("/nonexistent");
    let resolver = Resolver::new(Arc::clone(&directory), Excluded::new(excluded), nowhere, false);
    World { folder, resolver, directory }
}

/// An event to be.
struct Asked {
    kind: Kind,
    flags: Flags,
    outcome: i32,
    path: Vec<u8>,
    requested: Vec<u8>,
    inode: Option<u64>,
    no_follow: bool,
}

impl World {
    /// A path below the folder, as it is without links.
    fn at(&self, path: &str) -> Vec<u8> {
        let folder = fs::canonicalize(self.folder.path()).unwrap();
        folder.join(path).as_os_str().as_bytes().to_vec()
    }

    fn unresolved(&self, kind: Kind, path: &str) -> Asked {
        let path = self.at(path);
        let requested = path.clone();
        let flags = Flags::UNRESOLVED;
        Asked { kind, flags, outcome: 0, path, requested, inode: None, no_follow: false }
    }

    fn inode(&self, path: &str) -> u64 {
        fs::symlink_metadata(self.folder.path().join(path)).unwrap().ino()
    }

    /// The events that come out of one that goes in: kind, flags, path and request.
    fn resolve(&mut self, asked: Asked) -> Vec<(Kind, Flags, String, String)> {
        self.resolve_of(std::process::id(), asked)
    }

    /// The same of another process.
    fn resolve_of(&mut self, pid: u32, asked: Asked) -> Vec<(Kind, Flags, String, String)> {
        let process = self.directory.process_id(pid, started_of(pid), b"test", WEB);
        let batch = batch_of(asked, Some(process));
        let out = self.resolver.resolve(&batch).unwrap_or(batch);
        let text = |span| String::from_utf8_lossy(out.text_of(span)).into_owned();
        let events = out.events.iter();
        events
            .map(|event| (event.kind, event.flags, text(event.path), text(event.requested)))
            .collect()
    }
}

/// What the kernel says of a process: its state, its parent, ...
fn stat_of(pid: u32) -> Vec<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let after_name = stat.rsplit_once(')').unwrap().1;
    after_name.split_whitespace().map(str::to_owned).collect()
}

fn started_of(pid: u32) -> u64 {
    stat_of(pid)[19].parse::<u64>().unwrap() * 10_000_000
}

#[test]
fn a_process_that_nobody_waited_for_yet_was_at_home_in_its_container() {
    let mut world = world(&[]);
    let resolved = |events: Vec<(Kind, Flags, String, String)>| {
        events.into_iter().find(|(kind, ..)| *kind == Kind::Open).map(|(_, _, path, _)| path)
    };
    let expected = Some(text(&world.at("real/file")));
    let asked = world.unresolved(Kind::Open, "way/file");
    assert_eq!(resolved(world.resolve(asked)), expected);
    let mut child = std::process::Command::new("/bin/true").spawn().unwrap();
    while stat_of(child.id())[0] != "Z" {
        std::thread::yield_now();
    }
    // It has neither a root nor a mount namespace any more.
    assert!(fs::read_link(format!("/proc/{}/root", child.id())).is_err());
    let asked = world.unresolved(Kind::Open, "way/file");
    assert_eq!(resolved(world.resolve_of(child.id(), asked)), expected);
    child.wait().unwrap();
}

fn batch_of(asked: Asked, process: Option<crate::event::ProcessId>) -> Batch {
    let mut batch = Batch::default();
    if let Some(inode) = asked.inode {
        batch.attributes.push(Attribute { key: AttributeKey::Inode, value: inode });
    }
    let (path, requested) = (batch.push_text(&asked.path), batch.push_text(&asked.requested));
    batch.events.push(Event {
        sequence: 1,
        time: UnixNanos(1),
        container: WEB,
        process,
        kind: asked.kind,
        flags: asked.flags,
        outcome: asked.outcome,
        path,
        requested,
        attributes_first: 0,
        attributes_count: batch.attributes.len() as u32,
        standpoint: Standpoint { no_follow: asked.no_follow, ..Standpoint::default() },
    });
    batch
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_call_that_opens_nothing_is_resolved_and_its_link_is_told_once() {
    let mut world = world(&[]);
    let (asked, real, way) =
        (text(&world.at("way/file")), text(&world.at("real/file")), text(&world.at("way")));
    let resolved = (Kind::Stat, Flags::INFERRED, real, asked.clone());
    let link = (Kind::Follow, Flags::INFERRED, way, "real".to_owned());
    let first = world.resolve(world.unresolved(Kind::Stat, "way/file"));
    assert_eq!(first, [resolved.clone(), link.clone()]);
    let again = world.resolve(world.unresolved(Kind::Stat, "way/file"));
    assert_eq!(again.as_slice(), std::slice::from_ref(&resolved));
    world.resolver.forget_told();
    let news = world.resolve(world.unresolved(Kind::Stat, "way/file"));
    assert_eq!(news, [resolved, link]);
}

#[test]
fn what_was_found_has_the_identity_of_its_file() {
    let mut world = world(&[]);
    let asked = world.unresolved(Kind::Access, "way/file");
    let inode = world.inode("real/file");
    let started = started_of(std::process::id());
    let process = world.directory.process_id(std::process::id(), started, b"test", WEB);
    let out = world.resolver.resolve(&batch_of(asked, Some(process))).unwrap();
    let event = out.events[0];
    let own = &out.attributes[event.attributes_first as usize..][..event.attributes_count as usize];
    let keys: Vec<_> = own.iter().map(|attribute| attribute.key).collect();
    let all =
        [AttributeKey::Device, AttributeKey::Inode, AttributeKey::FileSystem, AttributeKey::Mount];
    assert_eq!(keys, all);
    assert_eq!(own[1].value, inode);
    let mounts = world.directory.mounts(WEB);
    assert!(mounts.iter().any(|mount| u64::from(mount.id) == own[3].value), "{mounts:?}");
}

#[test]
fn a_link_itself_is_what_a_call_that_does_not_follow_it_is_about() {
    let mut world = world(&[]);
    let way = text(&world.at("way"));
    let asked = Asked { no_follow: true, ..world.unresolved(Kind::Stat, "way") };
    assert_eq!(world.resolve(asked), [(Kind::Stat, Flags::INFERRED, way.clone(), way)]);
}

#[test]
fn the_links_of_an_open_are_told_only_where_they_lead_to_its_file() {
    let mut world = world(&[]);
    let opened = |world: &World, inode| Asked {
        kind: Kind::Open,
        flags: Flags::default(),
        outcome: 0,
        path: world.at("real/file"),
        requested: world.at("way/file"),
        inode: Some(inode),
        no_follow: false,
    };
    let kinds = |events: Vec<(Kind, Flags, String, String)>| -> Vec<Kind> {
        events.into_iter().map(|event| event.0).collect()
    };
    // Another file has its name by now.
    let other = opened(&world, 1);
    assert_eq!(kinds(world.resolve(other)), [Kind::Open]);
    let same = opened(&world, world.inode("real/file"));
    assert_eq!(kinds(world.resolve(same)), [Kind::Open, Kind::Follow]);
}

#[test]
fn what_is_gone_or_failed_or_of_the_runtime_stays_as_it_is() {
    let mut world = world(&[]);
    let (gone, link) = (text(&world.at("way/gone")), text(&world.at("way")));
    let same = (Kind::Stat, Flags::UNRESOLVED, gone.clone(), gone);
    let found = world.resolve(world.unresolved(Kind::Stat, "way/gone"));
    // Up to there, the way is certain.
    assert_eq!(found, [same.clone(), (Kind::Follow, Flags::INFERRED, link, "real".to_owned())]);
    let failed = Asked { outcome: -2, ..world.unresolved(Kind::Stat, "way/gone") };
    assert_eq!(world.resolve(failed), [same]);
    let setup = Flags::UNRESOLVED.with(Flags::SETUP);
    let by_runtime = Asked { flags: setup, ..world.unresolved(Kind::Stat, "way/file") };
    assert_eq!(world.resolve(by_runtime)[0].1, setup);
}

#[test]
fn a_name_that_was_changed_is_resolved_by_its_folder() {
    let mut world = world(&[]);
    let expected = text(&world.at("real/gone"));
    for kind in [Kind::Unlink, Kind::Rename, Kind::Make, Kind::Link] {
        let events = world.resolve(world.unresolved(kind, "way/gone"));
        assert_eq!(
            (events[0].0, events[0].1, events[0].2.as_str()),
            (kind, Flags::INFERRED, expected.as_str())
        );
    }
}

#[test]
fn what_turns_out_to_be_excluded_is_left_out_and_the_way_there_is_told() {
    let mut first = world(&[]);
    let real = text(&first.at("real"));
    let folder = std::mem::replace(&mut first.folder, tempfile::tempdir().unwrap());
    let mut world = World { folder, ..world(&[real]) };
    let way = text(&world.at("way"));
    let events = world.resolve(world.unresolved(Kind::Stat, "way/file"));
    assert_eq!(events, [(Kind::Follow, Flags::INFERRED, way, "real".to_owned())]);
}

#[test]
fn the_interpreters_of_a_script_and_of_its_shell_are_told() {
    let mut world = world(&[]);
    let script = world.folder.path().join("script");
    let shell = fs::canonicalize("/bin/sh").unwrap();
    fs::write(&script, "#!/bin/sh\n").unwrap();
    let asked = Asked {
        kind: Kind::Exec,
        flags: Flags::default(),
        outcome: 0,
        path: world.at("script"),
        requested: world.at("script"),
        inode: Some(world.inode("script")),
        no_follow: false,
    };
    let events = world.resolve(asked);
    let loads: Vec<&str> =
        events.iter().filter(|event| event.0 == Kind::Load).map(|event| event.2.as_str()).collect();
    assert_eq!(loads[0], shell.to_str().unwrap());
    // The shell's own, if it is linked dynamically.
    for loader in &loads[1..] {
        assert_eq!(fs::canonicalize(loader).unwrap(), Path::new(loader));
    }
    assert_eq!(events[0].0, Kind::Exec);
}

#[test]
fn without_a_process_that_lives_nothing_is_resolved() {
    let mut world = world(&[]);
    let gone = world.directory.process_id(u32::MAX, 1, b"gone", WEB);
    let asked = world.unresolved(Kind::Stat, "way/file");
    assert_eq!(world.resolver.resolve(&batch_of(asked, Some(gone))), None);
    let nobody = world.unresolved(Kind::Stat, "way/file");
    assert_eq!(world.resolver.resolve(&batch_of(nobody, None)), None);
}

#[test]
fn only_a_request_that_is_its_path_by_its_text_is_known_to_have_crossed_no_link() {
    for (path, requested, direct) in [
        ("/etc/a", "/etc/a", true),
        ("/etc/a", "a", true),
        ("/etc/a", "etc/a", true),
        ("/etc/a", "", true),
        ("/etc/a", "./a", false),
        ("/etc/a", "/etc//a", false),
        ("/usr/lib/a", "/lib/a", false),
        ("/etc/xa", "a", false),
        ("/etc/a", "../etc/a", false),
    ] {
        let found = asked_directly(path.as_bytes(), requested.as_bytes());
        assert_eq!(found, direct, "{path} {requested}");
    }
}
