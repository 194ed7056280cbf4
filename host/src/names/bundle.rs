//! Names from OCI bundles: runtimes write what they were told into the annotations of `config.json`.
//!
//! Reads files below `/run` that are there before the container's first program runs. The annotations are those of
//! containerd's CRI plugin (`io.kubernetes.cri.*`, `pkg/cri/annotations`), of CRI-O (`io.kubernetes.*`,
//! `io.kubernetes.cri-o.*`), and of nerdctl (`nerdctl/*`).

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use super::source::{Names, Source, Trouble};
use super::{PAUSE, at, read_json};
use crate::directory::Container;

/// Annotations with a container's name, the best first.
const NAME: &[&str] =
    &["io.kubernetes.cri.container-name", "io.kubernetes.container.name", "nerdctl/name"];
const POD_NAME: &[&str] = &["io.kubernetes.cri.sandbox-name", "io.kubernetes.pod.name"];
const POD_NAMESPACE: &[&str] =
    &["io.kubernetes.cri.sandbox-namespace", "io.kubernetes.pod.namespace"];
const IMAGE: &[&str] =
    &["io.kubernetes.cri.image-name", "io.kubernetes.cri-o.ImageName", "nerdctl/image-name"];
/// Annotations that say what kind of container it is, and the word for the one that only holds the pod's namespaces.
const KIND: &[&str] = &["io.kubernetes.cri.container-type", "io.kubernetes.cri-o.ContainerType"];
const SANDBOX: &str = "sandbox";
/// What the name of the one that holds a pod of Podman ends with, behind the first digits of the pod's id.
const INFRA: &str = "-infra";
/// Parts of the cgroup's path of a container that is in a pod of Podman: with its own driver, and systemd's.
const PODMAN_PODS: [&str; 2] = ["libpod_parent/", "libpod_pod_"];

/// Where containerd keeps bundles: a folder for each of its namespaces, with one for each container.
const CONTAINERD: &str = "/run/containerd/io.containerd.runtime.v2.task";
/// Where CRI-O and Podman keep them.
const STORAGE: [&str; 2] = [
    "/run/containers/storage/overlay-containers",
    "/var/lib/containers/storage/overlay-containers",
];
/// Where runc keeps its state, for CRI-O, for containerd and by default.
const RUNC: [&str; 4] = [
    "/run/runc",
    "/run/containerd/runc/k8s.io",
    "/run/containerd/runc/default",
    "/run/docker/runtime-runc/moby",
];

/// Bundles of every runtime.
pub(super) struct Bundles {
    host_root: PathBuf,
}

/// What is read of a bundle's `config.json`.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Bundle {
    annotations: BTreeMap<String, String>,
    process: Process,
    linux: Linux,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Process {
    env: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Linux {
    cgroups_path: String,
}

impl Bundle {
    /// What a pod of Podman is called that the container is in: its host name, which Podman takes from
    /// the pod.
    fn podman_pod(&self) -> Option<&str> {
        let is_in_pod = PODMAN_PODS.iter().any(|part| self.linux.cgroups_path.contains(part));
        let mut environment = self.process.env.iter();
        let host = environment.find_map(|variable| variable.strip_prefix("HOSTNAME="));
        host.filter(|host| is_in_pod && !host.is_empty())
    }
}

/// What is read of runc's `state.json`: annotations stand as `key=value` among its labels.
#[derive(Deserialize)]
struct State {
    config: StateConfig,
}

#[derive(Deserialize)]
struct StateConfig {
    #[serde(default)]
    labels: Vec<String>,
}

/// A container in the list of a storage (`containers.json` of containers/storage).
#[derive(Deserialize)]
struct Stored {
    id: String,
    #[serde(default)]
    names: Vec<String>,
}

impl Bundles {
    pub(super) fn new(host_root: &Path) -> Bundles {
        Bundles { host_root: host_root.to_owned() }
    }

    /// The files that may be the container's bundle.
    fn bundles_of(&self, id: &str) -> Vec<PathBuf> {
        let namespaces = fs::read_dir(at(&self.host_root, CONTAINERD)).into_iter().flatten();
        let of_containerd = namespaces
            .filter_map(|namespace| Some(namespace.ok()?.path().join(id).join("config.json")));
        let of_storage = STORAGE
            .iter()
            .map(|storage| at(&self.host_root, storage).join(id).join("userdata/config.json"));
        of_containerd.chain(of_storage).collect()
    }

    /// What Podman calls a container, in the list of its storage.
    fn name_in_storage(&self, id: &str) -> Option<String> {
        let lists = STORAGE.iter().map(|it| at(&self.host_root, it).join("containers.json"));
        let mut entries = lists.filter_map(|path| read_json::<Vec<Stored>>(&path)).flatten();
        entries.find(|entry| entry.id == id)?.names.into_iter().next()
    }

    fn bundle_of(&self, id: &str) -> Option<Bundle> {
        let bundles = self.bundles_of(id);
        if let Some(bundle) = bundles.iter().find_map(|path| read_json(path)) {
            return Some(bundle);
        }
        let state = RUNC.iter().find_map(|root| {
            read_json::<State>(&at(&self.host_root, root).join(id).join("state.json"))
        })?;
        let labels = state.config.labels.iter().filter_map(|label| label.split_once('='));
        let annotations = labels.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        Some(Bundle { annotations, ..Bundle::default() })
    }

    /// What Podman's storage knows of a container. One of `podman kube play` is called by its pod and by
    /// what the manifest calls it, which is its name here.
    fn podman_names(&self, id: &str, bundle: &Bundle) -> Option<Names> {
        let stored = self.name_in_storage(id)?;
        let Some(pod) = bundle.podman_pod() else {
            return Some(Names { name: Some(stored), ..Names::default() });
        };
        let is_pause = stored.strip_suffix(INFRA).is_some_and(is_beginning_of_id);
        let own = stored.strip_prefix(pod).and_then(|rest| rest.strip_prefix('-'));
        let name = if is_pause { PAUSE } else { own.unwrap_or(&stored) };
        let (name, pod_name) = (Some(name.to_owned()), Some(pod.to_owned()));
        Some(Names { name, pod_name, is_pause, ..Names::default() })
    }
}

/// Whether these are the first digits of an id, as Podman shortens it.
fn is_beginning_of_id(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

impl Source for Bundles {
    fn name(&self) -> &'static str {
        "oci"
    }

    fn place(&self) -> String {
        self.host_root.display().to_string()
    }

    fn is_quick(&self) -> bool {
        true
    }

    fn names_of(&mut self, container: &Container, _: Duration) -> Result<Option<Names>, Trouble> {
        Ok(self.read(&container.runtime_id))
    }

    fn greet(&mut self, _: Duration) -> Result<String, Trouble> {
        let folders = [CONTAINERD].into_iter().chain(STORAGE).chain(RUNC);
        let found: Vec<&str> =
            folders.filter(|folder| at(&self.host_root, folder).is_dir()).collect();
        match found.is_empty() {
            true => Err(Trouble::Absent(
                "there are no files of containerd, CRI-O, Podman or runc".to_owned(),
            )),
            false => Ok(found.join(", ")),
        }
    }
}

impl Bundles {
    /// What the bundle of that container says.
    fn read(&self, runtime_id: &str) -> Option<Names> {
        let bundle = self.bundle_of(runtime_id)?;
        let first = |keys: &[&str]| {
            let mut values = keys.iter().filter_map(|key| bundle.annotations.get(*key));
            values.find(|value| !value.is_empty()).cloned()
        };
        let is_pause = first(KIND).is_some_and(|kind| kind == SANDBOX);
        let name = if is_pause { Some(PAUSE.to_owned()) } else { first(NAME) };
        if name.is_none() {
            return self.podman_names(runtime_id, &bundle);
        }
        Some(Names {
            name,
            pod_name: first(POD_NAME),
            pod_namespace: first(POD_NAMESPACE),
            image: first(IMAGE),
            is_pause,
            ..Names::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ID: &str = "0123456789abcdef";

    /// What is known of a container where this file has this content.
    fn names(file: &str, content: &serde_json::Value) -> Option<Names> {
        let root = tempfile::tempdir().unwrap();
        let path = at(root.path(), file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content.to_string()).unwrap();
        Bundles::new(root.path()).read(ID)
    }

    fn expected(image: Option<&str>) -> Option<Names> {
        Some(Names {
            name: Some("web".to_owned()),
            pod_name: Some("cart-7d9".to_owned()),
            pod_namespace: Some("shop".to_owned()),
            image: image.map(str::to_owned),
            ..Names::default()
        })
    }

    #[test]
    fn the_annotations_of_containerd_name_container_pod_and_image() {
        let file = format!("{CONTAINERD}/k8s.io/{ID}/config.json");
        let content = json!({ "ociVersion": "1.1.0", "annotations": {
            "io.kubernetes.cri.container-name": "web",
            "io.kubernetes.cri.container-type": "container",
            "io.kubernetes.cri.sandbox-name": "cart-7d9",
            "io.kubernetes.cri.sandbox-namespace": "shop",
            "io.kubernetes.cri.image-name": "docker.io/library/nginx:1.29",
        } });
        assert_eq!(names(&file, &content), expected(Some("docker.io/library/nginx:1.29")));
    }

    #[test]
    fn the_container_that_holds_the_pod_is_called_pause() {
        let file = format!("{CONTAINERD}/k8s.io/{ID}/config.json");
        let content = json!({ "annotations": {
            "io.kubernetes.cri.container-type": "sandbox",
            "io.kubernetes.cri.sandbox-name": "cart-7d9",
        } });
        let names = names(&file, &content).unwrap();
        assert_eq!((names.name.as_deref(), names.is_pause), (Some(PAUSE), true));
    }

    #[test]
    fn the_annotations_of_cri_o_and_the_state_of_runc_do_too() {
        let annotations = json!({
            "io.kubernetes.container.name": "web",
            "io.kubernetes.pod.name": "cart-7d9",
            "io.kubernetes.pod.namespace": "shop",
        });
        let file = format!("{}/{ID}/userdata/config.json", STORAGE[0]);
        assert_eq!(names(&file, &json!({ "annotations": annotations })), expected(None));
        let labels: Vec<String> = annotations
            .as_object()
            .unwrap()
            .iter()
            .map(|(key, value)| format!("{key}={}", value.as_str().unwrap()))
            .collect();
        let file = format!("/run/runc/{ID}/state.json");
        assert_eq!(names(&file, &json!({ "config": { "labels": labels } })), expected(None));
    }

    /// What is known of a container of Podman with this name and bundle.
    fn of_podman(name: &str, bundle: &serde_json::Value) -> Names {
        let root = tempfile::tempdir().unwrap();
        let storage = at(root.path(), STORAGE[1]);
        let folder = storage.join(ID).join("userdata");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("config.json"), bundle.to_string()).unwrap();
        let list = json!([{ "id": "other", "names": ["no"] }, { "id": ID, "names": [name] }]);
        fs::write(storage.join("containers.json"), list.to_string()).unwrap();
        Bundles::new(root.path()).read(ID).unwrap()
    }

    #[test]
    fn a_container_of_podman_goes_by_its_name_in_the_storage() {
        let alone = json!({
            "annotations": {}, "process": { "env": ["HOSTNAME=cart"] },
            "linux": { "cgroupsPath": "/libpod-1" },
        });
        let names = of_podman("cart-web", &alone);
        assert_eq!((names.name.as_deref(), names.pod_name), (Some("cart-web"), None));
    }

    #[test]
    fn a_container_of_podman_in_a_pod_goes_by_the_name_of_the_manifest() {
        let parents = ["/libpod_parent/0a1b/libpod-1", "machine-libpod_pod_0a1b.slice:libpod:1"];
        for (parent, (stored, own, is_pause)) in parents.into_iter().flat_map(|parent| {
            [("cart-web", "web", false), ("web", "web", false), ("0a1b2c3d4e5f-infra", PAUSE, true)]
                .map(|case| (parent, case))
        }) {
            let bundle = json!({
                "process": { "env": ["PATH=/bin", "HOSTNAME=cart"] },
                "linux": { "cgroupsPath": parent },
            });
            let names = of_podman(stored, &bundle);
            assert_eq!((names.name.as_deref(), names.is_pause), (Some(own), is_pause), "{stored}");
            assert_eq!(names.pod_name.as_deref(), Some("cart"));
        }
    }

    #[test]
    fn a_bundle_without_names_names_nothing() {
        let file = format!("{CONTAINERD}/k8s.io/{ID}/config.json");
        assert_eq!(names(&file, &json!({})), None);
        assert_eq!(names(&file, &json!("text")), None);
        assert_eq!(names("/elsewhere", &json!({})), None);
    }
}
