//! A tunnel in one process, and what its ends saw.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{
    AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream, ReadHalf, WriteHalf,
};
use tokio::sync::{Mutex, OwnedMutexGuard, mpsc};
use tokio::task::{AbortHandle, JoinSet};

use super::super::connection::{Opener, connect, serve};
use super::super::fault::ResetByPeer;
use super::super::settings::Settings;
use super::super::stream::H2Stream;
use crate::budget::{Carrier, MemoryBudget};
use crate::h2::Purpose;
use crate::splice::buffer::{BufferPool, Held};
use crate::splice::end::End;
use crate::splice::io::{self as pieces, ReadSize};
use crate::splice::options::Options;
use crate::wire::code::Code;

/// What the pipe under the tunnel holds each way.
const PIPE_BYTES: usize = 64 * 1024;

/// Settings with memory to spare.
pub(super) fn settings() -> Settings {
    Settings {
        ping_every: Duration::from_secs(2),
        silence: Duration::from_secs(8),
        budget: MemoryBudget::new(1 << 40),
    }
}

pub(super) struct Tunnel {
    pub(super) opener: Opener,
    pub(super) accepted: mpsc::UnboundedReceiver<(Purpose, H2Stream)>,
    pub(super) agent: AbortHandle,
    _tasks: JoinSet<()>,
}

pub(super) async fn tunnel() -> Tunnel {
    let (near, far) = tokio::io::duplex(PIPE_BYTES);
    tunnel_over(near, far, settings()).await
}

pub(super) async fn tunnel_over(near: DuplexStream, far: DuplexStream, both: Settings) -> Tunnel {
    let mut tasks = JoinSet::new();
    let (agent, accepted) = agent(far, both.clone(), &mut tasks);
    let (opener, driver) = connect(near, &both).await.expect("an agent");
    tasks.spawn(async move {
        let _ = driver.await;
    });
    Tunnel {
        opener,
        accepted,
        agent,
        _tasks: tasks,
    }
}

/// An agent that accepts until the connection ends, and what it accepts.
pub(super) fn agent(
    far: DuplexStream,
    settings: Settings,
    tasks: &mut JoinSet<()>,
) -> (AbortHandle, mpsc::UnboundedReceiver<(Purpose, H2Stream)>) {
    let (arrive, accepted) = mpsc::unbounded_channel();
    let agent = tasks.spawn(async move {
        let mut acceptor = serve(far, &settings).await.expect("a relay");
        while let Some(Ok(stream)) = acceptor.accept().await {
            let _ = arrive.send(stream);
        }
    });
    (agent, accepted)
}

impl Tunnel {
    /// A visit's stream: the relay's end and the agent's.
    pub(super) async fn visit(&mut self) -> (H2Stream, H2Stream) {
        let near = self.opener.open(Purpose::Visit).await.expect("opens");
        let (purpose, far) = self.accepted.recv().await.expect("accepts");
        assert_eq!(purpose, Purpose::Visit);
        (near, far)
    }

    /// The same, seen from either side.
    pub(super) async fn visit_from(&mut self, side: Side) -> (H2Stream, H2Stream) {
        let (near, far) = self.visit().await;
        match side {
            Side::Relay => (near, far),
            Side::Agent => (far, near),
        }
    }

    /// Whether a visit comes through from end to end.
    pub(super) async fn works(&mut self) {
        let (mut near, mut far) = self.visit().await;
        near.write_all(b"question").await.expect("writes");
        near.shutdown().await.expect("ends");
        assert_eq!(rest(&mut far).await.expect("reads"), b"question");
        far.write_all(b"answer").await.expect("writes");
        far.shutdown().await.expect("ends");
        assert_eq!(rest(&mut near).await.expect("reads"), b"answer");
    }
}

/// The path under a tunnel. What is sent to a side while it is held is under way.
pub(super) struct Path {
    to_relay: Arc<Mutex<()>>,
    to_agent: Arc<Mutex<()>>,
    _tasks: JoinSet<()>,
}

impl Path {
    /// The path, and what the relay and the agent hold of it. It holds `bytes` each way.
    pub(super) fn new(bytes: usize) -> (Self, DuplexStream, DuplexStream) {
        let (near, here) = tokio::io::duplex(bytes);
        let (there, far) = tokio::io::duplex(bytes);
        let (from_relay, to_relay) = tokio::io::split(here);
        let (from_agent, to_agent) = tokio::io::split(there);
        let mut tasks = JoinSet::new();
        let gates = [(); 2].map(|()| Arc::<Mutex<()>>::default());
        tasks.spawn(carry(from_agent, to_relay, gates[0].clone()));
        tasks.spawn(carry(from_relay, to_agent, gates[1].clone()));
        let [to_relay, to_agent] = gates;
        let path = Self {
            to_relay,
            to_agent,
            _tasks: tasks,
        };
        (path, near, far)
    }

    /// Holds up all that goes to a side until the guard is dropped.
    pub(super) async fn hold(&self, to: Side) -> OwnedMutexGuard<()> {
        let gate = match to {
            Side::Relay => &self.to_relay,
            Side::Agent => &self.to_agent,
        };
        gate.clone().lock_owned().await
    }
}

async fn carry(
    mut from: ReadHalf<DuplexStream>,
    mut to: WriteHalf<DuplexStream>,
    gate: Arc<Mutex<()>>,
) {
    let mut bytes = vec![0; PIPE_BYTES];
    while let Ok(count @ 1..) = from.read(&mut bytes).await {
        let _open = gate.lock().await;
        if to.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Side {
    Relay,
    Agent,
}

pub(super) const SIDES: [Side; 2] = [Side::Relay, Side::Agent];

/// All that still comes, to the clean end.
pub(super) async fn rest(stream: &mut H2Stream) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await?;
    Ok(bytes)
}

/// The code of the peer's reset, if that is what the error says.
pub(super) fn code_of(error: &io::Error) -> Option<Code> {
    let inner = error.get_ref()?.downcast_ref::<ResetByPeer>()?;
    Some(inner.0)
}

/// Writes until the peer allows no more; how much that was.
pub(super) async fn fill(stream: &mut H2Stream) -> usize {
    let mut sent = 0;
    let chunk = vec![7; 16 * 1024];
    while let Some(more) = soon(stream.write(&chunk)).await {
        sent += more.expect("writes");
    }
    sent
}

/// What the future says while all other tasks do what they can; `None` when it hangs.
pub(super) async fn soon<F: Future>(future: F) -> Option<F::Output> {
    let idle = async {
        for _ in 0..1_000 {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        biased;
        output = future => Some(output),
        () = idle => None,
    }
}

/// Puts `bytes` as a splice does.
pub(super) async fn put(stream: &mut H2Stream, bytes: &'static [u8]) -> io::Result<usize> {
    let mut held = Held::Chunks([Bytes::from_static(bytes)].into());
    poll_fn(|cx| stream.poll_put(cx, &mut held)).await
}

/// What a splice's probe says.
pub(super) async fn probe(stream: &mut H2Stream) -> io::Result<()> {
    poll_fn(|cx| Poll::Ready(stream.probe(cx))).await
}

pub(super) fn options() -> Options {
    Options {
        pool: BufferPool::default(),
        budget: MemoryBudget::new(1 << 40).tunnel(Carrier::H2),
        timeouts: Default::default(),
        first_answer: None,
        meter: Default::default(),
    }
}

/// A pipe as the end of a splice.
pub(super) struct Pipe(pub(super) DuplexStream, pub(super) ReadSize);

impl End for Pipe {
    fn poll_take(
        &mut self,
        cx: &mut Context<'_>,
        held: &mut Held,
        pool: &BufferPool,
    ) -> Poll<io::Result<usize>> {
        pieces::poll_take(&mut self.0, cx, &mut self.1, held, pool)
    }

    fn poll_put(&mut self, cx: &mut Context<'_>, held: &mut Held) -> Poll<io::Result<usize>> {
        pieces::poll_put(&mut self.0, cx, held)
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        std::pin::Pin::new(&mut self.0).poll_shutdown(cx)
    }

    fn probe(&mut self, _: &mut Context<'_>) -> io::Result<()> {
        Ok(())
    }

    fn abort(&mut self, _: Code) {}
}
