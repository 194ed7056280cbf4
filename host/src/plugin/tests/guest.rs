//! Guests as component text.

/// What a text exports.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Reporter,
    StatefulReporter,
    Filter,
}

/// A guest as component text, with code of its own in each of its functions. The code may call `$log`
/// and `$emit`; whatever it does, the function then returns `ok`.
#[derive(Clone)]
pub(super) struct Hostile {
    pub(super) shape: Shape,
    pub(super) describe: String,
    pub(super) on_start: String,
    pub(super) on_batch: String,
    pub(super) on_tick: String,
    pub(super) save: String,
    pub(super) restore: String,
    pub(super) data: String,
}

impl Hostile {
    fn of(shape: Shape) -> Hostile {
        let nothing = String::new;
        Hostile {
            shape,
            describe: nothing(),
            on_start: nothing(),
            on_batch: nothing(),
            on_tick: nothing(),
            save: nothing(),
            restore: nothing(),
            data: nothing(),
        }
    }

    /// A reporter that does nothing.
    pub(super) fn new() -> Hostile {
        Hostile::of(Shape::Reporter)
    }

    /// A reporter that saves an empty state and takes any.
    pub(super) fn stateful() -> Hostile {
        Hostile::of(Shape::StatefulReporter)
    }

    /// A filter that goes by the first letter of a name below the root: it drops what begins with `d`,
    /// tags with 7 what begins with `t`, and keeps the rest.
    pub(super) fn filter() -> Hostile {
        Hostile::of(Shape::Filter)
    }

    pub(super) fn on_start(code: &str) -> Hostile {
        Hostile { on_start: code.to_owned(), ..Hostile::new() }
    }

    pub(super) fn on_batch(code: &str) -> Hostile {
        Hostile { on_batch: code.to_owned(), ..Hostile::new() }
    }

    pub(super) fn component(&self) -> Vec<u8> {
        let text = self.text();
        wat::parse_str(&text).unwrap_or_else(|error| panic!("{error}"))
    }

    pub(super) fn text(&self) -> String {
        let (main, exports, state) = match self.shape {
            Shape::Reporter => (REPORTER_MAIN, REPORTER_EXPORTS, ""),
            Shape::StatefulReporter => (REPORTER_MAIN, REPORTER_EXPORTS, STATE_EXPORTS),
            Shape::Filter => (FILTER_MAIN, FILTER_EXPORTS, ""),
        };
        [COMMON, exports, state, ")"]
            .concat()
            .replace("(;main;)", main)
            .replace("(;describe;)", &self.describe)
            .replace("(;start;)", &self.on_start)
            .replace("(;batch;)", &self.on_batch)
            .replace("(;tick;)", &self.on_tick)
            .replace("(;save;)", &self.save)
            .replace("(;restore;)", &self.restore)
            .replace("(;data;)", &self.data)
    }
}

/// What every text has. A result of zeros stands at 16: `ok`, and two empty strings. `emit` leaves its
/// own at 64, the result of `save` is at 160.
const COMMON: &str = r#"
(component
  (import "whodunit:plugin/log@0.1.0" (instance $log
    (type $l (enum "error" "warn" "info" "debug" "trace"))
    (export "level" (type $level (eq $l)))
    (export "write" (func (param "level" $level) (param "message" string)))))
  (import "whodunit:plugin/documents@0.1.0" (instance $documents
    (type $r (variant (case "unknown-output" string) (case "too-large" u64) (case "other" string)))
    (export "refusal" (type $refusal (eq $r)))
    (export "emit" (func (param "output" string) (param "body" (list u8))
      (result (result (error $refusal)))))))

  (core module $libc
    (memory (export "memory") 64)
    (global $top (mut i32) (i32.const 65536))
    (func (export "reset") (global.set $top (i32.const 65536)))
    (func (export "realloc") (param i32 i32 i32 i32) (result i32)
      (local $at i32)
      (local.set $at (i32.and (i32.add (global.get $top) (i32.const 7)) (i32.const -8)))
      (global.set $top (i32.add (local.get $at) (local.get 3)))
      (local.get $at)))
  (core instance $libc (instantiate $libc))
  (alias core export $libc "memory" (core memory $memory))
  (alias core export $libc "realloc" (core func $realloc))
  (alias export $log "write" (func $write))
  (alias export $documents "emit" (func $hand-over))
  (core func $log (canon lower (func $write) (memory (core memory $memory))))
  (core func $emit (canon lower (func $hand-over)
    (memory (core memory $memory)) (realloc (core func $realloc))))

  (core module $main
    (import "libc" "memory" (memory 64))
    (import "libc" "reset" (func $reset))
    (import "host" "log" (func $log (param i32 i32 i32)))
    (import "host" "emit" (func $emit (param i32 i32 i32 i32 i32)))
    (data (i32.const 1024) "report")
    (data (i32.const 1040) "nowhere")
    (data (i32.const 1056) "flood")
    (;data;)
    (func (export "describe") (result i32)
      (;describe;)
      (i32.const 16))
    (func (export "start") (param i32 i32 i32 i32 i32 i32) (result i32) (local $n i32)
      (;start;)
      (call $reset) (i32.const 16))
    (func (export "save") (result i32) (local $n i32)
      (;save;)
      (call $reset) (i32.const 160))
    (func (export "restore") (param i32 i32) (result i32) (local $n i32)
      (;restore;)
      (call $reset) (i32.const 16))
(;main;))
  (core instance $main (instantiate $main
    (with "libc" (instance $libc))
    (with "host" (instance (export "log" (func $log)) (export "emit" (func $emit))))))

  (alias core export $main "describe" (core func $main-describe))
  (alias core export $main "start" (core func $main-start))

  (type $description (record (field "name" string) (field "version" string)))
  (type $start-cause (variant (case "start") (case "replaced" string) (case "swapped") (case "other" string)))
  (type $context (record (field "name" string) (field "instance" u32) (field "cause" $start-cause)))
  (func $describe (result $description)
    (canon lift (core func $main-describe) (memory (core memory $memory))))
  (func $start (param "context" $context) (result (result (error string)))
    (canon lift (core func $main-start) (memory (core memory $memory))
      (realloc (core func $realloc))))
  (instance $lifecycle
    (export "description" (type $description))
    (export "cause" (type $start-cause))
    (export "context" (type $context))
    (export "describe" (func $describe))
    (export "start" (func $start)))
  (export "whodunit:plugin/lifecycle@0.1.0" (instance $lifecycle))

  (type $span (record (field "offset" u32) (field "length" u32)))
  (type $event (record (field "sequence" u64) (field "time" u64) (field "container" u32)
    (field "process" u32) (field "kind" u16) (field "flags" u16) (field "outcome" s32)
    (field "path" $span) (field "requested" $span) (field "attributes-first" u32)
    (field "attributes-count" u32)))
  (type $attribute (record (field "key" u16) (field "value" u64)))
  (type $batch (record (field "events" (list $event)) (field "attributes" (list $attribute))
    (field "text" (list u8)) (field "dropped" u64)))
"#;

const REPORTER_MAIN: &str = r#"
    (func (export "on-batch") (param i32 i32 i32 i32 i32 i32 i64) (result i32) (local $n i32)
      (;batch;)
      (call $reset) (i32.const 16))
    (func (export "on-tick") (param i64 i32 i32 i32 i32 i32 i32) (result i32) (local $n i32)
      (;tick;)
      (call $reset) (i32.const 16))"#;

const REPORTER_EXPORTS: &str = r#"
  (alias core export $main "on-batch" (core func $main-on-batch))
  (alias core export $main "on-tick" (core func $main-on-tick))
  (type $counter (record (field "name" string) (field "value" u64)))
  (type $totals (record (field "container" u32) (field "watched-since" u64)
    (field "from-birth" bool) (field "first-exec-seen" bool) (field "last-event" (option u64))
    (field "ended" (option u64)) (field "counters" (list $counter))))
  (type $cause (variant (case "interval") (case "stop") (case "request") (case "other" u16)))
  (type $tick (record (field "time" u64) (field "cause" $cause)
    (field "containers" (list $totals)) (field "counters" (list $counter))))
  (func $on-batch (param "batch" $batch) (result (result (error string)))
    (canon lift (core func $main-on-batch) (memory (core memory $memory))
      (realloc (core func $realloc))))
  (func $on-tick (param "tick" $tick) (result (result (error string)))
    (canon lift (core func $main-on-tick) (memory (core memory $memory))
      (realloc (core func $realloc))))
  (instance $reporter
    (export "span" (type $span))
    (export "event" (type $event))
    (export "attribute" (type $attribute))
    (export "batch" (type $batch))
    (export "counter" (type $counter))
    (export "container-totals" (type $totals))
    (export "cause" (type $cause))
    (export "tick" (type $tick))
    (export "on-batch" (func $on-batch))
    (export "on-tick" (func $on-tick)))
  (export "whodunit:plugin/reporter@0.1.0" (instance $reporter))
"#;

/// Verdicts stand at 3 MiB, and the result at 128.
const FILTER_MAIN: &str = r#"
    (func (export "on-batch") (param i32 i32 i32 i32 i32 i32 i64) (result i32)
      (local $n i32) (local $first i32) (local $verdict i32)
      (i32.store (i32.const 128) (i32.const 0))
      (i32.store (i32.const 132) (i32.const 3145728))
      (i32.store (i32.const 136) (local.get 1))
      (block $done (loop $next
        (br_if $done (i32.ge_u (local.get $n) (local.get 1)))
        (local.set $first (i32.load8_u offset=1 (i32.add (local.get 4)
          (i32.load offset=32 (i32.add (local.get 0) (i32.mul (local.get $n) (i32.const 56)))))))
        (local.set $verdict (i32.add (i32.const 3145728) (i32.mul (local.get $n) (i32.const 8))))
        (i32.store (local.get $verdict) (i32.const 0))
        (if (i32.eq (local.get $first) (i32.const 100))
          (then (i32.store8 (local.get $verdict) (i32.const 1))))
        (if (i32.eq (local.get $first) (i32.const 116))
          (then (i32.store8 (local.get $verdict) (i32.const 2))
            (i32.store offset=4 (local.get $verdict) (i32.const 7))))
        (local.set $n (i32.add (local.get $n) (i32.const 1)))
        (br $next)))
      (;batch;)
      (call $reset) (i32.const 128))"#;

const FILTER_EXPORTS: &str = r#"
  (alias core export $main "on-batch" (core func $main-on-batch))
  (type $verdict (variant (case "keep") (case "drop") (case "tag" u32) (case "other" u32)))
  (func $on-batch (param "batch" $batch) (result (result (list $verdict) (error string)))
    (canon lift (core func $main-on-batch) (memory (core memory $memory))
      (realloc (core func $realloc))))
  (instance $filter
    (export "span" (type $span))
    (export "event" (type $event))
    (export "attribute" (type $attribute))
    (export "batch" (type $batch))
    (export "verdict" (type $verdict))
    (export "on-batch" (func $on-batch)))
  (export "whodunit:plugin/filter@0.1.0" (instance $filter))
"#;

const STATE_EXPORTS: &str = r#"
  (alias core export $main "save" (core func $main-save))
  (alias core export $main "restore" (core func $main-restore))
  (func $save (result (result (list u8) (error string)))
    (canon lift (core func $main-save) (memory (core memory $memory))))
  (func $restore (param "state" (list u8)) (result (result (error string)))
    (canon lift (core func $main-restore) (memory (core memory $memory))
      (realloc (core func $realloc))))
  (instance $state
    (export "save" (func $save))
    (export "restore" (func $restore)))
  (export "whodunit:plugin/state@0.1.0" (instance $state))
"#;

pub(super) const LOOP: &str = "(loop $again (br $again))";
pub(super) const TRAP: &str = "(unreachable)";
/// Grows until it gets no more, and then does what a Rust guest does: it aborts.
pub(super) const GROW: &str = "
    (loop $again (br_if $again (i32.ne (memory.grow (i32.const 16)) (i32.const -1))))
    (unreachable)";

/// `emit("report", bytes of the guest's memory from 0 on)`.
pub(super) fn emit(length: u32) -> String {
    format!(
        "(call $emit (i32.const 1024) (i32.const 6) (i32.const 0) (i32.const {length}) (i32.const 64))"
    )
}
