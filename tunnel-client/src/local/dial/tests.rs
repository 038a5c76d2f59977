use std::os::fd::OwnedFd;
use std::time::Instant;

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, UnixListener};
use tunnel_common::stream::header::VisitId;
use tunnel_common::wire::frame::EndpointRef;

use super::*;
use crate::resolve::{Resolving, SystemResolver};

const DEADLINE: Duration = Duration::from_secs(5);
/// Long enough for what answers, short enough to wait for what does not.
const SHORT: Duration = Duration::from_millis(300);

/// A name with these addresses.
#[derive(Debug)]
struct Fixed(Vec<SocketAddr>);

impl Resolve for Fixed {
    fn resolve<'a>(&'a self, _: &'a str, _: u16) -> Resolving<'a> {
        Box::pin(async { Ok(self.0.clone()) })
    }
}

/// A name whose look-up never comes back.
#[derive(Debug)]
struct Silent;

impl Resolve for Silent {
    fn resolve<'a>(&'a self, _: &'a str, _: u16) -> Resolving<'a> {
        Box::pin(std::future::pending())
    }
}

/// Dials `service` for some visit.
async fn dial(
    service: &str,
    resolver: &dyn Resolve,
    local_dial: Duration,
) -> Result<AnyEnd, DialError> {
    let header = StreamHeader {
        visitor: "203.0.113.7:50000".parse().expect("an address"),
        public: "192.0.2.1:443".parse().expect("an address"),
        server_name: None,
        alpn: None,
        visit: VisitId([9; 16]),
        endpoint: EndpointRef::default(),
    };
    let timeouts = Timeouts {
        local_dial,
        ..Timeouts::default()
    };
    let caller = Caller {
        header: &header,
        alpn: None,
        resolver,
        timeouts: &timeouts,
    };
    let service = service.parse().expect("a service");
    let dialler = LocalDialler::new(service, None, &Clock::system());
    dialler.dial(caller).await
}

/// Dials `service`, which must fail.
async fn fails(service: &str, resolver: &dyn Resolve, deadline: Duration) -> DialError {
    match dial(service, resolver, deadline).await {
        Ok(_) => panic!("{service} was reached"),
        Err(error) => error,
    }
}

async fn listening() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let address = listener.local_addr().expect("bound");
    (listener, address)
}

async fn closed_port() -> SocketAddr {
    listening().await.1
}

/// Listens there without room for another connection: the one that is waiting is given too.
fn full(domain: Domain, address: &SockAddr) -> (Socket, Socket) {
    let listener = Socket::new(domain, Type::STREAM, None).expect("a socket");
    listener.bind(address).expect("binds");
    listener.listen(0).expect("listens");
    let waiting = Socket::new(domain, Type::STREAM, None).expect("a socket");
    let address = listener.local_addr().expect("bound");
    waiting.connect(&address).expect("connects");
    (listener, waiting)
}

/// A TCP address that takes no connection and refuses none.
fn black_hole() -> (SocketAddr, (Socket, Socket)) {
    let any: SocketAddr = "127.0.0.1:0".parse().expect("an address");
    let sockets = full(Domain::IPV4, &any.into());
    let address = sockets.0.local_addr().expect("bound");
    (address.as_socket().expect("TCP"), sockets)
}

#[tokio::test]
async fn a_second_address_serves_when_the_first_refuses() {
    let (listener, alive) = listening().await;
    let resolver = Fixed(vec![closed_port().await, alive]);
    let reached = dial("name:1", &resolver, DEADLINE).await;
    assert!(reached.is_ok());
    listener.accept().await.expect("is connected");
}

#[tokio::test]
async fn a_second_address_serves_while_the_first_says_nothing() {
    let ((hole, _held), (listener, alive)) = (black_hole(), listening().await);
    let began = Instant::now();
    let reached = dial("name:1", &Fixed(vec![hole, alive]), DEADLINE).await;
    assert!(reached.is_ok());
    assert!(began.elapsed() < DEADLINE);
    listener.accept().await.expect("is connected");
}

#[tokio::test]
async fn refused_and_timed_out_are_told_apart() {
    let closed = closed_port().await.to_string();
    let error = fails(&closed, &SystemResolver, DEADLINE).await;
    assert_eq!(error.code(), Code::LocalRefused);
    let (hole, _held) = black_hole();
    let error = fails(&hole.to_string(), &SystemResolver, SHORT).await;
    assert_eq!(error.code(), Code::LocalTimeout);
    let error = fails("name:1", &Fixed(vec![]), DEADLINE).await;
    assert_eq!(error.code(), Code::LocalRefused);

    tokio::time::pause();
    let error = fails("name:1", &Silent, DEADLINE).await;
    assert_eq!(error.code(), Code::LocalTimeout);
}

#[tokio::test]
async fn the_deadline_covers_the_tls_handshake() {
    let (_silent, address) = listening().await;
    let error = fails(&format!("https://{address}"), &SystemResolver, SHORT).await;
    assert_eq!(error.code(), Code::LocalTimeout);
}

#[tokio::test]
async fn a_service_that_speaks_no_tls_is_named_with_the_way_out() {
    let (listener, address) = listening().await;
    let answering = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("accepts");
        stream.write_all(b"HTTP/1.1 400 Bad").await.expect("sends");
        // Until the agent has given up.
        let _ = stream.read_to_end(&mut vec![]).await;
    });
    let error = fails(&format!("https://{address}"), &SystemResolver, DEADLINE).await;
    assert_eq!(error.code(), Code::LocalRefused);
    assert!(error.to_string().ends_with("write http://"), "{error}");
    answering.await.expect("no panic");
}

#[tokio::test]
async fn a_unix_socket_that_is_not_there_or_not_served_refuses() {
    let folder = tempfile::tempdir().expect("a folder");
    let service = format!("unix:{}/web.sock", folder.path().display());
    let error = fails(&service, &SystemResolver, DEADLINE).await;
    assert_eq!(error.code(), Code::LocalRefused);
    drop(UnixListener::bind(folder.path().join("web.sock")).expect("binds"));
    let error = fails(&service, &SystemResolver, DEADLINE).await;
    assert_eq!(error.code(), Code::LocalRefused);
}

#[tokio::test]
async fn an_abstract_unix_socket_is_reached() {
    let name = format!("qtun-test-{}", std::process::id());
    let listener = Socket::new(Domain::UNIX, Type::STREAM, None).expect("a socket");
    let address = SockAddr::unix(format!("\0{name}")).expect("a name");
    listener.bind(&address).expect("binds");
    listener.listen(1).expect("listens");
    let reached = dial(&format!("unix:@{name}"), &SystemResolver, DEADLINE).await;
    assert!(reached.is_ok());
}

#[tokio::test]
async fn a_unix_socket_whose_queue_is_full_is_waited_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("web.sock");
    let service = format!("unix:{}", path.display());
    let address = SockAddr::unix(&path).expect("a path");
    let (listener, _waiting) = full(Domain::UNIX, &address);
    let error = fails(&service, &SystemResolver, SHORT).await;
    assert_eq!(error.code(), Code::LocalTimeout);

    listener.set_nonblocking(true).expect("is open");
    let listener = std::os::unix::net::UnixListener::from(OwnedFd::from(listener));
    let listener = UnixListener::from_std(listener).expect("a listener");
    let accepting = async {
        listener.accept().await.expect("the one that waited");
        listener.accept().await.expect("the next")
    };
    let (reached, _accepted) = tokio::join!(dial(&service, &SystemResolver, DEADLINE), accepting);
    assert!(reached.is_ok());
}
