//! The command line's end of the control socket.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::DeserializeOwned;

use super::{Reply, Request, socket_path};
use crate::exit::{Exit, Exits};

/// How long the daemon may take for an answer, beside what it was asked to do.
const PATIENCE: Duration = Duration::from_secs(60);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody listens.
    #[error(
        "no whodunit runs with the state folder {}: start one with `whodunit run`, or name its folder \
         with --state-dir",
        .state_dir.display()
    )]
    NotRunning {
        /// The state folder.
        state_dir: PathBuf,
    },
    /// This user may not ask.
    #[error("no permission to use the control socket {}: run this as root", .path.display())]
    Permission {
        /// The socket.
        path: PathBuf,
    },
    /// The connection failed.
    #[error("the daemon behind {} does not answer: {source}", .path.display())]
    Connection {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The answer is of another version of the program.
    #[error("the daemon's answer cannot be read ({source}): is it of another version?")]
    Unreadable {
        /// Why.
        source: serde_json::Error,
    },
    /// The daemon says no.
    #[error("{0}")]
    Refused(String),
}

impl Exits for AskError {
    fn exit(&self) -> Exit {
        match self {
            AskError::Permission { .. } => Exit::Permission,
            AskError::NotRunning { .. }
            | AskError::Connection { .. }
            | AskError::Unreadable { .. }
            | AskError::Refused(_) => Exit::Failure,
        }
    }
}

/// Asks the daemon that has this state folder.
///
/// # Errors
///
/// If there is none, if it does not answer, and if it says no.
pub fn ask<T: DeserializeOwned>(state_dir: &Path, request: &Request) -> Result<T, AskError> {
    let path = socket_path(state_dir);
    let talk = || {
        let mut stream = UnixStream::connect(&path)?;
        stream.set_read_timeout(Some(PATIENCE + request.takes()))?;
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        stream.write_all(&line)?;
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer)?;
        Ok(answer)
    };
    let answer = talk().map_err(|source: io::Error| match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            AskError::NotRunning { state_dir: state_dir.to_owned() }
        }
        io::ErrorKind::PermissionDenied => AskError::Permission { path: path.clone() },
        _ => AskError::Connection { path: path.clone(), source },
    })?;
    match serde_json::from_str(&answer).map_err(|source| AskError::Unreadable { source })? {
        Reply::Ok(value) => {
            serde_json::from_value(value).map_err(|source| AskError::Unreadable { source })
        }
        Reply::Error(sentence) => Err(AskError::Refused(sentence)),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use serde_json::Value;

    use super::*;

    /// What `ask` gives where the daemon answers with that line.
    fn asked(answer: &'static str) -> Result<Value, AskError> {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(socket_path(folder.path())).unwrap();
        let daemon = std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut request = String::new();
            BufReader::new(&stream).read_line(&mut request).unwrap();
            (&stream).write_all(answer.as_bytes()).unwrap();
            request
        });
        let result = ask(folder.path(), &Request::Status {});
        assert_eq!(daemon.join().unwrap(), "{\"command\":\"status\"}\n");
        result
    }

    #[test]
    fn an_answer_is_what_stands_behind_ok_and_a_refusal_is_its_sentence() {
        assert_eq!(asked("{\"ok\":{\"a\":1}}\n").unwrap()["a"], 1);
        assert_eq!(asked("{\"error\":\"no\"}\n").unwrap_err().to_string(), "no");
        assert!(matches!(asked("{\"else\":1}\n"), Err(AskError::Unreadable { .. })));
        assert!(matches!(asked(""), Err(AskError::Unreadable { .. })));
    }

    #[test]
    fn without_a_daemon_the_sentence_names_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let error = ask::<Value>(folder.path(), &Request::Status {}).unwrap_err();
        assert!(error.to_string().contains(folder.path().to_str().unwrap()), "{error}");
        assert_eq!(error.exit(), Exit::Failure);
    }
}
