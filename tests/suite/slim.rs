//! The proof that a report is complete: a root with nothing but the files that it lists is enough for the
//! same program to do the same work.
//!
//! Debian's own packages, unpacked, are the root. The server runs in it under load while the daemon
//! watches; then a new root is made of what the report lists, and the server runs in that.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use libtest_mimic::{Failed, Trial};
use tempfile::TempDir;
use whodunit_containers::condition::wait_until;
use whodunit_containers::{Container, ContainerBuilder, DaemonConfig, Pod};

use crate::report::{Entry, expect, expect_eq, last_report, repository};
use crate::{Outcome, machine, needing};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        needing("slim::nginx_serves_from_what_its_report_lists", lacks_nginx, || prove(&NGINX)),
        needing("slim::redis_serves_from_what_its_report_lists", lacks_redis, || prove(&REDIS)),
        needing("slim::postgresql_serves_from_what_its_report_lists", lacks_postgresql, || {
            prove(&POSTGRESQL)
        }),
    ]
}

fn lacks_nginx() -> Option<&'static str> {
    lacks("nginx")
}

fn lacks_redis() -> Option<&'static str> {
    lacks("redis")
}

fn lacks_postgresql() -> Option<&'static str> {
    lacks("postgresql")
}

fn lacks(name: &str) -> Option<&'static str> {
    machine::lacks_for_capture().or_else(|| {
        let there = packages_of(name).is_dir();
        (!there).then_some("Debian's packages are not there: `cargo xtask setup test` fetches them")
    })
}

fn packages_of(name: &str) -> PathBuf {
    repository().join("target/debian").join(name)
}

/// A start or an answer of a server on a machine under load.
const LONG: Duration = Duration::from_secs(60);

/// What servers need to drop their privileges and to own their files.
const CAPABILITIES: [&str; 7] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_KILL",
    "CAP_NET_BIND_SERVICE",
    "CAP_SETGID",
    "CAP_SETUID",
];

/// A server, and how it is put to work.
struct Server {
    /// Name of its packages' folder.
    name: &'static str,
    /// Puts into the unpacked root what an administrator would.
    configure: fn(&Path, u16) -> Outcome,
    /// Describes its container.
    describe: fn(ContainerBuilder, u16) -> ContainerBuilder,
    /// Folders that are no part of the image: name below the trial's folder, place in the container.
    volume: Option<&'static str>,
    /// Fills the volume, in a container of the whole root.
    fill: fn(ContainerBuilder) -> Option<ContainerBuilder>,
    /// Whether it takes requests.
    is_up: fn(&Path, u16) -> bool,
    /// Load, and what it answered: the same, whatever the root is.
    work: fn(&Path, u16) -> Result<Vec<String>, Failed>,
    /// The signal by which it ends in order.
    stop: &'static str,
    /// What its report must list in any case.
    lists: &'static [&'static str],
    /// Links that must be among those that were crossed.
    links: &'static [&'static str],
}

fn prove(server: &Server) -> Outcome {
    let port = free_port()?;
    let (folder, image, full) = roots(server, port)?;
    let slim = folder.path().join("slim");
    let pod = Pod::new(server.name)?;
    let config = DaemonConfig::for_pod(&pod)?;
    let volume = fill_volume(server, &pod, &folder, &full)?;
    // A pod with nothing but the daemon has nothing to watch.
    let _neighbour = pod.container("neighbour").shell("read stay").start()?;
    let daemon = config.start()?;
    let container = start(server, &pod, &full, &volume("full")?, port)?;
    let answers = answers_of(server, container, &image, port)?;
    let (mut container, answers) = answers;
    end(server, &mut container)?;
    let report = last_report(&config, daemon)?;
    let entry = report.container(&container)?;
    entry.expect_nothing_lost()?;
    check_report(server, entry)?;
    container.delete()?;

    let kept = keep(entry, &image, &slim)?;
    let (before, after) = (bytes_below(&image)?, bytes_below(&slim)?);
    println!(
        "slim {}: {kept} of the report's paths make a root of {after} bytes, of {before}",
        server.name
    );
    expect(format!("{after} bytes are less than {before}"), after < before)?;
    let container = start(server, &pod, &slim, &volume("slim")?, port)?;
    let (mut container, same) = answers_of(server, container, &image, port)?;
    expect_eq("the answers from the slimmed root", &same, &answers)?;
    end(server, &mut container)
}

/// The configured image of a server, and a copy of it to run in, in a folder of their own.
fn roots(server: &Server, port: u16) -> Result<(TempDir, PathBuf, PathBuf), Failed> {
    let folder = tempfile::Builder::new().prefix("whodunit-slim-").tempdir()?;
    allow_all_to_enter(&folder)?;
    let [image, full] = ["image", "full"].map(|name| folder.path().join(name));
    unpack(&packages_of(server.name), &image)?;
    (server.configure)(&image, port)?;
    copy_tree(&image, &full)?;
    Ok((folder, image, full))
}

/// Records a redis from its start over some work to its end.
pub(crate) fn record_redis(recording: &Path) -> Outcome {
    let port = free_port()?;
    let (folder, image, full) = roots(&REDIS, port)?;
    let pod = Pod::new(REDIS.name)?;
    let config = DaemonConfig::for_pod(&pod)?.environment("NODE_NAME", "node");
    let config = config.recording_to(recording);
    let _neighbour = pod.container("neighbour").shell("read stay").start()?;
    let daemon = config.start()?;
    let container = start(&REDIS, &pod, &full, folder.path(), port)?;
    let (mut container, _) = answers_of(&REDIS, container, &image, port)?;
    end(&REDIS, &mut container)?;
    let exit = daemon.stop()?;
    expect_eq(&format!("exit code, of {exit}"), &exit.code(), &Some(0))
}

fn start(
    server: &Server,
    pod: &Pod,
    root: &Path,
    volume: &Path,
    port: u16,
) -> Result<Container, Failed> {
    let mut builder = pod.container(server.name).root(root).capabilities(&CAPABILITIES);
    if let Some(place) = server.volume {
        builder = builder.bind_writable(volume, place);
    }
    Ok((server.describe)(builder, port).start()?)
}

/// Waits until the server is up and lets it work.
fn answers_of(
    server: &Server,
    mut container: Container,
    image: &Path,
    port: u16,
) -> Result<(Container, Vec<String>), Failed> {
    let up = wait_until(LONG, || (server.is_up)(image, port) || !container.is_running());
    if !up || !container.is_running() {
        let said = format!("{}\n{}", container.stdout(), container.stderr());
        return Err(format!("{} does not take requests; it said {said}", server.name).into());
    }
    let answers = (server.work)(image, port)
        .map_err(|failed| format!("{:?}; it said {}", failed.message(), container.stderr()))?;
    Ok((container, answers))
}

fn end(server: &Server, container: &mut Container) -> Outcome {
    container.kill(server.stop)?;
    let status = container.wait_at_most(LONG)?;
    expect(format!("{} ends in order: {status}", server.name), status.code() == Some(0))
}

fn check_report(server: &Server, entry: Entry<'_>) -> Outcome {
    let files = paths_of(entry, "files");
    for path in server.lists {
        expect(format!("{path} is listed as used"), files.contains(*path))?;
    }
    let links = paths_of(entry, "links");
    for path in server.links {
        expect(format!("{path} is listed as a link: {links:?}"), links.contains(*path))?;
    }
    let interpreters = paths_of(entry, "interpreters");
    expect_eq("the interpreters", &interpreters, &[LOADER.to_owned()].into())
}

/// Where the loader of dynamic programs really is, on a Debian with merged `/usr`.
const LOADER: &str = "/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2";

/// The paths of a list of texts or of objects.
fn paths_of(entry: Entry<'_>, list: &str) -> BTreeSet<String> {
    let entries = entry.0[list].as_array().into_iter().flatten();
    let path =
        |value: &serde_json::Value| value.as_str().or(value["path"].as_str()).map(str::to_owned);
    entries.filter_map(path).collect()
}

/// Makes a root of what a report lists: files, links, and the folders that they, and what was made while
/// the container ran, stand in. Returns how many paths of the report there were in the image.
fn keep(entry: Entry<'_>, image: &Path, slim: &Path) -> Result<usize, Failed> {
    let mut kept: BTreeSet<String> = BTreeSet::new();
    for list in ["files", "links", "interpreters"] {
        kept.extend(paths_of(entry, list));
    }
    let in_image = |path: &str| image.join(path.trim_start_matches('/'));
    let exists = |path: &str| in_image(path).symlink_metadata().is_ok();
    let number = kept.iter().filter(|path| exists(path)).count();
    let changed = paths_of(entry, "changed");
    let above: Vec<String> =
        kept.iter().chain(&changed).flat_map(|path| folders_above(path)).collect();
    kept.extend(above);
    fs::create_dir(slim)?;
    // Folders sort before what is in them.
    for path in kept.iter().filter(|path| exists(path)) {
        copy_one(&in_image(path), &slim.join(path.trim_start_matches('/')))?;
    }
    Ok(number)
}

fn folders_above(path: &str) -> Vec<String> {
    Path::new(path).ancestors().skip(1).map(|folder| folder.display().to_string()).collect()
}

/// Copies one file, link or folder without its content, with owner and permissions.
fn copy_one(from: &Path, to: &Path) -> Outcome {
    use std::os::unix::fs::MetadataExt;
    let facts = from.symlink_metadata()?;
    if facts.is_symlink() {
        symlink(fs::read_link(from)?, to)?;
        return Ok(());
    }
    if facts.is_dir() {
        fs::create_dir_all(to)?;
    } else {
        fs::copy(from, to)?;
    }
    chown(to, Some(facts.uid()), Some(facts.gid()))?;
    fs::set_permissions(to, facts.permissions())?;
    Ok(())
}

fn bytes_below(folder: &Path) -> Result<u64, Failed> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let facts = entry.metadata()?;
        bytes += if facts.is_dir() { bytes_below(&entry.path())? } else { facts.len() };
    }
    Ok(bytes)
}

fn allow_all_to_enter(folder: &TempDir) -> Outcome {
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
    Ok(())
}

/// Unpacks Debian packages into a root with merged `/usr`, as every Debian has since 12.
fn unpack(packages: &Path, root: &Path) -> Outcome {
    for folder in ["usr/bin", "usr/sbin", "usr/lib", "usr/lib64", "etc", "run", "tmp", "var/lib"] {
        fs::create_dir_all(root.join(folder))?;
    }
    for link in ["bin", "sbin", "lib", "lib64"] {
        symlink(format!("usr/{link}"), root.join(link))?;
    }
    symlink("../run", root.join("var/run"))?;
    fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777))?;
    let script = "for package in \"$1\"/*.deb; do \
        dpkg-deb --fsys-tarfile \"$package\" | tar --extract --keep-directory-symlink -C \"$2\" || exit 1; \
        done";
    run(Command::new("sh").args(["-c", script, "sh"]).arg(packages).arg(root))?;
    // What packages leave to their scripts: a shell, and the users that Debian begins with.
    if root.join("usr/bin/dash").exists() && !root.join("usr/bin/sh").exists() {
        symlink("dash", root.join("usr/bin/sh"))?;
    }
    fs::write(root.join("etc/passwd"), PASSWD)?;
    fs::write(root.join("etc/group"), GROUP)?;
    Ok(())
}

const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n\
    www-data:x:33:33:www-data:/var/www:/usr/sbin/nologin\n\
    postgres:x:101:101::/var/lib/postgresql:/bin/sh\n\
    nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n";
const GROUP: &str = "root:x:0:\nwww-data:x:33:\npostgres:x:101:\nnogroup:x:65534:\n";

fn copy_tree(from: &Path, to: &Path) -> Outcome {
    run(Command::new("cp").args(["--archive", "--reflink=auto"]).arg(from).arg(to)).map(|_| ())
}

fn run(command: &mut Command) -> Result<String, Failed> {
    let output = command.output()?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{command:?} failed ({}): {said}", output.status).into())
}

/// Fills a volume once. Gives what makes a copy of it for each run.
fn fill_volume(
    server: &Server,
    pod: &Pod,
    folder: &TempDir,
    root: &Path,
) -> Result<impl Fn(&str) -> Result<PathBuf, Failed> + use<>, Failed> {
    let original = folder.path().join("volume");
    fs::create_dir(&original)?;
    chown(&original, Some(POSTGRES), Some(POSTGRES))?;
    let builder = pod.container("fill").root(root).capabilities(&CAPABILITIES);
    if let Some(place) = server.volume
        && let Some(filling) = (server.fill)(builder.bind_writable(&original, place))
    {
        let output = filling.run()?.output;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        expect(format!("the volume is filled: {said}"), output.status.success())?;
    }
    Ok(move |name: &str| {
        let copy = original.with_file_name(format!("volume-{name}"));
        copy_tree(&original, &copy)?;
        Ok(copy)
    })
}

/// A port that nobody listens on: containers here share the machine's network.
fn free_port() -> Result<u16, Failed> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

fn accepts(port: u16) -> bool {
    TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
}

/// Runs a client out of the image, as this machine's root.
fn client(image: &Path, arguments: &[&str]) -> Result<String, Failed> {
    run(Command::new("chroot")
        .arg(image)
        .args(arguments)
        .env("PGUSER", "postgres")
        .env("HOME", "/"))
}

// --- nginx

const NGINX: Server = Server {
    name: "nginx",
    configure: configure_nginx,
    describe: |builder, _| builder.program(&["/usr/sbin/nginx", "-g", "daemon off;"]),
    volume: None,
    fill: |_| None,
    is_up: |_, port| get(port, "/").is_ok(),
    work: work_nginx,
    stop: "QUIT",
    lists: &[
        "/usr/sbin/nginx",
        "/etc/nginx/nginx.conf",
        "/etc/nginx/mime.types",
        "/srv/www/index.html",
    ],
    links: &["/etc/nginx/sites-enabled/default", "/lib64", "/srv/www/linked.html"],
};

fn configure_nginx(root: &Path, port: u16) -> Outcome {
    let site = format!(
        "server {{ listen 127.0.0.1:{port}; root /srv/www; index index.html; gzip on; \
         location /list/ {{ autoindex on; }} error_page 404 /errors/missing.html; }}\n"
    );
    let www = root.join("srv/www");
    for folder in ["list/inner", "errors"] {
        fs::create_dir_all(www.join(folder))?;
    }
    fs::create_dir_all(root.join("etc/nginx/sites-available"))?;
    fs::create_dir_all(root.join("etc/nginx/sites-enabled"))?;
    fs::write(root.join("etc/nginx/sites-available/default"), site)?;
    let enabled = root.join("etc/nginx/sites-enabled/default");
    let _ = fs::remove_file(&enabled);
    symlink("../sites-available/default", enabled)?;
    fs::write(www.join("index.html"), "<html>the start page</html>")?;
    fs::write(www.join("list/first.txt"), "one")?;
    fs::write(www.join("errors/missing.html"), "not here")?;
    fs::write(www.join("style.css"), "a { color: red }")?;
    fs::write(www.join("never-asked-for.html"), "nobody reads me")?;
    symlink("index.html", www.join("linked.html"))?;
    Ok(())
}

const PAGES: [&str; 6] =
    ["/", "/linked.html", "/style.css", "/list/first.txt", "/nothing", "/list/inner/"];

fn work_nginx(_: &Path, port: u16) -> Result<Vec<String>, Failed> {
    let mut answers = Vec::new();
    for turn in 0..200 {
        for page in PAGES {
            let answer = get(port, page)?;
            if turn == 0 {
                answers.push(answer);
            }
        }
    }
    Ok(answers)
}

/// The status line and the body of a page.
fn get(port: u16, page: &str) -> Result<String, Failed> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(LONG))?;
    write!(stream, "GET {page} HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("the answer has no head")?;
    Ok(format!("{} {body}", head.lines().next().unwrap_or_default()))
}

// --- redis

const REDIS: Server = Server {
    name: "redis",
    configure: configure_redis,
    describe: |builder, port| {
        builder.program(&[
            "/usr/bin/redis-server",
            "/etc/redis/redis.conf",
            "--daemonize",
            "no",
            "--supervised",
            "no",
            "--logfile",
            "",
            "--port",
            &port.to_string(),
        ])
    },
    volume: None,
    fill: |_| None,
    is_up: |_, port| accepts(port),
    work: work_redis,
    stop: "TERM",
    lists: &["/etc/redis/redis.conf"],
    links: &["/lib64"],
};

fn configure_redis(root: &Path, _: u16) -> Outcome {
    for folder in ["var/lib/redis", "var/log/redis", "run/redis"] {
        fs::create_dir_all(root.join(folder))?;
    }
    Ok(())
}

fn work_redis(image: &Path, port: u16) -> Result<Vec<String>, Failed> {
    let port = port.to_string();
    client(
        image,
        &["/usr/bin/redis-benchmark", "-p", &port, "-n", "2000", "-q", "-t", "set,get,lpush"],
    )?;
    let cli = |command: &[&str]| {
        let mut words = vec!["/usr/bin/redis-cli", "-p", &port];
        words.extend(command);
        client(image, &words)
    };
    let mut answers = Vec::new();
    for command in [
        &["flushall"][..],
        &["set", "key", "value"],
        &["get", "key"],
        &["eval", "return redis.call('get', KEYS[1])", "1", "key"],
        &["lpush", "list", "a", "b"],
        &["save"],
        &["dbsize"],
    ] {
        answers.push(cli(command)?);
    }
    Ok(answers)
}

// --- PostgreSQL

/// The user that PostgreSQL runs as: it refuses to be root.
const POSTGRES: u32 = 101;
const DATA: &str = "/srv/data";
/// `postgresql` is a package of Debian 12, which has this version.
const POSTGRES_BIN: &str = "/usr/lib/postgresql/15/bin";

const POSTGRESQL: Server = Server {
    name: "postgresql",
    configure: |root, _| {
        fs::create_dir_all(root.join(DATA.trim_start_matches('/')))?;
        Ok(())
    },
    describe: |builder, port| {
        builder.user(POSTGRES).environment("LC_ALL", "C").program(&[
            &format!("{POSTGRES_BIN}/postgres"),
            "-D",
            DATA,
            "-p",
            &port.to_string(),
            "-c",
            "listen_addresses=127.0.0.1",
            "-c",
            "unix_socket_directories=",
            "-c",
            "dynamic_shared_memory_type=mmap",
        ])
    },
    volume: Some(DATA),
    fill: |builder| {
        let initdb = format!("{POSTGRES_BIN}/initdb");
        Some(builder.user(POSTGRES).environment("LC_ALL", "C").program(&[
            &initdb,
            "-D",
            DATA,
            "-A",
            "trust",
            "-U",
            "postgres",
            "--no-sync",
        ]))
    },
    is_up: |image, port| psql(image, port, "select 1").is_ok(),
    work: work_postgresql,
    stop: "INT",
    lists: &["/usr/lib/postgresql/15/bin/postgres"],
    links: &["/lib64"],
};

fn psql(image: &Path, port: u16, statement: &str) -> Result<String, Failed> {
    let (program, port) = (format!("{POSTGRES_BIN}/psql"), port.to_string());
    client(image, &[&program, "-h", "127.0.0.1", "-p", &port, "-Atc", statement])
}

fn work_postgresql(image: &Path, port: u16) -> Result<Vec<String>, Failed> {
    let (pgbench, text) = (format!("{POSTGRES_BIN}/pgbench"), port.to_string());
    let host = ["-h", "127.0.0.1", "-p", &text];
    client(image, &[&[pgbench.as_str(), "-i", "-q"][..], &host, &["postgres"]].concat())?;
    client(
        image,
        &[&[pgbench.as_str(), "-t", "20", "-c", "2"][..], &host, &["postgres"]].concat(),
    )?;
    let statements = [
        "select count(*) from pgbench_accounts",
        "select count(*) from pgbench_history",
        "create table t (a int primary key, b text)",
        "insert into t select n, md5(n::text) from generate_series(1, 1000) n",
        "select sum(length(b)) from t where b ~ '^[a-f]'",
        "create extension if not exists plpgsql",
        "do $$ begin perform count(*) from t; end $$",
        "select timestamp '2026-01-15 10:00' at time zone 'Europe/Berlin' at time zone 'UTC'",
    ];
    statements.iter().map(|statement| psql(image, port, statement)).collect()
}
