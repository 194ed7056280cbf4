//! How many files of which folder and of which mount.

use std::collections::BTreeMap;

use serde::Serialize;

use super::document::{Container, Report};
use super::table::{Table, printable};

/// The counts of a report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// By container.
    pub containers: Vec<ContainerSummary>,
}

/// The counts of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ContainerSummary {
    /// Its name.
    pub name: String,
    /// How many files it used.
    pub files: usize,
    /// How many of them below each folder of the root.
    pub by_top_folder: BTreeMap<String, usize>,
    /// How many of them on each mount.
    pub by_mount: Vec<MountSummary>,
    /// How many of them have no mount that is known.
    pub of_unknown_mount: usize,
}

/// The count of a mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MountSummary {
    /// Where it is mounted.
    pub point: String,
    /// Type of its file system.
    pub file_system: String,
    /// What its files belong to.
    pub place: String,
    /// How many files of it were used.
    pub files: usize,
}

impl Summary {
    /// Counts the files of a report.
    pub fn of(report: &Report) -> Summary {
        Summary { containers: report.every_container().map(ContainerSummary::of).collect() }
    }

    /// The counts for people.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for container in &self.containers {
            if !text.is_empty() {
                text.push('\n');
            }
            text += &format!("{}: {} files\n", printable(&container.name), container.files);
            if container.files == 0 {
                continue;
            }
            let mut folders = Table::new(&["  FOLDER", "FILES"]);
            for (folder, files) in &container.by_top_folder {
                folders.row(vec![format!("  {folder}"), files.to_string()]);
            }
            text += &folders.text();
            let mut mounts = Table::new(&["  MOUNT", "FILES", "PLACE", "TYPE"]);
            for mount in &container.by_mount {
                mounts.row(vec![
                    format!("  {}", mount.point),
                    mount.files.to_string(),
                    mount.place.clone(),
                    mount.file_system.clone(),
                ]);
            }
            if container.of_unknown_mount > 0 {
                mounts
                    .row(vec!["  (not known)".to_owned(), container.of_unknown_mount.to_string()]);
            }
            text += &mounts.text();
        }
        text
    }
}

impl ContainerSummary {
    fn of(container: &Container) -> ContainerSummary {
        let mut by_top_folder: BTreeMap<String, usize> = BTreeMap::new();
        for path in &container.files {
            *by_top_folder.entry(top_folder(path)).or_default() += 1;
        }
        let mut by_id: BTreeMap<u32, usize> = BTreeMap::new();
        for mount in container.details.iter().filter_map(|detail| detail.mount) {
            *by_id.entry(mount).or_default() += 1;
        }
        // A mount of another mount namespace is the same to a reader, and has another id.
        let mut by_mount: Vec<MountSummary> = Vec::new();
        let mut known = 0;
        for mount in &container.mounts {
            let files = by_id.get(&mount.id).copied().unwrap_or_default();
            known += files;
            let same = by_mount
                .iter_mut()
                .find(|it| it.point == mount.point && it.file_system == mount.file_system);
            match same {
                Some(same) => same.files += files,
                None => by_mount.push(MountSummary {
                    point: mount.point.clone(),
                    file_system: mount.file_system.clone(),
                    place: mount.place.clone(),
                    files,
                }),
            }
        }
        by_mount.retain(|mount| mount.files > 0);
        ContainerSummary {
            name: container.name.clone(),
            files: container.files.len(),
            by_top_folder,
            by_mount,
            of_unknown_mount: container.files.len().saturating_sub(known),
        }
    }
}

/// `/usr` of `/usr/lib/x`, and `/` of what stands in the root itself.
fn top_folder(path: &str) -> String {
    match path.strip_prefix('/').and_then(|rest| rest.split_once('/')) {
        Some((folder, _)) => format!("/{folder}"),
        None => "/".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::document::{Detail, Mount};

    #[test]
    fn files_are_counted_by_top_folder_and_by_mount() {
        let mount = |id, point: &str, place: &str| Mount {
            id,
            point: point.to_owned(),
            file_system: "ext4".to_owned(),
            place: place.to_owned(),
            ..Mount::default()
        };
        let detail =
            |path: &str, mount| Detail { path: path.to_owned(), mount, ..Detail::default() };
        let files = ["/data/a", "/etc", "/usr/b", "/usr/lib/c"];
        let container = Container {
            name: "web".to_owned(),
            files: files.map(str::to_owned).to_vec(),
            mounts: vec![
                mount(1, "/", "image"),
                mount(2, "/data", "volume"),
                mount(9, "/", "image"),
            ],
            details: vec![
                detail("/data/a", Some(2)),
                detail("/etc", Some(1)),
                detail("/usr/b", Some(9)),
                detail("/usr/lib/c", None),
            ],
            ..Container::default()
        };
        let report = Report { containers: vec![container], ended_containers: Vec::new() };
        let text = Summary::of(&report).text();
        assert_eq!(
            text,
            "web: 4 files\n  FOLDER  FILES\n  /       1\n  /data   1\n  /usr    2\n\
             \u{20} MOUNT        FILES  PLACE   TYPE\n  /            2      image   ext4\n\
             \u{20} /data        1      volume  ext4\n  (not known)  1\n"
        );
    }
}
