//! What a plugin file is and what it says of itself, for whoever wants to know before running it.
//!
//! Takes a source as the TOML names it. Compiles the component and calls `describe`, with every import
//! answered by a trap, so a component that wants what the sandbox does not give is described all the
//! same. Whether the daemon takes it is asked of the daemon's own loader, never judged here.

use std::path::Path;

use serde::Serialize;
use wasmtime::component::{Component, Linker};
use wasmtime::{Store, StoreLimits, StoreLimitsBuilder};

use super::CONTRACT;
use super::bindings::exports::whodunit::plugin::lifecycle::Description;
use super::engine::{Engine, chain};
use super::inspect::{self, Names, Nature};
use super::load::{self, LoadError, sha256_of};
use super::role::Role;
use super::wasi;
use crate::config::{self, Limits, Wasi};

/// What a plugin file is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Passport {
    /// The source, as the TOML has it.
    pub source: String,
    /// Its role: `reporter`, `filter` or `explainer`. None where it has none of them, or several.
    pub role: Option<String>,
    /// Name and version that it gives itself. None where it does not say.
    pub name: Option<String>,
    /// See `name`.
    pub version: Option<String>,
    /// The contract that it was built for, such as `whodunit:plugin@0.1.0`.
    pub contract: Option<String>,
    /// The contract that this daemon speaks.
    pub spoken: &'static str,
    /// The interfaces that it wants.
    pub imports: Vec<String>,
    /// The interfaces that it gives.
    pub exports: Vec<String>,
    /// What it wants beyond the contract: nothing of it is there unless the TOML grants it.
    pub wants: Vec<String>,
    /// Size of the component, in bytes.
    pub bytes: u64,
    /// SHA-256 of the component, in hexadecimal.
    pub sha256: String,
    /// Whether this daemon runs it, with what the passport says the TOML has to grant.
    pub accepted: bool,
    /// Why it does not, in one sentence.
    pub refusal: Option<String>,
    /// A `[[plugin]]` table to start from.
    pub toml: String,
}

/// Finds out about a plugin. `cache_dir` keeps the compiled code.
///
/// # Errors
///
/// If there is nothing to look at: no such file or builtin, or no engine.
pub fn passport(plugin: &config::Plugin, cache_dir: &Path) -> Result<Passport, LoadError> {
    let engine = Engine::new(cache_dir)?;
    let source = load::pinned(plugin, cache_dir)?;
    let plugin = &config::Plugin { source, ..plugin.clone() };
    let bytes = load::bytes_of(plugin, cache_dir)?;
    let names = inspect::names(&bytes).ok().flatten().unwrap_or_default();
    let wants = names.foreign_imports();
    let grants = wasi::asked(&wants);
    let mut plugin = plugin.clone();
    plugin.wasi = match &grants {
        Some(_) => Wasi::P2,
        None if wants.iter().any(|import| wasi::is_wasi(import)) => Wasi::Stub,
        None => Wasi::None,
    };
    let refusal = load::load(&engine, &plugin).err().map(|error| error.to_string());
    let description = describe(&engine, &bytes);
    let (name, version) = match description {
        Ok(description) => (Some(description.name), Some(description.version)),
        Err(cause) => {
            tracing::debug!(plugin = plugin.name, "it does not say who it is: {}", chain(&cause));
            (None, None)
        }
    };
    let source = load::source_name(&plugin.source);
    Ok(Passport {
        toml: toml_of(&plugin, &source, grants.as_deref()),
        source,
        role: role_of(&names),
        name,
        version,
        contract: names.contract(),
        spoken: CONTRACT,
        wants,
        imports: names.imports,
        exports: names.exports,
        bytes: bytes.len() as u64,
        sha256: sha256_of(&bytes),
        accepted: refusal.is_none(),
        refusal,
    })
}

/// The role of a plugin, by its exports. None where it is no plugin, or one of several roles.
///
/// # Errors
///
/// If there is nothing to look at: no such file, builtin or name in a registry.
pub fn plugin_role(plugin: &config::Plugin, cache_dir: &Path) -> Result<Option<Role>, LoadError> {
    match inspect::inspect(&load::bytes_of(plugin, cache_dir)?) {
        Nature::Plugin(outside) => Ok(Some(outside.role)),
        _ => Ok(None),
    }
}

/// The one role that it plays.
fn role_of(names: &Names) -> Option<String> {
    match names.roles()[..] {
        [role] => Some(role.name().to_owned()),
        [..] => None,
    }
}

/// Calls `describe` of a component of any role.
fn describe(engine: &Engine, bytes: &[u8]) -> wasmtime::Result<Description> {
    let limits = Limits::default();
    let component = Component::new(engine.wasmtime(), bytes)?;
    let mut linker: Linker<StoreLimits> = Linker::new(engine.wasmtime());
    linker.define_unknown_imports_as_traps(&component)?;
    let memory = StoreLimitsBuilder::new().memory_size(limits.memory_bytes).build();
    let mut store = Store::new(engine.wasmtime(), memory);
    store.limiter(|memory| memory);
    store.set_hostcall_fuel(1 << 20);
    store.set_epoch_deadline(Engine::ticks(limits.call));
    let _entered = engine.enter();
    let instance = linker.instantiate(&mut store, &component)?;
    let found = inspect::names(bytes).ok().flatten().and_then(|names| names.lifecycle());
    let lifecycle = found.ok_or_else(|| wasmtime::Error::msg("it exports no lifecycle"))?;
    let missing = || wasmtime::Error::msg("its lifecycle has no `describe`");
    let interface = instance.get_export_index(&mut store, None, &lifecycle);
    let index = instance.get_export_index(&mut store, interface.as_ref(), "describe");
    let index = index.ok_or_else(missing)?;
    let function = instance.get_typed_func::<(), (Description,)>(&mut store, &index)?;
    let (description,) = function.call(&mut store, ())?;
    Ok(description)
}

/// What the TOML has to say for it to run. `grants` are those that it asks for.
fn toml_of(plugin: &config::Plugin, source: &str, grants: Option<&str>) -> String {
    let mut table = format!(
        "[[plugin]]\nname = {}\nsource = {}\n",
        toml::Value::from(plugin.name.as_str()),
        toml::Value::from(source),
    );
    if plugin.wasi != Wasi::None {
        table += &format!("wasi = {}\n", toml::Value::from(plugin.wasi.name()));
    }
    if let Some(grants) = grants {
        table += &format!("grants = {grants}\n");
    }
    table
}
