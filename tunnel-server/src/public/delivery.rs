//! Takes a visitor's hello to his agent: a stream on one of its tunnels, with the header and the hello in
//! one write.

use std::sync::Arc;

use bytes::Bytes;
use first_flight::alert::Alert;
use first_flight::client_hello::ClientHello;
use first_flight::proxy_header::Addresses;
use tokio::time::timeout;
use tracing::debug;
use tunnel_common::identity::Label;
use tunnel_common::stream::header::{StreamHeader, VisitId};
use tunnel_common::wire::frame::EndpointRef;

use crate::agent::open::{NotOpened, Passage, open};
use crate::agent::registry::Candidate;
use crate::agent::tunnel::Tunnel;
use crate::state::State;

/// How often a visitor is taken to a tunnel that has just died before he is sent away.
const MAX_ATTEMPTS: usize = 3;

/// Who comes.
pub(super) struct Who {
    pub(super) addresses: Addresses,
    pub(super) id: VisitId,
}

/// A hello that is on its way.
pub(super) struct Delivery {
    /// The agent.
    pub(super) label: Label,
    pub(super) hello: ClientHello,
    /// The stream that has it.
    pub(super) passage: Passage,
}

/// Takes the visitor's hello to an agent, or says with which alert he is sent away.
pub(super) async fn deliver(
    state: &State,
    label: Label,
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
    let mut trying = None;
    let beginning = begin(state, label, header, &hello.bytes, &mut trying);
    match timeout(state.timeouts.stream_open, beginning).await {
        Ok(Ok(passage)) => Ok(passage),
        Ok(Err(why)) => {
            debug!(%label, "refused: {why}");
            // Whether an id is unknown or offline is nobody's business.
            Err(Alert::UNRECOGNIZED_NAME)
        }
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
async fn begin(
    state: &State,
    label: Label,
    header: impl Fn(EndpointRef) -> StreamHeader,
    hello: &Bytes,
    trying: &mut Option<Arc<Tunnel>>,
) -> Result<Passage, NotOpened> {
    for _ in 0..MAX_ATTEMPTS {
        let mut passage = match open(&state.registry, label).await {
            Ok(passage) => passage,
            Err(NotOpened::Offline) => break,
            // Another one may serve by now.
            Err(NotOpened::Closed) => continue,
        };
        let Candidate {
            tunnel,
            right,
            endpoint,
            ..
        } = &passage.to;
        if right.is_revoked() {
            // It was admitted when we began to wait for a stream, and is no more.
            continue;
        }
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
                debug!(%label, %error, "a tunnel broke before the visit began");
                tunnel.doubt();
            }
        }
    }
    Err(NotOpened::Offline)
}
