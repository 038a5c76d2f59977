//! Visitors of a line, who come and stay whatever happens to it, and what became of them.
//!
//! The local service must be an [`echo`](near_echo).

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use rustls::ClientConfig;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use super::line::Line;
pub use super::local::near_echo;
use crate::pair::{Client, Server};
use crate::visitor::{Visitor, handshake, tls_config};

/// What a visitor asks; the answer is the same.
const QUESTION: &[u8; 16] = b"are you serving?";
/// A visitor who waits longer for his answer gives up.
const PATIENCE: Duration = Duration::from_secs(15);
/// How often a visitor who stays asks.
const ASKS_EVERY: Duration = Duration::from_millis(100);

/// Where the visitors of one agent come in, at the far end: one address or several, as a name may have.
/// Its clones lead to the same.
#[derive(Clone, Debug)]
pub struct Entrance {
    line: Arc<Line>,
    public: Arc<ArcSwap<Vec<SocketAddr>>>,
    /// How many have come: each begins with the address behind that of the one before.
    come: Arc<AtomicUsize>,
    host: String,
    tls: Arc<ClientConfig>,
}

impl Entrance {
    /// The public port of `server`, with the name of `client`.
    pub fn new(line: &Arc<Line>, server: &Server, client: &Client) -> Self {
        Self {
            line: line.clone(),
            public: Arc::new(ArcSwap::from_pointee(vec![server.visitors()])),
            come: Arc::default(),
            host: client.host().to_owned(),
            tls: tls_config(&[b"http/1.1"]),
        }
    }

    /// The same name at other addresses, at least one.
    pub fn at(&self, public: &[SocketAddr]) -> Self {
        Self {
            public: Arc::new(ArcSwap::from_pointee(public.to_vec())),
            come: Arc::default(),
            ..self.clone()
        }
    }

    /// From now on the name has these addresses, at least one.
    pub fn leads_to(&self, public: &[SocketAddr]) {
        self.public.store(Arc::new(public.to_vec()));
    }

    /// Visits: at the first address that takes the connection, as browsers do.
    pub async fn visit(&self) -> io::Result<Visitor> {
        let tcp = self.connect().await?;
        tcp.set_nodelay(true)?;
        handshake(tcp, &self.host, self.tls.clone()).await
    }

    async fn connect(&self) -> io::Result<TcpStream> {
        let public = self.public.load_full();
        let first = self.come.fetch_add(1, Ordering::Relaxed) % public.len();
        let mut failure = io::Error::other("no address");
        for address in public.iter().cycle().skip(first).take(public.len()) {
            match self.line.far().tcp_socket()?.connect(*address).await {
                Ok(tcp) => return Ok(tcp),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    /// A visit with one question. Gives the time of the answer; the visit has ended cleanly too. An
    /// error after 15 s without.
    pub async fn ask(&self) -> io::Result<Instant> {
        let asking = async {
            let mut visitor = self.visit().await?;
            ask(&mut visitor).await?;
            let answered = Instant::now();
            visitor.shutdown().await?;
            match visitor.read(&mut [0]).await? {
                0 => Ok(answered),
                _ => Err(io::Error::other("more than the answer")),
            }
        };
        timeout(PATIENCE, asking).await?
    }
}

async fn ask(visitor: &mut Visitor) -> io::Result<()> {
    visitor.write_all(QUESTION).await?;
    let mut answer = [0; QUESTION.len()];
    visitor.read_exact(&mut answer).await?;
    if &answer == QUESTION {
        Ok(())
    } else {
        Err(io::Error::other("another answer"))
    }
}

/// Visitors who come at a steady beat, each with one question, however many still wait for their
/// answers. Dropping it ends them.
#[derive(Debug)]
pub struct Requests {
    outcomes: Arc<Mutex<Vec<Outcome>>>,
    last: CancellationToken,
    coming: JoinHandle<()>,
}

/// What became of a visitor with one question.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// When he came.
    pub began: Instant,
    /// When he had his answer, or knew that there would be none.
    pub ended: Instant,
    /// Whether he had it.
    pub is_served: bool,
}

impl Requests {
    /// A new visitor at each `beat`, from now on.
    pub fn start(entrance: &Entrance, beat: Duration) -> Self {
        let (outcomes, last) = (Arc::default(), CancellationToken::new());
        let coming = come(
            entrance.clone(),
            beat,
            Arc::clone(&outcomes),
            last.child_token(),
        );
        Self {
            outcomes,
            last,
            coming: tokio::spawn(coming),
        }
    }

    /// No more come. Waits until something has become of everybody, at most 15 s, and gives it.
    pub async fn end(mut self) -> Vec<Outcome> {
        self.last.cancel();
        (&mut self.coming).await.expect("no panic");
        self.outcomes()
    }

    /// Those of whom something has become so far, in this order.
    pub fn outcomes(&self) -> Vec<Outcome> {
        self.outcomes.lock().expect("not poisoned").clone()
    }

    /// How many were not served so far.
    pub fn failed(&self) -> usize {
        let outcomes = self.outcomes();
        outcomes.iter().filter(|outcome| !outcome.is_served).count()
    }

    /// Who was served first of those that came after `since`.
    pub fn first_served(&self, since: Instant) -> Option<Outcome> {
        let outcomes = self.outcomes();
        let is_later = |outcome: &Outcome| outcome.is_served && outcome.began >= since;
        outcomes.into_iter().find(is_later)
    }

    /// How long nobody was served around `at`: from the last answer before to the first after.
    pub fn longest_wait_since(&self, at: Instant) -> Option<Duration> {
        let outcomes = self.outcomes();
        let served = outcomes.iter().filter(|outcome| outcome.is_served);
        let mut answers: Vec<_> = served.map(|outcome| outcome.ended).collect();
        answers.sort();
        let pairs = answers.windows(2).filter(|pair| pair[1] >= at);
        pairs.map(|pair| pair[1] - pair[0]).max()
    }
}

async fn come(
    entrance: Entrance,
    beat: Duration,
    outcomes: Arc<Mutex<Vec<Outcome>>>,
    last: CancellationToken,
) {
    let (mut visits, mut beat) = (JoinSet::new(), interval(beat));
    // A machine that was busy does not make a crowd.
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = beat.tick(), if !last.is_cancelled() => {
                let entrance = entrance.clone();
                visits.spawn(async move { outcome(&entrance).await });
            }
            Some(outcome) = visits.join_next() => {
                let outcome = outcome.expect("no panic");
                outcomes.lock().expect("not poisoned").push(outcome);
            }
            () = last.cancelled(), if visits.is_empty() => return,
        }
    }
}

async fn outcome(entrance: &Entrance) -> Outcome {
    let began = Instant::now();
    let answered = entrance.ask().await;
    Outcome {
        began,
        is_served: answered.is_ok(),
        ended: answered.unwrap_or_else(|_| Instant::now()),
    }
}

impl Drop for Requests {
    fn drop(&mut self) {
        self.coming.abort();
    }
}

/// Visitors who stay, and ask every 100 ms, or not again. Dropping it ends them.
#[derive(Debug)]
pub struct Sessions {
    answers: Arc<AtomicU64>,
    stays: Vec<Arc<Mutex<Stay>>>,
    _staying: JoinSet<()>,
}

/// One who stays.
#[derive(Clone, Copy, Debug)]
struct Stay {
    /// When he had his last answer.
    answered: Instant,
    cut: Option<Instant>,
}

impl Sessions {
    /// So many who ask. Each has had an answer when this is done.
    pub async fn start(entrance: &Entrance, count: usize) -> io::Result<Self> {
        Self::settle(entrance, count, stay).await
    }

    /// So many who have had an answer when this is done, and ask no more: idle keep-alives.
    pub async fn idle(entrance: &Entrance, count: usize) -> io::Result<Self> {
        Self::settle(entrance, count, stay_silent).await
    }

    async fn settle<F: Future<Output = ()> + Send + 'static>(
        entrance: &Entrance,
        count: usize,
        stay: impl Fn(Visitor, Arc<AtomicU64>, Arc<Mutex<Stay>>) -> F,
    ) -> io::Result<Self> {
        let (answers, mut stays, mut staying) = (Arc::default(), vec![], JoinSet::new());
        for _ in 0..count {
            let mut visitor = entrance.visit().await?;
            ask(&mut visitor).await?;
            let (answered, cut) = (Instant::now(), None);
            let one = Arc::new(Mutex::new(Stay { answered, cut }));
            staying.spawn(stay(visitor, Arc::clone(&answers), one.clone()));
            stays.push(one);
        }
        Ok(Self {
            answers,
            stays,
            _staying: staying,
        })
    }

    /// How many answers they have had.
    pub fn answers(&self) -> u64 {
        self.answers.load(Ordering::Relaxed)
    }

    /// When those were cut that were, in this order.
    pub fn cuts(&self) -> Vec<Instant> {
        let mut cuts: Vec<_> = self.stays().filter_map(|stay| stay.cut).collect();
        cuts.sort();
        cuts
    }

    /// Whether all of them were cut.
    pub fn are_over(&self) -> bool {
        self.stays().all(|stay| stay.cut.is_some())
    }

    /// How many have neither been cut nor had an answer since.
    pub fn waiting_since(&self, since: Instant) -> usize {
        let waits = |stay: &Stay| stay.cut.is_none() && stay.answered < since;
        self.stays().filter(waits).count()
    }

    fn stays(&self) -> impl Iterator<Item = Stay> {
        let read = |stay: &Arc<Mutex<Stay>>| *stay.lock().expect("not poisoned");
        self.stays.iter().map(read)
    }
}

async fn stay(mut visitor: Visitor, answers: Arc<AtomicU64>, stay: Arc<Mutex<Stay>>) {
    let mut beat = interval(ASKS_EVERY);
    loop {
        beat.tick().await;
        let answered = ask(&mut visitor).await;
        let (mut stay, now) = (stay.lock().expect("not poisoned"), Instant::now());
        if answered.is_err() {
            stay.cut = Some(now);
            return;
        }
        stay.answered = now;
        answers.fetch_add(1, Ordering::Relaxed);
    }
}

/// Waits until the connection ends, in whatever way.
async fn stay_silent(mut visitor: Visitor, _: Arc<AtomicU64>, stay: Arc<Mutex<Stay>>) {
    // What it says is of no interest: nothing was asked.
    let _ = visitor.read(&mut [0]).await;
    stay.lock().expect("not poisoned").cut = Some(Instant::now());
}
