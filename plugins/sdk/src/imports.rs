//! The daemon's side of the contract: the real one in a component, the test harness elsewhere.

use crate::bindings::whodunit::plugin::directory::{
    Container, Mount, Probe, Process, Surroundings,
};
use crate::bindings::whodunit::plugin::documents::Refusal;
use crate::bindings::whodunit::plugin::log::Level;

#[cfg(target_arch = "wasm32")]
use crate::bindings::whodunit::plugin::{clock, configuration, directory, documents, log};
#[cfg(not(target_arch = "wasm32"))]
use crate::testing::host::{clock, configuration, directory, documents, log};

pub(crate) fn log(level: Level, message: &str) {
    log::write(level, message);
}

pub(crate) fn configuration() -> String {
    configuration::json()
}

pub(crate) fn now() -> u64 {
    clock::now()
}

pub(crate) fn monotonic() -> u64 {
    clock::monotonic()
}

pub(crate) fn emit(output: &str, body: &[u8]) -> Result<(), Refusal> {
    documents::emit(output, body)
}

pub(crate) fn previous(output: &str) -> Option<Vec<u8>> {
    documents::previous(output)
}

pub(crate) fn container(id: u32) -> Option<Container> {
    directory::container_by_id(id)
}

pub(crate) fn mounts(container: u32) -> Vec<Mount> {
    directory::container_mounts(container)
}

pub(crate) fn process(id: u32) -> Option<Process> {
    directory::process_by_id(id)
}

pub(crate) fn probes() -> Vec<Probe> {
    directory::probes()
}

pub(crate) fn surroundings() -> Surroundings {
    directory::daemon_surroundings()
}
