//! Every byte arrives, as it was sent, both ways.

use std::time::Instant;

use e2e::agent::publish;
use e2e::origin::echo;
use e2e::poll::soon;
use e2e::relay::relay;
use e2e::stage::stage;
use e2e::transport::Over;
use e2e::visitor::{get_on, handshake, tls_config, visit};
use rstest::rstest;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, split};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tunnel_common::tls;

const MIB: u64 = 1024 * 1024;
/// The longest that a heavy transfer may take.
const HEAVY: std::time::Duration = std::time::Duration::from_secs(120);
/// Noise is drawn once and then stamped with a number each time it is used.
const NOISE_BYTES: usize = 1024 * 1024;

type Digest = [u8; 32];

fn noise() -> Vec<u8> {
    let mut noise = vec![0; NOISE_BYTES];
    let random = tls::provider().secure_random;
    random.fill(&mut noise).expect("randomness");
    noise
}

/// Sends `total` bytes that never repeat, then ends the stream; gives their digest.
async fn send_noise(sink: &mut (impl AsyncWrite + Unpin), total: u64) -> Digest {
    let (mut noise, mut hash, mut left) = (noise(), Sha256::new(), total);
    while left > 0 {
        noise[..8].copy_from_slice(&left.to_be_bytes());
        let step = usize::try_from(left.min(NOISE_BYTES as u64)).expect("fits");
        hash.update(&noise[..step]);
        sink.write_all(&noise[..step]).await.expect("sends");
        left -= step as u64;
    }
    sink.shutdown().await.expect("ends");
    hash.finalize().into()
}

/// Reads to the clean end; gives how much came and its digest.
async fn receive(source: &mut (impl AsyncRead + Unpin)) -> (u64, Digest) {
    let (mut hash, mut total, mut buffer) = (Sha256::new(), 0, vec![0; 256 * 1024]);
    loop {
        let got = source.read(&mut buffer).await.expect("a clean end");
        if got == 0 {
            return (total, hash.finalize().into());
        }
        hash.update(&buffer[..got]);
        total += got as u64;
    }
}

/// Sends `total` both ways at once between two ends; both must get the other's digest.
async fn exchange<A, B>(a: A, b: B, total: u64)
where
    A: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    B: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let ((mut a_read, mut a_write), (mut b_read, mut b_write)) = (split(a), split(b));
    let a_sends = tokio::spawn(async move { send_noise(&mut a_write, total).await });
    let b_sends = tokio::spawn(async move { send_noise(&mut b_write, total).await });
    let a_gets = tokio::spawn(async move { receive(&mut a_read).await });
    let b_gets = tokio::spawn(async move { receive(&mut b_read).await });
    let sent = a_sends.await.expect("sends");
    assert_eq!(b_gets.await.expect("receives"), (total, sent));
    let sent = b_sends.await.expect("sends");
    assert_eq!(a_gets.await.expect("receives"), (total, sent));
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heavy_a_gibibyte_goes_both_ways_at_once_through_one_visit_unchanged(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let mut stage = stage(over).await;
    let (visitor, local) = stage.visit().await;
    let (total, start) = (1024 * MIB, Instant::now());
    timeout(HEAVY, exchange(visitor, local, total))
        .await
        .expect("in time");
    let seconds = start.elapsed().as_secs_f64();
    let gigabits = (2 * total * 8) as f64 / seconds / 1e9;
    println!("{seconds:.1} s, {gigabits:.2} Gbit/s both ways together");
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heavy_two_hundred_visits_at_once_each_get_their_own_bytes(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let (relay, origin) = (relay().await, echo().await);
    let agent = publish(over, &relay, origin.address).await;
    let host = agent.host().await;
    let mut visits = JoinSet::new();
    for visitor in 0..200_u64 {
        let (public, host) = (relay.public, host.clone());
        visits.spawn(async move {
            let stream = visit(public, &host).await.expect("visits");
            let (mut read, mut write) = split(stream);
            // Odd sizes, so that no two visits end together.
            let total = 2 * MIB + visitor * 1237;
            let sending = tokio::spawn(async move { send_noise(&mut write, total).await });
            let got = receive(&mut read).await;
            assert_eq!(got, (total, sending.await.expect("sends")));
        });
    }
    let all = async {
        while let Some(ended) = visits.join_next().await {
            ended.expect("every visit succeeds");
        }
    };
    timeout(HEAVY, all).await.expect("in time");
}

#[rstest]
#[tokio::test]
async fn what_a_visitor_sends_together_with_the_end_of_his_handshake_arrives(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let mut stage = stage(over).await;
    let (mut visitor, mut local) = stage.visit().await;
    visitor.write_all(b"early ").await.expect("sends");
    visitor.write_all(b"bird").await.expect("sends");
    let mut got = [0; 10];
    soon("the bytes", local.read_exact(&mut got))
        .await
        .expect("they come");
    assert_eq!(&got, b"early bird");
}

#[rstest]
#[tokio::test]
async fn a_service_that_speaks_first_is_heard(#[values(Over::Quic, Over::H2)] over: Over) {
    let mut stage = stage(over).await;
    let (mut visitor, mut local) = stage.visit().await;
    local.write_all(b"220 ready\r\n").await.expect("sends");
    let mut got = [0; 11];
    soon("the greeting", visitor.read_exact(&mut got))
        .await
        .expect("it comes");
    assert_eq!(&got, b"220 ready\r\n");
}

#[rstest]
#[tokio::test]
async fn writes_of_odd_sizes_arrive_whole_and_in_order(#[values(Over::Quic, Over::H2)] over: Over) {
    let (relay, origin) = (relay().await, echo().await);
    let agent = publish(over, &relay, origin.address).await;
    let stream = visit(relay.public, &agent.host().await)
        .await
        .expect("visits");
    let sizes = [
        1, 2, 1, 8191, 8192, 8193, 1, 16_383, 16_384, 16_385, 65_535, 65_537, 262_143, 262_144,
        262_145, 3, 1_048_577, 1,
    ];
    let (noise, sum) = (noise(), sizes.iter().sum::<usize>());
    let (mut read, mut write) = split(stream);
    let sending = tokio::spawn(async move {
        let mut hash = Sha256::new();
        for size in sizes {
            let bytes: Vec<u8> = noise
                .iter()
                .cycle()
                .skip(size)
                .take(size)
                .copied()
                .collect();
            hash.update(&bytes);
            write.write_all(&bytes).await.expect("sends");
            write.flush().await.expect("sends");
        }
        write.shutdown().await.expect("ends");
        <Digest>::from(hash.finalize())
    });
    let got = soon("all of it", receive(&mut read)).await;
    assert_eq!(got, (sum as u64, sending.await.expect("sends")));
}

#[rstest]
#[tokio::test]
async fn an_answer_in_ten_thousand_single_bytes_arrives_whole(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    const BYTES: usize = 10_000;
    let mut stage = stage(over).await;
    let (mut visitor, mut local) = stage.visit().await;
    let sending = tokio::spawn(async move {
        let mut hash = Sha256::new();
        for number in 0..BYTES {
            let byte = [u8::try_from(number % 251).expect("fits")];
            hash.update(byte);
            local.write_all(&byte).await.expect("sends");
        }
        local.shutdown().await.expect("ends");
        // Kept till the visitor has closed too.
        let mut rest = Vec::new();
        local.read_to_end(&mut rest).await.expect("a clean end");
        <Digest>::from(hash.finalize())
    });
    let got = soon("all of it", receive(&mut visitor)).await;
    visitor.shutdown().await.expect("ends");
    let sent = soon("the service ends", sending).await.expect("sends");
    assert_eq!(got, (BYTES as u64, sent));
}

#[rstest]
#[tokio::test]
async fn a_visitor_whose_socket_takes_little_at_once_is_served(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let (relay, origin) = (relay().await, e2e::origin::http("patience").await);
    let agent = publish(over, &relay, origin.address).await;
    let host = agent.host().await;
    let tcp = TcpStream::connect(relay.public).await.expect("connects");
    tcp.set_nodelay(true).expect("is connected");
    // The smallest send buffer that the kernel gives: large writes go in pieces.
    socket2::SockRef::from(&tcp)
        .set_send_buffer_size(1)
        .expect("is open");
    let mut visitor = handshake(tcp, &host, tls_config(&[b"http/1.1"]))
        .await
        .expect("visits");
    let body = get_on(&mut visitor, &host).await.expect("an answer");
    assert_eq!(body, "patience");
}
