//! Problems of a configuration file, and how they are shown.
//!
//! Takes byte ranges and sentences from the reader. Gives one line `FILE:LINE:COLUMN: sentence` a
//! problem for logs, editors and pipes, and for people at a terminal a picture with the source line.

use std::error::Error;
use std::fmt::{self, Display, Write as _};
use std::ops::Range;
use std::path::{Path, PathBuf};

use miette::{Diagnostic, LabeledSpan, MietteHandlerOpts, NamedSource, ReportHandler, SourceCode};

/// One thing that is wrong with a configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The bytes of the file that it is about.
    pub span: Range<usize>,
    /// What is wrong.
    pub wrong: String,
    /// What was expected there, where that helps.
    pub expected: Option<String>,
    /// The way out, such as `did you mean ...?`.
    pub advice: Option<String>,
}

impl Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.wrong)?;
        if let Some(expected) = &self.expected {
            write!(f, ", expected {expected}")?;
        }
        if let Some(advice) = &self.advice {
            write!(f, ": {advice}")?;
        }
        Ok(())
    }
}

/// A configuration file with at least one problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    /// The file.
    pub path: PathBuf,
    /// Its content.
    pub text: String,
    /// What is wrong with it, in the order of the file.
    pub problems: Vec<Problem>,
}

impl Display for Invalid {
    /// One line a problem.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                f.write_char('\n')?;
            }
            let (line, column) = position(&self.text, problem.span.start);
            write!(f, "{}:{line}:{column}: {problem}", self.path.display())?;
        }
        Ok(())
    }
}

impl Error for Invalid {}

impl Invalid {
    pub(super) fn new(path: &Path, text: &str, mut problems: Vec<Problem>) -> Invalid {
        problems.sort_by_key(|problem| problem.span.start);
        Invalid { path: path.to_owned(), text: text.to_owned(), problems }
    }

    /// Every problem with its source line and a marker, with colours, for a terminal.
    pub fn picture(&self) -> String {
        let handler = MietteHandlerOpts::new().terminal_links(false).color(true).build();
        self.drawn_by(&handler)
    }

    fn drawn_by(&self, handler: &dyn ReportHandler) -> String {
        let source = NamedSource::new(self.path.display().to_string(), self.text.clone());
        let pictures = self.problems.iter().map(|problem| {
            let shown = Shown { problem, source: &source };
            Drawn { shown, handler }.to_string()
        });
        pictures.collect::<Vec<_>>().join("\n")
    }
}

/// Line and column of a byte, both from 1; the column counts characters.
pub(super) fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset.min(text.len())).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let line = before.matches('\n').count() + 1;
    (line, before[line_start..].chars().count() + 1)
}

#[derive(Debug)]
struct Shown<'a> {
    problem: &'a Problem,
    source: &'a NamedSource<String>,
}

impl Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problem.wrong)
    }
}

impl Error for Shown<'_> {}

impl Diagnostic for Shown<'_> {
    fn help<'a>(&'a self) -> Option<Box<dyn Display + 'a>> {
        self.problem.advice.as_ref().map(|advice| Box::new(advice) as Box<dyn Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        Some(self.source)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let label = self.problem.expected.as_ref().map(|expected| format!("expected {expected}"));
        let span = LabeledSpan::new_with_span(label, self.problem.span.clone());
        Some(Box::new(std::iter::once(span)))
    }
}

/// miette draws through `Debug` of a report of its own; this is the same without its type erasure.
struct Drawn<'a> {
    shown: Shown<'a>,
    handler: &'a dyn ReportHandler,
}

impl Display for Drawn<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.handler.debug(&self.shown, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_columns_count_from_one_and_in_characters() {
        let text = "a = 1\näö = 2\r\n";
        for (offset, expected) in
            [(0, (1, 1)), (4, (1, 5)), (6, (2, 1)), (10, (2, 3)), (99, (3, 1))]
        {
            assert_eq!(position(text, offset), expected, "{offset}");
        }
    }

    #[test]
    fn the_picture_shows_the_line_the_marker_and_the_way_out() {
        let text = "[daemon]\nintervall = \"30s\"\n";
        let problem = Problem {
            span: 9..18,
            wrong: String::from("unknown key `daemon.intervall`"),
            expected: None,
            advice: Some(String::from("did you mean `interval`?")),
        };
        let invalid = Invalid::new(Path::new("/etc/whodunit/whodunit.toml"), text, vec![problem]);
        let plain = MietteHandlerOpts::new()
            .terminal_links(false)
            .color(false)
            .unicode(false)
            .width(80)
            .build();
        let picture = invalid.drawn_by(&plain);
        for part in [
            "x unknown key `daemon.intervall`",
            "/etc/whodunit/whodunit.toml:2:1",
            "2 | intervall = \"30s\"",
            "^^^^",
            "help: did you mean `interval`?",
        ] {
            assert!(picture.contains(part), "{part} is not in\n{picture}");
        }
        assert!(invalid.picture().contains("\u{1b}["), "a picture for a terminal has colours");
    }
}
