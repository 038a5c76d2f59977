//! The TCP ports: bind, accept, hand over. Nothing is read here.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::warn;
use tunnel_common::stream::header::canonical;

use crate::state::State;

/// Connections that the kernel completes before we accept them; Linux cuts it at `somaxconn`.
const BACKLOG: i32 = 4096;
/// A visitor who is silent for so long is asked whether he is there …
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
/// … this often before he is not.
const KEEPALIVE_PROBES: u32 = 3;
/// The first pause after accept failed; it doubles up to [`MAX_PAUSE`].
const MIN_PAUSE: Duration = Duration::from_millis(10);
/// The longest pause: a relay out of descriptors looks once a second.
const MAX_PAUSE: Duration = Duration::from_secs(1);

/// Binds a port. What is set here holds for every accepted connection.
///
/// No `TCP_USER_TIMEOUT`: Linux counts a visitor who acknowledges but does not read, a paused
/// video, as one who is gone.
pub(crate) fn bind(address: SocketAddr) -> io::Result<StdListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_tcp_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_IDLE)
        .with_retries(KEEPALIVE_PROBES);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Accepts connections until `end` fires, closes the port then, and has each served in a task of its own. `permits` bounds how
/// many there are: when none is left, the kernel's queue holds the next ones.
pub(crate) async fn accept<F>(
    listener: TcpListener,
    permits: Arc<Semaphore>,
    state: Arc<State>,
    end: CancellationToken,
    serve: impl Fn(TcpStream, SocketAddr, Arc<State>) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let accepting = accept_for_ever(listener, permits, &state, serve);
    let _ = end.run_until_cancelled(accepting).await;
}

async fn accept_for_ever<F>(
    listener: TcpListener,
    permits: Arc<Semaphore>,
    state: &Arc<State>,
    serve: impl Fn(TcpStream, SocketAddr, Arc<State>) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let (mut pause, mut said) = (MIN_PAUSE, None::<Instant>);
    while let Ok(permit) = permits.clone().acquire_owned().await {
        match listener.accept().await {
            Ok((stream, peer)) => {
                pause = MIN_PAUSE;
                let serving = serve(stream, canonical(peer), state.clone());
                state.tasks.spawn(async move {
                    serving.await;
                    drop(permit);
                });
            }
            // The peer left before it was accepted.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                if said.is_none_or(|at| at.elapsed() >= MAX_PAUSE) {
                    warn!(%error, "connections can not be accepted for the moment");
                    said = Some(Instant::now());
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(MAX_PAUSE);
            }
        }
    }
}
