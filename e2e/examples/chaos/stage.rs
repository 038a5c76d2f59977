//! What all stories share: the line, the visitors, and what became of them.

use std::time::{Duration, Instant};

use e2e::netsim::download::Download;
use e2e::netsim::scene::{Scene, scene};
use e2e::netsim::traffic::{Entrance, Outcome as Request, Requests, Sessions};
use e2e::netsim::{Line, line};
use e2e::poll::pass;
use e2e::process::Process;
use e2e::transport::Over;
use rustix::process::Signal;

use crate::story::Outcome;

const ONE_WAY: Duration = Duration::from_millis(10);
/// How often a new visitor comes, with one request.
const BEAT: Duration = Duration::from_millis(40);
/// How many visitors stay, and ask every 100 ms.
pub(crate) const STAYING: usize = 8;
/// For so long all goes on before something happens, and after it is over.
pub(crate) const CALM: Duration = Duration::from_secs(3);
/// Who waits longer for what should happen waits in vain.
const LIMIT: Duration = Duration::from_secs(60);
/// By then those who stay know whether they are cut: more than any clock of the tunnel.
const UNTIL_CUT: Duration = Duration::from_secs(20);

/// A line of some length, and without faults so far.
pub(crate) fn calm_line() -> Line {
    let line = line().expect("root, and a simulated network");
    line.both(|conditions| conditions.delay = ONE_WAY);
    line
}

/// One relay and one agent that uses this transport.
pub(crate) async fn one_of_each(over: Over) -> Scene {
    scene(calm_line(), over.flags()).await
}

/// Kills a process, and waits until it is gone.
pub(crate) async fn kill(process: &mut Process) -> Instant {
    process.signal(Signal::KILL);
    process.ends().await;
    Instant::now()
}

/// Waits for what should happen; whether it did within a minute.
pub(crate) async fn happens(mut condition: impl FnMut() -> bool) -> bool {
    let since = Instant::now();
    while !condition() {
        if since.elapsed() > LIMIT {
            return false;
        }
        pass(BEAT).await;
    }
    true
}

/// Visitors who come and stay while something happens.
pub(crate) struct Watch {
    requests: Requests,
    sessions: Sessions,
    staying: usize,
    downloads: Vec<Download>,
    notes: Vec<String>,
    faults: Vec<String>,
}

impl Watch {
    /// New visitors, and so many who stay. All is calm for a while when this is done.
    pub(crate) async fn start(entrance: &Entrance, staying: usize) -> Self {
        let sessions = Sessions::start(entrance, staying).await.expect("visits");
        let requests = Requests::start(entrance, BEAT);
        let before = pass(CALM).await;
        assert!(requests.first_served(before).is_some(), "nobody is served");
        Self {
            requests,
            sessions,
            staying,
            downloads: vec![],
            notes: vec![],
            faults: vec![],
        }
    }

    /// One who downloads counts as one who stays.
    pub(crate) async fn download(&mut self, entrance: &Entrance, bytes: u64) {
        let download = Download::start(entrance, bytes).await.expect("begins");
        self.downloads.push(download);
    }

    /// Another figure.
    pub(crate) fn note(&mut self, note: String) {
        self.notes.push(note);
    }

    /// Something that no figure tells, and that must not be.
    pub(crate) fn wrong(&mut self, fault: &str) {
        self.faults.push(fault.to_owned());
    }

    /// Waits for what should happen: within a minute, or it is a fault.
    pub(crate) async fn waits_for(&mut self, what: &str, condition: impl FnMut() -> bool) {
        if !happens(condition).await {
            self.wrong(&format!("not within a minute: {what}"));
        }
    }

    /// How much all downloads have got.
    pub(crate) fn received(&self) -> u64 {
        let received = self.downloads.iter().map(Download::received);
        received.sum()
    }

    /// Whether a download has ended.
    pub(crate) fn is_downloaded(&self) -> bool {
        self.downloads.iter().any(Download::is_over)
    }

    /// Waits until new visitors are served again, and a while longer, and tells what became of all.
    /// `back` is when the network or the relay was there again, where it was away.
    pub(crate) async fn end(mut self, fault: Instant, back: Option<Instant>) -> Outcome {
        let since = back.unwrap_or(fault);
        let again = happens(|| self.requests.first_served(since).is_some()).await;
        if !again {
            self.wrong("nobody is served again");
        }
        let calm = pass(CALM).await;
        while self.sessions.waiting_since(calm) > 0 && since.elapsed() < UNTIL_CUT {
            pass(BEAT).await;
        }
        let end = Instant::now();
        let mut outcome = Outcome {
            visits: self.staying,
            cut: self.sessions.cuts().len() + self.sessions.waiting_since(calm),
            notes: self.notes,
            faults: self.faults,
            ..Outcome::default()
        };
        count(&mut outcome, self.downloads).await;
        let requests = self.requests.end().await;
        outcome.requests = requests.len();
        outcome.failed = requests.iter().filter(|one| !one.is_served).count();
        outcome.outage = Some(outage(&requests, fault, end));
        outcome.after_back = back.map(|back| without_answer(&requests, back, end));
        outcome.slowest = slowest(&requests, since);
        outcome
    }
}

/// Waits for the end of all downloads.
async fn count(outcome: &mut Outcome, downloads: Vec<Download>) {
    let (all, mut cuts, mut pauses) = (downloads.len(), vec![], vec![]);
    for download in downloads {
        match download.ends().await {
            Ok(pause) => pauses.push(pause.as_secs_f64()),
            Err(error) => cuts.push(error),
        }
    }
    outcome.visits += all;
    outcome.cut += cuts.len();
    if let Some(error) = cuts.first() {
        let note = format!("{} of {all} downloads cut: {error}", cuts.len());
        outcome.notes.push(note);
    }
    if let Some(longest) = pauses.into_iter().reduce(f64::max) {
        let note = format!("the download paused for {longest:.1} s at most");
        outcome.notes.push(note);
    }
}

/// When answers came, up to `end`.
fn answers(requests: &[Request], end: Instant) -> Vec<Instant> {
    let served = requests.iter().filter(|one| one.is_served);
    let mut answers: Vec<_> = served.map(|one| one.ended.min(end)).collect();
    answers.sort();
    answers
}

/// The longest time between two answers, of which the second came after the fault.
fn outage(requests: &[Request], fault: Instant, end: Instant) -> Duration {
    let answers = answers(requests, end);
    let last_before = answers.iter().rfind(|at| **at < fault).copied();
    without_answer(requests, last_before.unwrap_or(fault), end)
}

/// The longest time without an answer between these two.
fn without_answer(requests: &[Request], since: Instant, end: Instant) -> Duration {
    let answers = answers(requests, end);
    let later = answers.into_iter().filter(|at| *at > since);
    let mut marks = vec![since];
    marks.extend(later);
    marks.push(end);
    let gaps = marks.windows(2).map(|pair| pair[1] - pair[0]);
    gaps.max().unwrap_or_default()
}

/// The longest wait of those who came since then and were served.
fn slowest(requests: &[Request], since: Instant) -> Option<Duration> {
    let served = requests.iter().filter(|one| one.is_served);
    let later = served.filter(|one| one.began >= since);
    later.map(|one| one.ended - one.began).max()
}
