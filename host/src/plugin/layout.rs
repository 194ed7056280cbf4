//! Events and attributes in the very bytes that guests see: the canonical ABI's layout of the contract's
//! records, so that a list of them is handed over in one copy.
//!
//! The engine writes a list of records field by field, and finds the guest's memory again for each. A
//! batch is nothing but such lists, at the rate of the events: written so, they cost more than what a
//! reporter does with them. These two records are numbers only, and their layout is fixed (Component
//! Model, Canonical ABI: fields in their order, each aligned to its size, little endian), so it is
//! written down here once; everything else goes the engine's own way.
//!
//! The engine's derive macro implements the same traits. What they are made of is public for it, but not
//! documented, and may be another with the engine's next major release: then this does not compile, and
//! the tests below compare each byte with what the engine itself writes.

#![expect(
    unsafe_code,
    reason = "the engine's traits for types of a layout of one's own are unsafe"
)]

use std::mem::MaybeUninit;

use wasmtime::component::__internal::{
    CanonicalAbiInfo, InstanceType, InterfaceType, LowerContext,
};
use wasmtime::component::{ComponentType, Lower};
use zerocopy::little_endian::{I32, U16, U32, U64};
use zerocopy::{Immutable, IntoBytes};

use super::bindings::whodunit::plugin::types;
use crate::event;

/// The record `span`.
#[derive(Clone, Copy, IntoBytes, Immutable)]
#[repr(C)]
struct Span {
    offset: U32,
    length: U32,
}

/// The record `event`.
#[derive(Clone, Copy, IntoBytes, Immutable)]
#[repr(C)]
pub(super) struct Event {
    sequence: U64,
    time: U64,
    container: U32,
    process: U32,
    kind: U16,
    flags: U16,
    outcome: I32,
    path: Span,
    requested: Span,
    attributes_first: U32,
    attributes_count: U32,
}

/// The record `attribute`.
#[derive(Clone, Copy, IntoBytes, Immutable)]
#[repr(C)]
pub(super) struct Attribute {
    key: U16,
    /// The value is aligned to its size.
    padding: [u8; 6],
    value: U64,
}

impl From<&event::Event> for Event {
    fn from(event: &event::Event) -> Event {
        Event {
            sequence: event.sequence.into(),
            time: event.time.0.into(),
            container: event.container.0.into(),
            process: event.process.map_or(0, |process| process.0).into(),
            kind: event.kind.code().into(),
            flags: event.flags.0.into(),
            outcome: event.outcome.into(),
            path: event.path.into(),
            requested: event.requested.into(),
            attributes_first: event.attributes_first.into(),
            attributes_count: event.attributes_count.into(),
        }
    }
}

impl From<event::Span> for Span {
    fn from(span: event::Span) -> Span {
        Span { offset: span.offset.into(), length: span.length.into() }
    }
}

impl From<&event::Attribute> for Attribute {
    fn from(attribute: &event::Attribute) -> Attribute {
        Attribute {
            key: attribute.key.code().into(),
            padding: [0; 6],
            value: attribute.value.into(),
        }
    }
}

/// A record of the contract whose bytes are those of the type that it is implemented for.
pub(super) trait Record: IntoBytes + Immutable + Sized {
    /// The record, as the engine's own code has it.
    type Plain: ComponentType;
}

impl Record for Event {
    type Plain = types::Event;
}

impl Record for Attribute {
    type Plain = types::Attribute;
}

/// Puts records to where the engine made room for them.
fn store<R: Record, T>(cx: &mut LowerContext<'_, T>, offset: usize, records: &[R]) {
    const {
        assert!(size_of::<R>() == R::Plain::SIZE32, "the layout is not that of the contract");
    }
    let bytes = records.as_bytes();
    cx.as_slice_mut()[offset..][..bytes.len()].copy_from_slice(bytes);
}

/// Implements the engine's traits for a record that stands in lists only.
macro_rules! in_lists {
    ($record:ty) => {
        // SAFETY: size, alignment and the check of the type are those of the engine's own type for this
        // record, and so is `Lower`, which nothing is ever written to.
        unsafe impl ComponentType for $record {
            type Lower = <<$record as Record>::Plain as ComponentType>::Lower;
            const ABI: CanonicalAbiInfo = <<$record as Record>::Plain as ComponentType>::ABI;
            const MAY_REQUIRE_REALLOC: bool = false;

            fn typecheck(ty: &InterfaceType, types: &InstanceType<'_>) -> wasmtime::Result<()> {
                <<$record as Record>::Plain as ComponentType>::typecheck(ty, types)
            }
        }

        // SAFETY: what succeeds has written the record's bytes, all of them numbers and each pattern of
        // theirs valid, to the place that it was given; outside of the guest's memory it panics.
        unsafe impl Lower for $record {
            fn linear_lower_to_flat<T>(
                &self,
                _: &mut LowerContext<'_, T>,
                _: InterfaceType,
                _: &mut MaybeUninit<Self::Lower>,
            ) -> wasmtime::Result<()> {
                Err(wasmtime::Error::msg("the contract has no such record outside of lists"))
            }

            fn linear_lower_to_memory<T>(
                &self,
                cx: &mut LowerContext<'_, T>,
                _: InterfaceType,
                offset: usize,
            ) -> wasmtime::Result<()> {
                store(cx, offset, std::slice::from_ref(self));
                Ok(())
            }

            fn linear_store_list_to_memory<T>(
                cx: &mut LowerContext<'_, T>,
                _: InterfaceType,
                offset: usize,
                items: &[Self],
            ) -> wasmtime::Result<()> {
                store(cx, offset, items);
                Ok(())
            }
        }
    };
}

in_lists!(Event);
in_lists!(Attribute);

#[cfg(test)]
mod tests {
    use wasmtime::component::{Component, Linker};
    use wasmtime::{Engine, Store};

    use super::*;
    use crate::event::{
        AttributeKey, ContainerId, Event as Plain, Flags, Kind, ProcessId, UnixNanos,
    };

    /// A guest that gives back the memory in which it found a list.
    const MIRROR: &str = r#"
(component
  (core module $main
    (memory (export "memory") 1)
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 64))
    (func $mirror (param $at i32) (param $bytes i32) (result i32)
      (i32.store (i32.const 0) (local.get $at))
      (i32.store (i32.const 4) (local.get $bytes))
      (i32.const 0))
    (func (export "events") (param i32 i32) (result i32)
      (call $mirror (local.get 0) (i32.mul (local.get 1) (i32.const 56))))
    (func (export "attributes") (param i32 i32) (result i32)
      (call $mirror (local.get 0) (i32.mul (local.get 1) (i32.const 16)))))
  (core instance $main (instantiate $main))
  (alias core export $main "memory" (core memory $memory))
  (alias core export $main "realloc" (core func $realloc))
  (type $span' (record (field "offset" u32) (field "length" u32)))
  (export $span "span" (type $span'))
  (type $event' (record (field "sequence" u64) (field "time" u64) (field "container" u32)
    (field "process" u32) (field "kind" u16) (field "flags" u16) (field "outcome" s32)
    (field "path" $span) (field "requested" $span) (field "attributes-first" u32)
    (field "attributes-count" u32)))
  (export $event "event" (type $event'))
  (type $attribute' (record (field "key" u16) (field "value" u64)))
  (export $attribute "attribute" (type $attribute'))
  (func (export "events") (param "list" (list $event)) (result (list u8))
    (canon lift (core func $main "events") (memory $memory) (realloc $realloc)))
  (func (export "attributes") (param "list" (list $attribute)) (result (list u8))
    (canon lift (core func $main "attributes") (memory $memory) (realloc $realloc))))"#;

    /// What a fresh guest finds when it is called with this list.
    fn found<T: Lower + 'static>(function: &str, list: Vec<T>) -> wasmtime::Result<Vec<u8>> {
        let engine = Engine::default();
        let component = Component::new(&engine, wat::parse_str(MIRROR).unwrap())?;
        let mut store = Store::new(&engine, ());
        let instance = Linker::new(&engine).instantiate(&mut store, &component)?;
        let function = instance.get_typed_func::<(Vec<T>,), (Vec<u8>,)>(&mut store, function)?;
        Ok(function.call(&mut store, (list,))?.0)
    }

    /// Values that cannot be taken for each other.
    fn event() -> Plain {
        Plain {
            sequence: 0x0102_0304_0506_0708,
            time: UnixNanos(0x1112_1314_1516_1718),
            container: ContainerId(0x2122_2324),
            process: Some(ProcessId(0x3132_3334)),
            kind: Kind::CpuThrottled,
            flags: Flags(0x4142),
            outcome: -0x5152_5354,
            path: event::Span { offset: 0x6162_6364, length: 0x7172_7374 },
            requested: event::Span { offset: 0x8182_8384, length: 0x9192_9394 },
            attributes_first: 0xa1a2_a3a4,
            attributes_count: 0xb1b2_b3b4,
            ..Plain::plain(0, ContainerId(0))
        }
    }

    fn span(span: event::Span) -> types::Span {
        types::Span { offset: span.offset, length: span.length }
    }

    #[test]
    fn guests_find_events_as_the_engine_itself_writes_them() {
        let theirs = |event: &Plain| types::Event {
            sequence: event.sequence,
            time: event.time.0,
            container: event.container.0,
            process: event.process.map_or(0, |process| process.0),
            kind: event.kind.code(),
            flags: event.flags.0,
            outcome: event.outcome,
            path: span(event.path),
            requested: span(event.requested),
            attributes_first: event.attributes_first,
            attributes_count: event.attributes_count,
        };
        let events = [event(), Plain::plain(7, ContainerId(1)), event()];
        let expected = found("events", events.iter().map(theirs).collect()).unwrap();
        assert_eq!(expected.len(), 3 * 56);
        assert_eq!(found("events", events.iter().map(Event::from).collect()).unwrap(), expected);
        assert_eq!(found("events", Vec::<Event>::new()).unwrap(), b"");
    }

    #[test]
    fn guests_find_attributes_as_the_engine_itself_writes_them() {
        let theirs =
            |it: &event::Attribute| types::Attribute { key: it.key.code(), value: it.value };
        let attribute = |key, value| event::Attribute { key, value };
        let attributes = [
            attribute(AttributeKey::Device, u64::MAX - 1),
            attribute(AttributeKey::Periods, 0x0102_0304_0506_0708),
        ];
        let expected = found("attributes", attributes.iter().map(theirs).collect()).unwrap();
        assert_eq!(expected.len(), 2 * 16);
        let ours = attributes.iter().map(Attribute::from).collect();
        assert_eq!(found::<Attribute>("attributes", ours).unwrap(), expected);
    }

    #[test]
    fn a_list_of_other_records_is_refused() {
        let events = || vec![Event::from(&event())];
        assert!(found("attributes", events()).is_err());
        assert!(found("events", vec![0_u64]).is_err());
    }
}
