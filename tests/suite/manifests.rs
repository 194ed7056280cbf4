//! The manifests that are shipped: held against the schemas of Kubernetes, strictly, and against themselves.
//!
//! There is no API server here that could take them. A kustomize renders the overlays where there is one: `kubectl` has it.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use libtest_mimic::{Failed, Trial};
use serde_json::{Value, json};
use whodunit_containers::daemon::binary;
use whodunit_containers::find_program;

use crate::report::{expect, expect_eq, repository};
use crate::{Outcome, needing};

const OVERLAYS: [&str; 2] = ["example-app", "daemonset"];

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = vec![needing(
        "manifests::every_file_follows_the_schema_of_kubernetes_strictly",
        lacks_validator,
        files_are_valid,
    )];
    trials.push(needing(
        "manifests::the_shipped_example_is_what_its_overlay_renders",
        lacks_kustomize,
        example_is_rendered,
    ));
    trials.push(needing(
        "manifests::the_sidecar_goes_ahead_of_what_an_application_has",
        lacks_kustomize,
        sidecar_is_first,
    ));
    for name in OVERLAYS {
        let trial = format!("manifests::the_overlay_{name}_renders_and_holds_together");
        trials.push(needing(trial, lacks_kustomize, move || holds_together(name)));
    }
    trials
}

/// Programs of PyPI that `cargo xtask setup` installs.
fn venv(program: &str) -> PathBuf {
    repository().join("target/languages/venv/bin").join(program)
}

fn lacks_validator() -> Option<&'static str> {
    let found = venv("kubernetes-validate").is_file();
    (!found).then_some("there is no kubernetes-validate; `cargo xtask setup` installs it")
}

fn lacks_kustomize() -> Option<&'static str> {
    const LACKS: &str = "there is no kubectl with kustomize 4.1 or newer, and none in Debian";
    let rendered = find_program("kubectl").is_some_and(|_| render(&overlay("daemonset")).is_ok());
    lacks_validator().or((!rendered).then_some(LACKS))
}

fn folder() -> PathBuf {
    repository().join("deploy/kubernetes")
}

/// What a program says to this input.
fn said(command: &mut Command, input: &str) -> Result<String, Failed> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    child.stdin.take().ok_or("no stdin")?.write_all(input.as_bytes())?;
    let output = child.wait_with_output()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match output.status.success() {
        true => Ok(text(&output.stdout)),
        false => Err(format!("{}{}", text(&output.stdout), text(&output.stderr)).into()),
    }
}

fn overlay(name: &str) -> PathBuf {
    folder().join("overlays").join(name)
}

fn render(kustomization: &Path) -> Result<String, Failed> {
    said(Command::new("kubectl").arg("kustomize").arg(kustomization), "")
}

fn validate(file: &Path) -> Result<String, Failed> {
    said(Command::new(venv("kubernetes-validate")).arg("--strict").arg(file), "")
}

fn manifests(folder: &Path) -> Result<Vec<PathBuf>, Failed> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(manifests(&path)?);
        } else if !path.ends_with("kustomization.yaml") {
            found.push(path);
        }
    }
    Ok(found)
}

fn files_are_valid() -> Outcome {
    let files = manifests(&folder())?;
    expect(format!("there are manifests: {files:?}"), files.len() >= 4)?;
    for file in &files {
        // A part of a Deployment is none: it is looked at in what is rendered with it.
        if !file.ends_with("overlays/sidecar/sidecar.yaml") {
            validate(file)?;
        }
    }
    // What is wrong is found: a key that Kubernetes does not know.
    let example = std::fs::read_to_string(folder().join("overlays/daemonset/daemonset.yaml"))?;
    let wrong = tempfile::Builder::new().suffix(".yaml").tempfile()?;
    std::fs::write(wrong.path(), example.replace("tolerations:", "tolerance:"))?;
    expect("a key that is none is refused", validate(wrong.path()).is_err())
}

/// The objects that a kustomization makes.
fn objects_in(kustomization: &Path) -> Result<Vec<Value>, Failed> {
    let rendered = render(kustomization)?;
    let file = tempfile::Builder::new().suffix(".yaml").tempfile()?;
    std::fs::write(file.path(), &rendered)?;
    validate(file.path())?;
    let read = "import json, sys, yaml; json.dump(list(yaml.safe_load_all(sys.stdin)), sys.stdout)";
    let json = said(Command::new(venv("python")).args(["-c", read]), &rendered)?;
    Ok(serde_json::from_str(&json)?)
}

fn of_kind<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    objects.iter().filter(|object| object["kind"] == kind).collect()
}

fn holds_together(name: &str) -> Outcome {
    let objects = objects_in(&overlay(name))?;
    let workload = ["Deployment", "DaemonSet"].map(|kind| of_kind(&objects, kind)).concat();
    let [workload] = workload[..] else {
        return Err(format!("one workload: {workload:?}").into());
    };
    let pod = &workload["spec"]["template"]["spec"];
    let lists = ["initContainers", "containers"].map(|list| pod[list].as_array());
    let containers: Vec<&Value> = lists.into_iter().flatten().flatten().collect();
    let daemon = containers.iter().find(|it| it["name"] == "whodunit").ok_or("no whodunit")?;
    least_privilege(pod, daemon)?;
    mounts_are_volumes(pod, &containers)?;
    let configuration = of_kind(&objects, "ConfigMap");
    let [configuration] = configuration[..] else {
        return Err("one ConfigMap".into());
    };
    let toml = configuration["data"]["whodunit.toml"].as_str().ok_or("no TOML")?;
    let file = tempfile::Builder::new().suffix(".toml").tempfile()?;
    std::fs::write(file.path(), toml)?;
    said(Command::new(binary()?).arg("check").arg("-c").arg(file.path()), "")?;
    access(&objects, pod, name)
}

/// What stands above the rendered example.
const RENDERED: &str = "# An application with whodunit beside it, rendered by `kubectl kustomize overlays/example-app`.\n";

fn example_is_rendered() -> Outcome {
    let shipped = std::fs::read_to_string(folder().join("example-app.yaml"))?;
    let rendered = format!("{RENDERED}{}", render(&overlay("example-app"))?);
    expect(
        "deploy/kubernetes/example-app.yaml is what `kubectl kustomize overlays/example-app` renders, below its first line",
        shipped == rendered,
    )
}

/// The component in the kustomization of an application that has an init container and a volume already.
fn sidecar_is_first() -> Outcome {
    // A kustomization names others by where they are from here.
    let own = tempfile::tempdir_in(repository().join("target"))?;
    let app = std::fs::read_to_string(folder().join("overlays/example-app/example-app.yaml"))?;
    let has = "      initContainers:\n        - name: migrate\n          image: migrate:1\n      volumes:\n        - name: data\n          \
               emptyDir: {}\n      containers:\n";
    std::fs::write(own.path().join("app.yaml"), app.replace("      containers:\n", has))?;
    let uses = "resources: [app.yaml]\ncomponents: [../../deploy/kubernetes/overlays/sidecar]\n";
    std::fs::write(own.path().join("kustomization.yaml"), uses)?;
    let objects = objects_in(own.path())?;
    let deployments = of_kind(&objects, "Deployment");
    let pod = &deployments.first().ok_or("no Deployment")?["spec"]["template"]["spec"];
    let names = |list: &str| -> Vec<&str> {
        let list = pod[list].as_array().into_iter().flatten();
        list.filter_map(|it| it["name"].as_str()).collect()
    };
    // It is started before what it is to see.
    expect_eq("init containers", &names("initContainers"), &vec!["whodunit", "migrate"])?;
    expect_eq("containers", &names("containers"), &vec!["web", "helper"])?;
    let volumes = names("volumes");
    expect(format!("the application keeps its volume: {volumes:?}"), volumes.contains(&"data"))
}

fn least_privilege(pod: &Value, daemon: &Value) -> Outcome {
    let security = &daemon["securityContext"];
    let capabilities = json!({
        "drop": ["ALL"], "add": ["BPF", "PERFMON", "DAC_READ_SEARCH", "SYS_PTRACE"],
    });
    expect_eq("capabilities", &security["capabilities"], &capabilities)?;
    expect_eq("read-only root", &security["readOnlyRootFilesystem"], &json!(true))?;
    expect_eq("escalation", &security["allowPrivilegeEscalation"], &json!(false))?;
    expect_eq("privileged", &security["privileged"], &Value::Null)?;
    for namespace in ["hostPID", "hostNetwork", "hostIPC"] {
        expect_eq(namespace, &pod[namespace], &Value::Null)?;
    }
    // Every other container has a token only if it asks for one.
    expect_eq("token", &pod["automountServiceAccountToken"], &json!(false))
}

/// Every mount is of a volume, and every volume is mounted.
fn mounts_are_volumes(pod: &Value, containers: &[&Value]) -> Outcome {
    let names = |list: &Value| -> Vec<String> {
        let list = list.as_array().into_iter().flatten();
        let mut names: Vec<String> =
            list.filter_map(|it| it["name"].as_str().map(str::to_owned)).collect();
        names.sort_unstable();
        names.dedup();
        names
    };
    let mut mounted: Vec<String> =
        containers.iter().flat_map(|container| names(&container["volumeMounts"])).collect();
    mounted.sort_unstable();
    mounted.dedup();
    expect_eq("mounts and volumes", &mounted, &names(&pod["volumes"]))
}

/// Who may ask the API server what: the sidecar for pods of its namespace, one by one, and the DaemonSet nothing.
fn access(objects: &[Value], pod: &Value, name: &str) -> Outcome {
    expect_eq("roles of the cluster", &of_kind(objects, "ClusterRole").len(), &0)?;
    let (roles, bindings) = (of_kind(objects, "Role"), of_kind(objects, "RoleBinding"));
    if name == "daemonset" {
        return expect_eq("roles and bindings", &(roles.len(), bindings.len()), &(0, 0));
    }
    let ([role], [binding]) = (&roles[..], &bindings[..]) else {
        return Err("one role and one binding".into());
    };
    let rules = json!([{ "apiGroups": [""], "resources": ["pods"], "verbs": ["get"] }]);
    expect_eq("rules", &role["rules"], &rules)?;
    expect_eq("bound role", &binding["roleRef"]["name"], &role["metadata"]["name"])?;
    let account = &pod["serviceAccountName"];
    expect_eq("bound account", &binding["subjects"][0]["name"], account)?;
    let accounts = of_kind(objects, "ServiceAccount");
    expect_eq("the account", &accounts[0]["metadata"]["name"], account)
}
