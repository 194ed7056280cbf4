//! What this machine can do: the kernel, its BTF, its cgroups, our capabilities, the probes.
//!
//! Finds out by doing: a probe counts as live if its programs were loaded and attached just now. Leaves
//! nothing behind.

use std::io::Write;
use std::path::Path;

use serde::Serialize;

use crate::cli::FindingsFormat;
use crate::config::Config;
use crate::discovery::root::CgroupRoot;
use crate::exit::{Exit, Failure};
use crate::kernel::{Kernel, ProbeStatus, Tier};
use crate::names;
use crate::privilege;

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Findings {
    /// Whether the daemon can run here, with every probe of the base tier live.
    pub healthy: bool,
    /// Release of the kernel, as `uname -r` prints it.
    pub kernel: String,
    /// Everything that was looked at, in the order in which the daemon needs it.
    pub checks: Vec<Check>,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What.
    pub name: String,
    /// Whether it is as it should be.
    pub ok: bool,
    /// What was found, or what is missing and what to do, in one sentence.
    pub finding: String,
}

impl Check {
    fn new(name: impl Into<String>, outcome: Result<String, String>) -> Check {
        let ok = outcome.is_ok();
        let (Ok(finding) | Err(finding)) = outcome;
        Check { name: name.into(), ok, finding }
    }
}

/// Looks at everything.
pub fn examine(config: &Config) -> Findings {
    let mut checks = vec![btf(), cgroups(config), capabilities()];
    match Kernel::start(&config.capture) {
        Ok(kernel) => {
            let own = kernel.own_cgroup();
            checks.push(Check::new("bpf", Ok(format!("programs load; own cgroup is {own}"))));
            checks.extend(kernel.probes().iter().map(probe));
            checks.push(Check::new("tier", Ok(tier(kernel.probes()))));
            if config.capture.measure {
                let measured = kernel.measure().map_err(|error| error.to_string());
                let finding = |_| "the kernel measures how long the probes run".to_owned();
                checks.push(Check::new("measure", measured.map(finding)));
            }
        }
        Err(error) => {
            checks.push(Check::new("bpf", Err(Failure::from(error).sentence())));
        }
    }
    checks.extend(names(config));
    Findings {
        healthy: checks.iter().all(|check| check.ok),
        kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
        checks,
    }
}

/// A probe. One of the exact tier may be missing.
fn probe(probe: &ProbeStatus) -> Check {
    let outcome = match &probe.reason {
        None => Ok(format!("live: sees {}", probe.sees)),
        Some(reason) => {
            let finding = format!("not live, so nobody sees {}: {reason}", probe.sees);
            match probe.tier {
                Tier::Base => Err(finding),
                Tier::Exact => Ok(finding),
            }
        }
    };
    Check::new(format!("probe {}", probe.name), outcome)
}

/// How deep in the kernel files are captured.
fn tier(probes: &[ProbeStatus]) -> String {
    match Tier::of(probes) {
        Tier::Base => "base: files are captured at the system calls".to_owned(),
        Tier::Exact => "exact: files are captured at the system calls and beneath them".to_owned(),
    }
}

/// The command: examines, writes the findings, and ends with 1 where something is missing.
///
/// # Errors
///
/// If the findings cannot be written.
pub fn run(config: &Config, format: FindingsFormat, out: &mut dyn Write) -> Result<Exit, Failure> {
    let findings = examine(config);
    let text = match format {
        FindingsFormat::Table => table(&findings),
        FindingsFormat::Json => {
            serde_json::to_string_pretty(&findings).expect("findings are plain values") + "\n"
        }
    };
    out.write_all(text.as_bytes()).map_err(|error| {
        Failure::new(Exit::Failure, format!("cannot write the findings: {error}"))
    })?;
    Ok(if findings.healthy { Exit::Success } else { Exit::Failure })
}

fn table(findings: &Findings) -> String {
    let width = findings.checks.iter().map(|check| check.name.len()).max().unwrap_or(0);
    let mut text = format!("kernel {}\n", findings.kernel);
    for check in &findings.checks {
        let mark = if check.ok { "ok  " } else { "MISS" };
        text.push_str(&format!("{mark}  {:width$}  {}\n", check.name, check.finding));
    }
    text
}

/// Who is there to name containers, and who is there and does not do well. Nothing depends on them.
fn names(config: &Config) -> impl Iterator<Item = Check> {
    let greeted = names::greet(&config.discovery, &config.names);
    greeted.into_iter().map(|(source, said)| {
        let finding = said.unwrap_or_else(|why| format!("no names from there: {why}"));
        Check::new(format!("names from {source}"), Ok(finding))
    })
}

fn btf() -> Check {
    const PATH: &str = "/sys/kernel/btf/vmlinux";
    let outcome = match std::fs::metadata(PATH) {
        Ok(found) => Ok(format!("{PATH}, {} bytes", found.len())),
        Err(error) => Err(format!(
            "{PATH} cannot be read ({error}): whodunit needs a kernel built with \
             CONFIG_DEBUG_INFO_BTF=y"
        )),
    };
    Check::new("btf", outcome)
}

fn cgroups(config: &Config) -> Check {
    let outcome = match CgroupRoot::open(config.discovery.cgroup_root.as_deref()) {
        Ok(root) => Ok(format!("cgroup v2 at {}{}", root.path().display(), hybrid(root.path()))),
        Err(error) => Err(Failure::from(error).sentence()),
    };
    Check::new("cgroup", outcome)
}

/// Says where the controllers of v2 are not all there.
fn hybrid(root: &Path) -> String {
    let controllers = std::fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default();
    let missing: Vec<&str> = ["memory", "cpu", "pids"]
        .into_iter()
        .filter(|wanted| !controllers.split_whitespace().any(|found| found == *wanted))
        .collect();
    if missing.is_empty() {
        String::new()
    } else {
        format!(" (hybrid: {} stay with v1)", missing.join(", "))
    }
}

/// The capabilities that the daemon needs.
fn capabilities() -> Check {
    let missing = privilege::missing();
    let outcome = if missing.is_empty() {
        let names: Vec<String> =
            privilege::NEEDED.iter().map(|need| need.capability.to_string()).collect();
        Ok(format!("{}, or what includes them", names.join(", ")))
    } else {
        let missing: Vec<String> = missing
            .iter()
            .map(|need| {
                format!("{} ({}; without it {})", need.capability, need.purpose, need.without)
            })
            .collect();
        Err(format!("missing {}: run as root, or grant them", missing.join(", ")))
    };
    Check::new("capabilities", outcome)
}
