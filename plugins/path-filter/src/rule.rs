//! One rule: which events it is about, and what becomes of them.

use globset::{Glob, GlobBuilder, GlobSet, GlobSetBuilder};
use regex::bytes::{Regex, RegexBuilder};
use serde::Deserialize;
use whodunit_sdk::Verdict;

/// A rule as the TOML has it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RuleTable {
    prefix: Option<String>,
    glob: Option<String>,
    regex: Option<String>,
    containers: Option<Vec<String>>,
    action: Action,
    tag: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Action {
    Keep,
    Drop,
    Tag,
}

/// A rule that was checked.
#[derive(Debug)]
pub(crate) struct Rule {
    paths: Paths,
    /// None is every container.
    containers: Option<GlobSet>,
    verdict: Verdict,
}

/// Which paths a rule is about.
#[derive(Debug)]
enum Paths {
    /// A folder and everything below it, without slashes at its end.
    Below(Vec<u8>),
    /// A glob is one too: paths are bytes, and need not be text.
    Like(Regex),
}

impl Rule {
    /// Checks a rule. The error is what is wrong with it, and what to do.
    pub(crate) fn new(table: RuleTable) -> Result<Rule, String> {
        let verdict = match (table.action, table.tag) {
            (Action::Keep, None) => Verdict::Keep,
            (Action::Drop, None) => Verdict::Drop,
            (Action::Tag, Some(tag)) => Verdict::Tag(tag),
            (Action::Tag, None) => {
                return Err("`action = \"tag\"` needs a number: add `tag = 1`".to_owned());
            }
            (Action::Keep | Action::Drop, Some(_)) => {
                return Err(
                    "it has a `tag` and does not tag: set `action = \"tag\"`, or remove `tag`"
                        .to_owned(),
                );
            }
        };
        let paths = match (table.prefix, table.glob, table.regex) {
            (Some(prefix), None, None) => Paths::below(&prefix)?,
            (None, Some(glob), None) => Paths::like_glob(&glob)?,
            (None, None, Some(regex)) => Paths::like_regex(&regex)?,
            (None, None, None) => {
                return Err("it says no path: add one of `prefix`, `glob` and `regex`".to_owned());
            }
            _ => {
                return Err("it says more than one of `prefix`, `glob` and `regex`: \
                            make a rule of each"
                    .to_owned());
            }
        };
        let containers = table.containers.as_deref().map(containers).transpose()?;
        Ok(Rule { paths, containers, verdict })
    }

    /// Whether the rule is about the events of the container of that name, or of one without a name.
    pub(crate) fn is_about_container(&self, name: Option<&str>) -> bool {
        let Some(patterns) = &self.containers else {
            return true;
        };
        name.is_some_and(|name| patterns.is_match(name))
    }

    /// Whether the rule is about a path.
    pub(crate) fn is_about_path(&self, path: &[u8]) -> bool {
        match &self.paths {
            Paths::Below(folder) => path
                .strip_prefix(folder.as_slice())
                .is_some_and(|rest| rest.starts_with(b"/") || rest.is_empty() && !path.is_empty()),
            Paths::Like(pattern) => pattern.is_match(path),
        }
    }

    /// What becomes of the events that it is about.
    pub(crate) fn verdict(&self) -> Verdict {
        self.verdict
    }
}

impl Paths {
    fn below(prefix: &str) -> Result<Paths, String> {
        match prefix.starts_with('/') {
            true => Ok(Paths::Below(prefix.trim_end_matches('/').into())),
            false => Err(format!("its prefix `{prefix}` is no absolute path: begin it with `/`")),
        }
    }

    /// `*` and `?` stay inside one folder, `**` does not.
    fn like_glob(glob: &str) -> Result<Paths, String> {
        let wrong = |cause: String| format!("its glob `{glob}` is not right: {cause}");
        let built = GlobBuilder::new(glob).literal_separator(true).build();
        let built = built.map_err(|error| wrong(error.kind().to_string()))?;
        pattern(built.regex()).map(Paths::Like).map_err(wrong)
    }

    fn like_regex(regex: &str) -> Result<Paths, String> {
        let wrong = |cause: String| format!("its regex `{regex}` is not right: {cause}");
        pattern(regex).map(Paths::Like).map_err(wrong)
    }
}

/// A pattern over bytes: a path with a line feed in it is matched like any other.
fn pattern(regex: &str) -> Result<Regex, String> {
    let built = RegexBuilder::new(regex).unicode(false).dot_matches_new_line(true).build();
    built.map_err(|error| match error {
        // The text of a syntax error is a picture of some lines; what is wrong stands in the last one.
        regex::Error::Syntax(picture) => {
            let cause = picture.lines().last().unwrap_or_default();
            cause.trim_start_matches("error: ").to_owned()
        }
        other => other.to_string(),
    })
}

fn containers(patterns: &[String]) -> Result<GlobSet, String> {
    if patterns.is_empty() {
        return Err(
            "`containers` is empty, so it is about nothing: name some, or remove it".to_owned()
        );
    }
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        let glob = Glob::new(pattern).map_err(|error| {
            format!("its container pattern `{pattern}` is not right: {}", error.kind())
        })?;
        set.add(glob);
    }
    set.build().map_err(|error| format!("its `containers` are not right: {error}"))
}
