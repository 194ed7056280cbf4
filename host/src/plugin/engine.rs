//! The engine: what all guests share. Limits are given in time; the ticks behind them stay in here.
//!
//! Owns the epoch ticker and the cache of compiled code.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use wasmtime::{Cache, CacheConfig, Config, EngineWeak, OptLevel};

use super::load::LoadError;

/// How exact a limit in time is: a guest that runs on is stopped within one tick of its limit.
const TICK: Duration = Duration::from_millis(10);

/// Stack for the guest's own frames. Worker threads have 2 MiB.
const GUEST_STACK_BYTES: usize = 512 << 10;

/// Why compiled code cannot be kept in the cache folder.
#[derive(Debug, thiserror::Error)]
pub enum CacheDirError {
    /// It could not be made or looked at.
    #[error("the cache folder {} cannot be used ({cause}): make it, or set `daemon.cache_dir` to another", path.display())]
    Unusable {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// Something else is there.
    #[error("{} is not a folder, and cannot be the cache: set `daemon.cache_dir` to one", path.display())]
    NotAFolder {
        /// What should be the folder.
        path: PathBuf,
    },
    /// Somebody else owns it, and could put code into the daemon.
    #[error(
        "the cache folder {} belongs to user {owner} and not to user {daemon} as the daemon does: whoever writes there runs code in the daemon, so change its owner, or set `daemon.cache_dir` to another folder",
        path.display()
    )]
    ForeignOwner {
        /// The folder.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// The daemon's effective user.
        daemon: u32,
    },
    /// Others may write it, and could put code into the daemon.
    #[error(
        "others than its owner may write the cache folder {} (mode {mode:04o}), and with it code that the daemon runs: `chmod go-w` it, or set `daemon.cache_dir` to another folder",
        path.display()
    )]
    WritableByOthers {
        /// The folder.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
}

/// The engine with its ticker.
pub(super) struct Engine {
    engine: wasmtime::Engine,
    cache_dir: PathBuf,
    pace: Arc<Pace>,
}

impl Engine {
    /// An engine that keeps compiled code in `cache_dir`.
    pub(super) fn new(cache_dir: &Path) -> Result<Engine, LoadError> {
        check_cache_dir(cache_dir)?;
        let mut cache = CacheConfig::new();
        cache.with_directory(cache_dir);
        let failed = |cause: wasmtime::Error| LoadError::Engine { cause: chain(&cause) };
        let mut config = Config::new();
        config
            .cache(Some(Cache::new(cache).map_err(failed)?))
            .epoch_interruption(true)
            .concurrency_support(false)
            .cranelift_opt_level(OptLevel::Speed)
            .max_wasm_stack(GUEST_STACK_BYTES)
            // A trap is told in one sentence; frames of a guest help its author in his own tests.
            .wasm_backtrace_max_frames(None);
        let engine = wasmtime::Engine::new(&config).map_err(failed)?;
        let pace = Arc::new(Pace::default());
        let (weak, ticker_pace) = (engine.weak(), Arc::clone(&pace));
        thread::Builder::new()
            .name("plugin-ticker".to_owned())
            .spawn(move || ticker_pace.tick(&weak))
            .map_err(|cause| LoadError::Engine { cause: cause.to_string() })?;
        Ok(Engine { engine, cache_dir: cache_dir.to_owned(), pace })
    }

    /// A folder that nobody else may write.
    pub(super) fn cache_dir(&self) -> &Path {
        &self.cache_dir
    }

    pub(super) fn wasmtime(&self) -> &wasmtime::Engine {
        &self.engine
    }

    /// As many ticks from now as end no earlier than that time, and at most one tick later.
    pub(super) fn ticks(limit: Duration) -> u64 {
        let ticks = limit.as_nanos().div_ceil(TICK.as_nanos());
        u64::try_from(ticks).unwrap_or(u64::MAX / 2) + 1
    }

    /// Lets time pass for guests while the result lives.
    pub(super) fn enter(&self) -> Entered {
        let mut calls = self.pace.lock();
        calls.running += 1;
        if calls.running == 1 {
            self.pace.wake.notify_one();
        }
        drop(calls);
        Entered(Arc::clone(&self.pace))
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.pace.lock().ended = true;
        self.pace.wake.notify_one();
    }
}

/// A guest may be running.
pub(super) struct Entered(Arc<Pace>);

impl Drop for Entered {
    fn drop(&mut self) {
        self.0.lock().running -= 1;
    }
}

/// Whether the ticker ticks. It rests while no guest runs, so that an idle daemon sleeps.
#[derive(Default)]
struct Pace {
    calls: Mutex<Calls>,
    wake: Condvar,
}

#[derive(Default)]
struct Calls {
    running: usize,
    ended: bool,
}

impl Pace {
    fn lock(&self) -> MutexGuard<'_, Calls> {
        self.calls.lock().expect("no holder of this lock panics")
    }

    fn tick(&self, engine: &EngineWeak) {
        loop {
            let resting = |calls: &mut Calls| calls.running == 0 && !calls.ended;
            let calls = self.wake.wait_while(self.lock(), resting);
            if calls.expect("no holder of this lock panics").ended {
                return;
            }
            thread::sleep(TICK);
            match engine.upgrade() {
                Some(engine) => engine.increment_epoch(),
                None => return,
            }
        }
    }
}

/// An error of the engine with all its causes, on one line.
pub(super) fn chain(error: &wasmtime::Error) -> String {
    let causes: Vec<_> = error.chain().map(|cause| one_line(&cause.to_string())).collect();
    causes.join(": ")
}

fn one_line(text: &str) -> String {
    let lines: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines.join(" ")
}

/// Makes the folder if it is not there, and makes sure that nobody else can write it: the files in it
/// are machine code that the daemon runs without a check.
fn check_cache_dir(path: &Path) -> Result<(), CacheDirError> {
    let unusable = |cause| CacheDirError::Unusable { path: path.to_owned(), cause };
    DirBuilder::new().recursive(true).mode(0o700).create(path).or_else(|cause| {
        // What is there already is judged below.
        if cause.kind() == io::ErrorKind::AlreadyExists { Ok(()) } else { Err(unusable(cause)) }
    })?;
    let metadata = fs::metadata(path).map_err(unusable)?;
    if !metadata.is_dir() {
        return Err(CacheDirError::NotAFolder { path: path.to_owned() });
    }
    let daemon = rustix::process::geteuid().as_raw();
    if metadata.uid() != daemon {
        let owner = metadata.uid();
        return Err(CacheDirError::ForeignOwner { path: path.to_owned(), owner, daemon });
    }
    let mode = metadata.mode() & 0o7777;
    if mode & 0o022 != 0 {
        return Err(CacheDirError::WritableByOthers { path: path.to_owned(), mode });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt, chown};

    use super::*;

    #[test]
    fn the_cache_folder_is_made_for_its_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b");
        check_cache_dir(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
        check_cache_dir(&path).unwrap();
    }

    #[test]
    fn a_cache_folder_that_others_can_write_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        for mode in [0o770, 0o707, 0o1777] {
            fs::set_permissions(folder.path(), Permissions::from_mode(mode)).unwrap();
            let error = check_cache_dir(folder.path()).unwrap_err();
            assert!(matches!(error, CacheDirError::WritableByOthers { .. }), "{error}");
        }
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        check_cache_dir(folder.path()).unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(matches!(check_cache_dir(&file), Err(CacheDirError::NotAFolder { .. })));
        if chown(folder.path(), Some(65534), None).is_ok() {
            let error = check_cache_dir(folder.path()).unwrap_err();
            assert!(matches!(error, CacheDirError::ForeignOwner { owner: 65534, .. }), "{error}");
        } else {
            eprintln!("skipped in part: only root can give a folder away");
        }
    }

    #[test]
    fn a_limit_never_ends_early() {
        assert_eq!(Engine::ticks(Duration::from_millis(10)), 2);
        assert_eq!(Engine::ticks(Duration::from_millis(11)), 3);
        assert_eq!(Engine::ticks(Duration::ZERO), 1);
    }
}
