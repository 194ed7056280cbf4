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
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;

use crate::directory::{Container, Directory};
use crate::event::ContainerId;

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

/// What a source knows of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Names {
    /// What people call it.
    name: Option<String>,
    pod_name: Option<String>,
    pod_namespace: Option<String>,
    image: Option<String>,
}

/// Somebody who may know.
trait Source: Send {
    /// Its name, as `name_source` in documents.
    fn name(&self) -> &'static str;

    /// What it knows of the container with this id of its runtime. None where it does not know it.
    fn names_of(&self, runtime_id: &str) -> Option<Names>;
}

/// The thread. Dropped, it ends.
#[derive(Debug)]
pub struct Namer {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Namer {
    /// Begins to ask. `host_root` is where the root of the machine's file system is, as seen from here.
    ///
    /// # Errors
    ///
    /// If the system gives no thread.
    pub fn start(host_root: &Path, directory: Arc<Directory>) -> io::Result<Namer> {
        let sources: Vec<Box<dyn Source>> =
            vec![Box::new(Docker::new(host_root)), Box::new(Bundles::new(host_root))];
        let (stop, stopped) = channel();
        let thread = std::thread::Builder::new()
            .name("names".to_owned())
            .spawn(move || run(&sources, &directory, &stopped))?;
        Ok(Namer { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Namer {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread for names ended early");
        }
    }
}

fn run(sources: &[Box<dyn Source>], directory: &Directory, stopped: &Receiver<()>) {
    let mut seekers: HashMap<ContainerId, Seeker> = HashMap::new();
    while stopped.recv_timeout(LOOK_EVERY) == Err(RecvTimeoutError::Timeout) {
        let nameless = directory.containers();
        let nameless = nameless.iter().filter(|it| it.name_source == "id" && it.ended.is_none());
        let mut there = HashSet::new();
        for container in nameless {
            there.insert(container.id);
            let seeker = seekers.entry(container.id).or_insert_with(Seeker::new);
            if seeker.is_due() {
                seek(container, sources, directory);
            }
        }
        seekers.retain(|id, _| there.contains(id));
    }
}

/// When a container is asked for again.
struct Seeker {
    next: Instant,
    pause: Duration,
}

impl Seeker {
    fn new() -> Seeker {
        Seeker { next: Instant::now(), pause: FIRST_PAUSE }
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

/// Asks the sources in their order, and enters what the first that knows it says.
fn seek(container: &Container, sources: &[Box<dyn Source>], directory: &Directory) {
    if !is_plain(&container.runtime_id) {
        return;
    }
    let found = sources.iter().find_map(|source| {
        let names = source.names_of(&container.runtime_id)?;
        Some((source.name(), names))
    });
    let Some((source, names)) = found else {
        return;
    };
    let Some(name) = names.name else {
        return;
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

    struct Knows(&'static str, Option<Names>);

    impl Source for Knows {
        fn name(&self) -> &'static str {
            self.0
        }

        fn names_of(&self, _: &str) -> Option<Names> {
            self.1.clone()
        }
    }

    fn sought(runtime_id: &str, sources: Vec<Knows>) -> Container {
        let directory = Directory::new(NonZeroUsize::MIN);
        let container = Container {
            id: ContainerId(1),
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
        };
        directory.put_container(container.clone());
        let sources: Vec<Box<dyn Source>> =
            sources.into_iter().map(|source| Box::new(source) as Box<dyn Source>).collect();
        seek(&container, &sources, &directory);
        directory.container(ContainerId(1)).unwrap()
    }

    #[test]
    fn the_first_source_that_knows_it_names_it() {
        let names = |name: &str| Names {
            name: Some(name.to_owned()),
            pod_name: Some("cart".to_owned()),
            ..Names::default()
        };
        let sources =
            vec![Knows("a", None), Knows("b", Some(names("web"))), Knows("c", Some(names("no")))];
        let found = sought("0123456789ab", sources);
        assert_eq!((found.name.as_str(), found.name_source), ("web", "b"));
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(found.attributes, [pair("pod-uid", "u"), pair("pod-name", "cart")]);
    }

    #[test]
    fn an_id_that_leads_out_of_a_folder_is_never_looked_up() {
        for id in ["../../etc", "a/b", "", ".hidden", "a\0b", ".."] {
            let named = Names { name: Some("web".to_owned()), ..Names::default() };
            assert_eq!(sought(id, vec![Knows("a", Some(named))]).name_source, "id", "{id}");
        }
    }

    #[test]
    fn nobody_is_asked_again_at_once() {
        let mut seeker = Seeker::new();
        assert!(seeker.is_due());
        assert!(!seeker.is_due());
    }
}
