//! How the document's JSON is laid out: one line a field, and one line an object of a container's
//! lists. A report of many files stays readable, and a `grep` finds all that is known of one.

use std::io::{Result, Write};

use serde_json::ser::{CompactFormatter, Formatter, PrettyFormatter};

/// What stands inside so many others goes on one line: an object of a list of a container is inside
/// the list, the container, the list of containers and the document.
const ONE_LINE_DEPTH: usize = 5;

/// Lines down to a depth, and one line below it.
#[derive(Debug, Default)]
pub(crate) struct Layout {
    depth: usize,
    lines: PrettyFormatter<'static>,
}

impl Layout {
    fn in_lines(&self) -> bool {
        self.depth < ONE_LINE_DEPTH
    }
}

impl Formatter for Layout {
    fn begin_array<W: ?Sized + Write>(&mut self, writer: &mut W) -> Result<()> {
        self.depth += 1;
        if self.in_lines() { self.lines.begin_array(writer) } else { writer.write_all(b"[") }
    }

    fn end_array<W: ?Sized + Write>(&mut self, writer: &mut W) -> Result<()> {
        let in_lines = self.in_lines();
        self.depth -= 1;
        if in_lines { self.lines.end_array(writer) } else { writer.write_all(b"]") }
    }

    fn begin_array_value<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> Result<()> {
        if self.in_lines() {
            self.lines.begin_array_value(writer, first)
        } else {
            CompactFormatter.begin_array_value(writer, first)
        }
    }

    fn end_array_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> Result<()> {
        if self.in_lines() { self.lines.end_array_value(writer) } else { Ok(()) }
    }

    fn begin_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> Result<()> {
        self.depth += 1;
        if self.in_lines() { self.lines.begin_object(writer) } else { writer.write_all(b"{") }
    }

    fn end_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> Result<()> {
        let in_lines = self.in_lines();
        self.depth -= 1;
        if in_lines { self.lines.end_object(writer) } else { writer.write_all(b"}") }
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> Result<()> {
        if self.in_lines() {
            self.lines.begin_object_key(writer, first)
        } else {
            CompactFormatter.begin_object_key(writer, first)
        }
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> Result<()> {
        if self.in_lines() {
            self.lines.begin_object_value(writer)
        } else {
            CompactFormatter.begin_object_value(writer)
        }
    }

    fn end_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> Result<()> {
        if self.in_lines() { self.lines.end_object_value(writer) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use serde::Serialize;
    use serde_json::{Serializer, json};

    use super::*;

    #[test]
    fn an_object_of_a_container_s_list_is_one_line() {
        let value =
            json!({ "c": [{ "d": [{ "o": ["x", "y"], "p": "/a" }], "e": [], "f": ["/a"] }] });
        let mut text = Vec::new();
        value.serialize(&mut Serializer::with_formatter(&mut text, Layout::default())).unwrap();
        let expected = "{\n  \"c\": [\n    {\n      \"d\": [\n        {\"o\":[\"x\",\"y\"],\"p\":\"/a\"}\n      \
                        ],\n      \"e\": [],\n      \"f\": [\n        \"/a\"\n      ]\n    }\n  ]\n}";
        assert_eq!(String::from_utf8(text).unwrap(), expected);
    }
}
