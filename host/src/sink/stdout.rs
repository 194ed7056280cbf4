//! Documents on standard output, one after the other, each ended by a newline.

use std::io::{self, Write};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Standard output.
pub(crate) struct StdoutSink;

/// How long a reader may take for the next piece. A reader that stands still must not keep the
/// documents of other outputs from being written.
const PATIENCE: Duration = Duration::from_secs(2);

/// A pipe that can be written takes this many bytes without blocking (`PIPE_BUF`, pipe(7)).
const PIECE_BYTES: usize = 4096;

impl StdoutSink {
    #[expect(clippy::unused_self, reason = "a sink is asked to write, whatever it is")]
    pub(crate) fn write(&self, body: &[u8]) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        let newline = if body.ends_with(b"\n") { &b""[..] } else { b"\n" };
        for piece in body.chunks(PIECE_BYTES).chain([newline]) {
            let patience = Timespec::try_from(PATIENCE).map_err(io::Error::other)?;
            let mut waited = [PollFd::new(&stdout, PollFlags::OUT)];
            if poll(&mut waited, Some(&patience))? == 0 {
                let why = "nobody reads standard output";
                return Err(io::Error::new(io::ErrorKind::TimedOut, why));
            }
            stdout.write_all(piece)?;
            stdout.flush()?;
        }
        Ok(())
    }
}
