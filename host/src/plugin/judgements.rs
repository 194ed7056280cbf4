//! What two versions of a filter say of the same events, and where they differ.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::between::Standing;
use super::filter::{self, Judged};
use super::imports::escaped;
use super::instance::{Instance, Loss};
use super::lower::Lowered;
use super::second::{Asked, Asker, Beside};
use super::shadow::Compared;
use crate::directory::Directory;
use crate::event::{Batch, Event};

/// So many events are shown of each kind of difference.
const SAMPLES: usize = 5;

/// Events that two filters judged differently, in one way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OtherJudgement {
    /// What the one that runs says: `keep`, `drop` or `tag`.
    pub running: String,
    /// What the one beside it says.
    pub shadow: String,
    /// Of how many events.
    pub events: u64,
    /// The first of them, each path of a container once.
    pub samples: Vec<JudgedEvent>,
}

/// An event that two filters judged differently.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JudgedEvent {
    /// Name of its container.
    pub container: String,
    /// What happened, as in the TOML.
    pub kind: String,
    /// Its path. Other bytes than UTF-8 are `\xNN`, and a backslash is `\\`.
    pub path: String,
    /// What the one that runs says, a tag with its number.
    pub running: String,
    /// What the one beside it says.
    pub shadow: String,
}

/// Asks filters.
pub(super) struct Judging {
    lowered: Lowered,
    directory: Arc<Directory>,
}

impl Judging {
    /// Names of containers are looked up in `directory`.
    pub(super) fn new(directory: &Arc<Directory>) -> Judging {
        Judging { lowered: Lowered::default(), directory: Arc::clone(directory) }
    }

    fn sample(&self, batch: &Batch, event: &Event, running: Judged, shadow: Judged) -> JudgedEvent {
        let container = self.directory.container(event.container);
        JudgedEvent {
            container: container.map_or_else(|| "unknown".to_owned(), |it| it.name),
            kind: event.kind.name().to_owned(),
            path: escaped(batch.text_of(event.path)),
            running: running.to_string(),
            shadow: shadow.to_string(),
        }
    }

    fn keep(
        &self,
        different: &mut Vec<OtherJudgement>,
        (batch, event): (&Batch, &Event),
        running: Judged,
        shadow: Judged,
    ) {
        let (one, other) = (running.word(), shadow.word());
        let at = different.iter().position(|it| it.running == one && it.shadow == other);
        let at = at.unwrap_or_else(|| {
            let (running, shadow) = (one.to_owned(), other.to_owned());
            different.push(OtherJudgement { running, shadow, events: 0, samples: Vec::new() });
            different.len() - 1
        });
        let difference = &mut different[at];
        difference.events += 1;
        if difference.samples.len() < SAMPLES {
            let sample = self.sample(batch, event, running, shadow);
            if !difference.samples.contains(&sample) {
                difference.samples.push(sample);
            }
        }
    }
}

impl Asker for Judging {
    type Question = Arc<Batch>;
    type Answer = Vec<Judged>;
    type Different = Vec<OtherJudgement>;

    fn ask(
        &mut self,
        instance: &mut Instance,
        batch: &Arc<Batch>,
        untold: u64,
    ) -> Result<Result<Vec<Judged>, String>, Loss> {
        filter::ask(instance, &mut self.lowered, batch, untold)
    }

    fn compare(
        &self,
        batch: &Arc<Batch>,
        running: &Vec<Judged>,
        shadow: &Vec<Judged>,
        different: &mut Vec<OtherJudgement>,
    ) -> u64 {
        let mut alike = 0;
        for ((event, running), shadow) in batch.events.iter().zip(running).zip(shadow) {
            if running == shadow {
                alike += 1;
            } else {
                self.keep(different, (batch, event), *running, *shadow);
            }
        }
        alike
    }

    fn beside(standing: Standing<'_>) -> Option<&mut Beside<Judging>> {
        match standing {
            Standing::Filter(filter) => Some(&mut filter.beside),
            Standing::Reporter(_) | Standing::Explainer(_) => None,
        }
    }

    fn told(asked: Asked<Vec<OtherJudgement>>) -> Compared {
        Compared::Judgements(asked)
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;
    use crate::event::ContainerId;

    #[test]
    fn what_differs_is_counted_by_how_and_shown_in_part() {
        let directory = Arc::new(Directory::new(NonZeroUsize::new(8).unwrap()));
        let judging = Judging::new(&directory);
        let mut batch = Batch::default();
        for number in 0..30_u64 {
            let path = batch.push_text(format!("/{}\\", number / 2).as_bytes());
            batch.events.push(Event { path, ..Event::plain(number, ContainerId(1)) });
        }
        let running = vec![Judged::Tag(7); 30];
        let mut shadow = vec![Judged::Drop; 30];
        shadow[..2].fill(Judged::Tag(7));
        shadow[29] = Judged::Tag(8);
        let mut different = Vec::new();
        let alike = judging.compare(&Arc::new(batch), &running, &shadow, &mut different);
        assert_eq!(alike, 2);
        let counted: Vec<_> =
            different.iter().map(|it| (&*it.running, &*it.shadow, it.events)).collect();
        assert_eq!(counted, [("tag", "drop", 27), ("tag", "tag", 1)]);
        // Two events have each path.
        assert_eq!(different[0].samples.len(), SAMPLES);
        let path = |at: usize| different[0].samples[at].path.as_str();
        assert_eq!((path(0), path(1)), ("/1\\\\", "/2\\\\"));
        let tagged = JudgedEvent {
            container: "unknown".to_owned(),
            kind: "open".to_owned(),
            path: "/14\\\\".to_owned(),
            running: "tag 7".to_owned(),
            shadow: "tag 8".to_owned(),
        };
        assert_eq!(different[1].samples, [tagged]);
    }
}
