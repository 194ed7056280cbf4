//! Runs the plugin natively: no daemon, no WebAssembly.

use top_folders::TopFolders;
use whodunit_sdk::testing::{BatchBuilder, Harness};

fn report(config: &str) -> String {
    let mut harness = Harness::<TopFolders>::new().config(config).start().unwrap();
    let batch = BatchBuilder::new().open(1, "/etc/passwd").open(1, "/etc/hosts").open(1, "/srv/a");
    let batch = batch.open(1, "/etc/missing").failed(2).exec(1, "/bin/cat");
    harness.batch(batch.build());
    harness.interval().unwrap();
    String::from_utf8(harness.document("report").unwrap()).unwrap()
}

#[test]
fn opened_files_are_counted_by_top_folder() {
    assert_eq!(report("{}"), r#"{"/etc":2,"/srv":1}"#);
}

#[test]
fn folders_with_few_files_can_be_left_out() {
    assert_eq!(report(r#"{"at_least": 2}"#), r#"{"/etc":2}"#);
}

#[test]
fn a_misspelt_setting_is_refused() {
    let refused = Harness::<TopFolders>::new().config(r#"{"at_most": 2}"#).start();
    assert!(refused.err().unwrap().contains("unknown field `at_most`"));
}
