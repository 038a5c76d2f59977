//! The control stream of an agent that was let in.
//!
//! One loop in which nothing waits: what is said goes out through [`Mouth`], and the question whether
//! the agent may stay is asked beside it, so that a removal is taken at once whatever the agent does.

use std::pin::Pin;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until, timeout};
use tracing::{debug, info};
use tunnel_common::escape::Escaped;
use tunnel_common::hostname::Hostname;
use tunnel_common::stream::control::ControlRecv;
use tunnel_common::wire::code::Code;
use tunnel_common::wire::control::ControlReader;
use tunnel_common::wire::frame::Frame;

use super::asking::{Answer, ask};
use super::error::SessionError;
use super::mouth::Mouth;
use super::presence::Presence;
use crate::drain::Told;
use crate::state::State;

/// The receiving half of a control stream.
pub(super) type Reader = ControlReader<ControlRecv>;
/// Tells when the agent must be asked about again.
pub(super) type Rules = watch::Receiver<u64>;

/// What an agent's own slowness adds to the time it has for an answer: two round trips over a satellite.
const MAX_ROUND_TRIPS: Duration = Duration::from_millis(2500);

/// One agent's control stream.
#[derive(Debug)]
struct Control<'a> {
    presence: &'a mut Presence,
    mouth: &'a mut Mouth,
    state: &'a State,
    /// What to do about a question: the newest reason counts, and a wish more than a rule.
    due: Option<Cause>,
    nonce: u64,
    /// The oldest ping that is not answered.
    unanswered: Option<Ping>,
    /// How long the last answer took.
    round_trip: Duration,
    /// How far the agent knows that the relay is on its way to the end.
    told: Told,
}

/// A ping that has gone out.
#[derive(Clone, Copy, Debug)]
struct Ping {
    nonce: u64,
    sent: Instant,
    /// Without an answer by then the agent is suspect, if nobody has said so yet.
    suspect_at: Option<Instant>,
}

/// Why the question is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    /// A rule has changed: the agent is told what is different.
    Rules,
    /// The agent wishes for something: it gets an answer.
    Wish,
}

/// A question that was asked.
struct Asked<'a> {
    cause: Cause,
    answer: Pin<Box<dyn Future<Output = Answer> + Send + 'a>>,
}

/// Serves the control stream until the connection ends or should be closed, and says with which
/// code.
pub(super) async fn run(
    mut reader: Reader,
    mouth: &mut Mouth,
    presence: &mut Presence,
    mut rules: Rules,
    state: &State,
) -> Result<Code, SessionError> {
    let tunnel = presence.tunnel().clone();
    let every = state.timeouts.quic.keep_alive;
    let mut keep_alive = interval_at(Instant::now() + every, every);
    keep_alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut windows = tunnel.budget().lower_windows();
    let mut control = Control::new(presence, mouth, state);
    let (mut asked, mut speaks) = (None, true);
    loop {
        if asked.is_none() {
            asked = control.ask();
        }
        let (has_room, suspect_at) = (control.mouth.has_room(), control.suspect_at());
        tokio::select! {
            biased;
            room = control.mouth.room() => room?,
            (cause, answer) = answered(&mut asked) => {
                asked = None;
                control.settle(cause, answer)?;
            }
            Ok(()) = rules.changed() => control.is_due(Cause::Rules),
            () = due(control.presence.ask_again()) => control.is_due(Cause::Rules),
            _ = keep_alive.tick() => if tunnel.visits_in_flight() > 0 {
                control.ping()?;
            },
            () = tunnel.questioned() => control.question()?,
            () = tunnel.has_lead() => control.tell_lead()?,
            () = due(suspect_at) => control.suspects(),
            window = windows.next() => tunnel.connection().lower_window(window),
            told = state.drain.news(control.told) => control.tell(told)?,
            // An agent that says goodbye must not stay for ever.
            () = due(control.presence.leaves()) => return Ok(Code::None),
            // It is let go when its visitors have what it sent them.
            () = tunnel.empties(), if control.presence.leaves().is_some() => return Ok(Code::None),
            // Nor must one that was only trying whether we are here.
            () = due(control.presence.wishes()), if asked.is_none() => return Ok(Code::None),
            () = tunnel.connection().closed(), if !speaks => return Ok(Code::None),
            () = tunnel.drained() => return Ok(control.part_replaced().await),
            // Last: an agent that speaks all the time keeps nothing else from being heard.
            frame = reader.next(), if speaks && has_room => match frame? {
                Some(frame) => control.hear(frame)?,
                // It has said goodbye, and closes when its visits are over.
                None if control.presence.leaves().is_some() => speaks = false,
                None => return Err(SessionError::Protocol("the control stream ended")),
            },
        }
    }
}

/// Ready at this time, or never. Cancel safe.
async fn due(at: Option<Instant>) {
    match at {
        None => std::future::pending().await,
        Some(at) => sleep_until(at).await,
    }
}

/// Ready when what was asked is answered. Cancel safe.
async fn answered(asked: &mut Option<Asked<'_>>) -> (Cause, Answer) {
    match asked {
        None => std::future::pending().await,
        Some(asked) => (asked.cause, asked.answer.as_mut().await),
    }
}

impl<'a> Control<'a> {
    fn new(presence: &'a mut Presence, mouth: &'a mut Mouth, state: &'a State) -> Self {
        Self {
            presence,
            mouth,
            state,
            due: None,
            nonce: 0,
            unanswered: None,
            round_trip: Duration::ZERO,
            told: Told::default(),
        }
    }

    fn is_due(&mut self, cause: Cause) {
        if self.due != Some(Cause::Wish) {
            self.due = Some(cause);
        }
    }

    /// Asks what is due.
    fn ask(&mut self) -> Option<Asked<'a>> {
        let cause = self.due.take()?;
        let question = self.presence.question(&self.state.names);
        let answer = Box::pin(ask(question, self.state));
        Some(Asked { cause, answer })
    }

    /// Acts on an answer, and tells the agent what it must know.
    fn settle(&mut self, cause: Cause, answer: Answer) -> Result<(), SessionError> {
        let rev = answer.rev;
        let before = self.presence.granted().cloned();
        let granted = self.presence.settle(answer, self.state);
        let granted = granted.map_err(SessionError::Refused)?;
        let is_news = before.as_ref() != Some(&granted) && !self.drains();
        if cause == Cause::Wish || is_news {
            self.mouth.say(Frame::Granted { rev, granted })?;
        }
        Ok(())
    }

    /// The agent's process leads from now on: it must know, unless this tunnel is on its way out.
    fn tell_lead(&mut self) -> Result<(), SessionError> {
        match self.presence.look_who_leads() {
            Some(granted) if !self.drains() => self.mouth.say(granted),
            _ => Ok(()),
        }
    }

    /// Whether no more visits come by this tunnel.
    fn drains(&self) -> bool {
        self.presence.leaves().is_some() || self.presence.tunnel().is_retired()
    }

    /// Another tunnel has taken the place of this one, and its last visit is over: what that sent may
    /// still be on its way.
    async fn part_replaced(self) -> Code {
        let connection = self.presence.tunnel().connection();
        let _ = timeout(self.state.timeouts.goodbye, connection.closed()).await;
        Code::Replaced
    }

    /// Tells how far the relay is on its way to the end.
    fn tell(&mut self, told: Told) -> Result<(), SessionError> {
        self.told = told;
        match told.frame(self.state.registry.agents()) {
            Some(frame) => self.mouth.say(frame),
            None => Ok(()),
        }
    }

    fn ping(&mut self) -> Result<(), SessionError> {
        self.nonce += 1;
        let nonce = self.nonce;
        self.mouth.say(Frame::Ping { nonce })?;
        let tunnel = self.presence.tunnel();
        tunnel.asked(nonce);
        let ping = self.sent_now();
        self.unanswered.get_or_insert(ping);
        Ok(())
    }

    /// The newest ping, as if it had just been sent.
    fn sent_now(&self) -> Ping {
        let round_trips = (2 * self.round_trip).min(MAX_ROUND_TRIPS);
        let patience = self.state.timeouts.pong + round_trips;
        let sent = Instant::now();
        Ping {
            nonce: self.nonce,
            sent,
            suspect_at: Some(sent + patience),
        }
    }

    /// Asks whether the agent is there, unless an answer is due already.
    fn question(&mut self) -> Result<(), SessionError> {
        if self.unanswered.is_none() || self.presence.tunnel().is_to_be_asked() {
            self.ping()?;
        }
        Ok(())
    }

    /// When an agent that has not answered by then is suspect.
    fn suspect_at(&self) -> Option<Instant> {
        self.unanswered.and_then(|ping| ping.suspect_at)
    }

    /// The agent has left a ping unanswered: no visits for this tunnel, and those that wait may move.
    fn suspects(&mut self) {
        if let Some(ping) = &mut self.unanswered {
            debug!("the agent does not answer");
            ping.suspect_at = None;
            let tunnel = self.presence.tunnel();
            tunnel.leaves_unanswered(ping.nonce);
            for label in self.presence.labels() {
                self.state.registry.doubt(label, tunnel);
            }
        }
    }

    fn answered(&mut self, nonce: u64) {
        if let Some(ping) = self.unanswered
            && ping.nonce <= nonce
        {
            self.round_trip = ping.sent.elapsed();
            // One that went out behind it has its time from now on.
            self.unanswered = (nonce < self.nonce).then(|| self.sent_now());
        }
        if self.presence.tunnel().answered(nonce) {
            for label in self.presence.labels() {
                self.state.registry.is_trusted_again(label);
            }
        }
    }

    /// A certificate authority will ask the agent at `host` within so many milliseconds, or no more.
    fn expect_challenge(&self, host: &str, until: u64) {
        let names = &self.state.names;
        let is_own = |host: &Hostname| {
            let label = names.agent(host);
            self.presence.labels().any(|own| Some(own) == label)
        };
        let parsed: Option<Hostname> = host.parse().ok();
        let Some(host) = parsed.filter(is_own) else {
            debug!(host = %Escaped(host), "a challenge at a host of others is ignored");
            return;
        };
        let (lasts, now) = (Duration::from_millis(until), Instant::now());
        let tunnel = self.presence.tunnel();
        let announced = tunnel.challenges(|challenges| challenges.announce(host, lasts, now));
        if let Err(error) = announced {
            debug!("one more challenge is ignored: {error}");
        }
    }

    fn hear(&mut self, frame: Frame) -> Result<(), SessionError> {
        match frame {
            Frame::Ping { nonce } => self.mouth.say(Frame::Pong { nonce })?,
            Frame::Wanted { rev, wanted } => {
                self.presence.wish(rev, wanted);
                self.is_due(Cause::Wish);
            }
            // To say it again changes nothing.
            Frame::Leaving if self.presence.leaves().is_some() => {}
            Frame::Leaving => {
                let until = Instant::now() + self.state.timeouts.leaving;
                self.presence.leave(until);
                match self.presence.is_notable() {
                    true => info!("the agent leaves"),
                    false => debug!("a tunnel of the agent leaves"),
                }
            }
            Frame::ChallengePending { host, until } => self.expect_challenge(&host, until),
            Frame::Hello(_) => return Err(SessionError::Protocol("a second Hello")),
            Frame::Pong { nonce } => self.answered(nonce),
            // Nothing that a relay acts on.
            _ => {}
        }
        Ok(())
    }
}
