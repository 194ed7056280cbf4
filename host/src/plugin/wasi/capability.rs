//! The capabilities of the system interface, as the TOML names them, and what a plugin is given of them.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::config::Grants;

/// What one key of `[plugin.grants]` gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Capability {
    Clocks,
    Random,
    Output,
    Environment,
    Folders,
}

impl Capability {
    /// Every one, in the order of the TOML.
    const ALL: [Capability; 5] = [
        Capability::Clocks,
        Capability::Random,
        Capability::Output,
        Capability::Environment,
        Capability::Folders,
    ];

    /// What that interface, such as `wasi:random/random@0.2.6`, is about. None for those that give nothing by
    /// themselves.
    pub(super) fn of(interface: &str) -> Option<Capability> {
        let interface = interface.split('@').next().unwrap_or_default();
        Some(match interface.strip_prefix("wasi:")?.split_once('/')? {
            ("clocks", _) => Capability::Clocks,
            ("random", _) => Capability::Random,
            ("cli", "stdout" | "stderr") => Capability::Output,
            ("cli", "environment") => Capability::Environment,
            ("filesystem", _) => Capability::Folders,
            _ => return None,
        })
    }

    pub(super) fn is_granted(self, grants: &Grants) -> bool {
        match self {
            Capability::Clocks => grants.clocks,
            Capability::Random => grants.random,
            Capability::Output => grants.output,
            Capability::Environment => !grants.environment.is_empty(),
            Capability::Folders => !grants.folders.is_empty(),
        }
    }

    /// The key that grants it, with as little as can be granted.
    fn least(self) -> &'static str {
        match self {
            Capability::Clocks => "clocks = true",
            Capability::Random => "random = true",
            Capability::Output => "output = true",
            Capability::Environment => "environment = []",
            Capability::Folders => "folders = {}",
        }
    }
}

/// The grants that those imports ask for, as an inline table of the TOML. None where they ask for none.
pub(in crate::plugin) fn asked(imports: &[String]) -> Option<String> {
    let asked: Vec<Capability> =
        imports.iter().filter_map(|import| Capability::of(import)).collect();
    let asked = Capability::ALL.into_iter().filter(|capability| asked.contains(capability));
    let keys: Vec<&str> = asked.map(Capability::least).collect();
    (!keys.is_empty()).then(|| format!("{{ {} }}", keys.join(", ")))
}

/// What one plugin is given of the system interface.
pub(in crate::plugin) struct System {
    pub(super) grants: Grants,
    pub(super) folders: Vec<Folder>,
}

/// A folder that a plugin may read, open since the plugin was loaded.
pub(super) struct Folder {
    /// Where the plugin finds it.
    pub(super) place: String,
    pub(super) file: Arc<File>,
}

/// A folder that cannot be opened.
pub(in crate::plugin) struct NoFolder {
    pub(in crate::plugin) path: PathBuf,
    pub(in crate::plugin) cause: Errno,
}

impl System {
    /// What these grants give. Opens the folders.
    pub(in crate::plugin) fn of(grants: &Grants) -> Result<System, NoFolder> {
        let open = |(place, path): (&String, &PathBuf)| {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let folder = rustix::fs::open(path, flags, Mode::empty())
                .map_err(|cause| NoFolder { path: path.clone(), cause })?;
            Ok(Folder { place: place.clone(), file: Arc::new(File::from(folder)) })
        };
        let folders = grants.folders.iter().map(open).collect::<Result<_, _>>()?;
        Ok(System { grants: grants.clone(), folders })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn imports_ask_for_the_grants_of_their_interfaces_and_for_nothing_else() {
        let check = |imports: &[&str], expected: Option<&str>| {
            let imports: Vec<String> = imports.iter().map(ToString::to_string).collect();
            assert_eq!(asked(&imports).as_deref(), expected, "{imports:?}");
        };
        check(&[], None);
        check(&["wasi:io/streams@0.2.0", "wasi:cli/exit@0.2.0", "wasi:cli/stdin@0.2.0"], None);
        check(&["wasi:sockets/tcp@0.2.0", "whodunit:plugin/clock@0.1.0"], None);
        check(&["wasi:random/insecure-seed@0.2.6"], Some("{ random = true }"));
        check(
            &["wasi:cli/stderr@0.2.0", "wasi:clocks/wall-clock@0.2.0", "wasi:cli/stdout@0.2.0"],
            Some("{ clocks = true, output = true }"),
        );
        check(
            &["wasi:filesystem/preopens@0.2.0", "wasi:cli/environment@0.2.0"],
            Some("{ environment = [], folders = {} }"),
        );
    }

    #[test]
    fn what_is_printed_for_an_import_can_be_read_as_grants() {
        let all: Vec<&str> = Capability::ALL.map(Capability::least).to_vec();
        let read = crate::config::read_grants(&format!("{{ {} }}", all.join(", "))).unwrap();
        let expected = Grants { clocks: true, random: true, output: true, ..Grants::default() };
        assert_eq!(read, expected);
    }

    #[test]
    fn a_folder_that_is_none_cannot_be_granted() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        let check = |path: PathBuf, expected: Option<Errno>| {
            let folders = [(String::from("/rules"), path)].into();
            let system = System::of(&Grants { folders, ..Grants::default() });
            assert_eq!(system.err().map(|error| error.cause), expected);
        };
        check(folder.path().to_owned(), None);
        check(folder.path().join("missing"), Some(Errno::NOENT));
        check(file, Some(Errno::NOTDIR));
    }
}
