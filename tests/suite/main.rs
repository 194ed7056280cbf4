//! The integration tests: the real daemon on real containers, with known content and exact
//! expectations.
//!
//! Every trial makes what it needs and removes it again, under names that nobody else has, so trials
//! run in parallel. A trial that cannot run on this machine is ignored and says why.

mod api_server;
mod bad_input;
mod beneath;
mod browser;
mod capture;
mod churn;
mod commands;
mod coverage;
mod crash;
mod deaths;
mod discovery;
mod documents;
mod exact;
mod guests;
mod harness;
mod hostile;
mod http;
mod kubelet;
mod languages;
mod machine;
mod manifests;
mod names;
mod otlp;
mod outgoing;
mod pods;
mod privileges;
mod receivers;
mod recording;
mod registry;
mod report;
mod restart;
mod roads;
mod seed;
mod slim;
mod status;
mod swaps;
mod tricks;
mod volume;

use libtest_mimic::{Arguments, Completion, Failed, Trial};

/// What a trial returns.
type Outcome = Result<(), Failed>;

/// Daemons and containers at once: more only makes each of them slower.
const PARALLEL_TRIALS: usize = 2;

fn main() -> std::process::ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(PARALLEL_TRIALS);
    let images = kubelet::Images::default();
    let mut trials: Vec<Trial> = [
        harness::trials(),
        discovery::trials(),
        capture::trials(),
        roads::trials(),
        exact::trials(),
        beneath::trials(),
        tricks::trials(),
        restart::trials(),
        swaps::trials(),
        recording::trials(),
        registry::trials(),
        languages::trials(),
        documents::trials(),
        volume::trials(),
        crash::trials(),
        deaths::trials(),
        hostile::trials(),
        slim::trials(),
        commands::trials(),
        bad_input::trials(),
        status::trials(),
        http::trials(),
        privileges::trials(),
        churn::trials(),
        names::trials(&images),
        manifests::trials(),
        pods::trials(&images),
        seed::trials(&images),
        outgoing::trials(),
        otlp::trials(),
    ]
    .into_iter()
    .flatten()
    .collect();
    let names = trials.iter().map(|trial| trial.name().to_owned()).collect();
    trials.push(coverage::trial(names));
    keep_wanted(&mut arguments, &mut trials);
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// Several filters in one run, with commas in between: what a machine lacks is found out once for all.
fn keep_wanted(arguments: &mut Arguments, trials: &mut Vec<Trial>) {
    if let Some(several) = arguments.filter.take_if(|filter| filter.contains(',')) {
        let filters: Vec<&str> = several.split(',').collect();
        trials.retain(|trial| filters.iter().any(|filter| trial.name().contains(filter)));
    }
}

/// A claim about containers alone.
fn about_containers(name: &'static str, test: fn() -> Outcome) -> Trial {
    needing(name, machine::lacks_for_containers, test)
}

/// A claim about the daemon that captures.
fn about_capture(name: &'static str, test: fn() -> Outcome) -> Trial {
    needing(name, machine::lacks_for_capture, test)
}

/// A trial that is ignored, with the reason, where the machine lacks something.
fn needing(
    name: impl Into<String>,
    lacks: impl FnOnce() -> Option<&'static str> + Send + 'static,
    test: impl FnOnce() -> Outcome + Send + 'static,
) -> Trial {
    Trial::ignorable_test(name, move || match lacks() {
        Some(reason) => Ok(Completion::ignored_with(reason)),
        None => test().map(|()| Completion::Completed),
    })
}
