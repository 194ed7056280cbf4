//! What holds everywhere in the repository and that no compiler checks.
//!
//! Reads the files that git knows or would add. Never changes one.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

use crate::contract;
use crate::steps::Claim;

/// The folders at the top, each with its line in `ARCHITECTURE.md` or `DESIGN`: a new one is a decision.
const TOP_LEVEL: [&str; 10] =
    [".cargo", ".ci", "deploy", "docs", "host", "host-ebpf", "plugins", "tests", "wit", "xtask"];

/// Words that stand for work that is not done. Put together here, so that this file holds none.
const UNFINISHED: [&str; 3] = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("HA", "CK")];

/// A text file of the repository.
struct Source {
    /// Relative to the root.
    path: PathBuf,
    text: String,
}

/// Checks every claim.
pub(crate) fn claims(root: &Path) -> Vec<Claim> {
    let listed = list(root);
    let (paths, listing_problems) = match listed {
        Ok(paths) => (paths, Vec::new()),
        Err(problem) => (Vec::new(), vec![problem]),
    };
    // What is no UTF-8 is no text of ours.
    let sources: Vec<Source> = paths
        .iter()
        .filter_map(|path| {
            let text = fs::read_to_string(root.join(path)).ok()?;
            Some(Source { path: path.clone(), text })
        })
        .collect();
    vec![
        Claim { name: "git lists the files of the repository", problems: listing_problems },
        Claim {
            name: "only host/src/kernel names aya",
            problems: named_outside(&sources, "aya", "host/src", &["host/src/kernel"]),
        },
        Claim {
            name: "only host/src/plugin names wasmtime",
            problems: named_outside(&sources, "wasmtime", "host/src", &["host/src/plugin"]),
        },
        Claim {
            name: "unsafe code stands in host-ebpf, and where events get the layout of guests",
            problems: named_outside(
                &sources,
                "unsafe",
                "",
                &["host-ebpf", "host/src/plugin/layout"],
            ),
        },
        Claim { name: "nothing is marked as unfinished", problems: unfinished(&sources) },
        Claim {
            name: "every link between documents leads somewhere",
            problems: broken_links(root, &sources),
        },
        contract::claim(root),
        Claim { name: "the top-level folders are the known ones", problems: unknown_tops(&paths) },
    ]
}

/// Every file that is tracked, or would be.
fn list(root: &Path) -> Result<Vec<PathBuf>, String> {
    let arguments = ["ls-files", "--cached", "--others", "--exclude-standard", "-z"];
    let output = Command::new("git")
        .args(arguments)
        .current_dir(root)
        .output()
        .map_err(|cause| format!("git cannot be started: {cause}"))?;
    if !output.status.success() {
        return Err(format!("git: {}", String::from_utf8_lossy(&output.stderr).trim()));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let paths: BTreeSet<PathBuf> =
        text.split('\0').filter(|path| !path.is_empty()).map(PathBuf::from).collect();
    // A file that was removed but not yet from the index is no file.
    Ok(paths.into_iter().filter(|path| root.join(path).is_file()).collect())
}

/// Where Rust code below `scope`, but in none of `rooms`, has `word` as a word of its own.
fn named_outside(sources: &[Source], word: &str, scope: &str, rooms: &[&str]) -> Vec<String> {
    let is_of = |path: &Path, room: &str| {
        path.starts_with(room) || path == Path::new(&format!("{room}.rs"))
    };
    let in_room = |path: &Path| rooms.iter().any(|room| is_of(path, room));
    sources
        .iter()
        .filter(|source| source.path.extension().is_some_and(|extension| extension == "rs"))
        .filter(|source| source.path.starts_with(scope) && !in_room(&source.path))
        .flat_map(|source| places(&source.path, &code_only(&source.text), word))
        .collect()
}

fn unfinished(sources: &[Source]) -> Vec<String> {
    sources
        .iter()
        .flat_map(|source| {
            UNFINISHED.iter().flat_map(|word| places(&source.path, &source.text, word))
        })
        .collect()
}

/// The places, as `path:line: word`, at which `word` stands as a word of its own.
fn places(path: &Path, text: &str, word: &str) -> Vec<String> {
    let part_of_word = |c: char| c.is_alphanumeric() || c == '_';
    text.lines()
        .enumerate()
        .filter(|(_, line)| {
            line.match_indices(word).any(|(at, _)| {
                !line[..at].ends_with(part_of_word)
                    && !line[at + word.len()..].starts_with(part_of_word)
            })
        })
        .map(|(index, _)| format!("{}:{}: {word}", path.display(), index + 1))
        .collect()
}

/// Rust code with every comment and every string taken out, line breaks kept.
fn code_only(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            block_comment_length(rest)
        } else if let Some(length) = raw_string_length(rest).filter(|_| !ends_in_word(&code)) {
            length
        } else if first == '"' {
            quoted_length(rest)
        } else if first == '\'' {
            // A quote that is not closed after one character begins a lifetime.
            character_length(rest).unwrap_or(0)
        } else {
            0
        };
        if skipped == 0 {
            code.push(first);
            rest = &rest[first.len_utf8()..];
        } else {
            code.push(' ');
            code.extend(rest[..skipped].chars().filter(|c| *c == '\n'));
            rest = &rest[skipped..];
        }
    }
    code
}

fn ends_in_word(code: &str) -> bool {
    code.ends_with(|c: char| c.is_alphanumeric() || c == '_')
}

/// Block comments nest.
fn block_comment_length(text: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < text.len() {
        let rest = &text[at..];
        if rest.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest.starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

fn raw_string_length(text: &str) -> Option<usize> {
    let after_prefix = text.strip_prefix("br").or_else(|| text.strip_prefix('r'))?;
    let after_hashes = after_prefix.trim_start_matches('#');
    let hashes = after_prefix.len() - after_hashes.len();
    let body = after_hashes.strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let closed = body.find(&end).map_or(body.len(), |at| at + end.len());
    Some(text.len() - body.len() + closed)
}

fn quoted_length(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

fn character_length(text: &str) -> Option<usize> {
    let body = text.strip_prefix('\'')?;
    let mut characters = body.char_indices();
    let (_, first) = characters.next()?;
    if first == '\\' {
        // The escaped character itself may be a quote.
        characters.next()?;
        return characters.find(|(_, c)| *c == '\'').map(|(at, _)| at + 2);
    }
    let (at, second) = characters.next()?;
    (second == '\'').then_some(at + 2)
}

/// Links of Markdown files that are relative and lead to no file, or to no heading of it.
fn broken_links(root: &Path, sources: &[Source]) -> Vec<String> {
    let mut problems = Vec::new();
    for source in sources {
        if source.path.extension().is_none_or(|extension| extension != "md") {
            continue;
        }
        for (line, link) in links(&source.text) {
            if let Some(problem) = broken_link(root, source, &link) {
                problems.push(format!("{}:{line}: {problem}", source.path.display()));
            }
        }
    }
    problems
}

fn broken_link(root: &Path, source: &Source, link: &str) -> Option<String> {
    if link.contains("://") || link.starts_with("mailto:") {
        return None;
    }
    let (file, heading) = link.split_once('#').unwrap_or((link, ""));
    let text = if file.is_empty() {
        source.text.clone()
    } else {
        let target = root.join(source.path.parent()?).join(file);
        if !target.exists() {
            return Some(format!("{link}: there is no {file}"));
        }
        fs::read_to_string(&target).unwrap_or_default()
    };
    let names_heading = !heading.is_empty() && (file.is_empty() || file.ends_with(".md"));
    if names_heading && !headings(&text).any(|anchor| anchor == heading) {
        return Some(format!("{link}: there is no heading #{heading}"));
    }
    None
}

/// The targets of inline links and link definitions, each with its line, without those in code.
fn links(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (index, line) in lines_outside_fences(text) {
        let mut rest = without_code_spans(line);
        if let Some((name, target)) = rest.strip_prefix('[').and_then(|rest| rest.split_once("]: "))
            && !name.contains(']')
        {
            found.extend(target.split_whitespace().next().map(|target| (index, target.to_owned())));
            continue;
        }
        while let Some((_, after)) = rest.split_once("](") {
            let Some((target, behind)) = after.split_once(')') else {
                break;
            };
            // A title may follow the target.
            found.extend(target.split_whitespace().next().map(|target| (index, target.to_owned())));
            rest = behind.to_owned();
        }
    }
    found
}

/// The anchors of the headings, as code hosts make them.
fn headings(text: &str) -> impl Iterator<Item = String> {
    lines_outside_fences(text).filter_map(|(_, line)| {
        let title = line.trim_start_matches('#');
        let is_heading = title.len() < line.len() && title.starts_with(' ');
        is_heading.then(|| anchor(title.trim()))
    })
}

fn anchor(title: &str) -> String {
    title
        .to_lowercase()
        .chars()
        .filter_map(|c| match c {
            ' ' => Some('-'),
            '-' | '_' => Some(c),
            _ => c.is_alphanumeric().then_some(c),
        })
        .collect()
}

/// Lines with their numbers, from 1, that are not in a fenced block of code.
fn lines_outside_fences(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    text.lines().enumerate().filter_map(move |(index, line)| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        (!fence && !fenced).then_some((index + 1, line))
    })
}

fn without_code_spans(line: &str) -> String {
    line.split('`').step_by(2).collect()
}

fn unknown_tops(paths: &[PathBuf]) -> Vec<String> {
    let tops: BTreeSet<String> = paths
        .iter()
        .filter_map(|path| match path.components().collect::<Vec<_>>().as_slice() {
            [Component::Normal(top), _, ..] => Some(top.to_string_lossy().into_owned()),
            _ => None,
        })
        .collect();
    tops.into_iter()
        .filter(|top| !TOP_LEVEL.contains(&top.as_str()))
        .map(|top| format!("{top}/ is not among {}", TOP_LEVEL.join(", ")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(path: &str, text: &str) -> Source {
        Source { path: path.into(), text: text.into() }
    }

    #[test]
    fn comments_and_strings_are_no_code() {
        let check = |code: &str, expected: bool| {
            let found = !places(Path::new("x.rs"), &code_only(code), "aya").is_empty();
            assert_eq!(found, expected, "{code}");
        };
        check("use aya::Ebpf;", true);
        check("// aya\n", false);
        check("/* a /* aya */ aya */", false);
        check("/* */ aya", true);
        check(r#"let x = "aya \" aya"; "#, false);
        check(r#"let x = "\\"; aya()"#, true);
        check("let x = r#\"aya \" aya\"#;", false);
        check("let x = r#\"\"#; aya()", true);
        check("let x = br\"aya\";", false);
        check("fn f<'a>(x: &'a aya::T) {}", true);
        check("let x = '\"'; aya(); let y = '\"';", true);
        check("let x = '\\''; aya(); let y = '\\'';", true);
        check("let ayahuasca = my_aya;", false);
    }

    #[test]
    fn a_word_is_allowed_in_its_room_only() {
        let sources = [
            source("host/src/kernel/mod.rs", "use aya::Ebpf;"),
            source("host/src/kernel.rs", "use aya::Ebpf;"),
            source("host/src/daemon.rs", "\nuse aya::Ebpf;"),
            source("xtask/src/main.rs", "use aya::Ebpf;"),
            source("host/src/notes.md", "aya"),
        ];
        let found = named_outside(&sources, "aya", "host/src", &["host/src/kernel"]);
        assert_eq!(found, ["host/src/daemon.rs:2: aya"]);
    }

    #[test]
    fn unfinished_work_is_found_in_comments_too() {
        let text = format!("fn f() {{}}\n// {}: later\n", UNFINISHED[0]);
        let found = unfinished(&[source("a.rs", &text), source("b.rs", "// mastodon")]);
        assert_eq!(found, [format!("a.rs:2: {}", UNFINISHED[0])]);
    }

    #[test]
    fn links_are_read_outside_code_only() {
        let text =
            "[a](b.md \"title\") and [c](d.md#e)\n`[f](g.md)`\n```\n[h](i.md)\n```\n[j]: k.md\n";
        let found: Vec<(usize, String)> = links(text);
        let expected = [(1, "b.md"), (1, "d.md#e"), (6, "k.md")];
        assert_eq!(found, expected.map(|(line, link)| (line, link.to_owned())));
    }

    #[test]
    fn links_lead_to_files_and_headings() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("docs")).unwrap();
        let there = "# The title: a `word`\n";
        fs::write(root.path().join("docs/there.md"), there).unwrap();
        let text = "## Here\n[1](there.md) [2](there.md#the-title-a-word) [3](#here) [4](../docs)
                    [5](gone.md) [6](there.md#gone) [7](#gone) [8](https://example.org/gone)";
        let sources = [source("docs/page.md", text), source("docs/there.md", there)];
        let problems = broken_links(root.path(), &sources);
        assert_eq!(
            problems,
            [
                "docs/page.md:3: gone.md: there is no gone.md",
                "docs/page.md:3: there.md#gone: there is no heading #gone",
                "docs/page.md:3: #gone: there is no heading #gone",
            ]
        );
    }

    #[test]
    fn a_new_top_level_folder_is_a_decision() {
        let paths = ["host/src/lib.rs", "README.md", "misc/x"].map(PathBuf::from);
        let problems = unknown_tops(&paths);
        assert_eq!(problems.len(), 1);
        assert!(problems[0].starts_with("misc/ "), "{problems:?}");
    }
}
