//! The control stream of an agent that was let in, and its presence in the registry.

use std::sync::Arc;

use quinn::{Connection, RecvStream, SendStream};
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use tracing::info;
use tunnel_common::budget::TunnelBudget;
use tunnel_common::identity::ClientId;
use tunnel_common::quic::var_int;
use tunnel_common::wire::code::Code;
use tunnel_common::wire::control::{ControlReader, ControlWriter};
use tunnel_common::wire::frame::{EndpointRef, Frame, Granted, Hello, Refused, Wanted};

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

/// An agent's connection as others see it: it is in the registry exactly while it serves. Dropping
/// it takes it out.
///
/// ```text
///            endpoint granted              Leaving
///   Waiting ◀───────────────▶ Serving ──────────────▶ Left
///            none any more                (also from Waiting)
/// ```
#[derive(Debug)]
pub(super) struct Presence {
    connection: Connection,
    client: ClientId,
    place: Place,
    budget: TunnelBudget,
    state: Arc<State>,
    standing: Standing,
}

#[derive(Debug)]
enum Standing {
    /// No endpoint is granted, as yet.
    Waiting,
    /// Visitors come.
    Serving {
        tunnel: Arc<Tunnel>,
        _membership: Membership,
    },
    /// No more visitors come; those who are there stay until the agent closes.
    Left,
}

impl Presence {
    /// A connection that serves nothing yet.
    pub(super) fn new(
        connection: Connection,
        client: ClientId,
        hello: &Hello,
        state: Arc<State>,
    ) -> Self {
        let (budget, standing) = (state.budget.tunnel(), Standing::Waiting);
        Self {
            connection,
            client,
            place: hello.into(),
            budget,
            state,
            standing,
        }
    }

    /// Answers the agent's wishes, and is in the registry accordingly from now on.
    ///
    /// An endpoint under another ref than before is out of the registry for a moment in between.
    pub(super) fn want(&mut self, wanted: &[Wanted]) -> Result<Vec<Granted>, Refused> {
        let granted = grant(&self.state.names, self.client, wanted);
        let endpoint = granted_endpoint(&granted);
        match &self.standing {
            Standing::Left => return Err(refusal(JoinError::Outdated)),
            Standing::Serving { tunnel, .. } if endpoint == Some(tunnel.endpoint()) => {}
            _ => {
                self.standing = Standing::Waiting;
                if let Some(endpoint) = endpoint {
                    self.standing = self.join(endpoint.clone()).map_err(refusal)?;
                }
            }
        }
        Ok(granted)
    }

    fn join(&self, endpoint: EndpointRef) -> Result<Standing, JoinError> {
        let connection = self.connection.clone();
        let tunnel = Tunnel::new(self.client, endpoint, connection, self.budget.clone());
        let tunnel = Arc::new(tunnel);
        let membership = self.state.registry.join(tunnel.clone(), self.place)?;
        Ok(Standing::Serving {
            tunnel,
            _membership: membership,
        })
    }

    fn tunnel(&self) -> Option<&Tunnel> {
        match &self.standing {
            Standing::Serving { tunnel, .. } => Some(tunnel),
            Standing::Waiting | Standing::Left => None,
        }
    }

    fn visits_in_flight(&self) -> usize {
        self.tunnel().map_or(0, Tunnel::visits_in_flight)
    }

    /// Ready when another tunnel has taken this one's place and its last visit is over.
    async fn drained(&self) {
        match self.tunnel() {
            Some(tunnel) => tunnel.drained().await,
            None => std::future::pending().await,
        }
    }
}

fn refusal(error: JoinError) -> Refused {
    let code = match error {
        JoinError::LabelTaken => Code::Policy,
        JoinError::Outdated => Code::Replaced,
    };
    Refused::for_good(code, error.to_string())
}

/// Serves the control stream until the connection ends or should be closed, and says with which
/// code.
pub(super) async fn run(
    mut reader: Reader,
    mut writer: Writer,
    presence: &mut Presence,
    state: &State,
) -> Result<Code, SessionError> {
    let every = state.timeouts.quic.keep_alive;
    let mut keep_alive = interval_at(Instant::now() + every, every);
    keep_alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut window = state.budget.connection_window();
    let mut nonce = 0;
    loop {
        tokio::select! {
            frame = reader.next() => match frame? {
                Some(frame) => answer(frame, &mut writer, presence).await?,
                None if matches!(presence.standing, Standing::Left) => {
                    presence.connection.closed().await;
                    return Ok(Code::None);
                }
                None => return Err(SessionError::Protocol("the control stream ended")),
            },
            _ = keep_alive.tick() => if presence.visits_in_flight() > 0 {
                nonce += 1;
                writer.send(&Frame::Ping { nonce }).await?;
            },
            Ok(()) = window.changed() => {
                let window = *window.borrow_and_update();
                presence.connection.set_receive_window(var_int(window));
            }
            () = presence.drained() => {
                // What the last visit sent may still be on its way.
                let _ = timeout(state.timeouts.goodbye, presence.connection.closed()).await;
                return Ok(Code::Replaced);
            }
        }
    }
}

async fn answer(
    frame: Frame,
    writer: &mut Writer,
    presence: &mut Presence,
) -> Result<(), SessionError> {
    match frame {
        Frame::Ping { nonce } => writer.send(&Frame::Pong { nonce }).await?,
        Frame::Wanted { rev, wanted } => {
            let granted = presence
                .want(&wanted)
                .map_err(|r| SessionError::Refused(r.text))?;
            writer.send(&Frame::Granted { rev, granted }).await?;
        }
        Frame::Leaving => {
            presence.standing = Standing::Left;
            info!("the agent leaves");
        }
        Frame::Hello(_) => return Err(SessionError::Protocol("a second Hello")),
        // An answer to our ping, or nothing that a relay acts on.
        _ => {}
    }
    Ok(())
}
