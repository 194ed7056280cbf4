//! Pods of containerd, made as a kubelet makes them: over the Container Runtime Interface.
//!
//! Owns a containerd with a storage and a socket of its own. Messages are those of `runtime.v1` in Kubernetes' `cri-api`, with the fields that
//! are used here.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use prost::Message;
use tempfile::TempDir;
use tokio::net::UnixStream;
use tokio::runtime::Runtime;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::condition::{PATIENCE, slowness, wait_for};
use crate::find_program;

/// The image of the container that holds a pod's namespaces.
pub const PAUSE_IMAGE: &str = "localhost/pause:1";
/// `NamespaceMode` of `runtime.v1`: a namespace of the container's own, and that of the machine.
const OF_CONTAINER: i32 = 1;
const OF_NODE: i32 = 2;
/// How long one call may take.
const CALL: Duration = Duration::from_secs(30);

/// Why containerd did not do something.
#[derive(Debug, thiserror::Error)]
pub enum CriError {
    /// The system refused something.
    #[error("cannot {action}: {source}")]
    System {
        /// What was tried.
        action: &'static str,
        /// Why.
        source: io::Error,
    },
    /// It does not answer at its socket.
    #[error("containerd does not answer; it said: {log}")]
    Silent {
        /// The end of its log.
        log: String,
    },
    /// It said no.
    #[error("containerd does not {call}: {}", status.message())]
    Refused {
        /// The call.
        call: &'static str,
        /// What it answered.
        status: Box<tonic::Status>,
    },
    /// An image was not taken.
    #[error("`ctr images import` failed: {said}")]
    Import {
        /// What it wrote to standard error.
        said: String,
    },
}

/// A containerd of its own. Dropped, its pods are removed and it ends.
#[derive(Debug)]
pub struct Containerd {
    folder: TempDir,
    process: Child,
    runtime: Runtime,
    channel: Channel,
    pods: Vec<String>,
}

/// A pod.
#[derive(Clone, Debug)]
pub struct CriPod {
    id: String,
    config: PodSandboxConfig,
}

/// What a container of a pod is made of.
#[derive(Clone, Debug, Default)]
pub struct CriContainer<'a> {
    /// What the manifest calls it.
    pub name: &'a str,
    /// Its image.
    pub image: &'a str,
    /// What it runs. Empty: what the image says.
    pub command: &'a [&'a str],
    /// Behind the command.
    pub arguments: &'a [&'a str],
    /// Folders of the machine, where it has them, and whether it may only read them.
    pub mounts: &'a [(&'a Path, &'a str, bool)],
    /// Every other capability is taken from it. None: the usual ones.
    pub capabilities: Option<&'a [&'a str]>,
}

impl Containerd {
    /// What is missing on this machine, in one sentence. None where nothing is.
    pub fn why_not() -> Option<String> {
        let missing = ["containerd", "ctr"].iter().find(|name| find_program(name).is_none());
        missing.map(|name| format!("there is no {name}; install the Debian package containerd"))
    }

    /// Starts one.
    ///
    /// # Errors
    ///
    /// If it does not answer.
    pub fn start() -> Result<Containerd, CriError> {
        let folder = tempfile::Builder::new().prefix("wc-").tempdir();
        let folder = folder.map_err(system("make a folder"))?;
        let at = |path: &str| folder.path().join(path).display().to_string();
        // Without CAP_SYS_RESOURCE nobody's score may be lowered.
        let configuration = format!(
            "version = 2\nroot = {:?}\nstate = {:?}\n[grpc]\naddress = {:?}\n\
             [plugins.\"io.containerd.grpc.v1.cri\"]\nsandbox_image = {PAUSE_IMAGE:?}\n\
             disable_tcp_service = true\nrestrict_oom_score_adj = true\n\
             [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc]\n\
             runtime_type = \"io.containerd.runc.v2\"\n",
            at("root"),
            at("run/containerd"),
            at("socket"),
        );
        let file = folder.path().join("config.toml");
        fs::write(&file, configuration).map_err(system("write a file"))?;
        let log = fs::File::create(folder.path().join("log")).map_err(system("make a file"))?;
        let process = Command::new("containerd")
            .arg("--config")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(system("run containerd"))?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(system("wait for anything"))?;
        let socket = folder.path().join("socket");
        let channel = {
            let _inside = runtime.enter();
            // The address is the socket's; a name is only needed because HTTP asks for one.
            Endpoint::from_static("http://containerd").connect_with_connector_lazy(
                tower::service_fn(move |_: Uri| {
                    let socket = socket.clone();
                    async move { UnixStream::connect(socket).await.map(TokioIo::new) }
                }),
            )
        };
        let containerd = Containerd { folder, process, runtime, channel, pods: Vec::new() };
        let answers = || {
            let version = VersionRequest { version: "v1".to_owned() };
            containerd.call::<_, VersionResponse>("tell its version", "Version", version).ok()
        };
        match wait_for(PATIENCE, answers) {
            Some(_) => Ok(containerd),
            None => Err(CriError::Silent { log: containerd.log() }),
        }
    }

    /// What stands for the root of the machine's file system, with containerd's state where it always is.
    pub fn host_root(&self) -> &Path {
        self.folder.path()
    }

    /// Where the bundles of its containers are, below [`Containerd::host_root`].
    pub fn bundles(&self) -> PathBuf {
        self.folder.path().join("run/containerd/io.containerd.runtime.v2.task")
    }

    fn log(&self) -> String {
        let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        log.lines().rev().take(5).collect::<Vec<_>>().join("; ")
    }

    /// Takes images from an archive.
    ///
    /// # Errors
    ///
    /// If it cannot.
    pub fn import(&self, archive: &Path) -> Result<(), CriError> {
        let output = Command::new("ctr")
            .arg("--address")
            .arg(self.folder.path().join("socket"))
            .args(["--namespace", "k8s.io", "images", "import"])
            .arg(archive)
            .output()
            .map_err(system("run ctr"))?;
        if output.status.success() {
            return Ok(());
        }
        Err(CriError::Import { said: String::from_utf8_lossy(&output.stderr).trim().to_owned() })
    }

    /// Makes a pod in this cgroup, as a kubelet with the cgroupfs driver asks for it. It has the network of
    /// the machine.
    ///
    /// # Errors
    ///
    /// If it cannot.
    pub fn pod(&mut self, name: &str, uid: &str, cgroup: &str) -> Result<CriPod, CriError> {
        let metadata = PodSandboxMetadata {
            name: name.to_owned(),
            uid: uid.to_owned(),
            namespace: "shop".to_owned(),
            attempt: 0,
        };
        let namespaces = NamespaceOption { network: OF_NODE, pid: OF_CONTAINER, ipc: 0 };
        let linux = LinuxPodSandboxConfig {
            cgroup_parent: cgroup.to_owned(),
            security_context: Some(LinuxSandboxSecurityContext {
                namespace_options: Some(namespaces),
            }),
        };
        let labels = labels(name, uid);
        let config = PodSandboxConfig { metadata: Some(metadata), labels, linux: Some(linux) };
        let request = RunPodSandboxRequest { config: Some(config.clone()) };
        let made: PodResponse = self.call("run a pod", "RunPodSandbox", request)?;
        self.pods.push(made.id.clone());
        Ok(CriPod { id: made.id, config })
    }

    /// Makes a container in a pod and starts it. Returns its id.
    ///
    /// # Errors
    ///
    /// If it cannot.
    pub fn run(&self, pod: &CriPod, container: &CriContainer<'_>) -> Result<String, CriError> {
        let texts = |texts: &[&str]| texts.iter().map(|it| (*it).to_owned()).collect();
        let mounts = container.mounts.iter().map(|(from, to, readonly)| Mount {
            container_path: (*to).to_owned(),
            host_path: from.display().to_string(),
            readonly: *readonly,
        });
        let capabilities = container.capabilities.map(|added| Capability {
            add_capabilities: texts(added),
            drop_capabilities: texts(&["ALL"]),
        });
        let context = LinuxContainerSecurityContext {
            namespace_options: Some(NamespaceOption {
                network: OF_NODE,
                pid: OF_CONTAINER,
                ipc: 0,
            }),
            readonly_rootfs: capabilities.is_some(),
            no_new_privs: capabilities.is_some(),
            capabilities,
        };
        let mut labels = pod.config.labels.clone();
        labels.insert("io.kubernetes.container.name".to_owned(), container.name.to_owned());
        let config = ContainerConfig {
            metadata: Some(ContainerMetadata { name: container.name.to_owned(), attempt: 0 }),
            image: Some(ImageSpec { image: container.image.to_owned() }),
            command: texts(container.command),
            args: texts(container.arguments),
            mounts: mounts.collect(),
            labels,
            linux: Some(LinuxContainerConfig { security_context: Some(context) }),
        };
        let request = CreateContainerRequest {
            pod_sandbox_id: pod.id.clone(),
            config: Some(config),
            sandbox_config: Some(pod.config.clone()),
        };
        let made: ContainerResponse = self.call("make a container", "CreateContainer", request)?;
        let id = ContainerRequest { container_id: made.container_id.clone() };
        let _: Nothing = self.call("start a container", "StartContainer", id)?;
        Ok(made.container_id)
    }

    fn call<Request, Response>(
        &self,
        call: &'static str,
        method: &str,
        request: Request,
    ) -> Result<Response, CriError>
    where
        Request: Message + 'static,
        Response: Message + Default + 'static,
    {
        let path = format!("/runtime.v1.RuntimeService/{method}");
        let path = Uri::try_from(path).expect("a method's name is a path").into_parts();
        let path = path.path_and_query.expect("so it has one");
        let mut request = tonic::Request::new(request);
        request.set_timeout(CALL * slowness());
        let asked = async {
            let mut client = tonic::client::Grpc::new(self.channel.clone());
            client.ready().await.map_err(|error| tonic::Status::unavailable(error.to_string()))?;
            let codec = tonic_prost::ProstCodec::<Request, Response>::default();
            client.unary(request, path, codec).await
        };
        let answer = self.runtime.block_on(asked);
        answer
            .map(tonic::Response::into_inner)
            .map_err(|status| CriError::Refused { call, status: Box::new(status) })
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        for pod in std::mem::take(&mut self.pods) {
            for (call, method) in
                [("stop a pod", "StopPodSandbox"), ("remove a pod", "RemovePodSandbox")]
            {
                let _ = self.call::<_, Nothing>(call, method, PodRequest { id: pod.clone() });
            }
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn labels(pod: &str, uid: &str) -> HashMap<String, String> {
    let labels = [
        ("io.kubernetes.pod.name", pod),
        ("io.kubernetes.pod.namespace", "shop"),
        ("io.kubernetes.pod.uid", uid),
    ];
    labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
}

fn system(action: &'static str) -> impl FnOnce(io::Error) -> CriError {
    move |source| CriError::System { action, source }
}

/// Messages of `runtime.v1`, each with its fields by their numbers.
macro_rules! messages {
    ($($(#[$about:meta])* $name:ident { $($(#[$how:meta])* $field:ident: $type:ty,)* })*) => {
        $(
            $(#[$about])*
            #[derive(Clone, PartialEq, Message)]
            struct $name { $($(#[$how])* $field: $type,)* }
        )*
    };
}

messages! {
    Nothing {}
    VersionRequest {
        #[prost(string, tag = "1")] version: String,
    }
    VersionResponse {
        #[prost(string, tag = "2")] runtime_name: String,
    }
    RunPodSandboxRequest {
        #[prost(message, optional, tag = "1")] config: Option<PodSandboxConfig>,
    }
    PodSandboxConfig {
        #[prost(message, optional, tag = "1")] metadata: Option<PodSandboxMetadata>,
        #[prost(map = "string, string", tag = "6")] labels: HashMap<String, String>,
        #[prost(message, optional, tag = "8")] linux: Option<LinuxPodSandboxConfig>,
    }
    PodSandboxMetadata {
        #[prost(string, tag = "1")] name: String,
        #[prost(string, tag = "2")] uid: String,
        #[prost(string, tag = "3")] namespace: String,
        #[prost(uint32, tag = "4")] attempt: u32,
    }
    LinuxPodSandboxConfig {
        #[prost(string, tag = "1")] cgroup_parent: String,
        #[prost(message, optional, tag = "2")] security_context: Option<LinuxSandboxSecurityContext>,
    }
    LinuxSandboxSecurityContext {
        #[prost(message, optional, tag = "1")] namespace_options: Option<NamespaceOption>,
    }
    NamespaceOption {
        #[prost(int32, tag = "1")] network: i32,
        #[prost(int32, tag = "2")] pid: i32,
        #[prost(int32, tag = "3")] ipc: i32,
    }
    PodResponse {
        #[prost(string, tag = "1")] id: String,
    }
    PodRequest {
        #[prost(string, tag = "1")] id: String,
    }
    CreateContainerRequest {
        #[prost(string, tag = "1")] pod_sandbox_id: String,
        #[prost(message, optional, tag = "2")] config: Option<ContainerConfig>,
        #[prost(message, optional, tag = "3")] sandbox_config: Option<PodSandboxConfig>,
    }
    ContainerConfig {
        #[prost(message, optional, tag = "1")] metadata: Option<ContainerMetadata>,
        #[prost(message, optional, tag = "2")] image: Option<ImageSpec>,
        #[prost(string, repeated, tag = "3")] command: Vec<String>,
        #[prost(string, repeated, tag = "4")] args: Vec<String>,
        #[prost(message, repeated, tag = "7")] mounts: Vec<Mount>,
        #[prost(map = "string, string", tag = "9")] labels: HashMap<String, String>,
        #[prost(message, optional, tag = "15")] linux: Option<LinuxContainerConfig>,
    }
    ContainerMetadata {
        #[prost(string, tag = "1")] name: String,
        #[prost(uint32, tag = "2")] attempt: u32,
    }
    ImageSpec {
        #[prost(string, tag = "1")] image: String,
    }
    Mount {
        #[prost(string, tag = "1")] container_path: String,
        #[prost(string, tag = "2")] host_path: String,
        #[prost(bool, tag = "3")] readonly: bool,
    }
    LinuxContainerConfig {
        #[prost(message, optional, tag = "2")] security_context: Option<LinuxContainerSecurityContext>,
    }
    LinuxContainerSecurityContext {
        #[prost(message, optional, tag = "1")] capabilities: Option<Capability>,
        #[prost(message, optional, tag = "3")] namespace_options: Option<NamespaceOption>,
        #[prost(bool, tag = "7")] readonly_rootfs: bool,
        #[prost(bool, tag = "11")] no_new_privs: bool,
    }
    Capability {
        #[prost(string, repeated, tag = "1")] add_capabilities: Vec<String>,
        #[prost(string, repeated, tag = "2")] drop_capabilities: Vec<String>,
    }
    ContainerResponse {
        #[prost(string, tag = "1")] container_id: String,
    }
    ContainerRequest {
        #[prost(string, tag = "1")] container_id: String,
    }
}
