//! What goes on beside the streams of one connection: is the peer there, and how large should the
//! windows be?
//!
//! Whoever moves the connection polls this too. The decisions are [`Pulse`]'s, and the budget's.

use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use h2::{Ping, PingPong};
use tokio::time::{Instant, Sleep, sleep_until};
use tracing::trace;

use super::gathered::Gathering;
use super::pulse::{Next, Pulse};
use super::settings::Settings;
use super::traffic::Traffic;
use crate::budget::{H2Window, H2Windows};
use crate::h2::STREAM_WINDOW;

/// The windows that a connection grants its peer.
pub(super) trait Windows {
    /// Of each stream. Fails while an earlier change has not been confirmed.
    fn set_stream(&mut self, bytes: u32) -> Result<(), h2::Error>;
    /// Of all streams together.
    fn set_connection(&mut self, bytes: u32);
}

/// What has come of a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// Nothing: the task is woken when there is more to do.
    Quiet,
    /// The connection has something to send.
    Changed,
    /// The peer is gone.
    Dead,
}

/// What h2 has been polled again for in one turn of whoever moves it.
#[derive(Debug, Default)]
pub(super) struct Turn {
    has_gathered: bool,
    is_relieved: bool,
}

/// One connection's watch.
pub(super) struct Watch {
    pings: Option<PingPong>,
    pulse: Pulse,
    traffic: Traffic,
    gathering: Gathering,
    moved: u64,
    timer: Pin<Box<Sleep>>,
    /// Ready when the budget has changed, and gives itself back.
    changing: Pin<Box<dyn Future<Output = H2Windows> + Send>>,
    /// How the windows should stand.
    wanted: H2Window,
    /// What each stream is granted, and what all are.
    stream: u32,
    connection: u32,
}

impl Watch {
    /// What has come so far, in bytes.
    pub(super) fn counter(&self) -> Arc<AtomicU64> {
        self.traffic.received()
    }

    /// Of a connection that was made just now with the windows [`STREAM_WINDOW`] and `connection`.
    /// Without `pings` somebody else asks the peer.
    pub(super) fn new(
        pings: Option<PingPong>,
        traffic: Traffic,
        gathering: Gathering,
        connection: u32,
        settings: &Settings,
    ) -> Self {
        let now = Instant::now();
        let mut windows = settings.budget.h2_windows();
        Self {
            pings,
            pulse: Pulse::new(settings.ping_every, settings.silence, now),
            traffic,
            gathering,
            moved: 0,
            timer: Box::pin(sleep_until(now)),
            wanted: windows.now(),
            changing: Box::pin(windows.changed()),
            stream: STREAM_WINDOW,
            connection,
        }
    }

    #[cfg(test)]
    pub(super) fn pulse_mut(&mut self) -> &mut Pulse {
        &mut self.pulse
    }

    /// h2 is about to be polled. Its flushes are held back the first time in a turn.
    pub(super) fn begin(&self, turn: &Turn) {
        self.traffic.begin();
        self.gathering.hold(!turn.has_gathered);
    }

    /// Whether h2, which waits, should be polled again, once for each reason: what it has gathered is to be
    /// written ([`Gathering`]), or it could not read because it could not write ([`Traffic::relieve`]).
    pub(super) fn again(&self, turn: &mut Turn) -> bool {
        if !mem::replace(&mut turn.has_gathered, true) && self.gathering.owes_a_flush() {
            return true;
        }
        if !turn.is_relieved {
            turn.is_relieved = self.traffic.relieve();
            return turn.is_relieved;
        }
        false
    }

    /// Looks after the connection. To be called behind whatever reads it.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, windows: &mut impl Windows) -> Seen {
        let now = Instant::now();
        let received = self.traffic.received().load(Ordering::Relaxed);
        self.pulse.received(received, now);
        // What had to wait goes only when the peer has taken what was before it.
        let moved = self.traffic.moved();
        if mem::replace(&mut self.moved, moved) != moved {
            self.pulse.lives(now);
        }
        self.hear(cx, now);
        self.follow(cx);
        let has_changed = self.set(windows);
        match self.ask(cx, now) {
            Seen::Quiet if has_changed => Seen::Changed,
            other => other,
        }
    }

    /// Takes an answer.
    fn hear(&mut self, cx: &mut Context<'_>, now: Instant) {
        let Some(pings) = &mut self.pings else { return };
        // An error is the connection's, and told there.
        if let Poll::Ready(Ok(_)) = pings.poll_pong(cx) {
            self.pulse.answered(now);
            trace!(pulse = ?self.pulse, "an answer");
        }
    }

    fn follow(&mut self, cx: &mut Context<'_>) {
        while let Poll::Ready(mut windows) = self.changing.as_mut().poll(cx) {
            self.wanted = windows.now();
            self.changing = Box::pin(windows.changed());
        }
    }

    fn set(&mut self, windows: &mut impl Windows) -> bool {
        if self.wanted.is_short {
            self.pulse.shrink();
        }
        let before = (self.stream, self.connection);
        let (stream, connection) = (self.pulse.window(), self.wanted.connection);
        // Refused while an earlier change is under way: its end wakes us.
        if stream != self.stream && windows.set_stream(stream).is_ok() {
            self.stream = stream;
        }
        if connection != self.connection {
            windows.set_connection(connection);
            self.connection = connection;
        }
        before != (self.stream, self.connection)
    }

    fn ask(&mut self, cx: &mut Context<'_>, mut now: Instant) -> Seen {
        let Some(pings) = &mut self.pings else {
            return Seen::Quiet;
        };
        loop {
            match self.pulse.next(now) {
                Next::Dead => return Seen::Dead,
                // Refused only when the connection is gone.
                Next::Ask if pings.send_ping(Ping::opaque()).is_err() => return Seen::Quiet,
                Next::Ask => {
                    self.pulse.asked(now);
                    return Seen::Changed;
                }
                Next::Wait(at) => {
                    // One that ends too early costs less than to set it again for every byte.
                    if at < self.timer.deadline() || self.timer.is_elapsed() {
                        self.timer.as_mut().reset(at);
                    }
                    if self.timer.as_mut().poll(cx).is_pending() {
                        return Seen::Quiet;
                    }
                    now = Instant::now();
                }
            }
        }
    }
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch")
            .field("pulse", &self.pulse)
            .finish_non_exhaustive()
    }
}
