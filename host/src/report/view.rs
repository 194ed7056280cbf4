//! A report, and one of its containers, for people.

use super::document::{Container, Detail, Report};
use super::table::{Table, printable};

/// Every container with its numbers.
pub fn overview_table(report: &Report) -> String {
    let mut table = Table::new(&[
        "CONTAINER",
        "FILES",
        "LINKS",
        "MISSING",
        "REFUSED",
        "UNRESOLVED",
        "EVENTS",
        "LOST",
        "COMPLETE",
        "STATE",
    ]);
    for container in report.every_container() {
        table.row(vec![
            container.name.clone(),
            container.files.len().to_string(),
            container.links.len().to_string(),
            container.missing.len().to_string(),
            container.refused.len().to_string(),
            container.unresolved.len().to_string(),
            container.total_events.to_string(),
            container.lost_total.to_string(),
            if container.complete { "yes" } else { "no" }.to_owned(),
            state(container),
        ]);
    }
    table.text()
}

/// What is known of one container.
pub fn container_table(container: &Container) -> String {
    let mut text = format!("{} ({})\n", printable(&container.name), state(container));
    for reason in &container.incomplete_reasons {
        text += &format!("  incomplete: {}\n", printable(reason));
    }
    let mut table = Table::new(&["PATH", "USED BY", "PLACE", "ASKED FOR AS"]);
    let mut details = container.details.iter().peekable();
    for path in &container.files {
        // Both are sorted alike.
        while details.next_if(|detail| detail.path < *path).is_some() {}
        let detail = details.next_if(|detail| detail.path == *path);
        let of = |field: fn(&Detail) -> String| detail.map(field).unwrap_or_default();
        table.row(vec![
            path.clone(),
            of(|detail| detail.operations.join(",")),
            of(|detail| detail.place.clone()),
            of(|detail| detail.requested.join(" ")),
        ]);
    }
    text += "\n";
    text += &table.text();
    section(&mut text, "symbolic links crossed", &container.links, |link| {
        format!("{} -> {}", link.path, link.target)
    });
    section(&mut text, "changed", &container.changed, |change| {
        format!("{} ({})", change.path, change.operations.join(", "))
    });
    section(&mut text, "looked for and not there", &container.missing, String::clone);
    section(&mut text, "refused", &container.refused, |refusal| {
        let why = std::io::Error::from_raw_os_error(i32::from(refusal.errno));
        format!("{} ({why})", refusal.path)
    });
    section(
        &mut text,
        "used by a path that could not be resolved",
        &container.unresolved,
        |path| path.clone(),
    );
    text
}

fn section<T>(text: &mut String, title: &str, entries: &[T], line: impl Fn(&T) -> String) {
    if entries.is_empty() {
        return;
    }
    *text += &format!("\n{title} ({}):\n", entries.len());
    for entry in entries {
        *text += &format!("  {}\n", printable(&line(entry)));
    }
}

fn state(container: &Container) -> String {
    match &container.ended_at {
        Some(time) => format!("ended {time}"),
        None => "running".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::document::{Change, Link, Refusal};

    fn web() -> Container {
        Container {
            name: "web".to_owned(),
            files: vec!["/a".to_owned(), "/b\n".to_owned(), "/c".to_owned()],
            details: vec![Detail {
                path: "/c".to_owned(),
                operations: vec!["open".to_owned(), "stat".to_owned()],
                requested: vec!["../c".to_owned()],
                place: "image".to_owned(),
                ..Detail::default()
            }],
            links: vec![Link { path: "/lib".to_owned(), target: "usr/lib".to_owned() }],
            changed: vec![Change { path: "/t".to_owned(), operations: vec!["make".to_owned()] }],
            missing: vec!["/no".to_owned()],
            refused: vec![Refusal { path: "/secret".to_owned(), errno: 13 }],
            incomplete_reasons: vec!["a gap".to_owned()],
            total_events: 9,
            ..Container::default()
        }
    }

    #[test]
    fn a_container_is_shown_with_all_that_is_known_of_it() {
        let expected = "web (running)\n  incomplete: a gap\n\n\
            PATH  USED BY    PLACE  ASKED FOR AS\n/a\n/b\\n\n/c    open,stat  image  ../c\n\n\
            symbolic links crossed (1):\n  /lib -> usr/lib\n\nchanged (1):\n  /t (make)\n\n\
            looked for and not there (1):\n  /no\n\n\
            refused (1):\n  /secret (Permission denied (os error 13))\n";
        assert_eq!(container_table(&web()), expected);
    }

    #[test]
    fn the_overview_has_a_line_a_container() {
        let ended = Container {
            name: "job".to_owned(),
            complete: true,
            ended_at: Some("2026-01-15T10:00:00Z".to_owned()),
            ..Container::default()
        };
        let report = Report { containers: vec![web()], ended_containers: vec![ended] };
        let table = overview_table(&report);
        let lines: Vec<Vec<&str>> =
            table.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[1], ["web", "3", "1", "1", "1", "0", "9", "0", "no", "running"]);
        assert_eq!(lines[2][8..], ["yes", "ended", "2026-01-15T10:00:00Z"]);
    }
}
