//! One visit: the agent's half of the story.
//!
//! 1. Read the stream's header; its ref names the endpoint.
//! 2. End the visitor's TLS with the endpoint's certificate.
//! 3. Dial the local service.
//! 4. Splice until it is over.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::{debug, info, warn};
use tunnel_common::budget::TunnelBudget;
use tunnel_common::splice::buffer::BufferPool;
use tunnel_common::splice::end::End as _;
use tunnel_common::splice::options::Options;
use tunnel_common::splice::pump::Splice;
use tunnel_common::splice::tcp::TcpEnd;
use tunnel_common::stream::header::{HeaderError, StreamHeader};
use tunnel_common::stream::quic::QuicStream;
use tunnel_common::wire::code::Code;

use crate::config::Timeouts;
use crate::endpoint::Endpoint;
use crate::local::DialError;
use crate::resolve::Resolve;
use crate::visitor_tls::VisitorTls;

/// What all visits of an agent share.
#[derive(Debug)]
pub(crate) struct Venue {
    /// The endpoint that is published.
    pub(crate) endpoint: Endpoint,
    /// The buffers of all splices.
    pub(crate) pool: BufferPool,
    /// How long to wait for what.
    pub(crate) timeouts: Timeouts,
    /// Where the local service's address comes from.
    pub(crate) resolver: Arc<dyn Resolve>,
    /// Whether the last dial of the local service failed.
    pub(crate) local_down: AtomicBool,
}

impl Venue {
    /// Dials the local service. The log tells when that begins to fail and when it works again, and
    /// not how many visitors tried.
    async fn dial_local(&self) -> Result<TcpStream, DialError> {
        let dialled = self
            .endpoint
            .local()
            .dial(&*self.resolver, self.timeouts.local_dial)
            .await;
        let was_down = self.local_down.swap(dialled.is_err(), Ordering::Relaxed);
        match &dialled {
            Err(error) if !was_down => warn!("{error}; visitors are turned away until it answers"),
            Ok(_) if was_down => info!("the local service {} answers again", self.endpoint.local()),
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

/// Serves one stream. Dropping the future resets it, and the local connection.
pub(crate) async fn serve(mut stream: QuicStream, venue: Arc<Venue>, budget: TunnelBudget) {
    let header = match read_header(&mut stream, &venue).await {
        Ok(header) => header,
        Err(error) => {
            debug!(%error, "a stream was reset");
            return stream.abort(error.code());
        }
    };
    let Some(mut tls) = end_tls(stream, &header, &venue).await else {
        return;
    };
    match venue.dial_local().await {
        Ok(local) => splice(tls, TcpEnd::new(local), &header, &venue, budget).await,
        Err(error) => {
            debug!(visit = %header.visit, %error, "the visitor was turned away");
            tls.get_mut().0.abort(error.code());
        }
    }
}

async fn read_header(stream: &mut QuicStream, venue: &Venue) -> Result<StreamHeader, Unserved> {
    let reading = timeout(venue.timeouts.header, StreamHeader::read(stream));
    let header = reading.await.map_err(|_| Unserved::NoHeader)??;
    if header.endpoint != *venue.endpoint.name() {
        return Err(Unserved::UnknownRef);
    }
    Ok(header)
}

/// Ends the visitor's TLS. A visitor with whom that fails gets the alert that says why.
async fn end_tls(
    stream: QuicStream,
    header: &StreamHeader,
    venue: &Venue,
) -> Option<TlsStream<QuicStream>> {
    let (visit, visitor) = (header.visit, header.visitor);
    let handshake = TlsAcceptor::from(venue.endpoint.visitor_tls())
        .accept(stream)
        .into_fallible();
    match timeout(venue.timeouts.visitor_tls, handshake).await {
        Ok(Ok(tls)) => {
            debug!(%visit, %visitor, "visit begins");
            Some(tls)
        }
        Ok(Err((error, mut stream))) => {
            debug!(%visit, %visitor, %error, "no TLS with the visitor");
            stream.conclude();
            None
        }
        Err(_) => {
            debug!(%visit, %visitor, "the visitor's TLS handshake took too long");
            None
        }
    }
}

async fn splice(
    tls: TlsStream<QuicStream>,
    local: TcpEnd,
    header: &StreamHeader,
    venue: &Venue,
    budget: TunnelBudget,
) {
    let options = Options {
        pool: venue.pool.clone(),
        budget,
        timeouts: venue.timeouts.splice,
        meter: Arc::default(),
    };
    let ended = Splice::new(VisitorTls::new(tls), local, options).await;
    debug!(
        visit = %header.visit, to_local = ended.a_to_b, to_visitor = ended.b_to_a,
        cause = ?ended.cause, "visit over"
    );
}
