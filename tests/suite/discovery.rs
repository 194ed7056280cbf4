//! Which containers are found, and whose a file is.

use std::collections::BTreeSet;
use std::process::Command;

use libtest_mimic::Trial;
use serde_json::Value;
use whodunit_containers::{Container, ContainerBuilder, DaemonConfig, Placement, Pod};

use crate::report::{execs, expect, expect_eq, last_report, lists, lists_ended};
use crate::{Outcome, about_capture, machine, needing};

/// Exit code of a failure that is none of the more special ones.
const FAILURE: i32 = 1;

const PLACEMENTS: [(Placement, &str); 3] = [
    (Placement::Cgroup, "in_a_cgroup"),
    (Placement::PrivateCgroupNamespace, "in_a_private_cgroup_namespace"),
    (Placement::Sidecar, "as_a_sidecar"),
];

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = vec![
        about_capture("discovery::three_containers_at_once_have_their_own_files", three_at_once),
        about_capture("discovery::the_same_file_in_two_containers_is_in_both", same_file_in_two),
        about_capture("discovery::a_single_container_is_enough", single),
        about_capture("discovery::a_late_container_is_seen_from_its_first_exec", late),
        about_capture("discovery::a_container_that_lives_50_ms_is_whole", brief),
        about_capture("discovery::a_removed_container_keeps_its_files_and_totals", removed),
        about_capture("discovery::files_of_nested_cgroups_belong_to_their_container", nested),
        about_capture("discovery::the_scope_node_sees_pods_of_different_parents", node_scope),
        about_capture("discovery::the_scope_cgroups_sees_what_was_chosen_only", cgroups_scope),
        about_capture("discovery::a_quiet_container_is_reported_too", quiet),
    ];
    for (placement, name) in PLACEMENTS {
        trials.push(needing(
            format!("discovery::the_daemon_leaves_itself_out_{name}"),
            machine::lacks_for_capture,
            move || leaves_itself_out(placement),
        ));
        trials.push(needing(
            format!("discovery::a_pod_with_only_the_daemon_is_an_error_{name}"),
            machine::lacks_for_capture,
            move || only_us(placement),
        ));
    }
    trials
}

/// A container that waits for a line, does its work, says `done` and stays.
pub(crate) fn worker(builder: ContainerBuilder, work: &str) -> ContainerBuilder {
    builder.shell(&format!("read go\n{work}\necho done\nread stay"))
}

/// Lets a worker do its work.
pub(crate) fn let_work(container: &mut Container) -> Outcome {
    container.tell("go")?;
    container.hear("done")?;
    Ok(())
}

fn three_at_once() -> Outcome {
    let pod = Pod::new("three")?;
    let web = pod
        .container("web")
        .file("/etc/web/site.conf", "site", 0o644)
        .file("/srv/index.html", "index", 0o644)
        .file("/srv/never.html", "never read", 0o644);
    let mut web = worker(web, "cat /etc/web/site.conf /srv/index.html").start()?;
    let queue = pod.container("queue").file("/etc/queue.conf", "queue", 0o644);
    let mut queue = worker(queue, "cat /etc/queue.conf; cat /etc/queue.conf").start()?;
    let job = pod.container("job").file("/job/input", "in", 0o644).folder("/job/out");
    let mut job = worker(job, "cat /job/input > /job/out/result").start()?;

    let config = DaemonConfig::for_pod(&pod)?;
    let daemon = config.start()?;
    for container in [&mut web, &mut queue, &mut job] {
        let_work(container)?;
    }
    let report = last_report(&config, daemon)?;

    report.expect_running(&[&web, &queue, &job])?;
    expect_eq("pod_name", &report.text("pod_name"), &"three")?;
    expect_eq("namespace", &report.text("namespace"), &"default")?;
    let check = |container: &Container, files: &[&str], events| -> Outcome {
        let entry = report.container(container)?;
        entry.expect_files(files)?;
        entry.expect_list("executed", &["/bin/busybox"])?;
        entry.expect_list("missing", &[])?;
        entry.expect_events(events)?;
        entry.expect_from_birth(false)?;
        entry.expect_nothing_lost()
    };
    // An execution for each `cat`, one open for each file.
    check(&web, &["/bin/busybox", "/etc/web/site.conf", "/srv/index.html"], 2 + execs(1))?;
    check(&queue, &["/bin/busybox", "/etc/queue.conf"], 2 + execs(2))?;
    check(&job, &["/bin/busybox", "/job/input", "/job/out/result"], 2 + execs(1))?;
    expect_eq("dropped_events", &report.number("dropped_events"), &0)
}

fn same_file_in_two() -> Outcome {
    let pod = Pod::new("same")?;
    // One inode for both: the file of a volume that they share.
    let shared = tempfile::tempdir()?;
    let file = shared.path().join("shared.conf");
    std::fs::write(&file, "shared")?;
    let start = |name: &str| {
        let builder = pod.container(name).bind(shared.path(), "/shared");
        let builder = builder.file("/etc/own.conf", "own", 0o644);
        worker(builder, "cat /shared/shared.conf /etc/own.conf").start()
    };
    let (mut first, mut second) = (start("first")?, start("second")?);
    let config = DaemonConfig::for_pod(&pod)?;
    let daemon = config.start()?;
    let_work(&mut first)?;
    let_work(&mut second)?;
    let report = last_report(&config, daemon)?;
    for container in [&first, &second] {
        let entry = report.container(container)?;
        entry.expect_files(&["/bin/busybox", "/etc/own.conf", "/shared/shared.conf"])?;
        entry.expect_events(2 + execs(1))?;
    }
    Ok(())
}

fn single() -> Outcome {
    let pod = Pod::new("single")?;
    let app = pod.container("app").file("/etc/app.conf", "app", 0o644);
    let mut app = worker(app, "cat /etc/app.conf").start()?;
    let config = DaemonConfig::for_pod(&pod)?;
    let daemon = config.start()?;
    let_work(&mut app)?;
    let report = last_report(&config, daemon)?;
    report.expect_running(&[&app])?;
    report.container(&app)?.expect_files(&["/bin/busybox", "/etc/app.conf"])
}

fn quiet() -> Outcome {
    let pod = Pod::new("quiet")?;
    let mut app = worker(pod.container("app"), "").start()?;
    let config = DaemonConfig::for_pod(&pod)?;
    let mut daemon = config.start()?;
    let first = daemon.wait_report("a first version", |_| true)?;
    let update = first["last_updated_at"].clone();
    daemon.wait_report("a second version", |report| report["last_updated_at"] != update)?;
    let_work(&mut app)?;
    let report = last_report(&config, daemon)?;
    let entry = report.container(&app)?;
    entry.expect_files(&[])?;
    entry.expect_events(0)
}

fn late() -> Outcome {
    let pod = Pod::new("late")?;
    let _early = pod.container("early").shell("read stay").start()?;
    let config = DaemonConfig::for_pod(&pod)?;
    let daemon = config.start()?;
    let late = pod.container("late").file("/etc/late.conf", "late", 0o644);
    let late = late.shell("cat /etc/late.conf; echo done; read stay").start()?;
    late.hear("done")?;
    let report = last_report(&config, daemon)?;
    let entry = report.container(&late)?;
    entry.expect_from_birth(true)?;
    entry.expect_files(&["/bin/busybox", "/etc/late.conf"])?;
    entry.expect_list("executed", &["/bin/busybox"])?;
    entry.expect_list("missing", &[])?;
    entry.expect_nothing_lost()?;
    expect_eq("complete", &entry.0["complete"], &true.into())?;
    // The shell, `cat`, and the file: nothing of what the runtime did before them.
    entry.expect_events(1 + execs(2))
}

fn brief() -> Outcome {
    let pod = Pod::new("brief")?;
    let _neighbour = pod.container("neighbour").shell("read stay").start()?;
    let config = DaemonConfig::for_pod(&pod)?;
    let mut daemon = config.start()?;
    let brief = pod.container("brief").file("/etc/brief.conf", "brief", 0o644);
    let brief = brief.shell("cat /etc/brief.conf; exec sleep 0.05").run()?;
    expect_eq("its output", &brief.output.stdout.as_slice(), &b"brief".as_slice())?;
    daemon.wait_report("the brief container, ended", |report| lists_ended(report, &brief.id))?;
    let report = last_report(&config, daemon)?;
    let entry = report.ended_container(&brief.id)?;
    expect_eq("cgroup_path", &entry.0["cgroup_path"], &Value::from(brief.cgroup_path))?;
    entry.expect_from_birth(true)?;
    entry.expect_files(&["/bin/busybox", "/etc/brief.conf"])?;
    entry.expect_nothing_lost()?;
    // The shell, `cat`, the file, `sleep`.
    entry.expect_events(1 + execs(3))
}

fn removed() -> Outcome {
    let pod = Pod::new("removed")?;
    let stays = pod.container("stays").shell("read stay").start()?;
    let goes = pod.container("goes").file("/etc/goes.conf", "goes", 0o644);
    let mut goes = worker(goes, "cat /etc/goes.conf; cat /etc/goes.conf").start()?;
    let config = DaemonConfig::for_pod(&pod)?;
    let mut daemon = config.start()?;
    let_work(&mut goes)?;
    let id = goes.id().to_owned();
    goes.delete()?;
    daemon.wait_report("the removed container, ended", |report| lists_ended(report, &id))?;
    let report = last_report(&config, daemon)?;
    report.expect_running(&[&stays])?;
    let entry = report.ended_container(&id)?;
    entry.expect_files(&["/bin/busybox", "/etc/goes.conf"])?;
    entry.expect_events(2 + execs(2))?;
    expect_eq("the total of all", &report.number("total_events"), &(2 + execs(2)))
}

fn nested() -> Outcome {
    let pod = Pod::new("nested")?;
    let app = pod
        .container("app")
        .file("/etc/outer.conf", "outer", 0o644)
        .file("/etc/known.conf", "nested before the daemon came", 0o644)
        .file("/etc/fresh.conf", "nested while it watched", 0o644);
    let work = "cat /etc/outer.conf; echo outer; read go; cat /etc/known.conf; echo known; \
                read go; cat /etc/fresh.conf";
    let mut app = worker(app, work).start()?;
    whodunit_containers::cgroup::make_nested(app.cgroup_folder(), "known")?;
    let config = DaemonConfig::for_pod(&pod)?;
    let daemon = config.start()?;
    app.tell("go")?;
    app.hear("outer")?;
    app.nest("known")?;
    app.tell("go")?;
    app.hear("known")?;
    app.nest("fresh/and/deep")?;
    app.tell("go")?;
    app.hear("done")?;
    let report = last_report(&config, daemon)?;
    report.expect_running(&[&app])?;
    let entry = report.container(&app)?;
    entry.expect_files(&[
        "/bin/busybox",
        "/etc/fresh.conf",
        "/etc/known.conf",
        "/etc/outer.conf",
    ])?;
    entry.expect_nothing_lost()?;
    entry.expect_events(3 + execs(3))
}

fn node_scope() -> Outcome {
    let config = DaemonConfig::for_node()?;
    let start = |pod: &Pod, name: &str| {
        let file = format!("/etc/{name}.conf");
        let builder = pod.container(name).file(&file, name, 0o644);
        worker(builder, &format!("cat {file}")).start()
    };
    let burstable = Pod::new("burstable")?;
    let besteffort = Pod::below("kubepods/besteffort", "besteffort")?;
    let guaranteed = Pod::below("kubepods", "guaranteed")?;
    let mut early = start(&burstable, "early")?;
    let daemon = config.start()?;
    let mut same_class = start(&besteffort, "besteffort")?;
    let mut other_class = start(&guaranteed, "guaranteed")?;
    for container in [&mut early, &mut same_class, &mut other_class] {
        let_work(container)?;
    }
    let report = last_report(&config, daemon)?;
    let check = |container: &Container, name: &str, from_birth: bool| -> Outcome {
        let entry = report.container(container)?;
        entry.expect_files(&["/bin/busybox", &format!("/etc/{name}.conf")])?;
        entry.expect_from_birth(from_birth)
    };
    check(&early, "early", false)?;
    check(&same_class, "besteffort", true)?;
    check(&other_class, "guaranteed", true)
}

fn cgroups_scope() -> Outcome {
    let pod = Pod::new("chosen")?;
    let start = |name: &str| {
        let builder = pod.container(name).file("/etc/app.conf", "app", 0o644);
        worker(builder, "cat /etc/app.conf").start()
    };
    let (mut chosen, mut other) = (start("chosen")?, start("other")?);
    let config = DaemonConfig::for_cgroups(&[chosen.cgroup_path()])?;
    let daemon = config.start()?;
    let_work(&mut chosen)?;
    let_work(&mut other)?;
    let report = last_report(&config, daemon)?;
    let path = chosen.cgroup_path();
    let paths: BTreeSet<&str> =
        report.running().filter_map(|entry| entry["cgroup_path"].as_str()).collect();
    expect_eq("the watched cgroups", &paths, &BTreeSet::from([path.as_str()]))?;
    // A chosen subtree is called what the configuration calls it.
    let entry = report.running_called(path.trim_start_matches('/'))?;
    entry.expect_files(&["/bin/busybox", "/etc/app.conf"])?;
    expect_eq("the total of all", &report.number("total_events"), &(1 + execs(1)))
}

fn leaves_itself_out(placement: Placement) -> Outcome {
    let pod = Pod::new("ourselves")?;
    let app = pod.container("app").file("/etc/app.conf", "app", 0o644);
    let mut app = worker(app, "cat /etc/app.conf").start()?;
    let config = DaemonConfig::for_pod(&pod)?.placed(placement);
    let mut daemon = config.start()?;
    if placement != Placement::Sidecar {
        read_a_file_beside(&config)?;
    }
    let_work(&mut app)?;
    daemon.wait_report("the file of the other container", |report| {
        lists(report, app.id(), "files", "/etc/app.conf")
    })?;
    // The daemon has written a report by now, which is a use of files.
    let report = last_report(&config, daemon)?;
    report.expect_running(&[&app])?;
    expect_eq("ended containers", &report.ended().count(), &0)?;
    report.container(&app)?.expect_files(&["/bin/busybox", "/etc/app.conf"])?;
    expect_eq("the total of all", &report.number("total_events"), &(1 + execs(1)))
}

/// Somebody else in the cgroup of the daemon, such as a shell in its container, reads a file.
fn read_a_file_beside(config: &DaemonConfig) -> Outcome {
    let status = Command::new("/bin/sh")
        .args(["-c", "echo $$ > \"$0/cgroup.procs\" && exec cat /proc/self/status /dev/null"])
        .arg(config.cgroup().folder())
        .stdout(std::process::Stdio::null())
        .status()?;
    expect("a process beside the daemon runs", status.success())
}

fn only_us(placement: Placement) -> Outcome {
    let pod = Pod::new("alone")?;
    let config = DaemonConfig::for_pod(&pod)?.placed(placement);
    let exit = config.run()?;
    expect_eq(&format!("exit code, of {exit}"), &exit.code(), &Some(FAILURE))?;
    let complaints = exit.complaints();
    expect(
        format!("one sentence says so: {exit}"),
        complaints.len() == 1
            && complaints[0].contains("no containers discovered (pod has only whodunit?)"),
    )?;
    expect("there is no report", !config.report_path().exists())
}
