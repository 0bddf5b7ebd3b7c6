//! The listening socket and its connections, bounded in number and in patience.

use crate::config::{Http, seconds};
use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use std::{io, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinHandle,
    time::{sleep, timeout},
};
use tokio_io_timeout::TimeoutStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How long a client may take to send the head of a request.
const HEAD_WITHIN: Duration = Duration::from_secs(30);

/// How long connections may take to end once the node has nothing more to say.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);

/// How long to wait when the host has no descriptor for a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A server that listens.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    stop: CancellationToken,
    accepting: JoinHandle<()>,
}

impl Server {
    /// Listens and serves.
    ///
    /// # Errors
    /// The address is taken, or not this host's.
    pub async fn listen(address: SocketAddr, router: Router, settings: &Http) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let stop = CancellationToken::new();
        let accepting = tokio::spawn(accept(
            listener,
            router,
            Arc::new(Semaphore::new(settings.max_connections)),
            seconds(settings.client_idle_seconds),
            stop.clone(),
        ));
        Ok(Self { address, stop, accepting })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes no more connections, and gives those that there are a moment to end.
    pub async fn stop(self) {
        self.stop.cancel();
        let _ = self.accepting.await;
    }
}

async fn accept(
    listener: TcpListener,
    router: Router,
    free: Arc<Semaphore>,
    client_idle: Duration,
    stop: CancellationToken,
) {
    let connections = TaskTracker::new();
    loop {
        let accepted = async {
            let permit = free.clone().acquire_owned().await.expect("the semaphore is never closed");
            (permit, listener.accept().await)
        };
        let (permit, stream) = tokio::select! {
            (permit, accepted) = accepted => match accepted {
                Ok((stream, _)) => (permit, stream),
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
            () = stop.cancelled() => break,
        };
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_WITHIN)
            .serve_connection(
                TokioIo::new(Box::pin(patient(stream, client_idle))),
                TowerToHyperService::new(router.clone()),
            )
            .with_upgrades();
        let stop = stop.clone();
        connections.spawn(async move {
            let mut connection = std::pin::pin!(connection);
            let ended = tokio::select! {
                ended = connection.as_mut() => ended,
                () = stop.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = ended {
                tracing::debug!(%error, "a connection ended early");
            }
            drop(permit);
        });
    }
    drop(listener);
    connections.close();
    let _ = timeout(CLOSE_WITHIN, connections.wait()).await;
}

/// A client that takes nothing for that long is given up. What it may be slow to send is bounded where it
/// is read.
fn patient(stream: TcpStream, client_idle: Duration) -> TimeoutStream<TcpStream> {
    // Without it small pieces, such as events of a stream, wait for each other.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection stays delayed");
    }
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(client_idle));
    stream
}
