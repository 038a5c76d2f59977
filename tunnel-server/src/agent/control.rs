//! The control stream of an agent that was let in, and its presence in the registry.

use std::sync::Arc;

use quinn::{RecvStream, SendStream};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until, timeout, timeout_at};
use tracing::info;
use tunnel_common::quic::var_int;
use tunnel_common::wire::code::Code;
use tunnel_common::wire::control::{ControlReader, ControlWriter};
use tunnel_common::wire::frame::{Frame, Granted, Outcome, Refused, Wanted};

use super::error::SessionError;
use super::grant::{grant, granted_endpoint};
use super::registry::Membership;
use super::registry::core::{JoinError, Place};
use super::tunnel::Tunnel;
use crate::state::State;

/// The receiving half of a control stream.
pub(super) type Reader = ControlReader<RecvStream>;
/// The sending half of a control stream.
pub(super) type Writer = ControlWriter<SendStream>;

/// When a tunnel that came too late may come again, in milliseconds: its process knows more by then.
const OUTDATED_RETRY_MS: u64 = 5_000;

/// A tunnel as others see it. Dropping it takes the tunnel out of the registry.
#[derive(Debug)]
pub(super) struct Presence {
    tunnel: Arc<Tunnel>,
    membership: Membership,
    standing: Standing,
}

/// Whether the agent may still wish for something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Here,
    /// It has said that it goes; its visits in flight go on until then.
    Leaving {
        until: Instant,
    },
}

impl Presence {
    /// Enters a tunnel, which gets no visits yet.
    pub(super) fn enter(tunnel: Tunnel, place: Place, state: &State) -> Result<Self, JoinError> {
        let tunnel = Arc::new(tunnel);
        let membership = state.registry.enter(tunnel.clone(), place)?;
        Ok(Self {
            tunnel,
            membership,
            standing: Standing::Here,
        })
    }

    /// Answers the agent's wishes; visits come accordingly from now on.
    pub(super) fn want(&self, wanted: &[Wanted], state: &State) -> Result<Vec<Granted>, JoinError> {
        if self.standing != Standing::Here {
            return Err(JoinError::Outdated);
        }
        let granted = grant(&state.names, self.tunnel.client(), wanted);
        self.membership.serve(granted_endpoint(&granted).cloned())?;
        Ok(granted)
    }
}

/// What an agent is told that may not join.
pub(super) fn refusal(error: JoinError) -> Refused {
    let (code, retry_after) = match error {
        JoinError::LabelTaken => (Code::Policy, None),
        JoinError::Outdated => (Code::Replaced, Some(OUTDATED_RETRY_MS)),
    };
    Refused {
        code: code.number(),
        text: error.to_string(),
        retry_after,
    }
}

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

/// Serves the control stream until the connection ends or should be closed, and says with which
/// code.
pub(super) async fn run(
    mut reader: Reader,
    mut writer: Writer,
    mut presence: Presence,
    state: &State,
) -> Result<Code, SessionError> {
    let tunnel = presence.tunnel.clone();
    let every = state.timeouts.quic.keep_alive;
    let mut keep_alive = interval_at(Instant::now() + every, every);
    keep_alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut windows = tunnel.budget().lower_windows();
    let mut nonce = 0;
    loop {
        tokio::select! {
            frame = reader.next() => match frame? {
                Some(frame) => answer(frame, &mut writer, &mut presence, state).await?,
                // It has said goodbye, and closes when its visits are over.
                None if let Standing::Leaving { until } = presence.standing => {
                    let _ = timeout_at(until, tunnel.connection().closed()).await;
                    return Ok(Code::None);
                }
                None => return Err(SessionError::Protocol("the control stream ended")),
            },
            _ = keep_alive.tick() => if tunnel.visits_in_flight() > 0 {
                nonce += 1;
                say(&mut writer, &Frame::Ping { nonce }, state).await?;
            },
            () = tunnel.doubted() => {
                nonce += 1;
                tunnel.asked(nonce);
                say(&mut writer, &Frame::Ping { nonce }, state).await?;
            }
            window = windows.next() => {
                tunnel.connection().set_receive_window(var_int(window));
            }
            // An agent that says goodbye and stays must not stay for ever.
            () = leaving_is_over(&presence) => return Ok(Code::None),
            () = tunnel.drained() => {
                // What the last visit sent may still be on its way.
                let _ = timeout(state.timeouts.goodbye, tunnel.connection().closed()).await;
                return Ok(Code::Replaced);
            }
        }
    }
}

/// Ready when an agent that has said goodbye has had its time. Cancel safe.
async fn leaving_is_over(presence: &Presence) {
    match presence.standing {
        Standing::Here => std::future::pending().await,
        Standing::Leaving { until } => sleep_until(until).await,
    }
}

async fn answer(
    frame: Frame,
    writer: &mut Writer,
    presence: &mut Presence,
    state: &State,
) -> Result<(), SessionError> {
    match frame {
        Frame::Ping { nonce } => say(writer, &Frame::Pong { nonce }, state).await?,
        Frame::Wanted { rev, wanted } => {
            let granted = presence.want(&wanted, state);
            let granted = granted.unwrap_or_else(|error| refuse_all(&wanted, error));
            say(writer, &Frame::Granted { rev, granted }, state).await?;
        }
        Frame::Leaving => {
            let until = Instant::now() + state.timeouts.leaving;
            presence.standing = Standing::Leaving { until };
            // Fails only for a tunnel that has lost its place, and gets no visits anyway.
            let _ = presence.membership.serve(None);
            info!("the agent leaves");
        }
        Frame::Hello(_) => return Err(SessionError::Protocol("a second Hello")),
        Frame::Pong { nonce } => presence.tunnel.answered(nonce),
        // Nothing that a relay acts on.
        _ => {}
    }
    Ok(())
}

/// A tunnel that has lost its place gets nothing more; its visits in flight go on.
fn refuse_all(wanted: &[Wanted], error: JoinError) -> Vec<Granted> {
    let refused = |wish: &Wanted| Granted {
        endpoint: wish.endpoint.clone(),
        outcome: Outcome::Refused(refusal(error)),
    };
    wanted.iter().map(refused).collect()
}
