//! Reload: what changed on disk, or was asked for, becomes what runs.
//!
//! Owns the thread that does it, off the path of events, and the watch on the files of plugins and of
//! the configuration. A change that cannot be taken leaves everything as it was, and the log and the
//! status say why. What the list of plugins does not say needs a restart: the log names it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};

use crate::config::{Config, PluginSource, Reread};
use crate::http::Identity;
use crate::plugin::PluginHost;

/// A change has to be over for that long: whoever copies a file writes it piece by piece.
const QUIET: Duration = Duration::from_millis(100);
/// A file that never comes to rest is looked at all the same after that long.
const LONGEST_UNREST: Duration = Duration::from_secs(2);
/// Links that are followed on the way to a file.
const MAX_LINKS: usize = 16;

/// Something to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Request {
    /// A file may have changed.
    Files,
    /// The configuration is to be read again, whether it changed or not.
    Everything,
}

/// A hand that asks for a reload.
#[derive(Clone, Debug)]
pub struct Reloader(Sender<Request>);

impl Reloader {
    /// Starts the thread and the watch.
    ///
    /// # Errors
    ///
    /// If the system gives no thread.
    pub fn start(
        reread: Reread,
        config: Config,
        plugins: Arc<PluginHost>,
        identity: Option<Arc<Identity>>,
    ) -> std::io::Result<Reloader> {
        let (requests, inbox) = mpsc::channel();
        let watch = Watch::new(requests.clone());
        let keeper = Keeper { reread, config, plugins, identity, watch };
        thread::Builder::new().name("reload".to_owned()).spawn(move || keeper.run(&inbox))?;
        Ok(Reloader(requests))
    }

    /// Asks for the configuration and every plugin's file to be looked at again.
    pub fn reload(&self) {
        // The thread ends with the process only.
        let _ = self.0.send(Request::Everything);
    }
}

/// The inside of the thread.
struct Keeper {
    reread: Reread,
    /// As it was last taken.
    config: Config,
    plugins: Arc<PluginHost>,
    /// What HTTPS is answered with.
    identity: Option<Arc<Identity>>,
    watch: Watch,
}

impl Keeper {
    fn run(mut self, inbox: &Receiver<Request>) {
        self.watch.follow(self.files());
        while let Ok(first) = inbox.recv() {
            let everything = first == Request::Everything || settle(inbox);
            if everything {
                self.renew_certificate();
            }
            let changed = self.watch.changed();
            let is_changed = |path: &Path| changed.contains(path);
            if everything || self.reread.file().is_some_and(|file| is_changed(&file)) {
                self.read_configuration();
            }
            for plugin in self.config.plugins.clone() {
                if let PluginSource::File(path) = &plugin.source
                    && (everything || is_changed(path))
                {
                    // The reason of a failure is in the log and in the status already.
                    let _ = self.plugins.reload_if_changed(&plugin);
                }
            }
            self.watch.follow(self.files());
        }
    }

    fn renew_certificate(&self) {
        match self.identity.as_ref().map(|identity| identity.renew()) {
            Some(Ok(())) => tracing::info!("the certificate for HTTPS was read again"),
            Some(Err(error)) => {
                tracing::error!("the certificate was not taken, the one before holds: {error}");
            }
            None => {}
        }
    }

    fn files(&self) -> BTreeSet<PathBuf> {
        let plugins = self.config.plugins.iter().filter_map(|plugin| match &plugin.source {
            PluginSource::File(path) => Some(path.clone()),
            PluginSource::Builtin(_) | PluginSource::Registry(_) => None,
        });
        plugins.chain(self.reread.file()).collect()
    }

    fn read_configuration(&mut self) {
        let loaded = match self.reread.load() {
            Ok(loaded) => loaded,
            Err(error) => {
                tracing::error!("the configuration was not taken, the one before holds: {error}");
                return;
            }
        };
        for key in needs_restart(&self.config, &loaded.config) {
            tracing::warn!("`{key}` was changed, which takes effect when the daemon is restarted");
        }
        if loaded.config.plugins == self.config.plugins {
            tracing::info!("configuration read again: the list of plugins is the same");
            return;
        }
        match self.plugins.apply(&loaded.config.plugins) {
            Ok(applied) => {
                tracing::info!(
                    swapped = applied.swapped.len(),
                    added = applied.added.len(),
                    removed = applied.removed.len(),
                    failed = applied.failed.len(),
                    "configuration read again: the plugins are those of the file"
                );
                // What failed is tried again with the next change.
                if applied.failed.is_empty() {
                    self.config.plugins = loaded.config.plugins;
                }
            }
            Err(error) => {
                tracing::error!("the list of plugins was not taken, the one before holds: {error}");
            }
        }
    }
}

/// Waits until nothing more changes. Whether somebody asked for everything meanwhile.
fn settle(inbox: &Receiver<Request>) -> bool {
    let deadline = Instant::now() + LONGEST_UNREST;
    let mut everything = false;
    while Instant::now() < deadline {
        match inbox.recv_timeout(QUIET) {
            Ok(request) => everything |= request == Request::Everything,
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
        }
    }
    everything
}

/// The tables in which the configurations differ, the plugins left out.
fn needs_restart(old: &Config, new: &Config) -> Vec<&'static str> {
    let Config { discovery, names, files, capture, daemon, deaths, log, http, plugins: _ } = old;
    [
        ("discovery", *discovery != new.discovery),
        ("names", *names != new.names),
        ("files", *files != new.files),
        ("capture", *capture != new.capture),
        ("daemon", *daemon != new.daemon),
        ("deaths", *deaths != new.deaths),
        ("log", *log != new.log),
        ("http", *http != new.http),
    ]
    .into_iter()
    .filter_map(|(table, differs)| differs.then_some(table))
    .collect()
}

/// The watch on files: on the folders that they, and the links to them, are in. A rename, or the switch
/// of a link such as `..data` of a Kubernetes volume, shows in the folder only.
struct Watch {
    watcher: Option<RecommendedWatcher>,
    folders: BTreeSet<PathBuf>,
    /// What each file was when it was last looked at.
    seen: BTreeMap<PathBuf, Option<Print>>,
}

/// What tells one state of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Print {
    device: u64,
    inode: u64,
    bytes: u64,
    /// Seconds and nanoseconds.
    changed: (i64, i64),
}

impl Print {
    fn of(path: &Path) -> Option<Print> {
        let metadata = fs::metadata(path).ok()?;
        Some(Print {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.len(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

impl Watch {
    fn new(requests: Sender<Request>) -> Watch {
        let tell = move |event: notify::Result<notify::Event>| {
            // Reading a file is no change of it; the reload itself reads them all.
            if !event.is_ok_and(|event| event.kind.is_access()) {
                let _ = requests.send(Request::Files);
            }
        };
        let watcher = notify::recommended_watcher(tell).inspect_err(|error| {
            tracing::warn!("files cannot be watched ({error}): send SIGHUP after a change");
        });
        Watch { watcher: watcher.ok(), folders: BTreeSet::new(), seen: BTreeMap::new() }
    }

    /// Watches these files, and no others.
    fn follow(&mut self, files: BTreeSet<PathBuf>) {
        // The standard configuration file need not be there, nor its folder.
        let folders = files.iter().flat_map(|file| folders_of(file)).filter(|it| it.is_dir());
        let folders: BTreeSet<PathBuf> = folders.collect();
        self.seen.retain(|file, _| files.contains(file));
        for file in files {
            let print = Print::of(&file);
            self.seen.entry(file).or_insert(print);
        }
        let Some(watcher) = &mut self.watcher else {
            return;
        };
        for gone in self.folders.difference(&folders) {
            // A folder that was removed is not watched any more by itself.
            let _ = watcher.unwatch(gone);
        }
        let mut watched = BTreeSet::new();
        for folder in folders {
            // Once more also where it is watched: another folder may have taken its name.
            match watcher.watch(&folder, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    watched.insert(folder);
                }
                Err(error) => tracing::warn!(
                    "the folder {} cannot be watched ({error}): send SIGHUP after a change in it",
                    folder.display()
                ),
            }
        }
        self.folders = watched;
    }

    /// The files that are not what they were.
    fn changed(&mut self) -> BTreeSet<PathBuf> {
        let mut changed = BTreeSet::new();
        for (file, seen) in &mut self.seen {
            let now = Print::of(file);
            if now != *seen {
                *seen = now;
                changed.insert(file.clone());
            }
        }
        changed
    }
}

/// The folders in which a change can make a path mean another file: its own, and those of every link
/// on the way.
fn folders_of(path: &Path) -> BTreeSet<PathBuf> {
    let mut folders = BTreeSet::new();
    let mut path = path.to_owned();
    for _ in 0..MAX_LINKS {
        let Some(folder) = path.parent().map(Path::to_owned) else {
            break;
        };
        folders.insert(folder.clone());
        // A folder on the way may be a link itself.
        let link = path.ancestors().find_map(|at| Some((at, fs::read_link(at).ok()?)));
        let Some((at, target)) = link else {
            break;
        };
        let rest = path.strip_prefix(at).unwrap_or(Path::new("")).to_owned();
        let base = at.parent().unwrap_or(Path::new("/"));
        folders.insert(base.to_owned());
        let target = base.join(target);
        path = if rest.as_os_str().is_empty() { target } else { target.join(rest) };
    }
    folders
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn every_folder_in_which_a_link_can_be_switched_is_watched() {
        // As the kubelet lays out a ConfigMap.
        let volume = tempfile::tempdir().unwrap();
        let volume = volume.path().canonicalize().unwrap();
        fs::create_dir(volume.join("..1")).unwrap();
        fs::write(volume.join("..1/a.wasm"), "").unwrap();
        symlink("..1", volume.join("..data")).unwrap();
        symlink("..data/a.wasm", volume.join("a.wasm")).unwrap();
        let folders = folders_of(&volume.join("a.wasm"));
        for folder in ["", "..1"] {
            let folder = volume.join(folder);
            assert!(folders.contains(&folder), "{} in {folders:?}", folder.display());
        }
    }

    #[test]
    fn a_change_by_writing_by_renaming_and_by_switching_a_link_is_seen_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.wasm");
        let (requests, inbox) = mpsc::channel();
        let mut watch = Watch::new(requests);
        fs::write(&path, "1").unwrap();
        watch.follow(BTreeSet::from([path.clone()]));
        assert!(watch.changed().is_empty());
        let mut check = |change: &dyn Fn()| {
            change();
            let told = inbox.recv_timeout(Duration::from_secs(60));
            assert_eq!(told, Ok(Request::Files));
            settle(&inbox);
            assert_eq!(watch.changed(), BTreeSet::from([path.clone()]));
            assert!(watch.changed().is_empty());
            watch.follow(BTreeSet::from([path.clone()]));
            while inbox.try_recv().is_ok() {}
        };
        let at = |name: &str| folder.path().join(name);
        check(&|| fs::write(&path, "22").unwrap());
        check(&|| {
            fs::write(at("new"), "333").unwrap();
            fs::rename(at("new"), &path).unwrap();
        });
        check(&|| {
            fs::create_dir(at("..1")).unwrap();
            fs::write(at("..1/a.wasm"), "4").unwrap();
            symlink("..1", at("..data")).unwrap();
            symlink("..data/a.wasm", at("link")).unwrap();
            fs::rename(at("link"), &path).unwrap();
        });
        check(&|| {
            fs::create_dir(at("..2")).unwrap();
            fs::write(at("..2/a.wasm"), "5").unwrap();
            symlink("..2", at("..data_tmp")).unwrap();
            fs::rename(at("..data_tmp"), at("..data")).unwrap();
        });
    }

    #[test]
    fn tables_that_need_a_restart_are_named() {
        let old = Config::default();
        let mut new = old.clone();
        new.plugins.clear();
        assert!(needs_restart(&old, &new).is_empty());
        new.daemon.interval += Duration::from_secs(1);
        new.files.exclude.clear();
        assert_eq!(needs_restart(&old, &new), ["files", "daemon"]);
    }
}
