//! How fast the pump of relay and agent moves bytes between two ends in memory: a mebibyte one way, and small
//! requests with their answers. No socket and no TLS: what is left is the pump itself and its buffers.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tokio::io::{
    AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream, ReadBuf, duplex,
};
use tokio::runtime::{Builder, Runtime};
use tokio::try_join;
use tunnel_common::budget::{Carrier, MemoryBudget};
use tunnel_common::splice::buffer::BufferPool;
use tunnel_common::splice::duplex::{Duplex, DuplexEnd};
use tunnel_common::splice::end::Halves;
use tunnel_common::splice::options::{Meter, Options};
use tunnel_common::splice::pump::Splice;

const MEBIBYTE: usize = 1 << 20;
/// What an end in memory holds: as much as a socket's buffer to begin with.
const PIPE_BYTES: usize = 64 * 1024;
const PAIRS: usize = 100;
/// A request of a browser, without cookies.
const REQUEST_BYTES: usize = 400;
/// A head and a few words.
const ANSWER_BYTES: usize = 200;
/// Room for all that is booked here, which is nothing.
const BUDGET_BYTES: u64 = 1 << 30;

/// One half of a pipe in memory, as an end that can not break.
struct Pipe(DuplexStream);

impl AsyncRead for Pipe {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        space: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, space)
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

impl Duplex for Pipe {
    fn check(&mut self, _: &mut Context<'_>) -> io::Result<()> {
        Ok(())
    }

    fn part(&mut self, _: Halves) {}
}

/// A splice that runs while its runtime is driven, and the far ends of its two pipes.
struct Scene {
    runtime: Runtime,
    visitor: DuplexStream,
    service: DuplexStream,
}

fn scene() -> Scene {
    let mut builder = Builder::new_current_thread();
    let runtime = builder.enable_time().build().expect("a runtime");
    let (visitor, a) = duplex(PIPE_BYTES);
    let (b, service) = duplex(PIPE_BYTES);
    let options = Options {
        pool: BufferPool::default(),
        budget: MemoryBudget::new(BUDGET_BYTES).tunnel(Carrier::Quic),
        timeouts: Arc::default(),
        first_answer: None,
        meter: Arc::new(Meter::default()),
    };
    let (a, b) = (DuplexEnd::new(Pipe(a)), DuplexEnd::new(Pipe(b)));
    runtime.spawn(async move { Splice::new(a, b, options).await });
    Scene {
        runtime,
        visitor,
        service,
    }
}

fn one_way(c: &mut Criterion) {
    let mut scene = scene();
    let (sent, mut got) = (vec![b'~'; MEBIBYTE], vec![0; MEBIBYTE]);
    let mut group = c.benchmark_group("splice");
    group.throughput(Throughput::Bytes(MEBIBYTE as u64));
    group.bench_function("one mebibyte", |b| {
        b.iter(|| {
            let sending = scene.service.write_all(&sent);
            let getting = scene.visitor.read_exact(&mut got);
            let both = async { try_join!(sending, getting) };
            scene.runtime.block_on(both).expect("a pipe does not break");
        });
    });
    group.finish();
}

fn ping_pong(c: &mut Criterion) {
    let mut scene = scene();
    let mut group = c.benchmark_group("splice");
    group.throughput(Throughput::Elements(PAIRS as u64));
    group.bench_function("requests and answers", |b| {
        b.iter(|| {
            let (visitor, service) = (&mut scene.visitor, &mut scene.service);
            let pairs = async { try_join!(ask(visitor), answer(service)) };
            let paired = scene.runtime.block_on(pairs);
            paired.expect("a pipe does not break");
        });
    });
    group.finish();
}

async fn ask(visitor: &mut DuplexStream) -> io::Result<()> {
    let mut answer = [0; ANSWER_BYTES];
    for _ in 0..PAIRS {
        visitor.write_all(&[b'?'; REQUEST_BYTES]).await?;
        visitor.read_exact(&mut answer).await?;
    }
    Ok(())
}

async fn answer(service: &mut DuplexStream) -> io::Result<()> {
    let mut request = [0; REQUEST_BYTES];
    for _ in 0..PAIRS {
        service.read_exact(&mut request).await?;
        service.write_all(&[b'!'; ANSWER_BYTES]).await?;
    }
    Ok(())
}

criterion_group!(benches, one_way, ping_pong);
criterion_main!(benches);
