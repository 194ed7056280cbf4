//! Explainers that fail, and the one behind them.

use super::guest::{Hostile, LOOP, TRAP};
use super::*;

impl Bench {
    /// The shipped explainer, with the time that a loaded machine may need.
    fn shipped_explainer(mut self) -> Bench {
        let source = PluginSource::Builtin("death-explainer".to_owned());
        let mut plugin = self.plugin("shipped", source);
        plugin.limits.call = Duration::from_secs(60);
        self.plugins.push(plugin);
        self
    }
}

/// The explanations of so many deaths with exit code 3.
pub(super) fn explanations(running: &Running, deaths: usize) -> Vec<Explanation> {
    let hand = running.host.deaths();
    (0..deaths).for_each(|_| hand.put(death(3)));
    let explained = running.explained.iter().take(deaths);
    explained.map(|explained| explained.explanation).collect()
}

#[track_caller]
fn check_shipped_answers(explanations: &[Explanation]) {
    for explanation in explanations {
        let Explanation::Explained(answer) = explanation else {
            panic!("{explanation:?}");
        };
        assert_eq!((&*answer.explainer, &*answer.verdict), ("shipped", "application-error"));
    }
}

#[test]
fn an_explainer_that_fails_costs_its_own_answer_only() {
    for code in [TRAP, LOOP] {
        let bench = Bench::new().hostile(&Hostile::explainer(code)).shipped_explainer();
        let running = bench.start();
        check_shipped_answers(&explanations(&running, 6));
        let status = running.status("hostile");
        assert!(matches!(status.state, PluginState::Quarantined { .. }), "{status:#?}");
        assert_eq!(status.faults.trap + status.faults.timeout, 4, "{status:#?}");
    }
}

#[test]
fn an_answer_that_contradicts_the_contract_goes_to_the_next_explainer() {
    let running = Bench::new().hostile(&Hostile::explainer("")).shipped_explainer().start();
    check_shipped_answers(&explanations(&running, 2));
    let status = running.status("hostile");
    assert_eq!(status.state, PluginState::Running);
    assert_eq!(status.faults.guest_error, 2, "{status:#?}");
}

#[test]
fn the_first_verdict_is_the_explanation() {
    let running = Bench::new().shipped_explainer().hostile(&Hostile::explainer(TRAP)).start();
    check_shipped_answers(&explanations(&running, 2));
    assert_eq!(running.status("hostile").faults, Faults::default(), "nobody asked it");
}

#[test]
fn where_no_explainer_answers_the_reason_stands_in_the_place_of_a_verdict() {
    let running = Bench::new().hostile(&Hostile::explainer(TRAP)).start();
    for explanation in explanations(&running, 2) {
        let Explanation::Unexplained { reason } = explanation else {
            panic!("{explanation:?}");
        };
        assert!(reason.starts_with("no explainer answered: `hostile`: it trapped"), "{reason}");
    }
}
