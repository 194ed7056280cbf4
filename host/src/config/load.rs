//! From flags, environment and file to one checked configuration.
//!
//! Takes the sources in their precedence: flags, environment, file, defaults. Owns the checks that
//! need them all together. Reads the file and nothing else.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::diagnostic::{Invalid, Problem};
use super::overrides::{Changes, Origin, Override, OverrideError};
use super::read::{Draft, Places, read};
use super::{Config, Output, Plugin, Scope};
use crate::death::history;
use crate::exit::{Exit, Exits};
use crate::lock;

/// The file that is read where no other is named. It need not exist.
pub const STANDARD_FILE: &str = "/etc/whodunit/whodunit.toml";

/// A configuration file may be this large, in bytes: beyond it something else was named by mistake.
pub const MAX_FILE_BYTES: u64 = 1 << 20;

/// The plugin and its output that `--report` is for.
const REPORT: &str = "report";

/// Where a configuration comes from.
#[derive(Clone, Copy, Debug)]
pub struct Sources<'a> {
    /// The file that was named. It has to exist.
    pub file: Option<&'a Path>,
    /// The file that is read otherwise, if it exists.
    pub standard_file: &'a Path,
    /// What flags and environment say.
    pub overrides: &'a [Override],
}

/// Where a configuration came from, kept to read it again.
#[derive(Clone, Debug)]
pub struct Reread {
    /// See [`Sources::file`].
    pub named: Option<PathBuf>,
    /// See [`Sources::standard_file`].
    pub standard_file: PathBuf,
    /// See [`Sources::overrides`].
    pub overrides: Vec<Override>,
}

impl Reread {
    /// Reads, joins and checks all sources, as they are now.
    ///
    /// # Errors
    ///
    /// As [`load`].
    pub fn load(&self) -> Result<Loaded, LoadError> {
        load(Sources {
            file: self.named.as_deref(),
            standard_file: &self.standard_file,
            overrides: &self.overrides,
        })
    }

    /// The absolute path of the file that is read, whether it exists or not.
    pub fn file(&self) -> Option<PathBuf> {
        std::path::absolute(self.named.as_deref().unwrap_or(&self.standard_file)).ok()
    }
}

/// A configuration, and what it was made of.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// The file that was read.
    pub file: Option<PathBuf>,
    /// The flags and variables that changed it.
    pub origins: Vec<Origin>,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The named file does not exist.
    #[error(
        "the configuration file {} does not exist: create it, or name another with --config",
        .path.display()
    )]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The named file is none.
    #[error(
        "{} is a folder and not a configuration file: name the TOML file inside",
        .path.display()
    )]
    Folder {
        /// The folder.
        path: PathBuf,
    },
    /// The file cannot be read.
    #[error(
        "cannot read the configuration file {}: {source}: make it readable for this user, \
         or name another with --config",
        .path.display()
    )]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is larger than any configuration.
    #[error(
        "{} is larger than {MAX_FILE_BYTES} bytes and cannot be a configuration file: \
         name the TOML file with --config",
        .path.display()
    )]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// The file says something that cannot be.
    #[error(transparent)]
    Invalid(Invalid),
    /// A flag or an environment variable says something that cannot be.
    #[error(transparent)]
    Override(#[from] OverrideError),
}

/// Reads, joins and checks all sources.
pub fn load(sources: Sources<'_>) -> Result<Loaded, LoadError> {
    let changes = Changes::read(sources.overrides)?;
    let origins = sources.overrides.iter().map(|given| given.origin).collect();
    let file = match sources.file {
        Some(path) => Some(read_file(path)?),
        None => match read_file(sources.standard_file) {
            Err(LoadError::Missing { .. }) => None,
            read => Some(read?),
        },
    };
    let Some(SourceFile { path, folder, text }) = file else {
        let (draft, _) = read("", Path::new("/"));
        let (config, problems) = join(draft, &changes)?;
        assert!(problems.is_empty(), "the defaults contradict each other: {problems:?}");
        return Ok(Loaded { config, file: None, origins });
    };
    let (draft, mut problems) = read(&text, &folder);
    // What contradicts what can be told only once every value is right.
    if problems.is_empty() {
        let (config, contradictions) = join(draft, &changes)?;
        if contradictions.is_empty() {
            return Ok(Loaded { config, file: Some(path), origins });
        }
        problems = contradictions;
    }
    Err(LoadError::Invalid(Invalid::new(&path, &text, problems)))
}

struct SourceFile {
    path: PathBuf,
    /// Absolute.
    folder: PathBuf,
    text: String,
}

fn read_file(path: &Path) -> Result<SourceFile, LoadError> {
    let unreadable = |source| LoadError::Unreadable { path: path.to_owned(), source };
    let file = File::open(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => LoadError::Missing { path: path.to_owned() },
        _ => unreadable(error),
    })?;
    if file.metadata().map_err(unreadable)?.is_dir() {
        return Err(LoadError::Folder { path: path.to_owned() });
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(LoadError::TooLarge { path: path.to_owned() });
    }
    let text = String::from_utf8(bytes).map_err(|error| not_utf8(path, error.as_bytes()))?;
    let absolute = std::path::absolute(path).map_err(unreadable)?;
    let folder = absolute.parent().unwrap_or(Path::new("/")).to_owned();
    Ok(SourceFile { path: path.to_owned(), folder, text })
}

fn not_utf8(path: &Path, bytes: &[u8]) -> LoadError {
    // The replacement character keeps the line and column of what comes before it.
    let text = String::from_utf8_lossy(bytes).into_owned();
    let valid = bytes.utf8_chunks().next().map_or(0, |chunk| chunk.valid().len());
    let problem = Problem {
        span: valid..valid + char::REPLACEMENT_CHARACTER.len_utf8(),
        wrong: String::from("this is not UTF-8"),
        expected: None,
        advice: Some(String::from("save the file as UTF-8")),
    };
    LoadError::Invalid(Invalid::new(path, &text, vec![problem]))
}

/// Joins a file's draft with flags and environment, and checks what contradicts what.
fn join(draft: Draft, changes: &Changes) -> Result<(Config, Vec<Problem>), OverrideError> {
    let Draft { mut config, plugins, places } = draft;
    let mut problems = Vec::new();
    changes.apply(&mut config);
    problems.extend(scope_and_subtrees(&mut config, changes, &places)?);
    let standard = || Plugin::standard(&config.daemon.state_dir);
    config.plugins = plugins.unwrap_or_else(standard);
    redirect_report(&mut config.plugins, changes)?;
    problems.extend(same_file(&config, changes, &places)?);
    Ok((config, problems))
}

/// The list of subtrees goes with the scope `cgroups`, and only with it. A flag that names another
/// scope puts the list aside.
fn scope_and_subtrees(
    config: &mut Config,
    changes: &Changes,
    places: &Places,
) -> Result<Option<Problem>, OverrideError> {
    let discovery = &mut config.discovery;
    let origin = changes.scope.map(|(_, origin)| origin);
    match (discovery.scope, discovery.cgroups.is_empty(), origin) {
        (Scope::Cgroups, true, Some(origin)) => Err(OverrideError::NoCgroups { origin }),
        (Scope::Cgroups, true, None) => Ok(Some(Problem {
            span: places.cgroups.clone().or(places.scope.clone()).unwrap_or(0..0),
            wrong: String::from("`discovery.scope` is \"cgroups\" and no cgroup is listed"),
            expected: Some(String::from("`cgroups` with at least one, such as \"user.slice\"")),
            advice: None,
        })),
        (Scope::Cgroups, false, _) => Ok(None),
        (Scope::Auto | Scope::Pod | Scope::Node, _, Some(_)) => {
            discovery.cgroups.clear();
            Ok(None)
        }
        (Scope::Auto | Scope::Pod | Scope::Node, _, None) => {
            Ok(places.cgroups.clone().map(|span| Problem {
                span,
                wrong: format!(
                    "`discovery.cgroups` is given and `discovery.scope` is \"{}\"",
                    discovery.scope.name()
                ),
                expected: None,
                advice: Some(String::from("write `scope = \"cgroups\"`, or remove the list")),
            }))
        }
    }
}

fn redirect_report(plugins: &mut [Plugin], changes: &Changes) -> Result<(), OverrideError> {
    let Some((output, origin)) = &changes.report else {
        return Ok(());
    };
    let names: Vec<String> = plugins.iter().map(|plugin| format!("`{}`", plugin.name)).collect();
    let Some(plugin) = plugins.iter_mut().find(|plugin| plugin.name == REPORT) else {
        return Err(OverrideError::NoReport { origin: *origin, plugins: names.join(", ") });
    };
    plugin.outputs.insert(REPORT.to_owned(), output.clone());
    Ok(())
}

/// Two writers of one file would replace each other's documents for ever.
fn same_file(
    config: &Config,
    changes: &Changes,
    places: &Places,
) -> Result<Vec<Problem>, OverrideError> {
    let lock = config.daemon.state_dir.join(lock::FILE_NAME);
    let history = config.daemon.state_dir.join(history::FILE);
    let mut writers = BTreeMap::from([
        (lock.as_path(), String::from("the daemon's lock")),
        (history.as_path(), String::from("the history of deaths")),
    ]);
    let mut problems = Vec::new();
    if let Some(file) = &config.deaths.file
        && let Some(other) = writers.insert(file, String::from("the file of deaths"))
    {
        problems.push(Problem {
            span: places.deaths.clone().unwrap_or(0..0),
            wrong: format!("{} is also {other}", file.display()),
            expected: Some(String::from("a file of its own for deaths")),
            advice: None,
        });
    }
    let redirected = |plugin: &Plugin, name: &str| {
        let origin = changes.report.as_ref().map(|(_, origin)| *origin);
        origin.filter(|_| plugin.name == REPORT && name == REPORT)
    };
    // What a flag redirects comes last, so that the flag is named where it is the one at fault.
    let outputs = config.plugins.iter().enumerate().flat_map(|(index, plugin)| {
        plugin.outputs.iter().map(move |(name, output)| (index, plugin, name, output))
    });
    let (by_flag, by_file): (Vec<_>, Vec<_>) =
        outputs.partition(|(_, plugin, name, _)| redirected(plugin, name).is_some());
    for (index, plugin, name, output) in by_file.into_iter().chain(by_flag) {
        // Servers and standard output may get documents of several outputs.
        let (Output::File(path) | Output::Lines(path)) = output else { continue };
        let Some(other) = writers.get(path.as_path()) else {
            let writer = format!("the output `{name}` of the plugin `{}`", plugin.name);
            writers.insert(path, writer);
            continue;
        };
        if let Some(origin) = redirected(plugin, name) {
            let path = path.clone();
            return Err(OverrideError::Collision { origin, path, other: other.clone() });
        }
        problems.push(Problem {
            span: places.outputs.get(&(index, name.clone())).cloned().unwrap_or(0..0),
            wrong: format!("{} is also {other}", path.display()),
            expected: Some(String::from("a file of its own for each output")),
            advice: None,
        });
    }
    Ok(problems)
}

impl Exits for LoadError {
    /// What a flag says wrongly is a fault of usage; all else is one of configuration.
    fn exit(&self) -> Exit {
        match self {
            LoadError::Override(error) => match error.origin() {
                Origin::Flag(_) => Exit::Usage,
                Origin::Variable(_) => Exit::Configuration,
            },
            LoadError::Missing { .. }
            | LoadError::Folder { .. }
            | LoadError::Unreadable { .. }
            | LoadError::TooLarge { .. }
            | LoadError::Invalid(_) => Exit::Configuration,
        }
    }
}
