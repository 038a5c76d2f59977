//! The control stream, from the agent's side.

use std::time::Duration;

use tokio::time::{Instant, interval, timeout};
use tracing::debug;
use tunnel_common::escape::Escaped;
use tunnel_common::stream::control::{ControlRecv, ControlSend};
use tunnel_common::wire::control::{ControlError, ControlReader, ControlWriter};
use tunnel_common::wire::frame::{Frame, Granted, Hello, Refused, Wanted};

use super::connection::{Closed, Connection};
use super::draining::Spread;
use crate::announcements::Change;
use crate::config::Timeouts;

/// Frames other than Ping and Pong that a relay may send within [`RATE_WINDOW`]: each is work and a
/// line of the log, and an honest relay has a few in a day.
const MAX_FRAMES: u32 = 60;
const RATE_WINDOW: Duration = Duration::from_secs(60);
/// Our wishes never change: this is their only revision.
const REV: u64 = 1;

/// Why a tunnel does not serve, or no longer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ControlFailure {
    /// The connection broke, or the relay closed it.
    #[error(transparent)]
    Connection(#[from] Closed),
    /// The control stream can not be used. What the relay sent may be quoted.
    #[error("{}", Escaped(&.0.to_string()))]
    Control(#[from] ControlError),
    /// The relay did not answer the Hello.
    #[error("the relay did not answer in time")]
    Timeout,
    /// The relay did something else than it should.
    #[error("{0}")]
    Protocol(&'static str),
    /// The relay does not take us in, or no longer.
    #[error("the relay refuses: {}", Escaped(&.0.text))]
    Refused(Refused),
}

/// The question behind which the relay knows that we leave.
const LEAVING_NONCE: u64 = u64::MAX;
/// The questions behind which it knows a list of announcements have the list's number above this. Those of
/// a tunnel that proves itself are below.
const ANNOUNCED_NONCE: u64 = 1 << 32;
/// For how long an announcement counts: an order has two minutes for its validation. Whoever is gone by then
/// need not take it back.
const ANNOUNCED_FOR: Duration = Duration::from_secs(5 * 60);

/// What a relay says to a tunnel that serves.
#[derive(Debug)]
pub(super) enum News {
    /// What it grants has changed.
    Granted(Vec<Granted>),
    /// It is about to stop.
    Draining(Spread),
    /// It sends no more visits, and wants those that are here to come to their end.
    Leaving,
    /// It has heard that we leave.
    Heard,
    /// It has heard the list of announcements of this number.
    HeardOf(u64),
}

/// No relay ends it before the connection.
const ENDED: ControlFailure = ControlFailure::Protocol("the relay ended the control stream");

/// Both halves of the control stream of a tunnel that serves.
#[derive(Debug)]
pub(crate) struct Control {
    reader: ControlReader<ControlRecv>,
    writer: ControlWriter<ControlSend>,
    /// Whether certificate authorities can come to look through this relay.
    is_validated: bool,
    /// Who the relay says that it is.
    relay_id: String,
    /// What was granted last, if anything was asked for.
    granted: Option<Vec<Granted>>,
    /// What the relay said about its end when something else was waited for.
    drains: Option<Spread>,
    rate: FrameRate,
}

/// Counts the relay's frames, minute by minute.
#[derive(Debug)]
struct FrameRate {
    since: Instant,
    frames: u32,
}

impl FrameRate {
    fn new(now: Instant) -> Self {
        Self {
            since: now,
            frames: 0,
        }
    }

    /// One more frame; an error if it is one too many.
    fn count(&mut self, now: Instant) -> Result<(), ControlFailure> {
        if now.duration_since(self.since) >= RATE_WINDOW {
            *self = Self::new(now);
        }
        self.frames += 1;
        if self.frames > MAX_FRAMES {
            return Err(ControlFailure::Protocol("the relay sends too many frames"));
        }
        Ok(())
    }
}

impl Control {
    /// Says Hello and waits for the relay's Welcome.
    pub(crate) async fn greet(
        connection: &Connection,
        hello: &Hello,
        timeouts: &Timeouts,
    ) -> Result<Self, ControlFailure> {
        let greeting = timeout(timeouts.welcome, greet(connection, hello));
        greeting.await.map_err(|_| ControlFailure::Timeout)?
    }

    /// Whether certificate authorities can come to look through this relay.
    pub(crate) fn is_validated(&self) -> bool {
        self.is_validated
    }

    /// Who the relay says that it is.
    pub(crate) fn relay_id(&self) -> &str {
        &self.relay_id
    }

    /// Tells the relay what we publish from now on, and waits for what it grants. Once for each
    /// tunnel.
    pub(crate) async fn ask(
        &mut self,
        wanted: Vec<Wanted>,
        timeouts: &Timeouts,
    ) -> Result<Vec<Granted>, ControlFailure> {
        let asking = async {
            let wanted = Frame::Wanted { rev: REV, wanted };
            self.writer.send(&wanted).await?;
            let mut drains = None;
            loop {
                match self.next().await? {
                    News::Granted(granted) => {
                        self.drains = drains;
                        return Ok(granted);
                    }
                    News::Draining(spread) => drains = Some(spread),
                    News::Leaving | News::Heard | News::HeardOf(_) => {}
                }
            }
        };
        let asked = timeout(timeouts.welcome, asking);
        asked.await.map_err(|_| ControlFailure::Timeout)?
    }

    /// Asks the relay so many `times`, that far `apart`, whether it is there. It must have answered all
    /// of them within `patience`. Before anything is asked for.
    pub(crate) async fn prove(
        &mut self,
        times: u64,
        apart: Duration,
        patience: Duration,
    ) -> Result<(), ControlFailure> {
        let proving = async {
            let mut asking = interval(apart);
            let (mut asked, mut answered) = (0, 0);
            while answered < times {
                tokio::select! {
                    _ = asking.tick(), if asked < times => {
                        asked += 1;
                        self.writer.send(&Frame::Ping { nonce: asked }).await?;
                    }
                    pong = self.next_pong() => answered = pong?,
                }
            }
            Ok(())
        };
        let proved = timeout(patience, proving).await;
        proved.map_err(|_| ControlFailure::Timeout)?
    }

    /// What the relay says that changes anything; everything else is answered here. More than 60 frames
    /// in a minute, Ping and Pong not counted, are an error.
    ///
    /// Cancel safe: a frame that is being sent goes out with the next.
    pub(super) async fn next(&mut self) -> Result<News, ControlFailure> {
        if let Some(spread) = self.drains.take() {
            return Ok(News::Draining(spread));
        }
        loop {
            let frame = self.reader.next().await?;
            if !matches!(frame, Some(Frame::Ping { .. } | Frame::Pong { .. })) {
                self.rate.count(Instant::now())?;
            }
            match frame {
                Some(Frame::Ping { nonce }) => self.writer.send(&Frame::Pong { nonce }).await?,
                Some(Frame::Granted { rev, granted })
                    if rev >= REV && self.granted.as_ref() != Some(&granted) =>
                {
                    self.granted = Some(granted.clone());
                    return Ok(News::Granted(granted));
                }
                Some(Frame::Granted { .. }) => debug!("the relay grants nothing new"),
                Some(Frame::Refused(refused)) => return Err(ControlFailure::Refused(refused)),
                Some(Frame::Draining { spread }) => {
                    return Ok(News::Draining(Spread::of_milliseconds(spread)));
                }
                Some(Frame::Leaving) => return Ok(News::Leaving),
                Some(Frame::Pong { nonce }) if nonce == LEAVING_NONCE => return Ok(News::Heard),
                Some(Frame::Pong { nonce }) if nonce > ANNOUNCED_NONCE => {
                    return Ok(News::HeardOf(nonce - ANNOUNCED_NONCE));
                }
                Some(_) => debug!("a frame that an agent does not act on"),
                None => return Err(ENDED),
            }
        }
    }

    /// The relay's next answer to a ping. Cancel safe.
    async fn next_pong(&mut self) -> Result<u64, ControlFailure> {
        loop {
            let frame = self.reader.next().await?;
            match frame {
                Some(Frame::Pong { nonce }) => return Ok(nonce),
                Some(Frame::Refused(refused)) => return Err(ControlFailure::Refused(refused)),
                None => return Err(ENDED),
                Some(Frame::Draining { spread }) => {
                    self.drains = Some(Spread::of_milliseconds(spread));
                }
                // It has no visits to be anxious about: what it asks can wait.
                Some(_) => {}
            }
            self.rate.count(Instant::now())?;
        }
    }

    /// Tells the relay at which names a certificate authority may come. When it has heard, there are [`News`]
    /// of it.
    pub(super) async fn announce(&mut self, change: &Change) -> Result<(), ControlFailure> {
        let until = u64::try_from(ANNOUNCED_FOR.as_millis()).unwrap_or(u64::MAX);
        let begun = change.begun.iter().map(|host| (host, until));
        let over = change.over.iter().map(|host| (host, 0));
        for (host, until) in begun.chain(over) {
            let host = host.to_string();
            self.writer
                .send(&Frame::ChallengePending { host, until })
                .await?;
        }
        let nonce = ANNOUNCED_NONCE + change.rev;
        self.writer.send(&Frame::Ping { nonce }).await?;
        Ok(())
    }

    /// Tells the relay to send no more visitors. When it has heard, there are [`News`] of it.
    pub(super) async fn leave(&mut self) -> Result<(), ControlFailure> {
        self.writer.send(&Frame::Leaving).await?;
        let nonce = LEAVING_NONCE;
        self.writer.send(&Frame::Ping { nonce }).await?;
        Ok(())
    }
}

async fn greet(connection: &Connection, hello: &Hello) -> Result<Control, ControlFailure> {
    let (recv, send) = connection.control().await?;
    let mut control = Control {
        reader: ControlReader::new(recv),
        writer: ControlWriter::new(send),
        is_validated: false,
        relay_id: String::new(),
        granted: None,
        drains: None,
        rate: FrameRate::new(Instant::now()),
    };
    control.writer.send(&Frame::Hello(hello.clone())).await?;
    let mut first = control.reader.next().await?;
    while first == Some(Frame::Unknown) {
        // What a newer relay says beyond us.
        first = control.reader.next().await?;
    }
    match first {
        Some(Frame::Welcome(welcome)) => {
            control.is_validated = welcome.alpn_port.is_some();
            control.relay_id = welcome.relay_id;
            Ok(control)
        }
        Some(Frame::Refused(refused)) => Err(ControlFailure::Refused(refused)),
        Some(_) => Err(ControlFailure::Protocol(
            "the relay's first frame was no Welcome",
        )),
        None => Err(ENDED),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sixty_frames_a_minute_are_taken_and_no_more() {
        let begun = Instant::now();
        let mut rate = FrameRate::new(begun);
        for _ in 0..MAX_FRAMES {
            rate.count(begun).expect("few enough");
        }
        assert!(rate.count(begun + RATE_WINDOW / 2).is_err());
        rate.count(begun + RATE_WINDOW).expect("another minute");
    }
}
