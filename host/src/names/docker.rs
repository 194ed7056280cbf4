//! Names from Docker's own files: `config.v2.json` of each container, below `/var/lib/docker`.
//!
//! What the API of its socket would say, without a socket that gives root to whoever may write to it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use super::source::{Names, Source, Trouble};
use super::{PAUSE, at, read_json};
use crate::directory::Container;

/// Docker's folder of containers, where nobody moved it (`data-root`).
const CONTAINERS: &str = "/var/lib/docker/containers";

/// `io.kubernetes.docker.type` of a container that only holds the namespaces of a pod (cri-dockerd).
const SANDBOX: &str = "podsandbox";

/// The containers of Docker.
pub(super) struct Docker {
    containers: PathBuf,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Known {
    /// With a leading slash.
    name: String,
    config: Config,
}

/// What a container was made with, in files and over the API.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct Config {
    image: Option<String>,
    labels: Option<BTreeMap<String, String>>,
}

impl Docker {
    pub(super) fn new(host_root: &Path) -> Docker {
        Docker { containers: at(host_root, CONTAINERS) }
    }
}

impl Source for Docker {
    fn name(&self) -> &'static str {
        "docker"
    }

    fn place(&self) -> String {
        self.containers.display().to_string()
    }

    fn is_quick(&self) -> bool {
        true
    }

    fn names_of(&mut self, container: &Container, _: Duration) -> Result<Option<Names>, Trouble> {
        let file = self.containers.join(&container.runtime_id).join("config.v2.json");
        Ok(read_json(&file).map(|known: Known| names(&known.name, known.config)))
    }

    fn greet(&mut self, _: Duration) -> Result<String, Trouble> {
        match self.containers.is_dir() {
            true => Ok("files of Docker".to_owned()),
            false => Err(Trouble::Absent(format!("there is no {}", self.place()))),
        }
    }
}

/// What a name with a leading slash and labels come to.
pub(super) fn names(name: &str, config: Config) -> Names {
    let labels = config.labels.unwrap_or_default();
    // Where a kubelet made it (cri-dockerd), the name is made of several.
    let label = |key: &str| labels.get(key).filter(|value| !value.is_empty()).cloned();
    let own = name.trim_start_matches('/');
    let is_pause = label("io.kubernetes.docker.type").is_some_and(|kind| kind == SANDBOX);
    let name = match is_pause {
        true => PAUSE.to_owned(),
        false => label("io.kubernetes.container.name").unwrap_or_else(|| own.to_owned()),
    };
    Names {
        is_pause,
        name: Some(name).filter(|name| !name.is_empty()),
        pod_name: label("io.kubernetes.pod.name"),
        pod_namespace: label("io.kubernetes.pod.namespace"),
        image: config.image,
        image_digest: None,
        image_id: None,
        labels,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::names::tests::container;

    /// What is known of a container.
    fn known(docker: &mut Docker, id: &str) -> Option<Names> {
        docker.names_of(&container(id), Duration::ZERO).unwrap()
    }

    #[test]
    fn a_container_goes_by_its_name_without_the_slash() {
        let root = tempfile::tempdir().unwrap();
        let folder = at(root.path(), CONTAINERS).join("abc");
        std::fs::create_dir_all(&folder).unwrap();
        let content = json!({
            "ID": "abc", "Name": "/web", "Config": { "Image": "nginx:1.29", "Labels": null },
        });
        std::fs::write(folder.join("config.v2.json"), content.to_string()).unwrap();
        let mut docker = Docker::new(root.path());
        let names = known(&mut docker, "abc").unwrap();
        assert_eq!(
            (names.name.as_deref(), names.image.as_deref()),
            (Some("web"), Some("nginx:1.29"))
        );
        assert_eq!(known(&mut docker, "abd"), None);
    }

    #[test]
    fn the_container_that_holds_a_pod_of_a_kubelet_is_called_pause() {
        let root = tempfile::tempdir().unwrap();
        let folder = at(root.path(), CONTAINERS).join("abc");
        std::fs::create_dir_all(&folder).unwrap();
        let labels = json!({
            "io.kubernetes.docker.type": "podsandbox", "io.kubernetes.container.name": "POD",
            "io.kubernetes.pod.name": "cart-7d9",
        });
        let content = json!({ "Name": "/k8s_POD_cart", "Config": { "Labels": labels } });
        std::fs::write(folder.join("config.v2.json"), content.to_string()).unwrap();
        let names = known(&mut Docker::new(root.path()), "abc").unwrap();
        assert_eq!((names.name.as_deref(), names.is_pause), (Some(PAUSE), true));
        assert_eq!(names.pod_name.as_deref(), Some("cart-7d9"));
    }
}
