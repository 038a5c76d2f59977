//! Takes a visitor's hello to his agent: a stream on one of its tunnels, with the header and the hello in
//! one write.

use std::sync::Arc;

use bytes::Bytes;
use first_flight::alert::Alert;
use first_flight::client_hello::ClientHello;
use first_flight::proxy_header::Addresses;
use tokio::time::timeout;
use tracing::debug;
use tunnel_common::hostname::Hostname;
use tunnel_common::identity::Label;
use tunnel_common::stream::header::{StreamHeader, VisitId};
use tunnel_common::wire::frame::EndpointRef;

use crate::agent::open::{NotOpened, Passage, open};
use crate::agent::registry::{Candidate, Registry};
use crate::agent::tunnel::Tunnel;
use crate::state::State;

/// How often a visitor is taken to a tunnel that has just died before he is sent away.
const MAX_ATTEMPTS: usize = 3;

/// Who comes.
pub(super) struct Who {
    pub(super) addresses: Addresses,
    pub(super) id: VisitId,
}

/// Whose visit it is, and by which tunnels it may come to him.
#[derive(Debug)]
pub(super) enum Destination {
    /// This agent's, by the best tunnel that there is.
    Agent(Label),
    /// This agent's as well, who validates `host`: by one of those that wait for him there.
    Challenge { agent: Label, host: Hostname },
}

impl Destination {
    /// The agent.
    fn agent(&self) -> Label {
        match self {
            Self::Agent(agent) | Self::Challenge { agent, .. } => *agent,
        }
    }

    /// The tunnels by which it may come now, the best first.
    fn candidates(&self, registry: &Registry) -> Vec<Candidate> {
        match self {
            Self::Agent(agent) => registry.candidates(*agent),
            Self::Challenge { agent, host } => registry.challenged(*agent, host),
        }
    }

    /// Whether it may still come by this one, which was among them when we began to wait for a stream.
    fn is_open_by(&self, candidate: &Candidate) -> bool {
        !candidate.right.is_revoked()
            && match self {
                Self::Agent(_) => true,
                Self::Challenge { host, .. } => candidate.tunnel.is_challenged_at(host),
            }
    }

    /// Nobody takes the visitor: what he is told. Whether an id is unknown or offline is nobody's business.
    fn refused(&self, why: NotOpened) -> Alert {
        match self {
            Self::Agent(label) => {
                debug!(%label, "refused: {why}");
                Alert::UNRECOGNIZED_NAME
            }
            Self::Challenge { agent, .. } => {
                debug!(label = %agent, "refused: no tunnel of the agent waits for the challenge");
                Alert::NO_APPLICATION_PROTOCOL
            }
        }
    }
}

/// A hello that is on its way.
pub(super) struct Delivery {
    /// The agent.
    pub(super) label: Label,
    /// What another tunnel would need; nothing if the visit must stay where it is.
    pub(super) hello: Option<ClientHello>,
    /// The stream that has it.
    pub(super) passage: Passage,
}

/// Takes the visitor's hello to an agent, and keeps it if another tunnel may have it as well. Or says with
/// which alert he is sent away.
pub(super) async fn begin(
    state: &State,
    to: &Destination,
    hello: ClientHello,
    who: &Who,
) -> Result<Delivery, Alert> {
    let passage = deliver(state, to, &hello, who).await?;
    let hello = match to {
        Destination::Agent(_) => Some(hello),
        Destination::Challenge { .. } => None,
    };
    Ok(Delivery {
        label: to.agent(),
        hello,
        passage,
    })
}

/// Takes the visitor's hello to an agent, or says with which alert he is sent away.
pub(super) async fn deliver(
    state: &State,
    to: &Destination,
    hello: &ClientHello,
    who: &Who,
) -> Result<Passage, Alert> {
    let header = |endpoint| StreamHeader {
        visitor: who.addresses.visitor,
        public: who.addresses.public,
        server_name: hello.server_name.clone(),
        alpn: hello.alpn.first().cloned(),
        visit: who.id,
        endpoint,
    };
    let label = to.agent();
    let mut trying = None;
    let sending = send(state, to, header, &hello.bytes, &mut trying);
    match timeout(state.timeouts.stream_open, sending).await {
        Ok(Ok(passage)) => Ok(passage),
        Ok(Err(why)) => Err(to.refused(why)),
        Err(_) => {
            debug!(%label, "refused: no tunnel of the agent took the visit in time");
            if let Some(tunnel) = trying {
                state.registry.doubt(label, &tunnel);
            }
            Err(Alert::INTERNAL_ERROR)
        }
    }
}

/// Opens a stream and sends header and hello, in one write; on the next tunnel if one dies at it.
/// `trying` is the tunnel that has the hello now.
async fn send(
    state: &State,
    to: &Destination,
    header: impl Fn(EndpointRef) -> StreamHeader,
    hello: &Bytes,
    trying: &mut Option<Arc<Tunnel>>,
) -> Result<Passage, NotOpened> {
    for _ in 0..MAX_ATTEMPTS {
        let mut passage = match open(to.candidates(&state.registry)).await {
            Ok(passage) => passage,
            Err(NotOpened::Offline) => break,
            // Another one may serve by now.
            Err(NotOpened::Closed) => continue,
        };
        if !to.is_open_by(&passage.to) {
            continue;
        }
        let Candidate {
            tunnel, endpoint, ..
        } = &passage.to;
        *trying = Some(tunnel.clone());
        let header = Bytes::from(header(endpoint.clone()).encode());
        match passage
            .opened
            .stream
            .send_all(&mut [header, hello.clone()])
            .await
        {
            Ok(()) => return Ok(passage),
            Err(error) => {
                let label = to.agent();
                debug!(%label, %error, "a tunnel broke before the visit began");
                tunnel.doubt();
            }
        }
    }
    Err(NotOpened::Offline)
}
