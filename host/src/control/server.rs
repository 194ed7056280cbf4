//! The daemon's end of the control socket.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener as StdListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

use super::{MAX_REQUEST_BYTES, Reply, Request, Room, socket_path};
use crate::exit::{Exit, Exits};

/// Connections at once. More wait to be accepted.
const MAX_CONNECTIONS: usize = 16;
/// How long a connection may say nothing, or take nothing.
const IDLE: Duration = Duration::from_secs(60);
/// The pause after a connection that could not be accepted, such as for want of descriptors.
const PAUSE: Duration = Duration::from_millis(200);

/// Why there is no control socket.
#[derive(Debug, thiserror::Error)]
#[error(
    "the control socket {} cannot be made ({source}): choose another folder with `state_dir`",
    path.display()
)]
pub struct BindError {
    path: PathBuf,
    source: io::Error,
}

impl Exits for BindError {
    fn exit(&self) -> Exit {
        Exit::Failure
    }
}

/// The bound socket. Dropped, its file is removed.
#[derive(Debug)]
pub struct Server {
    listener: StdListener,
    path: PathBuf,
}

impl Server {
    /// Makes the socket in a state folder that is locked for this process: one that is there already was
    /// left by a daemon that is gone.
    ///
    /// # Errors
    ///
    /// If it cannot be made, such as in a folder whose path is longer than a socket's may be (107 bytes).
    pub fn bind(state_dir: &Path) -> Result<Server, BindError> {
        let path = socket_path(state_dir);
        let bind = || {
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let listener = StdListener::bind(&path)?;
            // Whoever connects before this is refused by its credentials.
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        };
        match bind() {
            Ok(listener) => Ok(Server { listener, path }),
            Err(source) => Err(BindError { path, source }),
        }
    }

    /// Answers whoever may ask, until it is dropped. Needs a runtime of tokio's with its drivers on.
    ///
    /// # Errors
    ///
    /// If the runtime cannot wait for the socket.
    pub async fn serve(&self, room: Room) -> io::Result<()> {
        let listener = UnixListener::from_std(self.listener.try_clone()?)?;
        let room = Arc::new(room);
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let place = Arc::clone(&places).acquire_owned().await;
            match listener.accept().await {
                Ok((stream, _)) => {
                    let room = Arc::clone(&room);
                    tokio::spawn(async move {
                        if let Err(error) = converse(stream, &room).await {
                            tracing::debug!(%error, "a control connection ended early");
                        }
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "a control connection cannot be accepted");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // One that stays is replaced by the next daemon.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Answers the requests of one connection, one after the other.
async fn converse(mut stream: UnixStream, room: &Room) -> io::Result<()> {
    let peer = stream.peer_cred()?.uid();
    if !may_ask(peer) {
        tracing::warn!(uid = peer, "refused a user at the control socket");
        let refusal = "only root and the daemon's own user may use the control socket";
        return write(&mut stream, &Reply::Error(refusal.to_owned())).await;
    }
    let (read, mut written) = stream.split();
    let mut reader = BufReader::new(read);
    let mut line = Vec::new();
    loop {
        line.clear();
        let mut limited = (&mut reader).take(MAX_REQUEST_BYTES as u64 + 1);
        let read = tokio::time::timeout(IDLE, limited.read_until(b'\n', &mut line)).await??;
        if read == 0 {
            return Ok(());
        }
        if line.len() > MAX_REQUEST_BYTES {
            let refusal = format!("a request is longer than {MAX_REQUEST_BYTES} bytes");
            return write(&mut written, &Reply::Error(refusal)).await;
        }
        let reply = match serde_json::from_slice::<Request>(&line) {
            Ok(request) => room.answer(request).await,
            Err(error) => Reply::Error(format!("this daemon does not know that request: {error}")),
        };
        write(&mut written, &reply).await?;
    }
}

async fn write(to: &mut (impl AsyncWriteExt + Unpin), reply: &Reply) -> io::Result<()> {
    let mut line = serde_json::to_vec(reply)?;
    line.push(b'\n');
    tokio::time::timeout(IDLE, to.write_all(&line)).await?
}

/// Root, and the user that the daemon runs as.
fn may_ask(uid: u32) -> bool {
    uid == 0 || uid == rustix::process::geteuid().as_raw()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_may_not_ask() {
        assert!(may_ask(0));
        assert!(may_ask(rustix::process::geteuid().as_raw()));
        assert!(!may_ask(65_534));
    }

    #[test]
    fn the_socket_is_for_its_owner_replaces_a_stale_one_and_goes_with_the_server() {
        let folder = tempfile::tempdir().unwrap();
        let path = socket_path(folder.path());
        std::fs::write(&path, "stale").unwrap();
        let server = Server::bind(folder.path()).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o600);
        drop(server);
        assert!(!path.exists());
    }

    #[test]
    fn a_path_that_is_too_long_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("x".repeat(120));
        std::fs::create_dir(&deep).unwrap();
        let error = Server::bind(&deep).unwrap_err().to_string();
        assert!(error.contains("control.sock") && error.contains("`state_dir`"), "{error}");
    }
}
