//! Values of the host in the contract's shape.

use wasmtime::component::{ComponentType, Lower};

use super::bindings::exports::whodunit::plugin::reporter;
use super::bindings::whodunit::plugin::types;
use super::layout::{Attribute, Event};
use crate::event::{self, Tick, TickCause};

/// The record `batch`, of lists whose elements have the contract's layout already.
#[derive(Clone, Copy, ComponentType, Lower)]
#[component(record)]
pub(super) struct Batch<'a> {
    events: &'a [Event],
    attributes: &'a [Attribute],
    text: &'a [u8],
    dropped: u64,
}

/// A batch in the contract's shape; kept for its memory.
#[derive(Default)]
pub(super) struct Lowered {
    events: Vec<Event>,
    attributes: Vec<Attribute>,
}

impl Lowered {
    /// The batch as guests get it.
    pub(super) fn batch<'a>(&'a mut self, batch: &'a event::Batch, dropped: u64) -> Batch<'a> {
        self.events.clear();
        self.events.extend(batch.events.iter().map(Event::from));
        self.attributes.clear();
        self.attributes.extend(batch.attributes.iter().map(Attribute::from));
        Batch { events: &self.events, attributes: &self.attributes, text: &batch.text, dropped }
    }
}

/// Calls `f` with the tick as guests get it.
pub(super) fn with_tick<T>(tick: &Tick, f: impl FnOnce(reporter::Tick<'_>) -> T) -> T {
    let counters: Vec<Vec<_>> =
        tick.containers.iter().map(|totals| counters_of(&totals.counters)).collect();
    let containers: Vec<_> = tick
        .containers
        .iter()
        .zip(&counters)
        .map(|(totals, counters)| reporter::ContainerTotals {
            container: totals.container.0,
            watched_since: totals.watched_since.0,
            from_birth: totals.from_birth,
            first_exec_seen: totals.first_exec_seen,
            last_event: totals.last_event.map(|time| time.0),
            ended: totals.ended.map(|time| time.0),
            counters,
        })
        .collect();
    f(reporter::Tick {
        time: tick.time.0,
        cause: match tick.cause {
            TickCause::Interval => reporter::Cause::Interval,
            TickCause::Stop => reporter::Cause::Stop,
            TickCause::Request => reporter::Cause::Request,
        },
        containers: &containers,
        counters: &counters_of(&tick.counters),
    })
}

fn counters_of(counters: &[event::Counter]) -> Vec<types::Counter<'static>> {
    let counter =
        |counter: &event::Counter| types::Counter { name: counter.name, value: counter.value };
    counters.iter().map(counter).collect()
}
