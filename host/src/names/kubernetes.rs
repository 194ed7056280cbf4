//! Names from the API of Kubernetes: of the own pod in a sidecar, of the own node in a DaemonSet.
//!
//! Asks with the service account of the pod, for no more than that pod or the pods of that node, only while a container has
//! no name, and not more often than every few seconds. Nothing is watched.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::http::{Asker, Limits, Server};
use super::source::{Names, Source, Trouble, digest_of};
use crate::config::Url;
use crate::directory::Container;
use crate::post;

/// Where Kubernetes puts what a pod shows the API: a token and the authority of the server.
const CREDENTIALS: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// The longest list: some megabytes for a node that is full.
const MAX_ANSWER_BYTES: usize = 32 << 20;

/// How often one pod, or a node's pods, are asked for at most.
const POD_AT_MOST_EVERY: Duration = Duration::from_secs(2);
const NODE_AT_MOST_EVERY: Duration = Duration::from_secs(10);

/// Whose containers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    /// Those of a pod.
    Pod { namespace: String, name: String },
    /// Those of a node.
    Node(String),
    /// Nobody's: this is not known, for this reason.
    Unknown(&'static str),
}

/// The API server.
pub(super) struct Kubernetes {
    /// Host and port. None where this is no pod.
    address: Option<(String, u16)>,
    credentials: PathBuf,
    whose: Whose,
    asker: Option<Asker>,
    asked: Option<Instant>,
    known: HashMap<String, Known>,
}

/// What the API says of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Known {
    pod_uid: String,
    names: Names,
}

#[derive(Deserialize)]
struct PodList {
    #[serde(default)]
    items: Option<Vec<Pod>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Pod {
    metadata: Metadata,
    spec: Spec,
    status: Status,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Metadata {
    name: String,
    namespace: String,
    uid: String,
    labels: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    node_name: String,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Status {
    container_statuses: Vec<ContainerStatus>,
    init_container_statuses: Vec<ContainerStatus>,
    ephemeral_container_statuses: Vec<ContainerStatus>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ContainerStatus {
    name: String,
    /// Such as `containerd://<id>`.
    #[serde(rename = "containerID")]
    container_id: String,
    image: String,
    #[serde(rename = "imageID")]
    image_id: String,
}

impl Whose {
    /// Where the API has them.
    fn path(&self) -> Result<String, Trouble> {
        match self {
            Whose::Pod { namespace, name } => {
                Ok(format!("/api/v1/namespaces/{namespace}/pods/{name}"))
            }
            // As old as the server's cache: that is enough, and costs it least.
            Whose::Node(node) => {
                Ok(format!("/api/v1/pods?fieldSelector=spec.nodeName%3D{node}&resourceVersion=0"))
            }
            Whose::Unknown(why) => Err(Trouble::Absent((*why).to_owned())),
        }
    }

    /// Whether a pod is the one, or on the node, that was asked for.
    fn owns(&self, pod: &Pod) -> bool {
        match self {
            Whose::Pod { namespace, name } => {
                pod.metadata.name == *name && pod.metadata.namespace == *namespace
            }
            Whose::Node(node) => pod.spec.node_name == *node,
            Whose::Unknown(_) => false,
        }
    }
}

impl Kubernetes {
    /// The server that the environment names, or this one.
    pub(super) fn new(address: Option<(String, u16)>, whose: Whose) -> Kubernetes {
        let address = address.or_else(|| {
            let variable = |name| std::env::var(name).ok();
            let port = variable("KUBERNETES_SERVICE_PORT")?.parse().ok()?;
            Some((variable("KUBERNETES_SERVICE_HOST")?, port))
        });
        Kubernetes {
            address,
            credentials: PathBuf::from(CREDENTIALS),
            whose,
            asker: None,
            asked: None,
            known: HashMap::new(),
        }
    }

    fn server(&self) -> Result<Server, Trouble> {
        let absent = |why: &str| Trouble::Absent(why.to_owned());
        let (host, port) = self.address.clone().ok_or_else(|| absent("this is no pod"))?;
        // Read each time: a kubelet renews it.
        let token = fs::read_to_string(self.credentials.join("token"));
        let token = token.map_err(|_| absent("no service account token is mounted"))?;
        let failed = |why: String| Trouble::Failed(why);
        let tls = post::client(Some(&self.credentials.join("ca.crt")));
        let tls = tls.map_err(|error| failed(error.to_string()))?;
        let host = if host.contains(':') { format!("[{host}]") } else { host };
        let url = Url::read(&format!("https://{host}:{port}"));
        let url = url.map_err(|_| failed(format!("{host:?} is no host")))?;
        Ok(Server { url, tls, token: token.trim().to_owned() })
    }

    /// The pods that are ours to know.
    fn pods(&mut self, at_most: Duration) -> Result<Vec<Pod>, Trouble> {
        let server = self.server()?;
        if self.asker.is_none() {
            let made = Asker::new();
            self.asker = Some(made.map_err(|error| Trouble::Failed(error.to_string()))?);
        }
        let asker = self.asker.as_ref().expect("it was there, or was made");
        let limits = Limits { at_most, max_bytes: MAX_ANSWER_BYTES };
        let path = self.whose.path()?;
        let pods = match &self.whose {
            Whose::Pod { .. } | Whose::Unknown(_) => {
                let pod: Option<Pod> = asker.at_server(&server, &path, &limits)?;
                pod.into_iter().collect()
            }
            Whose::Node(_) => {
                let list: Option<PodList> = asker.at_server(&server, &path, &limits)?;
                list.and_then(|list| list.items).unwrap_or_default()
            }
        };
        Ok(pods.into_iter().filter(|pod| self.whose.owns(pod)).collect())
    }

    fn learn(&mut self, at_most: Duration) -> Result<usize, Trouble> {
        self.asked = Some(Instant::now());
        let pods = self.pods(at_most)?;
        self.known = pods.iter().flat_map(containers_of).collect();
        Ok(pods.len())
    }

    fn may_ask(&self) -> bool {
        let pause = match self.whose {
            Whose::Pod { .. } => POD_AT_MOST_EVERY,
            Whose::Node(_) | Whose::Unknown(_) => NODE_AT_MOST_EVERY,
        };
        self.asked.is_none_or(|asked| asked.elapsed() >= pause)
    }

    /// A container of another pod than the cgroup tells is not the one that was asked for.
    fn recall(&self, container: &Container) -> Option<Names> {
        let known = self.known.get(&container.runtime_id)?;
        let uid = container.attributes.iter().find(|(key, _)| key == "pod-uid");
        let is_same = uid.is_none_or(|(_, uid)| *uid == known.pod_uid);
        is_same.then(|| known.names.clone())
    }
}

/// The containers of a pod by the ids of their runtime.
fn containers_of(pod: &Pod) -> impl Iterator<Item = (String, Known)> + '_ {
    let status = &pod.status;
    let all = status
        .container_statuses
        .iter()
        .chain(&status.init_container_statuses)
        .chain(&status.ephemeral_container_statuses);
    all.filter_map(|container| {
        let (_, id) = container.container_id.split_once("://")?;
        let text = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
        let names = Names {
            name: text(&container.name),
            pod_name: text(&pod.metadata.name),
            pod_namespace: text(&pod.metadata.namespace),
            image: text(&container.image),
            image_digest: digest_of(&container.image_id),
            image_id: None,
            labels: pod.metadata.labels.clone(),
            is_pause: false,
        };
        Some((id.to_owned(), Known { pod_uid: pod.metadata.uid.clone(), names }))
    })
}

/// Host and port of an address such as `https://10.96.0.1:443`, in brackets where the host is of IPv6. None where it is
/// none.
pub(crate) fn address(text: &str) -> Option<(String, u16)> {
    let (host, port) = text.strip_prefix("https://")?.trim_end_matches('/').rsplit_once(':')?;
    let host = match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']')?.parse::<std::net::Ipv6Addr>().ok()?.to_string(),
        None if is_name(host) => host.to_owned(),
        None => return None,
    };
    Some((host, port.parse().ok()?))
}

/// Whether a name, which comes from the environment, can be a part of a path and nothing else.
pub(super) fn is_name(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
    !name.is_empty() && name.bytes().all(is_plain)
}

impl Source for Kubernetes {
    fn name(&self) -> &'static str {
        "kubernetes-api"
    }

    fn place(&self) -> String {
        match &self.address {
            Some((host, port)) => format!("https://{host}:{port}"),
            None => "the API server".to_owned(),
        }
    }

    fn names_of(
        &mut self,
        container: &Container,
        at_most: Duration,
    ) -> Result<Option<Names>, Trouble> {
        if self.recall(container).is_none() && self.may_ask() {
            self.learn(at_most)?;
        }
        Ok(self.recall(container))
    }

    fn greet(&mut self, at_most: Duration) -> Result<String, Trouble> {
        let pods = self.learn(at_most)?;
        let whose = match &self.whose {
            Whose::Node(node) => format!("on node {node}"),
            Whose::Pod { namespace, name } => format!("called {name} in {namespace}"),
            Whose::Unknown(_) => String::new(),
        };
        Ok(format!("{pods} pods {whose}"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::names::tests::container;

    const ID: &str = "0123456789abcdef";

    fn pod() -> Pod {
        let pod = json!({
            "metadata": {
                "name": "cart-7d9", "namespace": "shop", "uid": "u", "labels": { "app": "cart" },
            },
            "spec": { "nodeName": "worker-3", "containers": [{ "name": "web" }] },
            "status": {
                "phase": "Running",
                "containerStatuses": [{
                    "name": "web", "containerID": format!("containerd://{ID}"),
                    "image": "docker.io/library/nginx:1.29",
                    "imageID": "docker.io/library/nginx@sha256:0b",
                }, { "name": "not-yet" }],
                "initContainerStatuses": [{ "name": "prepare", "containerID": "cri-o://0c" }],
            },
        });
        serde_json::from_value(pod).unwrap()
    }

    #[test]
    fn containers_of_every_kind_are_known_by_their_ids() {
        let known: HashMap<String, Known> = containers_of(&pod()).collect();
        assert_eq!(known.len(), 2);
        assert_eq!(known["0c"].names.name.as_deref(), Some("prepare"));
        let web = &known[ID].names;
        assert_eq!(web.pod_name.as_deref(), Some("cart-7d9"));
        assert_eq!(web.image_digest.as_deref(), Some("sha256:0b"));
        assert_eq!(web.labels.get("app").map(String::as_str), Some("cart"));
    }

    #[test]
    fn a_container_that_is_in_another_pod_by_its_cgroup_is_another() {
        let mut api = Kubernetes::new(None, Whose::Unknown(""));
        api.known = containers_of(&pod()).collect();
        let with_uid = |uid: &str| Container {
            attributes: vec![("pod-uid".to_owned(), uid.to_owned())],
            ..container(ID)
        };
        assert_eq!(api.recall(&with_uid("other")), None);
        assert_eq!(api.recall(&with_uid("u")).unwrap().name.as_deref(), Some("web"));
        assert!(api.recall(&container(ID)).is_some());
        assert_eq!(api.recall(&container("0123")), None);
    }

    #[test]
    fn outside_of_a_pod_there_is_nobody_to_ask() {
        let mut api = Kubernetes::new(None, Whose::Node("worker-3".to_owned()));
        api.address = None;
        assert!(matches!(api.names_of(&container(ID), Duration::ZERO), Err(Trouble::Absent(_))));
        // Not asked again at once.
        assert!(!api.may_ask());
    }

    #[test]
    fn an_address_is_a_host_and_a_port() {
        let pair = |host: &str, port| Some((host.to_owned(), port));
        assert_eq!(address("https://10.96.0.1:443"), pair("10.96.0.1", 443));
        assert_eq!(address("https://api.example:6443/"), pair("api.example", 6443));
        assert_eq!(address("https://[fd00::1]:443"), pair("fd00::1", 443));
        for text in ["10.96.0.1:443", "http://a:1", "https://a", "https://a:b", "https://a/b:1", ""]
        {
            assert_eq!(address(text), None, "{text}");
        }
    }

    #[test]
    fn a_name_of_a_pod_cannot_lead_elsewhere() {
        assert!(is_name("cart-7d9.x"));
        for name in ["", "a/b", "a?b", "a%2f", "a&b", "a b"] {
            assert!(!is_name(name), "{name}");
        }
    }
}
