//! Values of the host in the contract's shape.

use super::bindings::exports::whodunit::plugin::reporter;
use super::bindings::whodunit::plugin::types;
use crate::event::{self, Batch, Tick, TickCause};

/// A batch in the contract's shape; kept for its memory.
#[derive(Default)]
pub(super) struct Lowered {
    events: Vec<types::Event>,
    attributes: Vec<types::Attribute>,
}

impl Lowered {
    /// The batch as guests get it.
    pub(super) fn batch<'a>(&'a mut self, batch: &'a Batch, dropped: u64) -> types::Batch<'a> {
        self.events.clear();
        self.events.extend(batch.events.iter().map(event_of));
        self.attributes.clear();
        self.attributes.extend(batch.attributes.iter().map(attribute_of));
        types::Batch {
            events: &self.events,
            attributes: &self.attributes,
            text: &batch.text,
            dropped,
        }
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

fn event_of(event: &event::Event) -> types::Event {
    types::Event {
        sequence: event.sequence,
        time: event.time.0,
        container: event.container.0,
        process: event.process.map_or(0, |process| process.0),
        kind: event.kind.code(),
        flags: event.flags.0,
        outcome: event.outcome,
        path: span_of(event.path),
        requested: span_of(event.requested),
        attributes_first: event.attributes_first,
        attributes_count: event.attributes_count,
    }
}

fn span_of(span: event::Span) -> types::Span {
    types::Span { offset: span.offset, length: span.length }
}

fn attribute_of(attribute: &event::Attribute) -> types::Attribute {
    types::Attribute { key: attribute.key.code(), value: attribute.value }
}

fn counters_of(counters: &[event::Counter]) -> Vec<types::Counter<'static>> {
    let counter =
        |counter: &event::Counter| types::Counter { name: counter.name, value: counter.value };
    counters.iter().map(counter).collect()
}
