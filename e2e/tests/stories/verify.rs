//! Whether it is really the agent who answers at its public URL: anybody may ask, and it asks itself.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use e2e::agent::{Agent, config, new_key, start};
use e2e::forward_proxy::{SOURCE, microsocks};
use e2e::log::Log;
use e2e::origin::{Origin, http, origin};
use e2e::pair::{publish, server};
use e2e::poll::eventually;
use e2e::process::{self, folder};
use e2e::relay::{relay, relay_for};
use e2e::transport::Over;
use rcgen::KeyPair;
use rstest::rstest;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::{TLS12, TLS13};
use rustls::{ServerConfig, SupportedProtocolVersion};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsAcceptor;
use tunnel_client::config::Honesty;
use tunnel_client::outward::{Outward, Proxies};
use tunnel_client::resolve::{Resolve, Resolving};
use tunnel_client::status::Published;
use tunnel_client::verify::{PublicUrl, Verdict, verify};
use tunnel_common::acme::dial::{Dial, Dialling};
use tunnel_common::identity::KeyFingerprint;
use tunnel_common::{key, tls};

/// All names lead to this machine; an address is taken as it is.
#[derive(Debug)]
struct Here;

impl Resolve for Here {
    fn resolve<'a>(&'a self, host: &'a str, port: u16) -> Resolving<'a> {
        let ip = host.parse().unwrap_or(Ipv4Addr::LOCALHOST);
        Box::pin(std::future::ready(Ok(vec![(ip, port).into()])))
    }
}

/// Who answers at `url`, for somebody whose DNS leads here.
async fn verdict(url: &PublicUrl) -> Verdict {
    verify(&Outward::new(Arc::new(Here)), url).await
}

/// Somebody who answers in an agent's place.
struct Impostor {
    address: SocketAddr,
    visitors: Arc<Mutex<HashSet<IpAddr>>>,
    _listening: Origin,
}

async fn impostor(identity: CertifiedKey) -> Impostor {
    impostor_with(identity, &[&TLS12, &TLS13]).await
}

/// One who speaks these versions of TLS only.
async fn impostor_with(
    identity: CertifiedKey,
    versions: &[&'static SupportedProtocolVersion],
) -> Impostor {
    let config = ServerConfig::builder_with_provider(tls::provider())
        .with_protocol_versions(versions)
        .expect("versions")
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(identity)));
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let visitors: Arc<Mutex<HashSet<_>>> = Arc::default();
    let seen = visitors.clone();
    let listening = origin(move |stream: TcpStream| {
        let peer = stream.peer_addr().expect("is connected").ip();
        seen.lock().expect("not poisoned").insert(peer);
        let handshake = acceptor.accept(stream);
        // Who does not like what he sees breaks off.
        async move { drop(handshake.await) }
    });
    let listening = listening.await;
    Impostor {
        address: listening.address,
        visitors,
        _listening: listening,
    }
}

impl Impostor {
    /// Who has come since it was asked last.
    fn visitors(&self) -> HashSet<IpAddr> {
        std::mem::take(&mut *self.visitors.lock().expect("not poisoned"))
    }
}

/// A place that is taken, and where nobody listens.
fn nobody() -> (TcpSocket, SocketAddr) {
    let socket = TcpSocket::new_v4().expect("a socket");
    let any = (Ipv4Addr::LOCALHOST, 0).into();
    socket.bind(any).expect("binds");
    let address = socket.local_addr().expect("bound");
    (socket, address)
}

fn certificate(key: &KeyPair) -> CertifiedKey {
    tls::self_signed(key, &[]).expect("signs")
}

/// The URL of the agent with this key, wherever `at` is.
fn url(of: &KeyPair, at: SocketAddr) -> PublicUrl {
    let (id, port) = (key::fingerprint(of).label(), at.port());
    let url = format!("https://{id}.tunnel.example:{port}");
    url.parse().expect("a URL")
}

#[rstest]
#[tokio::test]
async fn an_agent_is_found_true_whatever_protocols_it_offers(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let (relay, origin) = (relay_for(&["tunnel.example"]).await, http("x").await);
    for alpn in [&[&b"http/1.1"[..]][..], &[b"h2"], &[b"mqtt"], &[]] {
        let mut config = config(over, &relay, new_key(), origin.address);
        config.endpoint.alpn = alpn.iter().map(|name| name.to_vec()).collect();
        let agent = start(config);
        let published = agent.serves_at(1).await;
        let url = published.urls[0].parse().expect("a URL");
        let verdict = verdict(&url).await;
        assert!(
            matches!(verdict, Verdict::True { label } if label == published.id()),
            "{alpn:?}: {verdict:?}"
        );
        agent.stop().await;
    }
}

#[rstest]
#[tokio::test]
async fn whoever_answers_with_another_key_is_lying_and_his_key_is_told(
    #[values(&TLS12, &TLS13)] version: &'static SupportedProtocolVersion,
) {
    let (agents, his) = (new_key(), new_key());
    let impostor = impostor_with(certificate(&his), &[version]).await;
    match verdict(&url(&agents, impostor.address)).await {
        Verdict::Lying { expected, shown } => {
            assert_eq!(expected, key::fingerprint(&agents).label());
            assert_eq!(shown, key::fingerprint(&his));
        }
        other => panic!("{other:?}"),
    }
}

#[rstest]
#[tokio::test]
async fn the_agents_certificate_in_the_hands_of_somebody_without_its_key_proves_nothing(
    #[values(&TLS12, &TLS13)] version: &'static SupportedProtocolVersion,
) {
    let agents = new_key();
    let stolen = CertifiedKey {
        cert: certificate(&agents).cert,
        ..certificate(&new_key())
    };
    let impostor = impostor_with(stolen, &[version]).await;
    let verdict = verdict(&url(&agents, impostor.address)).await;
    assert!(matches!(verdict, Verdict::Unknown { .. }), "{verdict:?}");
}

#[tokio::test]
async fn where_nobody_answers_for_the_name_nothing_is_known() {
    let relay = relay_for(&["tunnel.example"]).await;
    let (_held, nowhere) = nobody();
    for at in [nowhere, relay.public] {
        let verdict = verdict(&url(&new_key(), at)).await;
        assert!(matches!(verdict, Verdict::Unknown { .. }), "{verdict:?}");
    }
}

#[tokio::test]
async fn with_a_proxy_in_force_the_question_goes_through_it() {
    let (proxy, impostor) = (
        microsocks(None).await,
        impostor(certificate(&new_key())).await,
    );
    let url = url(&new_key(), impostor.address);
    let proxy = proxy.url("socks5").parse().ok();
    let proxies = Proxies::by(move |_| Ok(proxy.clone()));
    let through = Outward::new(Arc::new(Here)).with_proxies(proxies);
    let verdict = verify(&through, &url).await;
    assert!(matches!(verdict, Verdict::Lying { .. }), "{verdict:?}");
    assert_eq!(impostor.visitors(), HashSet::from([SOURCE.into()]));
}

/// All names and ports lead to one place, which may change, as DNS does.
#[derive(Debug)]
struct Switch {
    leads_to: Mutex<SocketAddr>,
    dials: AtomicUsize,
}

impl Dial for Switch {
    fn dial<'a>(&'a self, _: &'a str, _: u16) -> Dialling<'a> {
        self.dials.fetch_add(1, Ordering::Relaxed);
        let address = *self.leads_to.lock().expect("not poisoned");
        Box::pin(TcpStream::connect(address))
    }
}

impl Switch {
    fn to(address: SocketAddr) -> Arc<Self> {
        Arc::new(Self {
            leads_to: Mutex::new(address),
            dials: AtomicUsize::new(0),
        })
    }

    fn leads_to(&self, address: SocketAddr) {
        *self.leads_to.lock().expect("not poisoned") = address;
    }

    /// Until it was dialled a few times more.
    async fn is_dialled(&self) {
        let enough = self.dials.load(Ordering::Relaxed) + 4;
        eventually("the agent looks", || {
            self.dials.load(Ordering::Relaxed) >= enough
        })
        .await;
    }
}

/// The agent looks at itself all the time, at names of this machine, too.
const ALWAYS: Honesty = Honesty {
    first: Duration::from_millis(1),
    every: Duration::from_millis(10),
    local_names: true,
};

/// Waits until the agent's first endpoint is, or is not, seen to be impersonated.
async fn is_impersonated(agent: &Agent, wanted: bool) -> Published {
    let is = |first: &Published| first.impersonated == wanted;
    agent.first_is("the agent sees it", is).await
}

#[tokio::test]
async fn an_agent_notices_that_somebody_answers_in_its_place_and_warns_once() {
    let (log, _logging) = Log::of_this_thread();
    let (relay, origin, his) = (relay().await, http("x").await, new_key());
    let impostor = impostor(certificate(&his)).await;
    let (switch, mut config) = (
        Switch::to(relay.public),
        config(Over::Quic, &relay, new_key(), origin.address),
    );
    (config.dial, config.honesty) = (switch.clone(), ALWAYS);
    let agent = start(config);
    switch.is_dialled().await;
    let ours = is_impersonated(&agent, false).await;
    assert_eq!(log.with("IN YOUR PLACE"), Vec::<String>::new());

    switch.leads_to(impostor.address);
    is_impersonated(&agent, true).await;
    switch.is_dialled().await;
    let [warning] = &log.with("IN YOUR PLACE")[..] else {
        panic!("one warning: {:?}", log.with("PLACE"));
    };
    let keys = [key::fingerprint(&his), ours.key].map(|key: KeyFingerprint| key.to_string());
    for part in ["WARN", &ours.urls[0], &keys[0], &keys[1]] {
        assert!(warning.contains(part), "{part}: {warning}");
    }

    let (_held, nowhere) = nobody();
    switch.leads_to(nowhere);
    switch.is_dialled().await;
    is_impersonated(&agent, true).await;
    switch.leads_to(relay.public);
    is_impersonated(&agent, false).await;
    assert_eq!(log.with("your own key is shown again").len(), 1);
    agent.stop().await;
    assert_eq!(Arc::strong_count(&switch), 1, "nobody looks any more");
}

#[tokio::test]
async fn an_agent_that_is_dropped_looks_no_more() {
    let (relay, origin) = (relay().await, http("x").await);
    let switch = Switch::to(relay.public);
    let mut config = config(Over::H2, &relay, new_key(), origin.address);
    (config.dial, config.honesty) = (switch.clone(), ALWAYS);
    let agent = start(config);
    switch.is_dialled().await;
    drop(agent);
    eventually("nobody can look", || Arc::strong_count(&switch) == 1).await;
}

/// What `client verify` says with these flags and variables, and how it ends.
async fn says(flags: &[&str], variables: &[(&str, &str)]) -> (Vec<String>, i32, String) {
    let (folder, flags) = (folder(), [&["verify"], flags].concat());
    let mut command = process::command("client", &flags, &folder);
    command.envs(variables.iter().copied());
    let mut client = process::spawn(command, folder);
    let code = client.exit_code().await;
    (client.rest().await, code, client.log())
}

/// It is one line that begins so.
fn is_line(lines: &[String], begin: &str) {
    assert!(
        matches!(lines, [line] if line.starts_with(begin)),
        "{lines:?}"
    );
}

#[tokio::test]
async fn the_binary_says_in_one_line_and_by_its_exit_code_who_answers() {
    let (server, origin) = (server(&[]).await, http("x").await);
    let client = publish(Over::Quic, &server, origin.address, &[], folder()).await;
    for url in [client.url.clone(), format!("{}/a/path", client.url)] {
        let (lines, code, log) = says(&[&url], &[]).await;
        assert_eq!(code, 0, "{log}");
        is_line(&lines, "TRUE: ");
    }

    let his = new_key();
    let impostor = impostor(certificate(&his)).await;
    let url = format!("{}.localhost:{}", client.id, impostor.address.port());
    let (lines, code, _) = says(&[&url], &[]).await;
    assert_eq!(code, 3);
    is_line(&lines, "LYING: ");
    for part in [&client.id, &key::fingerprint(&his).to_string()] {
        assert!(lines[0].contains(part), "{}", lines[0]);
    }

    let (_held, nowhere) = nobody();
    let url = format!("https://{}.localhost:{}", client.id, nowhere.port());
    let (lines, code, _) = says(&[&url], &[]).await;
    assert_eq!(code, 1);
    is_line(&lines, "UNKNOWN: ");
}

#[tokio::test]
async fn the_binary_takes_no_url_without_an_id_and_no_password_on_its_command_line() {
    let id = key::fingerprint(&new_key()).label();
    let good = format!("https://{id}.localhost:1");
    let cases: [(&[&str], &str); 4] = [
        (&["https://relay.example"], "begins with its id"),
        (&["http://relay.example"], "https://<id>"),
        (&[], "<URL>"),
        (
            &[&good, "--proxy", "http://aladdin:sesame@p:1"],
            "--proxy-credentials",
        ),
    ];
    for (flags, told) in cases {
        let (lines, code, log) = says(flags, &[]).await;
        assert_eq!((lines, code), (vec![], 2), "{log}");
        assert!(log.contains(told) && !log.contains("sesame"), "{log}");
    }
}

#[tokio::test]
async fn the_binary_asks_through_the_proxy_that_holds_for_the_name() {
    let (proxy, impostor) = (
        microsocks(None).await,
        impostor(certificate(&new_key())).await,
    );
    let (socks, port) = (proxy.url("socks5"), impostor.address.port());
    let url = format!("{}.localhost:{port}", key::fingerprint(&new_key()).label());
    let (named, exempt) = (("ALL_PROXY", socks.as_str()), ("NO_PROXY", "localhost"));
    let through: IpAddr = SOURCE.into();
    let direct: IpAddr = Ipv4Addr::LOCALHOST.into();
    let cases = [
        (vec!["--proxy", &socks], vec![], through),
        (vec!["--proxy", &socks], vec![exempt], through),
        (vec![], vec![named], through),
        (vec![], vec![named, exempt], direct),
        (vec!["--proxy", "none"], vec![named], direct),
    ];
    for (flags, variables, from) in cases {
        let (lines, _, log) = says(&[&[url.as_str()], &flags[..]].concat(), &variables).await;
        is_line(&lines, "LYING: ");
        assert_eq!(impostor.visitors(), HashSet::from([from]), "{log}");
    }
}
