//! From a plugin's source to compiled, linked code, or to one sentence that says why not.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};
use wasmtime::component::{Component, ComponentExportIndex, HasSelf, InstancePre, Linker};

use super::bindings::EveryPlugin;
use super::bindings::exports::whodunit::plugin::{explainer, lifecycle, reporter, state};
use super::engine::{CacheDirError, Engine, chain};
use super::imports::Guest;
use super::inspect::{Nature, Outside, inspect};
use super::role::Role;
use super::wasi::{NoFolder, System};
use super::{CONTRACT, builtin, wasi};
use crate::config::{self, PluginSource, Wasi};
use crate::registry::{self, PullError, Pulled, Reference};

/// Size of a component file at most. Compiling has no limit of its own.
const MAX_COMPONENT_BYTES: u64 = 64 << 20;

/// Why a plugin cannot run.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "`plugin` and `path` name what their variants are about")]
pub enum LoadError {
    /// The cache of compiled code would not be safe.
    #[error(transparent)]
    CacheDir(#[from] CacheDirError),
    /// The engine does not run on this machine.
    #[error("the WebAssembly engine cannot be started: {cause}")]
    Engine { cause: String },
    /// No plugin of that name is shipped.
    #[error("plugin `{plugin}`: there is no `builtin:{name}`; there is {known}")]
    NoBuiltin { plugin: String, name: String, known: String },
    /// Nothing is there.
    #[error("plugin `{plugin}`: {} does not exist: correct its path in the TOML", path.display())]
    NoFile { plugin: String, path: PathBuf },
    /// It does not come out of its registry.
    #[error("plugin `{plugin}`: {source_name} cannot be pulled: {cause}")]
    Pull { plugin: String, source_name: String, cause: PullError },
    /// It cannot be read.
    #[error("plugin `{plugin}`: {} cannot be read ({cause}): let the daemon read it", path.display())]
    Unreadable { plugin: String, path: PathBuf, cause: io::Error },
    /// It is larger than any plugin should be.
    #[error(
        "plugin `{plugin}`: {} is larger than {} MiB, the most that is compiled: strip its debug information",
        path.display(),
        MAX_COMPONENT_BYTES >> 20
    )]
    TooLarge { plugin: String, path: PathBuf },
    /// It is another one than the TOML names.
    #[error(
        "plugin `{plugin}`: {source_name} has the SHA-256 {found} and not {pinned}, which `sha256` in the TOML asks for: put that file there, or change `sha256` if you trust this one"
    )]
    OtherHash { plugin: String, source_name: String, pinned: String, found: String },
    /// It is something else.
    #[error(
        "plugin `{plugin}`: {source_name} is not WebAssembly: name a component file (.wasm) in the TOML"
    )]
    NotWasm { plugin: String, source_name: String },
    /// It is the text format.
    #[error(
        "plugin `{plugin}`: {source_name} is WebAssembly as text: make a component file of it with `wasm-tools parse`"
    )]
    Text { plugin: String, source_name: String },
    /// It is damaged.
    #[error(
        "plugin `{plugin}`: {source_name} is damaged WebAssembly ({cause}): build or copy it again"
    )]
    Damaged { plugin: String, source_name: String, cause: String },
    /// It is a core module.
    #[error(
        "plugin `{plugin}`: {source_name} is a core module and not a component: make one of it with `wasm-tools component new`"
    )]
    CoreModule { plugin: String, source_name: String },
    /// It has nothing to do with whodunit.
    #[error(
        "plugin `{plugin}`: {source_name} is a component, but no plugin of whodunit (it exports {exports}): build it against a world of {CONTRACT} such as `reporter-plugin`"
    )]
    Stranger { plugin: String, source_name: String, exports: String },
    /// It was built for another version of the contract.
    #[error(
        "plugin `{plugin}`: {source_name} was built for whodunit:plugin@{built_for}, and this daemon speaks {CONTRACT}: build it again against that, or use a daemon that speaks its version"
    )]
    OtherVersion { plugin: String, source_name: String, built_for: String },
    /// It has more than one role.
    #[error(
        "plugin `{plugin}`: {source_name} is {roles} at once: build one component for each role"
    )]
    SeveralRoles { plugin: String, source_name: String, roles: String },
    /// It wants what it does not get.
    #[error(
        "plugin `{plugin}`: {source_name} wants {imports}, which the sandbox does not give: build it without them, in Rust for the target wasm32-unknown-unknown"
    )]
    Demanding { plugin: String, source_name: String, imports: String },
    /// It wants what the TOML does not give.
    #[error(
        "plugin `{plugin}`: {source_name} wants {imports}, and its table of the TOML gives nothing of that: write there what `whodunit plugin inspect` prints, with `wasi = \"p2\"` and a capability at a time in `grants`, or `wasi = \"stub\"`, with which all of it is there and answers with nothing; or build it for the target wasm32-unknown-unknown"
    )]
    NotGranted { plugin: String, source_name: String, imports: String },
    /// A folder that it is to read is not there.
    #[error(
        "plugin `{plugin}`: the folder {}, which `grants.folders` gives it, cannot be opened ({cause}): make it, or correct its path in the TOML",
        path.display()
    )]
    NoFolder { plugin: String, path: PathBuf, cause: io::Error },
    /// It is not valid, or not what its names promise.
    #[error("plugin `{plugin}`: {source_name} is not a valid {} of {CONTRACT}: {cause}", role.name())]
    Invalid { plugin: String, source_name: String, role: Role, cause: String },
    /// Capture would have to wait for it.
    #[error(
        "plugin `{plugin}`: `overflow = \"block\"` makes whoever hands over events wait for the plugin, which is for `whodunit replay`, and capture waits for nobody: set `drop-newest` or `drop-oldest`"
    )]
    Blocks { plugin: String },
    /// It refused its configuration.
    #[error("plugin `{plugin}` does not start: {sentence}")]
    Refused { plugin: String, sentence: String },
    /// The system gave no thread.
    #[error(
        "plugin `{plugin}`: its thread cannot be started ({cause}): raise the limit of threads"
    )]
    NoThread { plugin: String, cause: io::Error },
}

/// A plugin that can be started, any number of times.
pub(super) struct Loaded {
    pub(super) pre: InstancePre<Guest>,
    pub(super) exports: Exports,
    pub(super) role: Role,
    pub(super) source_name: String,
    /// Of the component's bytes.
    pub(super) sha256: String,
}

/// Where the functions of a component are.
pub(super) struct Exports {
    pub(super) lifecycle: lifecycle::GuestIndices,
    pub(super) answers: AnswersIndices,
    /// None where the component keeps no state.
    pub(super) state: Option<state::GuestIndices>,
}

/// Where the functions of a role are.
pub(super) enum AnswersIndices {
    Filter {
        on_batch: ComponentExportIndex,
    },
    Reporter {
        on_batch: ComponentExportIndex,
        /// The others.
        guest: reporter::GuestIndices,
    },
    Explainer(explainer::GuestIndices),
}

impl Exports {
    fn find(pre: &InstancePre<Guest>, outside: &Outside) -> wasmtime::Result<Exports> {
        Ok(Exports {
            lifecycle: lifecycle::GuestIndices::new(pre)?,
            answers: match outside.role {
                Role::Filter => {
                    AnswersIndices::Filter { on_batch: find_on_batch(pre, Role::Filter)? }
                }
                Role::Reporter => AnswersIndices::Reporter {
                    on_batch: find_on_batch(pre, Role::Reporter)?,
                    guest: reporter::GuestIndices::new(pre)?,
                },
                Role::Explainer => AnswersIndices::Explainer(explainer::GuestIndices::new(pre)?),
            },
            state: match outside.has_state {
                true => Some(state::GuestIndices::new(pre)?),
                false => None,
            },
        })
    }
}

/// The function that takes batches.
fn find_on_batch(pre: &InstancePre<Guest>, role: Role) -> wasmtime::Result<ComponentExportIndex> {
    let interface = CONTRACT.replace('@', &format!("/{}@", role.name()));
    let component = pre.component();
    let instance = component.get_export_index(None, &interface);
    let function = instance.and_then(|it| component.get_export_index(Some(&it), "on-batch"));
    function.ok_or_else(|| wasmtime::Error::msg(format!("no `on-batch` in its `{interface}`")))
}

/// SHA-256 of a plugin's component, as it is now.
pub(super) fn hash(engine: &Engine, plugin: &config::Plugin) -> Result<String, LoadError> {
    Ok(sha256_of(&bytes_of(plugin, engine.cache_dir())?))
}

/// The component that stands behind a plugin's source. One of a registry is kept in the cache folder.
pub(super) fn bytes_of(
    plugin: &config::Plugin,
    cache_dir: &Path,
) -> Result<Cow<'static, [u8]>, LoadError> {
    match &plugin.source {
        PluginSource::Builtin(name) => {
            let component = builtin::component(name).ok_or_else(|| LoadError::NoBuiltin {
                plugin: plugin.name.clone(),
                name: name.clone(),
                known: listed(builtin::names().map(|name| format!("builtin:{name}"))),
            })?;
            Ok(Cow::Borrowed(component))
        }
        PluginSource::File(path) => read(&plugin.name, path).map(Cow::Owned),
        PluginSource::Registry(reference) => {
            pull(plugin, reference, cache_dir).map(|pulled| Cow::Owned(pulled.component))
        }
    }
}

/// The source of a plugin, with the digest where it is named by a tag alone.
pub(super) fn pinned(plugin: &config::Plugin, cache_dir: &Path) -> Result<PluginSource, LoadError> {
    match &plugin.source {
        PluginSource::Registry(reference) if reference.digest.is_none() => {
            let digest = Some(pull(plugin, reference, cache_dir)?.digest);
            Ok(PluginSource::Registry(Reference { digest, ..reference.clone() }))
        }
        source => Ok(source.clone()),
    }
}

fn pull(
    plugin: &config::Plugin,
    reference: &Reference,
    cache_dir: &Path,
) -> Result<Pulled, LoadError> {
    registry::pull(reference, cache_dir, MAX_COMPONENT_BYTES).map_err(|cause| LoadError::Pull {
        plugin: plugin.name.clone(),
        source_name: reference.to_string(),
        cause,
    })
}

/// Reads, checks, compiles and links a plugin.
pub(super) fn load(engine: &Engine, plugin: &config::Plugin) -> Result<Loaded, LoadError> {
    let source_name = source_name(&plugin.source);
    let bytes = bytes_of(plugin, engine.cache_dir())?;
    let sha256 = sha256_of(&bytes);
    if let Some(pinned) = plugin.sha256.clone().filter(|pinned| *pinned != sha256) {
        let plugin = plugin.name.clone();
        return Err(LoadError::OtherHash { plugin, source_name, pinned, found: sha256 });
    }
    compile(engine, plugin, source_name, sha256, &bytes)
}

/// SHA-256 in lower case hexadecimal digits.
pub(super) fn sha256_of(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A plugin's source as the TOML has it.
pub(super) fn source_name(source: &PluginSource) -> String {
    match source {
        PluginSource::Builtin(name) => format!("builtin:{name}"),
        PluginSource::File(path) => path.display().to_string(),
        PluginSource::Registry(reference) => reference.to_string(),
    }
}

fn read(plugin: &str, path: &Path) -> Result<Vec<u8>, LoadError> {
    let (plugin, path) = (plugin.to_owned(), path.to_owned());
    let mut bytes = Vec::new();
    let file = File::open(&path);
    match file.and_then(|file| file.take(MAX_COMPONENT_BYTES + 1).read_to_end(&mut bytes)) {
        Ok(read) if read as u64 > MAX_COMPONENT_BYTES => Err(LoadError::TooLarge { plugin, path }),
        Ok(_) => Ok(bytes),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
            Err(LoadError::NoFile { plugin, path })
        }
        Err(cause) => Err(LoadError::Unreadable { plugin, path, cause }),
    }
}

fn compile(
    engine: &Engine,
    plugin: &config::Plugin,
    source_name: String,
    sha256: String,
    bytes: &[u8],
) -> Result<Loaded, LoadError> {
    let config::Plugin { name, wasi: wasi_version, grants, .. } = plugin;
    let plugin = name.clone();
    let quoted = |names: Vec<String>| listed(names.into_iter().map(|name| format!("`{name}`")));
    let outside = match inspect(bytes) {
        Nature::Plugin(outside) => outside,
        Nature::Garbage => {
            return Err(LoadError::NotWasm { plugin, source_name });
        }
        Nature::Text => {
            return Err(LoadError::Text { plugin, source_name });
        }
        Nature::Damaged(cause) => {
            return Err(LoadError::Damaged { plugin, source_name, cause });
        }
        Nature::CoreModule => {
            return Err(LoadError::CoreModule { plugin, source_name });
        }
        Nature::Stranger(exports) => {
            return Err(LoadError::Stranger { plugin, source_name, exports: quoted(exports) });
        }
        Nature::OtherVersion(built_for) => {
            return Err(LoadError::OtherVersion { plugin, source_name, built_for });
        }
        Nature::SeveralRoles(roles) => {
            let roles: Vec<_> = roles.into_iter().map(Role::with_article).collect();
            return Err(LoadError::SeveralRoles {
                plugin,
                source_name,
                roles: roles.join(" and "),
            });
        }
    };
    let (system, foreign): (Vec<_>, Vec<_>) =
        outside.foreign_imports.iter().cloned().partition(|import| wasi::is_wasi(import));
    if !foreign.is_empty() {
        let imports = quoted(foreign);
        return Err(LoadError::Demanding { plugin, source_name, imports });
    }
    if !system.is_empty() && *wasi_version == Wasi::None {
        let imports = quoted(system);
        return Err(LoadError::NotGranted { plugin, source_name, imports });
    }
    let system = match System::of(grants) {
        Ok(system) => Arc::new(system),
        Err(NoFolder { path, cause }) => {
            return Err(LoadError::NoFolder { plugin, path, cause: cause.into() });
        }
    };
    let role = outside.role;
    match link(engine, bytes, &outside, &system) {
        Ok((pre, exports)) => Ok(Loaded { pre, exports, role, source_name, sha256 }),
        Err(cause) => Err(LoadError::Invalid { plugin, source_name, role, cause: chain(&cause) }),
    }
}

fn link(
    engine: &Engine,
    bytes: &[u8],
    outside: &Outside,
    system: &Arc<System>,
) -> wasmtime::Result<(InstancePre<Guest>, Exports)> {
    let component = Component::new(engine.wasmtime(), bytes)?;
    let mut linker = Linker::new(engine.wasmtime());
    EveryPlugin::add_to_linker::<_, HasSelf<Guest>>(&mut linker, |guest| guest)?;
    wasi::link(&mut linker, engine.wasmtime(), &component, system)?;
    let pre = linker.instantiate_pre(&component)?;
    let exports = Exports::find(&pre, outside)?;
    Ok((pre, exports))
}

/// At most eight names, and how many more there are.
pub(super) fn listed(names: impl Iterator<Item = String>) -> String {
    const SHOWN: usize = 8;
    let names: Vec<_> = names.collect();
    match names.len() {
        0 => "nothing".to_owned(),
        1..=SHOWN => names.join(", "),
        count => format!("{} and {} more", names[..SHOWN].join(", "), count - SHOWN),
    }
}
