//! What containers are called, and where that comes from.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};

use libtest_mimic::{Failed, Trial};
use serde_json::{Value, json};
use whodunit_containers::condition::slowness;
use whodunit_containers::cri::NAMESPACE;
use whodunit_containers::{Container, Daemon, DaemonConfig, Placement, Pod};

use crate::api_server::ApiServer;
use crate::discovery::{let_work, worker};
use crate::http::{LISTEN, address, get};
use crate::kubelet::{APPLICATION, Images, KubePod, NamesFrom, PROGRAM, podman};
use crate::report::{expect, expect_eq, last_report, lists, lists_ended};
use crate::{Outcome, about_capture, machine, needing};

pub(crate) fn trials(images: &Images) -> Vec<Trial> {
    let images = images.clone();
    let of_podman =
        |name: &str, run: fn() -> Outcome| needing(name, machine::lacks_for_podman, run);
    vec![
        about_capture("names::a_late_name_of_a_bundle_is_in_the_report", late_name),
        about_capture("names::one_that_was_gone_in_a_moment_is_named_afterwards", brief),
        about_capture("names::kubernetes_names_the_own_pod", own_pod),
        about_capture("names::kubernetes_names_the_pods_of_the_node", own_node),
        about_capture("names::sources_that_hang_or_lie_cost_nothing", hanging),
        needing("names::containerd_names_a_pod_at_its_socket", machine::lacks_for_containerd, {
            move || containerd(&images)
        }),
        of_podman("names::podman_names_a_pod_at_its_socket", podman_api),
        of_podman("names::the_api_of_docker_names_a_container", docker_api),
    ]
}

/// What the bundle of a container says, where containerd keeps it.
pub(crate) fn write_bundle(host: &Path, id: &str, name: &str) -> Outcome {
    let tasks = "run/containerd/io.containerd.runtime.v2.task/k8s.io";
    let bundle = host.join(tasks).join(id);
    fs::create_dir_all(&bundle)?;
    let annotations = json!({ "annotations": {
        "io.kubernetes.cri.container-type": "container",
        "io.kubernetes.cri.container-name": name,
        "io.kubernetes.cri.sandbox-name": "cart-7d9",
        "io.kubernetes.cri.sandbox-namespace": "shop",
    } });
    Ok(fs::write(bundle.join("config.json"), annotations.to_string())?)
}

/// A container that reads a file.
fn reader(pod: &Pod, file: &str) -> Result<Container, Failed> {
    let container = pod.container("app").file(file, "", 0o644);
    Ok(worker(container, &format!("cat {file}")).start()?)
}

/// The bundle of containerd's CRI plugin is written where the daemon looks for it after the container was reported by
/// its id: what was seen before goes by the name too.
fn late_name() -> Outcome {
    let pod = Pod::new("names")?;
    let mut container = reader(&pod, "/etc/early")?;
    let host = tempfile::tempdir()?;
    let config = DaemonConfig::for_pod(&pod)?.host_root(host.path());
    let mut daemon = config.start()?;
    let_work(&mut container)?;
    let id = container.id();
    daemon.wait_report("the container by its id", |report| {
        lists(report, id, "files", "/etc/early")
    })?;
    write_bundle(host.path(), id, "web")?;
    daemon.wait_report("the container by its name", |report| {
        lists(report, "web", "files", "/etc/early")
    })?;
    let report = last_report(&config, daemon)?;
    let entry = report.running_called("web")?;
    entry.expect_files(&["/bin/busybox", "/etc/early"])?;
    expect_eq("name source", &entry.0["name_source"], &Value::from("oci"))?;
    expect_eq("id", &entry.0["id"], &Value::from(id))
}

/// The name comes when the container is in the report as ended, by its id.
fn brief() -> Outcome {
    let pod = Pod::new("names")?;
    let _neighbour = pod.container("neighbour").shell("read stay").start()?;
    let host = tempfile::tempdir()?;
    let config = DaemonConfig::for_pod(&pod)?.host_root(host.path());
    let mut daemon = config.start()?;
    let brief =
        pod.container("brief").file("/etc/brief", "", 0o644).shell("cat /etc/brief").run()?;
    daemon.wait_report("the container by its id", |report| lists_ended(report, &brief.id))?;
    write_bundle(host.path(), &brief.id, "job")?;
    daemon.wait_report("the container by its name", |report| lists_ended(report, "job"))?;
    let report = last_report(&config, daemon)?;
    let entry = report.ended_container("job")?;
    entry.expect_files(&["/bin/busybox", "/etc/brief"])?;
    expect_eq("id", &entry.0["id"], &Value::from(brief.id))
}

/// What a status says of a source of names.
fn source_in<'a>(status: &'a Value, name: &str) -> Result<&'a Value, Failed> {
    let mut sources = status["name_sources"].as_array().into_iter().flatten();
    let found = sources.find(|source| source["source"] == name && source["state"] != "absent");
    found.ok_or_else(|| format!("the status has no {name}: {}", status["name_sources"]).into())
}

/// A sidecar that sees nothing of containerd but its socket.
fn containerd(images: &Images) -> Outcome {
    let pod = KubePod::new(images, "cart")?;
    let web = pod.idle("web")?;
    pod.idle("helper")?;
    let daemon = pod.sidecar(NamesFrom::Socket)?;
    pod.await_log("that it is ready", |line| line["message"] == "ready")?;
    pod.exec(&web, &["cat", "/srv/index.html"])?;
    let report = pod.await_report("the file of `web`, and both by their names", |report| {
        let mut containers = report["containers"].as_array().into_iter().flatten();
        let all_named = containers.all(|container| container["name_source"] == "cri");
        lists(report, "web", "files", "/srv/index.html") && all_named
    })?;
    let containers: Vec<&Value> = report["containers"].as_array().into_iter().flatten().collect();
    let mut names: Vec<&str> = containers.iter().filter_map(|it| it["name"].as_str()).collect();
    names.sort_unstable();
    expect_eq("containers, the one that holds the pod left out", &names, &vec!["helper", "web"])?;
    for container in containers {
        let attributes = &container["attributes"];
        let is = |key: &str, value: &str| expect_eq(key, &attributes[key], &Value::from(value));
        is("pod-name", "cart")?;
        is("pod-namespace", NAMESPACE)?;
        is("image", APPLICATION)?;
        is("label.app", "cart")?;
        let digest = attributes["image-digest"].as_str().unwrap_or_default();
        let is_digest = digest.strip_prefix("sha256:").is_some_and(|digits| digits.len() == 64);
        expect(format!("the image's digest is in {attributes}"), is_digest)?;
    }
    let status = [PROGRAM, "status", "--output", "json", "--state-dir", "/var/lib/whodunit"];
    let status = serde_json::from_str(&pod.exec(&daemon, &status)?)?;
    let source = source_in(&status, "cri")?;
    expect_eq("its state", &source["state"], &Value::from("answers"))?;
    let place = "/host/run/containerd/containerd.sock";
    expect_eq("where it is", &source["place"], &Value::from(place))?;
    let said = pod.exec(&daemon, &[PROGRAM, "doctor", "-c", "/etc/whodunit/whodunit.toml"]);
    let said = said.or_else(|error| error.message().map(str::to_owned).ok_or(error))?;
    expect(format!("the doctor names it: {said}"), said.contains("containerd"))
}

/// A pod without a daemon in it.
const MANIFEST: &str = "
apiVersion: v1
kind: Pod
metadata:
  name: cart
  labels: { app: cart }
spec:
  hostNetwork: true
  terminationGracePeriodSeconds: 1
  containers:
    - name: web
      image: localhost/nginx:1.29
    - name: helper
      image: localhost/nginx:1.29
";

/// The containers of a pod of Podman, for a daemon that has nothing but these lines to name them by.
fn in_podman(toml: impl FnOnce(&str) -> String, trial: impl FnOnce(&Value) -> Outcome) -> Outcome {
    let podman = podman(false)?;
    let service = podman.serve()?;
    podman.play(MANIFEST)?;
    let nothing = tempfile::tempdir()?;
    let socket = service.socket().display().to_string();
    let config = DaemonConfig::for_node()?.host_root(nothing.path()).more_toml(&toml(&socket));
    let mut daemon = config.start()?;
    let ours = |it: &&Value| it["attributes"]["image"] == APPLICATION;
    let is_ours =
        |report: &Value| report["containers"].as_array().into_iter().flatten().filter(ours).count();
    let report = daemon.wait_report("both containers with their names", |it| is_ours(it) == 2)?;
    let ours = report["containers"].as_array().into_iter().flatten().filter(ours);
    trial(&Value::Array(ours.cloned().collect()))
}

fn names_of(containers: &Value) -> Vec<&str> {
    let containers = containers.as_array().into_iter().flatten();
    let mut names: Vec<&str> = containers.filter_map(|it| it["name"].as_str()).collect();
    names.sort_unstable();
    names
}

fn podman_api() -> Outcome {
    let toml = |socket: &str| format!("[names]\npodman = {socket:?}");
    in_podman(toml, |containers| {
        expect_eq("names", &names_of(containers), &vec!["helper", "web"])?;
        for container in containers.as_array().into_iter().flatten() {
            expect_eq("source", &container["name_source"], &Value::from("podman-api"))?;
            let attributes = &container["attributes"];
            expect_eq("pod", &attributes["pod-name"], &Value::from("cart"))?;
            let digest = attributes["image-digest"].as_str().unwrap_or_default();
            expect(format!("{attributes} has a digest"), digest.starts_with("sha256:"))?;
        }
        Ok(())
    })
}

/// Podman's service answers as Docker's engine does; Docker itself is not run here.
fn docker_api() -> Outcome {
    let toml = |socket: &str| format!("[names]\npodman = \"off\"\ndocker = {socket:?}");
    in_podman(toml, |containers| {
        expect_eq("names", &names_of(containers), &vec!["cart-helper", "cart-web"])?;
        for container in containers.as_array().into_iter().flatten() {
            expect_eq("source", &container["name_source"], &Value::from("docker-api"))?;
        }
        Ok(())
    })
}

/// A pod as the API server gives it, with this container in it.
fn pod_object(name: &str, node: &str, uid: &str, container: (&str, &str)) -> Value {
    let (container, id) = container;
    json!({
        "metadata": {
            "name": name, "namespace": "default", "uid": uid, "labels": { "app": "cart" },
        },
        "spec": { "nodeName": node },
        "status": { "containerStatuses": [{
            "name": container, "containerID": format!("containerd://{id}"),
            "image": APPLICATION, "imageID": "localhost/nginx@sha256:0b",
        }] },
    })
}

fn uid_of(pod: &Pod) -> Result<String, Failed> {
    let path = pod.cgroup_path();
    let uid = path.rsplit_once("/pod").map(|(_, uid)| uid.to_owned());
    Ok(uid.ok_or("no uid")?)
}

/// Expects the container that read this file to be called `web` by the API server.
fn named_by_kubernetes(daemon: &mut Daemon<'_>, file: &str) -> Outcome {
    let report = daemon
        .wait_report("the container by its name", |report| lists(report, "web", "files", file))?;
    let mut containers = report["containers"].as_array().into_iter().flatten();
    let web = containers.find(|it| it["name"] == "web").ok_or("it was there")?;
    expect_eq("source", &web["name_source"], &Value::from("kubernetes-api"))?;
    expect_eq("label", &web["attributes"]["label.app"], &Value::from("cart"))?;
    expect_eq("digest", &web["attributes"]["image-digest"], &Value::from("sha256:0b"))
}

/// A sidecar finds the server in its environment and asks for its own pod, and nothing else.
fn own_pod() -> Outcome {
    let pod = Pod::new("names")?;
    let mut container = reader(&pod, "/etc/one")?;
    let server = ApiServer::start()?;
    let path = "/api/v1/namespaces/default/pods/names";
    server.put(path, pod_object("names", "worker-3", &uid_of(&pod)?, ("web", container.id())));
    let secrets = "/var/run/secrets/kubernetes.io/serviceaccount";
    let config = DaemonConfig::for_pod(&pod)?
        .placed(Placement::Sidecar)
        .environment("KUBERNETES_SERVICE_HOST", "127.0.0.1")
        .environment("KUBERNETES_SERVICE_PORT", &server.port())
        .mounted(server.credentials(), secrets);
    let mut daemon = config.start()?;
    let_work(&mut container)?;
    named_by_kubernetes(&mut daemon, "/etc/one")?;
    expect_eq("what was asked for", &server.asked(), &vec![path.to_owned()])
}

/// A daemon of a node asks for the pods of that node. What the server says of pods elsewhere, and of a pod with
/// another id than the cgroup's, names nobody.
fn own_node() -> Outcome {
    let (pod, other) = (Pod::new("names")?, Pod::new("other")?);
    let (mut ours, mut theirs) = (reader(&pod, "/etc/one")?, reader(&other, "/etc/two")?);
    let server = ApiServer::start()?;
    let path = "/api/v1/pods?fieldSelector=spec.nodeName%3Dworker-3&resourceVersion=0";
    let wrong = ("wrong", theirs.id());
    server.put(
        path,
        json!({ "kind": "PodList", "items": [
            pod_object("elsewhere", "worker-4", &uid_of(&other)?, wrong),
            pod_object("impostor", "worker-3", "0-0-0", wrong),
            pod_object("names", "worker-3", &uid_of(&pod)?, ("web", ours.id())),
        ] }),
    );
    let secrets = "/var/run/secrets/kubernetes.io/serviceaccount";
    // A sidecar sees the mounted credentials; what it watches is the node.
    let config = DaemonConfig::for_pod(&pod)?
        .placed(Placement::Sidecar)
        .scope("node")
        .environment("NODE_NAME", "worker-3")
        .environment("KUBERNETES_SERVICE_HOST", "127.0.0.1")
        .environment("KUBERNETES_SERVICE_PORT", &server.port())
        .mounted(server.credentials(), secrets);
    let mut daemon = config.start()?;
    let_work(&mut ours)?;
    let_work(&mut theirs)?;
    named_by_kubernetes(&mut daemon, "/etc/one")?;
    let id = theirs.id().to_owned();
    daemon.wait_report("the other by its id", |report| lists(report, &id, "files", "/etc/two"))?;
    expect_eq("what was asked for", &server.asked(), &vec![path.to_owned()])
}

/// A socket where whoever connects is dealt with so.
fn socket(path: &Path, mut deal: impl FnMut(UnixStream) + Send + 'static) -> Outcome {
    let listener = UnixListener::bind(path)?;
    std::thread::spawn(move || listener.incoming().flatten().for_each(&mut deal));
    Ok(())
}

/// Nobody answers at one socket, nonsense comes from the next, and without an end from the third: the daemon starts in
/// time, loses nothing, says so, and takes names from where they are.
fn hanging() -> Outcome {
    let pod = Pod::new("names")?;
    let mut container = reader(&pod, "/etc/one")?;
    let host = tempfile::tempdir()?;
    write_bundle(host.path(), container.id(), "web")?;
    let place = |name: &str| host.path().join(name);
    let mut held = Vec::new();
    socket(&place("cri"), move |connection| held.push(connection))?;
    socket(&place("podman"), |mut connection| {
        let _ = connection.read(&mut [0; 1024]);
        let _ = connection.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{\"Id\": []");
    })?;
    socket(&place("docker"), |mut connection| {
        let _ = connection.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        while connection.write_all(b"4\r\n    \r\n").is_ok() {}
    })?;
    let toml = ["cri", "podman", "docker"].map(|it| format!("{it} = {:?}", place(it)));
    let toml = format!("[names]\n{}\n{LISTEN}", toml.join("\n"));
    let config = DaemonConfig::for_pod(&pod)?.host_root(host.path()).more_toml(&toml);
    let begin = Instant::now();
    let mut daemon = config.start()?;
    let took = begin.elapsed();
    let fine = Duration::from_secs(10) * slowness();
    expect(format!("it starts in time: {took:?}"), took < fine)?;
    let_work(&mut container)?;
    daemon.wait_report("the container by its name", |report| {
        lists(report, "web", "files", "/etc/one")
    })?;
    let address = address(&mut daemon)?;
    let status = get(&address, "/api/v1/status")?.json()?;
    // The first look has no time for the others: what is named by a file is asked of nobody else.
    let first = source_in(&status, "cri")?;
    expect_eq("the state of the first", &first["state"], &Value::from("failing"))?;
    daemon.await_log("that it does not answer", |line| {
        line["level"] == "WARN" && line["source"] == "cri" && line["why"].is_string()
    })?;
    // Nobody knows these: every source is asked for them.
    let mut late = reader(&pod, "/etc/two")?;
    let_work(&mut late)?;
    for source in ["podman-api", "docker-api"] {
        daemon.await_log(source, |line| line["level"] == "WARN" && line["source"] == source)?;
    }
    let report = last_report(&config, daemon)?;
    report.running_called("web")?.expect_nothing_lost()?;
    let late = report.container(&late)?;
    late.expect_nothing_lost()?;
    late.expect_files(&["/bin/busybox", "/etc/two"])
}
