//! Whether the peer is there, under a paused clock; and windows that follow the budget.

use std::task::{Context, Waker};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::time::{Instant, advance, timeout};

use super::super::connection::{Broken, connect, serve};
use super::super::gathered::Gathering;
use super::super::settings::Settings;
use super::super::traffic::Traffic;
use super::super::watch::{Seen, Watch, Windows};
use super::harness::{fill, settings, soon};
use crate::budget::{Carrier, MemoryBudget};
use crate::h2::{MAX_STREAM_WINDOW, Purpose, STREAM_WINDOW};

const PIPE_BYTES: usize = 1024 * 1024;
const SETTINGS_FRAME: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
/// Of a type that nobody knows: it says nothing, and comes.
const UNKNOWN_FRAME: [u8; 9] = [0, 0, 0, 0xee, 0, 0, 0, 0, 0];
const PING: u8 = 6;

#[tokio::test(start_paused = true)]
async fn a_peer_that_says_nothing_is_dead_in_8_seconds() {
    let (near, _far) = tokio::io::duplex(PIPE_BYTES);
    let (_opener, driver) = connect(near, &settings()).await.expect("connects");
    let begin = Instant::now();
    let ended = driver.await;
    assert!(matches!(ended, Err(Broken::Silent)), "{ended:?}");
    assert_eq!(begin.elapsed().as_secs(), 8);
}

#[tokio::test(start_paused = true)]
async fn the_agent_finds_a_dead_relay_as_well() {
    let (near, far) = tokio::io::duplex(PIPE_BYTES);
    // Its first bytes come, and then no more.
    let (_opener, _driver) = connect(near, &settings()).await.expect("connects");
    let mut acceptor = serve(far, &settings()).await.expect("a relay");
    let begin = Instant::now();
    let ended = acceptor.accept().await;
    assert!(matches!(ended, Some(Err(Broken::Silent))), "{ended:?}");
    assert_eq!(begin.elapsed().as_secs(), 8);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_never_answers_lives_as_long_as_bytes_come_and_is_asked_once() {
    let (near, mut far) = tokio::io::duplex(PIPE_BYTES);
    let (_opener, driver) = connect(near, &settings()).await.expect("connects");
    let mut driver = std::pin::pin!(driver);
    far.write_all(&SETTINGS_FRAME).await.expect("writes");
    for _ in 0..100 {
        let lives = timeout(Duration::from_secs(7), &mut driver).await;
        assert!(lives.is_err(), "{lives:?}");
        far.write_all(&UNKNOWN_FRAME).await.expect("writes");
    }
    let begin = Instant::now();
    let ended = driver.await;
    assert!(matches!(ended, Err(Broken::Silent)), "{ended:?}");
    assert_eq!(begin.elapsed().as_secs(), 8);
    assert_eq!(pings(&mut far).await, 1);
}

#[tokio::test(start_paused = true)]
async fn two_who_have_nothing_to_say_ask_each_other_every_2_seconds() {
    let (near, far) = tokio::io::duplex(PIPE_BYTES);
    let (_opener, driver) = connect(near, &settings()).await.expect("connects");
    let agent = async {
        let mut acceptor = serve(far, &settings()).await.expect("a relay");
        let ended = acceptor.accept().await;
        panic!("{ended:?}");
    };
    let quiet = async { tokio::join!(driver, agent) };
    let hour = Duration::from_secs(3600);
    assert!(timeout(hour, quiet).await.is_err(), "both live");
}

/// How many PINGs lie there that are no answers.
async fn pings(far: &mut DuplexStream) -> usize {
    let mut all = vec![0; PIPE_BYTES];
    let mut got = 0;
    while let Some(Ok(more @ 1..)) = soon(far.read(&mut all[got..])).await {
        got += more;
    }
    const PREFACE: usize = 24;
    let (mut frames, mut count) = (&all[PREFACE..got], 0);
    while let [a, b, c, kind, flags, ..] = *frames {
        count += usize::from(kind == PING && flags == 0);
        frames = &frames[9 + u32::from_be_bytes([0, a, b, c]) as usize..];
    }
    count
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Granted {
    stream: Option<u32>,
    connection: Option<u32>,
}

impl Windows for Granted {
    fn set_stream(&mut self, bytes: u32) -> Result<(), h2::Error> {
        self.stream = Some(bytes);
        Ok(())
    }

    fn set_connection(&mut self, bytes: u32) {
        self.connection = Some(bytes);
    }
}

#[tokio::test(start_paused = true)]
async fn when_memory_is_short_streams_go_back_to_the_least_and_the_connection_to_half() {
    const MIB: u32 = 1024 * 1024;
    let budget = MemoryBudget::new(128 << 20);
    let settings = Settings {
        budget: budget.clone(),
        ..settings()
    };
    let traffic = Traffic::default();
    let received = traffic.received();
    let mut watch = Watch::new(
        None,
        traffic.clone(),
        Gathering::default(),
        16 * MIB,
        &settings,
    );
    let mut cx = Context::from_waker(Waker::noop());
    let mut granted = Granted::default();
    assert_eq!(watch.poll(&mut cx, &mut granted), Seen::Quiet);
    assert_eq!(granted, Granted::default());

    watch.pulse_mut().asked(Instant::now());
    received.store(
        u64::from(MAX_STREAM_WINDOW),
        std::sync::atomic::Ordering::Relaxed,
    );
    advance(Duration::from_millis(100)).await;
    watch.poll(&mut cx, &mut granted);
    watch.pulse_mut().answered(Instant::now());
    assert_eq!(watch.poll(&mut cx, &mut granted), Seen::Changed);
    assert_eq!(granted.stream, Some(MAX_STREAM_WINDOW));

    let tunnels: Vec<_> = (0..9).map(|_| budget.tunnel(Carrier::Quic)).collect();
    let bookings: Vec<_> = tunnels.iter().map(|one| one.book(4 << 20)).collect();
    assert_eq!(watch.poll(&mut cx, &mut granted), Seen::Changed);
    assert_eq!(granted.stream, Some(STREAM_WINDOW));
    assert_eq!(granted.connection, Some(8 * MIB));
    drop(bookings);
    assert_eq!(watch.poll(&mut cx, &mut granted), Seen::Quiet);
}

#[tokio::test]
async fn all_streams_of_a_connection_together_pin_no_more_than_its_window() {
    const SMALLEST: usize = 8 * 1024 * 1024;
    let small = Settings {
        budget: MemoryBudget::new(0),
        ..settings()
    };
    let (near, far) = tokio::io::duplex(64 * 1024);
    let (opener, driver) = connect(near, &small).await.expect("connects");
    let agent = async {
        let mut acceptor = serve(far, &small).await.expect("a relay");
        let (sender, streams) = tokio::sync::mpsc::unbounded_channel();
        let accepting = async {
            while let Some(Ok((_, stream))) = acceptor.accept().await {
                let _ = sender.send(stream);
            }
        };
        let filling = async {
            let mut streams = streams;
            let (mut all, mut held) = (0, vec![]);
            while let Some(Some(mut stream)) = soon(streams.recv()).await {
                all += fill(&mut stream).await;
                held.push(stream);
            }
            all
        };
        tokio::select! {
            () = accepting => panic!("the connection ended"),
            all = filling => all,
        }
    };
    let mut opened = vec![];
    let opening = async {
        for _ in 0..SMALLEST / STREAM_WINDOW as usize + 8 {
            opened.push(opener.open(Purpose::Visit).await.expect("opens"));
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        _ = driver => panic!("the connection ended"),
        () = opening => {}
        all = agent => assert_eq!(all, SMALLEST),
    }
}
