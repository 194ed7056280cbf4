//! A client of the Container Runtime Interface (CRI), by which a kubelet talks to containerd and CRI-O.
//!
//! Owns the connection. Takes requests and gives answers, each within a time and a size. Knows the messages of
//! `runtime.v1` in Kubernetes' `cri-api`, with the fields that are used here. Never decides anything.

mod messages;

use std::io;
use std::path::Path;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use prost::Message;
use tokio::net::UnixStream;
use tokio::runtime::Runtime;
use tonic::transport::{Channel, Endpoint, Uri};

pub use messages::*;
pub use tonic::{Code, Status};

/// `NamespaceMode` of `runtime.v1`: a namespace of the container's own.
pub const NAMESPACE_OF_CONTAINER: i32 = 1;
/// `NamespaceMode` of `runtime.v1`: the namespace of the machine.
pub const NAMESPACE_OF_NODE: i32 = 2;

/// A request, with the method that takes it and what that answers.
pub trait Call: Message + 'static {
    /// Name of the method of `RuntimeService`.
    const METHOD: &'static str;
    /// What it answers.
    type Answer: Message + Default + 'static;
}

/// A runtime at its socket. Connects when it is asked, and again after the runtime was restarted.
#[derive(Debug)]
pub struct Client {
    runtime: Runtime,
    channel: Channel,
}

impl Client {
    /// Asks nobody yet: the socket need not be there.
    ///
    /// # Errors
    ///
    /// If the system has nothing to wait with.
    pub fn new(socket: &Path) -> io::Result<Client> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let socket = socket.to_owned();
        let channel = {
            let _inside = runtime.enter();
            // The address is the socket's; a name is only needed because HTTP asks for one.
            Endpoint::from_static("http://runtime").connect_with_connector_lazy(tower::service_fn(
                move |_: Uri| {
                    let socket = socket.clone();
                    async move { UnixStream::connect(socket).await.map(TokioIo::new) }
                },
            ))
        };
        Ok(Client { runtime, channel })
    }

    /// Asks, and waits for the answer: not longer than `at_most`, whatever the runtime does, and for an answer of not
    /// more than `max_bytes`.
    ///
    /// Not to be called where the thread drives asynchronous work already.
    ///
    /// # Errors
    ///
    /// What the runtime answers instead; `DeadlineExceeded` where it does not in time, `Unavailable` where there is
    /// nobody.
    pub fn call<Request: Call>(
        &self,
        request: Request,
        at_most: Duration,
        max_bytes: usize,
    ) -> Result<Request::Answer, Box<Status>> {
        let path = format!("/runtime.v1.RuntimeService/{}", Request::METHOD);
        let path = Uri::try_from(path).expect("a method's name is a path").into_parts();
        let path = path.path_and_query.expect("so it has one");
        let mut request = tonic::Request::new(request);
        request.set_timeout(at_most);
        let asked = async {
            let client = tonic::client::Grpc::new(self.channel.clone());
            let mut client = client.max_decoding_message_size(max_bytes);
            client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
            let codec = tonic_prost::ProstCodec::<Request, Request::Answer>::default();
            client.unary(request, path, codec).await
        };
        // The time of a request begins when there is a connection: this is for what comes before.
        let in_time = async {
            let late = || Status::deadline_exceeded("it does not answer");
            tokio::time::timeout(at_most, asked).await.unwrap_or_else(|_| Err(late()))
        };
        self.runtime.block_on(in_time).map(tonic::Response::into_inner).map_err(Box::new)
    }
}
