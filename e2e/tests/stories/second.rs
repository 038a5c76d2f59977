//! A second identity on the same tunnel.

use std::sync::Arc;

use e2e::agent::{self, config, new_key, same_key};
use e2e::hello::hello;
use e2e::origin::{echo, http};
use e2e::pair::{self, fingerprint, server};
use e2e::peer::{connect, hello as agents, wanted};
use e2e::poll::soon;
use e2e::process::{self, folder, tool};
use e2e::relay::{relay, relay_with};
use e2e::transport::Over;
use e2e::visitor::{certificate, get, say, visit};
use rcgen::KeyPair;
use rstest::rstest;
use tokio::io::AsyncReadExt as _;
use tunnel_client::config::EndpointConfig;
use tunnel_common::identity::{KeyFingerprint, Label};
use tunnel_common::proof::Exporter;
use tunnel_common::wire::frame::{EndpointRef, Frame, Granted, Outcome, Proof, Wanted};
use tunnel_common::{key, tls};
use tunnel_server::admission::allow_list::AllowList;
use tunnel_server::admission::list_file;

const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

#[rstest]
#[tokio::test]
async fn a_client_publishes_a_second_key_whose_visitors_can_pin_it(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let (server, first, second) = (server(&[]).await, http("first").await, http("second").await);
    let (api, files) = (server.api.to_string(), folder());
    let (local, other) = (first.address.to_string(), second.address.to_string());
    let flags = [
        "--server",
        &api,
        "--server-fingerprint",
        &server.key,
        "--local",
        &local,
    ];
    let more = ["--secondary-key", "second.key", "--secondary-local", &other];
    let client = process::client(&over.with(&[&flags[..], &more].concat()), files.clone());
    let mut client = pair::serving(client).await;
    let id = client.process.line_after("SECONDARY-ID: ").await;
    let url = client.process.line_after("SECONDARY-URL: ").await;
    let key = fingerprint(&files.path().join("second.key"));
    assert_eq!(id, key.label().to_string());
    assert_ne!(id, client.id);
    let host = format!("{id}.localhost");
    assert_eq!(url, format!("https://{host}:{}", server.visitors().port()));
    let bodies = [client.host(), &host].map(|host| get(server.visitors(), host));
    let [of_first, of_second] = bodies;
    assert_eq!(of_first.await.expect("an answer"), "first");
    assert_eq!(of_second.await.expect("an answer"), "second");

    // What people try it with stands on standard error, ready to be pasted.
    client.process.logs("curl -k --pinnedpubkey ").await;
    let log = client.process.log();
    let line = log.lines().find(|line| line.starts_with("curl "));
    let line = line.expect("was waited for");
    assert!(line.contains(&key.to_string()), "{line}");
    let (visitors, resolve) = (server.visitors(), "--resolve");
    let line = format!(
        "{line} -sS {resolve} {host}:{}:{}",
        visitors.port(),
        visitors.ip()
    );
    assert_eq!(tool("sh", &["-c", &line]).await, "second");
    let wrong = line.replace(&key.to_string(), &server.key);
    let failed = e2e::tools::run("sh", &["-c", &wrong]).await;
    assert_eq!(failed.status.code(), Some(90), "another key is not taken");
}

/// An agent in this process with a second key.
fn two(
    over: Over,
    relay: &e2e::relay::Relay,
    keys: &[KeyPair; 2],
    origin: std::net::SocketAddr,
) -> agent::Agent {
    let mut config = config(over, relay, same_key(&keys[0]), origin);
    let local = config.endpoint.local.clone();
    config.second = Some(EndpointConfig {
        name: EndpointRef::secondary(),
        ..EndpointConfig::new(same_key(&keys[1]), local)
    });
    agent::start(config)
}

fn keys() -> [KeyPair; 2] {
    [new_key(), new_key()]
}

fn host_of(key: &KeyPair) -> String {
    format!("{}.localhost", key::fingerprint(key).label())
}

#[rstest]
#[tokio::test]
async fn each_visitor_sees_the_key_that_the_name_stands_for(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let (relay, origin, keys) = (relay().await, echo().await, keys());
    let agent = two(over, &relay, &keys, origin.address);
    agent.serves().await;
    for key in &keys {
        let visitor = visit(relay.public, &host_of(key)).await.expect("visits");
        let shown = KeyFingerprint::of_certificate(&certificate(&visitor));
        assert_eq!(shown.expect("a certificate"), key::fingerprint(key));
    }
    agent.stop().await;
    for key in &keys {
        let said = say(relay.public, &hello(&host_of(key))).await;
        assert_eq!(said.expect("an alert"), UNRECOGNIZED_NAME, "both have gone");
    }
}

fn label(key: &KeyPair) -> Label {
    key::fingerprint(key).label()
}

#[rstest]
#[tokio::test]
async fn a_closed_relay_takes_the_second_key_when_it_is_allowed_and_only_as_long(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let (files, origin, keys) = (folder(), echo().await, keys());
    let list = files.path().join("allowed_clients");
    list_file::allow(&list, label(&keys[0]), "").expect("writes");
    let admission = AllowList::load(vec![list.clone()], Default::default(), "server allow");
    let admission = Arc::new(admission.expect("reads"));
    let relay = relay_with(|config| config.admission = admission).await;
    let agent = two(over, &relay, &keys, origin.address);
    agent.serves().await;
    let said = say(relay.public, &hello(&host_of(&keys[1]))).await;
    assert_eq!(said.expect("an alert"), UNRECOGNIZED_NAME);

    list_file::allow(&list, label(&keys[1]), "").expect("writes");
    agent.serves_endpoints(2).await;
    let mut first = visit(relay.public, &host_of(&keys[0]))
        .await
        .expect("visits");
    let mut second = visit(relay.public, &host_of(&keys[1]))
        .await
        .expect("visits");

    list_file::deny(&list, label(&keys[1])).expect("writes");
    let mut byte = [0];
    let ended = soon("the second's visit ends", second.read(&mut byte)).await;
    assert!(ended.is_err(), "cut: {ended:?}");
    agent.serves_endpoints(1).await;
    tokio::io::AsyncWriteExt::write_all(&mut first, b"?")
        .await
        .expect("goes on");
    let heard = soon("the first goes on", first.read_exact(&mut byte)).await;
    assert_eq!((heard.expect("an answer"), byte), (1, *b"?"));
}

#[rstest]
#[tokio::test]
async fn the_second_key_follows_the_tunnel_through_a_restart_of_the_relay(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let place = (e2e::ports::udp(), e2e::ports::tcp());
    let (data, origin, keys) = (folder(), http("back").await, keys());
    let flags = pair::at(place.0.port, place.1.port, data.path());
    let first = pair::server_at(&flags).await;
    let relay = first.api.to_string().parse().expect("an address");
    let local = || origin.address.to_string().parse().expect("a service");
    let endpoint = EndpointConfig::new(same_key(&keys[0]), local());
    let mut config = tunnel_client::config::Config::new(relay, endpoint);
    config.second = Some(EndpointConfig {
        name: EndpointRef::secondary(),
        ..EndpointConfig::new(same_key(&keys[1]), local())
    });
    over.set(&mut config);
    let agent = agent::start(config);
    agent.serves_endpoints(2).await;
    let mut process = first.process;
    process.signal(rustix::process::Signal::KILL);
    process.ends().await;
    agent.is_cut_off().await;
    let second = pair::server_at(&flags).await;
    agent.serves_endpoints(2).await;
    for key in &keys {
        let body = get(second.visitors(), &host_of(key)).await;
        assert_eq!(body.expect("an answer"), "back");
    }
}

/// What a peer made by hand is told about its second wish, which comes with this proof.
async fn second_wish(
    over: Over,
    relay: &e2e::relay::Relay,
    prove: impl FnOnce(&Exporter) -> Proof,
) -> Granted {
    let peer = connect(over, relay.api, &new_key(), 10).await;
    let exporter = peer.exporter();
    let mut hello = agents(1, 0);
    hello.wanted.push(Wanted {
        endpoint: EndpointRef::secondary(),
        proof: Some(prove(&exporter)),
        ..wanted(None)
    });
    let (_control, welcome) = peer.register(hello).await;
    let main = welcome.granted.first().expect("two answers");
    assert!(matches!(main.outcome, Outcome::Urls(_)), "{main:?}");
    welcome.granted[1].clone()
}

#[rstest]
#[tokio::test]
async fn a_key_is_proved_on_this_connection_or_not_at_all(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let relay = relay().await;
    let (victim, own) = (new_key(), new_key());
    let certified = |key| tls::self_signed(key, &[]).expect("a certificate");
    let proved = second_wish(over, &relay, |here| {
        Proof::new(&certified(&own), here).expect("signs")
    });
    assert!(matches!(proved.await.outcome, Outcome::Urls(_)));

    let elsewhere = Proof::new(&certified(&victim), &[7; 32]).expect("signs");
    let copied = second_wish(over, &relay, |_| elsewhere.clone()).await;
    let stolen = second_wish(over, &relay, |here| Proof {
        signature: Proof::new(&certified(&own), here).expect("signs").signature,
        ..elsewhere.clone()
    });
    for granted in [copied, stolen.await] {
        assert!(
            matches!(granted.outcome, Outcome::Refused(_)),
            "{granted:?}"
        );
    }
    let said = say(relay.public, &hello(&host_of(&victim))).await;
    assert_eq!(said.expect("an alert"), UNRECOGNIZED_NAME);
}

#[rstest]
#[tokio::test]
async fn a_third_endpoint_is_refused_and_the_rest_granted(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let relay = relay().await;
    let peer = connect(over, relay.api, &new_key(), 10).await;
    let here = peer.exporter();
    let wish = |name: &str, key: &KeyPair| {
        let certified = tls::self_signed(key, &[]).expect("a certificate");
        Wanted {
            endpoint: EndpointRef::try_from(name.to_owned()).expect("a ref"),
            proof: Some(Proof::new(&certified, &here).expect("signs")),
            ..wanted(None)
        }
    };
    let more = [wish("second", &new_key()), wish("third", &new_key())];
    let (mut control, _) = peer.register(agents(1, 0)).await;
    let all = [vec![wanted(None)], more.into()].concat();
    let frame = Frame::Wanted {
        rev: 2,
        wanted: all,
    };
    control.writer.send(&frame).await.expect("sends");
    let Some(Frame::Granted { granted, .. }) = control.next().await else {
        panic!("no answer");
    };
    let is_granted = |granted: &Granted| matches!(granted.outcome, Outcome::Urls(_));
    let are_granted: Vec<_> = granted.iter().map(is_granted).collect();
    assert_eq!(are_granted, [true, true, false]);
}
