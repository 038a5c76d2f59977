//! The control stream of an agent that was let in.

use std::pin::pin;

use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until, timeout, timeout_at};
use tracing::info;
use tunnel_common::stream::control::{ControlRecv, ControlSend};
use tunnel_common::wire::code::Code;
use tunnel_common::wire::control::{ControlReader, ControlWriter};
use tunnel_common::wire::frame::{Frame, Refused};

use super::error::SessionError;
use super::presence::Presence;
use crate::state::State;

/// The receiving half of a control stream.
pub(super) type Reader = ControlReader<ControlRecv>;
/// The sending half of a control stream.
pub(super) type Writer = ControlWriter<ControlSend>;
/// Tells when the agent must be asked about again.
pub(super) type Rules = watch::Receiver<u64>;

/// Sends a frame to an agent, which must take it in time: one that does not read would hold up
/// its own session, and with it the session's end.
pub(super) async fn say(
    writer: &mut Writer,
    frame: &Frame,
    state: &State,
) -> Result<(), SessionError> {
    let saying = timeout(state.timeouts.control_write, writer.send(frame));
    Ok(saying.await.map_err(|_| SessionError::Deaf)??)
}

/// Sends a frame, and lets no change of the rules wait for it: an agent that does not read would put
/// off its own removal. What has changed for one that may stay is told next.
async fn tell(
    writer: &mut Writer,
    frame: Frame,
    presence: &mut Presence,
    rules: &mut Rules,
    state: &State,
) -> Result<(), SessionError> {
    let mut next = Some(frame);
    while let Some(frame) = next.take() {
        let mut saying = pin!(say(writer, &frame, state));
        loop {
            tokio::select! {
                said = &mut saying => break said?,
                Ok(()) = rules.changed() => {
                    // An error can not be told behind half a frame: the connection's end tells it.
                    let changed = presence.reconsider(state).await;
                    if let Some(granted) = changed.map_err(SessionError::Refused)? {
                        let rev = presence.rev();
                        next = Some(Frame::Granted { rev, granted });
                    }
                }
            }
        }
    }
    Ok(())
}

/// Serves the control stream until the connection ends or should be closed, and says with which
/// code.
pub(super) async fn run(
    mut reader: Reader,
    writer: &mut Writer,
    mut presence: Presence,
    mut rules: Rules,
    state: &State,
) -> Result<Code, SessionError> {
    let tunnel = presence.tunnel().clone();
    let every = state.timeouts.quic.keep_alive;
    let mut keep_alive = interval_at(Instant::now() + every, every);
    keep_alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut windows = tunnel.budget().lower_windows();
    let mut nonce = 0;
    loop {
        tokio::select! {
            frame = reader.next() => match frame? {
                Some(frame) => answer(frame, writer, &mut presence, &mut rules, state).await?,
                // It has said goodbye, and closes when its visits are over.
                None if let Some(until) = presence.leaves() => {
                    let _ = timeout_at(until, tunnel.connection().closed()).await;
                    return Ok(Code::None);
                }
                None => return Err(SessionError::Protocol("the control stream ended")),
            },
            _ = keep_alive.tick() => if tunnel.visits_in_flight() > 0 {
                nonce += 1;
                tell(writer, Frame::Ping { nonce }, &mut presence, &mut rules, state).await?;
            },
            () = tunnel.doubted() => {
                nonce += 1;
                tunnel.asked(nonce);
                tell(writer, Frame::Ping { nonce }, &mut presence, &mut rules, state).await?;
            }
            window = windows.next() => {
                tunnel.connection().lower_window(window);
            }
            Ok(()) = rules.changed() => reconsider(writer, &mut presence, state).await?,
            () = due(presence.ask_again()) => {
                reconsider(writer, &mut presence, state).await?;
            }
            // An agent that says goodbye and stays must not stay for ever.
            () = due(presence.leaves()) => return Ok(Code::None),
            () = tunnel.drained() => {
                // What the last visit sent may still be on its way.
                let _ = timeout(state.timeouts.goodbye, tunnel.connection().closed()).await;
                return Ok(Code::Replaced);
            }
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

/// The rules have changed: what was granted may not be any more, or what was not may be now.
async fn reconsider(
    writer: &mut Writer,
    presence: &mut Presence,
    state: &State,
) -> Result<(), SessionError> {
    match presence.reconsider(state).await {
        Ok(None) => Ok(()),
        Ok(Some(granted)) => {
            let rev = presence.rev();
            say(writer, &Frame::Granted { rev, granted }, state).await
        }
        Err(refused) => Err(turn_away(writer, refused, state).await),
    }
}

/// Tells the agent why it may not stay. What that fails by is told by the connection's end.
pub(super) async fn turn_away(
    writer: &mut Writer,
    refused: Refused,
    state: &State,
) -> SessionError {
    match say(writer, &Frame::Refused(refused.clone()), state).await {
        Ok(()) => SessionError::Refused(refused),
        Err(error) => error,
    }
}

async fn answer(
    frame: Frame,
    writer: &mut Writer,
    presence: &mut Presence,
    rules: &mut Rules,
    state: &State,
) -> Result<(), SessionError> {
    match frame {
        Frame::Ping { nonce } => {
            tell(writer, Frame::Pong { nonce }, presence, rules, state).await?;
        }
        Frame::Wanted { rev, wanted } => match presence.want(rev, wanted, state).await {
            Ok(granted) => {
                let answer = Frame::Granted { rev, granted };
                tell(writer, answer, presence, rules, state).await?;
            }
            Err(refused) => return Err(turn_away(writer, refused, state).await),
        },
        Frame::Leaving => {
            presence.leave(Instant::now() + state.timeouts.leaving);
            info!("the agent leaves");
        }
        Frame::Hello(_) => return Err(SessionError::Protocol("a second Hello")),
        Frame::Pong { nonce } => presence.tunnel().answered(nonce),
        // Nothing that a relay acts on.
        _ => {}
    }
    Ok(())
}
