//! Visitors of a line, who come and stay whatever happens to it, and what became of them.
//!
//! The local service must be an [`echo`](near_echo).

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustls::ClientConfig;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::line::Line;
use crate::origin::{Origin, origin_on};
use crate::pair::{Client, Server};
use crate::visitor::{Visitor, handshake, tls_config};

/// What a visitor asks; the answer is the same.
const QUESTION: &[u8; 16] = b"are you serving?";
/// A visitor who waits longer for his answer gives up.
const PATIENCE: Duration = Duration::from_secs(15);
/// How often a visitor who stays asks.
const ASKS_EVERY: Duration = Duration::from_millis(100);

/// A local service near that gives back what it gets, and ends when its peer does.
pub fn near_echo(line: &Line) -> Origin {
    let listener = line.near().tcp_listener(Ipv4Addr::LOCALHOST);
    origin_on(listener.expect("binds"), async |mut stream: TcpStream| {
        let (mut read, mut write) = stream.split();
        // A peer that breaks off is what is looked at here.
        let _ = tokio::io::copy(&mut read, &mut write).await;
        let _ = write.shutdown().await;
    })
}

/// Where the visitors of one agent come in, at the far end.
#[derive(Clone, Debug)]
pub struct Entrance {
    line: Arc<Line>,
    public: SocketAddr,
    host: String,
    tls: Arc<ClientConfig>,
}

impl Entrance {
    /// The public port of `server`, with the name of `client`.
    pub fn new(line: &Arc<Line>, server: &Server, client: &Client) -> Self {
        Self {
            line: line.clone(),
            public: server.visitors(),
            host: client.host().to_owned(),
            tls: tls_config(&[b"http/1.1"]),
        }
    }

    /// Visits.
    pub async fn visit(&self) -> io::Result<Visitor> {
        let socket = self.line.far().tcp_socket()?;
        let tcp = socket.connect(self.public).await?;
        tcp.set_nodelay(true)?;
        handshake(tcp, &self.host, self.tls.clone()).await
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
    coming: AbortHandle,
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
        let outcomes = Arc::new(Mutex::new(vec![]));
        let coming = tokio::spawn(come(entrance.clone(), beat, outcomes.clone()));
        Self {
            outcomes,
            coming: coming.abort_handle(),
        }
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

async fn come(entrance: Entrance, beat: Duration, outcomes: Arc<Mutex<Vec<Outcome>>>) {
    let (mut visits, mut beat) = (JoinSet::new(), interval(beat));
    // A machine that was busy does not make a crowd.
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = beat.tick() => {
                let entrance = entrance.clone();
                visits.spawn(async move { outcome(&entrance).await });
            }
            Some(outcome) = visits.join_next() => {
                let outcome = outcome.expect("no panic");
                outcomes.lock().expect("not poisoned").push(outcome);
            }
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

/// Visitors who stay, and ask every 100 ms. Dropping it ends them.
#[derive(Debug)]
pub struct Sessions {
    count: usize,
    answers: Arc<AtomicU64>,
    cuts: Arc<Mutex<Vec<Instant>>>,
    _staying: JoinSet<()>,
}

impl Sessions {
    /// So many. Each has had an answer when this is done.
    pub async fn start(entrance: &Entrance, count: usize) -> io::Result<Self> {
        let (answers, cuts) = (Arc::default(), Arc::default());
        let mut staying = JoinSet::new();
        for _ in 0..count {
            let mut visitor = entrance.visit().await?;
            ask(&mut visitor).await?;
            staying.spawn(stay(visitor, Arc::clone(&answers), Arc::clone(&cuts)));
        }
        Ok(Self {
            count,
            answers,
            cuts,
            _staying: staying,
        })
    }

    /// How many answers they have had.
    pub fn answers(&self) -> u64 {
        self.answers.load(Ordering::Relaxed)
    }

    /// When those were cut that were, in this order.
    pub fn cuts(&self) -> Vec<Instant> {
        self.cuts.lock().expect("not poisoned").clone()
    }

    /// Whether all of them were cut.
    pub fn are_over(&self) -> bool {
        self.cuts().len() == self.count
    }
}

async fn stay(mut visitor: Visitor, answers: Arc<AtomicU64>, cuts: Arc<Mutex<Vec<Instant>>>) {
    let mut beat = interval(ASKS_EVERY);
    loop {
        beat.tick().await;
        if ask(&mut visitor).await.is_err() {
            return cuts.lock().expect("not poisoned").push(Instant::now());
        }
        answers.fetch_add(1, Ordering::Relaxed);
    }
}
