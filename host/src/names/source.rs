//! Somebody who may know what a container is called, and how it stands with them.
//!
//! Owns when a source is asked again that did not do well. Gives what it knows, and what is told of it in the log and
//! the status. A source that is missing, slow or wrong costs a bounded time now and then, and nothing else.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::directory::Container;
use crate::status::document::NameSourceStatus;

/// How long one question may take.
pub(super) const CALL: Duration = Duration::from_secs(1);
/// A source that is not there is looked for again after this.
const ABSENT_PAUSE: Duration = Duration::from_secs(5);
/// One that did not do well is asked again after this, and then after twice as long each time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest of these pauses.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Longest name of anything, in characters: the longest that Kubernetes allows.
const NAME_CHARACTERS: usize = 253;
/// Longest name of an image.
const IMAGE_CHARACTERS: usize = 512;
/// Labels of a container that are kept.
const LABELS: usize = 64;
/// Longest key of a label: a prefix, a slash and a name, as Kubernetes allows them.
const LABEL_KEY_BYTES: usize = 317;
/// Longest value of a label. Kubernetes allows 63 characters, Docker any number.
const LABEL_VALUE_BYTES: usize = 256;
/// Labels by which runtimes and kubelets say what is known here by other names.
const OWN_LABELS: [&str; 4] =
    ["io.kubernetes.", "io.cri-containerd.", "io.podman.", "annotation.io."];

/// What a source knows of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Names {
    /// What people call it.
    pub(super) name: Option<String>,
    pub(super) pod_name: Option<String>,
    pub(super) pod_namespace: Option<String>,
    pub(super) image: Option<String>,
    /// `sha256:...`, of the image's manifest.
    pub(super) image_digest: Option<String>,
    /// The id that the image has on this machine, where nobody knows its digest.
    pub(super) image_id: Option<String>,
    pub(super) labels: BTreeMap<String, String>,
    /// Whether it does nothing but hold the namespaces of a pod.
    pub(super) is_pause: bool,
}

impl Names {
    /// The attributes that come of it, bounded: whoever makes a container may choose its labels.
    pub(super) fn attributes(&self) -> Vec<(String, String)> {
        let named = [
            ("pod-name", &self.pod_name, NAME_CHARACTERS),
            ("pod-namespace", &self.pod_namespace, NAME_CHARACTERS),
            ("image", &self.image, IMAGE_CHARACTERS),
            ("image-digest", &self.image_digest, IMAGE_CHARACTERS),
            ("image-id", &self.image_id, IMAGE_CHARACTERS),
        ];
        let named = named.into_iter().filter_map(|(key, value, most)| {
            Some((key.to_owned(), clean(value.as_deref()?, most)?))
        });
        let mut attributes: Vec<_> = named.collect();
        let labels = self.labels.iter();
        let labels =
            labels.filter(|(key, _)| !OWN_LABELS.iter().any(|prefix| key.starts_with(prefix)));
        let (fit, unfit): (Vec<_>, Vec<_>) = labels.partition(|(key, value)| {
            let is_plain = |text: &str| !text.chars().any(char::is_control);
            key.len() <= LABEL_KEY_BYTES
                && value.len() <= LABEL_VALUE_BYTES
                && is_plain(key)
                && is_plain(value)
        });
        let left_out = unfit.len() + fit.len().saturating_sub(LABELS);
        let fit = fit.into_iter().take(LABELS);
        attributes.extend(fit.map(|(key, value)| (format!("label.{key}"), value.clone())));
        if left_out > 0 {
            attributes.push(("labels-left-out".to_owned(), left_out.to_string()));
        }
        attributes
    }

    /// The name, as far as it is one.
    pub(super) fn clean_name(&self) -> Option<String> {
        clean(self.name.as_deref()?, NAME_CHARACTERS)
    }
}

/// A text without what a terminal or a log would obey, and not longer than that many characters. None where nothing
/// is left.
fn clean(text: &str, most: usize) -> Option<String> {
    let kept: String = text.chars().filter(|it| !it.is_control()).take(most).collect();
    (!kept.is_empty()).then_some(kept)
}

/// The digest of an image in a reference to it, such as `docker.io/library/nginx@sha256:...`.
pub(super) fn digest_of(reference: &str) -> Option<String> {
    let (_, digest) = reference.split_once('@')?;
    digest.starts_with("sha256:").then(|| digest.to_owned())
}

/// Why a source says nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// There is nobody to ask.
    Absent(String),
    /// It was asked, and did not do well.
    Failed(String),
}

/// Somebody who may know.
pub(super) trait Source: Send {
    /// Its name, as `name_source` in documents.
    fn name(&self) -> &'static str;

    /// Where it is asked.
    fn place(&self) -> String;

    /// Whether it answers at once or not at all: it reads files.
    fn is_quick(&self) -> bool {
        false
    }

    /// What it knows of this container. None where it does not know it. May take `at_most` as long.
    fn names_of(
        &mut self,
        container: &Container,
        at_most: Duration,
    ) -> Result<Option<Names>, Trouble>;

    /// Asks whether anybody is there. Gives who, in a few words.
    fn greet(&mut self, at_most: Duration) -> Result<String, Trouble>;
}

/// How it stands with a source.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Standing {
    NotAsked,
    Answers,
    Troubled(Trouble),
}

/// A source, and when it may be asked.
pub(super) struct Asked {
    source: Box<dyn Source>,
    standing: Standing,
    next: Instant,
    pause: Duration,
    named: u64,
}

impl Asked {
    pub(super) fn new(source: Box<dyn Source>) -> Asked {
        let next = Instant::now();
        Asked { source, standing: Standing::NotAsked, next, pause: FIRST_PAUSE, named: 0 }
    }

    pub(super) fn name(&self) -> &'static str {
        self.source.name()
    }

    /// What it knows, if it may be asked now and answers by then.
    pub(super) fn names_of(&mut self, container: &Container, by: Instant) -> Option<Names> {
        let now = Instant::now();
        let at_most = CALL.min(by.saturating_duration_since(now));
        if now < self.next || (at_most.is_zero() && !self.source.is_quick()) {
            return None;
        }
        let answer = self.source.names_of(container, at_most);
        self.stand(answer.as_ref().map(drop).map_err(Clone::clone));
        let names = answer.ok()??;
        self.named += 1;
        Some(names)
    }

    /// Remembers how it went, and says so where that is news.
    fn stand(&mut self, went: Result<(), Trouble>) {
        let (source, place) = (self.source.name(), self.source.place());
        let now = Instant::now();
        let standing = match went {
            Ok(()) => {
                self.pause = FIRST_PAUSE;
                if matches!(self.standing, Standing::Troubled(_)) {
                    tracing::info!(source, place, "names come from there now");
                }
                Standing::Answers
            }
            Err(trouble) => {
                let was_troubled = matches!(
                    (&self.standing, &trouble),
                    (Standing::Troubled(Trouble::Absent(_)), Trouble::Absent(_))
                        | (Standing::Troubled(Trouble::Failed(_)), Trouble::Failed(_))
                );
                match &trouble {
                    Trouble::Absent(why) => {
                        self.next = now + ABSENT_PAUSE;
                        if !was_troubled {
                            tracing::debug!(source, place, why, "no names come from there");
                        }
                    }
                    Trouble::Failed(why) => {
                        self.next = now + self.pause;
                        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
                        if !was_troubled {
                            tracing::warn!(source, place, why, "no names come from there");
                        }
                    }
                }
                Standing::Troubled(trouble)
            }
        };
        self.standing = standing;
    }

    fn status(&self) -> NameSourceStatus {
        let (state, reason) = match &self.standing {
            Standing::NotAsked => ("not-asked", None),
            Standing::Answers => ("answers", None),
            Standing::Troubled(Trouble::Absent(why)) => ("absent", Some(why.clone())),
            Standing::Troubled(Trouble::Failed(why)) => ("failing", Some(why.clone())),
        };
        NameSourceStatus {
            source: self.source.name().to_owned(),
            place: self.source.place(),
            state: state.to_owned(),
            reason,
            named: self.named,
        }
    }
}

/// How it stands with every source, for whoever asks from another thread.
#[derive(Clone, Debug, Default)]
pub struct Standings(Arc<Mutex<Vec<NameSourceStatus>>>);

impl Standings {
    /// In the order in which they are asked.
    pub fn status(&self) -> Vec<NameSourceStatus> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn put(&self, sources: &[Asked]) {
        let status = sources.iter().map(Asked::status).collect();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = status;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labelled(labels: &[(&str, &str)]) -> Vec<(String, String)> {
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        Names { labels: labels.collect(), ..Names::default() }.attributes()
    }

    #[test]
    fn labels_come_along_but_for_those_of_the_runtime() {
        let found = labelled(&[("app", "cart"), ("io.kubernetes.pod.uid", "1"), ("tier", "")]);
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(found, [pair("label.app", "cart"), pair("label.tier", "")]);
    }

    #[test]
    fn labels_that_are_no_labels_are_left_out_and_counted() {
        let long = "x".repeat(LABEL_VALUE_BYTES + 1);
        let found = labelled(&[("a", &long), ("b\n", ""), ("c", "\u{1b}"), ("d", "fine")]);
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(found, [pair("label.d", "fine"), pair("labels-left-out", "3")]);
    }

    #[test]
    fn a_container_of_many_labels_keeps_some_and_says_how_many_not() {
        let keys: Vec<String> = (0..LABELS + 7).map(|index| format!("key-{index:03}")).collect();
        let labels: Vec<(&str, &str)> = keys.iter().map(|key| (key.as_str(), "")).collect();
        let found = labelled(&labels);
        assert_eq!(found.len(), LABELS + 1);
        assert_eq!(found.last().unwrap().1, "7");
    }

    #[test]
    fn names_are_bounded_and_command_nobody() {
        let name = format!("we\u{1b}[31mb\n{}", "x".repeat(2 * NAME_CHARACTERS));
        let names = Names { name: Some(name), ..Names::default() };
        let clean = names.clean_name().unwrap();
        assert!(clean.starts_with("we[31mbx"), "{clean}");
        assert_eq!(clean.chars().count(), NAME_CHARACTERS);
        let names = Names { name: Some("\n\n".to_owned()), ..Names::default() };
        assert_eq!(names.clean_name(), None);
    }

    #[test]
    fn the_digest_is_what_stands_behind_the_at_sign() {
        let digest = "sha256:0123";
        assert_eq!(digest_of("docker.io/library/nginx@sha256:0123").as_deref(), Some(digest));
        assert_eq!(digest_of("sha256:0123"), None);
        assert_eq!(digest_of("nginx:1.29"), None);
    }
}
