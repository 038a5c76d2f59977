//! The control stream, from the agent's side.

use tokio::time::timeout;
use tracing::{debug, info, warn};
use tunnel_common::escape::Escaped;
use tunnel_common::stream::control::{ControlRecv, ControlSend};
use tunnel_common::wire::control::{ControlError, ControlReader, ControlWriter};
use tunnel_common::wire::frame::{Frame, Granted, Hello, Refused, Welcome};

use super::connection::{Closed, Connection};
use crate::config::Timeouts;

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

/// Both halves of the control stream of a tunnel that serves.
#[derive(Debug)]
pub(crate) struct Control {
    reader: ControlReader<ControlRecv>,
    writer: ControlWriter<ControlSend>,
}

impl Control {
    /// Says Hello and waits for the relay's answer.
    pub(crate) async fn open(
        connection: &Connection,
        hello: Hello,
        timeouts: &Timeouts,
    ) -> Result<(Self, Welcome), ControlFailure> {
        let greeting = timeout(timeouts.welcome, greet(connection, hello));
        greeting.await.map_err(|_| ControlFailure::Timeout)?
    }

    /// The next change of what is granted to us; everything else is answered here.
    ///
    /// Ends only with the tunnel. Cancel safe: a frame that is being sent goes out with the next.
    pub(crate) async fn next_grant(&mut self) -> Result<Vec<Granted>, ControlFailure> {
        loop {
            match self.reader.next().await? {
                Some(Frame::Ping { nonce }) => self.writer.send(&Frame::Pong { nonce }).await?,
                Some(Frame::Granted { granted, .. }) => return Ok(granted),
                Some(Frame::Refused(refused)) => return Err(ControlFailure::Refused(refused)),
                Some(Frame::Draining { spread }) => info!(spread, "the relay is about to stop"),
                Some(Frame::Leaving) => info!("the relay stops"),
                Some(_) => debug!("a frame that an agent does not act on"),
                None => {
                    return Err(ControlFailure::Protocol(
                        "the relay ended the control stream",
                    ));
                }
            }
        }
    }

    /// Tells the relay to send no more visitors, and waits until it has heard.
    pub(crate) async fn leave(mut self, timeouts: &Timeouts) {
        let leaving = async {
            self.writer.send(&Frame::Leaving).await?;
            self.writer.into_inner().end().await;
            Ok::<_, ControlError>(())
        };
        if timeout(timeouts.goodbye, leaving).await.is_err() {
            warn!("the relay did not hear that we leave");
        }
    }
}

async fn greet(
    connection: &Connection,
    hello: Hello,
) -> Result<(Control, Welcome), ControlFailure> {
    let (recv, send) = connection.control().await?;
    let mut control = Control {
        reader: ControlReader::new(recv),
        writer: ControlWriter::new(send),
    };
    control.writer.send(&Frame::Hello(hello)).await?;
    match control.reader.next().await? {
        Some(Frame::Welcome(welcome)) => Ok((control, welcome)),
        Some(Frame::Refused(refused)) => Err(ControlFailure::Refused(refused)),
        Some(_) => Err(ControlFailure::Protocol(
            "the relay's first frame was no Welcome",
        )),
        None => Err(ControlFailure::Protocol(
            "the relay ended the control stream",
        )),
    }
}
