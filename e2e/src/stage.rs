//! A whole stage for one visit: relay, agent, and a local service that the story itself plays.
//!
//! ```text
//! visitor ──▶ relay ──▶ agent ──▶ Local: the accepted connection is the story's
//! ```

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::ClientConfig;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, split};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{self, UnboundedReceiver};
use tunnel_client::config::Config as AgentConfig;
use tunnel_common::splice::options::Timeouts;
use tunnel_server::config::Config as RelayConfig;

use crate::agent::{self, Agent, new_key};
use crate::origin::{Origin, origin};
use crate::poll::soon;
use crate::relay::{Relay, relay_with};
use crate::transport::Over;
use crate::visitor::{self, Visitor, tls_config};

/// Longer than any story takes.
pub const NEVER: Duration = Duration::from_secs(3600);
/// What [`pour`] writes at once.
const PIECE: usize = 64 * 1024;

/// A local service whose connections are handed to the story.
#[derive(Debug)]
pub struct Local {
    /// Where it listens.
    pub address: SocketAddr,
    accepted: UnboundedReceiver<TcpStream>,
    _listening: Origin,
}

/// Listens, and serves nobody: see [`Local::accepts`].
pub async fn local() -> Local {
    let (sender, accepted) = mpsc::unbounded_channel();
    let listening = origin(move |stream| {
        // The story that is over wants no more connections.
        let _ = sender.send(stream);
        std::future::ready(())
    });
    let listening = listening.await;
    Local {
        address: listening.address,
        accepted,
        _listening: listening,
    }
}

impl Local {
    /// The next connection of the agent.
    pub async fn accepts(&mut self) -> TcpStream {
        soon("the agent dials the local service", self.accepted.recv())
            .await
            .expect("listens")
    }
}

/// A relay, an agent, and the local service in the story's hands.
#[derive(Debug)]
pub struct Stage {
    /// The relay.
    pub relay: Relay,
    /// The agent.
    pub agent: Agent,
    /// The local service.
    pub local: Local,
    /// Where visitors find it.
    pub host: String,
}

/// A stage with everybody's defaults.
pub async fn stage(over: Over) -> Stage {
    stage_with(over, |_| {}, |_| {}).await
}

/// A stage with a changed relay and a changed agent.
pub async fn stage_with(
    over: Over,
    change_relay: impl FnOnce(&mut RelayConfig),
    change_agent: impl FnOnce(&mut AgentConfig),
) -> Stage {
    let (relay, local) = (relay_with(change_relay).await, local().await);
    let mut config = agent::config(over, &relay, new_key(), local.address);
    change_agent(&mut config);
    let agent = agent::start(config);
    let host = agent.host().await;
    Stage {
        relay,
        agent,
        local,
        host,
    }
}

/// A stage on which no clock ends a visit.
pub async fn patient_stage(over: Over) -> Stage {
    let relay = |config: &mut RelayConfig| config.timeouts.splice = patient();
    stage_with(over, relay, |config| config.timeouts.splice = patient()).await
}

/// Says how long it took for the other end to learn of it.
pub fn report(what: &str, since: Instant) {
    println!("{what}: {:?}", since.elapsed());
}

impl Stage {
    /// One visit: the visitor's end and the local service's.
    pub async fn visit(&mut self) -> (Visitor, TcpStream) {
        self.visit_with(tls_config(&[b"http/1.1"])).await
    }

    /// One visit with this TLS.
    pub async fn visit_with(&mut self, tls: Arc<ClientConfig>) -> (Visitor, TcpStream) {
        let visitor = visitor::visit_with(self.relay.public, &self.host, tls).await;
        (visitor.expect("visits"), self.local.accepts().await)
    }

    /// One visit over a connection whose receiving end, the visitor's, holds next to nothing.
    pub async fn narrow_visit(&mut self) -> (Visitor, TcpStream) {
        let visitor = visitor::narrow_visit(self.relay.public, &self.host).await;
        (visitor.expect("visits"), self.local.accepts().await)
    }
}

/// No clock ends a visit; only how often a side is probed stays as it is.
pub fn patient() -> Timeouts {
    Timeouts {
        idle: NEVER,
        half_closed: NEVER,
        stalled: NEVER,
        stalled_max: NEVER,
        linger: NEVER,
        first_answer: None,
        ..Timeouts::default()
    }
}

/// The visitor half-closes behind his request, and gets all of an answer of so many bytes.
pub async fn half_closing_visitor<L>(mut visitor: Visitor, mut local: L, answer: usize)
where
    L: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    visitor.write_all(b"request").await.expect("sends");
    visitor.shutdown().await.expect("half-closes");
    assert_eq!(drain_to_end(&mut local).await, 7);
    let answering = tokio::spawn(async move {
        pour(&mut local, answer).await.expect("answers");
        local.shutdown().await.expect("ends");
    });
    assert_eq!(drain_to_end(&mut visitor).await, answer);
    answering.await.expect("answers");
}

/// The service half-closes first, and gets all of an upload of so many bytes.
pub async fn half_closing_service(
    visitor: Visitor,
    mut local: impl AsyncRead + AsyncWrite + Unpin,
    upload: usize,
) {
    let (mut read, mut write) = split(visitor);
    local.write_all(b"go on").await.expect("sends");
    local.shutdown().await.expect("half-closes");
    assert_eq!(drain_to_end(&mut read).await, 5);
    let uploading = tokio::spawn(async move {
        pour(&mut write, upload).await.expect("uploads");
        write.shutdown().await.expect("ends");
    });
    assert_eq!(drain_to_end(&mut local).await, upload);
    uploading.await.expect("uploads");
}

/// Writes so many bytes, and flushes.
pub async fn pour(sink: &mut (impl AsyncWrite + Unpin), bytes: usize) -> std::io::Result<()> {
    let piece = vec![b'~'; PIECE];
    let mut left = bytes;
    while left > 0 {
        let step = left.min(PIECE);
        sink.write_all(&piece[..step]).await?;
        left -= step;
    }
    sink.flush().await
}

/// Writes until nothing is taken any more for a while: every buffer on the way is full.
/// Gives how much that was, or the error that came instead.
pub async fn pour_until_stuck(sink: &mut (impl AsyncWrite + Unpin)) -> std::io::Result<usize> {
    let piece = vec![b'~'; PIECE];
    let mut poured = 0;
    while let Ok(written) = tokio::time::timeout(STUCK, sink.write(&piece)).await {
        poured += written?;
    }
    Ok(poured)
}

/// A writer that gets nothing written for so long is taken to be stuck.
const STUCK: Duration = Duration::from_millis(500);

/// Nothing comes and nothing ends for so long.
pub async fn stays_silent(stream: &mut (impl AsyncRead + Unpin), long: Duration) {
    let read = tokio::time::timeout(long, stream.read_u8()).await;
    assert!(read.is_err(), "it should have stayed silent: {read:?}");
}

/// Reads exactly so many bytes, soon.
pub async fn sip(source: &mut (impl AsyncRead + Unpin), bytes: usize) {
    let mut buffer = vec![0; bytes];
    soon("the bytes come", source.read_exact(&mut buffer))
        .await
        .expect("they come");
}

/// Reads to the end: how many bytes came, and how it ended.
pub async fn drain(source: &mut (impl AsyncRead + Unpin)) -> (usize, std::io::Result<()>) {
    let (mut total, mut buffer) = (0, vec![0; PIECE]);
    loop {
        match soon("more bytes, or the end", source.read(&mut buffer)).await {
            Ok(0) => return (total, Ok(())),
            Ok(got) => total += got,
            Err(error) => return (total, Err(error)),
        }
    }
}

/// Reads to the end, which must be a reset: how many bytes came before.
pub async fn drain_to_reset(source: &mut (impl AsyncRead + Unpin)) -> usize {
    match drain(source).await {
        (bytes, Err(error)) if error.kind() == std::io::ErrorKind::ConnectionReset => bytes,
        (bytes, end) => panic!("{bytes} bytes, then no reset but {end:?}"),
    }
}

/// Reads to the end, which must be clean: how many bytes came.
pub async fn drain_to_end(source: &mut (impl AsyncRead + Unpin)) -> usize {
    match drain(source).await {
        (bytes, Ok(())) => bytes,
        (bytes, Err(error)) => panic!("{bytes} bytes, then no clean end but {error}"),
    }
}

/// Descriptors that this process has open.
pub fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("Linux").count()
}
