//! Names that people use: what a container, its pod and its image are called.
//!
//! Owns a thread that asks the sources, one after the other, for every container that goes by its id. Takes the
//! directory and changes its entries; whoever reads a name later, reads the new one. Every source is optional and none is
//! asked on the way of an event.

mod bundle;
mod docker;

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use globset::GlobSet;
use serde::de::DeserializeOwned;

use crate::config;
use crate::directory::{Container, Directory};
use crate::event::ContainerId;
use crate::patterns;

use bundle::Bundles;
use docker::Docker;

/// How often the directory is looked at for containers without a name.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// A container that no source knows is asked for again after this, and then after twice as long each time.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The longest of these pauses.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// The largest file that is read. A bundle's configuration has a few dozen kilobytes.
const MAX_FILE_BYTES: u64 = 8 << 20;

/// A container that no source knows by then is judged by its id.
const NAMELESS_AFTER: Duration = Duration::from_secs(10);
/// The attribute of a container that is left out, and says why.
const LEFT_OUT: &str = "left-out";

/// What a container is called that only holds the namespaces of a pod: it has no name of its own.
const PAUSE: &str = "pause";

/// What a source knows of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Names {
    /// What people call it.
    name: Option<String>,
    pod_name: Option<String>,
    pod_namespace: Option<String>,
    image: Option<String>,
    /// Whether it does nothing but hold the namespaces of a pod.
    is_pause: bool,
}

/// Somebody who may know.
trait Source: Send {
    /// Its name, as `name_source` in documents.
    fn name(&self) -> &'static str;

    /// What it knows of the container with this id of its runtime. None where it does not know it.
    fn names_of(&self, runtime_id: &str) -> Option<Names>;
}

/// Names containers, and says which of them are not wanted by their names.
pub struct Namer {
    sources: Vec<Box<dyn Source>>,
    directory: Arc<Directory>,
    wanted: Wanted,
    seekers: HashMap<ContainerId, Seeker>,
    /// Those whose names are known and were judged.
    judged: HashSet<ContainerId>,
}

/// Which containers are wanted, by name.
struct Wanted {
    include: Option<GlobSet>,
    exclude: GlobSet,
}

impl Wanted {
    fn of(config: &config::Discovery) -> Wanted {
        let include = (!config.include.is_empty()).then(|| patterns::any_of(&config.include));
        Wanted { include, exclude: patterns::any_of(&config.exclude) }
    }

    fn has(&self, name: &str) -> bool {
        self.include.as_ref().is_none_or(|set| set.is_match(name)) && !self.exclude.is_match(name)
    }
}

impl Namer {
    /// Asks nobody yet.
    pub fn new(config: &config::Discovery, directory: Arc<Directory>) -> Namer {
        let root = &config.host_root;
        let sources: Vec<Box<dyn Source>> =
            vec![Box::new(Docker::new(root)), Box::new(Bundles::new(root))];
        let wanted = Wanted::of(config);
        Namer { sources, directory, wanted, seekers: HashMap::new(), judged: HashSet::new() }
    }

    /// Asks for every container that has no name yet and is due. Gives those that are not wanted, each
    /// once.
    pub fn look(&mut self) -> Vec<ContainerId> {
        let mut unwanted = Vec::new();
        let mut there = HashSet::new();
        for container in self.directory.containers() {
            if container.ended.is_some() {
                continue;
            }
            there.insert(container.id);
            if !self.judged.contains(&container.id)
                && let Some(why) = self.judge(container.clone())
            {
                tracing::info!(container = container.name, why, "container left out");
                self.judged.insert(container.id);
                self.directory.update_container(container.id, |known| {
                    known.attributes.push((LEFT_OUT.to_owned(), why.to_owned()));
                });
                unwanted.push(container.id);
            }
        }
        self.seekers.retain(|id, _| there.contains(id));
        self.judged.retain(|id| there.contains(id));
        unwanted
    }

    /// Why a container is not wanted. None where it is, or where that cannot be said yet.
    fn judge(&mut self, mut container: Container) -> Option<&'static str> {
        let mut is_pause = false;
        let is_named = |container: &Container| container.name_source != "id";
        if !is_named(&container) {
            let seeker = self.seekers.entry(container.id).or_insert_with(Seeker::new);
            let is_old = seeker.since.elapsed() >= NAMELESS_AFTER;
            if seeker.is_due() {
                is_pause = seek(&container, &self.sources, &self.directory);
                container = self.directory.container(container.id)?;
            }
            if !is_named(&container) && !is_old {
                return None;
            }
        }
        if is_named(&container) {
            self.judged.insert(container.id);
        }
        match is_pause {
            true => Some("it only holds the namespaces of a pod"),
            false => (!self.wanted.has(&container.name)).then_some("its name"),
        }
    }

    /// Goes on looking in a thread of its own, and tells whom to leave out.
    ///
    /// # Errors
    ///
    /// If the system gives no thread.
    pub fn start(
        mut self,
        mut leave_out: impl FnMut(ContainerId) + Send + 'static,
    ) -> io::Result<NamerThread> {
        let (stop, stopped) = channel();
        let thread = std::thread::Builder::new().name("names".to_owned()).spawn(move || {
            while stopped.recv_timeout(LOOK_EVERY) == Err(RecvTimeoutError::Timeout) {
                self.look().into_iter().for_each(&mut leave_out);
            }
        })?;
        Ok(NamerThread { stop: Some(stop), thread: Some(thread) })
    }
}

/// The thread of a [`Namer`]. Dropped, it ends.
#[derive(Debug)]
pub struct NamerThread {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for NamerThread {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread for names ended early");
        }
    }
}

/// When a container is asked for again.
struct Seeker {
    since: Instant,
    next: Instant,
    pause: Duration,
}

impl Seeker {
    fn new() -> Seeker {
        let now = Instant::now();
        Seeker { since: now, next: now, pause: FIRST_PAUSE }
    }

    fn is_due(&mut self) -> bool {
        let now = Instant::now();
        if now < self.next {
            return false;
        }
        self.next = now + self.pause;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        true
    }
}

/// Asks the sources in their order, and enters what the first that knows it says. Returns whether the
/// container only holds the namespaces of a pod.
fn seek(container: &Container, sources: &[Box<dyn Source>], directory: &Directory) -> bool {
    if !is_plain(&container.runtime_id) {
        return false;
    }
    let found = sources.iter().find_map(|source| {
        let names = source.names_of(&container.runtime_id)?;
        Some((source.name(), names))
    });
    let Some((source, names)) = found else {
        return false;
    };
    let Some(name) = names.name else {
        return false;
    };
    tracing::info!(container = container.name, name, source, "container named");
    directory.update_container(container.id, |known| {
        known.name = name;
        known.name_source = source;
        let attributes = [
            ("pod-name", names.pod_name),
            ("pod-namespace", names.pod_namespace),
            ("image", names.image),
        ];
        for (key, value) in attributes {
            let is_new = known.attributes.iter().all(|(known, _)| known != key);
            if let Some(value) = value.filter(|_| is_new) {
                known.attributes.push((key.to_owned(), value));
            }
        }
    });
    names.is_pause
}

/// Whether an id can be a part of a path and nothing else.
fn is_plain(id: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !id.is_empty() && id.len() <= 255 && !id.starts_with('.') && id.chars().all(is_plain)
}

/// A path of the machine, as seen from here.
fn at(host_root: &Path, path: &str) -> PathBuf {
    host_root.join(path.trim_start_matches('/'))
}

/// A JSON file. None where there is none, or something else.
fn read_json<T: DeserializeOwned>(path: &Path) -> Option<T> {
    let mut text = Vec::new();
    File::open(path).ok()?.take(MAX_FILE_BYTES).read_to_end(&mut text).ok()?;
    match serde_json::from_slice(&text) {
        Ok(document) => Some(document),
        Err(error) => {
            tracing::debug!(path = %path.display(), %error, "a file with names cannot be read");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;
    use crate::event::{CgroupId, UnixNanos};

    const ID: ContainerId = ContainerId(1);

    struct Knows(&'static str, Option<Names>);

    impl Source for Knows {
        fn name(&self) -> &'static str {
            self.0
        }

        fn names_of(&self, _: &str) -> Option<Names> {
            self.1.clone()
        }
    }

    /// A container whose name nobody knows yet, and who would name it.
    fn namer(runtime_id: &str, sources: Vec<Knows>, config: &config::Discovery) -> Namer {
        let directory = Arc::new(Directory::new(NonZeroUsize::MIN));
        directory.put_container(Container {
            id: ID,
            name: "0123".to_owned(),
            name_source: "id",
            runtime_id: runtime_id.to_owned(),
            runtime: "containerd",
            cgroup: CgroupId(1),
            cgroup_path: Vec::new(),
            attributes: vec![("pod-uid".to_owned(), "u".to_owned())],
            watched_since: UnixNanos(1),
            from_birth: true,
            ended: None,
        });
        let mut namer = Namer::new(config, directory);
        namer.sources =
            sources.into_iter().map(|source| Box::new(source) as Box<dyn Source>).collect();
        namer
    }

    fn sought(runtime_id: &str, sources: Vec<Knows>) -> Container {
        let mut namer = namer(runtime_id, sources, &config::Discovery::default());
        assert_eq!(namer.look(), []);
        namer.directory.container(ID).unwrap()
    }

    fn named(name: &str) -> Names {
        let pod_name = Some("cart".to_owned());
        Names { name: Some(name.to_owned()), pod_name, ..Names::default() }
    }

    #[test]
    fn the_first_source_that_knows_it_names_it() {
        let sources =
            vec![Knows("a", None), Knows("b", Some(named("web"))), Knows("c", Some(named("no")))];
        let found = sought("0123456789ab", sources);
        assert_eq!((found.name.as_str(), found.name_source), ("web", "b"));
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(found.attributes, [pair("pod-uid", "u"), pair("pod-name", "cart")]);
    }

    #[test]
    fn an_id_that_leads_out_of_a_folder_is_never_looked_up() {
        for id in ["../../etc", "a/b", "", ".hidden", "a\0b", ".."] {
            assert_eq!(sought(id, vec![Knows("a", Some(named("web")))]).name_source, "id", "{id}");
        }
    }

    /// What becomes of a container with this name.
    fn is_left_out(names: Names, include: &[&str], exclude: &[&str]) -> bool {
        let texts = |patterns: &[&str]| patterns.iter().map(|it| (*it).to_owned()).collect();
        let (include, exclude) = (texts(include), texts(exclude));
        let config = config::Discovery { include, exclude, ..config::Discovery::default() };
        let mut namer = namer("0123456789ab", vec![Knows("a", Some(names))], &config);
        let unwanted = namer.look();
        assert_eq!(namer.look(), [], "nobody is left out twice");
        let known = namer.directory.container(ID).unwrap();
        let says_why = known.attributes.iter().any(|(key, _)| key == LEFT_OUT);
        assert_eq!(says_why, unwanted == [ID]);
        says_why
    }

    #[test]
    fn names_decide_who_is_watched() {
        assert!(!is_left_out(named("app-1"), &[], &[]));
        assert!(!is_left_out(named("app-1"), &["app-*", "web"], &[]));
        assert!(is_left_out(named("db"), &["app-*", "web"], &[]));
        assert!(is_left_out(named("app-1"), &["app-*"], &["*-1"]));
        assert!(is_left_out(named("db"), &[], &["{db,web}"]));
        assert!(!is_left_out(named("app-1"), &[], &["{db,web}"]));
        assert!(is_left_out(Names { is_pause: true, ..named(PAUSE) }, &["pause"], &[]));
    }

    #[test]
    fn one_without_a_name_is_judged_by_its_id_when_it_had_time() {
        let include = vec!["app-*".to_owned()];
        let config = config::Discovery { include, ..config::Discovery::default() };
        let mut namer = namer("0123456789ab", vec![Knows("a", None)], &config);
        assert_eq!(namer.look(), []);
        let seeker = namer.seekers.get_mut(&ID).unwrap();
        seeker.since = Instant::now().checked_sub(NAMELESS_AFTER).unwrap();
        assert_eq!(namer.look(), [ID]);
    }

    #[test]
    fn nobody_is_asked_again_at_once() {
        let mut seeker = Seeker::new();
        assert!(seeker.is_due());
        assert!(!seeker.is_due());
    }
}
