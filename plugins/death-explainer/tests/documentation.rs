//! `docs/verdicts.md` has the table of verdicts. With `WHODUNIT_BLESS=1` in the environment this test rewrites it.

use std::fmt::Write;
use std::path::Path;

use death_explainer::VERDICTS;

const BEGIN: &str = "<!-- generated: verdicts -->\n";
const END: &str = "<!-- end of generated -->";

#[test]
fn the_page_of_verdicts_has_every_verdict() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/verdicts.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let start = text.find(BEGIN).expect("the page has the beginning of the table") + BEGIN.len();
    let end = start + text[start..].find(END).expect("the page has the end of the table");
    let mut table = String::from("\n| verdict | when | what to do |\n|---|---|---|\n");
    for verdict in VERDICTS {
        let cell = |text: &str| text.replace('|', "\\|").replace(['{', '}'], "*");
        let advice = cell(&verdict.advice.join(" "));
        writeln!(table, "| `{}` | {} | {advice} |", verdict.id, cell(verdict.meaning)).unwrap();
    }
    table.push('\n');
    if text[start..end] == table {
        return;
    }
    assert!(
        std::env::var_os("WHODUNIT_BLESS").is_some(),
        "docs/verdicts.md differs from the table of verdicts; run the tests with WHODUNIT_BLESS=1"
    );
    std::fs::write(&path, format!("{}{table}{}", &text[..start], &text[end..])).unwrap();
}
