use std::net::IpAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;
use crate::resolve::Resolving;

/// Knows one name, which leads nowhere first and then to the listener, and addresses.
#[derive(Debug)]
struct Names {
    name: &'static str,
    leads_to: Vec<SocketAddr>,
}

impl Resolve for Names {
    fn resolve<'a>(&'a self, host: &'a str, port: u16) -> Resolving<'a> {
        let found = match host.parse::<IpAddr>() {
            Ok(address) => Ok(vec![SocketAddr::new(address, port)]),
            Err(_) if host == self.name => Ok(self.leads_to.clone()),
            Err(_) => Err(io::ErrorKind::NotFound.into()),
        };
        Box::pin(std::future::ready(found))
    }
}

async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let address = listener.local_addr().expect("bound");
    (listener, address)
}

fn outward(leads_to: &[SocketAddr]) -> Outward {
    named("ca.example", leads_to)
}

/// Knows this name only.
fn named(name: &'static str, leads_to: &[SocketAddr]) -> Outward {
    let leads_to = leads_to.to_vec();
    Outward::new(Arc::new(Names { name, leads_to }))
}

/// Through this proxy, but for one host.
fn by(proxy: SocketAddr, scheme: &str) -> Proxies {
    let proxy: OutboundProxy = format!("{scheme}://{proxy}").parse().expect("a proxy");
    Proxies::by(move |target| match target.host() {
        "exempt.example" => Ok(None),
        "wrong.example" => Err(io::Error::other("the variable X: it is no proxy")),
        _ => Ok(Some(proxy.clone())),
    })
}

/// What the proxy is asked for next.
async fn request(proxy: &TcpListener) -> String {
    let (mut stream, _) = proxy.accept().await.expect("accepts");
    let mut request = vec![];
    while !request.ends_with(b"\r\n\r\n") {
        request.push(stream.read_u8().await.expect("is asked"));
    }
    let answer = b"HTTP/1.1 200 OK\r\n\r\n";
    stream.write_all(answer).await.expect("takes it");
    String::from_utf8(request).expect("text")
}

#[tokio::test]
async fn without_a_proxy_the_first_address_that_answers_is_the_one() {
    let (there, address) = listener().await;
    let (gone, nobody) = listener().await;
    drop(gone);
    let outward = outward(&[nobody, address]);
    let stream = outward.dial("ca.example", 1).await.expect("connects");
    assert_eq!(stream.peer_addr().expect("is connected"), address);
    there.accept().await.expect("accepts");
    let nowhere = outward.dial("other.example", 1).await;
    let kind = nowhere.map_err(|error| error.kind()).expect_err("no name");
    assert_eq!(kind, io::ErrorKind::NotFound);
}

#[tokio::test]
async fn a_proxy_is_asked_for_the_name_unless_the_host_is_exempt() {
    let ((proxy, at), (there, address)) = (listener().await, listener().await);
    let outward = Outward::new(Arc::new(Names {
        name: "exempt.example",
        leads_to: vec![address],
    }));
    let outward = outward.with_proxies(by(at, "http"));
    let (asked, dialled) = tokio::join!(request(&proxy), outward.dial("ca.example", 443));
    assert!(asked.starts_with("CONNECT ca.example:443 "), "{asked}");
    dialled.expect("connects");
    let (accepted, dialled) = tokio::join!(there.accept(), outward.dial("exempt.example", 443));
    accepted.expect("accepts");
    dialled.expect("connects");
}

#[tokio::test]
async fn an_agents_name_is_kept_out_of_the_local_network_and_the_authority_may_be_in_it() {
    const AGENT: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaa.t.example";
    let (there, address) = listener().await;
    let dialled = named(AGENT, &[address]).dial(AGENT, 443).await;
    dialled.expect("whoever does not mind connects");
    there.accept().await.expect("accepts");
    let guarded = named(AGENT, &[address]).with_agents_in_public();
    for name in [AGENT, "AAAAAAAAAAAAAAAAAAAAAAAAAA.t.example"] {
        let refused = guarded.resolve(name, 443, Instant::now() + TIMEOUT).await;
        assert!(refused.is_err(), "{name}");
    }
    let error = guarded.dial(AGENT, 443).await.expect_err("is inner");
    assert_eq!(error.kind(), io::ErrorKind::HostUnreachable);
    let public = "1.1.1.1:443".parse().expect("an address");
    let mixed = named(AGENT, &[address, public]).with_agents_in_public();
    let found = mixed.resolve(AGENT, 443, Instant::now() + TIMEOUT).await;
    assert_eq!(found.expect("leads out, too"), [public]);
    let authority = outward(&[address]).with_agents_in_public();
    authority.dial("ca.example", 443).await.expect("connects");
}

#[tokio::test]
async fn a_proxy_that_finds_no_address_is_not_asked_for_an_inner_one() {
    const AGENT: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaa.t.example";
    let ((_proxy, at), inner) = (listener().await, "10.0.0.1:443".parse().expect("one"));
    let outward = named(AGENT, &[inner]).with_proxies(by(at, "socks5"));
    let guarded = outward.with_agents_in_public();
    let error = guarded.dial(AGENT, 443).await.expect_err("is inner");
    assert_eq!(error.kind(), io::ErrorKind::HostUnreachable);
}

#[tokio::test]
async fn a_proxy_that_refuses_or_is_silent_says_nothing_of_the_host_behind_it() {
    let (proxy, at) = listener().await;
    let outward = outward(&[]).with_proxies(by(at, "http"));
    for status in ["403 Forbidden", "502 Bad Gateway"] {
        let refusing = async {
            let (mut stream, _) = proxy.accept().await.expect("accepts");
            let answer = format!("HTTP/1.1 {status}\r\n\r\n");
            stream.write_all(answer.as_bytes()).await.expect("says no");
            stream
        };
        let (_stream, dialled) = tokio::join!(refusing, outward.dial("ca.example", 443));
        let error = dialled.expect_err("is refused");
        assert_eq!(error.kind(), io::ErrorKind::HostUnreachable);
        assert!(error.to_string().contains(status), "{error}");
    }
    let mut dialling = outward.dial("ca.example", 443);
    let asked = async {
        let (mut stream, _) = proxy.accept().await.expect("accepts");
        stream.read_u8().await.expect("is asked");
        stream
    };
    let _silent = tokio::select! {
        _ = &mut dialling => panic!("nobody has answered"),
        stream = asked => stream,
    };
    tokio::time::pause();
    let error = dialling.await.expect_err("nobody answers");
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
}

#[tokio::test]
async fn what_is_wrong_with_a_proxy_is_told_and_nothing_goes_around_it() {
    let (gone, nobody) = listener().await;
    drop(gone);
    let (_there, address) = listener().await;
    let outward = outward(&[address]).with_proxies(by(nobody, "socks5"));
    let told = async |host| {
        let dialled = outward.dial(host, 443).await;
        dialled.expect_err("is not reached").to_string()
    };
    let missing = told("ca.example").await;
    let named = format!("through the proxy socks5://{nobody}: it is not reached at {nobody}");
    assert!(missing.starts_with(&named), "{missing}");
    assert_eq!(
        told("wrong.example").await,
        "the variable X: it is no proxy"
    );
}
