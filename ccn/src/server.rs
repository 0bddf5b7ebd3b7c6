//! The listening socket and its connections, bounded in number and in patience.

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use std::{io, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinHandle,
    time::{sleep, timeout},
};
use tokio_io_timeout::TimeoutStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How long a client may take to send the head of a request.
const HEAD_WITHIN: Duration = Duration::from_secs(30);
/// How long a client may take or send nothing of a body.
const IDLE: Duration = Duration::from_secs(120);
/// How long connections may take to end when the node stops.
const CLOSE_WITHIN: Duration = Duration::from_secs(5);
/// How long to wait when the host has no descriptor for a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A server that listens.
#[derive(Debug)]
pub(crate) struct Server {
    address: SocketAddr,
    stop: CancellationToken,
    accepting: JoinHandle<()>,
}

impl Server {
    /// Listens and serves.
    pub(crate) async fn listen(address: SocketAddr, router: Router, max_connections: usize) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let stop = CancellationToken::new();
        let free = Arc::new(Semaphore::new(max_connections));
        let accepting = tokio::spawn(accept(listener, router, free, stop.clone()));
        Ok(Self { address, stop, accepting })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes no more connections, and gives those that there are a moment to end.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        let _ = self.accepting.await;
    }
}

async fn accept(listener: TcpListener, router: Router, free: Arc<Semaphore>, stop: CancellationToken) {
    let connections = TaskTracker::new();
    loop {
        let accepted = async {
            let permit = free.clone().acquire_owned().await.expect("the semaphore is never closed");
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            accepted = accepted => accepted,
            () = stop.cancelled() => break,
        };
        match accepted {
            Ok((stream, _)) => {
                connections.spawn(serve(stream, router.clone(), permit, stop.clone()));
            }
            Err(error) => {
                tracing::warn!("a connection could not be accepted: {error}");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    connections.close();
    let _ = timeout(CLOSE_WITHIN, connections.wait()).await;
}

async fn serve(stream: TcpStream, router: Router, _permit: OwnedSemaphorePermit, stop: CancellationToken) {
    // Without it small frames wait for each other.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!("a connection stays delayed: {error}");
    }
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(IDLE));
    stream.set_read_timeout(Some(IDLE));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WITHIN)
        .serve_connection(TokioIo::new(Box::pin(stream)), TowerToHyperService::new(router))
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!("a connection ended early: {error}");
    }
}
