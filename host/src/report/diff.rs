//! What is in one report and not in another, container by container.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::document::{Container, Report};
use super::table::printable;

/// Gives one list of a container.
type ListOf = fn(&Container) -> BTreeSet<String>;

/// The lists that are compared, by their names.
const LISTS: [(&str, ListOf); 5] = [
    ("files", |container| container.files.iter().cloned().collect()),
    ("links", |container| {
        container.links.iter().map(|link| format!("{} -> {}", link.path, link.target)).collect()
    }),
    ("executed", |container| container.executed.iter().cloned().collect()),
    ("missing", |container| container.missing.iter().cloned().collect()),
    ("refused", |container| container.refused.iter().map(|refusal| refusal.path.clone()).collect()),
];

/// What differs between two reports.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Containers of both that differ.
    pub containers: Vec<ContainerDifference>,
    /// Names of the containers that only the first one has.
    pub only_in_first: Vec<String>,
    /// Names of the containers that only the second one has.
    pub only_in_second: Vec<String>,
}

/// What differs in a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ContainerDifference {
    /// Its name.
    pub name: String,
    /// In the second one only, by list.
    pub added: BTreeMap<&'static str, Vec<String>>,
    /// In the first one only, by list.
    pub removed: BTreeMap<&'static str, Vec<String>>,
}

impl Difference {
    /// Compares two reports. Containers are the same if their names are; several of one name in one report
    /// count as one.
    pub fn between(first: &Report, second: &Report) -> Difference {
        let (first, second) = (by_name(first), by_name(second));
        let mut difference = Difference::default();
        for (name, before) in &first {
            let Some(after) = second.get(name) else {
                difference.only_in_first.push((*name).to_owned());
                continue;
            };
            let (mut added, mut removed) = (BTreeMap::new(), BTreeMap::new());
            for (list, of) in LISTS {
                let (before, after) = (all(before, of), all(after, of));
                let news: Vec<String> = after.difference(&before).cloned().collect();
                let gone: Vec<String> = before.difference(&after).cloned().collect();
                if !news.is_empty() {
                    added.insert(list, news);
                }
                if !gone.is_empty() {
                    removed.insert(list, gone);
                }
            }
            if !added.is_empty() || !removed.is_empty() {
                let name = (*name).to_owned();
                difference.containers.push(ContainerDifference { name, added, removed });
            }
        }
        let only_in_second = second.keys().filter(|name| !first.contains_key(*name));
        difference.only_in_second = only_in_second.map(|name| (*name).to_owned()).collect();
        difference
    }

    /// Whether both reports say the same.
    pub fn is_none(&self) -> bool {
        *self == Difference::default()
    }

    /// The difference for people.
    pub fn text(&self) -> String {
        if self.is_none() {
            return "no difference\n".to_owned();
        }
        let mut text = String::new();
        for name in &self.only_in_first {
            text += &format!("- container {}\n", printable(name));
        }
        for name in &self.only_in_second {
            text += &format!("+ container {}\n", printable(name));
        }
        for container in &self.containers {
            text += &format!("{}\n", printable(&container.name));
            for (list, _) in LISTS {
                let lines = |side: &BTreeMap<&str, Vec<String>>, sign: char| -> String {
                    let entries = side.get(list).into_iter().flatten();
                    entries.map(|entry| format!("    {sign} {}\n", printable(entry))).collect()
                };
                let lines = lines(&container.removed, '-') + &lines(&container.added, '+');
                if !lines.is_empty() {
                    text += &format!("  {list}\n{lines}");
                }
            }
        }
        text
    }
}

fn by_name(report: &Report) -> BTreeMap<&str, Vec<&Container>> {
    let mut names: BTreeMap<&str, Vec<&Container>> = BTreeMap::new();
    for container in report.every_container() {
        names.entry(&container.name).or_default().push(container);
    }
    names
}

fn all(containers: &[&Container], of: ListOf) -> BTreeSet<String> {
    containers.iter().flat_map(|container| of(container)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(name: &str, files: &[&str]) -> Container {
        let files = files.iter().map(|file| (*file).to_owned()).collect();
        Container { name: name.to_owned(), files, ..Container::default() }
    }

    fn report(containers: Vec<Container>) -> Report {
        Report { containers, ended_containers: Vec::new() }
    }

    #[test]
    fn files_and_containers_that_only_one_report_has_are_told() {
        let first = report(vec![container("web", &["/a", "/b"]), container("old", &[])]);
        let mut second = report(vec![container("web", &["/b"]), container("new", &[])]);
        second.ended_containers = vec![container("web", &["/c"])];
        second.containers[0].missing = vec!["/m".to_owned()];
        let difference = Difference::between(&first, &second);
        assert_eq!(
            difference.text(),
            "- container old\n+ container new\nweb\n  files\n    - /a\n    + /c\n  missing\n    + /m\n"
        );
        let json = serde_json::to_value(&difference).unwrap();
        assert_eq!(json["containers"][0]["added"]["files"], serde_json::json!(["/c"]));
        assert_eq!(json["containers"][0]["removed"]["files"], serde_json::json!(["/a"]));
    }

    #[test]
    fn a_report_does_not_differ_from_itself() {
        let report = report(vec![container("web", &["/a"])]);
        let difference = Difference::between(&report, &report);
        assert!(difference.is_none());
        assert_eq!(difference.text(), "no difference\n");
    }
}
