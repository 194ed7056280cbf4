//! From a plugin's source to compiled, linked code, or to one sentence that says why not.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use wasmtime::component::{Component, HasSelf, InstancePre, Linker};

use super::bindings::EveryRole;
use super::bindings::exports::whodunit::plugin::{explainer, lifecycle, reporter};
use super::engine::{CacheDirError, Engine, chain};
use super::imports::Guest;
use super::inspect::{Nature, RoleName, inspect};
use super::life::{Life, Loaded, Loss, Role};
use super::{CONTRACT, builtin};
use crate::config::{self, PluginSource};

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
        "plugin `{plugin}`: {source_name} is a component, but no plugin of whodunit (it exports {exports}): build it against the world `reporter-plugin` of {CONTRACT}"
    )]
    Stranger { plugin: String, source_name: String, exports: String },
    /// It was built for another version of the contract.
    #[error(
        "plugin `{plugin}`: {source_name} was built for whodunit:plugin@{built_for}, and this daemon speaks {CONTRACT}: build it again against that, or use a daemon that speaks its version"
    )]
    OtherVersion { plugin: String, source_name: String, built_for: String },
    /// Its role is known and not run.
    #[error(
        "plugin `{plugin}`: {source_name} is {article} {role}, which this version of the daemon does not run yet: take it out of the TOML"
    )]
    OtherRole { plugin: String, source_name: String, article: &'static str, role: &'static str },
    /// It wants what it does not get.
    #[error(
        "plugin `{plugin}`: {source_name} wants {imports}, which the sandbox does not give: build it without them, in Rust for the target wasm32-unknown-unknown"
    )]
    Demanding { plugin: String, source_name: String, imports: String },
    /// It is not valid, or not what its names promise.
    #[error("plugin `{plugin}`: {source_name} is not a valid {role} of {CONTRACT}: {cause}")]
    Invalid { plugin: String, source_name: String, role: &'static str, cause: String },
    /// It refused its configuration.
    #[error("plugin `{plugin}` does not start: {sentence}")]
    Refused { plugin: String, sentence: String },
    /// The system gave no thread.
    #[error(
        "plugin `{plugin}`: its thread cannot be started ({cause}): raise the limit of threads"
    )]
    NoThread { plugin: String, cause: io::Error },
}

impl LoadError {
    /// What a loss in the very first start means to the daemon. None for one that only costs an
    /// instance: the plugin is started again, as it would be at any other time.
    pub(super) fn of_first_start<R: Role>(life: &Life<R>, loss: &Loss) -> Option<LoadError> {
        let plugin = life.board.name().to_owned();
        match loss {
            Loss::Refused(sentence) => {
                Some(LoadError::Refused { plugin, sentence: sentence.clone() })
            }
            Loss::Invalid { role, cause } => {
                let (source_name, cause) = (life.source_name().to_owned(), cause.clone());
                Some(LoadError::Invalid { plugin, source_name, role, cause })
            }
            Loss::Trap(_) | Loss::Timeout(_) | Loss::Memory(_) | Loss::Oversized(_) => None,
        }
    }
}

/// A plugin of either role.
pub(super) enum AnyLoaded {
    Reporter(Loaded<reporter::GuestIndices>),
    Explainer(Loaded<explainer::GuestIndices>),
}

/// Reads, checks, compiles and links a plugin.
pub(super) fn load(engine: &Engine, plugin: &config::Plugin) -> Result<AnyLoaded, LoadError> {
    compile(engine, &plugin.name, source_name(&plugin.source), &bytes(plugin)?)
}

/// The component that stands behind a plugin's source.
pub(super) fn bytes(plugin: &config::Plugin) -> Result<Cow<'static, [u8]>, LoadError> {
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
    }
}

/// A plugin's source as the TOML has it.
pub(super) fn source_name(source: &PluginSource) -> String {
    match source {
        PluginSource::Builtin(name) => format!("builtin:{name}"),
        PluginSource::File(path) => path.display().to_string(),
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
    plugin: &str,
    source_name: String,
    bytes: &[u8],
) -> Result<AnyLoaded, LoadError> {
    let plugin = plugin.to_owned();
    let role = match inspect(bytes) {
        Nature::Plugin(role) => role,
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
            let exports = listed(exports.into_iter().map(|name| format!("`{name}`")));
            return Err(LoadError::Stranger { plugin, source_name, exports });
        }
        Nature::OtherVersion(built_for) => {
            return Err(LoadError::OtherVersion { plugin, source_name, built_for });
        }
        Nature::OtherRole(role) => {
            let article = if role.starts_with('e') { "an" } else { "a" };
            return Err(LoadError::OtherRole { plugin, source_name, article, role });
        }
        Nature::Demanding(imports) => {
            let imports = listed(imports.into_iter().map(|name| format!("`{name}`")));
            return Err(LoadError::Demanding { plugin, source_name, imports });
        }
    };
    let linked = link(engine, bytes).and_then(|pre| match role {
        RoleName::Reporter => role_of(pre, source_name.clone()).map(AnyLoaded::Reporter),
        RoleName::Explainer => role_of(pre, source_name.clone()).map(AnyLoaded::Explainer),
    });
    let role = role.name();
    linked.map_err(|cause| LoadError::Invalid { plugin, source_name, role, cause: chain(&cause) })
}

fn link(engine: &Engine, bytes: &[u8]) -> wasmtime::Result<InstancePre<Guest>> {
    let component = Component::new(engine.wasmtime(), bytes)?;
    let mut linker = Linker::new(engine.wasmtime());
    EveryRole::add_to_linker::<_, HasSelf<Guest>>(&mut linker, |guest| guest)?;
    linker.instantiate_pre(&component)
}

fn role_of<R: Role>(pre: InstancePre<Guest>, source_name: String) -> wasmtime::Result<Loaded<R>> {
    let lifecycle = lifecycle::GuestIndices::new(&pre)?;
    let role = R::find(&pre)?;
    Ok(Loaded { pre, lifecycle, role, source_name })
}

/// At most eight names, and how many more there are.
fn listed(names: impl Iterator<Item = String>) -> String {
    const SHOWN: usize = 8;
    let names: Vec<_> = names.collect();
    match names.len() {
        0 => "nothing".to_owned(),
        1..=SHOWN => names.join(", "),
        count => format!("{} and {} more", names[..SHOWN].join(", "), count - SHOWN),
    }
}
