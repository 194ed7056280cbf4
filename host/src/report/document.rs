//! The parts of a report that commands look at. Fields that they do not need are not read.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A report.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Report {
    /// Those that run.
    pub containers: Vec<Container>,
    /// Those that ended, oldest first.
    pub ended_containers: Vec<Container>,
}

impl Report {
    /// The running ones, and then those that ended.
    pub fn every_container(&self) -> impl Iterator<Item = &Container> {
        self.containers.iter().chain(&self.ended_containers)
    }
}

/// One container of a report. Paths are texts, escaped as the report has them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Container {
    /// The name that people use.
    pub name: String,
    /// The runtime's id of it.
    pub id: String,
    /// The runtime.
    pub runtime: String,
    /// What else is known of it, such as `image`.
    pub attributes: BTreeMap<String, String>,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<String>,
    /// File events, repeats included.
    pub total_events: u64,
    /// Events that were lost.
    pub lost_total: u64,
    /// Accesses of files that are in no list.
    pub truncated: u64,
    /// Whether everything that it used is known to be listed.
    pub complete: bool,
    /// Why not.
    pub incomplete_reasons: Vec<String>,
    /// What it used.
    pub files: Vec<String>,
    /// Of these, the programs.
    pub executed: Vec<String>,
    /// Of these, what the kernel loaded for programs.
    pub interpreters: Vec<String>,
    /// Of these, the folders that were listed.
    pub listed: Vec<String>,
    /// What was looked for in vain.
    pub missing: Vec<String>,
    /// What was used by an unsure path.
    pub unresolved: Vec<String>,
    /// What was refused.
    pub refused: Vec<Refusal>,
    /// The symbolic links that were crossed.
    pub links: Vec<Link>,
    /// What was changed by its path.
    pub changed: Vec<Change>,
    /// The mounts.
    pub mounts: Vec<Mount>,
    /// What is known of each file.
    pub details: Vec<Detail>,
}

/// Something that was refused.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Refusal {
    /// The path.
    pub path: String,
    /// Why, as errno(3) numbers it.
    pub errno: u16,
}

/// A symbolic link.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Link {
    /// The path.
    pub path: String,
    /// What it says.
    pub target: String,
}

/// A change.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Change {
    /// The path.
    pub path: String,
    /// What was done.
    pub operations: Vec<String>,
}

/// A mount.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// The kernel's id of it.
    pub id: u32,
    /// Where it is mounted.
    pub point: String,
    /// Type of its file system.
    pub file_system: String,
    /// What is mounted.
    pub source: String,
    /// Its device, as `major:minor`.
    pub device: String,
    /// What its files belong to.
    pub place: String,
}

/// What is known of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Detail {
    /// The path.
    pub path: String,
    /// What was done.
    pub operations: Vec<String>,
    /// Other forms in which it was asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub requested: Vec<String>,
    /// What it belongs to.
    pub place: String,
    /// Id of its mount.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mount: Option<u32>,
    /// Its device, as `major:minor`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Its inode number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inode: Option<u64>,
    /// Type of its file system.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_system: Option<String>,
}
