//! Pods of containerd, made as a kubelet makes them: over the Container Runtime Interface.
//!
//! Owns a containerd with a storage and a socket of its own.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use whodunit_cri::{
    Call, Capability, Client, ContainerConfig, ContainerMetadata, CreateContainerRequest,
    ExecSyncRequest, ImageSpec, KeyValue, LinuxContainerConfig, LinuxContainerSecurityContext,
    LinuxPodSandboxConfig, LinuxSandboxSecurityContext, Mount, NAMESPACE_OF_CONTAINER,
    NAMESPACE_OF_NODE, NamespaceOption, PodSandboxConfig, PodSandboxMetadata,
    RemovePodSandboxRequest, RunPodSandboxRequest, StartContainerRequest, Status,
    StopPodSandboxRequest, VersionRequest,
};

use crate::condition::{PATIENCE, slowness, wait_for};
use crate::find_program;

/// The image of the container that holds a pod's namespaces.
pub const PAUSE_IMAGE: &str = "localhost/pause:1";
/// How long one call may take.
const CALL: Duration = Duration::from_secs(30);
/// The largest answer.
const MAX_ANSWER_BYTES: usize = 4 << 20;
/// What every pod is in.
pub const NAMESPACE: &str = "shop";

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
        status: Box<Status>,
    },
    /// A program did not do in a container what it should.
    #[error("`{command}` ended with {code}: {said}")]
    Exec {
        /// The program with its arguments.
        command: String,
        /// Its exit code.
        code: i32,
        /// What it wrote to standard error.
        said: String,
    },
    /// An image was not taken.
    #[error("`ctr` did not take an image: {said}")]
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
    client: Client,
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
    /// Environment variables.
    pub environment: &'a [(&'a str, &'a str)],
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
        let client =
            Client::new(&folder.path().join("socket")).map_err(system("wait for anything"))?;
        let containerd = Containerd { folder, process, client, pods: Vec::new() };
        let answers = || {
            let version = VersionRequest { version: "v1".to_owned() };
            containerd.call("tell its version", version).ok()
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

    /// Its socket, below [`Containerd::host_root`].
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    fn log(&self) -> String {
        let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        log.lines().rev().take(5).collect::<Vec<_>>().join("; ")
    }

    /// Takes an image from an archive, and knows it by its digest, too, as after a pull.
    ///
    /// # Errors
    ///
    /// If it cannot.
    pub fn import(&self, archive: &Path, image: &str) -> Result<(), CriError> {
        let archive = archive.display().to_string();
        self.ctr(&["images", "import", &archive])?;
        // NAME TYPE DIGEST ..., below their heads.
        let list = self.ctr(&["images", "ls", &format!("name=={image}")])?;
        let digest = list.lines().nth(1).and_then(|line| line.split_whitespace().nth(2));
        let Some((digest, (name, _))) = digest.zip(image.rsplit_once(':')) else {
            return Err(CriError::Import { said: format!("there is no {image} in {list:?}") });
        };
        self.ctr(&["images", "tag", "--force", image, &format!("{name}@{digest}")]).map(drop)
    }

    /// What `ctr` says in the namespace of the kubelet's containers.
    fn ctr(&self, arguments: &[&str]) -> Result<String, CriError> {
        let mut ctr = Command::new("ctr");
        ctr.arg("--address").arg(self.socket()).args(["--namespace", "k8s.io"]).args(arguments);
        let output = ctr.output().map_err(system("run ctr"))?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        match output.status.success() {
            true => Ok(text(&output.stdout)),
            false => Err(CriError::Import { said: text(&output.stderr) }),
        }
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
            namespace: NAMESPACE.to_owned(),
            attempt: 0,
        };
        let namespaces =
            NamespaceOption { network: NAMESPACE_OF_NODE, pid: NAMESPACE_OF_CONTAINER, ipc: 0 };
        let linux = LinuxPodSandboxConfig {
            cgroup_parent: cgroup.to_owned(),
            security_context: Some(LinuxSandboxSecurityContext {
                namespace_options: Some(namespaces),
            }),
        };
        let logs = self.folder.path().join("logs").join(uid);
        fs::create_dir_all(&logs).map_err(system("make a folder"))?;
        let mut labels = labels(name, uid);
        labels.insert("app".to_owned(), name.to_owned());
        let config = PodSandboxConfig {
            metadata: Some(metadata),
            log_directory: logs.display().to_string(),
            labels,
            linux: Some(linux),
        };
        let request = RunPodSandboxRequest { config: Some(config.clone()) };
        let made = self.call("run a pod", request)?;
        self.pods.push(made.pod_sandbox_id.clone());
        Ok(CriPod { id: made.pod_sandbox_id, config })
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
                network: NAMESPACE_OF_NODE,
                pid: NAMESPACE_OF_CONTAINER,
                ipc: 0,
            }),
            readonly_rootfs: capabilities.is_some(),
            no_new_privs: capabilities.is_some(),
            capabilities,
        };
        // As a kubelet does: the pod's own labels stay with the pod.
        let mut labels = pod.config.labels.clone();
        labels.retain(|key, _| key.starts_with("io.kubernetes."));
        labels.insert("io.kubernetes.container.name".to_owned(), container.name.to_owned());
        let variables = container
            .environment
            .iter()
            .map(|(key, value)| KeyValue { key: (*key).to_owned(), value: (*value).to_owned() });
        let config = ContainerConfig {
            metadata: Some(ContainerMetadata { name: container.name.to_owned(), attempt: 0 }),
            image: Some(ImageSpec { image: container.image.to_owned() }),
            command: texts(container.command),
            args: texts(container.arguments),
            envs: variables.collect(),
            mounts: mounts.collect(),
            labels,
            log_path: log_file(container.name),
            linux: Some(LinuxContainerConfig { security_context: Some(context) }),
        };
        let request = CreateContainerRequest {
            pod_sandbox_id: pod.id.clone(),
            config: Some(config),
            sandbox_config: Some(pod.config.clone()),
        };
        let made = self.call("make a container", request)?;
        let id = made.container_id;
        self.call("start a container", StartContainerRequest { container_id: id.clone() })?;
        Ok(id)
    }

    /// Runs a program in a container, to its end: `kubectl exec`. Returns what it wrote.
    ///
    /// # Errors
    ///
    /// If it cannot be run, or ends with another code than 0.
    pub fn exec(&self, container_id: &str, command: &[&str]) -> Result<String, CriError> {
        let request = ExecSyncRequest {
            container_id: container_id.to_owned(),
            cmd: command.iter().map(|it| (*it).to_owned()).collect(),
            timeout: (CALL * slowness()).as_secs().cast_signed(),
        };
        let ended = self.call("execute a program", request)?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if ended.exit_code == 0 {
            return Ok(text(&ended.stdout));
        }
        let (command, said) = (command.join(" "), text(&ended.stderr));
        Err(CriError::Exec { command, code: ended.exit_code, said })
    }

    /// What a container wrote so far, a line each: `kubectl logs`.
    pub fn logs(&self, pod: &CriPod, container: &str) -> String {
        let log = Path::new(&pod.config.log_directory).join(log_file(container));
        let log = fs::read_to_string(log).unwrap_or_default();
        // Each line has a time, a stream and a tag before it.
        let lines = log.lines().filter_map(|line| line.splitn(4, ' ').nth(3));
        lines.map(|line| line.to_owned() + "\n").collect()
    }

    fn call<Request: Call>(
        &self,
        call: &'static str,
        request: Request,
    ) -> Result<Request::Answer, CriError> {
        let answer = self.client.call(request, CALL * slowness(), MAX_ANSWER_BYTES);
        answer.map_err(|status| CriError::Refused { call, status })
    }
}

/// Where a container writes, below the folder of its pod.
fn log_file(container: &str) -> String {
    format!("{container}.log")
}

impl Drop for Containerd {
    fn drop(&mut self) {
        for pod in std::mem::take(&mut self.pods) {
            let _ = self.call("stop a pod", StopPodSandboxRequest { pod_sandbox_id: pod.clone() });
            let _ = self.call("remove a pod", RemovePodSandboxRequest { pod_sandbox_id: pod });
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn labels(pod: &str, uid: &str) -> HashMap<String, String> {
    let labels = [
        ("io.kubernetes.pod.name", pod),
        ("io.kubernetes.pod.namespace", NAMESPACE),
        ("io.kubernetes.pod.uid", uid),
    ];
    labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
}

fn system(action: &'static str) -> impl FnOnce(io::Error) -> CriError {
    move |source| CriError::System { action, source }
}
