//! Both programs, a local service that sends stamped messages, and visitors who note when they came.

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use e2e::netsim::Line;
use e2e::netsim::programs::{publish, server};
use e2e::netsim::traffic::Entrance;
use e2e::origin::{Origin, origin_on};
use e2e::pair::{Client, Server};
use e2e::process::folder;
use e2e::visitor::Visitor;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{Barrier, watch};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval_at};

use crate::stalls::Arrival;

/// How many visitors there are; a byte says which one it is.
pub(crate) const VISITORS: u8 = 64;
/// The length of a message; its first eight bytes are its stamp.
pub(crate) const MESSAGE_BYTES: usize = 1_000;
/// How often each visitor gets one. Their beats are spread evenly.
pub(crate) const BEAT: Duration = Duration::from_millis(20);

/// What runs, and the visitors who have come.
pub(crate) struct Scene {
    pub(crate) line: Arc<Line>,
    pub(crate) client: Client,
    entrance: Entrance,
    visitors: JoinSet<Vec<Arrival>>,
    leave: watch::Sender<bool>,
    _server: Server,
    _origin: Origin,
}

/// Starts both programs, the client with these flags.
pub(crate) async fn scene(line: Line, flags: &[&str]) -> Scene {
    let line = Arc::new(line);
    let origin = speaker(&line);
    let server = server(&line, &[]).await;
    let client = publish(&line, &server, origin.address, flags, folder()).await;
    Scene {
        entrance: Entrance::new(&line, &server, &client),
        line,
        client,
        visitors: JoinSet::new(),
        leave: watch::Sender::new(false),
        _server: server,
        _origin: origin,
    }
}

/// Sends stamped messages to whoever says which visitor he is.
fn speaker(line: &Line) -> Origin {
    let listener = line.near().tcp_listener(Ipv4Addr::LOCALHOST);
    let epoch = epoch();
    origin_on(listener.expect("binds"), move |stream| async move {
        // A visitor who has left is no fault.
        let _ = speak(stream, epoch).await;
    })
}

/// The time that stamps count from: the same in the whole process.
fn epoch() -> Instant {
    static EPOCH: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    *EPOCH.get_or_init(Instant::now)
}

async fn speak(mut stream: TcpStream, epoch: Instant) -> io::Result<()> {
    let visitor = u32::from(stream.read_u8().await?);
    let phase = BEAT * visitor / u32::from(VISITORS);
    let cycles = epoch.elapsed().as_nanos() / BEAT.as_nanos() + 1;
    let begin = epoch + BEAT * u32::try_from(cycles).expect("some minutes") + phase;
    let mut beat = interval_at(begin.into(), BEAT);
    beat.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut message = [0x5a; MESSAGE_BYTES];
    loop {
        beat.tick().await;
        let stamp = u64::try_from(epoch.elapsed().as_nanos()).expect("some minutes");
        message[..8].copy_from_slice(&stamp.to_be_bytes());
        stream.write_all(&message).await?;
    }
}

impl Scene {
    /// All visitors come at once. Each has had a message when this is done.
    pub(crate) async fn visitors_come(&mut self) {
        let here = Arc::new(Barrier::new(usize::from(VISITORS) + 1));
        for number in 0..VISITORS {
            let (entrance, left) = (self.entrance.clone(), self.leave.subscribe());
            let here = here.clone();
            self.visitors.spawn(async move {
                let visiting = begin(&entrance, number).await;
                let visitor = visiting.expect("visits");
                here.wait().await;
                listen(visitor, number, left).await
            });
        }
        here.wait().await;
    }

    /// All visitors leave; what came to each of them.
    pub(crate) async fn visitors_leave(self) -> Vec<Vec<Arrival>> {
        self.leave.send_replace(true);
        self.visitors.join_all().await
    }
}

/// Comes, and waits for a message.
async fn begin(entrance: &Entrance, number: u8) -> io::Result<Visitor> {
    let mut visitor = entrance.visit().await?;
    visitor.write_u8(number).await?;
    visitor.read_exact(&mut [0; MESSAGE_BYTES]).await?;
    Ok(visitor)
}

async fn listen(mut visitor: Visitor, number: u8, mut left: watch::Receiver<bool>) -> Vec<Arrival> {
    let (mut arrivals, mut message) = (vec![], [0; MESSAGE_BYTES]);
    let listening = async {
        loop {
            visitor.read_exact(&mut message).await?;
            let at = Instant::now();
            let stamp = message.first_chunk().expect("long enough");
            let sent = epoch() + Duration::from_nanos(u64::from_be_bytes(*stamp));
            let delay = at - sent;
            arrivals.push(Arrival { at, delay });
        }
    };
    let ended: Option<io::Result<()>> = tokio::select! {
        ended = listening => Some(ended),
        _ = left.wait_for(|left| *left) => None,
    };
    assert!(ended.is_none(), "visitor {number} was cut off: {ended:?}");
    arrivals
}
