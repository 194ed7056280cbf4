//! What the plugin makes of events, natively.

use apparmor_profile::Profiles;
use whodunit_sdk::Flags;
use whodunit_sdk::testing::{BatchBuilder, Harness, TickBuilder, container};

/// Numbers of kinds in the contract.
const MAP: u16 = 23;
const STAT: u16 = 18;
const UNLINK: u16 = 29;

fn profiles(batch: BatchBuilder, tick: TickBuilder) -> String {
    let setup = Harness::<Profiles>::new().container(container(1, "web"));
    let mut harness = setup.start().unwrap();
    harness.batch(batch.build());
    harness.tick(tick.build()).unwrap();
    String::from_utf8(harness.document("profiles").unwrap()).unwrap()
}

fn rules(text: &str) -> Vec<&str> {
    text.lines().map(str::trim).filter(|line| line.starts_with('"')).collect()
}

#[test]
fn each_file_has_one_rule_with_all_that_was_done_with_it() {
    let batch = BatchBuilder::new()
        .open(1, "/etc/web.conf")
        .open(1, "/var/log/web")
        .flags(Flags::WRITE)
        .open(1, "/var/log/web")
        .exec(1, "/usr/bin/web")
        .event(MAP, 1, b"/usr/lib/libc.so.6")
        .event(UNLINK, 1, b"/run/web.pid")
        .event(STAT, 1, b"/srv/only-looked-at")
        .open(1, "/srv")
        .flags(Flags::DIRECTORY);
    let text = profiles(batch, TickBuilder::new().container(1, &[("received", 8)]));
    assert_eq!(
        rules(&text),
        [
            "\"/etc/web.conf\" r,",
            "\"/run/web.pid\" w,",
            "\"/srv/\" r,",
            "\"/usr/bin/web\" rmix,",
            "\"/usr/lib/libc.so.6\" rm,",
            "\"/var/log/web\" rw,",
        ]
    );
    assert!(text.starts_with("# The files that container web used"), "{text}");
    assert!(text.contains("\nprofile whodunit-web flags="), "{text}");
    assert!(!text.contains("INCOMPLETE"), "{text}");
    assert!(text.trim_end().ends_with('}'), "{text}");
}

#[test]
fn what_was_not_used_by_the_program_has_no_rule() {
    let batch = BatchBuilder::new()
        .open(1, "/missing")
        .failed(2)
        .open(1, "/refused")
        .failed(13)
        .open(1, "/setup")
        .flags(Flags::SETUP)
        .open(1, "pipe:[7]")
        .flags(Flags::DETACHED);
    assert!(rules(&profiles(batch, TickBuilder::new())).is_empty());
}

#[test]
fn a_profile_that_may_lack_something_says_so() {
    let batch = BatchBuilder::new().open(1, "/a").flags(Flags::UNRESOLVED).dropped(3);
    let tick = TickBuilder::new().container(1, &[("lost.ring-full", 4)]).found_running();
    let text = profiles(batch, tick);
    for reason in [
        "4 events of it were lost",
        "3 events of any container did not reach this plugin",
        "1 files have a path that the kernel did not resolve",
        "it was not watched from its first program on",
    ] {
        assert!(text.contains(&format!("# INCOMPLETE: {reason}.")), "{reason}: {text}");
    }
}

#[test]
fn paths_are_matched_literally_whatever_bytes_they_have() {
    let batch = BatchBuilder::new().open(1, b"/a b/*?[x]{y}\"\\\n\xff".as_slice());
    let text = profiles(batch, TickBuilder::new());
    assert_eq!(rules(&text), [r#""/a b/\*\?\[x\]\{y\}\"\\\012\377" r,"#]);
}

#[test]
fn a_prefix_that_no_profile_can_have_is_refused() {
    let refused = Harness::<Profiles>::new().config(r#"{"prefix": "a b"}"#).start();
    assert!(refused.err().unwrap().contains("`prefix`"));
}
