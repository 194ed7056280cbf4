//! Two documents, and where they differ: a bounded list, for people to look at.
//!
//! JSON is compared by its values, whatever their order; other text by its lines; the rest by its bytes.

use std::collections::{BTreeSet, HashMap};

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// So many differences are shown; the rest is counted.
const SHOWN: usize = 20;
/// A value is shown up to this many bytes.
const VALUE_BYTES: usize = 120;

/// A place where two documents differ.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// Where: a path into JSON such as `containers[0].files`, `line 7`, or `byte 120`.
    pub place: String,
    /// What the one that runs has there. None where it has nothing.
    pub running: Option<String>,
    /// What the other one has there. None where it has nothing.
    pub shadow: Option<String>,
}

/// Where two documents differ.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(super) struct Differences {
    /// The first ones.
    pub(super) shown: Vec<Difference>,
    /// How many there are beside them.
    pub(super) more: u64,
}

impl Differences {
    /// Compares the document of the one that runs with that of the other one.
    pub(super) fn between(running: &[u8], shadow: &[u8]) -> Differences {
        let mut differences = Differences::default();
        if running == shadow {
            return differences;
        }
        let json = |bytes| serde_json::from_slice::<Value>(bytes).ok();
        // What a terminal might obey is no text to be shown.
        let is_shown =
            |text: &&str| !text.contains(|c: char| c.is_control() && !"\n\r\t".contains(c));
        let text = |bytes| std::str::from_utf8(bytes).ok().filter(is_shown);
        if let Some((running, shadow)) = json(running).zip(json(shadow)) {
            differences.values("", &running, &shadow);
        } else if let Some((running, shadow)) = text(running).zip(text(shadow)) {
            differences.lines(running, shadow);
        } else {
            let same = running.iter().zip(shadow).take_while(|(one, other)| one == other).count();
            let rest =
                |bytes: &[u8]| (bytes.len() > same).then(|| format!("{} bytes", bytes.len()));
            differences.add(&format!("byte {same}"), rest(running), rest(shadow));
        }
        differences
    }

    fn add(&mut self, place: &str, running: Option<String>, shadow: Option<String>) {
        if self.shown.len() < SHOWN {
            let place = if place.is_empty() { "the whole" } else { place }.to_owned();
            self.shown.push(Difference { place, running, shadow });
        } else {
            self.more += 1;
        }
    }

    fn values(&mut self, place: &str, running: &Value, shadow: &Value) {
        match (running, shadow) {
            (Value::Object(one), Value::Object(other)) => {
                let keys: BTreeSet<&String> = one.keys().chain(other.keys()).collect();
                for key in keys {
                    let dot = if place.is_empty() { "" } else { "." };
                    let place = format!("{place}{dot}{}", cut(key));
                    self.parts(&place, one.get(key), other.get(key));
                }
            }
            (Value::Array(one), Value::Array(other)) if are_scalars(one) && are_scalars(other) => {
                let texts = |values: &[Value]| values.iter().map(Value::to_string).collect();
                let (one, other): (Vec<String>, Vec<String>) = (texts(one), texts(other));
                only_in(&one, &other).for_each(|(_, it)| self.add(place, Some(cut(it)), None));
                only_in(&other, &one).for_each(|(_, it)| self.add(place, None, Some(cut(it))));
            }
            (Value::Array(one), Value::Array(other)) => {
                for index in 0..one.len().max(other.len()) {
                    self.parts(&format!("{place}[{index}]"), one.get(index), other.get(index));
                }
            }
            (one, other) if one == other => {}
            (one, other) => {
                self.add(place, Some(cut(&one.to_string())), Some(cut(&other.to_string())));
            }
        }
    }

    fn parts(&mut self, place: &str, running: Option<&Value>, shadow: Option<&Value>) {
        let shown = |value: &Value| cut(&value.to_string());
        match (running, shadow) {
            (Some(running), Some(shadow)) => self.values(place, running, shadow),
            (running, shadow) => self.add(place, running.map(shown), shadow.map(shown)),
        }
    }

    fn lines(&mut self, running: &str, shadow: &str) {
        let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
        let (one, other) = (lines(running), lines(shadow));
        for (number, line) in only_in(&one, &other) {
            self.add(&format!("line {}", number + 1), Some(cut(line)), None);
        }
        for (number, line) in only_in(&other, &one) {
            self.add(&format!("line {}", number + 1), None, Some(cut(line)));
        }
    }
}

fn are_scalars(values: &[Value]) -> bool {
    values.iter().all(|value| !value.is_array() && !value.is_object())
}

/// What is in the one and not, or not so often, in the other; each with its place.
fn only_in<'a>(
    one: &'a [String],
    other: &'a [String],
) -> impl Iterator<Item = (usize, &'a String)> {
    let mut left: HashMap<&String, usize> = HashMap::new();
    other.iter().for_each(|it| *left.entry(it).or_default() += 1);
    one.iter().enumerate().filter(move |(_, it)| match left.get_mut(it) {
        Some(number) if *number > 0 => {
            *number -= 1;
            false
        }
        _ => true,
    })
}

/// The beginning of a value.
fn cut(text: &str) -> String {
    if text.len() <= VALUE_BYTES {
        return text.to_owned();
    }
    format!("{}...", &text[..text.floor_char_boundary(VALUE_BYTES)])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Differences in words: `place: what runs | the other`.
    fn check(running: &str, shadow: &str, expected: &[&str]) {
        let differences = Differences::between(running.as_bytes(), shadow.as_bytes());
        let word = |it: &Option<String>| it.clone().unwrap_or_default();
        let words: Vec<String> = differences
            .shown
            .iter()
            .map(|it| format!("{}: {} | {}", it.place, word(&it.running), word(&it.shadow)))
            .collect();
        assert_eq!(words, expected, "{running} {shadow}");
    }

    #[test]
    fn json_is_compared_by_its_values() {
        check(r#"{"a":1,"b":[1,2]}"#, r#"{ "b": [2, 1], "a": 1 }"#, &[]);
        check(
            r#"{"a":{"b":1,"gone":true},"files":["/a","/b","/b"]}"#,
            r#"{"a":{"b":2},"files":["/b","/c"],"new":null}"#,
            &[
                "a.b: 1 | 2",
                "a.gone: true | ",
                "files: \"/a\" | ",
                "files: \"/b\" | ",
                "files:  | \"/c\"",
                "new:  | null",
            ],
        );
        check(r#"[{"a":1},{"a":2}]"#, r#"[{"a":1}]"#, &["[1]: {\"a\":2} | "]);
        check("1", "\"1\"", &["the whole: 1 | \"1\""]);
    }

    #[test]
    fn text_is_compared_by_its_lines_and_bytes_by_the_first_that_differs() {
        check("a\nb\nc\n", "a\nc\nd\n", &["line 2: b | ", "line 3:  | d"]);
        let differences = Differences::between(b"\xff\xfe\x01", b"\xff\xfe");
        let bytes = Difference {
            place: "byte 2".to_owned(),
            running: Some("3 bytes".to_owned()),
            shadow: None,
        };
        assert_eq!(differences.shown, [bytes]);
        let differences = Differences::between(b"a\x1b[2J", b"b");
        assert_eq!(differences.shown[0].place, "byte 0");
    }

    #[test]
    fn what_is_shown_is_bounded() {
        let long = |from: usize| {
            (from..from + 100).map(|number| format!("{number}{}\n", "x".repeat(1000))).collect()
        };
        let (running, shadow): (String, String) = (long(0), long(1000));
        let differences = Differences::between(running.as_bytes(), shadow.as_bytes());
        assert_eq!((differences.shown.len(), differences.more), (SHOWN, 180));
        assert!(differences.shown[0].running.as_ref().unwrap().len() < VALUE_BYTES + 8);
    }
}
