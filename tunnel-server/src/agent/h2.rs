//! Agents that come over TCP: TLS, then HTTP/2 with the roles turned, because only its client can open
//! streams: the relay is the client.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use tokio::io::{AsyncRead, AsyncWrite, Interest};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::debug;
use tunnel_common::coalesce::Coalesced;
use tunnel_common::h2::{exporter, socket};
use tunnel_common::stream::h2::connection::{Driver, connect};
use tunnel_common::stream::h2::settings::Settings;

use super::connection::{Connection, End, H2Connection};
use super::identity::Identity;
use super::session::{self, Proven};
use crate::public::refusal::send_and_close;
use crate::public::replay::Replay;
use crate::state::State;

/// Why a TCP connection became no tunnel.
#[derive(Debug, thiserror::Error)]
enum NoTunnel {
    #[error("too many handshakes at once")]
    Busy,
    #[error("the agent has left before its turn")]
    Left,
    #[error("it took too long")]
    Timeout,
    #[error("{0}")]
    Tls(#[source] std::io::Error),
    #[error("no protocol of ours was agreed on")]
    Protocol,
    #[error("no key was proved")]
    Identity,
    #[error("{0}")]
    H2(#[from] h2::Error),
}

/// Serves one TCP connection, of which `read` has been read, to its end; while the relay drains, that is
/// at once. Dropping the future cuts it.
pub(crate) async fn serve(read: Bytes, tcp: TcpStream, address: SocketAddr, state: Arc<State>) {
    if state.drain.has_begun() {
        return;
    }
    socket::prepare(&tcp, state.congestion);
    // Apart, as what follows: an agent stays for long, and pays for the room that staying takes.
    let establishing = Box::pin(async {
        wait_for_turn(&tcp, &read, address, &state).await?;
        establish(Replay::new(read, tcp), &state).await
    });
    let established = match state.shutdown.run_until_cancelled(establishing).await {
        Some(established) => established,
        None => return,
    };
    match established {
        Ok((connection, proven)) => {
            Box::pin(session::serve(&connection, proven, address, &state)).await;
        }
        Err(why) => debug!(%address, "no tunnel: {why}"),
    }
}

/// Waits until the handshakes may begin: for the first byte, since silence costs nobody a turn, and then for
/// the turn. An agent that has reached us by QUIC meanwhile is gone then, and leaves its turn to others.
async fn wait_for_turn(
    tcp: &TcpStream,
    read: &Bytes,
    address: SocketAddr,
    state: &State,
) -> Result<(), NoTunnel> {
    if read.is_empty() {
        let first = timeout(state.timeouts.api_tls, tcp.readable()).await;
        first
            .map_err(|_| NoTunnel::Timeout)?
            .map_err(NoTunnel::Tls)?;
    }
    let turn = state.turns.take(address.ip()).ok_or(NoTunnel::Busy)?;
    turn.comes().await;
    let readiness = tcp.ready(Interest::READABLE).now_or_never();
    if matches!(readiness, Some(Ok(readiness)) if readiness.is_read_closed()) {
        state.turns.give_back(address.ip());
        return Err(NoTunnel::Left);
    }
    Ok(())
}

/// Handshakes under one deadline, so many at a time.
async fn establish<S>(stream: S, state: &Arc<State>) -> Result<(Connection, Proven), NoTunnel>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let permit = state.handshakes.clone().try_acquire_owned();
    let _permit = permit.map_err(|_| NoTunnel::Busy)?;
    let handshakes = async {
        let accepting = TlsAcceptor::from(state.api_tls.clone()).accept(stream);
        let tls = match accepting.into_fallible().await {
            Ok(tls) => tls,
            Err((error, stream)) => {
                // The alert that says why has been written; unread bytes would destroy it.
                send_and_close(stream, &[], state.timeouts.refusal_linger).await;
                return Err(NoTunnel::Tls(error));
            }
        };
        let proven = proven(&tls)?;
        let (opener, driver) = connect(tls, &settings(state)).await?;
        Ok::<_, NoTunnel>((opener, driver, proven))
    };
    let established = timeout(state.timeouts.api_tls, handshakes).await;
    let (opener, driver, proven) = established.map_err(|_| NoTunnel::Timeout)??;
    let end = Arc::new(End::default());
    let driving = drive(driver, end.clone(), state.timeouts.goodbye / 2);
    state.tasks.spawn(Coalesced::new(driving));
    let connection = H2Connection::new(opener, end);
    Ok((Connection::H2(connection), proven))
}

fn settings(state: &State) -> Settings {
    Settings {
        ping_every: state.timeouts.quic.keep_alive,
        silence: state.timeouts.h2_silence,
        budget: state.budget.clone(),
    }
}

/// What the handshake proved. One that agreed on no protocol is none of ours: rustls answers a peer
/// whose protocols are all others with the alert for it, but one that offers none completes the
/// handshake, and the alert can not be asked for then.
fn proven<S>(tls: &TlsStream<S>) -> Result<Proven, NoTunnel> {
    let (_, session) = tls.get_ref();
    let exporter = exporter(session).ok_or(NoTunnel::Protocol)?;
    let chain = session.peer_certificates().unwrap_or_default();
    let main = chain.first().and_then(Identity::of);
    let main = main.ok_or(NoTunnel::Identity)?;
    Ok(Proven { main, exporter })
}

/// Moves a connection to its end: its own, the agent's silence, or ours, of which the agent hears
/// within `goodbye`, which is less than what all tasks have at the end.
async fn drive<S>(driver: Driver<TlsStream<S>>, end: Arc<End>, goodbye: Duration)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut driver = pin!(driver);
    let why = tokio::select! {
        ended = &mut driver => match ended {
            Ok(()) => "closed by the agent".to_owned(),
            Err(error) => error.to_string(),
        },
        () = end.wanted() => {
            tokio::select! {
                _ = driver => {}
                _ = timeout(goodbye, end.tell()) => {}
            }
            "closed".to_owned()
        }
    };
    end.is_over(why);
}
