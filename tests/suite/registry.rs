//! Plugins from a registry: Debian's `docker-registry`, on loopback, filled over its plain HTTP API.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use libtest_mimic::{Failed, Trial};
use serde_json::{Value, json};
use tempfile::TempDir;
use whodunit_containers::condition::{PATIENCE, wait_for};
use whodunit_containers::{DaemonConfig, DaemonError, Pod, find_program};

use crate::discovery::{let_work, worker};
use crate::guests::counting_component;
use crate::recording::whodunit;
use crate::report::{expect, expect_eq};
use crate::status::whodunit_status;
use crate::swaps::reload;
use crate::{Outcome, machine, needing};

const PROGRAM: &str = "docker-registry";

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        needing("registry::a_plugin_is_pulled_once_verified_and_kept", lacks, pulled_once),
        needing("registry::a_tag_alone_is_for_those_who_say_so", lacks, by_tag),
    ]
}

fn lacks() -> Option<&'static str> {
    let without = find_program(PROGRAM).is_none();
    let lacks = without.then_some("there is no docker-registry; `cargo xtask setup` gets it");
    machine::lacks_for_capture().or(lacks)
}

/// A registry that runs, with what is in it.
struct Registry {
    address: String,
    process: Child,
    /// Its configuration and what it keeps: gone after it.
    _folder: TempDir,
}

impl Registry {
    fn start() -> Result<Registry, Failed> {
        let folder = tempfile::tempdir()?;
        // Free now, and most likely in a moment.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        let config = folder.path().join("config.yml");
        fs::write(
            &config,
            format!(
                "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {address}\n",
                folder.path().join("data").display()
            ),
        )?;
        let mut command = Command::new(PROGRAM);
        command.arg("serve").arg(&config).stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn()?;
        let registry = Registry { address, process, _folder: folder };
        let answers = wait_for(PATIENCE, || registry.ask("GET", "/v2/", "", b"").ok());
        answers.ok_or("the registry does not answer")?;
        Ok(registry)
    }

    /// One request. Gives the status and the head of the answer.
    fn ask(
        &self,
        method: &str,
        target: &str,
        media_type: &str,
        body: &[u8],
    ) -> Result<(u16, String), Failed> {
        let mut stream = TcpStream::connect(&self.address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(
            stream,
            "{method} {target} HTTP/1.0\r\nHost: {}\r\nContent-Type: {media_type}\r\nContent-Length: {}\r\n\r\n",
            self.address,
            body.len()
        )?;
        stream.write_all(body)?;
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes)?;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let head = text.split("\r\n\r\n").next().unwrap_or_default().to_owned();
        let status = head.split(' ').nth(1).ok_or("the answer has no status")?.parse()?;
        Ok((status, head))
    }

    /// Puts bytes there, and gives their description in a manifest.
    fn put_blob(&self, media_type: &str, bytes: &[u8]) -> Result<Value, Failed> {
        let digest = digest(bytes)?;
        let (_, head) = self.ask("POST", "/v2/plugins/counts/blobs/uploads/", "", b"")?;
        let location = head.lines().find_map(|line| line.strip_prefix("Location: "));
        let location = location.ok_or_else(|| format!("no place for a blob: {head}"))?;
        let target = location.split_once(&self.address).map_or(location, |(_, target)| target);
        let and = if target.contains('?') { '&' } else { '?' };
        let target = format!("{target}{and}digest={digest}");
        let (status, head) = self.ask("PUT", &target, "application/octet-stream", bytes)?;
        expect(format!("the blob is taken: {head}"), status == 201)?;
        Ok(json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() }))
    }

    /// Puts a component there in the usual format, under a tag. Gives the digest of its manifest.
    fn push(&self, component: &[u8], tag: &str) -> Result<String, Failed> {
        let config = self.put_blob("application/vnd.wasm.config.v0+json", b"{}")?;
        let layer = self.put_blob("application/wasm", component)?;
        let media_type = "application/vnd.oci.image.manifest.v1+json";
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": media_type,
            "config": config,
            "layers": [layer],
        });
        let manifest = manifest.to_string().into_bytes();
        let target = format!("/v2/plugins/counts/manifests/{tag}");
        let (status, head) = self.ask("PUT", &target, media_type, &manifest)?;
        expect(format!("the manifest is taken: {head}"), status == 201)?;
        digest(&manifest)
    }

    fn source(&self, rest: &str) -> String {
        format!("oci://{}/plugins/counts{rest}", self.address)
    }

    fn stop(&mut self) -> Outcome {
        self.process.kill()?;
        self.process.wait()?;
        Ok(())
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // It is gone already where a trial stopped it.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The digest of some bytes, as another program computes it.
fn digest(bytes: &[u8]) -> Result<String, Failed> {
    let mut child =
        Command::new("sha256sum").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    child.stdin.take().ok_or("sha256sum reads nothing")?.write_all(bytes)?;
    let output = child.wait_with_output()?;
    let text = String::from_utf8(output.stdout)?;
    Ok(format!("sha256:{}", text.split(' ').next().unwrap_or_default()))
}

fn table(source: &str, more: &str, output: &Path) -> String {
    format!(
        "[[plugin]]\nname = \"counts\"\nsource = \"{source}\"\n{more}[plugin.outputs]\nreport = {{ file = {output:?} }}\n"
    )
}

/// A daemon that cannot start, and what it says.
fn refusal(config: &DaemonConfig, words: &str) -> Outcome {
    let Err(DaemonError::Ended { exit }) = config.start() else {
        return Err(format!("a daemon starts that should say {words:?}").into());
    };
    expect(format!("{words:?} in {exit}"), exit.to_string().contains(words))
}

fn pulled_once() -> Outcome {
    let mut registry = Registry::start()?;
    let digest = registry.push(&counting_component(0, &[])?, "v1")?;
    let pod = Pod::new("registry")?;
    let app = pod.container("app").file("/etc/a", "", 0o644).file("/etc/b", "", 0o644);
    let mut app = worker(app, "cat /etc/a").start()?;
    let place = tempfile::tempdir()?;
    let (output, cache) = (place.path().join("counts"), place.path().join("cache"));
    let source = registry.source(&format!(":v1@{digest}"));
    let with = |source: &str| -> Result<DaemonConfig, Failed> {
        let config = DaemonConfig::for_pod(&pod)?.cache_dir(&cache);
        Ok(config.more_toml(&table(source, "", &output)))
    };
    // The digest of nothing that is there.
    refusal(&with(&registry.source(&format!("@sha256:{}", "0".repeat(64))))?, "404")?;

    let config = with(&source)?;
    let daemon = config.start()?;
    let_work(&mut app)?;
    let events = || fs::read(&output).ok().filter(|it| it.len() == 24 && it[0] > 1);
    expect("it counts", wait_for(PATIENCE, events).is_some())?;
    let status: Value =
        serde_json::from_slice(&whodunit_status(&config.state_dir(), "json")?.stdout)?;
    let plugins = status["plugins"].as_array().cloned().unwrap_or_default();
    let found = plugins.iter().find(|it| it["name"] == "counts").map(|it| it["source"].clone());
    expect_eq("source", &found, &Some(json!(source)))?;
    expect_eq("exit code", &daemon.stop()?.code(), &Some(0))?;

    // Pulled once: nobody is asked again, until what was kept is not what it was.
    registry.stop()?;
    let again = config.start()?;
    expect_eq("exit code without a registry", &again.stop()?.code(), &Some(0))?;
    for entry in fs::read_dir(cache.join("oci"))? {
        fs::write(entry?.path(), "something else")?;
    }
    refusal(&config, "cannot be pulled")
}

fn by_tag() -> Outcome {
    let registry = Registry::start()?;
    let first = registry.push(&counting_component(0, &[])?, "latest")?;
    let pod = Pod::new("registry-tag")?;
    let app = worker(pod.container("app").file("/etc/a", "", 0o644), "cat /etc/a");
    let mut app = app.start()?;
    let place = tempfile::tempdir()?;
    let output = place.path().join("counts");
    let source = registry.source(":latest");
    let with = |more: &str| -> Result<DaemonConfig, Failed> {
        Ok(DaemonConfig::for_pod(&pod)?.more_toml(&table(&source, more, &output)))
    };
    refusal(&with("")?, "`moving_tag = true`")?;
    let config = with("moving_tag = true\n")?;
    let daemon = config.start()?;
    let_work(&mut app)?;
    let second = registry.push(&counting_component(1, &[])?, "latest")?;
    expect("the tag leads to another component", first != second)?;
    let (code, said) = reload(&config, "counts")?;
    expect(format!("what the tag leads to now is taken: {said}"), code == Some(0))?;
    expect(said.clone(), said.contains(" in the place of "))?;
    expect_eq("exit code", &daemon.stop()?.code(), &Some(0))?;

    // Whoever wants to name it for good learns its digest.
    let inspected = whodunit(place.path(), &["plugin", "inspect", &source])?;
    let passport = String::from_utf8(inspected.stdout)?;
    let pinned = format!("source = \"{source}@{second}\"");
    expect(format!("{pinned} in {passport}"), passport.contains(&pinned))?;
    Ok(())
}
