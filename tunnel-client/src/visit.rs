//! One visit: the agent's half of the story.
//!
//! 1. Read the stream's header; its ref names the endpoint.
//! 2. End the visitor's TLS with the endpoint's certificate, unless the local service does that. A certificate
//!    authority that comes to look gets its answer instead, and no further.
//! 3. Dial the local service.
//! 4. Splice until it is over.

use std::sync::Arc;

use rustls::server::{Acceptor, ClientHello};
use rustls::{ProtocolVersion, ServerConfig};
use tokio::io::AsyncWriteExt as _;
use tokio::time::timeout;
use tokio_rustls::TlsStream;
use tokio_rustls::server::{LazyConfigAcceptor, StartHandshake};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, debug, debug_span, info, warn};
use tunnel_common::budget::TunnelBudget;
use tunnel_common::splice::buffer::BufferPool;
use tunnel_common::splice::duplex::DuplexEnd;
use tunnel_common::splice::end::{AnyEnd, End as _};
use tunnel_common::splice::options::{self, Options, Sight};
use tunnel_common::splice::pump::Splice;
use tunnel_common::stream::header::{HeaderError, StreamHeader};
use tunnel_common::stream::tunnel::TunnelStream;
use tunnel_common::wire::alpn;
use tunnel_common::wire::code::Code;

use crate::answers::Answers;
use crate::config::Timeouts;
use crate::endpoint::Endpoint;
use crate::flights::Flights;
use crate::local::dial::{Caller, DialError};
use crate::resolve::Resolve;

/// What all visits of an agent share.
#[derive(Debug)]
pub(crate) struct Venue {
    /// The endpoints that are published, the one whose key the handshake proves first.
    pub(crate) endpoints: Vec<Endpoint>,
    /// The buffers of all splices.
    pub(crate) pool: BufferPool,
    /// How long to wait for what.
    pub(crate) timeouts: Timeouts,
    /// Those of all splices.
    pub(crate) splice_timeouts: Arc<options::Timeouts>,
    /// Where the local service's address comes from.
    pub(crate) resolver: Arc<dyn Resolve>,
}

impl Venue {
    /// Dials the local service for a visit. The log tells when that begins to fail and when it
    /// works again, and not how many visitors tried.
    async fn dial_local(
        &self,
        endpoint: &Endpoint,
        header: &StreamHeader,
        alpn: Option<&[u8]>,
    ) -> Result<AnyEnd, DialError> {
        let local = endpoint.local();
        let caller = Caller {
            header,
            alpn,
            resolver: &*self.resolver,
            timeouts: &self.timeouts,
        };
        let dialled = local.dial(caller).await;
        let was_down = endpoint.local_is_down(dialled.is_err());
        match &dialled {
            Err(error) if !was_down => warn!("{error}; visitors are turned away until it answers"),
            Ok(_) if was_down => info!("the local service {} answers again", local.service()),
            _ => {}
        }
        dialled
    }
}

/// Why a stream was not taken for a visit.
#[derive(Debug, thiserror::Error)]
enum Unserved {
    #[error("no header in time")]
    NoHeader,
    #[error(transparent)]
    Header(#[from] HeaderError),
    #[error("the relay means an endpoint that is not published here")]
    UnknownRef,
}

impl Unserved {
    fn code(&self) -> Code {
        match self {
            Self::NoHeader | Self::Header(_) => Code::Protocol,
            Self::UnknownRef => Code::UnknownRef,
        }
    }
}

/// What a visit has of its tunnel.
#[derive(Clone, Debug)]
pub(crate) struct Carriage {
    /// Where stalled bytes are booked.
    pub(crate) budget: TunnelBudget,
    /// Fires when visits should end as soon as nobody waits for anything.
    pub(crate) parting: CancellationToken,
}

/// Serves one stream. Dropping the future resets it, and the local connection.
pub(crate) async fn serve(mut stream: TunnelStream, venue: Arc<Venue>, carriage: Carriage) {
    let (header, endpoint) = match read_header(&mut stream, &venue).await {
        Ok(read) => read,
        Err(error) => {
            debug!(%error, "a stream was reset");
            return stream.abort(error.code());
        }
    };
    let span = debug_span!("visit", id = %header.visit, visitor = %header.visitor);
    attend(stream, &header, endpoint, &venue, carriage)
        .instrument(span)
        .await;
}

async fn attend(
    stream: TunnelStream,
    header: &StreamHeader,
    endpoint: &Endpoint,
    venue: &Venue,
    carriage: Carriage,
) {
    let Some(mut visitor) = meet(stream, endpoint, venue).await else {
        return;
    };
    let alpn = visitor.alpn.as_deref();
    match venue.dial_local(endpoint, header, alpn).await {
        Ok(local) => {
            let sight = match endpoint.ends_tls() {
                true => Sight::Clear,
                false => Sight::Opaque,
            };
            splice((visitor.end, local), sight, venue, carriage).await;
        }
        Err(error) => {
            debug!(%error, "the visitor was turned away");
            visitor.end.abort(error.code());
        }
    }
}

async fn read_header<'a>(
    stream: &mut TunnelStream,
    venue: &'a Venue,
) -> Result<(StreamHeader, &'a Endpoint), Unserved> {
    let reading = timeout(venue.timeouts.header, StreamHeader::read(stream));
    let header = reading.await.map_err(|_| Unserved::NoHeader)??;
    let mut endpoints = venue.endpoints.iter();
    let meant = endpoints.find(|endpoint| *endpoint.name() == header.endpoint);
    Ok((header, meant.ok_or(Unserved::UnknownRef)?))
}

/// A visitor whose bytes are fit for the local service.
struct Visitor {
    end: AnyEnd,
    /// The protocol that was agreed with him.
    alpn: Option<Vec<u8>>,
}

async fn meet(stream: TunnelStream, endpoint: &Endpoint, venue: &Venue) -> Option<Visitor> {
    match endpoint.visitor_tls() {
        Some(tls) => {
            let meeting = end_tls(stream, tls, endpoint.answers());
            let met = timeout(venue.timeouts.visitor_tls, meeting).await;
            met.unwrap_or_else(|_| {
                debug!("the visitor's TLS handshake took too long");
                None
            })
        }
        None => {
            debug!("visit begins, its TLS passes through");
            Some(Visitor {
                end: Box::new(stream),
                alpn: None,
            })
        }
    }
}

/// Ends the visitor's TLS. A visitor with whom that fails gets the alert that says why, and a certificate
/// authority the answer that is up for it.
async fn end_tls(
    stream: TunnelStream,
    tls: Arc<ServerConfig>,
    answers: &Answers,
) -> Option<Visitor> {
    let mut accepting = LazyConfigAcceptor::new(Acceptor::default(), Flights::new(stream));
    let begun = match (&mut accepting).await {
        Ok(begun) => begun,
        Err(error) => {
            debug!(%error, "no TLS with the visitor");
            if let Some(stream) = accepting.take_io() {
                stream.said().await.conclude();
            }
            return None;
        }
    };
    if is_challenge(&begun.client_hello()) {
        answer(begun, answers).await;
        return None;
    }
    match begun.into_stream(tls).into_fallible().await {
        Ok(mut tls) => {
            debug!("visit begins");
            let (stream, session) = tls.get_mut();
            stream.greeted();
            // What TLS 1.2 says last is waited for, unlike tickets.
            if session.protocol_version() != Some(ProtocolVersion::TLSv1_3) {
                stream.flush().await.ok()?;
            }
            let alpn = tls.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
            let end = Box::new(DuplexEnd::new(TlsStream::from(tls)));
            Some(Visitor { end, alpn })
        }
        Err((error, stream)) => {
            debug!(%error, "no TLS with the visitor");
            stream.said().await.conclude();
            None
        }
    }
}

/// Whether a certificate authority comes to look: it offers its own protocol and no other (RFC 8737, 3).
fn is_challenge(hello: &ClientHello<'_>) -> bool {
    let offered = hello.alpn().into_iter().flatten();
    offered.eq([alpn::ACME_TLS])
}

/// Shows an authority what is up for it. Nothing is said behind the handshake, whoever it is.
async fn answer(begun: StartHandshake<Flights<TunnelStream>>, answers: &Answers) {
    let up = answers.at(begun.client_hello().server_name());
    let Some(config) = up else {
        debug!("a certificate authority comes unasked");
        let mut stream = begun.io.into_inner();
        return stream.abort(Code::Policy);
    };
    match begun.into_stream(config).into_fallible().await {
        Ok(mut tls) => {
            debug!("a certificate authority has seen the answer to its challenge");
            // It may have gone by now.
            let _ = tls.shutdown().await;
        }
        Err((error, stream)) => {
            debug!(%error, "no handshake for a challenge");
            stream.said().await.conclude();
        }
    }
}

async fn splice(
    (visitor, local): (AnyEnd, AnyEnd),
    sight: Sight,
    venue: &Venue,
    carriage: Carriage,
) {
    let Carriage { budget, parting } = carriage;
    let options = Options {
        pool: venue.pool.clone(),
        budget,
        timeouts: venue.splice_timeouts.clone(),
        first_answer: venue.splice_timeouts.first_answer,
        meter: Arc::default(),
    };
    let mut splice = Splice::new(visitor, local, options);
    let ended = tokio::select! {
        ended = &mut splice => ended,
        () = parting.cancelled() => {
            splice.close_when_idle(sight);
            splice.await
        }
    };
    debug!(
        to_local = ended.a_to_b, to_visitor = ended.b_to_a,
        cause = ?ended.cause, "visit over"
    );
}
