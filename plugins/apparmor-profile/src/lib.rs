//! An AppArmor profile for each container, with a rule for each file that it used.
//!
//! Takes file events; gives one document, `profiles`, at every tick, for `apparmor_parser`. A profile says
//! in its first lines what it rests on and what may be missing: only what was seen is allowed, so a
//! profile of a container that was not watched from its birth, or of which events were lost, is said to be
//! incomplete. Network, capabilities and mounts are not seen and are allowed.

mod rule;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Deserialize;
use whodunit_sdk::{Batch, Context, Flags, Outcome, Reporter, Tick, directory, documents};

use rule::{Access, pattern};

/// The output that the profiles go to.
const OUTPUT: &str = "profiles";

/// The plugin's own table of the TOML.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Names of profiles begin with this.
    pub prefix: String,
    /// Paths that are kept for each container; what is beyond is counted and makes it incomplete.
    pub max_paths: usize,
}

impl Default for Config {
    fn default() -> Config {
        Config { prefix: "whodunit-".to_owned(), max_paths: 100_000 }
    }
}

/// The reporter.
pub struct Profiles {
    config: Config,
    containers: BTreeMap<u32, Profile>,
    /// Events of any container that did not come here.
    dropped: u64,
}

/// What is known of one container.
#[derive(Default)]
struct Profile {
    paths: BTreeMap<Vec<u8>, Access>,
    /// Paths beyond the limit.
    left_out: u64,
    /// Uses of files whose path is not what the kernel resolved, or was cut.
    unsure: u64,
    from_birth: bool,
    lost: u64,
}

impl Reporter for Profiles {
    type Config = Config;

    fn start(_: &Context, config: Config) -> Result<Profiles, String> {
        let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if !config.prefix.chars().all(fits) {
            return Err(
                "its `config` table is not right: `prefix` may hold letters, digits, `-`, `_` \
                        and `.`"
                    .to_owned(),
            );
        }
        Ok(Profiles { config, containers: BTreeMap::new(), dropped: 0 })
    }

    fn on_batch(&mut self, batch: &Batch) {
        self.dropped += batch.dropped();
        for event in batch.events() {
            let flags = event.flags();
            // What the runtime did before the container's program ran is not the program's need; what
            // failed was not used; a pipe has no path that a rule could name.
            if flags.intersects(Flags::SETUP.with(Flags::DETACHED))
                || event.outcome() != Outcome::Used
            {
                continue;
            }
            let Some(access) = Access::of(&event) else {
                continue;
            };
            let profile = self.containers.entry(event.container()).or_default();
            if flags.intersects(Flags::UNRESOLVED.with(Flags::TRUNCATED)) {
                profile.unsure += 1;
                continue;
            }
            profile.add(event.path(), access, self.config.max_paths);
        }
    }

    fn on_tick(&mut self, tick: &Tick) -> Result<(), String> {
        for totals in tick.containers() {
            let profile = self.containers.entry(totals.container()).or_default();
            profile.from_birth = totals.from_birth() && totals.first_exec_seen();
            let lost = totals.counters().filter(|(name, _)| name.starts_with("lost."));
            profile.lost = lost.map(|(_, value)| value).sum();
        }
        self.containers.retain(|number, _| {
            directory::container(*number).is_none_or(|known| directory::left_out(&known).is_none())
        });
        let mut text = String::new();
        for (number, profile) in &self.containers {
            profile.write(&mut text, &self.config.prefix, &name_of(*number), self.dropped);
        }
        Ok(documents::emit(OUTPUT, text.as_bytes())?)
    }
}

impl Profile {
    fn add(&mut self, path: &[u8], access: Access, max_paths: usize) {
        if let Some(known) = self.paths.get_mut(path) {
            *known = known.with(access);
        } else if self.paths.len() < max_paths {
            self.paths.insert(path.to_vec(), access);
        } else {
            self.left_out += 1;
        }
    }

    fn write(&self, text: &mut String, prefix: &str, name: &str, dropped: u64) {
        let mut line = |line: &str| writeln!(text, "{line}").expect("a string takes any text");
        line(&format!("# The files that container {name} used, as whodunit saw it."));
        for reason in self.doubts(dropped) {
            line(&format!("# INCOMPLETE: {reason}."));
        }
        line(&format!(
            "profile {prefix}{} flags=(attach_disconnected,mediate_deleted) {{",
            plain(name)
        ));
        line("  # Not seen, so not restricted.");
        for rule in ["capability", "network", "mount", "umount", "pivot_root", "signal", "ptrace"] {
            line(&format!("  {rule},"));
        }
        line("");
        for (path, access) in &self.paths {
            line(&format!("  {} {},", pattern(path, *access), access.letters()));
        }
        line("}\n");
    }

    fn doubts(&self, dropped: u64) -> Vec<String> {
        let counted = [
            (self.lost, "events of it were lost"),
            (dropped, "events of any container did not reach this plugin"),
            (self.unsure, "files have a path that the kernel did not resolve"),
            (self.left_out, "paths are beyond `max_paths`"),
        ];
        let mut doubts: Vec<String> = counted
            .into_iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| format!("{count} {what}"))
            .collect();
        if !self.from_birth {
            doubts.push("it was not watched from its first program on".to_owned());
        }
        doubts
    }
}

fn name_of(number: u32) -> String {
    directory::container(number).map_or_else(|| number.to_string(), |known| known.name)
}

/// A name with what the name of a profile cannot have replaced.
fn plain(name: &str) -> String {
    let allowed = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' };
    name.chars().map(allowed).collect()
}

whodunit_sdk::export_reporter!(Profiles);
