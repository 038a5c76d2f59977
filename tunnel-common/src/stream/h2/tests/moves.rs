//! Bytes, ends and control frames.

use std::io::IoSlice;

use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::harness::{Pipe, SIDES, options, rest, tunnel};
use crate::h2::Purpose;
use crate::splice::ended::Cause;
use crate::splice::pump::Splice;
use crate::wire::control::{ControlReader, ControlWriter};
use crate::wire::frame::Frame;

/// Many windows' worth.
const MANY_BYTES: usize = 4 * 1024 * 1024;

fn noise(seed: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    std::iter::repeat_with(|| random.u8(..))
        .take(MANY_BYTES)
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn megabytes_go_both_ways_at_once_through_a_splice_on_each_end() {
    let mut tunnel = tunnel().await;
    let (near, far) = tunnel.visit().await;
    let (mut visitor, outside) = tokio::io::duplex(8 * 1024);
    let (inside, mut service) = tokio::io::duplex(8 * 1024);
    let relay = Splice::new(Pipe(outside, Default::default()), near, options());
    let agent = Splice::new(far, Pipe(inside, Default::default()), options());

    let exchange = async |io: &mut tokio::io::DuplexStream, out: u64, back: u64| {
        let (mut reader, mut writer) = tokio::io::split(io);
        let (mut got, sent) = (Vec::new(), noise(out));
        let sending = async {
            writer.write_all(&sent).await.expect("writes");
            writer.shutdown().await.expect("ends");
        };
        let (_, read) = tokio::join!(sending, reader.read_to_end(&mut got));
        read.expect("reads");
        assert!(got == noise(back));
    };
    let (relay, agent, (), ()) = tokio::join!(
        relay,
        agent,
        exchange(&mut visitor, 1, 2),
        exchange(&mut service, 2, 1)
    );
    for ended in [relay, agent] {
        assert!(matches!(ended.cause, Cause::Clean), "{ended:?}");
        let moved = (ended.a_to_b, ended.b_to_a);
        assert_eq!(moved, (MANY_BYTES as u64, MANY_BYTES as u64));
    }
}

#[tokio::test]
async fn each_side_ends_its_own_direction_only() {
    let mut tunnel = tunnel().await;
    for side in SIDES {
        let (mut one, mut other) = tunnel.visit_from(side).await;
        one.write_all(b"first").await.expect("writes");
        one.shutdown().await.expect("ends");
        one.shutdown().await.expect("a second end is none");
        assert_eq!(rest(&mut other).await.expect("reads"), b"first");
        other.write_all(b"then").await.expect("writes");
        other.shutdown().await.expect("ends");
        assert_eq!(rest(&mut one).await.expect("reads"), b"then");
        assert_eq!(rest(&mut one).await.expect("still ended"), b"");
    }
}

#[tokio::test]
async fn the_first_bytes_go_before_the_peer_has_answered() {
    let mut tunnel = tunnel().await;
    let opened = tunnel.opener.open(Purpose::Visit).await;
    let mut near = opened.expect("opens");
    let mut chunks = [Bytes::from_static(b"header"), Bytes::new(), "hello".into()];
    near.send_all(&mut chunks).await.expect("sends");
    let (_, mut far) = tunnel.accepted.recv().await.expect("accepts");
    let mut got = [0; 11];
    far.read_exact(&mut got).await.expect("reads");
    assert_eq!(&got, b"headerhello");
}

#[tokio::test]
async fn one_write_takes_several_pieces() {
    let mut tunnel = tunnel().await;
    let (mut near, mut far) = tunnel.visit().await;
    let pieces = [b"record".as_slice(), b"", b"alert"].map(IoSlice::new);
    assert_eq!(near.write_vectored(&pieces).await.expect("writes"), 11);
    assert_eq!(near.write(b"").await.expect("writes nothing"), 0);
    near.shutdown().await.expect("ends");
    assert_eq!(rest(&mut far).await.expect("reads"), b"recordalert");
}

#[tokio::test]
async fn control_frames_go_over_the_halves_of_a_stream() {
    let mut tunnel = tunnel().await;
    let opened = tunnel.opener.open(Purpose::Control).await;
    let (read, write) = opened.expect("opens").split().expect("is open");
    let (mut reader, mut writer) = (ControlReader::new(read), ControlWriter::new(write));
    writer.send(&Frame::Ping { nonce: 1 }).await.expect("sends");
    let (purpose, far) = tunnel.accepted.recv().await.expect("accepts");
    assert_eq!(purpose, Purpose::Control);
    let (read, write) = far.split().expect("is open");
    let (mut far_reader, mut far_writer) = (ControlReader::new(read), ControlWriter::new(write));
    let ping = far_reader.next().await.expect("reads");
    assert_eq!(ping, Some(Frame::Ping { nonce: 1 }));
    let pong = Frame::Pong { nonce: 1 };
    far_writer.send(&pong).await.expect("sends");
    assert_eq!(reader.next().await.expect("reads"), Some(pong));

    writer.into_inner().end().await;
    assert_eq!(far_reader.next().await.expect("ends"), None);
    drop(far_writer);
    let error = reader.next().await.expect_err("was not ended");
    assert!(!error.is_peers_fault(), "{error}");
}
