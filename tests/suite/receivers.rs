//! Those who get what leaves the daemon: servers of HTTP, and receivers of OTLP from PyPI.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use libtest_mimic::Failed;
use serde_json::Value;
use whodunit_containers::condition::{PATIENCE, wait_for};
use whodunit_containers::find_program;

use crate::http::Ended;
use crate::machine;
use crate::report::{expect, repository};

/// Where `cargo xtask setup` puts the receivers of OTLP.
fn venv() -> PathBuf {
    repository().join("target/receivers/venv")
}

/// Why there is no receiver of OTLP.
pub(crate) fn lacks_otlp() -> Option<&'static str> {
    let without = !venv().join("bin/oteltap").exists();
    let lacks = "there is no receiver of OTLP; `cargo xtask setup test` gets it";
    machine::lacks_for_capture().or(without.then_some(lacks))
}

/// Why there is no server with TLS.
pub(crate) fn lacks_server() -> Option<&'static str> {
    let lacks = |program| find_program(program).is_none();
    machine::lacks_for_capture()
        .or(lacks("python3").then_some("there is no python3; `cargo xtask setup test` gets it"))
        .or(lacks("openssl").then_some("there is no openssl; `cargo xtask setup test` gets it"))
}

/// A port of this machine that was free a moment ago.
pub(crate) fn free_port() -> Result<u16, Failed> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// A program that prints what it gets. It ends with the trial.
pub(crate) struct Receiver {
    _program: Ended,
    printed: PathBuf,
    pub(crate) port: u16,
    _folder: tempfile::TempDir,
}

impl Receiver {
    fn start(command: &mut Command, port: u16) -> Result<Receiver, Failed> {
        let folder = tempfile::tempdir()?;
        let printed = folder.path().join("printed");
        let file = File::create(&printed)?;
        let program = command
            .env("PYTHONUNBUFFERED", "1")
            .stdin(Stdio::null())
            .stderr(file.try_clone()?)
            .stdout(file)
            .spawn()?;
        Ok(Receiver { _program: Ended(program), printed, port, _folder: folder })
    }

    /// A server that prints requests and answers with these statuses, with TLS where there is a certificate.
    pub(crate) fn server(
        certificate: Option<&Certificate>,
        statuses: &[&str],
    ) -> Result<Receiver, Failed> {
        let mut command = Command::new("python3");
        command.arg(repository().join("tests/receivers/receiver.py"));
        if let Some(Certificate { certificate, key, .. }) = certificate {
            command.arg("--tls").args([certificate, key]);
        }
        // After these words no option takes a further one.
        let mut receiver = Receiver::start(command.arg("--").args(statuses), 0)?;
        let port = receiver.await_json(|line| line["port"].is_u64())?;
        receiver.port =
            port["port"].as_u64().and_then(|port| port.try_into().ok()).ok_or("no port")?;
        Ok(receiver)
    }

    /// `oteltap`, which speaks protobuf and prints each record as a line of JSON.
    pub(crate) fn oteltap(port: u16) -> Result<Receiver, Failed> {
        let mut command = Command::new(venv().join("bin/python"));
        command.args(["-m", "oteltap", "--port", &port.to_string()]);
        let receiver = Receiver::start(&mut command, port)?;
        receiver.await_text("Listening")?;
        Ok(receiver)
    }

    /// `rotel`, a collector, which speaks JSON too and prints what it gets line by line.
    pub(crate) fn rotel() -> Result<Receiver, Failed> {
        let (port, grpc) = (free_port()?, free_port()?);
        let program = fs::read_dir(venv().join("lib"))?
            .filter_map(Result::ok)
            .map(|python| python.path().join("site-packages/rotel/rotel-agent"))
            .find(|program| program.exists())
            .ok_or("there is no rotel")?;
        let mut command = Command::new(program);
        command
            .arg("start")
            .args(["--otlp-http-endpoint", &format!("127.0.0.1:{port}")])
            .args(["--otlp-grpc-endpoint", &format!("127.0.0.1:{grpc}")])
            .args(["--exporter", "blackhole", "--debug-log", "logs"])
            .args(["--debug-log-verbosity", "detailed"]);
        let receiver = Receiver::start(&mut command, port)?;
        receiver.await_text("Starting Rotel")?;
        Ok(receiver)
    }

    /// What it printed so far.
    pub(crate) fn printed(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.printed).unwrap_or_default()).into_owned()
    }

    /// Every whole line of JSON so far.
    pub(crate) fn json(&self) -> Vec<Value> {
        let printed = self.printed();
        printed.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Waits for a line of JSON.
    pub(crate) fn await_json(&self, wanted: impl Fn(&Value) -> bool) -> Result<Value, Failed> {
        let found = wait_for(PATIENCE, || self.json().into_iter().find(&wanted));
        found.ok_or_else(|| format!("it never came: {}", self.printed()).into())
    }
    /// Waits for words.
    pub(crate) fn await_text(&self, words: &str) -> Result<String, Failed> {
        let found = wait_for(PATIENCE, || Some(self.printed()).filter(|text| text.contains(words)));
        found.ok_or_else(|| format!("{words:?} never came: {}", self.printed()).into())
    }
}

/// A certificate for 127.0.0.1 and localhost, with its key and with who vouches for it.
pub(crate) struct Certificate {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    pub(crate) authority: PathBuf,
}

impl Certificate {
    /// Makes one in the folder, with an authority of its own.
    pub(crate) fn make(folder: &Path, name: &str) -> Result<Certificate, Failed> {
        let at = |ending: &str| folder.join(format!("{name}{ending}"));
        let (authority, authority_key) = (at("-ca.pem"), at("-ca.key"));
        let (certificate, key, request) = (at(".pem"), at(".key"), at(".csr"));
        let names = at(".ext");
        fs::write(
            &names,
            "subjectAltName = IP:127.0.0.1, DNS:localhost\nbasicConstraints = CA:FALSE\n",
        )?;
        let curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
        let openssl = |arguments: &mut Command| -> Result<(), Failed> {
            let output = arguments.stdin(Stdio::null()).output()?;
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            expect(format!("openssl makes it: {said}"), output.status.success())
        };
        openssl(
            Command::new("openssl")
                .args(["req", "-x509", "-days", "2", "-subj", "/CN=authority"])
                .args(curve)
                .args(["-addext", "basicConstraints=critical,CA:TRUE", "-keyout"])
                .args([&authority_key, Path::new("-out"), &authority]),
        )?;
        openssl(
            Command::new("openssl")
                .args(["req", "-subj", &format!("/CN={name}")])
                .args(curve)
                .arg("-keyout")
                .args([&key, Path::new("-out"), &request]),
        )?;
        openssl(
            Command::new("openssl")
                .args(["x509", "-req", "-days", "2", "-CAcreateserial", "-in"])
                .args([&request, Path::new("-extfile"), &names, Path::new("-CA"), &authority])
                .args([Path::new("-CAkey"), &authority_key, Path::new("-out"), &certificate]),
        )?;
        Ok(Certificate { certificate, key, authority })
    }
}
