//! Runs the plugin natively: no daemon, no WebAssembly.

use no_bytecode::NoBytecode;
use whodunit_sdk::Verdict::{self, Drop, Keep};
use whodunit_sdk::testing::{BatchBuilder, FilterHarness};

fn judged(config: &str) -> Vec<Verdict> {
    let mut harness = FilterHarness::<NoBytecode>::start(config, &[]).unwrap();
    harness.judge(&BatchBuilder::new().open(1, "/a.pyc").open(1, "/a.py").open(1, "/b.swp").build())
}

#[test]
fn bytecode_is_dropped() {
    assert_eq!(judged("{}"), [Drop, Keep, Keep]);
}

#[test]
fn endings_can_be_chosen() {
    assert_eq!(judged(r#"{"endings": [".swp", ".py"]}"#), [Keep, Drop, Drop]);
}

#[test]
fn an_ending_that_everything_has_is_refused() {
    let refused = FilterHarness::<NoBytecode>::start(r#"{"endings": [""]}"#, &[]);
    assert!(refused.err().unwrap().contains("would drop everything"));
}
