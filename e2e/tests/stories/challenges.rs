//! Certificate authorities that validate a name (TLS-ALPN-01), told by agents made by hand: whom a challenge
//! reaches, and which of several processes is the one to ask for certificates.

use std::net::SocketAddr;
use std::time::Duration;

use e2e::agent::{new_key, same_key};
use e2e::arrival::{Arrival, arrival, knock, rounds};
use e2e::hello::hello_with;
use e2e::peer::{Peer, PeerControl, connect, hello as agents, wanted};
use e2e::poll::{soon, until_ok};
use e2e::relay::{Relay, relay, relay_for, relay_with};
use e2e::transport::Over;
use e2e::visitor::{say, tls_config};
use rcgen::KeyPair;
use rstest::rstest;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tunnel_common::wire::code::Code;
use tunnel_common::wire::frame::{Frame, Granted, Hello, Outcome, Wanted, Welcome};

const ACME_TLS: &[u8] = b"acme-tls/1";
const MISSING_EXTENSION: u8 = 109;
const UNRECOGNIZED_NAME: u8 = 112;
const NO_APPLICATION_PROTOCOL: u8 = 120;
const STREAMS: u32 = 100;
/// Milliseconds that no story reaches.
const LONG: u64 = 600_000;
/// A deadline that no story reaches.
const NEVER: Duration = Duration::from_secs(600);

/// A relay with a public port for certificate authorities, which does not mind how slow this machine is.
async fn stage() -> Relay {
    let relay = relay_with(|config| {
        config.alpn_port = Some(0);
        config.timeouts.pong = NEVER;
    });
    relay.await
}

/// What an agent says first that would order certificates.
fn orderers(instance: u8, epoch: u64) -> Hello {
    let mut hello = agents(instance, epoch);
    hello.wanted = vec![that_orders(true)];
    hello
}

fn that_orders(orders: bool) -> Wanted {
    Wanted {
        orders,
        ..wanted(None)
    }
}

/// An agent made by hand that serves.
struct Served {
    peer: Peer,
    control: PeerControl,
    welcome: Welcome,
}

async fn serving(over: Over, relay: &Relay, key: &KeyPair, hello: Hello) -> Served {
    let peer = connect(over, relay.api, &same_key(key), STREAMS).await;
    let (control, welcome) = peer.register(hello).await;
    Served {
        peer,
        control,
        welcome,
    }
}

impl Served {
    fn host(&self) -> String {
        self.peer.host()
    }

    /// Announces a challenge for so many milliseconds, and waits until that is heard.
    async fn announces(&mut self, host: &str, until: u64) {
        let host = host.to_owned();
        let frame = Frame::ChallengePending { host, until };
        self.control.writer.send(&frame).await.expect("sends");
        let others = rounds(&mut self.control, 1).await;
        assert!(others.iter().all(is_ping), "{others:?}");
    }

    /// Answers the question whether it is there, which comes next.
    async fn is_asked(&mut self) {
        match self.control.next().await {
            Some(Frame::Ping { nonce }) => {
                let pong = Frame::Pong { nonce };
                self.control.writer.send(&pong).await.expect("sends");
            }
            other => panic!("not asked: {other:?}"),
        }
        assert_eq!(rounds(&mut self.control, 1).await, []);
    }

    /// The challenge that comes next.
    async fn is_challenged_with(&self, hello: &[u8]) -> Arrival {
        let mut arrived = arrival(&self.peer).await;
        assert_eq!(arrived.bytes(hello.len()).await, hello);
        arrived
    }

    /// Nobody has come to it.
    async fn has_no_visits(&mut self) {
        tokio::select! {
            biased;
            _ = self.peer.accepts() => panic!("a visit"),
            _ = rounds(&mut self.control, 20) => {}
        }
    }

    /// Wishes anew, to order certificates or not; gives the answer.
    async fn wishes(&mut self, rev: u64, orders: bool) -> (u64, Vec<Granted>) {
        let wanted = vec![that_orders(orders)];
        let frame = Frame::Wanted { rev, wanted };
        self.control.writer.send(&frame).await.expect("sends");
        self.granted().await
    }

    /// Waits for what the relay grants anew.
    async fn granted(&mut self) -> (u64, Vec<Granted>) {
        loop {
            match self.control.next().await {
                Some(Frame::Granted { rev, granted }) => return (rev, granted),
                Some(frame) if is_ping(&frame) => {}
                other => panic!("no grant: {other:?}"),
            }
        }
    }
}

/// While it has visits the relay asks now and then whether it is there.
fn is_ping(frame: &Frame) -> bool {
    matches!(frame, Frame::Ping { .. })
}

/// The hello of a certificate authority.
fn challenge(host: &str) -> Vec<u8> {
    hello_with(host, tls_config(&[ACME_TLS]))
}

/// Nobody takes this hello: it is told why, in the clear.
async fn is_refused(port: SocketAddr, hello: &[u8], alert: u8) {
    let said = say(port, hello).await.expect("an alert");
    assert_eq!(said, [21, 3, 3, 0, 2, 2, alert]);
}

async fn authority(port: SocketAddr, hello: &[u8]) -> TcpStream {
    knock(port, hello).await.expect("connects")
}

#[rstest]
#[tokio::test]
async fn a_challenge_reaches_the_agent_whose_name_it_is_by_every_port_while_it_is_announced(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let relay = stage().await;
    let mut agent = serving(over, &relay, &new_key(), agents(1, 0)).await;
    let mut other = serving(over, &relay, &new_key(), agents(2, 0)).await;
    let port = agent.welcome.alpn_port.expect("a port for authorities");
    let ports = [relay.public, SocketAddr::new(relay.public.ip(), port)];
    let (host, others) = (agent.host(), other.host());
    let hello = challenge(&host);
    other.announces(&others, LONG).await;
    for _ in 0..2 {
        for port in ports {
            is_refused(port, &hello, NO_APPLICATION_PROTOCOL).await;
        }
        agent.announces(&host.to_uppercase(), LONG).await;
        for port in ports {
            let mut visitor = authority(port, &hello).await;
            let mut arrived = agent.is_challenged_with(&hello).await;
            assert_eq!(arrived.header.server_name.as_deref(), Some(&host[..]));
            assert_eq!(arrived.header.alpn.as_deref(), Some(ACME_TLS));
            arrived.exchanges(&mut visitor).await;
        }
        agent.announces(&host, 0).await;
    }
    other.has_no_visits().await;
    let hello = challenge(&others);
    let _visitor = authority(relay.public, &hello).await;
    other.is_challenged_with(&hello).await;
    agent.has_no_visits().await;
}

#[rstest]
#[tokio::test]
async fn nobody_gets_the_challenge_of_another_by_announcing_it(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let relay = stage().await;
    let mut owner = serving(over, &relay, &new_key(), agents(1, 0)).await;
    let mut thief = serving(over, &relay, &new_key(), agents(2, 0)).await;
    let host = owner.host();
    for announced in [&host[..], "relay.example", "*", "", "\r\n\u{1b}[31m"] {
        thief.announces(announced, LONG).await;
    }
    is_refused(relay.public, &challenge(&host), NO_APPLICATION_PROTOCOL).await;
    owner.announces(&host, LONG).await;
    for _ in 0..3 {
        let hello = challenge(&host);
        let _visitor = authority(relay.public, &hello).await;
        owner.is_challenged_with(&hello).await;
    }
    thief.has_no_visits().await;
}

#[rstest]
#[tokio::test]
async fn of_two_replicas_those_that_wait_for_the_challenge_get_it_each_in_turn(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let (relay, key) = (stage().await, new_key());
    let mut first = serving(over, &relay, &key, orderers(1, 0)).await;
    let mut second = serving(over, &relay, &key, orderers(2, 0)).await;
    first.is_asked().await;
    let host = first.host();
    let hello = challenge(&host);
    let mut visitors = vec![];
    second.announces(&host, LONG).await;
    for _ in 0..3 {
        visitors.push(authority(relay.public, &hello).await);
        second.is_challenged_with(&hello).await;
    }
    first.has_no_visits().await;

    first.announces(&host, LONG).await;
    for _ in 0..3 {
        visitors.push(authority(relay.public, &hello).await);
        first.is_challenged_with(&hello).await;
        visitors.push(authority(relay.public, &hello).await);
        second.is_challenged_with(&hello).await;
    }

    first.peer.close();
    // It is told so when the first has gone.
    second.granted().await;
    for _ in 0..3 {
        visitors.push(authority(relay.public, &hello).await);
        second.is_challenged_with(&hello).await;
    }
}

#[rstest]
#[tokio::test]
async fn a_challenge_ends_with_its_tunnel_and_the_next_one_goes_to_the_other(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let (relay, key) = (stage().await, new_key());
    let of_slot = |slot| Hello {
        slot,
        slots: 2,
        ..agents(1, 0)
    };
    let mut dies = serving(over, &relay, &key, of_slot(0)).await;
    let mut stays = serving(over, &relay, &key, of_slot(1)).await;
    let host = dies.host();
    let hello = challenge(&host);
    for tunnel in [&mut dies, &mut stays] {
        tunnel.announces(&host, LONG).await;
    }
    let mut cut = authority(relay.public, &hello).await;
    let _arrived = dies.is_challenged_with(&hello).await;
    dies.peer.close();
    let mut byte = [0];
    let ended = soon("the visit ends", cut.read(&mut byte)).await;
    assert!(ended.is_err(), "it is cut: {ended:?}");
    stays.has_no_visits().await;
    let _visitor = authority(relay.public, &hello).await;
    stays.is_challenged_with(&hello).await;
}

#[rstest]
#[tokio::test]
async fn a_tunnel_that_takes_over_is_asked_what_the_one_before_it_announced_and_no_replica_is(
    #[values(Over::Quic, Over::H2)] before: Over,
    #[values(Over::Quic, Over::H2)] after: Over,
) {
    let (relay, key) = (stage().await, new_key());
    let mut old = serving(before, &relay, &key, agents(1, 0)).await;
    let mut replica = serving(before, &relay, &key, agents(2, 0)).await;
    let host = old.host();
    let hello = challenge(&host);
    old.announces(&host, LONG).await;
    let mut new = serving(after, &relay, &key, agents(1, 1)).await;
    let _visitor = authority(relay.public, &hello).await;
    new.is_challenged_with(&hello).await;
    assert_eq!(old.peer.closed_with().await, Code::Replaced);
    new.announces(&host, 0).await;
    is_refused(relay.public, &hello, NO_APPLICATION_PROTOCOL).await;
    new.announces(&host, LONG).await;
    new.peer.close();
    until_ok("nobody is asked", async || {
        let said = say(relay.public, &hello).await?;
        match said[..] {
            [21, 3, 3, 0, 2, 2, NO_APPLICATION_PROTOCOL] => Ok(()),
            _ => Err(std::io::Error::other("somebody is")),
        }
    })
    .await;
    replica.has_no_visits().await;
}

#[rstest]
#[tokio::test]
async fn who_offers_something_else_as_well_is_an_ordinary_visitor(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let relay = stage().await;
    let agent = serving(over, &relay, &new_key(), agents(1, 0)).await;
    for offered in [[b"h2", ACME_TLS], [ACME_TLS, b"h2"]] {
        let hello = hello_with(&agent.host(), tls_config(&offered));
        let _visitor = authority(relay.public, &hello).await;
        agent.is_challenged_with(&hello).await;
    }
}

#[tokio::test]
async fn the_relay_answers_for_its_own_names_only_while_it_waits_itself_and_for_others_never() {
    let relay = relay_for(&["tunnel.example"]).await;
    let offline = format!("{}.tunnel.example", "a".repeat(26));
    for (host, alert) in [
        ("tunnel.example", NO_APPLICATION_PROTOCOL),
        (&offline, NO_APPLICATION_PROTOCOL),
        ("www.tunnel.example", UNRECOGNIZED_NAME),
        ("other.example", UNRECOGNIZED_NAME),
        ("127.0.0.1", MISSING_EXTENSION),
    ] {
        is_refused(relay.public, &challenge(host), alert).await;
    }
}

/// Whether this is a grant, and says that the process leads.
fn leads(granted: &[Granted]) -> bool {
    let [granted] = granted else {
        panic!("not one grant: {granted:?}");
    };
    assert!(matches!(granted.outcome, Outcome::Urls(_)), "{granted:?}");
    granted.leads
}

#[rstest]
#[tokio::test]
async fn the_first_replica_leads_and_when_it_has_gone_the_second_is_told_that_it_does(
    #[values(Over::Quic, Over::H2)] over: Over,
    #[values(true, false)] says_goodbye: bool,
) {
    let (relay, key) = (relay().await, new_key());
    let mut first = serving(over, &relay, &key, orderers(1, 0)).await;
    let mut second = serving(over, &relay, &key, orderers(2, 0)).await;
    let third = serving(over, &relay, &key, orderers(3, 0)).await;
    assert!(leads(&first.welcome.granted));
    assert!(!leads(&second.welcome.granted));
    assert!(!leads(&third.welcome.granted));
    second.is_asked().await;
    if says_goodbye {
        let leaving = &Frame::Leaving;
        first.control.writer.send(leaving).await.expect("sends");
    } else {
        first.peer.close();
    }
    let (rev, granted) = second.granted().await;
    assert_eq!(rev, 1, "the answer to the same wishes");
    assert!(leads(&granted));
    let back = serving(over, &relay, &key, orderers(1, 1)).await;
    assert!(!leads(&back.welcome.granted));
}

#[rstest]
#[tokio::test]
async fn a_process_that_takes_over_from_itself_leads_on_and_nobody_else_is_told_anything(
    #[values(Over::Quic, Over::H2)] before: Over,
    #[values(Over::Quic, Over::H2)] after: Over,
) {
    let (relay, key) = (stage().await, new_key());
    let old = serving(before, &relay, &key, orderers(1, 0)).await;
    let mut other = serving(before, &relay, &key, orderers(2, 0)).await;
    let new = serving(after, &relay, &key, orderers(1, 1)).await;
    assert!(leads(&new.welcome.granted));
    assert_eq!(old.peer.closed_with().await, Code::Replaced);
    assert_eq!(rounds(&mut other.control, 20).await, []);
    new.peer.close();
    let (_, granted) = other.granted().await;
    assert!(leads(&granted));
}

#[rstest]
#[tokio::test]
async fn only_a_replica_that_would_order_certificates_leads_and_it_may_wish_otherwise(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let (relay, key) = (stage().await, new_key());
    let mut first = serving(over, &relay, &key, agents(1, 0)).await;
    let mut second = serving(over, &relay, &key, orderers(2, 0)).await;
    let mut third = serving(over, &relay, &key, orderers(3, 0)).await;
    assert!(!leads(&first.welcome.granted));
    assert!(leads(&second.welcome.granted));
    assert!(!leads(&third.welcome.granted));
    let (rev, granted) = second.wishes(2, false).await;
    assert!(rev == 2 && !leads(&granted));
    let (_, granted) = third.granted().await;
    assert!(leads(&granted));
    let (rev, granted) = first.wishes(2, true).await;
    assert!(rev == 2 && !leads(&granted), "the third stays it");
    third.peer.close();
    let (_, granted) = first.granted().await;
    assert!(leads(&granted));
}
