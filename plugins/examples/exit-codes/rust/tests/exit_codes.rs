//! Runs the plugin natively: no daemon, no WebAssembly.

use exit_codes::ExitCodes;
use whodunit_sdk::testing::{DeathBuilder, explainer};
use whodunit_sdk::{Death, Explainer};

fn verdict_and_headline(config: &str, death: &Death) -> (String, String) {
    let explained = explainer::<ExitCodes>(config).unwrap().explain(death).unwrap();
    (explained.verdict, explained.headline)
}

#[test]
fn a_known_code_is_explained_in_the_words_of_the_toml() {
    let config = r#"{"codes": {"42": "It found no licence"}}"#;
    let (verdict, headline) = verdict_and_headline(config, &DeathBuilder::exited(42).build());
    assert_eq!((&*verdict, &*headline), ("known-exit-code", "It found no licence"));
}

#[test]
fn what_it_does_not_know_is_left_to_the_next_explainer() {
    for death in [DeathBuilder::exited(1), DeathBuilder::killed(9)] {
        assert_eq!(verdict_and_headline("{}", &death.build()).0, "unknown");
    }
}

#[test]
fn a_code_that_is_none_is_refused() {
    let refused = explainer::<ExitCodes>(r#"{"codes": {"256": "Too much"}}"#);
    assert!(refused.err().unwrap().contains("`256`"));
}
