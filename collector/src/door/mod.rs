//! The three doors. One accept loop for all: limits on connections, a deadline for handshakes, and the peer's certificate
//! on every request. What a door trusts is decided by its TLS configuration alone, never by a header.

pub mod agents;
mod body;
pub mod joining;
mod pace;
pub mod people;
mod tls;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use attestation::digest::Digest;
use axum::Router;
use axum::body::Body;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;

use crate::metrics::{DoorLabel, Metrics};

pub use self::body::{BodyError, read_body, read_json, read_json_within};
pub use self::pace::{Paced, TooSlow};
pub use self::tls::{TlsError, agents_tls, joining_tls, people_tls};

/// A peer that has not finished its handshake by then is dropped.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Connections get this long to finish when the door closes.
const DRAIN: Duration = Duration::from_secs(10);
/// Header block of a request: cookies and tokens are far below.
const HEADER_BYTES: usize = 64 << 10;
/// Requests at once on one HTTP/2 connection.
const STREAMS: u32 = 64;

/// Who is on the other side of a connection.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its address.
    pub address: SocketAddr,
    /// Whether the connection is TLS.
    pub tls: bool,
}

/// The node that a client certificate of the agents' authority names. Only the agents' door makes one.
#[derive(Clone, Debug)]
pub struct PeerNode {
    /// The node id.
    pub id: Arc<str>,
    /// SHA-256 of the SPKI of its certificate's key.
    pub key: Digest,
}

/// An open door.
pub struct Door {
    /// `agents`, `joining`, `people`.
    pub name: &'static str,
    /// Bound already.
    pub listener: TcpListener,
    /// TLS, and what it demands of clients.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// What answers.
    pub router: Router,
    /// Connections at once.
    pub connections: usize,
    /// How long a connection may stand idle, or take over a request's headers.
    pub idle: Duration,
    /// Counted here.
    pub metrics: Arc<Metrics>,
}

/// Accepts until told to stop, then lets what is under way finish, for a while.
pub async fn serve(door: Door, mut shutdown: watch::Receiver<bool>) {
    let permits = Arc::new(Semaphore::new(door.connections));
    let graceful = GracefulShutdown::new();
    let open = Arc::new(Open::new(&door));
    loop {
        let permit = tokio::select! {
            _ = shutdown.wait_for(|stop| *stop) => break,
            permit = Arc::clone(&permits).acquire_owned() => permit,
        };
        let Ok(permit) = permit else { break };
        let accepted = tokio::select! {
            _ = shutdown.wait_for(|stop| *stop) => break,
            accepted = door.listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, address)) => {
                tokio::spawn(Arc::clone(&open).connection(
                    stream,
                    address,
                    graceful.watcher(),
                    permit,
                ));
            }
            Err(error) => {
                // Out of descriptors, most likely: what is open must close first.
                tracing::warn!(
                    door = door.name,
                    error = &error as &dyn std::error::Error,
                    "accept failed"
                );
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(door.listener);
    if tokio::time::timeout(DRAIN, graceful.shutdown())
        .await
        .is_err()
    {
        tracing::warn!(door = door.name, "connections were cut off at the end");
    }
}

/// What every connection of a door needs.
struct Open {
    name: &'static str,
    acceptor: Option<TlsAcceptor>,
    router: Router,
    builder: Builder<TokioExecutor>,
    metrics: Arc<Metrics>,
}

impl Open {
    fn new(door: &Door) -> Self {
        let mut builder = Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(door.idle)
            .max_buf_size(HEADER_BYTES);
        builder
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(door.idle)
            .keep_alive_timeout(HANDSHAKE)
            .max_concurrent_streams(STREAMS)
            .max_header_list_size(u32::try_from(HEADER_BYTES).unwrap_or(u32::MAX));
        Self {
            name: door.name,
            acceptor: door.tls.clone().map(TlsAcceptor::from),
            router: door.router.clone(),
            builder,
            metrics: Arc::clone(&door.metrics),
        }
    }

    async fn connection(
        self: Arc<Self>,
        stream: TcpStream,
        address: SocketAddr,
        watcher: hyper_util::server::graceful::Watcher,
        permit: OwnedSemaphorePermit,
    ) {
        let count = self
            .metrics
            .connections
            .get_or_create(&DoorLabel { door: self.name })
            .clone();
        count.inc();
        // Small answers must not wait for the peer's acknowledgement.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(error = &error as &dyn std::error::Error, "no TCP_NODELAY");
        }
        match &self.acceptor {
            None => {
                self.requests(
                    stream,
                    Peer {
                        address,
                        tls: false,
                    },
                    None,
                    watcher,
                )
                .await
            }
            Some(acceptor) => {
                match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
                    Ok(Ok(stream)) => {
                        let node = stream
                            .get_ref()
                            .1
                            .peer_certificates()
                            .and_then(|chain| chain.first())
                            .and_then(|leaf| tls::node_of(leaf));
                        self.requests(stream, Peer { address, tls: true }, node, watcher)
                            .await;
                    }
                    Ok(Err(error)) => self.no_handshake(address, &error.to_string()),
                    Err(_late) => self.no_handshake(address, "too slow"),
                }
            }
        }
        count.dec();
        drop(permit);
    }

    async fn requests<S>(
        &self,
        stream: S,
        peer: Peer,
        node: Option<PeerNode>,
        watcher: hyper_util::server::graceful::Watcher,
    ) where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    {
        let router = self.router.clone();
        let service = hyper::service::service_fn(move |mut request: http::Request<Incoming>| {
            request.extensions_mut().insert(peer.clone());
            if let Some(node) = &node {
                request.extensions_mut().insert(node.clone());
            }
            let request = request.map(|body| Body::new(Paced::new(Body::new(body))));
            router.clone().oneshot(request)
        });
        let connection = self
            .builder
            .serve_connection_with_upgrades(TokioIo::new(stream), service)
            .into_owned();
        if let Err(error) = watcher.watch(connection).await {
            tracing::debug!(
                door = self.name,
                error = error.as_ref() as &dyn std::error::Error,
                "connection ended"
            );
        }
    }

    fn no_handshake(&self, address: SocketAddr, reason: &str) {
        self.metrics
            .handshakes_failed
            .get_or_create(&DoorLabel { door: self.name })
            .inc();
        tracing::debug!(door = self.name, %address, reason, "no handshake");
    }
}
