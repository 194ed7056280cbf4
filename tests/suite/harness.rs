//! Claims about the containers themselves: what the other trials stand on.

use libtest_mimic::Trial;
use whodunit_containers::{Hierarchies, Pod};

use crate::report::{expect, expect_eq};
use crate::{Outcome, about_containers};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        about_containers("containers::a_container_runs_in_the_cgroup_of_its_pod", runs_in_its_pod),
        about_containers("containers::a_nested_cgroup_holds_the_process_that_was_moved", nests),
        about_containers("containers::everything_goes_when_it_is_dropped", everything_goes),
        about_containers("containers::the_status_of_the_program_is_the_status", passes_status),
    ]
}

fn runs_in_its_pod() -> Outcome {
    let pod = Pod::new("harness")?;
    let mut container = pod
        .container("app")
        .file("/etc/app", "known", 0o644)
        .shell("read go; cat /etc/app")
        .start()?;
    let procs = std::fs::read_to_string(container.cgroup_folder().join("cgroup.procs"))?;
    expect_eq("processes of the cgroup", &procs.trim(), &container.pid().to_string().as_str())?;
    container.tell("go")?;
    expect_eq("status", &container.wait()?.code(), &Some(0))?;
    expect_eq("output", &container.stdout().as_str(), &"known")?;
    container.delete()?;
    Ok(())
}

fn nests() -> Outcome {
    let pod = Pod::new("harness")?;
    let container = pod.container("app").start()?;
    let id = container.nest("outer/inner")?;
    expect("a nested cgroup has an id of its own", id != container.cgroup_id())?;
    let procs = container.cgroup_folder().join("outer/inner/cgroup.procs");
    let procs = std::fs::read_to_string(procs)?;
    expect_eq("processes of the cgroup", &procs.trim(), &container.pid().to_string().as_str())?;
    container.delete()?;
    Ok(())
}

fn everything_goes() -> Outcome {
    let hierarchies = Hierarchies::find()?;
    let pod = Pod::new("harness")?;
    let (folder, cgroup) = (pod.folder().to_owned(), pod.cgroup_path());
    let container = pod.container("app").start()?;
    container.nest("inner")?;
    let process = format!("/proc/{}", container.pid());
    drop(pod);
    expect("a container keeps its pod", container.cgroup_folder().exists())?;
    drop(container);
    expect(format!("{} is gone", folder.display()), !folder.exists())?;
    expect(format!("{process} is gone"), !std::path::Path::new(&process).exists())?;
    for root in std::iter::once(&hierarchies.unified).chain(&hierarchies.legacy) {
        let path = root.join(cgroup.trim_start_matches('/'));
        expect(format!("{} is gone", path.display()), !path.exists())?;
    }
    Ok(())
}

fn passes_status() -> Outcome {
    let pod = Pod::new("harness")?;
    let finished = pod.container("app").shell("echo out; exit 7").run()?;
    expect_eq("status", &finished.output.status.code(), &Some(7))?;
    expect_eq("output", &finished.output.stdout.as_slice(), &b"out\n".as_slice())?;
    let mut container = pod.container("app").shell("read go").start()?;
    container.kill("KILL")?;
    expect_eq("status", &container.wait()?.code(), &Some(128 + 9))
}
