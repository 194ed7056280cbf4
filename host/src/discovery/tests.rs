//! Claims about discovery, on folders of an ordinary file system and on real cgroups.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader};
use std::num::NonZeroUsize;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;

const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const NOW: UnixNanos = UnixNanos(1_000);
const LATER: UnixNanos = UnixNanos(2_000);

/// What the kernel programs do, without a kernel: they keep two sets, trace what is made in a cgroup of
/// either, and forget what is removed.
#[derive(Default)]
struct FakeKernel {
    traced: BTreeSet<CgroupId>,
    watched: BTreeSet<CgroupId>,
    room: Option<usize>,
    /// What was asked of it, in order.
    asked: Vec<(&'static str, CgroupId)>,
}

impl FakeKernel {
    fn full(&self, cgroup: CgroupId) -> Result<(), GateError> {
        let known = self.traced.contains(&cgroup) || self.watched.contains(&cgroup);
        match self.room {
            Some(room) if !known && self.traced.len() + self.watched.len() >= room => {
                Err(GateError::Full { cgroup, capacity: room as u32 })
            }
            _ => Ok(()),
        }
    }

    /// Whether the making is recorded.
    fn mkdir(&mut self, id: CgroupId, parent: CgroupId) -> bool {
        let seen = self.traced.contains(&parent) || self.watched.contains(&parent);
        if seen {
            self.traced.insert(id);
        }
        seen
    }

    fn rmdir(&mut self, id: CgroupId) {
        self.traced.remove(&id);
        self.watched.remove(&id);
    }
}

impl Gate for FakeKernel {
    fn trace(&mut self, cgroup: CgroupId) -> Result<(), GateError> {
        self.asked.push(("trace", cgroup));
        self.full(cgroup)?;
        self.traced.insert(cgroup);
        Ok(())
    }

    fn untrace(&mut self, cgroup: CgroupId) {
        self.asked.push(("untrace", cgroup));
        self.traced.remove(&cgroup);
    }

    fn watch(&mut self, cgroup: CgroupId) -> Result<(), GateError> {
        self.asked.push(("watch", cgroup));
        self.full(cgroup)?;
        self.watched.insert(cgroup);
        Ok(())
    }

    fn unwatch(&mut self, cgroup: CgroupId) {
        self.asked.push(("unwatch", cgroup));
        self.watched.remove(&cgroup);
    }
}

/// A folder that stands for the root of a hierarchy. Removed at the end with all that is below it.
struct Tree {
    root: CgroupRoot,
    is_real: bool,
    _temporary: Option<tempfile::TempDir>,
}

impl Tree {
    fn of_files() -> Tree {
        let folder = tempfile::tempdir().unwrap();
        let root = CgroupRoot::over_any_folder(folder.path()).unwrap();
        Tree { root, is_real: false, _temporary: Some(folder) }
    }

    /// None where no cgroups can be made; says so.
    fn of_cgroups() -> Option<Tree> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("whodunit-discovery-{}-{number}", std::process::id());
        let made = CgroupRoot::open(None).map_err(|error| error.to_string()).and_then(|root| {
            let folder = root.path().join(name);
            fs::create_dir(&folder).map_err(|error| error.to_string())?;
            CgroupRoot::over_any_folder(&folder).map_err(|error| error.to_string())
        });
        match made {
            Ok(root) => Some(Tree { root, is_real: true, _temporary: None }),
            Err(why) => {
                eprintln!("skipped: no cgroups can be made here: {why}");
                None
            }
        }
    }

    fn folder(&self, path: &str) -> std::path::PathBuf {
        self.root.path().join(path.trim_start_matches('/'))
    }

    fn make(&self, path: &str) -> CgroupId {
        fs::create_dir_all(self.folder(path)).unwrap();
        self.id(path)
    }

    fn id(&self, path: &str) -> CgroupId {
        self.root.id_of(path.as_bytes()).unwrap()
    }

    fn remove(&self, path: &str) {
        remove_folders(&self.folder(path));
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        if self.is_real {
            remove_folders(self.root.path());
        }
    }
}

/// A cgroup's files cannot be unlinked: only `rmdir` removes it, from the innermost outward.
fn remove_folders(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_folders(&entry.path());
        }
    }
    let _ = fs::remove_dir(folder);
}

/// A tree, a kernel that traces it, and discovery over both.
struct World {
    tree: Tree,
    kernel: FakeKernel,
    directory: Arc<Directory>,
    discovery: Discovery,
    /// Paths of all cgroups that there were, since they are gone when changes are told.
    paths: BTreeMap<CgroupId, String>,
}

impl World {
    /// Makes the folders, then the daemon's own, and starts discovery.
    fn try_new(
        tree: Tree,
        scope: Scope,
        subtrees: &[&str],
        own: &str,
        folders: &[&str],
    ) -> Result<World, DiscoveryError> {
        let mut paths = BTreeMap::new();
        for path in folders.iter().chain([&own]) {
            tree.make(path);
            for (end, _) in path.match_indices('/').skip(1).chain([(path.len(), "")]) {
                paths.insert(tree.id(&path[..end]), path[..end].to_owned());
            }
        }
        let directory = Arc::new(Directory::new(NonZeroUsize::new(8).unwrap()));
        let subtrees = subtrees.iter().map(|subtree| (*subtree).to_owned()).collect();
        let root = tree.root.clone();
        let discovery = Discovery::new(root, scope, subtrees, tree.id(own), directory.clone())?;
        Ok(World { tree, kernel: FakeKernel::default(), directory, discovery, paths })
    }

    fn new(tree: Tree, scope: Scope, own: &str, folders: &[&str]) -> World {
        World::try_new(tree, scope, &[], own, folders).unwrap()
    }

    fn scan(&mut self) -> Vec<String> {
        let changes = self.discovery.scan(&mut self.kernel, NOW).unwrap();
        self.told(&changes)
    }

    /// Makes a cgroup; the kernel traces it and, unless its record is lost, discovery hears of it.
    fn make(&mut self, path: &str, record_is_lost: bool) -> Vec<String> {
        let id = self.tree.make(path);
        self.paths.insert(id, path.to_owned());
        let parent = self.tree.id(path.rsplit_once('/').unwrap().0);
        if !self.kernel.mkdir(id, parent) || record_is_lost {
            return Vec::new();
        }
        let made = CgroupMade { id, parent, path: path.as_bytes() };
        let changes = self.discovery.made(&made, &mut self.kernel, LATER);
        self.told(&changes)
    }

    /// Removes a cgroup and all below it, the innermost first, as the kernel demands.
    fn remove(&mut self, path: &str, records_are_lost: bool) -> Vec<String> {
        let prefix = format!("{path}/");
        let mut gone: Vec<(String, CgroupId)> = self
            .paths
            .iter()
            .filter(|(id, at)| {
                (*at == path || at.starts_with(&prefix))
                    && self.tree.root.id_of(at.as_bytes()).is_ok_and(|there| there == **id)
            })
            .map(|(id, at)| (at.clone(), *id))
            .collect();
        gone.sort_by_key(|(at, _)| std::cmp::Reverse(at.len()));
        self.tree.remove(path);
        let mut told = Vec::new();
        for (_, id) in gone {
            self.kernel.rmdir(id);
            if !records_are_lost {
                let changes = self.discovery.gone(id, LATER);
                told.extend(self.told(&changes));
            }
        }
        told
    }

    /// `+web` started, `-web` ended, `web+/path` nested, `web-/path` no longer.
    fn told(&self, changes: &[Change]) -> Vec<String> {
        let name = |id: ContainerId| {
            self.directory.container(id).map_or_else(|| format!("({id})"), |entry| entry.name)
        };
        let path = |id: CgroupId| self.paths.get(&id).cloned().unwrap_or_default();
        let tell = |change: &Change| match *change {
            Change::Started(id) => format!("+{}", name(id)),
            Change::Ended(id) => format!("-{}", name(id)),
            Change::Nested(cgroup, id) => format!("{}+{}", name(id), path(cgroup)),
            Change::NestedGone(cgroup, id) => format!("{}-{}", name(id), path(cgroup)),
        };
        changes.iter().map(tell).collect()
    }

    /// Paths of what the kernel traces.
    fn traced(&self) -> Vec<&str> {
        let mut paths: Vec<_> = self.kernel.traced.iter().map(|id| &*self.paths[id]).collect();
        paths.sort_unstable();
        paths
    }

    fn container(&self, name: &str) -> Container {
        let mut found: Vec<_> =
            self.directory.containers().into_iter().filter(|entry| entry.name == name).collect();
        found.sort_by_key(|entry| entry.id);
        found.pop().unwrap_or_else(|| panic!("{name} is in the directory"))
    }

    fn owner(&self, path: &str) -> Owner {
        self.discovery.owner(self.tree.id(path))
    }
}

/// Runs a claim on folders, and on cgroups where they can be made.
fn on_every_tree(claim: impl Fn(Tree)) {
    claim(Tree::of_files());
    on_cgroups(claim);
}

/// Runs a claim on cgroups alone: an ordinary file system uses an inode number again at once.
fn on_cgroups(claim: impl Fn(Tree)) {
    if let Some(tree) = Tree::of_cgroups() {
        claim(tree);
    }
}

const POD: &str = "/kubepods/burstable/pod6f2b1c1e-8d3a-4c55-9b0e-3f1d2a4b5c6d";

fn in_pod(name: &str) -> String {
    format!("{POD}/{name}")
}

#[test]
fn the_other_containers_of_the_pod_are_found_at_start() {
    on_every_tree(|tree| {
        let (own, web, db, init) = (in_pod("own"), in_pod("web"), in_pod("db"), in_pod("db/init"));
        let elsewhere = "/kubepods/burstable/podother/cache";
        let folders = [&*web, &init, &db, elsewhere, &in_pod("own/deeper")];
        let mut world = World::new(tree, Scope::Auto, &own, &folders);
        assert_eq!(world.discovery.scope(), Scope::Pod);
        assert!(world.discovery.scan_due());
        assert_eq!(world.scan(), ["+db", "+web", &format!("db+{init}")]);
        assert!(!world.discovery.scan_due());
        assert_eq!(world.traced(), [&*db, &*init, &*web]);
        assert_eq!(world.kernel.watched, BTreeSet::from([world.tree.id(POD)]));

        let entry = world.container("db");
        assert_eq!(entry.cgroup, world.tree.id(&db));
        assert_eq!(entry.cgroup_path, db.as_bytes());
        let uid = ("pod-uid".to_owned(), "6f2b1c1e-8d3a-4c55-9b0e-3f1d2a4b5c6d".to_owned());
        assert_eq!(entry.attributes, [uid]);
        assert_eq!((entry.name_source, entry.runtime), ("id", "unknown"));
        assert_eq!((entry.watched_since, entry.from_birth, entry.ended), (NOW, false, None));
        assert_eq!(world.owner(&init), Owner::Container(entry.id));
        assert_eq!(world.owner(&own), Owner::Ignored);
        assert_eq!(world.owner(elsewhere), Owner::Unknown);
        assert_eq!(
            world.discovery.cgroups_of(entry.id),
            [world.tree.id(&db), world.tree.id(&init)]
        );
        assert_eq!(world.scan(), [""; 0], "a second look finds nothing new");
    });
}

#[test]
fn a_pod_with_only_us_is_an_error() {
    on_every_tree(|tree| {
        let others = ["/kubepods/burstable/podother/web", &in_pod(&format!("crio-conmon-{ID}"))];
        let own = in_pod("own/deeper");
        let mut world = World::new(tree, Scope::Auto, &own, &others);
        assert_eq!(world.scan(), [""; 0]);
        let error = world.discovery.check_company().unwrap_err();
        assert_eq!(error.to_string(), "no containers discovered (pod has only whodunit?)");
        assert!(world.traced().is_empty());
    });
}

#[test]
fn a_container_that_is_left_out_is_let_go_with_all_that_is_in_it() {
    on_every_tree(|tree| {
        let (web, pause, deeper) = (in_pod("web"), in_pod("pause"), in_pod("pause/deeper"));
        let mut world = World::new(tree, Scope::Pod, &in_pod("own"), &[&web, &deeper]);
        world.scan();
        let unwanted = world.container("pause").id;
        assert!(world.discovery.leave_out(unwanted, &mut world.kernel, LATER));
        assert!(!world.discovery.leave_out(unwanted, &mut world.kernel, LATER), "it is gone");
        assert_eq!(world.traced(), [&*web]);
        assert_eq!(world.container("pause").ended, Some(LATER));
        assert_eq!(world.owner(&pause), Owner::Ignored);
        assert_eq!(world.owner(&deeper), Owner::Ignored);
        assert_eq!(world.scan(), [""; 0], "a scan does not find it again");
        assert_eq!(world.make(&in_pod("pause/later"), false), [""; 0]);
        assert_eq!(world.traced(), [&*web]);
        assert!(!world.discovery.is_empty());
        let last = world.container("web").id;
        assert!(world.discovery.leave_out(last, &mut world.kernel, LATER));
        assert!(world.discovery.is_empty());
        assert_eq!(world.remove(&pause, false), [""; 0]);
    });
}

#[test]
fn a_later_container_of_the_pod_is_watched_from_birth() {
    on_every_tree(|tree| {
        let mut world = World::new(tree, Scope::Pod, &in_pod("own"), &[&in_pod("web")]);
        world.scan();
        assert_eq!(world.make(&in_pod("late"), false), ["+late"]);
        assert_eq!(
            world.make(&in_pod("late/deep"), false),
            [format!("late+{}", in_pod("late/deep"))]
        );
        let entry = world.container("late");
        assert!(entry.from_birth);
        assert_eq!(entry.watched_since, LATER);
        assert_eq!(world.traced(), [&*in_pod("late"), &in_pod("late/deep"), &in_pod("web")]);
        assert_eq!(world.scan(), [""; 0]);
    });
}

#[test]
fn nothing_of_the_daemon_is_traced() {
    on_every_tree(|tree| {
        // The daemon sits below its container, as with a nested cgroup of crun.
        let own = in_pod("own/container");
        let mut world =
            World::new(tree, Scope::Pod, &own, &[&in_pod("web"), &in_pod("own/beside")]);
        world.scan();
        world.make(&in_pod("own/late"), false);
        assert_eq!(world.traced(), [in_pod("web")]);
        assert_eq!(world.owner(&in_pod("own")), Owner::Ignored);
    });
}

#[test]
fn a_folder_that_no_rule_knows_is_a_container_beside_the_daemon() {
    on_every_tree(|tree| {
        let folders = ["/demo/web", "/demo/db/inner", "/demo/other.service"];
        let mut world = World::new(tree, Scope::Pod, "/demo/whodunit", &folders);
        assert_eq!(world.scan(), ["+db", "+web", "db+/demo/db/inner"]);
        assert_eq!(world.container("web").name_source, "cgroup");
        assert_eq!(world.owner("/demo/other.service"), Owner::Ignored);
    });
}

#[test]
fn services_beside_a_docker_container_are_no_containers() {
    on_every_tree(|tree| {
        let own = format!("/system.slice/docker-{ID}.scope");
        let web = format!("/system.slice/docker-{}.scope", ID.replace('0', "f"));
        let mut world = World::new(tree, Scope::Auto, &own, &[&web, "/system.slice/ssh.service"]);
        assert_eq!(world.scan(), ["+f123456789ab"]);
        assert_eq!(world.traced(), [web]);
        assert_eq!(world.container("f123456789ab").runtime, "docker");
    });
}

#[test]
fn the_node_scope_finds_every_container_but_our_own() {
    on_every_tree(|tree| {
        let docker = format!("/docker/{ID}");
        let inner = format!("/docker/{ID}/docker/{ID}");
        let folders = [
            &*docker,
            &inner,
            "/system.slice/ssh.service",
            "/lxc.monitor.box",
            "/lxc.payload.box/init",
        ];
        let own = in_pod("own");
        let mut world = World::new(tree, Scope::Node, &own, &folders);
        let told = [
            "+0123456789ab".to_owned(),
            "+box".to_owned(),
            format!("0123456789ab+/docker/{ID}/docker"),
            format!("0123456789ab+{inner}"),
            "box+/lxc.payload.box/init".to_owned(),
        ];
        let mut found = world.scan();
        found.sort_unstable();
        assert_eq!(found, told);
        assert!(!world.kernel.traced.contains(&world.tree.id(&own)));
        assert!(!world.kernel.traced.contains(&world.tree.id("/lxc.monitor.box")));
        assert!(world.kernel.watched.contains(&world.tree.id("/system.slice/ssh.service")));
        let entry = world.container("0123456789ab");
        assert_eq!((entry.runtime, &*entry.runtime_id), ("docker", ID));
        assert_eq!(world.owner(&inner), Owner::Container(entry.id), "the outermost owns");
    });
}

#[test]
fn our_own_container_inside_another_stays_out_of_it() {
    on_every_tree(|tree| {
        let node = format!("/docker/{ID}");
        let own = format!("{node}/kubelet{}", in_pod("own"));
        let web = format!("{node}/kubelet{}", in_pod("web"));
        let mut world = World::new(tree, Scope::Node, &own, &[&node, &web]);
        world.discovery.scan(&mut world.kernel, NOW).unwrap();
        assert!(world.kernel.traced.contains(&world.tree.id(&web)));
        assert!(!world.kernel.traced.contains(&world.tree.id(&own)));
        assert_eq!(world.owner(&own), Owner::Ignored);
        assert_eq!(world.owner(&web), Owner::Container(world.container("0123456789ab").id));
    });
}

#[test]
fn what_was_traced_for_a_start_and_is_no_container_is_let_go() {
    on_every_tree(|tree| {
        let mut world = World::new(tree, Scope::Node, "/init.scope", &["/system.slice"]);
        world.scan();
        assert_eq!(world.make("/system.slice/cron.service", false), [""; 0]);
        let scope = format!("/system.slice/crio-conmon-{ID}.scope");
        assert_eq!(world.make(&scope, false), [""; 0]);
        assert_eq!(world.make(&format!("{scope}/inner"), false), [""; 0]);
        assert!(world.traced().is_empty());
        // A service may come to hold containers; a monitor never does.
        assert!(world.kernel.watched.contains(&world.tree.id("/system.slice/cron.service")));
        assert!(!world.kernel.watched.contains(&world.tree.id(&scope)));
        assert_eq!(world.owner("/system.slice/cron.service"), Owner::Ignored);
        assert_eq!(world.owner(&scope), Owner::Ignored);
    });
}

#[test]
fn an_interior_is_watched_before_it_is_let_go() {
    on_every_tree(|tree| {
        let mut world = World::new(tree, Scope::Node, "/init.scope", &["/kubepods/burstable"]);
        world.scan();
        world.kernel.asked.clear();
        world.make(POD, false);
        let pod = world.tree.id(POD);
        assert_eq!(world.kernel.asked, [("watch", pod), ("untrace", pod)]);
    });
}

#[test]
fn a_whole_pod_made_and_deleted_is_followed() {
    on_every_tree(|tree| {
        let mut world = World::new(tree, Scope::Node, "/init.scope", &["/kubepods/burstable"]);
        world.scan();
        assert_eq!(world.make(POD, false), [""; 0]);
        assert_eq!(world.make(&in_pod("web"), false), ["+web"]);
        assert_eq!(world.make(&in_pod("web/a"), false).len(), 1);
        assert_eq!(world.make(&in_pod("db"), false), ["+db"]);
        assert!(world.container("web").from_birth);
        let (web, web_cgroup, nested) = (
            world.container("web").id,
            world.tree.id(&in_pod("web")),
            world.tree.id(&in_pod("web/a")),
        );

        let told = world.remove(POD, false);
        assert_eq!(told.len(), 3, "{told:?}");
        let at = |what: &str| told.iter().position(|each| each == what).expect(what);
        assert!(at(&format!("web-{}", in_pod("web/a"))) < at("-web"));
        at("-db");
        assert!(world.kernel.traced.is_empty());
        assert_eq!(world.container("web").ended, Some(LATER));
        // Late events still find their container.
        assert_eq!(world.discovery.owner(nested), Owner::Container(web));
        assert_eq!(world.discovery.owner(web_cgroup), Owner::Container(web));
        assert_eq!(world.discovery.cgroups_of(web), [web_cgroup]);
    });
}

#[test]
fn losing_the_record_of_a_pods_removal_ends_all_of_it() {
    on_every_tree(|tree| {
        let folders = [&*in_pod("web/a"), &in_pod("web"), POD, &in_pod("db")];
        let mut world = World::new(tree, Scope::Node, "/init.scope", &folders);
        world.scan();
        let pod = world.tree.id(POD);
        world.remove(POD, true);
        let changes = world.discovery.gone(pod, LATER);
        let told = world.told(&changes);
        assert_eq!(told.len(), 3, "{told:?}");
        assert!(told.contains(&"-web".to_owned()) && told.contains(&"-db".to_owned()), "{told:?}");
    });
}

#[test]
fn a_scan_repairs_missed_makings_and_removals() {
    on_every_tree(|tree| {
        let folders = [&*in_pod("web"), &in_pod("web/a"), &in_pod("db")];
        let mut world = World::new(tree, Scope::Pod, &in_pod("own"), &folders);
        world.scan();
        world.make(&in_pod("late"), true);
        world.make(&in_pod("late/a"), true);
        let web = world.tree.id(&in_pod("web"));
        world.remove(&in_pod("web"), true);
        // The kernel programs missed it too.
        world.kernel.traced.insert(web);
        let told = world.scan();
        let ended = [format!("web-{}", in_pod("web/a")), "-web".to_owned()];
        assert_eq!(told[..2], ended, "what is gone comes first");
        assert_eq!(told[2..], ["+late".to_owned(), format!("late+{}", in_pod("late/a"))]);
        assert!(world.container("late").from_birth, "the kernel traced it all the same");
        assert_eq!(world.traced(), [&*in_pod("db"), &in_pod("late"), &in_pod("late/a")]);
    });
}

#[test]
fn a_cgroup_that_was_just_made_has_time_to_appear() {
    on_every_tree(|tree| {
        let mut world = World::new(tree, Scope::Pod, &in_pod("own"), &[&in_pod("web")]);
        world.scan();
        world.make(&in_pod("brief"), false);
        world.remove(&in_pod("brief"), true);
        assert_eq!(world.scan(), [""; 0]);
        assert_eq!(world.scan(), ["-brief"]);
    });
}

#[test]
fn what_a_scan_cannot_read_is_not_taken_for_gone() {
    use rustix::fs::{AtFlags, Mode, OFlags, mkdirat, openat, statat};
    let mut world = World::new(Tree::of_files(), Scope::Pod, &in_pod("own"), &[&in_pod("web")]);
    world.scan();
    // As deep as a container can nest its cgroups: far beyond the longest path that can be opened.
    let name = "n".repeat(255);
    let directory = OFlags::RDONLY | OFlags::DIRECTORY;
    let mut folder =
        rustix::fs::open(world.tree.folder(&in_pod("web")), directory, Mode::empty()).unwrap();
    let (mut path, mut parent) = (in_pod("web"), world.tree.id(&in_pod("web")));
    let mut deepest = parent;
    for _ in 0..20 {
        mkdirat(&folder, &*name, Mode::RWXU).unwrap();
        deepest = CgroupId(statat(&folder, &*name, AtFlags::empty()).unwrap().st_ino);
        path = format!("{path}/{name}");
        let made = CgroupMade { id: deepest, parent, path: path.as_bytes() };
        assert_eq!(world.discovery.made(&made, &mut world.kernel, NOW).len(), 1);
        folder = openat(&folder, &*name, directory, Mode::empty()).unwrap();
        parent = deepest;
    }
    for _ in 0..3 {
        assert_eq!(world.discovery.scan(&mut world.kernel, NOW).unwrap(), []);
    }
    let web = world.container("web").id;
    assert_eq!(world.discovery.owner(deepest), Owner::Container(web));
    assert_eq!(world.discovery.cgroups_of(web).len(), 21);
}

#[test]
fn the_nested_cgroup_of_a_missed_container_brings_it_in() {
    on_every_tree(|tree| {
        let mut world = World::new(tree, Scope::Node, "/init.scope", &["/kubepods/burstable"]);
        world.scan();
        world.make(POD, true);
        world.make(&in_pod("web"), true);
        let told = world.make(&in_pod("web/a"), false);
        assert_eq!(told, ["+web".to_owned(), format!("web+{}", in_pod("web/a"))]);
        assert!(world.container("web").from_birth);
        assert!(!world.kernel.traced.contains(&world.tree.id(POD)));
        assert!(!world.discovery.scan_due());
    });
}

#[test]
fn a_making_under_an_unknown_parent_asks_for_a_scan() {
    on_every_tree(|tree| {
        let mut world = World::new(tree, Scope::Node, "/init.scope", &["/kubepods"]);
        world.scan();
        let made = CgroupMade { id: CgroupId(1 << 60), parent: CgroupId(1 << 61), path: b"/a/b" };
        assert_eq!(world.discovery.made(&made, &mut world.kernel, NOW), []);
        assert!(world.discovery.scan_due());
        assert_eq!(world.discovery.owner(made.id), Owner::Unknown);
    });
}

#[test]
fn a_path_that_the_kernel_cut_is_read_from_the_folder() {
    on_every_tree(|tree| {
        let mut world = World::new(tree, Scope::Pod, &in_pod("own"), &[&in_pod("web")]);
        world.scan();
        let id = world.tree.make(&in_pod("late"));
        world.paths.insert(id, in_pod("late"));
        let made = CgroupMade { id, parent: world.tree.id(POD), path: b"/kubepods/burst" };
        let changes = world.discovery.made(&made, &mut world.kernel, NOW);
        assert_eq!(world.told(&changes), ["+late"]);
        assert_eq!(world.container("late").cgroup_path, in_pod("late").into_bytes());
    });
}

#[test]
fn a_root_below_the_machines_takes_the_machines_paths() {
    on_every_tree(|tree| {
        let mut world = World::new(tree, Scope::Pod, &in_pod("own"), &[&in_pod("web")]);
        world.scan();
        let id = world.tree.make(&in_pod("late"));
        world.paths.insert(id, in_pod("late"));
        let path = format!("/docker/{ID}{}", in_pod("late"));
        let made = CgroupMade { id, parent: world.tree.id(POD), path: path.as_bytes() };
        let changes = world.discovery.made(&made, &mut world.kernel, NOW);
        assert_eq!(world.told(&changes), ["+late"]);
        assert_eq!(world.container("late").cgroup_path, in_pod("late").into_bytes());
    });
}

#[test]
fn a_path_made_anew_is_another_container() {
    on_cgroups(|tree| {
        let mut world = World::new(tree, Scope::Pod, &in_pod("own"), &[&in_pod("web")]);
        world.scan();
        let first = world.container("web");

        // With every record.
        assert_eq!(world.remove(&in_pod("web"), false), ["-web"]);
        assert_eq!(world.make(&in_pod("web"), false), ["+web"]);
        let second = world.container("web");
        assert_ne!((first.id, first.cgroup), (second.id, second.cgroup));

        // Without the record of the removal.
        world.remove(&in_pod("web"), true);
        assert_eq!(world.make(&in_pod("web"), false), ["-web", "+web"]);
        let third = world.container("web");

        // Without any: the scan sees another id at the path.
        world.remove(&in_pod("web"), true);
        world.make(&in_pod("web"), true);
        let mut told = world.scan();
        told.sort_unstable();
        assert_eq!(told, ["+web", "-web"]);
        let fourth = world.container("web");
        assert!(first.id < second.id && second.id < third.id && third.id < fourth.id);
        assert_eq!(world.traced(), [in_pod("web")]);
        assert_eq!(world.discovery.owner(first.cgroup), Owner::Container(first.id));
        assert_eq!(world.discovery.owner(fourth.cgroup), Owner::Container(fourth.id));
    });
}

#[test]
fn chosen_subtrees_are_containers_also_when_they_come_later() {
    on_every_tree(|tree| {
        let folders = ["/system.slice/ssh.service", "/app/worker/deep", "/app/other"];
        let subtrees = ["/system.slice/nginx.service/", "app/worker", "app/worker/deep"];
        let mut world =
            World::try_new(tree, Scope::Cgroups, &subtrees, "/init.scope", &folders).unwrap();
        assert_eq!(world.discovery.scope(), Scope::Cgroups);
        assert_eq!(world.scan(), ["+app/worker", "app/worker+/app/worker/deep"]);
        assert_eq!(world.make("/system.slice/cron.service", false), [""; 0]);
        let nginx = "/system.slice/nginx.service";
        assert_eq!(world.make(nginx, false), ["+system.slice/nginx.service"]);
        assert_eq!(world.traced(), ["/app/worker", "/app/worker/deep", nginx]);
        let entry = world.container("system.slice/nginx.service");
        assert!(entry.from_birth);
        assert_eq!((entry.name_source, &*entry.runtime_id), ("cgroup", "nginx.service"));
        assert_eq!(world.remove(nginx, false), ["-system.slice/nginx.service"]);
        assert_eq!(world.owner("/app/other"), Owner::Ignored);
    });
}

#[test]
fn a_subtree_whose_folders_are_all_missing_is_waited_for() {
    on_every_tree(|tree| {
        let mut world =
            World::try_new(tree, Scope::Cgroups, &["a/b/c"], "/init.scope", &["/x"]).unwrap();
        assert_eq!(world.scan(), [""; 0]);
        world.make("/a", false);
        world.make("/a/b", false);
        assert_eq!(world.make("/a/b/c", false), ["+a/b/c"]);
    });
}

#[test]
fn subtrees_that_cannot_be_are_refused() {
    let refused = |subtrees: &[&str]| {
        World::try_new(Tree::of_files(), Scope::Cgroups, subtrees, "/own", &[])
            .err()
            .expect("refused")
            .to_string()
    };
    assert!(refused(&[]).contains("`discovery.cgroups` names none"));
    for subtree in ["", "/", "a//b", "a/../b", "."] {
        assert!(refused(&[subtree]).contains(&format!("{subtree:?}")), "{subtree:?}");
    }
}

#[test]
fn a_root_that_is_our_own_cgroup_is_recognised() {
    let tree = Tree::of_files();
    for scope in [Scope::Auto, Scope::Pod, Scope::Node, Scope::Cgroups] {
        let directory = Arc::new(Directory::new(NonZeroUsize::MIN));
        let own = tree.root.id();
        let error =
            Discovery::new(tree.root.clone(), scope, vec!["a".into()], own, directory).err();
        let text = error.expect("recognised").to_string();
        assert!(text.contains("set `discovery.cgroup_root`"), "{text}");
    }
}

#[test]
fn a_daemon_outside_of_the_root_has_no_pod_there() {
    for scope in [Scope::Auto, Scope::Pod] {
        let tree = Tree::of_files();
        let directory = Arc::new(Directory::new(NonZeroUsize::MIN));
        let own = CgroupId(u64::MAX);
        let error = Discovery::new(tree.root.clone(), scope, Vec::new(), own, directory).err();
        assert!(matches!(error, Some(DiscoveryError::OwnNotFound { .. })), "{error:?}");
    }
}

#[test]
fn what_the_gate_has_no_room_for_is_tried_again() {
    on_every_tree(|tree| {
        let folders = [&*in_pod("a"), &in_pod("b"), &in_pod("b/deep")];
        let mut world = World::new(tree, Scope::Pod, &in_pod("own"), &folders);
        // One for the pod, one for the first container.
        world.kernel.room = Some(2);
        assert_eq!(world.scan(), ["+a"]);
        assert_eq!(world.discovery.refused(), 1);
        assert_eq!(world.owner(&in_pod("b")), Owner::Ignored);
        assert_eq!(world.scan(), [""; 0]);
        world.kernel.room = Some(3);
        assert_eq!(world.scan(), ["+b".to_owned(), format!("b+{}", in_pod("b/deep"))]);
        assert_eq!(world.discovery.refused(), 1, "the nested one is still left out");
        world.kernel.room = None;
        assert_eq!(world.scan(), [""; 0]);
        assert_eq!(world.discovery.refused(), 0);
        assert_eq!(world.traced(), [in_pod("a"), in_pod("b"), in_pod("b/deep")]);
    });
}

#[test]
fn ended_containers_are_forgotten_in_order_when_there_are_many() {
    let mut world = World::new(Tree::of_files(), Scope::Pod, &in_pod("own"), &[&in_pod("web")]);
    world.scan();
    let pod = world.tree.id(POD);
    let first = CgroupId(1 << 50);
    for number in 0..=ENDED_CONTAINERS as u64 {
        let path = in_pod(&format!("job-{number}"));
        let id = CgroupId(first.0 + number);
        let made = CgroupMade { id, parent: pod, path: path.as_bytes() };
        assert_eq!(world.discovery.made(&made, &mut world.kernel, NOW).len(), 1);
        assert_eq!(world.discovery.gone(id, LATER).len(), 1);
    }
    assert_eq!(world.directory.containers().len(), ENDED_CONTAINERS + 1, "with the living one");
    assert_eq!(world.discovery.owner(first), Owner::Unknown);
    assert!(world.discovery.cgroups_of(ContainerId(2)).is_empty());
    let second = world.discovery.owner(CgroupId(first.0 + 1));
    assert_eq!(second, Owner::Container(ContainerId(3)));
    assert_eq!(world.discovery.departed.len(), ENDED_CONTAINERS);
}

#[test]
fn a_flood_of_nested_cgroups_is_remembered_within_bounds() {
    let mut world =
        World::new(Tree::of_files(), Scope::Pod, &in_pod("own"), &[&in_pod("web"), &in_pod("db")]);
    world.scan();
    let (web, db) = (world.tree.id(&in_pod("web")), world.tree.id(&in_pod("db")));
    let path = in_pod("web/x");
    let db_nested = CgroupId(1 << 51);
    let quiet = in_pod("db/x");
    world.discovery.made(
        &CgroupMade { id: db_nested, parent: db, path: quiet.as_bytes() },
        &mut world.kernel,
        NOW,
    );
    world.discovery.gone(db_nested, LATER);
    for number in 0..5_000 {
        let id = CgroupId((1 << 50) + number);
        let made = CgroupMade { id, parent: web, path: path.as_bytes() };
        world.discovery.made(&made, &mut world.kernel, NOW);
        world.discovery.gone(id, LATER);
    }
    assert_eq!(world.discovery.departed.len(), DEPARTED_PER_CONTAINER + 1);
    let db = world.container("db").id;
    assert_eq!(world.discovery.owner(db_nested), Owner::Container(db), "the quiet one's stays");
    assert_eq!(world.discovery.cgroups_of(world.container("web").id), [web]);
}

#[test]
fn a_record_that_comes_twice_changes_nothing() {
    on_every_tree(|tree| {
        let mut world = World::new(tree, Scope::Pod, &in_pod("own"), &[&in_pod("web")]);
        world.scan();
        world.make(&in_pod("late"), false);
        let (id, path) = (world.tree.id(&in_pod("late")), in_pod("late"));
        let made = CgroupMade { id, parent: world.tree.id(POD), path: path.as_bytes() };
        assert_eq!(world.discovery.made(&made, &mut world.kernel, LATER), []);
        assert_eq!(world.discovery.gone(id, LATER).len(), 1);
        assert_eq!(world.discovery.gone(id, LATER), []);
        assert_eq!(world.discovery.made(&made, &mut world.kernel, LATER), []);
    });
}

#[test]
fn a_private_cgroup_namespace_is_recognised_by_its_root() {
    let Some(tree) = Tree::of_cgroups() else {
        return;
    };
    let own = tree.make("/container");
    let script = "echo $$ > \"$0/cgroup.procs\" && exec unshare --cgroup --mount sh -c \
                  'mount -t cgroup2 none /mnt && echo ready && read _'";
    let mut inside = Command::new("sh")
        .args(["-c", script])
        .arg(tree.folder("/container"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(inside.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let view = format!("/proc/{}/root/mnt", inside.id());
    let seen = CgroupRoot::open(Some(Path::new(&view)));
    let error = seen.as_ref().ok().map(|root| {
        let directory = Arc::new(Directory::new(NonZeroUsize::MIN));
        Discovery::new(root.clone(), Scope::Auto, Vec::new(), own, directory).err()
    });
    drop(inside.stdin.take());
    inside.wait().unwrap();
    if line.trim() != "ready" {
        eprintln!("skipped: no cgroup namespace can be made here");
        return;
    }
    let root = seen.unwrap();
    assert_eq!((root.id(), root.is_whole()), (own, false));
    assert!(matches!(error, Some(Some(DiscoveryError::PrivateNamespace { .. }))), "{error:?}");
}

#[test]
fn the_machines_own_hierarchy_is_found() {
    let Some(tree) = Tree::of_cgroups() else {
        return;
    };
    let root = CgroupRoot::open(None).unwrap();
    let made = tree.make("/some\u{fffd}where");
    let path = root.path_of(made).unwrap().expect("it is below the machine's root");
    assert_eq!(root.id_of(&path).unwrap(), made);
    assert!(path.ends_with("/some\u{fffd}where".as_bytes()));
    let named = CgroupRoot::open(Some(root.path())).unwrap();
    assert_eq!(named, root);
}

#[test]
fn in_the_root_cgroup_there_is_no_pod() {
    let Some(_tree) = Tree::of_cgroups() else {
        return;
    };
    let root = CgroupRoot::open(None).unwrap();
    if !root.is_whole() {
        eprintln!("skipped: the machine's whole hierarchy is not mounted here");
        return;
    }
    let new = |scope| {
        let directory = Arc::new(Directory::new(NonZeroUsize::MIN));
        Discovery::new(root.clone(), scope, Vec::new(), root.id(), directory)
    };
    assert!(matches!(new(Scope::Pod).err(), Some(DiscoveryError::NoPod)));
    assert_eq!(new(Scope::Auto).expect("it starts").scope(), Scope::Node);
}

#[test]
fn bytes_are_escaped_and_told_apart() {
    assert_eq!(escaped(b"plain-\xc3\xa9"), "plain-\u{e9}");
    assert_eq!(escaped(b"a\xffb\\x"), "a\\xffb\\\\x");
    assert_ne!(escaped(b"\\xff"), escaped(b"\xff"));
}
