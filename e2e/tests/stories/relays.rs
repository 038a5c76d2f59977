//! One agent at several relays: all of them serve it, and none needs another.

use std::path::Path;

use e2e::agent::{at, config, config_of, host, new_key, start};
use e2e::firewall::firewall;
use e2e::origin::http;
use e2e::pair::{self, Server, server};
use e2e::poll::{eventually, soon, until_ok};
use e2e::porter::{no, porter, relay_of, yes};
use e2e::ports::{self, Reserved};
use e2e::process::{Process, client, folder};
use e2e::relay::{relay, relay_for};
use e2e::transport::Over;
use e2e::visitor::{Visitor, certificate, get, get_on, visit};
use rstest::rstest;
use rustix::process::Signal;
use rustls::client::verify_server_name;
use rustls::pki_types::ServerName;
use rustls::server::ParsedCertificate;

const USAGE: i32 = 2;
const REFUSED: i32 = 3;

#[rstest]
#[tokio::test]
async fn visitors_reach_an_agent_through_each_of_its_relays(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let (one, two, origin) = (relay().await, relay().await, http("both").await);
    let agent = start(config_of(over, &[&one, &two], new_key(), origin.address));
    let published = agent.serves_at(2).await;
    assert_eq!(published.shown, published.urls, "a URL of each");
    for (relay, url) in [one, two].iter().zip(&published.urls) {
        assert!(url.ends_with(&relay.public.port().to_string()), "{url}");
        let body = get(relay.public, &host(url)).await;
        assert_eq!(body.expect("an answer"), "both");
    }
    agent.stop().await;
}

/// A server that can be killed, and started again where it was.
struct Phoenix {
    flags: Vec<String>,
    server: Server,
    _ports: (
        Reserved<std::net::UdpSocket>,
        Reserved<std::net::TcpListener>,
    ),
}

async fn phoenix(data: &Path) -> Phoenix {
    let ports = (ports::udp(), ports::tcp());
    let flags = pair::at(ports.0.port, ports.1.port, data);
    Phoenix {
        server: pair::server_at(&flags).await,
        flags,
        _ports: ports,
    }
}

impl Phoenix {
    async fn is_killed(&mut self) {
        self.server.process.signal(Signal::KILL);
        self.server.process.ends().await;
    }

    async fn rises(&mut self) {
        self.server = pair::server_at(&self.flags).await;
    }
}

/// One visitor who stays and others who come, all of whom are served until `done`.
async fn served_until(relay: &Server, staying: &mut Visitor, name: &str, done: impl Fn() -> bool) {
    let visiting = async {
        while !done() {
            let body = get_on(staying, name).await;
            assert_eq!(body.expect("goes on"), "all the time");
            let body = get(relay.visitors(), name).await;
            assert_eq!(body.expect("an answer"), "all the time");
        }
    };
    soon("what the visitors wait for", visiting).await;
}

#[rstest]
#[tokio::test]
async fn the_death_of_a_relay_is_nothing_to_the_visitors_of_another_and_it_is_served_again(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let (data, other, origin) = (folder(), server(&[]).await, http("all the time").await);
    let mut mortal = phoenix(data.path()).await;
    let mut config = {
        let key = mortal.server.key.parse().expect("a fingerprint");
        e2e::agent::config_at(over, mortal.server.api, key, new_key(), origin.address)
    };
    let key = other.key.parse().expect("a fingerprint");
    config.relays.push(at(other.api, key));
    let agent = start(config);
    let name = host(&agent.serves_at(2).await.urls[0]);
    let mut staying = visit(other.visitors(), &name).await.expect("visits");

    mortal.is_killed().await;
    served_until(&other, &mut staying, &name, || agent.urls() == 1).await;
    mortal.rises().await;
    served_until(&other, &mut staying, &name, || agent.urls() == 2).await;
    let body = get(mortal.server.visitors(), &name).await;
    assert_eq!(body.expect("an answer"), "all the time");
}

/// Whether a certificate fits this host.
fn fits(visitor: &Visitor, host: &str) -> bool {
    let certificate = certificate(visitor);
    let certificate = ParsedCertificate::try_from(&certificate).expect("parses");
    let name = ServerName::try_from(host).expect("a name");
    verify_server_name(&certificate, &name).is_ok()
}

#[tokio::test]
async fn one_certificate_fits_the_domains_of_all_relays_also_of_one_that_has_gone() {
    let one = relay_for(&["one.example", "more.example"]).await;
    let (two, origin) = (relay_for(&["two.example"]).await, http("x").await);
    let config = config_of(Over::Quic, &[&one, &two], new_key(), origin.address);
    let agent = start(config);
    let published = agent.serves_at(3).await;
    let hosts: Vec<_> = published.urls.iter().map(|url| host(url)).collect();
    let id = published.id();
    let domains = ["one.example", "more.example", "two.example"];
    assert_eq!(hosts, domains.map(|domain| format!("{id}.{domain}")));
    let shown = [&published.urls[0], &published.urls[2]];
    assert_eq!(published.shown.iter().collect::<Vec<_>>(), shown);

    let visitors =
        [(&one, 0), (&one, 1), (&two, 2)].map(|(relay, at)| visit(relay.public, &hosts[at]));
    for visitor in visitors {
        let visitor = visitor.await.expect("visits");
        assert!(hosts.iter().all(|host| fits(&visitor, host)));
    }
    one.stop().await;
    agent.serves_at(1).await;
    let visitor = visit(two.public, &hosts[2]).await.expect("visits");
    assert!(hosts.iter().all(|host| fits(&visitor, host)));
}

#[rstest]
#[tokio::test]
async fn an_agent_that_one_relay_refuses_for_good_goes_on_until_the_last_does(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let (closed, open) = (porter(|_| no(None)), porter(|_| yes()));
    let (one, two) = (
        relay_of(&closed, |_| {}).await,
        relay_of(&open, |_| {}).await,
    );
    let origin = http("taken in").await;
    let agent = start(config_of(over, &[&one, &two], new_key(), origin.address));
    let name = host(&agent.serves_at(1).await.urls[0]);
    eventually("the other is asked", || !closed.asked().is_empty()).await;
    for _ in 0..5 {
        let body = get(two.public, &name).await;
        assert_eq!(body.expect("an answer"), "taken in");
    }
    open.changes_his_mind(|_| no(None));
    let refused = agent.refused().await;
    assert!(
        refused.to_string().contains("the porter says no"),
        "{refused}"
    );
    assert_eq!(closed.asked().len(), 1, "asked again much later only");
}

/// Connections of the tunnels of one pool.
const POOL: usize = 1;

/// So many visitors that some are on either link, though the first ones came while one was in doubt.
const STAYING: usize = 8;

#[tokio::test]
async fn a_relay_under_two_names_takes_the_links_for_replicas_and_they_do_not_fight() {
    let (porter, origin) = (porter(|_| yes()), http("twice").await);
    let relay = relay_of(&porter, |_| {}).await;
    let (one, two) = (firewall(relay.api).await, firewall(relay.api).await);
    let mut config = config(Over::H2, &relay, new_key(), origin.address);
    config.pool_size = POOL.try_into().expect("small");
    config.relays = [&one, &two]
        .map(|way| at(way.address, relay.fingerprint))
        .into();
    config.last_port = None;
    let agent = start(config);
    let name = host(&agent.serves_at(1).await.urls[0]);
    let wished = || {
        porter
            .asked()
            .iter()
            .filter(|a| !a.hosts.is_empty())
            .count()
    };
    eventually("both links wish for the name", || wished() == 2).await;

    let mut staying = vec![];
    for _ in 0..STAYING {
        let mut visitor = visit(relay.public, &name).await.expect("visits");
        let body = get_on(&mut visitor, &name).await;
        assert_eq!(body.expect("an answer"), "twice");
        staying.push(visitor);
    }
    one.cuts(POOL);
    let mut served = 0;
    for visitor in &mut staying {
        served += usize::from(get_on(visitor, &name).await.is_ok());
    }
    let is_some = (1..STAYING).contains(&served);
    assert!(
        is_some,
        "{served} visits of {STAYING} were on the other link"
    );
    assert_eq!(two.opened(), POOL, "it was never displaced");
}

/// Flags for these servers, each known by its key, and what else is flagged.
fn flags(servers: &[&Server], more: &[&str]) -> Vec<String> {
    let each = servers.iter().flat_map(|server| {
        let (api, key) = (server.api.to_string(), server.key.clone());
        [
            "--server".to_owned(),
            api,
            "--server-fingerprint".to_owned(),
            key,
        ]
    });
    each.chain(more.iter().map(|more| (*more).to_owned()))
        .collect()
}

fn client_of(servers: &[&Server], more: &[&str]) -> Process {
    let flags = flags(servers, more);
    let flags: Vec<_> = flags.iter().map(String::as_str).collect();
    client(&flags, folder())
}

/// Reads standard output until the last block has an id and so many URLs; gives these.
async fn block_of(client: &mut Process, urls: usize) -> Vec<String> {
    let mut block = vec![];
    while block.len() < urls {
        let line = client.line().await.expect("a line");
        match line.strip_prefix("URL: ") {
            Some(url) => block.push(url.to_owned()),
            None => {
                assert!(line.starts_with("ID: "), "{line}");
                block.clear();
            }
        }
    }
    block
}

#[tokio::test]
async fn a_client_prints_a_url_for_each_server_and_nothing_more_over_an_outage_of_one() {
    let (data, other, origin) = (folder(), server(&[]).await, http("printed").await);
    let mut mortal = phoenix(data.path()).await;
    let local = origin.address.to_string();
    let mut client = client_of(&[&mortal.server, &other], &["--local", &local]);
    let urls = block_of(&mut client, 2).await;
    let ports = [mortal.server.visitors().port(), other.visitors().port()];
    for (url, port) in urls.iter().zip(ports) {
        assert!(url.ends_with(&format!(":{port}")), "{url}");
    }

    mortal.is_killed().await;
    let api = mortal.server.api;
    client.logs(&format!("trying {api} again")).await;
    mortal.rises().await;
    let again = async || get(mortal.server.visitors(), &host(&urls[0])).await;
    assert_eq!(until_ok("it is served again", again).await, "printed");
    client.signal(Signal::TERM);
    assert_eq!(client.exit_code().await, 0);
    assert_eq!(client.rest().await, Vec::<String>::new());

    // The log says of which relay it speaks, where there are several.
    let log = client.log();
    for server in [&mortal.server, &other] {
        let link = format!("link{{relay={}}}", server.api);
        let tells = |line: &&str| line.contains(&link) && line.contains("tunnel serves");
        assert!(log.lines().any(|line| tells(&line)), "{link}: {log}");
    }
}

#[tokio::test]
async fn a_client_goes_on_without_a_server_that_refuses_it_and_ends_when_all_do() {
    let ours = server(&["--domain-suffix", "ours.example", "--open"]).await;
    let theirs = server(&["--domain-suffix", "theirs.example", "--open"]).await;
    let origin = http("theirs").await;
    let local = origin.address.to_string();
    let more = ["--local", &local, "--domain-suffix", "theirs.example"];
    let mut client = client_of(&[&ours, &theirs], &more);
    client.logs("asks again in 10 minutes").await;
    let log = client.log();
    let told = log.lines().find(|line| line.contains("asks again"));
    let told = told.expect("was waited for");
    assert!(
        told.contains("ERROR") && told.contains(&ours.api.to_string()),
        "{told}"
    );
    let url = &block_of(&mut client, 1).await[0];
    let body = get(theirs.visitors(), &host(url)).await;
    assert_eq!(body.expect("an answer"), "theirs");
    drop(client);

    let foreign = ["--domain-suffix", "foreign.example"];
    let mut refused = client_of(&[&ours, &theirs], &foreign);
    assert_eq!(refused.exit_code().await, REFUSED, "{}", refused.log());
    assert_eq!(refused.rest().await, Vec::<String>::new());
}

#[tokio::test]
async fn servers_that_are_first_seen_together_are_recorded_each_for_itself() {
    let (one, two, origin) = (server(&[]).await, server(&[]).await, http("x").await);
    let [one_api, two_api, local] =
        [one.api, two.api, origin.address].map(|address| address.to_string());
    let flags = [
        "--server", &one_api, "--server", &two_api, "--local", &local,
    ];
    let mut client = client(&flags, folder());
    block_of(&mut client, 2).await;
    let known = client.folder().path().join("known_relays");
    let known = std::fs::read_to_string(known).expect("is there");
    for server in [one, two] {
        let line = format!("{} {}\n", server.api, server.key);
        assert!(known.contains(&line), "{known}");
    }
}

#[tokio::test]
async fn fingerprints_that_are_not_one_for_each_server_are_a_mistake_that_says_what_to_write() {
    let key = format!("sha256//{}=", "A".repeat(43));
    let flags = [
        "--server",
        "a",
        "--server",
        "b",
        "--server-fingerprint",
        &key,
    ];
    let mut wrong = client(&flags, folder());
    assert_eq!(wrong.exit_code().await, USAGE, "{}", wrong.log());
    let write =
        "--server a:4433 --server-fingerprint sha256//… --server b:4433 --server-fingerprint";
    wrong.logs(write).await;
}

#[tokio::test]
async fn the_log_of_a_client_with_one_server_does_not_name_its_link() {
    let (server, origin) = (server(&[]).await, http("x").await);
    let client = pair::publish(Over::Quic, &server, origin.address, &[], folder()).await;
    assert!(!client.process.log().contains("link{"));
}
