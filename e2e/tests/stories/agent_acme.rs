//! An agent gets certificates that browsers trust: the real pebble is the authority.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use e2e::agent::{Agent, config, config_of, new_key, same_key, start};
use e2e::certified::{
    curl, is_certified, is_validated, issued, orders, shown_to_authorities, validated_relay,
};
use e2e::log::Log;
use e2e::origin::http;
use e2e::pebble::{Pebble, Rules, pebble};
use e2e::poll::{eventually, soon, until_ok};
use e2e::process::folder;
use e2e::relay::{Relay, relay_with};
use e2e::transport::Over;
use e2e::visitor::{certificate, get, get_on, key_in, visit};
use rcgen::KeyPair;
use rstest::rstest;
use rustls::pki_types::CertificateDer;
use tempfile::TempDir;
use tokio::sync::Semaphore;
use tunnel_client::config::{EndpointConfig, Issued};
use tunnel_client::resolve::{Resolve, Resolving};
use tunnel_common::acme::dial::{Dial, Dialling};
use tunnel_common::acme::state::CertificateState;
use tunnel_common::key;
use tunnel_common::wire::frame::EndpointRef;

/// A relay, an authority that finds it, and a local service.
struct Town {
    relay: Relay,
    pebble: Pebble,
    origin: e2e::origin::Origin,
    folder: Arc<TempDir>,
}

impl Town {
    async fn new(rules: Rules) -> Self {
        let relay = validated_relay().await;
        let port = relay.alpn.expect("authorities can come").port();
        Self {
            pebble: pebble(port, rules).await,
            relay,
            origin: http("hello").await,
            folder: folder(),
        }
    }

    fn issued(&self) -> Issued {
        issued(&self.pebble, &self.relay, self.folder.path())
    }

    /// An agent of this key that orders from the town's authority.
    fn agent(&self, over: Over, key: &KeyPair) -> Agent {
        self.agent_with(over, key, |_| {})
    }

    fn agent_with(&self, over: Over, key: &KeyPair, change: impl FnOnce(&mut Issued)) -> Agent {
        let mut config = config(over, &self.relay, same_key(key), self.origin.address);
        let mut issued = self.issued();
        change(&mut issued);
        orders(&mut config, issued);
        start(config)
    }

    /// What the agent's visitors are shown now.
    async fn shown(&self, agent: &Agent) -> CertificateDer<'static> {
        let host = agent.host().await;
        certificate(&visit(self.relay.public, &host).await.expect("visits"))
    }
}

async fn is_trusted(agent: &Agent) -> CertificateState {
    agent
        .certificate("an authority vouches", is_certified)
        .await
}

/// Connections that wait until the story lets them go.
#[derive(Debug)]
struct Gated {
    gate: Arc<Semaphore>,
    behind: Arc<dyn Dial>,
}

impl Dial for Gated {
    fn dial<'a>(&'a self, host: &'a str, port: u16) -> Dialling<'a> {
        Box::pin(async move {
            let permit = self.gate.acquire().await.map_err(std::io::Error::other)?;
            permit.forget();
            self.behind.dial(host, port).await
        })
    }
}

#[rstest]
#[tokio::test]
async fn curl_trusts_an_agent_that_an_authority_vouches_for_and_sees_its_own_key(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let town = Town::new(Rules::default()).await;
    let key = new_key();
    let begun = std::time::Instant::now();
    let agent = town.agent(over, &key);
    is_trusted(&agent).await;
    println!("a trusted URL after {:?}", begun.elapsed());
    let roots = town.pebble.issuer_root_file().await;
    let host = agent.host().await;
    assert_eq!(curl(&town.relay, &host, &roots).await, "hello");
    assert_eq!(key_in(&town.shown(&agent).await), key::fingerprint(&key));
    eventually("one order", || town.pebble.orders() == 1).await;
    assert_eq!((town.pebble.accounts(), town.pebble.issued()), (1, 1));
}

#[rstest]
#[tokio::test]
async fn a_certificate_is_renewed_before_its_end_and_who_visits_notices_nothing(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let town = Town::new(Rules {
        validity: Duration::from_secs(12),
        ..Rules::default()
    });
    let town = town.await;
    let agent = town.agent(over, &new_key());
    is_trusted(&agent).await;
    let (first, host) = (town.shown(&agent).await, agent.host().await);
    let mut stays = visit(town.relay.public, &host).await.expect("visits");
    until_ok("another certificate is shown", async || {
        match town.shown(&agent).await {
            shown if shown == first => Err("the first"),
            _ => Ok(()),
        }
    })
    .await;
    assert_eq!(get_on(&mut stays, &host).await.expect("goes on"), "hello");
    let CertificateState::Certified { overdue, .. } = is_trusted(&agent).await else {
        unreachable!("waited for");
    };
    assert_eq!(overdue, None);
    assert_eq!(town.pebble.accounts(), 1);
}

#[tokio::test]
async fn an_agent_that_starts_again_shows_what_it_has_and_asks_nobody() {
    let town = Town::new(Rules::default()).await;
    let key = new_key();
    let first = town.agent(Over::Quic, &key);
    is_trusted(&first).await;
    let shown = town.shown(&first).await;
    first.stop().await;
    let again = town.agent(Over::Quic, &key);
    is_trusted(&again).await;
    assert_eq!(town.shown(&again).await, shown);
    assert_eq!((town.pebble.accounts(), town.pebble.orders()), (1, 1));
}

#[tokio::test]
async fn of_two_replicas_one_orders_and_both_show_what_it_got() {
    let town = Town::new(Rules::default()).await;
    let key = new_key();
    let first = town.agent(Over::Quic, &key);
    first.serves().await;
    let second = town.agent(Over::H2, &key);
    is_trusted(&first).await;
    is_trusted(&second).await;
    eventually("one order", || town.pebble.orders() == 1).await;
    let (host, roots) = (first.host().await, town.pebble.issuer_root_file().await);
    let trusted = curl(&town.relay, &host, &roots).await;
    first.stop().await;
    assert_eq!(curl(&town.relay, &host, &roots).await, trusted);
    assert_eq!((town.pebble.accounts(), town.pebble.orders()), (1, 1));
}

#[rstest]
#[tokio::test]
async fn a_replica_that_orders_gets_a_certificate_though_one_that_does_not_was_here_first(
    #[values(true, false)] is_second_identity: bool,
) {
    let town = Town::new(Rules::default()).await;
    let (key, local) = (new_key(), town.origin.address);
    let first = if is_second_identity {
        let mut config = config(Over::Quic, &town.relay, new_key(), local);
        let local = local.to_string().parse().expect("a service");
        config.second = Some(EndpointConfig {
            name: EndpointRef::secondary(),
            ..EndpointConfig::new(same_key(&key), local)
        });
        start(config)
    } else {
        start(config(Over::Quic, &town.relay, same_key(&key), local))
    };
    first
        .serves_endpoints(1 + usize::from(is_second_identity))
        .await;
    let second = town.agent(Over::H2, &key);
    is_trusted(&second).await;
    assert_eq!((town.pebble.accounts(), town.pebble.orders()), (1, 1));
}

/// One name leads to a place, but not before the story says so; an address is taken as it is.
#[derive(Debug)]
struct Late {
    gate: Arc<Semaphore>,
}

impl Resolve for Late {
    fn resolve<'a>(&'a self, host: &'a str, port: u16) -> Resolving<'a> {
        Box::pin(async move {
            if let Ok(ip) = host.parse::<IpAddr>() {
                return Ok(vec![(ip, port).into()]);
            }
            let _permit = self.gate.acquire().await.map_err(std::io::Error::other)?;
            Ok(vec![(Ipv4Addr::LOCALHOST, port).into()])
        })
    }
}

#[tokio::test]
async fn an_agent_with_two_links_to_one_relay_orders_whichever_of_them_leads() {
    let (log, _logging) = Log::of_this_thread();
    let town = Town::new(Rules {
        validity: Duration::from_secs(12),
        ..Rules::default()
    });
    let town = town.await;
    // The second link comes first, and leads.
    let relays = [&town.relay, &town.relay];
    let mut config = config_of(Over::Quic, &relays, new_key(), town.origin.address);
    let late = format!("late.example:{}", town.relay.api.port());
    config.relays[0].address = late.parse().expect("an address");
    let gate = Arc::new(Semaphore::new(0));
    config.resolver = Arc::new(Late { gate: gate.clone() });
    config.timeouts.resolve = Duration::from_secs(600);
    orders(&mut config, town.issued());
    let agent = start(config);
    is_trusted(&agent).await;
    let first = town.shown(&agent).await;
    gate.add_permits(1);
    eventually("both links serve", || log.with("tunnel serves").len() == 2).await;
    until_ok("the certificate is renewed", async || {
        match town.shown(&agent).await == first {
            true => Err("the first"),
            false => Ok(()),
        }
    })
    .await;
}

#[tokio::test]
async fn all_relays_know_that_an_authority_comes_wherever_the_name_leads() {
    let town = Town::new(Rules::default()).await;
    let other = relay_with(is_validated).await;
    let relays = [&town.relay, &other];
    let mut config = config_of(Over::Quic, &relays, new_key(), town.origin.address);
    let (mut issued, gate) = (town.issued(), Arc::new(Semaphore::new(0)));
    // The agent's own look from outside takes as long as the story's.
    issued.acme.authority.dial = Arc::new(Gated {
        gate: gate.clone(),
        behind: issued.acme.authority.dial,
    });
    orders(&mut config, issued);
    let agent = start(config);
    let host = agent.host().await;
    let [one, two] = relays.map(|relay| relay.alpn.expect("is bound"));
    let answer = until_ok("both relays show the answer", async || {
        let answer = shown_to_authorities(one, &host).await?;
        match shown_to_authorities(two, &host).await? == answer {
            true => Ok(answer),
            false => Err(std::io::Error::other("two answers")),
        }
    });
    let answer = answer.await;
    gate.add_permits(1000);
    is_trusted(&agent).await;
    assert_ne!(answer, town.shown(&agent).await);
    let after = shown_to_authorities(other.alpn.expect("is bound"), &host).await;
    assert!(after.is_err(), "nobody is asked any more");
    let roots = town.pebble.issuer_root_file().await;
    for relay in relays {
        assert_eq!(curl(relay, &host, &roots).await, "hello");
    }
}

#[tokio::test]
async fn a_second_identity_stays_self_signed_and_the_first_is_trusted() {
    let town = Town::new(Rules::default()).await;
    let (key, second) = (new_key(), new_key());
    let mut config = config(Over::Quic, &town.relay, same_key(&key), town.origin.address);
    let local = town.origin.address.to_string().parse().expect("a service");
    config.second = Some(EndpointConfig {
        name: EndpointRef::secondary(),
        ..EndpointConfig::new(same_key(&second), local)
    });
    orders(&mut config, town.issued());
    let agent = start(config);
    agent.serves_endpoints(2).await;
    is_trusted(&agent).await;
    let first = agent.host().await;
    let (_, domain) = first.split_once('.').expect("a domain");
    let label = key::fingerprint(&second).label();
    let visitor = visit(town.relay.public, &format!("{label}.{domain}")).await;
    let shown = certificate(&visitor.expect("visits"));
    assert_eq!(key_in(&shown), key::fingerprint(&second));
    assert_eq!(town.pebble.orders(), 1);
}

#[tokio::test]
async fn an_authority_that_forgets_half_of_its_nonces_gets_its_order_all_the_same() {
    let rules = Rules {
        nonce_reject: 50,
        ..Rules::default()
    };
    let town = Town::new(rules).await;
    let agent = town.agent(Over::Quic, &new_key());
    is_trusted(&agent).await;
    assert_eq!(town.pebble.accounts(), 1);
}

#[tokio::test]
async fn an_account_is_bound_to_the_customers_where_the_authority_wants_that() {
    let hmac = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";
    let rules = Rules {
        eab: Some(("kid-1".to_owned(), hmac.to_owned())),
        ..Rules::default()
    };
    let town = Town::new(rules).await;
    let external = tunnel_common::acme::authority::ExternalAccount::new("kid-1", hmac);
    let external = external.expect("base64url");
    let key = new_key();
    let bound = |issued: &mut Issued| issued.acme.authority.external_account = Some(external);
    let agent = town.agent_with(Over::Quic, &key, bound);
    is_trusted(&agent).await;
    agent.stop().await;
    let without = town.agent(Over::Quic, &key);
    is_trusted(&without).await;
    assert_eq!(town.pebble.accounts(), 1, "it is kept");
}

#[tokio::test]
async fn a_key_of_its_own_for_the_certificate_is_what_visitors_see() {
    let town = Town::new(Rules::default()).await;
    let (key, own) = (new_key(), new_key());
    let with = |issued: &mut Issued| issued.key = Some(same_key(&own));
    let agent = town.agent_with(Over::Quic, &key, with);
    is_trusted(&agent).await;
    assert_eq!(key_in(&town.shown(&agent).await), key::fingerprint(&own));
}

#[tokio::test]
async fn a_name_that_does_not_lead_here_is_never_ordered_and_visitors_are_served_all_the_same() {
    let town = Town::new(Rules::default()).await;
    let elsewhere = e2e::origin::echo().await;
    let astray = |issued: &mut Issued| {
        let towards = e2e::certified::Towards(elsewhere.address);
        issued.acme.authority.dial = Arc::new(towards);
    };
    let agent = town.agent_with(Over::Quic, &new_key(), astray);
    let waits = |state: &CertificateState| matches!(state, CertificateState::Waiting { .. });
    let state = agent.certificate("it waits", waits).await;
    let CertificateState::Waiting { why, .. } = state else {
        unreachable!("waited for");
    };
    assert!(why.contains("would not get here"), "{why}");
    let served = get(town.relay.public, &agent.host().await).await;
    assert_eq!(served.expect("is served"), "hello");
    assert_eq!((town.pebble.accounts(), town.pebble.orders()), (0, 0));
}

#[tokio::test]
async fn an_order_that_is_not_validated_is_not_repeated_for_an_hour_not_even_by_the_next_process() {
    // It comes to a port of somebody else, who hangs up; our own trial finds the way.
    let elsewhere = e2e::origin::origin(async |stream| e2e::origin::reset(stream)).await;
    let (relay, origin, folder) = (validated_relay().await, http("hello").await, folder());
    let pebble = pebble(elsewhere.address.port(), Rules::default()).await;
    let key = new_key();
    let begin = || {
        let mut config = config(Over::Quic, &relay, same_key(&key), origin.address);
        orders(&mut config, issued(&pebble, &relay, folder.path()));
        start(config)
    };
    for _ in 0..2 {
        let agent = begin();
        let waits = |state: &CertificateState| matches!(state, CertificateState::Waiting { .. });
        let state = agent.certificate("it waits", waits).await;
        let CertificateState::Waiting { until, why } = state else {
            unreachable!("waited for");
        };
        let left = until.duration_since(std::time::SystemTime::now());
        let minutes = left.expect("is ahead").as_secs() / 60;
        assert!((58..=66).contains(&minutes), "{minutes} min: {why}");
        assert!(why.contains("validate"), "{why}");
        soon("it ends", agent.stop()).await;
    }
    assert_eq!((pebble.accounts(), pebble.orders()), (1, 1));
}
