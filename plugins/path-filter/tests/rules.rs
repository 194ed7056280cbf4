//! The rules of the path filter, through the SDK's harness.

use path_filter::PathFilter;
use whodunit_sdk::Verdict;
use whodunit_sdk::testing::{BatchBuilder, FilterHarness, container};

const WEB: u32 = 1;
const DATABASE: u32 = 2;
/// A container that the directory does not know.
const STRANGER: u32 = 9;

fn filter(config: &str) -> Result<FilterHarness<PathFilter>, String> {
    FilterHarness::start(config, &[container(WEB, "web-1"), container(DATABASE, "database")])
}

/// Judges one open of each path by a container, with one rule that drops.
fn dropped(rule: &str, by: u32, paths: &[&[u8]]) -> Vec<bool> {
    let config = format!(r#"{{ "rules": [{{ {rule}, "action": "drop" }}] }}"#);
    let batch = paths.iter().fold(BatchBuilder::new(), |batch, path| batch.open(by, path));
    let verdicts = filter(&config).unwrap().judge(&batch.build());
    verdicts.iter().map(|verdict| *verdict == Verdict::Drop).collect()
}

#[test]
fn a_prefix_is_about_a_folder_and_what_is_below_it() {
    for rule in [r#""prefix": "/usr/lib""#, r#""prefix": "/usr/lib//""#] {
        let paths: [&[u8]; 6] =
            [b"/usr/lib", b"/usr/lib/a", b"/usr/lib/\xff/b", b"/usr/lib64", b"/usr", b"usr/lib/a"];
        assert_eq!(dropped(rule, WEB, &paths), [true, true, true, false, false, false]);
    }
    assert_eq!(
        dropped(r#""prefix": "/""#, WEB, &[b"/", b"/a", b"a", b""]),
        [true, true, false, false]
    );
}

#[test]
fn a_star_stays_inside_a_folder_and_two_do_not() {
    let paths: [&[u8]; 5] = [b"/a/x.pyc", b"/a/b/x.pyc", b"/a/\xff.pyc", b"/a/\n.pyc", b"/a/x.py"];
    assert_eq!(dropped(r#""glob": "/a/*.pyc""#, WEB, &paths), [true, false, true, true, false]);
    assert_eq!(dropped(r#""glob": "/a/**/*.pyc""#, WEB, &paths), [true, true, true, true, false]);
    assert_eq!(
        dropped(r#""glob": "/{b,a}/?.py[c]""#, WEB, &paths),
        [true, false, true, true, false]
    );
}

#[test]
fn a_regex_is_about_what_it_is_found_in() {
    let paths: [&[u8]; 4] =
        [b"/proc/1/maps", b"/proc/self/maps", b"/x/proc/1/maps", b"/proc/7/\n\xff"];
    assert_eq!(dropped(r#""regex": "^/proc/[0-9]+/""#, WEB, &paths), [true, false, false, true]);
    assert_eq!(dropped(r#""regex": "maps$""#, WEB, &paths), [true, true, true, false]);
    assert_eq!(dropped(r#""regex": "^/proc/7/..$""#, WEB, &paths), [false, false, false, true]);
}

#[test]
fn the_first_rule_that_is_about_an_event_decides_and_else_the_default() {
    let rules = r#"[
        { "prefix": "/etc/ssl", "action": "keep" },
        { "glob": "/etc/*.key", "action": "tag", "tag": 7 },
        { "prefix": "/etc", "action": "drop" }
    ]"#;
    let batch = BatchBuilder::new()
        .open(WEB, "/etc/ssl/a.key")
        .open(WEB, "/etc/a.key")
        .open(WEB, "/etc/passwd")
        .open(WEB, "/srv/a");
    let batch = batch.build();
    for (default, last) in [("keep", Verdict::Keep), ("drop", Verdict::Drop)] {
        let config = format!(r#"{{ "default": "{default}", "rules": {rules} }}"#);
        let verdicts = filter(&config).unwrap().judge(&batch);
        assert_eq!(verdicts, [Verdict::Keep, Verdict::Tag(7), Verdict::Drop, last]);
    }
}

#[test]
fn a_rule_for_containers_is_about_those_by_their_newest_names() {
    let only_web = r#""prefix": "/", "containers": ["web-*", "proxy"]"#;
    for (by, about) in [(WEB, true), (DATABASE, false), (STRANGER, false)] {
        assert_eq!(dropped(only_web, by, &[b"/a"]), [about], "{by}");
    }
    let config = format!(r#"{{ "rules": [{{ {only_web}, "action": "drop" }}] }}"#);
    let mut filter = filter(&config).unwrap();
    let batch = BatchBuilder::new().open(STRANGER, "/a").build();
    assert_eq!(filter.judge(&batch), [Verdict::Keep]);
    filter.put_container(container(STRANGER, "web-2"));
    assert_eq!(filter.judge(&batch), [Verdict::Drop]);
}

#[test]
fn a_path_that_was_not_resolved_is_judged_as_it_was_requested() {
    let config = r#"{ "rules": [{ "prefix": "/gone", "action": "drop" }] }"#;
    let batch = BatchBuilder::new().open(WEB, "/a").only_requested("/gone/b").open(WEB, "/gone");
    assert_eq!(filter(config).unwrap().judge(&batch.build()), [Verdict::Drop, Verdict::Drop]);
}

#[test]
fn a_wrong_rule_is_a_sentence_that_says_which_and_what_to_do() {
    let said = |config: &str| filter(config).err().unwrap_or_default();
    for (rule, sentence) in [
        (r#""action": "drop""#, "it says no path: add one of `prefix`, `glob` and `regex`"),
        (
            r#""prefix": "/a", "glob": "/a", "action": "drop""#,
            "it says more than one of `prefix`, `glob` and `regex`: make a rule of each",
        ),
        (
            r#""prefix": "a/b", "action": "drop""#,
            "its prefix `a/b` is no absolute path: begin it with `/`",
        ),
        (r#""regex": "(", "action": "drop""#, "its regex `(` is not right: unclosed group"),
        (
            r#""glob": "/[a", "action": "drop""#,
            "its glob `/[a` is not right: unclosed character class; missing ']'",
        ),
        (r#""glob": "/a", "action": "tag""#, "`action = \"tag\"` needs a number: add `tag = 1`"),
        (
            r#""glob": "/a", "action": "keep", "tag": 1"#,
            "it has a `tag` and does not tag: set `action = \"tag\"`, or remove `tag`",
        ),
        (
            r#""glob": "/a", "action": "keep", "containers": []"#,
            "`containers` is empty, so it is about nothing: name some, or remove it",
        ),
        (
            r#""glob": "/a", "action": "keep", "containers": ["{a"]"#,
            "its container pattern `{a` is not right: unclosed alternate group; missing '}' \
             (maybe escape '{' with '[{]'?)",
        ),
    ] {
        let config =
            format!(r#"{{ "rules": [{{ "prefix": "/", "action": "keep" }}, {{ {rule} }}] }}"#);
        assert_eq!(said(&config), format!("rule 2 of `config.rules`: {sentence}"));
    }
    assert!(said("{}").starts_with("it has no rules: add `[[plugin.config.rules]]`"));
    let unknown = said(r#"{ "rules": [{ "prefx": "/a", "action": "drop" }] }"#);
    assert!(unknown.contains("unknown field `prefx`, expected one of `prefix`"), "{unknown}");
    let action = said(r#"{ "rules": [{ "prefix": "/a", "action": "ignore" }] }"#);
    assert!(action.contains("unknown variant `ignore`, expected one of `keep`"), "{action}");
}
