//! The simulated network does what it is told: what the stories of bad networks rest on.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use e2e::netsim::{Block, FAR, FAR_V6, Line, Loss, NEAR, NEAR_V6, line};
use e2e::poll::{eventually, soon};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UdpSocket;
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio::time::timeout;

const MS: Duration = Duration::from_millis(1);
/// IPv4 and UDP.
const HEADERS: usize = 28;
/// What a busy machine may add to a delay.
const SLACK: Duration = Duration::from_millis(8);
/// After so long nothing comes any more: no story here delays a packet for longer.
const SILENCE: Duration = Duration::from_millis(250);

/// An echo at the far end that puts the address it sees before each answer, and a socket near.
struct Echo {
    socket: UdpSocket,
    port: u16,
    _answering: JoinSet<()>,
}

async fn echo_between(line: &Line, near: IpAddr, far: IpAddr) -> Echo {
    let answering = line.far().udp_socket(far).expect("binds");
    let address = answering.local_addr().expect("bound");
    let socket = line.near().udp_socket(near).expect("binds");
    socket.connect(address).await.expect("has a route");
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut buffer = [0; 2048];
        while let Ok((got, from)) = answering.recv_from(&mut buffer).await {
            let mut answer = format!("{from} ").into_bytes();
            answer.extend(&buffer[..got.min(64)]);
            let _ = answering.send_to(&answer, from).await;
        }
    });
    Echo {
        socket,
        port: address.port(),
        _answering: tasks,
    }
}

async fn echo(line: &Line) -> Echo {
    echo_between(line, NEAR.into(), FAR.into()).await
}

impl Echo {
    /// Sends and waits for the answer: the address that the far end saw. `None` if none comes.
    async fn ask(&self, text: &str) -> Option<SocketAddr> {
        self.socket.send(text.as_bytes()).await.expect("sends");
        let mut buffer = [0; 2048];
        let got = timeout(SILENCE, self.socket.recv(&mut buffer)).await.ok()?;
        let answer = str::from_utf8(&buffer[..got.expect("receives")]).expect("UTF-8");
        let (from, rest) = answer.split_once(' ').expect("an answer");
        assert_eq!(rest, &text[..text.len().min(64)]);
        Some(from.parse().expect("an address"))
    }

    async fn works(&self) -> SocketAddr {
        self.ask("hello").await.expect("an answer")
    }

    /// The shortest and the median time to the answer.
    async fn times(&self) -> (Duration, Duration) {
        let mut times = vec![];
        for _ in 0..15 {
            let sent = Instant::now();
            self.works().await;
            times.push(sent.elapsed());
        }
        times.sort();
        (times[0], times[times.len() / 2])
    }
}

/// Two sockets at the two ends, the near one connected to the far one.
async fn pair(line: &Line) -> (UdpSocket, UdpSocket) {
    let far = line.far().udp_socket(FAR).expect("binds");
    let near = line.near().udp_socket(NEAR).expect("binds");
    let address = far.local_addr().expect("bound");
    near.connect(address).await.expect("has a route");
    (near, far)
}

/// When each packet came, until none comes any more.
async fn arrivals(socket: &UdpSocket) -> Vec<Instant> {
    let (mut times, mut buffer) = (vec![], [0; 2048]);
    while let Ok(got) = timeout(SILENCE, socket.recv(&mut buffer)).await {
        got.expect("receives");
        times.push(Instant::now());
    }
    times
}

fn exists(name: &str) -> bool {
    Path::new("/var/run/netns").join(name).exists()
}

#[tokio::test]
async fn a_packet_takes_as_long_as_was_asked_and_the_delay_may_change_at_any_time() {
    let Some(line) = line() else { return };
    let echo = echo(&line).await;
    for delay in [25 * MS, 5 * MS] {
        line.both(|conditions| conditions.delay = delay);
        let (shortest, median) = echo.times().await;
        assert!(shortest >= 2 * delay, "{delay:?}: {shortest:?}");
        assert!(median < 2 * delay + SLACK, "{delay:?}: {median:?}");
    }
    line.down().change(|conditions| conditions.delay = 45 * MS);
    let (shortest, median) = echo.times().await;
    assert!(shortest >= 50 * MS && median < 50 * MS + SLACK);
}

#[tokio::test]
async fn as_many_packets_are_lost_as_was_asked_in_that_direction_only() {
    const SENT: u64 = 3_000;
    let Some(line) = line() else { return };
    let (near, far) = pair(&line).await;
    line.up()
        .change(|conditions| conditions.loss = Loss::Random(0.1));
    let (mut buffer, mut came) = ([0; 16], 0);
    for sent in 1..=SENT {
        near.send(b"dice").await.expect("sends");
        // The far socket keeps a few hundred packets only.
        if sent % 100 == 0 {
            let met = || line.up().counts().carried + line.up().counts().lost;
            eventually("all packets met their fate", || met() == sent).await;
            far.readable().await.expect("is open");
            while far.try_recv(&mut buffer).is_ok() {
                came += 1;
            }
        }
    }
    let lost = line.up().counts().lost;
    // 300, and five times the standard deviation of 16.4.
    assert!((218..=382).contains(&lost), "{lost} lost");
    assert_eq!(came, SENT - lost);
    assert_eq!(line.down().counts().lost, 0);
}

#[tokio::test]
async fn one_packet_of_the_size_that_was_asked_is_lost_and_no_other() {
    let Some(line) = line() else { return };
    let (near, far) = pair(&line).await;
    let (small, big) = ([0; 200 - HEADERS], [0; 1_000 - HEADERS]);
    for round in 1..=3 {
        line.up().lose_one(999);
        for packet in [&small[..], &big, &big, &small] {
            near.send(packet).await.expect("sends");
        }
        assert_eq!(arrivals(&far).await.len(), 3);
        assert_eq!(line.up().counts().lost, round);
    }
    assert_eq!(line.down().counts().lost, 0);
}

#[tokio::test]
async fn a_line_carries_as_many_bits_a_second_as_was_asked() {
    const BYTES: usize = 1_000;
    let Some(line) = line() else { return };
    let (near, far) = pair(&line).await;
    line.up().change(|conditions| {
        conditions.bits_per_second = Some(20_000_000);
        conditions.queue_bytes = 2_000_000;
    });
    for _ in 0..1_000 {
        near.send(&[0; BYTES - HEADERS]).await.expect("sends");
    }
    let came = arrivals(&far).await;
    assert_eq!(came.len(), 1_000);
    let took = came[999] - came[0];
    let rate = (999 * BYTES * 8) as f64 / took.as_secs_f64();
    assert!((18e6..22e6).contains(&rate), "{rate} bit/s");
}

#[tokio::test]
async fn a_full_queue_drops_what_comes_and_no_packet_waits_longer_than_the_queue_is() {
    const BYTES: usize = 1_000;
    let Some(line) = line() else { return };
    let (near, far) = pair(&line).await;
    line.up().change(|conditions| {
        conditions.bits_per_second = Some(8_000_000);
        conditions.queue_bytes = 20 * BYTES;
    });
    let sent = Instant::now();
    for _ in 0..200 {
        near.send(&[0; BYTES - HEADERS]).await.expect("sends");
    }
    let sending = sent.elapsed();
    let came = arrivals(&far).await;
    // One leaves each millisecond, also while the others are being sent.
    let most = 22 + usize::try_from(sending.as_millis()).expect("short");
    assert!((20..=most).contains(&came.len()), "{} came", came.len());
    let waited = *came.last().expect("some came") - sent;
    assert!(waited < sending + 20 * MS + SLACK, "{waited:?}");
    let dropped = line.up().counts().overflowed;
    assert_eq!(dropped, 200 - came.len() as u64);
}

#[tokio::test]
async fn a_black_hole_lets_small_packets_pass_and_swallows_big_ones() {
    let Some(line) = line() else { return };
    let echo = echo(&line).await;
    let big = "x".repeat(1301 - HEADERS);
    assert!(echo.ask(&big).await.is_some());
    line.both(|conditions| conditions.largest_packet = Some(1300));
    assert_eq!(echo.ask(&big).await, None);
    assert!(echo.ask(&big[1..]).await.is_some());
    line.both(|conditions| conditions.largest_packet = None);
    assert!(echo.ask(&big).await.is_some());
}

#[tokio::test]
async fn a_firewall_blocks_udp_or_one_port_of_it_and_lets_tcp_pass() {
    let Some(line) = line() else { return };
    let (blocked, other) = (echo(&line).await, echo(&line).await);
    line.both(|conditions| conditions.block = Block::UdpPort(blocked.port));
    assert_eq!(blocked.ask("one port").await, None);
    other.works().await;
    line.both(|conditions| conditions.block = Block::Udp);
    assert_eq!(other.ask("all ports").await, None);

    let listener = line.far().tcp_listener(FAR).expect("binds");
    let to = listener.local_addr().expect("bound");
    let socket = line.near().tcp_socket().expect("a socket");
    let connecting = soon("TCP passes", socket.connect(to));
    let (stream, accepted) = tokio::join!(connecting, listener.accept());
    let (mut stream, (mut accepted, _)) = (stream.expect("connects"), accepted.expect("accepts"));
    stream.write_all(b"over TCP").await.expect("sends");
    let mut got = [0; 8];
    let reading = accepted.read_exact(&mut got);
    soon("TCP passes", reading).await.expect("receives");
    assert_eq!(&got, b"over TCP");
}

#[tokio::test]
async fn nothing_passes_a_cut_line_not_even_what_was_on_its_way() {
    let Some(line) = line() else { return };
    let echo = echo(&line).await;
    line.both(|conditions| conditions.delay = 50 * MS);
    let before = line.up().counts().swallowed;
    echo.socket.send(b"on its way").await.expect("sends");
    line.both(|conditions| conditions.cut = true);
    assert_eq!(echo.ask("cut").await, None);
    assert_eq!(line.up().counts().swallowed, before + 2);
    line.both(|conditions| conditions.cut = false);
    echo.works().await;
}

#[tokio::test]
async fn a_nat_shows_its_own_address_and_another_port_after_each_rebinding() {
    let Some(line) = line() else { return };
    let echo = echo(&line).await;
    let own = echo.socket.local_addr().expect("bound");
    assert_eq!(echo.works().await, own);
    line.nat().on();
    let first = echo.works().await;
    assert_eq!(first.ip(), line.nat().outside());
    assert_eq!(echo.works().await, first, "a mapping stays");
    line.nat().rebind();
    let second = echo.works().await;
    assert_eq!(second.ip(), first.ip());
    assert_ne!(second.port(), first.port());
    line.nat().rebind_address();
    let third = echo.works().await;
    assert_ne!(third.ip(), second.ip());
    assert_ne!(third.port(), second.port());
}

#[tokio::test]
async fn what_comes_to_a_nat_without_a_mapping_is_dropped() {
    let Some(line) = line() else { return };
    line.nat().on();
    let (near, far) = pair(&line).await;
    near.send(b"maps").await.expect("sends");
    let mut buffer = [0; 16];
    let (_, mapped) = soon("a packet", far.recv_from(&mut buffer))
        .await
        .expect("receives");
    far.send_to(b"answers", mapped).await.expect("sends");
    assert_eq!(arrivals(&near).await.len(), 1);
    line.nat().rebind();
    let swallowed = line.down().counts().swallowed;
    far.send_to(b"too late", mapped).await.expect("sends");
    assert_eq!(arrivals(&near).await.len(), 0);
    assert_eq!(line.down().counts().swallowed, swallowed + 1);
}

#[tokio::test]
async fn ipv6_passes_as_well() {
    if std::net::UdpSocket::bind((std::net::Ipv6Addr::LOCALHOST, 0)).is_err() {
        eprintln!("SKIPPED: this machine has no IPv6");
        return;
    }
    let Some(line) = line() else { return };
    let echo = echo_between(&line, NEAR_V6.into(), FAR_V6.into()).await;
    assert_eq!(echo.works().await.ip(), NEAR_V6);
    line.both(|conditions| conditions.block = Block::UdpPort(echo.port));
    assert_eq!(echo.ask("blocked").await, None);
}

#[tokio::test]
async fn two_lines_do_not_disturb_each_other() {
    let (Some(one), Some(other)) = (line(), line()) else {
        return;
    };
    let (first, second) = (echo(&one).await, echo(&other).await);
    one.both(|conditions| conditions.cut = true);
    assert_eq!(first.ask("cut").await, None);
    second.works().await;
    drop((first, one));
    second.works().await;
}

#[tokio::test]
async fn programs_and_futures_in_a_namespace_see_its_addresses_only() {
    let Some(line) = line() else { return };
    let mut command = Command::new("sh");
    command.args(["-c", "ip -4 -o address; echo $GREETING"]);
    command.env("GREETING", "hello from the near end");
    let output = line.near().command(&command).output().await;
    let said = String::from_utf8(output.expect("runs").stdout).expect("UTF-8");
    assert!(said.contains(&NEAR.to_string()) && !said.contains(&FAR.to_string()));
    assert!(said.contains("hello from the near end"), "{said}");
    let bound = line.far().run(async || {
        let here = UdpSocket::bind((FAR, 0)).await.is_ok();
        (here, UdpSocket::bind((NEAR, 0)).await.is_ok())
    });
    assert_eq!(bound.await, (true, false));
    let elsewhere: IpAddr = Ipv4Addr::new(10, 77, 0, 3).into();
    assert!(line.near().udp_socket(elsewhere).is_err());
}

#[tokio::test]
async fn a_line_that_is_dropped_leaves_nothing_behind() {
    let Some(line) = line() else { return };
    let names = [line.near().name().to_owned(), line.far().name().to_owned()];
    assert!(names.iter().all(|name| exists(name)));
    let files = Path::new("/etc/netns").join(&names[0]);
    std::fs::create_dir_all(&files).expect("root may");
    std::fs::write(files.join("hosts"), "10.77.0.2 relay.example\n").expect("writes");
    let mut command = Command::new("cat");
    command.arg("/etc/hosts");
    let output = line.near().command(&command).output().await.expect("runs");
    assert_eq!(output.stdout, b"10.77.0.2 relay.example\n");
    let mut forgotten = line
        .far()
        .command(Command::new("sleep").arg("1000"))
        .spawn()
        .expect("starts");
    let id = forgotten.id().expect("runs").to_string();
    eventually("it is in the namespace", || {
        let pids = std::process::Command::new("ip")
            .args(["netns", "pids", line.far().name()])
            .output();
        let pids = String::from_utf8(pids.expect("runs").stdout).expect("UTF-8");
        pids.lines().any(|pid| pid == id)
    })
    .await;
    drop(line);
    assert!(!names.iter().any(|name| exists(name)));
    assert!(!files.exists());
    let ended = soon("what was forgotten ends", forgotten.wait()).await;
    assert!(!ended.expect("is a child").success());
}

/// The namespaces of a test's process.
fn namespaces_of(process: u32) -> usize {
    let names = std::fs::read_dir("/var/run/netns").expect("there are some");
    let names = names.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let prefix = format!("netsim-{process}-");
    names.filter(|name| name.starts_with(&prefix)).count()
}

#[tokio::test]
async fn what_a_killed_test_left_behind_is_removed_by_the_next_one() {
    let Some(first) = line() else { return };
    let mut other = Command::new(std::env::current_exe().expect("this test is a file"))
        .args(["--exact", WAITS])
        .env(STAYS, "1")
        .kill_on_drop(true)
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("starts");
    let process = other.id().expect("runs");
    eventually("the other test has a line", || namespaces_of(process) == 2).await;
    // Still a zombie: its parent has not asked for its end.
    other.start_kill().expect("is ours");
    eventually("what it left is removed", || {
        drop(line());
        namespaces_of(process) == 0
    })
    .await;
    other.wait().await.expect("is a child");
    assert!(exists(first.near().name()) && exists(first.far().name()));
}

/// The test that [`what_a_killed_test_left_behind_is_removed_by_the_next_one`] kills.
const WAITS: &str = "netsim::a_line_without_faults_carries_what_it_is_given";
/// Tells that test to wait for its end.
const STAYS: &str = "NETSIM_STAYS";

#[tokio::test]
async fn a_line_without_faults_carries_what_it_is_given() {
    let Some(line) = line() else { return };
    echo(&line).await.works().await;
    let counts = line.up().counts();
    assert_eq!((counts.carried, counts.swallowed), (1, 0), "{counts:?}");
    if std::env::var_os(STAYS).is_some() {
        std::future::pending::<()>().await;
    }
}
