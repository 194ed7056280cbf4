//! A pod: a folder in the cgroup hierarchy as a kubelet with the cgroupfs driver makes it, and a
//! temporary folder for what its containers are made of.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;

use crate::cgroup::Cgroup;
use crate::container::{ContainerBuilder, ContainerError};
use crate::{random_uuid, unique_suffix};

/// A pod. It goes when it and all its containers are dropped.
#[derive(Clone, Debug)]
pub struct Pod {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    name: String,
    // Before the folder: whoever lives in the cgroup may still use its files.
    cgroup: Cgroup,
    folder: TempDir,
}

impl Pod {
    /// Makes a pod of the quality-of-service class `burstable`.
    pub fn new(name: &str) -> Result<Pod, ContainerError> {
        Pod::below("kubepods/burstable", name)
    }

    /// Makes a pod in the cgroup `parent`, such as `kubepods/besteffort`, or `kubepods` for the
    /// class `guaranteed`.
    pub fn below(parent: &str, name: &str) -> Result<Pod, ContainerError> {
        let cgroup = Cgroup::make(format!("{parent}/pod{}", random_uuid()))?;
        let folder = tempfile::Builder::new()
            .prefix(&format!("whodunit-pod-{name}-"))
            .tempdir()
            .map_err(|source| ContainerError::Io {
                action: "make a folder in",
                path: std::env::temp_dir(),
                source,
            })?;
        Ok(Pod { shared: Arc::new(Shared { name: name.to_owned(), cgroup, folder }) })
    }

    /// Its name, as given.
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// Path of its cgroup below the root of the hierarchy, with a leading slash.
    pub fn cgroup_path(&self) -> String {
        self.shared.cgroup.path()
    }

    /// Folder of its cgroup in the version 2 hierarchy.
    pub fn cgroup_folder(&self) -> PathBuf {
        self.shared.cgroup.folder()
    }

    /// The temporary folder of this pod.
    pub fn folder(&self) -> &Path {
        self.shared.folder.path()
    }

    /// Begins a container. Its id is `name` and a suffix that nobody else has.
    pub fn container(&self, name: &str) -> ContainerBuilder {
        ContainerBuilder::new(self.clone(), format!("{name}-{}", unique_suffix()))
    }
}
