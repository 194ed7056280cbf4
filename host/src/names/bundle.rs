//! Names from OCI bundles: runtimes write what they were told into the annotations of `config.json`.
//!
//! Reads files below `/run` that are there before the container's first program runs. The annotations are those of
//! containerd's CRI plugin (`io.kubernetes.cri.*`, `pkg/cri/annotations`), of CRI-O (`io.kubernetes.*`,
//! `io.kubernetes.cri-o.*`), and of nerdctl (`nerdctl/*`).

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{Names, Source, at, read_json};

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
/// What that one is called, since it has no name of its own.
const PAUSE: &str = "pause";

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
#[derive(Deserialize)]
struct Bundle {
    #[serde(default)]
    annotations: BTreeMap<String, String>,
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

    fn annotations_of(&self, id: &str) -> Option<BTreeMap<String, String>> {
        let bundles = self.bundles_of(id);
        let bundle = bundles.iter().find_map(|path| read_json::<Bundle>(path));
        if let Some(bundle) = bundle {
            return Some(bundle.annotations);
        }
        let state = RUNC.iter().find_map(|root| {
            read_json::<State>(&at(&self.host_root, root).join(id).join("state.json"))
        })?;
        let labels = state.config.labels.iter().filter_map(|label| label.split_once('='));
        Some(labels.map(|(key, value)| (key.to_owned(), value.to_owned())).collect())
    }
}

impl Source for Bundles {
    fn name(&self) -> &'static str {
        "oci"
    }

    fn names_of(&self, runtime_id: &str) -> Option<Names> {
        let annotations = self.annotations_of(runtime_id)?;
        let first = |keys: &[&str]| {
            let mut values = keys.iter().filter_map(|key| annotations.get(*key));
            values.find(|value| !value.is_empty()).cloned()
        };
        let is_sandbox = first(KIND).is_some_and(|kind| kind == SANDBOX);
        let name = match is_sandbox {
            true => Some(PAUSE.to_owned()),
            false => first(NAME).or_else(|| self.name_in_storage(runtime_id)),
        };
        Some(Names {
            name,
            pod_name: first(POD_NAME),
            pod_namespace: first(POD_NAMESPACE),
            image: first(IMAGE),
        })
        .filter(|names| names.name.is_some())
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
        Bundles::new(root.path()).names_of(ID)
    }

    fn expected(image: Option<&str>) -> Option<Names> {
        Some(Names {
            name: Some("web".to_owned()),
            pod_name: Some("cart-7d9".to_owned()),
            pod_namespace: Some("shop".to_owned()),
            image: image.map(str::to_owned),
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
        assert_eq!(names(&file, &content).unwrap().name.unwrap(), "pause");
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

    #[test]
    fn a_container_of_podman_goes_by_its_name_in_the_storage() {
        let root = tempfile::tempdir().unwrap();
        let storage = at(root.path(), STORAGE[1]);
        let bundle = storage.join(ID).join("userdata");
        fs::create_dir_all(&bundle).unwrap();
        fs::write(bundle.join("config.json"), "{\"annotations\":{}}").unwrap();
        let list = json!([{ "id": "other", "names": ["no"] }, { "id": ID, "names": ["web"] }]);
        fs::write(storage.join("containers.json"), list.to_string()).unwrap();
        let names = Bundles::new(root.path()).names_of(ID).unwrap();
        assert_eq!(names.name.as_deref(), Some("web"));
    }

    #[test]
    fn a_bundle_without_names_names_nothing() {
        let file = format!("{CONTAINERD}/k8s.io/{ID}/config.json");
        assert_eq!(names(&file, &json!({})), None);
        assert_eq!(names(&file, &json!("text")), None);
        assert_eq!(names("/elsewhere", &json!({})), None);
    }
}
