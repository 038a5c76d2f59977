//! How long the relay needs to read a ClientHello, which it does for every visitor: small and with a
//! post-quantum key share, as a whole and in pieces. The bytes are there at once; nothing is waited for.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use e2e::hello::hello_with;
use e2e::visitor::tls_config_of;
use first_flight::client_hello::{FirstFlight, read};
use futures_util::FutureExt as _;
use rustls::NamedGroup;
use rustls::crypto::CryptoProvider;
use tokio::io::{AsyncRead, ReadBuf};
use tunnel_common::tls;

const HOST: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaa.tunnel.example";
/// What each read of a cut hello brings: a slow sender, or one that cuts on purpose.
const PIECE_BYTES: usize = 100;

/// Bytes that come so many at a time.
struct Pieces<'a> {
    left: &'a [u8],
    size: usize,
}

impl AsyncRead for Pieces<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        space: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let step = self.size.min(self.left.len()).min(space.remaining());
        let (piece, left) = self.left.split_at(step);
        space.put_slice(piece);
        self.left = left;
        Poll::Ready(Ok(()))
    }
}

/// The hello of a visitor whose TLS offers this group alone.
fn hello_of(group: NamedGroup) -> Vec<u8> {
    let mut provider = CryptoProvider::clone(&tls::provider());
    provider.kx_groups.retain(|offered| offered.name() == group);
    let tls = tls_config_of(Arc::new(provider), &[b"h2", b"http/1.1"]);
    hello_with(HOST, tls)
}

fn reads(c: &mut Criterion) {
    let mut group = c.benchmark_group("client_hello");
    let hellos = [
        ("small", hello_of(NamedGroup::X25519)),
        ("post-quantum", hello_of(NamedGroup::X25519MLKEM768)),
    ];
    for (name, hello) in &hellos {
        group.throughput(Throughput::Bytes(hello.len() as u64));
        for (how, size) in [("whole", usize::MAX), ("in pieces", PIECE_BYTES)] {
            group.bench_function(BenchmarkId::new(*name, how), |b| {
                b.iter(|| {
                    let mut pieces = Pieces { left: hello, size };
                    let flight = read(&mut pieces).now_or_never();
                    let flight = flight.expect("never waits").expect("a hello");
                    assert!(matches!(flight, FirstFlight::Tls(_)));
                    flight
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, reads);
criterion_main!(benches);
