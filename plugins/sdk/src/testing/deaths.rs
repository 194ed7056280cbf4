//! Deaths for tests, evidence by evidence.

use crate::Death;
use crate::bindings::explainer::exports::whodunit::plugin::explainer as raw;
use crate::bindings::whodunit::plugin::types;
use crate::death::{Disposition, OomScope, Origin, Relation, SignalResult, Way, key};

/// Builds a death: first what is about the process and its container, then evidence, the oldest
/// first. What changes "the last" evidence comes after it.
#[derive(Clone, Debug)]
pub struct DeathBuilder {
    death: raw::Death,
}

impl DeathBuilder {
    /// A process `app` (pid 100) of the container `web` that ended with that status, as `wait` reports
    /// it, and of which nothing else was seen.
    pub fn new(status: u32) -> DeathBuilder {
        let death = raw::Death {
            time: 1_768_471_200_000_000_000,
            container_died: false,
            container: 1,
            process: 1,
            status,
            decided_by: None,
            attributes_count: 0,
            texts_count: 0,
            evidence: Vec::new(),
            attributes: Vec::new(),
            texts: Vec::new(),
            blob: Vec::new(),
            unseen: Vec::new(),
            losses: Vec::new(),
        };
        DeathBuilder { death }
            .number(key::PROCESS, 100)
            .text(key::text::NAME, "app")
            .text(key::text::CONTAINER, "web")
            .text(key::text::CGROUP, "/kubepods/pod1/web")
    }

    /// One that exited with that code.
    pub fn exited(code: u8) -> DeathBuilder {
        DeathBuilder::new(u32::from(code) << 8)
    }

    /// One that a signal ended.
    pub fn killed(signal: u8) -> DeathBuilder {
        DeathBuilder::new(u32::from(signal))
    }

    /// Makes it the container's first process, so that the container died.
    #[must_use]
    pub fn container_init(mut self) -> DeathBuilder {
        assert!(self.death.evidence.is_empty(), "what is about the process comes before evidence");
        self.death.container_died = true;
        self.number(key::CONTAINER_INIT, 1).number(key::NAMESPACE_PID, 1)
    }

    /// Adds evidence of any kind, so long before the death.
    #[must_use]
    pub fn evidence(mut self, kind: u16, before_ns: u64) -> DeathBuilder {
        self.death.evidence.push(raw::Evidence {
            before: before_ns,
            kind,
            process: 0,
            container: 0,
            attributes_first: self.death.attributes.len() as u32,
            attributes_count: 0,
            texts_first: self.death.texts.len() as u32,
            texts_count: 0,
        });
        self
    }

    /// Adds a number to the last evidence; before the first, to the process.
    #[must_use]
    pub fn number(mut self, key: u16, value: u64) -> DeathBuilder {
        self.death.attributes.push(types::Attribute { key, value });
        match self.death.evidence.last_mut() {
            Some(evidence) => evidence.attributes_count += 1,
            None => self.death.attributes_count += 1,
        }
        self
    }

    /// Adds a text to the last evidence; before the first, to the process.
    #[must_use]
    pub fn text(mut self, key: u16, value: &str) -> DeathBuilder {
        let offset = self.death.blob.len() as u32;
        self.death.blob.extend_from_slice(value.as_bytes());
        let value = types::Span { offset, length: value.len() as u32 };
        self.death.texts.push(raw::Text { key, value });
        match self.death.evidence.last_mut() {
            Some(evidence) => evidence.texts_count += 1,
            None => self.death.texts_count += 1,
        }
        self
    }

    /// Adds a signal that a process sent with `kill`, and that was on its way at once.
    #[must_use]
    pub fn signal(
        self,
        before_ns: u64,
        number: u8,
        disposition: Disposition,
        relation: Relation,
    ) -> DeathBuilder {
        self.raw_signal(before_ns, number, 0, Origin::User, Way::Kill)
            .text(key::text::DISPOSITION, disposition.word())
            .text(key::text::RELATION, relation.word())
    }

    /// Adds a signal that the kernel made.
    #[must_use]
    pub fn kernel_signal(self, before_ns: u64, number: u8, si_code: i32, way: Way) -> DeathBuilder {
        self.raw_signal(before_ns, number, si_code, Origin::Kernel, way)
            .text(key::text::DISPOSITION, Disposition::Default.word())
            .text(key::text::RELATION, Relation::Kernel.word())
            .text(key::text::ACTOR, "kernel")
    }

    fn raw_signal(
        self,
        before_ns: u64,
        number: u8,
        si_code: i32,
        origin: Origin,
        way: Way,
    ) -> DeathBuilder {
        self.evidence(key::kind::SIGNAL_GENERATED, before_ns)
            .number(key::SIGNAL, u64::from(number))
            .number(key::SI_CODE, i64::from(si_code).cast_unsigned())
            .text(key::text::ORIGIN, origin.word())
            .text(key::text::RESULT, SignalResult::Delivered.word())
            .text(key::text::WAY, way.word())
    }

    /// Makes the last evidence the work of that process.
    #[must_use]
    pub fn by(self, pid: u32, name: &str) -> DeathBuilder {
        self.text(key::text::ACTOR, "process")
            .number(key::PROCESS, u64::from(pid))
            .text(key::text::NAME, name)
    }

    /// Adds a parent to the process that was named last.
    #[must_use]
    pub fn ancestor(self, pid: u32, name: &str) -> DeathBuilder {
        self.number(key::ANCESTOR, u64::from(pid)).text(key::text::ANCESTOR, name)
    }

    /// Makes the last evidence the signal that ended the process.
    #[must_use]
    pub fn decides(mut self) -> DeathBuilder {
        self.death.decided_by = self.death.evidence.len().checked_sub(1).map(|last| last as u32);
        self
    }

    /// Adds a kill for want of memory.
    #[must_use]
    pub fn oom_kill(
        self,
        before_ns: u64,
        scope: OomScope,
        is_self: bool,
        cgroup: &str,
    ) -> DeathBuilder {
        self.evidence(key::kind::OOM_KILL, before_ns)
            .number(key::ONESELF, u64::from(is_self))
            .text(key::text::SCOPE, scope.word())
            .text(key::text::CGROUP, cgroup)
    }

    /// Says that this could not be seen.
    #[must_use]
    pub fn unseen(mut self, identifier: &str) -> DeathBuilder {
        self.death.unseen.push(identifier.to_owned());
        self
    }

    /// Says that so much was lost on the way.
    #[must_use]
    pub fn lost(mut self, name: &str, value: u64) -> DeathBuilder {
        self.death.losses.push(types::Counter { name: name.to_owned(), value });
        self
    }

    /// The death.
    pub fn build(self) -> Death {
        Death::new(self.death)
    }
}

/// A death in the shape of the contract, as a plugin reads it.
#[doc(hidden)]
pub fn death(raw: raw::Death) -> Death {
    Death::new(raw)
}
