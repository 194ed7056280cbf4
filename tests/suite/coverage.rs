//! The page that says which roads to a file are seen: what stands there is proved by trials, and what trials expect is
//! read from there. The first table, of the system calls, is proved in `roads.rs`.

use std::collections::BTreeSet;

use libtest_mimic::{Failed, Trial};

use crate::report::{expect, expect_eq};
use crate::{Outcome, machine};

const PAGE: &str = include_str!("../../docs/coverage.md");

/// The table of the system calls.
pub(crate) fn calls() -> impl Iterator<Item = Vec<&'static str>> {
    table("call")
}

/// The rows of the table whose first column has this head, as their cells.
fn table(head: &'static str) -> impl Iterator<Item = Vec<&'static str>> {
    let mut lines = PAGE.lines().skip_while(move |line| cells(line).first() != Some(&head));
    // The heads, and the line below them.
    lines.nth(1);
    lines.map_while(|line| line.starts_with('|').then(|| cells(line)))
}

fn cells(line: &str) -> Vec<&str> {
    line.trim().trim_matches('|').split(" |").map(str::trim).collect()
}

/// A road beside the system calls: how its row begins, what `tests/programs/beneath.c` calls it, if that goes it, and
/// the trials that prove its cells of the base and of the exact tier.
struct Road {
    row: &'static str,
    name: Option<&'static str>,
    base: &'static [&'static str],
    exact: &'static [&'static str],
}

const BENEATH_BASE: &[&str] = &["roads::ways_beside_the_calls_are_seen_as_the_page_says"];
const BENEATH_EXACT: &[&str] = &["exact::ways_beside_the_calls_are_seen_as_the_page_says"];
const PROGRAMS: &[&str] = &[
    "roads::a_dynamic_glibc_program_is_seen_on_every_road",
    "roads::a_static_musl_program_is_seen_on_every_road",
    "roads::a_32_bit_program_is_seen_on_every_road",
];
const EXECUTED: &[&str] = &["roads::without_the_exact_tier_an_exec_tells_what_it_did"];
const BOTH_TIERS: &[&str] = &["exact::both_tiers_tell_the_same_of_a_dynamic_glibc_program"];
const INTERPRETERS: &[&str] = &["exact::every_interpreter_is_seen_when_the_kernel_opens_it"];

const fn beneath(row: &'static str, name: &'static str) -> Road {
    Road { row, name: Some(name), base: BENEATH_BASE, exact: BENEATH_EXACT }
}

const fn road(
    row: &'static str,
    base: &'static [&'static str],
    exact: &'static [&'static str],
) -> Road {
    Road { row, name: None, base, exact }
}

const ROADS: &[Road] = &[
    road("`execve`, `execveat` that work", EXECUTED, INTERPRETERS),
    road(
        "the interpreter of a `#!` script",
        &["roads::a_script_is_seen_with_its_interpreter"],
        INTERPRETERS,
    ),
    road(
        "a `#!` script whose interpreter is a script",
        &["roads::a_script_of_a_script_is_seen_with_everything_in_between"],
        INTERPRETERS,
    ),
    road("the ELF interpreter", BOTH_TIERS, BOTH_TIERS),
    road("an interpreter that is not there", EXECUTED, INTERPRETERS),
    beneath("`fstat` and what else", "fstat"),
    beneath("`mmap` of a file", "mmap"),
    beneath("`openat`, `openat2` by io_uring", "io_uring open"),
    beneath("`statx`, `unlinkat`", "io_uring"),
    beneath("`acct`", "acct"),
    beneath("a core file", "core"),
    beneath("`uselib`", "uselib"),
    beneath("AF_UNIX sockets", "socket"),
    beneath("calls of x32", "x32"),
];

/// What a hostile container may try: how the row begins, and the trials that try it.
const ATTEMPTS: &[(&str, &[&str])] = &[
    ("rewriting the path", TRICKS),
    ("`/proc/self/root`", PROGRAMS),
    ("changing the working directory", TRICKS),
    ("32-bit calls", &["roads::a_dynamic_glibc_program_is_seen_on_every_road"]),
    ("paths of more than 4,095 bytes", PROGRAMS),
    ("deeper walks", TRICKS),
    ("taking the path out of memory", TRICKS),
    ("being one of many at once", &["roads::what_many_do_at_once_is_seen_or_counted"]),
    (
        "floods",
        &[
            "roads::a_flood_is_throttled_and_its_loss_is_exact",
            "roads::a_flood_takes_nothing_from_its_neighbour",
            "capture::eviction_removes_no_file_from_the_report",
        ],
    ),
    ("io_uring", BENEATH_EXACT),
    ("another process's number", &["deaths::a_reused_number_inherits_no_signal"]),
];

const TRICKS: &[&str] = &["roads::tricks_change_no_path_that_is_told"];

/// Attempts that no trial makes, and why.
const NOT_TRIED: &[(&str, &str)] = &[(
    "collisions of hashes",
    "the seed is random and nobody outside of the kernel's memory can read it",
)];

/// Whether a cell of the table says that a road is seen on that tier, by the name of the tier.
pub(crate) fn is_seen(name: &str, tier: &str) -> Result<bool, Failed> {
    let road = ROADS.iter().find(|road| road.name == Some(name));
    let road = road.ok_or_else(|| Failed::from(format!("nobody knows the road {name}")))?;
    let row = table("road")
        .find(|cells| cells[0].starts_with(road.row))
        .ok_or_else(|| Failed::from(format!("the page has no row for {}", road.row)))?;
    let [_, _, base, exact] = row[..] else {
        return Err(format!("four cells: {row:?}").into());
    };
    let cell = if tier == "base" || exact.starts_with("as base") { base } else { exact };
    match cell {
        cell if cell.starts_with("seen from Linux ") => has_come(cell),
        cell if cell.starts_with("seen") => Ok(true),
        cell if cell.starts_with("not seen") || cell.starts_with("left out") => Ok(false),
        cell => Err(format!("neither seen nor not: {cell}").into()),
    }
}

/// Whether the running kernel is as new as a cell demands that says `from Linux 6.0 on`.
fn has_come(cell: &str) -> Result<bool, Failed> {
    let demanded = cell.trim_start_matches("seen from Linux ");
    match machine::version(demanded) {
        Some(demanded) => Ok(machine::kernel_version() >= demanded),
        None => Err(format!("no version: {demanded:?}").into()),
    }
}

/// The claim that every row of the page has its trials, given the names of all there are.
pub(crate) fn trial(names: BTreeSet<String>) -> Trial {
    Trial::test("coverage::every_row_of_the_page_has_its_trials", move || proved(&names))
}

fn proved(names: &BTreeSet<String>) -> Outcome {
    let roads = ROADS.iter().map(|road| (road.row, [road.base, road.exact].concat()));
    each_has_a_row("road", roads, names)?;
    let excused = NOT_TRIED.iter().map(|(attempt, _)| (*attempt, Vec::new()));
    let attempts = ATTEMPTS.iter().map(|(attempt, trials)| (*attempt, trials.to_vec()));
    each_has_a_row("attempt", attempts.chain(excused), names)
}

/// The rows of a table are these, each once and in their order, and their trials are there.
fn each_has_a_row(
    head: &'static str,
    expected: impl Iterator<Item = (&'static str, Vec<&'static str>)>,
    names: &BTreeSet<String>,
) -> Outcome {
    let mut rows = table(head);
    for (row, trials) in expected {
        let found = rows.next().map_or("no more rows", |cells| cells[0]);
        expect(
            format!("the next row of the table begins with {row:?}: {found}"),
            found.starts_with(row),
        )?;
        for trial in trials {
            expect(format!("there is a trial {trial}"), names.contains(trial))?;
        }
    }
    expect_eq("rows without a trial", &rows.next(), &None)
}
