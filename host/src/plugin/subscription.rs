//! Which events a plugin gets: by kind, and by the name of their container.
//!
//! Asked twice: when a batch is queued, so that one without a wanted event costs nothing, and before
//! events are lowered, so that the others cost nothing either.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use globset::GlobSet;

use super::role::Role;
use crate::config;
use crate::directory::Directory;
use crate::event::{Batch, ContainerId, Event, Tick};
use crate::kinds::Kinds;
use crate::patterns;

/// What a plugin gets that asks for nothing by name. What happens to processes is made for those who ask for it.
const UNASKED: Kinds = Kinds::ALL.without(Kinds::PROCESSES);

/// The events that a plugin gets.
pub(super) struct Subscription {
    kinds: Kinds,
    names: Option<Names>,
}

/// The containers that a plugin gets the events of.
struct Names {
    patterns: GlobSet,
    directory: Arc<Directory>,
    /// What is known of each container. Names can change: forgotten at every tick.
    known: Mutex<HashMap<ContainerId, bool>>,
}

impl Subscription {
    /// What the TOML says. Words and patterns were checked when it was read. A filter is asked
    /// about files only.
    pub(super) fn new(
        plugin: &config::Plugin,
        role: Role,
        directory: &Arc<Directory>,
    ) -> Subscription {
        let named = plugin.events.iter().filter_map(|word| Kinds::named(word));
        let kinds = match plugin.events.is_empty() {
            true => UNASKED,
            false => named.fold(Kinds::NONE, Kinds::with),
        };
        let kinds = match role {
            Role::Filter => kinds.only(Kinds::FILES),
            Role::Reporter | Role::Explainer => kinds,
        };
        let names = (!plugin.containers.is_empty()).then(|| Names {
            patterns: patterns::any_of(&plugin.containers),
            directory: Arc::clone(directory),
            known: Mutex::default(),
        });
        Subscription { kinds, names }
    }

    /// The kinds that it gets.
    pub(super) fn kinds(&self) -> Kinds {
        self.kinds
    }

    /// Every event.
    #[cfg(test)]
    pub(super) fn everything() -> Subscription {
        Subscription { kinds: Kinds::ALL, names: None }
    }

    /// How many events of a batch are wanted. `kinds` are those of its events.
    pub(super) fn count(&self, batch: &Batch, kinds: Kinds) -> usize {
        if self.names.is_none() && kinds.without(self.kinds) == Kinds::NONE {
            return batch.events.len();
        }
        if !self.kinds.meet(kinds) {
            return 0;
        }
        batch.events.iter().filter(|event| self.wants(event)).count()
    }

    /// Whether an event is wanted.
    pub(super) fn wants(&self, event: &Event) -> bool {
        self.kinds.meet(Kinds::of(event.kind)) && self.wants_container(event.container)
    }

    /// The batch with the wanted events only, and nothing that only others refer to. None where all
    /// are wanted.
    pub(super) fn narrowed(&self, batch: &Batch) -> Option<Batch> {
        if batch.events.iter().all(|event| self.wants(event)) {
            return None;
        }
        let mut narrow = Batch::default();
        batch.events.iter().filter(|event| self.wants(event)).for_each(|event| {
            narrow.push_event_of(batch, event);
        });
        Some(narrow)
    }

    /// The tick with the wanted containers only. None where all are wanted.
    pub(super) fn narrowed_tick(&self, tick: &Tick) -> Option<Tick> {
        let names = self.names.as_ref()?;
        names.known.lock().expect("no holder of this lock panics").clear();
        let wanted = tick.containers.iter().filter(|it| self.wants_container(it.container));
        Some(Tick {
            time: tick.time,
            cause: tick.cause,
            containers: wanted.cloned().collect(),
            counters: tick.counters.clone(),
        })
    }

    fn wants_container(&self, container: ContainerId) -> bool {
        let Some(names) = &self.names else {
            return true;
        };
        let mut known = names.known.lock().expect("no holder of this lock panics");
        *known.entry(container).or_insert_with(|| {
            let container = names.directory.container(container);
            container.is_some_and(|container| names.patterns.is_match(container.name))
        })
    }
}
