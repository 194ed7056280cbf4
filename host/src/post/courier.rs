//! One thread that sends bodies to one endpoint, in their order, from a bounded queue.
//!
//! A body that the server may take later is tried again, and those behind it wait; one that it never will take, or that was
//! tried for too long, is given up and counted. Where too much waits, the oldest makes room.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use hyper::body::Bytes;
use tokio::sync::{Notify, watch};
use tokio::time;

use super::connection::{Answer, Connection};
use super::retry::{self, Sentence};
use super::{Endpoint, FLUSH_WITHIN, PostError};

/// How often what was given up is told in the log at most.
const TOLD_EVERY: Duration = Duration::from_secs(60);
/// What a message repeats of an answer that refuses.
const SHOWN_CHARACTERS: usize = 200;

/// Why a body was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum GivenUp {
    /// Too much waited, and it was the oldest.
    QueueFull,
    /// The server will never take it.
    Refused,
    /// It was tried again for as long as it may be.
    Unreachable,
    /// The daemon stopped before.
    Stopped,
}

impl GivenUp {
    /// The word in the status and in metrics.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            GivenUp::QueueFull => "queue-full",
            GivenUp::Refused => "refused",
            GivenUp::Unreachable => "unreachable",
            GivenUp::Stopped => "stopped",
        }
    }
}

/// What became of the bodies so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Bodies that the server took.
    pub(crate) sent: u64,
    /// Requests that failed.
    pub(crate) failures: u64,
    /// Bodies that were given up, by reason.
    pub(crate) given_up: BTreeMap<GivenUp, u64>,
    /// What waits, in bytes, with what is being sent.
    pub(crate) waiting_bytes: usize,
    /// When a body was last taken.
    pub(crate) last_sent: Option<SystemTime>,
    /// Size of that body.
    pub(crate) last_bytes: usize,
    /// Why the newest request failed. None after one that did not.
    pub(crate) last_error: Option<String>,
}

/// The thread, seen from outside. Dropped, it sends what waits within [`FLUSH_WITHIN`], and nobody waits for it.
pub(crate) struct Courier {
    bag: Arc<Bag>,
    close: watch::Sender<Option<Instant>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Courier {
    /// Starts the thread. `name` is for the log.
    ///
    /// # Errors
    ///
    /// If the system gives no thread.
    pub(crate) fn start(name: &str, endpoint: Endpoint) -> Result<Courier, PostError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(PostError::NoThread)?;
        let endpoint = Arc::new(endpoint);
        let bag = Arc::new(Bag {
            name: name.to_owned(),
            place: endpoint.url.to_string(),
            capacity: endpoint.queue_bytes,
            state: Mutex::default(),
            filled: Notify::new(),
        });
        let (close, closed) = watch::channel(None);
        let walk = Walk {
            bag: Arc::clone(&bag),
            closed,
            connection: Connection::new(Arc::clone(&endpoint)),
            endpoint,
        };
        let thread = thread::Builder::new()
            .name("post".to_owned())
            .spawn(move || runtime.block_on(walk.run()))
            .map_err(PostError::NoThread)?;
        Ok(Courier { bag, close, thread: Mutex::new(Some(thread)) })
    }

    /// Hands over a body. Never blocks.
    pub(crate) fn put(&self, body: Vec<u8>) {
        self.bag.put(body.into());
    }

    /// What became of the bodies so far.
    pub(crate) fn tally(&self) -> Tally {
        self.bag.lock().tally.clone()
    }

    /// Lets nothing wait any longer: each body that is left is tried once more, for so long together.
    pub(crate) fn close(&self, within: Duration) {
        // The thread holds the other end until it ends.
        let _ = self.close.send(Some(Instant::now() + within));
    }

    /// Waits until the thread has ended, which it does once it was told to close.
    pub(crate) fn join(&self) {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!(output = self.bag.name, "the thread that sends ended early");
        }
    }

    /// Where bodies go.
    pub(crate) fn place(&self) -> &str {
        &self.bag.place
    }
}

impl Drop for Courier {
    fn drop(&mut self) {
        if self.close.borrow().is_none() {
            self.close(FLUSH_WITHIN);
        }
    }
}

/// What waits to be sent.
struct Bag {
    name: String,
    place: String,
    capacity: usize,
    state: Mutex<State>,
    filled: Notify,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Bytes>,
    tally: Tally,
    /// When it was last told that bodies are given up, and how many were since.
    told: Option<Instant>,
    untold: u64,
}

impl Bag {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, body: Bytes) {
        let mut state = self.lock();
        while state.tally.waiting_bytes + body.len() > self.capacity
            && let Some(oldest) = state.waiting.pop_front()
        {
            state.tally.waiting_bytes -= oldest.len();
            self.give_up(&mut state, GivenUp::QueueFull, "too much waits");
        }
        state.tally.waiting_bytes += body.len();
        state.waiting.push_back(body);
        drop(state);
        self.filled.notify_one();
    }

    fn take(&self) -> Option<Bytes> {
        self.lock().waiting.pop_front()
    }

    fn sent(&self, body: &Bytes) {
        let mut state = self.lock();
        let tally = &mut state.tally;
        tally.waiting_bytes -= body.len();
        tally.sent += 1;
        tally.last_sent = Some(SystemTime::now());
        tally.last_bytes = body.len();
        if tally.last_error.take().is_some() {
            tracing::info!(output = self.name, place = self.place, "documents are taken again");
        }
    }

    fn failed(&self, why: &str, is_tried_again: bool) {
        let mut state = self.lock();
        state.tally.failures += 1;
        // Said once, not at every attempt.
        if state.tally.last_error.replace(why.to_owned()).is_none() && is_tried_again {
            tracing::warn!(
                output = self.name,
                place = self.place,
                "a document was not taken: {why}; it is kept and tried again"
            );
        }
    }

    fn given_up(&self, body: &Bytes, reason: GivenUp, why: &str) {
        let mut state = self.lock();
        state.tally.waiting_bytes -= body.len();
        self.give_up(&mut state, reason, why);
    }

    /// Counts a body that is gone, and says so now and then.
    fn give_up(&self, state: &mut State, reason: GivenUp, why: &str) {
        *state.tally.given_up.entry(reason).or_default() += 1;
        state.untold += 1;
        if state.told.is_none_or(|told| told.elapsed() >= TOLD_EVERY) {
            state.told = Some(Instant::now());
            let documents = std::mem::take(&mut state.untold);
            tracing::error!(
                output = self.name,
                place = self.place,
                reason = reason.name(),
                documents,
                "documents were given up: {why}"
            );
        }
    }
}

/// The inside of the thread.
struct Walk {
    bag: Arc<Bag>,
    /// By when everything has to be over, once it has.
    closed: watch::Receiver<Option<Instant>>,
    endpoint: Arc<Endpoint>,
    connection: Connection,
}

impl Walk {
    async fn run(mut self) {
        loop {
            if let Some(body) = self.bag.take() {
                self.deliver(&body).await;
            } else if self.closed.borrow().is_some() {
                return;
            } else {
                let mut closed = self.closed.clone();
                tokio::select! {
                    () = self.bag.filled.notified() => {}
                    // Whoever holds the other end tells before it goes.
                    _ = closed.wait_for(Option::is_some) => {}
                }
            }
        }
    }

    /// Sends a body until it is taken or given up.
    async fn deliver(&mut self, body: &Bytes) {
        let began = Instant::now();
        for failures in 1.. {
            let (why, wish) = match self.attempt(body).await {
                Attempt::Taken => return self.bag.sent(body),
                Attempt::Refused(why) => {
                    self.bag.failed(&why, false);
                    return self.bag.given_up(body, GivenUp::Refused, &why);
                }
                Attempt::TooLate => {
                    return self.bag.given_up(body, GivenUp::Stopped, "the daemon stops");
                }
                Attempt::Failed(why, wish) => (why, wish),
            };
            let pause = wish.unwrap_or_else(|| retry::pause_after(failures));
            let is_over = began.elapsed() + pause > self.endpoint.retry_for;
            let is_closing = self.closed.borrow().is_some();
            self.bag.failed(&why, !is_over && !is_closing);
            if is_closing {
                return self.bag.given_up(body, GivenUp::Stopped, &why);
            }
            if is_over {
                return self.bag.given_up(body, GivenUp::Unreachable, &why);
            }
            let mut closed = self.closed.clone();
            tokio::select! {
                () = time::sleep(pause) => {}
                _ = closed.wait_for(Option::is_some) => {}
            }
        }
    }

    /// Sends a body once, within the time of a request and of the end.
    async fn attempt(&mut self, body: &Bytes) -> Attempt {
        let limit = self.endpoint.timeout;
        let mut closed = self.closed.clone();
        let the_end = async move {
            let deadline =
                closed.wait_for(Option::is_some).await.ok().and_then(|deadline| *deadline);
            if let Some(deadline) = deadline {
                time::sleep_until(deadline.into()).await;
            }
        };
        let answered = tokio::select! {
            // What is over is over, however fast a server is.
            biased;
            () = the_end => return Attempt::TooLate,
            answered = time::timeout(limit, self.connection.post(body)) => answered,
        };
        match answered {
            Ok(Ok(answer)) => judge(answer),
            Ok(Err(error)) => Attempt::Failed(error.to_string(), None),
            Err(_) => Attempt::Failed(format!("no answer within {limit:?}"), None),
        }
    }
}

/// What an answer means.
fn judge(answer: Answer) -> Attempt {
    let Answer { status, retry_after, body } = answer;
    match retry::sentence_of(status) {
        Sentence::Taken => Attempt::Taken,
        Sentence::Later => Attempt::Failed(format!("the server answers {status}"), retry_after),
        Sentence::Never => {
            let text = String::from_utf8_lossy(&body);
            let shown: String = text.trim().chars().take(SHOWN_CHARACTERS).collect();
            Attempt::Refused(format!("the server answers {status}: {}", shown.escape_debug()))
        }
    }
}

/// How one request ended.
enum Attempt {
    Taken,
    /// Why, and how long the server wants to be left alone.
    Failed(String, Option<Duration>),
    Refused(String),
    /// The time for everything was over before.
    TooLate,
}
