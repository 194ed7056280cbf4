//! Guests written as text: hostile ones, and ones that this daemon must not take.
//!
//! A guest is a core module in the canonical ABI of the contract in `wit/`, made a component.

use libtest_mimic::Failed;
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::{Resolve, SourceMap};

use crate::report::repository;

/// The version of the contract that the daemon has.
const CONTRACT: &str = "0.1.0";

/// A guest of the world `reporter-plugin`: what it does in its calls, as instructions of WebAssembly
/// text that leave the address of a result on the stack.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Guest {
    /// Pages of memory (64 KiB each) that it starts with.
    pub(crate) pages: u32,
    /// In `on-batch`.
    pub(crate) on_batch: &'static str,
    /// In `on-tick`.
    pub(crate) on_tick: &'static str,
}

/// Leaves the address of a result without error: what is there is zero.
pub(crate) const OK: &str = "(i32.const 1024)";

impl Guest {
    /// The core module.
    pub(crate) fn module(&self, version: &str) -> Result<Vec<u8>, Failed> {
        let Guest { pages, on_batch, on_tick } = self;
        // At 0 its name and version; at 64 its description; at 1024 a result without error; at 2048
        // where `emit` leaves its answer; what the host hands over begins at 65,536.
        let text = format!(
            r#"(module
              (import "whodunit:plugin/log@{version}" "write"
                (func $log (param i32 i32 i32)))
              (import "whodunit:plugin/documents@{version}" "emit"
                (func $emit (param i32 i32 i32 i32 i32)))
              (memory (export "memory") {pages})
              (global $free (mut i32) (i32.const 65536))
              (data (i32.const 0) "hostile")
              (data (i32.const 16) "1.0.0")
              (data (i32.const 32) "report")
              (data (i32.const 64) "\00\00\00\00\07\00\00\00\10\00\00\00\05\00\00\00")
              (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
                (local $place i32)
                (local.set $place (i32.and (i32.add (global.get $free) (i32.const 15)) (i32.const -16)))
                (global.set $free (i32.add (local.get $place) (local.get 3)))
                (if (i32.gt_u (global.get $free) (i32.mul (memory.size) (i32.const 65536)))
                  (then
                    (if (i32.eq (i32.const -1) (memory.grow (i32.add (i32.const 1)
                          (i32.div_u (local.get 3) (i32.const 65536)))))
                      (then (unreachable)))))
                (local.get $place))
              (func (export "whodunit:plugin/lifecycle@{version}#describe") (result i32)
                (i32.const 64))
              (func (export "whodunit:plugin/lifecycle@{version}#start")
                (param i32 i32 i32 i32 i32 i32) (result i32)
                {OK})
              (func (export "whodunit:plugin/reporter@{version}#on-batch")
                (param i32 i32 i32 i32 i32 i32 i64) (result i32)
                (local $count i32)
                (global.set $free (i32.const 65536))
                {on_batch})
              (func (export "whodunit:plugin/reporter@{version}#on-tick")
                (param i64 i32 i32 i32 i32 i32 i32) (result i32)
                (local $count i32)
                (global.set $free (i32.const 65536))
                {on_tick}))"#
        );
        Ok(wat::parse_str(text)?)
    }

    /// The component.
    pub(crate) fn component(&self) -> Result<Vec<u8>, Failed> {
        self.component_for(CONTRACT)
    }

    /// The component, built against the contract under another version number.
    pub(crate) fn component_for(&self, version: &str) -> Result<Vec<u8>, Failed> {
        componentize(self.module(version)?, version, "reporter-plugin")
    }
}

/// What every guest has that a host hands a bounded amount over to: its memory, what the host allocates in it up to `end`, its
/// name, and its life. At 64 its description; the rest as above. The code of `start` has a place of its own.
fn basics(name: &str, end: u32) -> String {
    let name_bytes = name.len();
    format!(
        r#"(memory (export "memory") 64)
          (global $free (mut i32) (i32.const 65536))
          (data (i32.const 0) "{name}")
          (data (i32.const 16) "1.0.0")
          (data (i32.const 64) "\00\00\00\00\{name_bytes:02x}\00\00\00\10\00\00\00\05\00\00\00")
          (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
            (local $place i32)
            (local.set $place (i32.and (i32.add (global.get $free) (i32.const 15)) (i32.const -16)))
            (global.set $free (i32.add (local.get $place) (local.get 3)))
            (if (i32.gt_u (global.get $free) (i32.const {end})) (then (unreachable)))
            (local.get $place))
          (func (export "whodunit:plugin/lifecycle@{CONTRACT}#describe") (result i32)
            (i32.const 64))
          (func (export "whodunit:plugin/lifecycle@{CONTRACT}#start")
            (param i32 i32 i32 i32 i32 i32) (result i32)
            (;start;)
            {OK})"#
    )
}

/// A reporter with state that counts: every tick it emits how many events it saw (8 bytes, little-endian),
/// the number of the last one (8), and how often a number was not the one after the last (8). `version` is
/// another component for each. `odd` gives code for some of its functions, by their names.
pub(crate) fn counting_component(version: u32, odd: &[(&str, &str)]) -> Result<Vec<u8>, Failed> {
    // As above; what it knows stands at 3,000, `save` answers from 4,096.
    let basics = basics("counts", 4_194_304);
    let text = format!(
        r#"(module
          (import "whodunit:plugin/documents@{CONTRACT}" "emit"
            (func $emit (param i32 i32 i32 i32 i32)))
          {basics}
          (data (i32.const 32) "report")
          (data (i32.const 5000) "version {version}")
          (func (export "whodunit:plugin/reporter@{CONTRACT}#on-batch")
            (param i32 i32 i32 i32 i32 i32 i64) (result i32)
            (local $event i32) (local $left i32) (local $number i64)
            (global.set $free (i32.const 65536))
            (local.set $event (local.get 0))
            (local.set $left (local.get 1))
            (block $done
              (loop $next
                (br_if $done (i32.eqz (local.get $left)))
                (local.set $number (i64.load (local.get $event)))
                (if (i64.ne (local.get $number) (i64.add (i64.load (i32.const 3008)) (i64.const 1)))
                  (then (i64.store (i32.const 3016)
                    (i64.add (i64.load (i32.const 3016)) (i64.const 1)))))
                (i64.store (i32.const 3000) (i64.add (i64.load (i32.const 3000)) (i64.const 1)))
                (i64.store (i32.const 3008) (local.get $number))
                (local.set $event (i32.add (local.get $event) (i32.const 56)))
                (local.set $left (i32.sub (local.get $left) (i32.const 1)))
                (br $next)))
            {OK})
          (func (export "whodunit:plugin/reporter@{CONTRACT}#on-tick")
            (param i64 i32 i32 i32 i32 i32 i32) (result i32)
            (global.set $free (i32.const 65536))
            (call $emit (i32.const 32) (i32.const 6) (i32.const 3000) (i32.const 24) (i32.const 2048))
            {OK})
          (func (export "whodunit:plugin/state@{CONTRACT}#save") (result i32)
            (i32.store (i32.const 4100) (i32.const 3000))
            (i32.store (i32.const 4104) (i32.const 24))
            (i32.const 4096))
          (func (export "whodunit:plugin/state@{CONTRACT}#restore") (param i32 i32) (result i32)
            (;restore;)
            (memory.copy (i32.const 3000) (local.get 0) (i32.const 24))
            (global.set $free (i32.const 65536))
            {OK}))"#
    );
    let text = odd
        .iter()
        .fold(text, |text, (function, code)| text.replace(&format!("(;{function};)"), code));
    componentize(wat::parse_str(text)?, CONTRACT, "stateful-reporter-plugin")
}

/// A filter that drops the events whose path is so many bytes long, and traps where one is as long as `traps` says.
pub(crate) fn filter_component(length: u32, traps: Option<u32>) -> Result<Vec<u8>, Failed> {
    let traps = traps.unwrap_or(u32::MAX);
    // As above; verdicts, of 8 bytes each, stand at 262,144.
    let basics = basics("filter", 262_144);
    let text = format!(
        r#"(module
          {basics}
          (func (export "whodunit:plugin/filter@{CONTRACT}#on-batch")
            (param i32 i32 i32 i32 i32 i32 i64) (result i32)
            (local $index i32) (local $length i32)
            (global.set $free (i32.const 65536))
            (block $done
              (loop $next
                (br_if $done (i32.ge_u (local.get $index) (local.get 1)))
                (local.set $length (i32.load offset=36
                  (i32.add (local.get 0) (i32.mul (local.get $index) (i32.const 56)))))
                (if (i32.eq (local.get $length) (i32.const {traps})) (then (unreachable)))
                (i32.store
                  (i32.add (i32.const 262144) (i32.mul (local.get $index) (i32.const 8)))
                  (i32.eq (local.get $length) (i32.const {length})))
                (local.set $index (i32.add (local.get $index) (i32.const 1)))
                (br $next)))
            (i32.store (i32.const 4100) (i32.const 262144))
            (i32.store (i32.const 4104) (local.get 1))
            (i32.const 4096)))"#
    );
    componentize(wat::parse_str(text)?, CONTRACT, "filter-plugin")
}

/// An explainer that runs this code, and then has this verdict for every death, a headline of its own, and is sure
/// by half.
pub(crate) fn explainer_component(verdict: &str, code: &str) -> Result<Vec<u8>, Failed> {
    let headline = "a trial of another explainer";
    let (verdict_bytes, headline_bytes) = (verdict.len(), headline.len());
    // As above; its answer stands at 2,048.
    let basics = basics("explainer", 4_194_304);
    let text = format!(
        r#"(module
          {basics}
          (data (i32.const 3000) "{verdict}")
          (data (i32.const 4000) "{headline}")
          (func (export "whodunit:plugin/explainer@{CONTRACT}#explain") (param i32) (result i32)
            (global.set $free (i32.const 65536))
            {code}
            (i32.store offset=4 (i32.const 2048) (i32.const 3000))
            (i32.store offset=8 (i32.const 2048) (i32.const {verdict_bytes}))
            (i32.store offset=12 (i32.const 2048) (i32.const 4000))
            (i32.store offset=16 (i32.const 2048) (i32.const {headline_bytes}))
            (i32.store8 offset=28 (i32.const 2048) (i32.const 50))
            (i32.const 2048)))"#
    );
    componentize(wat::parse_str(text)?, CONTRACT, "explainer-plugin")
}

/// A component of a core module, for a world of the contract.
fn componentize(mut module: Vec<u8>, version: &str, world: &str) -> Result<Vec<u8>, Failed> {
    let mut sources = SourceMap::new();
    for entry in std::fs::read_dir(repository().join("wit"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "wit") {
            let text = std::fs::read_to_string(&path)?;
            let text = text.replace(&format!("@{CONTRACT}"), &format!("@{version}"));
            sources.push(&path, text);
        }
    }
    let group = sources.parse().map_err(|(sources, error)| error.highlight(&sources))?;
    let mut resolve = Resolve::default();
    let package = resolve.push_group(group).map_err(|error| error.to_string())?;
    let world = resolve.select_world(&[package], Some(world))?;
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8)?;
    Ok(ComponentEncoder::default().module(&module)?.validate(true).encode()?)
}

/// A guest that does nothing: a good neighbour.
pub(crate) const QUIET: Guest = Guest { pages: 1, on_batch: OK, on_tick: OK };
