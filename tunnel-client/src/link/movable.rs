//! An endpoint whose connection can move to another socket.
//!
//! quinn (0.11) panics, and takes the process with it, if a connection is told to move right behind the packet
//! that ends it: it then gives its endpoint news of a connection that the endpoint has forgotten. A relay that was
//! started anew sends such packets (stateless resets, RFC 9000, 10.3), and a host that has slept finds one in the
//! moment in which its tunnel moves. So the move is made in the turn of whoever drives the connection: behind all that
//! has come for it, and while the endpoint brings no more.

use std::fmt;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Instant;

use futures_util::task::AtomicWaker;
use quinn::{AsyncTimer, AsyncUdpSocket, Endpoint, EndpointConfig, Runtime};
use tracing::debug;
use tunnel_common::coalesce;

use super::udp;

/// An endpoint for one connection. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Movable {
    endpoint: Endpoint,
    moves: Arc<Moves>,
}

impl Movable {
    /// An endpoint that is towards the relay at `address`. Must be called inside a tokio runtime.
    pub(super) fn new(config: EndpointConfig, address: SocketAddr) -> io::Result<Self> {
        let moves = Arc::new(Moves::default());
        let runtime = Arc::new(Drivers(moves.clone()));
        let endpoint = Endpoint::new(config, None, udp::towards(address)?, runtime)?;
        Ok(Self { endpoint, moves })
    }

    /// The endpoint, to be used for all but moving.
    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Moves the connection, which leads to `address`, to a new socket, unless it is over by then: it asks at once
    /// over it whether the peer is there, and goes on from there. On error it stays where it is.
    pub(super) fn rebind(&self, address: SocketAddr) -> io::Result<()> {
        let (socket, endpoint) = (udp::towards(address)?, self.endpoint.clone());
        self.moves.want(Box::new(move || {
            if let Err(error) = endpoint.rebind(socket) {
                debug!("no new socket for the tunnel: {error}");
            }
        }));
        Ok(())
    }
}

type Move = Box<dyn FnOnce() + Send>;

/// What is known of the connection.
#[derive(Default)]
enum Stand {
    #[default]
    Stays,
    /// It is to be moved, by this.
    Moves(Move),
    /// It is over, and nothing is kept for it.
    Over,
}

/// When the connection moves.
#[derive(Default)]
struct Moves {
    stand: Mutex<Stand>,
    /// The connection's driver.
    driver: AtomicWaker,
    /// Held while the endpoint is driven, and brings what has come, and while the connection moves.
    endpoint: Mutex<()>,
    has_endpoint: AtomicBool,
}

impl Moves {
    /// One that was wanted before and has not begun is forgotten.
    fn want(&self, how: Move) {
        let mut stand = lock(&self.stand);
        if !matches!(*stand, Stand::Over) {
            *stand = Stand::Moves(how);
        }
        drop(stand);
        self.driver.wake();
    }

    fn take(&self) -> Option<Move> {
        let mut stand = lock(&self.stand);
        match std::mem::take(&mut *stand) {
            Stand::Moves(how) => Some(how),
            other => {
                *stand = other;
                None
            }
        }
    }

    fn is_over(&self) {
        // What is dropped here may be the last of the endpoint: not under the lock.
        let before = std::mem::replace(&mut *lock(&self.stand), Stand::Over);
        drop(before);
    }
}

impl fmt::Debug for Moves {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Moves").finish_non_exhaustive()
    }
}

/// Nothing that is behind these locks is left half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

type Driver = Pin<Box<dyn Future<Output = ()> + Send>>;

/// quinn's runtime for such an endpoint: tokio, and its tasks in their turn.
#[derive(Debug)]
struct Drivers(Arc<Moves>);

impl Runtime for Drivers {
    fn new_timer(&self, at: Instant) -> Pin<Box<dyn AsyncTimer>> {
        coalesce::Quinn.new_timer(at)
    }

    /// The first task that quinn spawns drives the endpoint, the next the connection.
    fn spawn(&self, driver: Driver) {
        let moves = self.0.clone();
        coalesce::Quinn.spawn(match self.0.has_endpoint.swap(true, Ordering::Relaxed) {
            false => Box::pin(EndpointDriver { driver, moves }),
            true => Box::pin(ConnectionDriver { driver, moves }),
        });
    }

    fn wrap_udp_socket(&self, socket: UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        coalesce::Quinn.wrap_udp_socket(socket)
    }

    fn now(&self) -> Instant {
        coalesce::Quinn.now()
    }
}

struct EndpointDriver {
    driver: Driver,
    moves: Arc<Moves>,
}

impl Future for EndpointDriver {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Self { driver, moves } = &mut *self;
        let _turn = lock(&moves.endpoint);
        driver.as_mut().poll(cx)
    }
}

struct ConnectionDriver {
    driver: Driver,
    moves: Arc<Moves>,
}

impl Future for ConnectionDriver {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Self { driver, moves } = &mut *self;
        moves.driver.register(cx.waker());
        let Some(move_now) = moves.take() else {
            return driver.as_mut().poll(cx);
        };
        let _turn = lock(&moves.endpoint);
        // Takes what has come by now; then it may be over.
        let driven = driver.as_mut().poll(cx);
        if driven.is_pending() {
            move_now();
        }
        driven
    }
}

impl Drop for ConnectionDriver {
    fn drop(&mut self) {
        self.moves.is_over();
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::net::{IpAddr, Ipv4Addr};
    use std::thread::JoinHandle;
    use std::time::Duration;

    use quinn::crypto::HmacKey;
    use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
    use quinn::{ClientConfig, Connection, ConnectionError, ServerConfig};
    use quinn_proto::HashedConnectionIdGenerator;
    use rustls::pki_types::PrivatePkcs8KeyDer;
    use tokio::runtime;
    use tokio::sync::oneshot;
    use tokio::task::yield_now;
    use tokio::time::timeout;
    use tunnel_common::tls::any_certificate::AnyCertificate;
    use tunnel_common::{quic, tls};

    use super::{
        Arc, ConnectionDriver, Driver, Endpoint, EndpointConfig, Movable, Moves, Poll, SocketAddr,
        coalesce,
    };

    /// More turns than a packet takes from the socket to the connection.
    const TURNS: usize = 40;
    const LOOPBACK: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
    const SOON: Duration = Duration::from_secs(10);

    /// The same for every start of the relay.
    struct ResetKey;

    impl HmacKey for ResetKey {
        fn sign(&self, data: &[u8], signature: &mut [u8]) {
            signature.fill(data.iter().fold(1, |sum: u8, byte| sum.wrapping_add(*byte)));
        }

        fn signature_len(&self) -> usize {
            32
        }

        fn verify(&self, _: &[u8], _: &[u8]) -> Result<(), quinn::crypto::CryptoError> {
            Err(quinn::crypto::CryptoError)
        }
    }

    fn relay(address: SocketAddr) -> Endpoint {
        let key = tls::generate_key().expect("a key");
        let names = ["localhost".to_owned()];
        let certified = tls::self_signed(&key, &names).expect("a certificate");
        let private = PrivatePkcs8KeyDer::from(key.serialize_der());
        let config = rustls::ServerConfig::builder_with_provider(tls::provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("TLS 1.3")
            .with_no_client_auth()
            .with_single_cert(certified.cert.clone(), private.into())
            .expect("they fit");
        let crypto = QuicServerConfig::try_from(config).expect("a suite");
        let mut endpoint = EndpointConfig::new(Arc::new(ResetKey));
        endpoint.min_reset_interval(Duration::ZERO);
        // Which ids are its own it must know too.
        endpoint.cid_generator(|| Box::new(HashedConnectionIdGenerator::from_key(7)));
        let socket = quic::bind_udp(address).expect("binds");
        let server = ServerConfig::with_crypto(Arc::new(crypto));
        let runtime = Arc::new(coalesce::Quinn);
        Endpoint::new(endpoint, Some(server), socket, runtime).expect("an endpoint")
    }

    async fn connected(agent: &Movable, relay: &Endpoint) -> (Connection, Connection) {
        let config = rustls::ClientConfig::builder_with_provider(tls::provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("TLS 1.3")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyCertificate::default()))
            .with_no_client_auth();
        let crypto = QuicClientConfig::try_from(config).expect("a suite");
        let config = ClientConfig::new(Arc::new(crypto));
        let address = relay.local_addr().expect("is bound");
        let connecting = agent.endpoint().connect_with(config, address, "localhost");
        let accepting = async { relay.accept().await.expect("is open").await };
        let (ours, theirs) = tokio::join!(connecting.expect("begins"), accepting);
        (ours.expect("connects"), theirs.expect("connects"))
    }

    fn agent(relay: &Endpoint) -> Movable {
        let address = relay.local_addr().expect("is bound");
        Movable::new(EndpointConfig::default(), address).expect("an endpoint")
    }

    #[tokio::test]
    async fn a_connection_moves_and_goes_on() {
        let relay = relay(LOOPBACK);
        let agent = agent(&relay);
        let (ours, theirs) = connected(&agent, &relay).await;
        let before = theirs.remote_address();
        agent.rebind(ours.remote_address()).expect("a socket");
        let moved = async {
            while theirs.remote_address() == before {
                yield_now().await;
            }
        };
        timeout(SOON, moved).await.expect("moves");
        assert!(ours.close_reason().is_none());
    }

    /// A relay that can crash: its tasks run on a thread of their own.
    struct Mortal {
        relay: Endpoint,
        lives: oneshot::Sender<()>,
        thread: JoinHandle<()>,
    }

    fn mortal() -> Mortal {
        let runtime = runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime");
        let relay = {
            let _inside = runtime.enter();
            relay(LOOPBACK)
        };
        let (lives, dies) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let _ = runtime.block_on(dies);
        });
        Mortal {
            relay,
            lives,
            thread,
        }
    }

    impl Mortal {
        /// Gone with all it knows, and without a word.
        fn crash(self, connection: Connection) {
            drop(self.lives);
            self.thread.join().expect("ends");
            drop((self.relay, connection));
        }
    }

    /// The relay that is started anew, as soon as the port is free.
    async fn restarted(address: SocketAddr) -> Endpoint {
        while quic::bind_udp(address).is_err() {
            yield_now().await;
        }
        relay(address)
    }

    /// Lets one task that is ready go first. One that yields would wait until none is.
    async fn turn() {
        let mut has_waited = false;
        poll_fn(|cx| {
            if std::mem::replace(&mut has_waited, true) {
                return Poll::Ready(());
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }

    #[test]
    fn a_connection_that_is_over_when_it_should_move_ends_and_nothing_else_does() {
        // Looks for packets after each task, so that each turn counts.
        let mut runtime = runtime::Builder::new_current_thread();
        let runtime = runtime.event_interval(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let story = runtime.spawn(moves_after_each_number_of_turns());
        runtime.block_on(story).expect("holds");
    }

    async fn moves_after_each_number_of_turns() {
        for turns in 0..TURNS {
            let dying = mortal();
            let agent = agent(&dying.relay);
            let (ours, theirs) = connected(&agent, &dying.relay).await;
            let address = dying.relay.local_addr().expect("is bound");
            // By then it has been given ids to spare: without one a move changes nothing.
            let mut stream = theirs.open_uni().await.expect("opens");
            stream.write_all(b"?").await.expect("sends");
            ours.accept_uni().await.expect("comes");
            drop(stream);

            dying.crash(theirs);
            let anew = timeout(SOON, restarted(address)).await.expect("is free");
            let mut stream = ours.open_uni().await.expect("opens");
            stream.write_all(b"?").await.expect("is kept");
            for _ in 0..turns {
                turn().await;
            }
            agent.rebind(address).expect("a socket");
            let ended = timeout(SOON, ours.closed()).await.expect("hears of it");
            assert_eq!(ended, ConnectionError::Reset, "after {turns} turns");
            let forgets = timeout(SOON, agent.endpoint().wait_idle());
            forgets.await.expect("is forgotten");
            drop(anew);
        }
    }

    #[test]
    fn what_is_wanted_of_a_connection_that_is_over_is_not_kept() {
        let moves = Arc::new(Moves::default());
        let driver: Driver = Box::pin(std::future::pending());
        let kept = Arc::new(());
        let wanted = |kept: Arc<()>| Box::new(move || drop(kept));
        moves.want(wanted(kept.clone()));
        let driver = ConnectionDriver {
            driver,
            moves: moves.clone(),
        };
        drop(driver);
        assert_eq!(Arc::strong_count(&kept), 1);
        moves.want(wanted(kept.clone()));
        assert_eq!(Arc::strong_count(&kept), 1);
    }
}
