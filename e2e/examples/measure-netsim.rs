//! Prints how fast the simulated network is, and how exact its delays are: `make measure-netsim`.

use std::time::{Duration, Instant};

use e2e::netsim::{FAR, Line, NEAR, Namespace, line};
use e2e::poll::soon;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

const SPEED_SECONDS: u64 = 3;
const PROBES: usize = 400;
const PROBE_EVERY: Duration = Duration::from_millis(5);
const DELAYS_MS: [u64; 5] = [0, 5, 25, 100, 225];

/// The probes' own threads must not wait for others either.
const NICENESS: i32 = -15;

fn main() {
    // Without it the figures of a busy machine are worse.
    let _ = rustix::process::setpriority_process(None, NICENESS);
    let runtime = tokio::runtime::Runtime::new();
    runtime.expect("a runtime").block_on(measure());
}

async fn measure() {
    let Some(line) = line() else { return };
    say(
        "one TCP stream, near to far",
        &speed(&line, line.near(), FAR).await,
    );
    say(
        "one TCP stream, far to near",
        &speed(&line, line.far(), NEAR).await,
    );
    for delay in DELAYS_MS {
        let what = format!("delay of {delay} ms: error of {PROBES} probes");
        say(&what, &error(&line, Duration::from_millis(delay)).await);
    }
}

fn say(what: &str, figure: &str) {
    println!("{what:<44} {figure}");
}

/// A stream from this end to that address, for some seconds.
async fn speed(line: &Line, from: &Namespace, to: std::net::Ipv4Addr) -> String {
    let other = if to == FAR { line.far() } else { line.near() };
    let listener = other.tcp_listener(to).expect("binds");
    let address = listener.local_addr().expect("bound");
    let socket = from.tcp_socket().expect("a socket");
    let mut receiving = JoinSet::new();
    receiving.spawn(receive(listener));
    let stream = soon("connects", socket.connect(address)).await;
    let started = Instant::now();
    send(stream.expect("connects"), started).await;
    let bytes = receiving.join_next().await.expect("one").expect("no panic");
    let megabits = bytes as f64 * 8.0 / 1e6 / started.elapsed().as_secs_f64();
    format!("{megabits:.0} Mbit/s")
}

async fn send(mut stream: TcpStream, started: Instant) {
    let piece = vec![0; 256 * 1024];
    while started.elapsed() < Duration::from_secs(SPEED_SECONDS) {
        stream.write_all(&piece).await.expect("sends");
    }
    stream.shutdown().await.expect("ends");
}

async fn receive(listener: TcpListener) -> usize {
    let (mut stream, _) = listener.accept().await.expect("accepts");
    let (mut buffer, mut total) = (vec![0; 256 * 1024], 0);
    loop {
        match stream.read(&mut buffer).await.expect("receives") {
            0 => return total,
            got => total += got,
        }
    }
}

/// How much later than asked packets arrive, one way. Both ends have the same clock.
async fn error(line: &Line, delay: Duration) -> String {
    line.both(|conditions| conditions.delay = delay);
    let far = line.far().udp_socket(FAR).expect("binds");
    let near = line.near().udp_socket(NEAR).expect("binds");
    near.connect(far.local_addr().expect("bound"))
        .await
        .expect("has a route");
    let sending = async {
        let (mut sent, mut beat) = (vec![], tokio::time::interval(PROBE_EVERY));
        for _ in 0..PROBES {
            beat.tick().await;
            sent.push(Instant::now());
            near.send(b"probe").await.expect("sends");
        }
        sent
    };
    let receiving = async {
        let (mut came, mut buffer) = (vec![], [0; 16]);
        for _ in 0..PROBES {
            let probe = soon("a probe", far.recv(&mut buffer)).await;
            probe.expect("receives");
            came.push(Instant::now());
        }
        came
    };
    let (sent, came) = tokio::join!(sending, receiving);
    let flights = sent.iter().zip(&came).map(|(sent, came)| *came - *sent);
    let mut late: Vec<f64> = flights
        .map(|flight| (flight.as_secs_f64() - delay.as_secs_f64()) * 1e3)
        .collect();
    late.sort_by(f64::total_cmp);
    let at = |share: usize| late[PROBES * share / 100];
    format!("median {:.3} ms, p99 {:.3} ms", at(50), at(99))
}
