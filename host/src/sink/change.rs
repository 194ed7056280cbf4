//! Other outputs while documents flow: what is new is opened first, what is gone is written out.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::{DAEMON, FileSink, GrowingFile, Outlet, SinkError, SinkId, Slot, StdoutSink, Target};
use crate::config;
use crate::post::{Courier, Endpoint};

/// Opens outputs, those that are there already left out. No two may share a file.
pub(super) fn open(
    outputs: impl Iterator<Item = (SinkId, config::Output)>,
    is_there: impl Fn(&SinkId, &config::Output) -> Option<Arc<Target>>,
) -> Result<BTreeMap<SinkId, (config::Output, Arc<Target>)>, SinkError> {
    let mut targets = BTreeMap::new();
    let mut paths: BTreeMap<PathBuf, SinkId> = BTreeMap::new();
    for (sink, output) in outputs {
        let target = match (is_there(&sink, &output), &output) {
            (Some(target), _) => target,
            (None, config::Output::File(path)) => {
                Arc::new(Target::File(FileSink::open(&sink, path)?))
            }
            (None, config::Output::Lines(path)) => Arc::new(lines(&sink, path)?),
            (None, config::Output::Stdout) => Arc::new(Target::Stdout(StdoutSink)),
            (None, config::Output::Http(http)) => Arc::new(server(&sink, http)?),
        };
        if let Some(path) = target.path()
            && let Some(first) = paths.insert(path.clone(), sink.clone())
        {
            return Err(SinkError::SamePath { first, second: sink, path });
        }
        targets.insert(sink, (output, target));
    }
    Ok(targets)
}

fn lines(sink: &SinkId, path: &Path) -> Result<Target, SinkError> {
    // Absolute, so that a later change of the working folder changes nothing, and the same for two names.
    let opened = FileSink::place(sink, path).and_then(|path| {
        let failed = |cause| {
            let folder = path.parent().unwrap_or(&path).to_owned();
            SinkError::NotWritable { sink: sink.clone(), folder, cause }
        };
        GrowingFile::open(&path).map_err(failed)
    });
    Ok(Target::Lines(Mutex::new(opened?)))
}

fn server(sink: &SinkId, http: &config::HttpOutput) -> Result<Target, SinkError> {
    let started =
        Endpoint::open(http).and_then(|endpoint| Courier::start(&sink.to_string(), endpoint));
    started.map(Target::Http).map_err(|cause| SinkError::Http { sink: sink.clone(), cause })
}

impl Outlet {
    /// Makes these the outputs of plugins; those of the daemon itself stay. Those that are gone take documents until
    /// [`Outlet::forget_retired`].
    ///
    /// # Errors
    ///
    /// If one of the new ones cannot be used. Nothing is changed then.
    pub fn change(
        &self,
        outputs: impl Iterator<Item = (SinkId, config::Output)>,
    ) -> Result<(), SinkError> {
        let targets = open(outputs, |sink, output| {
            let state = self.0.lock();
            let slot = state.slots.get(sink).filter(|slot| slot.output == *output);
            slot.map(|slot| Arc::clone(&slot.target))
        })?;
        let mut state = self.0.lock();
        for slot in state.slots.values_mut() {
            let sink = &slot.status.sink;
            slot.retired = !targets.contains_key(sink) && sink.plugin() != DAEMON;
        }
        for (sink, (output, target)) in targets {
            let slot = state
                .slots
                .entry(sink.clone())
                .or_insert_with(|| Slot::new(sink, output.clone(), Arc::clone(&target)));
            slot.output = output;
            slot.target = target;
        }
        Ok(())
    }

    /// Lets the outputs go that [`Outlet::change`] left out, once their last document is written.
    pub fn forget_retired(&self) {
        let mut state = self.0.lock();
        state.slots.values_mut().for_each(|slot| slot.leaving = slot.retired);
        state.drop_left();
    }
}
