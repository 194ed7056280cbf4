//! Names that people use: what a container, its pod and its image are called.
//!
//! Owns a thread that asks the sources, one after the other, for every container that goes by its id. Takes the
//! directory and changes its entries; whoever reads a name later, reads the new one. Every source is optional, none is
//! asked on the way of an event, and none is waited for without end.

mod bundle;
mod docker;
mod engine;
mod http;
mod kubernetes;
mod runtime;
mod source;

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use globset::GlobSet;
use serde::de::DeserializeOwned;

use crate::config::{self, Place, Scope};
use crate::directory::{Container, Directory};
use crate::event::{ContainerId, UnixNanos};
use crate::kernel::real_time_ns;
use crate::patterns;

pub(crate) use kubernetes::address as server_address;
pub use source::Standings;

use bundle::Bundles;
use docker::Docker;
use engine::{Engine, EngineApi};
use kubernetes::{Kubernetes, Whose};
use runtime::Cri;
use source::{Asked, CALL, Names, Source, Trouble};

/// How often the directory is looked at for containers without a name.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// A container that no source knows is asked for again after this, and then after twice as long each time.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The longest of these pauses.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// The largest file that is read. A bundle's configuration has a few dozen kilobytes.
const MAX_FILE_BYTES: u64 = 8 << 20;

/// How long a look may take with sockets that are slow. Each question has its own, shorter time.
const LOOK: Duration = Duration::from_secs(5);
/// How long the first look may wait for sockets: nothing is taken from the rings yet.
const FIRST_LOOK: Duration = Duration::from_millis(300);
/// How long a container that ended without a name is asked for: its runtime may still know it.
const NAMED_UNTIL: Duration = Duration::from_secs(60);
/// A container that no source knows by then is judged by its id.
const NAMELESS_AFTER: Duration = Duration::from_secs(10);
/// The attribute of a container that is left out, and says why.
const LEFT_OUT: &str = "left-out";

/// Why such a container is left out.
const IT_PAUSES: &str = "it only holds the namespaces of a pod";

/// What a container is called that only holds the namespaces of a pod: it has no name of its own.
const PAUSE: &str = "pause";

/// Names containers, and says which of them are not wanted by their names.
pub struct Namer {
    sources: Vec<Asked>,
    standings: Standings,
    directory: Arc<Directory>,
    wanted: Wanted,
    seekers: HashMap<ContainerId, Seeker>,
    /// Those whose names are known and were judged.
    judged: HashSet<ContainerId>,
    /// Whether nobody is to be asked any more.
    ending: Arc<AtomicBool>,
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
    pub fn new(
        discovery: &config::Discovery,
        names: &config::Names,
        scope: Scope,
        directory: Arc<Directory>,
    ) -> Namer {
        let sources: Vec<Asked> = sources(&discovery.host_root, names, whose(scope))
            .into_iter()
            .map(Asked::new)
            .collect();
        let standings = Standings::default();
        standings.put(&sources);
        Namer {
            sources,
            standings,
            directory,
            wanted: Wanted::of(discovery),
            seekers: HashMap::new(),
            judged: HashSet::new(),
            ending: Arc::default(),
        }
    }

    /// Where it says how it stands with the sources.
    pub fn standings(&self) -> Standings {
        self.standings.clone()
    }

    /// The first look, before anything else happens: short, whatever the sources do. Gives those that are not wanted.
    pub fn first_look(&mut self) -> Vec<ContainerId> {
        self.look(Instant::now() + FIRST_LOOK)
    }

    /// Asks for every container that has no name yet and is due; after `by` nobody who takes time. Gives those that are
    /// not wanted, each once.
    fn look(&mut self, by: Instant) -> Vec<ContainerId> {
        let mut unwanted = Vec::new();
        let mut there = HashSet::new();
        let now = real_time_ns();
        for container in self.directory.containers() {
            let is_over =
                |ended: UnixNanos| now.saturating_sub(ended.0) > NAMED_UNTIL.as_nanos() as u64;
            if container.ended.is_some_and(is_over) {
                continue;
            }
            there.insert(container.id);
            if container.ended.is_some() {
                // Nothing is left to let go, and a name still helps whoever reads the report.
                if self.seek(&container, by) {
                    self.say_left_out(container.id, IT_PAUSES);
                }
            } else if !self.judged.contains(&container.id)
                && let Some(why) = self.judge(container.clone(), by)
            {
                tracing::info!(container = container.name, why, "container left out");
                self.judged.insert(container.id);
                self.say_left_out(container.id, why);
                unwanted.push(container.id);
            }
        }
        self.seekers.retain(|id, _| there.contains(id));
        self.judged.retain(|id| there.contains(id));
        self.standings.put(&self.sources);
        unwanted
    }

    fn say_left_out(&self, id: ContainerId, why: &str) {
        self.directory.update_container(id, |known| {
            known.attributes.push((LEFT_OUT.to_owned(), why.to_owned()));
        });
    }

    /// Why a container is not wanted. None where it is, or where that cannot be said yet.
    fn judge(&mut self, mut container: Container, by: Instant) -> Option<&'static str> {
        let mut is_pause = false;
        let is_named = |container: &Container| container.name_source != "id";
        if !is_named(&container) {
            is_pause = self.seek(&container, by);
            container = self.directory.container(container.id)?;
            let is_old = self.seekers[&container.id].since.elapsed() >= NAMELESS_AFTER;
            if !is_named(&container) && !is_old {
                return None;
            }
        }
        if is_named(&container) {
            self.judged.insert(container.id);
        }
        match is_pause {
            true => Some(IT_PAUSES),
            false => (!self.wanted.has(&container.name)).then_some("its name"),
        }
    }

    /// Asks the sources in their order, if it is time, and enters what the first that knows the container says. Returns
    /// whether it only holds the namespaces of a pod.
    fn seek(&mut self, container: &Container, by: Instant) -> bool {
        let seeker = self.seekers.entry(container.id).or_insert_with(Seeker::new);
        if !seeker.is_due() || !is_plain(&container.runtime_id) {
            return false;
        }
        for source in &mut self.sources {
            if self.ending.load(Ordering::Relaxed) {
                return false;
            }
            let names = source.names_of(container, by);
            let Some((name, names)) = names.and_then(|it| Some((it.clean_name()?, it))) else {
                continue;
            };
            enter(container, source.name(), name, &names, &self.directory);
            return names.is_pause;
        }
        false
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
        let ending = Arc::clone(&self.ending);
        let thread = std::thread::Builder::new().name("names".to_owned()).spawn(move || {
            while stopped.recv_timeout(LOOK_EVERY) == Err(RecvTimeoutError::Timeout) {
                self.look(Instant::now() + LOOK).into_iter().for_each(&mut leave_out);
            }
        })?;
        Ok(NamerThread { ending, stop: Some(stop), thread: Some(thread) })
    }
}

/// The thread of a [`Namer`]. Dropped, it ends: as soon as a question that is under way is answered, or its time is over.
#[derive(Debug)]
pub struct NamerThread {
    ending: Arc<AtomicBool>,
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for NamerThread {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Relaxed);
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

/// Enters what a source says of a container.
fn enter(
    container: &Container,
    source: &'static str,
    name: String,
    names: &Names,
    directory: &Directory,
) {
    tracing::info!(container = container.name, name, source, "container named");
    directory.update_container(container.id, |known| {
        known.name = name;
        known.name_source = source;
        for (key, value) in names.attributes() {
            if known.attributes.iter().all(|(known, _)| *known != key) {
                known.attributes.push((key, value));
            }
        }
    });
}

/// Whose containers the API of Kubernetes may be asked for.
fn whose(scope: Scope) -> Whose {
    let variable = |name| std::env::var(name).ok().filter(|it| kubernetes::is_name(it));
    match scope {
        Scope::Pod => match (variable("POD_NAMESPACE"), variable("POD_NAME")) {
            (Some(namespace), Some(name)) => Whose::Pod { namespace, name },
            _ => Whose::Unknown("POD_NAMESPACE and POD_NAME do not both say which pod this is"),
        },
        Scope::Auto | Scope::Node | Scope::Cgroups => match variable("NODE_NAME") {
            Some(name) => Whose::Node(name),
            None => Whose::Unknown("NODE_NAME does not say which node this is"),
        },
    }
}

/// Everybody who may know, in the order in which they are asked.
fn sources(host_root: &Path, names: &config::Names, whose: Whose) -> Vec<Box<dyn Source>> {
    let sockets = |place: &Place, usual: &[&str]| -> Vec<PathBuf> {
        match place {
            Place::Off => Vec::new(),
            Place::At(path) => vec![PathBuf::from(path)],
            Place::Auto => usual.iter().map(|path| at(host_root, path)).collect(),
        }
    };
    let mut sources: Vec<Box<dyn Source>> = Vec::new();
    for socket in sockets(&names.cri, &runtime::USUAL) {
        sources.push(Box::new(Cri::new(socket)));
    }
    // Before Docker: where Podman stands in for it, the socket of Docker leads to Podman.
    for (place, usual, engine) in [
        (&names.podman, engine::PODMAN, Engine::Podman),
        (&names.docker, engine::DOCKER, Engine::Docker),
    ] {
        for socket in sockets(place, &[usual]) {
            sources.push(Box::new(EngineApi::new(engine, socket)));
        }
    }
    match &names.kubernetes {
        Place::Off => {}
        Place::Auto => sources.push(Box::new(Kubernetes::new(None, whose))),
        Place::At(address) => {
            sources.push(Box::new(Kubernetes::new(kubernetes::address(address), whose)));
        }
    }
    sources.push(Box::new(Docker::new(host_root)));
    sources.push(Box::new(Bundles::new(host_root)));
    sources
}

/// What each source says when it is greeted: its name, where it is, and who is there or why nobody is.
pub fn greet(
    discovery: &config::Discovery,
    names: &config::Names,
) -> Vec<(String, Result<String, String>)> {
    let mut greeted = Vec::new();
    for mut source in sources(&discovery.host_root, names, whose(discovery.scope)) {
        let said = match source.greet(CALL) {
            Ok(who) => Ok(format!("{who}, at {}", source.place())),
            Err(Trouble::Absent(_)) => continue,
            Err(Trouble::Failed(why)) => Err(format!("{}: {why}", source.place())),
        };
        greeted.push((source.name().to_owned(), said));
    }
    greeted
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

    struct Knows(&'static str, Result<Option<Names>, Trouble>);

    impl Source for Knows {
        fn name(&self) -> &'static str {
            self.0
        }

        fn place(&self) -> String {
            "here".to_owned()
        }

        fn is_quick(&self) -> bool {
            self.0 == "quick"
        }

        fn names_of(&mut self, _: &Container, _: Duration) -> Result<Option<Names>, Trouble> {
            self.1.clone()
        }

        fn greet(&mut self, _: Duration) -> Result<String, Trouble> {
            Ok("somebody".to_owned())
        }
    }

    fn knows(name: &'static str, names: Option<Names>) -> Knows {
        Knows(name, Ok(names))
    }

    /// A container whose name nobody knows yet.
    pub(super) fn container(runtime_id: &str) -> Container {
        Container {
            id: ID,
            name: "0123".to_owned(),
            name_source: "id",
            runtime_id: runtime_id.to_owned(),
            runtime: "containerd",
            cgroup: CgroupId(1),
            cgroup_path: Vec::new(),
            attributes: Vec::new(),
            watched_since: UnixNanos(1),
            from_birth: true,
            ended: None,
        }
    }

    /// The container, and who would name it.
    fn namer(runtime_id: &str, sources: Vec<Knows>, config: &config::Discovery) -> Namer {
        let directory = Arc::new(Directory::new(NonZeroUsize::MIN));
        let attributes = vec![("pod-uid".to_owned(), "u".to_owned())];
        directory.put_container(Container { attributes, ..container(runtime_id) });
        let mut namer = Namer::new(config, &config::Names::default(), Scope::Node, directory);
        namer.sources = sources.into_iter().map(|source| Asked::new(Box::new(source))).collect();
        namer
    }

    fn look(namer: &mut Namer) -> Vec<ContainerId> {
        namer.look(Instant::now() + LOOK)
    }

    fn sought(runtime_id: &str, sources: Vec<Knows>) -> Container {
        let mut namer = namer(runtime_id, sources, &config::Discovery::default());
        assert_eq!(look(&mut namer), []);
        namer.directory.container(ID).unwrap()
    }

    fn named(name: &str) -> Names {
        let pod_name = Some("cart".to_owned());
        Names { name: Some(name.to_owned()), pod_name, ..Names::default() }
    }

    #[test]
    fn the_first_source_that_knows_it_names_it() {
        let sources =
            vec![knows("a", None), knows("b", Some(named("web"))), knows("c", Some(named("no")))];
        let found = sought("0123456789ab", sources);
        assert_eq!((found.name.as_str(), found.name_source), ("web", "b"));
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(found.attributes, [pair("pod-uid", "u"), pair("pod-name", "cart")]);
    }

    #[test]
    fn one_that_fails_is_passed_over_and_not_asked_again_at_once() {
        let failing = Knows("a", Err(Trouble::Failed("it is on fire".to_owned())));
        let config = config::Discovery::default();
        let mut namer =
            namer("0123456789ab", vec![failing, knows("b", Some(named("web")))], &config);
        look(&mut namer);
        assert_eq!(namer.directory.container(ID).unwrap().name, "web");
        let status = namer.standings().status();
        let said = |at: usize| (status[at].state.as_str(), status[at].named);
        assert_eq!((said(0), said(1)), (("failing", 0), ("answers", 1)));
        assert_eq!(status[0].reason.as_deref(), Some("it is on fire"));
        let by = Instant::now() + LOOK;
        assert_eq!(namer.sources[0].names_of(&container("0123456789ab"), by), None);
    }

    #[test]
    fn behind_the_time_of_a_look_only_those_that_take_none_are_asked() {
        let sources = vec![knows("slow", Some(named("no"))), knows("quick", Some(named("web")))];
        let mut namer = namer("0123456789ab", sources, &config::Discovery::default());
        namer.look(Instant::now());
        assert_eq!(namer.directory.container(ID).unwrap().name_source, "quick");
    }

    #[test]
    fn one_that_ended_without_a_name_gets_it_all_the_same_while_it_is_news() {
        let ended_at = |ended: u64| {
            let sources = vec![knows("a", Some(Names { is_pause: true, ..named("web") }))];
            let mut namer = namer("0123456789ab", sources, &config::Discovery::default());
            let change = |container: &mut Container| container.ended = Some(UnixNanos(ended));
            namer.directory.update_container(ID, change);
            assert_eq!(look(&mut namer), [], "there is nothing left to leave out");
            namer.directory.container(ID).unwrap().name
        };
        assert_eq!(ended_at(real_time_ns()), "web");
        assert_eq!(ended_at(1), "0123");
    }

    #[test]
    fn an_id_that_leads_out_of_a_folder_is_never_looked_up() {
        for id in ["../../etc", "a/b", "", ".hidden", "a\0b", ".."] {
            assert_eq!(sought(id, vec![knows("a", Some(named("web")))]).name_source, "id", "{id}");
        }
    }

    /// What becomes of a container with this name.
    fn is_left_out(names: Names, include: &[&str], exclude: &[&str]) -> bool {
        let texts = |patterns: &[&str]| patterns.iter().map(|it| (*it).to_owned()).collect();
        let (include, exclude) = (texts(include), texts(exclude));
        let config = config::Discovery { include, exclude, ..config::Discovery::default() };
        let mut namer = namer("0123456789ab", vec![knows("a", Some(names))], &config);
        let unwanted = look(&mut namer);
        assert_eq!(look(&mut namer), [], "nobody is left out twice");
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
        let mut namer = namer("0123456789ab", vec![knows("a", None)], &config);
        assert_eq!(look(&mut namer), []);
        let seeker = namer.seekers.get_mut(&ID).unwrap();
        seeker.since = Instant::now().checked_sub(NAMELESS_AFTER).unwrap();
        assert_eq!(look(&mut namer), [ID]);
    }

    #[test]
    fn nobody_is_asked_again_at_once() {
        let mut seeker = Seeker::new();
        assert!(seeker.is_due());
        assert!(!seeker.is_due());
    }
}
