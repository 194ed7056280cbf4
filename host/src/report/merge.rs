//! Several reports as one: replicas of a container, of several pods or days, joined to what all of them
//! used together.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::document::{Container, Link, Report};
use super::table::Table;

/// Reports that were joined.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Merged {
    /// How many reports.
    pub reports: usize,
    /// Their containers: replicas are those with the same image, or, where no image is known, with the same
    /// name.
    pub containers: Vec<MergedContainer>,
}

/// Replicas of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MergedContainer {
    /// Their image, or their name where that is not known.
    pub name: String,
    /// How many there are.
    pub replicas: usize,
    /// Whether what each of them used is known to be listed.
    pub complete: bool,
    /// Why not.
    pub incomplete_reasons: BTreeSet<String>,
    /// File events of all of them.
    pub total_events: u64,
    /// Lost events of all of them.
    pub lost_total: u64,
    /// What any of them used.
    pub files: BTreeSet<String>,
    /// Those of `files` that not all of them used, and how many did.
    pub partly_used: BTreeMap<String, usize>,
    /// The programs that any of them executed.
    pub executed: BTreeSet<String>,
    /// What the kernel loaded for these.
    pub interpreters: BTreeSet<String>,
    /// The folders that any of them listed.
    pub listed: BTreeSet<String>,
    /// The symbolic links that any of them crossed.
    pub links: BTreeSet<Link>,
    /// What any of them looked for in vain.
    pub missing: BTreeSet<String>,
    /// What any of them used by an unsure path.
    pub unresolved: BTreeSet<String>,
}

impl Merged {
    /// Joins reports.
    pub fn of(reports: &[Report]) -> Merged {
        let mut replicas: BTreeMap<&str, Vec<&Container>> = BTreeMap::new();
        for container in reports.iter().flat_map(Report::every_container) {
            let image = container.attributes.get("image");
            let name = image.map_or(container.name.as_str(), String::as_str);
            replicas.entry(name).or_default().push(container);
        }
        let containers =
            replicas.into_iter().map(|(name, replicas)| MergedContainer::of(name, &replicas));
        Merged { reports: reports.len(), containers: containers.collect() }
    }

    /// The numbers for people; the lists are in the JSON.
    pub fn text(&self) -> String {
        let mut table = Table::new(&[
            "CONTAINER",
            "REPLICAS",
            "FILES",
            "USED BY ALL",
            "LINKS",
            "MISSING",
            "EVENTS",
            "LOST",
            "COMPLETE",
        ]);
        for container in &self.containers {
            table.row(vec![
                container.name.clone(),
                container.replicas.to_string(),
                container.files.len().to_string(),
                (container.files.len() - container.partly_used.len()).to_string(),
                container.links.len().to_string(),
                container.missing.len().to_string(),
                container.total_events.to_string(),
                container.lost_total.to_string(),
                if container.complete { "yes" } else { "no" }.to_owned(),
            ]);
        }
        table.text()
    }
}

impl MergedContainer {
    fn of(name: &str, replicas: &[&Container]) -> MergedContainer {
        let mut times: BTreeMap<String, usize> = BTreeMap::new();
        for file in replicas.iter().flat_map(|container| &container.files) {
            *times.entry(file.clone()).or_default() += 1;
        }
        let union = |list: fn(&Container) -> &Vec<String>| -> BTreeSet<String> {
            replicas.iter().flat_map(|container| list(container)).cloned().collect()
        };
        MergedContainer {
            name: name.to_owned(),
            replicas: replicas.len(),
            complete: replicas.iter().all(|container| container.complete),
            incomplete_reasons: union(|container| &container.incomplete_reasons),
            total_events: replicas.iter().map(|container| container.total_events).sum(),
            lost_total: replicas.iter().map(|container| container.lost_total).sum(),
            files: times.keys().cloned().collect(),
            executed: union(|container| &container.executed),
            interpreters: union(|container| &container.interpreters),
            listed: union(|container| &container.listed),
            links: replicas.iter().flat_map(|container| &container.links).cloned().collect(),
            missing: union(|container| &container.missing),
            unresolved: union(|container| &container.unresolved),
            partly_used: times.into_iter().filter(|(_, times)| *times < replicas.len()).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(name: &str, image: Option<&str>, complete: bool, files: &[&str]) -> Report {
        let files = files.iter().map(|file| (*file).to_owned()).collect();
        let attributes =
            image.map(|image| ("image".to_owned(), image.to_owned())).into_iter().collect();
        let container = Container {
            name: name.to_owned(),
            attributes,
            files,
            complete,
            total_events: 5,
            ..Container::default()
        };
        Report { containers: vec![container], ended_containers: Vec::new() }
    }

    #[test]
    fn replicas_are_joined_by_image_or_else_by_name() {
        let merged = Merged::of(&[
            report("web-1", Some("nginx:1"), true, &["/a", "/b"]),
            report("web-2", Some("nginx:1"), false, &["/b", "/c"]),
            report("db", None, true, &["/d"]),
            report("db", None, true, &["/d"]),
        ]);
        let names: Vec<_> =
            merged.containers.iter().map(|it| (it.name.as_str(), it.replicas)).collect();
        assert_eq!(names, [("db", 2), ("nginx:1", 2)]);
        let web = &merged.containers[1];
        assert_eq!(web.files.iter().collect::<Vec<_>>(), ["/a", "/b", "/c"]);
        let partly: Vec<_> = web.partly_used.iter().map(|(path, n)| (path.as_str(), *n)).collect();
        assert_eq!(partly, [("/a", 1), ("/c", 1)]);
        assert_eq!((web.complete, web.total_events), (false, 10));
        let line =
            merged.text().lines().last().unwrap().split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(line, "nginx:1 2 3 1 0 0 10 0 no");
    }
}
