//! `whodunit plugin new` and `whodunit plugin componentize`.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;

use super::{Console, written};
use crate::exit::{Exit, Exits, Failure};
use crate::plugin::Role;
use crate::scaffold::{Language, new_project};

/// What `plugin new` is asked.
#[derive(Debug, Args)]
pub(super) struct NewFlags {
    /// Name of the plugin, and of the folder that is made for it
    #[arg(value_name = "NAME")]
    name: String,
    /// What it does
    #[arg(long, value_enum, default_value = "reporter", value_name = "ROLE")]
    role: Role,
    /// What it is written in
    #[arg(long, value_enum, default_value = "rust", value_name = "LANGUAGE")]
    lang: Language,
    /// The folder in which it is made
    #[arg(long = "in", default_value = ".", value_name = "FOLDER")]
    parent: PathBuf,
}

impl NewFlags {
    pub(super) fn execute(&self, console: &mut Console<'_>) -> Result<Exit, Failure> {
        let folder = new_project(&self.parent, &self.name, self.role, self.lang)?;
        written(writeln!(
            console.out,
            "{0} is there. Next:\n  cd {0}\n  ./test",
            folder.strip_prefix(".").unwrap_or(&folder).display()
        ))?;
        Ok(Exit::Success)
    }
}

/// What `plugin componentize` is asked.
#[derive(Debug, Args)]
pub(super) struct ComponentizeFlags {
    /// A core module that was built against the contract, such as cargo makes for wasm32-unknown-unknown
    #[arg(value_name = "MODULE")]
    module: PathBuf,
    /// The component
    #[arg(short = 'o', long = "out", value_name = "FILE")]
    out: PathBuf,
}

/// Why there is no component.
#[derive(Debug, thiserror::Error)]
enum ComponentizeError {
    #[error("{} cannot be read: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{} cannot be written: {source}", path.display())]
    Write { path: PathBuf, source: std::io::Error },
    #[error("{} is a component already: copy it", path.display())]
    Component { path: PathBuf },
    #[error("{} cannot be made a component: {cause}", path.display())]
    Encode { path: PathBuf, cause: String },
}

impl Exits for ComponentizeError {
    fn exit(&self) -> Exit {
        Exit::Failure
    }
}

impl ComponentizeFlags {
    pub(super) fn execute(&self, console: &mut Console<'_>) -> Result<Exit, Failure> {
        let component = componentize(&self.module)?;
        fs::write(&self.out, &component)
            .map_err(|source| ComponentizeError::Write { path: self.out.clone(), source })?;
        written(writeln!(console.err, "{}: {} bytes", self.out.display(), component.len()))?;
        Ok(Exit::Success)
    }
}

/// The module as a component, with the type that its bindings left in it.
fn componentize(path: &Path) -> Result<Vec<u8>, ComponentizeError> {
    let path = path.to_owned();
    let module = match fs::read(&path) {
        Ok(module) => module,
        Err(source) => return Err(ComponentizeError::Read { path, source }),
    };
    // The layer in a component's header is 1, in a module's it is 0.
    if module.starts_with(b"\0asm") && module.get(6..8) == Some(&[1, 0]) {
        return Err(ComponentizeError::Component { path });
    }
    wit_component::ComponentEncoder::default()
        .module(&module)
        .and_then(|encoder| encoder.validate(true).encode())
        // The alternate form has the whole chain of causes; on one line it is a sentence.
        .map_err(|cause| {
            let cause = format!("{cause:#}").split_whitespace().collect::<Vec<_>>().join(" ");
            ComponentizeError::Encode { path, cause }
        })
}
