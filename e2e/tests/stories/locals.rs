//! The kinds of local services, with a real web server as each of them.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use e2e::agent::{config, new_key, start};
use e2e::nginx::{Listening, NAME, Nginx, nginx_with};
use e2e::origin::{http, http_at};
use e2e::pair;
use e2e::poll::eventually;
use e2e::process::{self, folder, tool};
use e2e::published::{Published, big_file, published, text};
use e2e::relay::relay;
use e2e::stage::drain_to_reset;
use e2e::transport::Over;
use e2e::visitor::{get, visit};
use e2e::{agent, tools};
use rstest::rstest;
use socket2::{Domain, Socket, Type};
use tunnel_client::config::{Config, EndpointConfig};
use tunnel_client::link::relay_trust::RelayTrust;
use tunnel_client::local::trust::{Listed, LocalTrust};
use tunnel_client::resolve::{Resolve, Resolving, SystemResolver};
use tunnel_common::wire::code::Code;

const TLS: Listening = Listening {
    unix: false,
    tls: true,
    proxy_protocol: false,
};
const UNIX: Listening = Listening {
    unix: true,
    tls: false,
    proxy_protocol: false,
};

/// nginx that listens so, with a page.
async fn web_server(how: Listening) -> Nginx {
    let nginx = nginx_with(how).await;
    std::fs::write(nginx.file("page"), "from nginx").expect("writes");
    nginx
}

/// Gets the page.
async fn page(published: &Published) -> String {
    published.curl(&[&published.url("/page")]).await
}

#[tokio::test]
async fn an_https_service_is_known_by_its_authority_or_by_its_certificate() {
    let nginx = web_server(TLS).await;
    for file in [nginx.authority(), nginx.certificate()] {
        let published = published(Over::Quic, &nginx.local, &["--local-ca", &text(&file)]).await;
        // The second connection resumes the session of the first.
        for _ in 0..2 {
            assert_eq!(page(&published).await, "from nginx", "{}", nginx.log());
        }
        let log = published.client.process.log();
        assert!(!log.contains("is not checked"), "{log}");
    }
}

#[tokio::test]
async fn an_https_service_that_nobody_vouches_for_gets_no_visitor_and_the_log_names_the_way_out() {
    let nginx = web_server(TLS).await;
    let published = published(Over::Quic, &nginx.local, &[]).await;
    let output = published.try_curl(&[&published.url("/page")]).await;
    assert!(!output.status.success(), "{}", tools::text(&output));
    for part in ["UnknownIssuer", "--local-ca", "--local-insecure"] {
        published.client.process.logs(part).await;
    }
}

#[tokio::test]
async fn an_https_service_is_taken_unseen_only_with_a_warning() {
    let nginx = web_server(TLS).await;
    let published = published(Over::Quic, &nginx.local, &["--local-insecure"]).await;
    let warning = format!("{} is not checked", nginx.local);
    published.client.process.logs(&warning).await;
    assert_eq!(page(&published).await, "from nginx");
}

/// Finds one name where it is at the moment, and all else where it is.
#[derive(Debug, Clone)]
struct Moving(Arc<Mutex<SocketAddr>>);

impl Resolve for Moving {
    fn resolve<'a>(&'a self, host: &'a str, port: u16) -> Resolving<'a> {
        if host != NAME {
            return SystemResolver.resolve(host, port);
        }
        let now = *self.0.lock().expect("not poisoned");
        Box::pin(async move { Ok(vec![now]) })
    }
}

#[tokio::test]
async fn the_host_of_the_url_is_the_name_that_an_https_service_is_asked_for() {
    let (relay, nginx) = (relay().await, nginx_with(TLS).await);
    let mut config = config(Over::Quic, &relay, new_key(), format!("https://{NAME}"));
    let listed = Listed::from_pem_file(&nginx.authority()).expect("an authority");
    let local = config.endpoint.local.clone();
    config.endpoint.local = local.with_trust(LocalTrust::Listed(listed));
    config.resolver = Arc::new(Moving(Arc::new(Mutex::new(nginx.address))));
    let agent = start(config);
    let host = agent.host().await;
    let url = format!("https://{host}:{}/visitor", relay.public.port());
    let resolve = format!("{host}:{}:{}", relay.public.port(), relay.public.ip());
    let said = tool("curl", &["-k", "-sS", "--resolve", &resolve, &url]).await;
    assert_eq!(said, format!(" {NAME}"), "{}", nginx.log());
}

#[rstest]
#[tokio::test]
async fn a_name_that_has_moved_is_found_by_the_next_visit(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let (relay, old, new) = (relay().await, http("old").await, http("new").await);
    let place = Arc::new(Mutex::new(old.address));
    let mut config = config(over, &relay, new_key(), format!("http://{NAME}"));
    config.resolver = Arc::new(Moving(place.clone()));
    let agent = start(config);
    let host = agent.host().await;
    assert_eq!(get(relay.public, &host).await.expect("an answer"), "old");
    *place.lock().expect("not poisoned") = new.address;
    assert_eq!(get(relay.public, &host).await.expect("an answer"), "new");
}

#[tokio::test]
async fn a_service_at_an_ipv6_address_is_reached() {
    let (relay, origin) = (relay().await, http_at("[::1]:0", "over six").await);
    let agent = agent::publish(Over::Quic, &relay, origin.address).await;
    let host = agent.host().await;
    let body = get(relay.public, &host).await.expect("an answer");
    assert_eq!(body, "over six");
}

#[rstest]
#[tokio::test]
async fn with_passthrough_the_visitor_sees_the_certificate_of_the_service_and_no_other(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let nginx = web_server(TLS).await;
    let flags = ["--tls", "passthrough"];
    let published = published(over, nginx.address, &flags).await;
    let url = published.url("/page");
    let pin = pair::fingerprint(&nginx.key()).to_string();
    let body = published.curl(&["--pinnedpubkey", &pin, &url]).await;
    assert_eq!(body, "from nginx");
    let agents = published.client.visitor_key().to_string();
    let output = published.try_curl(&["--pinnedpubkey", &agents, &url]).await;
    // 90: "Failed to match the pinned key" (curl's manual page).
    assert_eq!(output.status.code(), Some(90), "{}", tools::errors(&output));
    // What visitor and service agree on is not the agent's to choose.
    let shown = ["--http2", "-w", " %{http_version}", &url];
    assert_eq!(published.curl(&shown).await, "from nginx 1.1");
    let name = published.client.host();
    let said = published.curl(&[&published.url("/visitor")]).await;
    assert_eq!(said, format!(" {name}"));
}

/// 50 MiB each way, compared byte for byte.
async fn moves_big_files(over: Over, nginx: &Nginx, local: &str, flags: &[&str]) {
    let (published, source) = (published(over, local, flags).await, folder());
    let (big, got) = (source.path().join("big"), source.path().join("got"));
    big_file(&big, 50);
    let (big, got, url) = (text(&big), text(&got), published.url("/big"));
    let shown = ["-w", "%{http_code}", "-T", &big, &url];
    assert_eq!(published.curl(&shown).await, "201", "{}", nginx.log());
    tool("cmp", &[&big, &text(&nginx.file("big"))]).await;
    published.curl(&["-o", &got, &url]).await;
    tool("cmp", &[&big, &got]).await;
}

#[rstest]
#[tokio::test]
async fn big_files_go_up_and_down_over_a_unix_socket(#[values(Over::Quic, Over::H2)] over: Over) {
    let nginx = web_server(UNIX).await;
    moves_big_files(over, &nginx, &nginx.local, &[]).await;
}

#[rstest]
#[tokio::test]
async fn big_files_go_up_and_down_over_https(#[values(Over::Quic, Over::H2)] over: Over) {
    let nginx = web_server(TLS).await;
    let authority = text(&nginx.authority());
    moves_big_files(over, &nginx, &nginx.local, &["--local-ca", &authority]).await;
}

#[rstest]
#[tokio::test]
async fn big_files_go_up_and_down_in_passthrough(#[values(Over::Quic, Over::H2)] over: Over) {
    let nginx = web_server(TLS).await;
    let address = nginx.address.to_string();
    moves_big_files(over, &nginx, &address, &["--tls", "passthrough"]).await;
}

#[tokio::test]
async fn a_proxy_header_tells_any_kind_of_service_who_comes() {
    let behind = |how| Listening {
        proxy_protocol: true,
        ..how
    };
    let kinds = [
        (Listening::default(), false),
        (UNIX, false),
        (TLS, false),
        (TLS, true),
    ];
    for (how, passthrough) in kinds {
        let nginx = nginx_with(behind(how)).await;
        let (authority, address) = (text(&nginx.authority()), nginx.address.to_string());
        let (local, more) = match (how.tls, passthrough) {
            (_, true) => (&address, &["--tls", "passthrough"][..]),
            (true, _) => (&nginx.local, &["--local-ca", authority.as_str()][..]),
            (false, _) => (&nginx.local, &[][..]),
        };
        for version in ["v1", "v2"] {
            let flags = [&["--proxy-protocol", version], more].concat();
            let published = published(Over::Quic, local, &flags).await;
            let url = published.url("/visitor");
            let said = published.curl(&["--interface", "127.0.0.5", &url]).await;
            let kind = format!("{version} {how:?} {passthrough}: {said} {}", nginx.log());
            assert!(said.starts_with("127.0.0.5 "), "{kind}");
        }
    }
}

/// A TCP address that takes no connection and refuses none, as long as the sockets live.
fn black_hole() -> (SocketAddr, [OwnedFd; 2]) {
    let [listener, waiting] = [(); 2].map(|()| Socket::new(Domain::IPV4, Type::STREAM, None));
    let (listener, waiting) = (listener.expect("a socket"), waiting.expect("a socket"));
    let any: SocketAddr = "127.0.0.1:0".parse().expect("an address");
    listener.bind(&any.into()).expect("binds");
    listener.listen(0).expect("listens");
    let address = listener.local_addr().expect("bound");
    waiting.connect(&address).expect("fills the queue");
    let address = address.as_socket().expect("TCP");
    (address, [listener.into(), waiting.into()])
}

#[rstest]
#[tokio::test]
async fn the_relay_is_told_whether_the_service_refused_or_did_not_answer(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    const DIAL: Duration = Duration::from_millis(300);
    let (hole, _held) = black_hole();
    let gone = http("never").await.address;
    for (local, code) in [(gone, Code::LocalRefused), (hole, Code::LocalTimeout)] {
        let server = process::server_logging("debug", &[]);
        let server = pair::introduce(server).await;
        let relay = server.api.to_string().parse().expect("an address");
        let local = local.to_string().parse().expect("a service");
        let mut config = Config::new(relay, EndpointConfig::new(new_key(), local));
        config.relays[0].trust = RelayTrust::Pinned(server.key.parse().expect("a fingerprint"));
        config.timeouts.local_dial = DIAL;
        over.set(&mut config);
        let agent = start(config);
        let host = agent.host().await;
        let since = Instant::now();
        if let Ok(mut visitor) = visit(server.visitors(), &host).await {
            assert_eq!(drain_to_reset(&mut visitor).await, 0);
        }
        assert!(code == Code::LocalRefused || since.elapsed() >= DIAL);
        let told = match over {
            Over::Quic => format!("Reset({})", code.number()),
            Over::H2 => format!("ResetByPeer({code:?})"),
        };
        eventually(&format!("the relay's log has {told}"), || {
            server.process.log().contains(&told)
        })
        .await;
    }
}

#[tokio::test]
async fn every_line_about_a_visit_in_the_clients_log_names_it_and_the_visitor() {
    let (server, origin, keys) = (pair::server(&[]).await, http("x").await, folder());
    let (api, local) = (server.api.to_string(), origin.address.to_string());
    let flags = ["--server", &api, "--local", &local];
    let mut command = process::command("client", &flags, &keys);
    command.env("RUST_LOG", "tunnel_client=debug");
    let client = pair::serving(process::spawn(command, keys)).await;
    let body = get(server.visitors(), client.host()).await;
    assert_eq!(body.expect("an answer"), "x");
    client.process.logs("visit over").await;
    let log = client.process.log();
    let about: Vec<_> = log.lines().filter(|line| line.contains("visit")).collect();
    let named = |line: &&str| line.contains("visit{id=") && line.contains("visitor=127.0.0.1:");
    assert!(about.len() >= 2 && about.iter().all(named), "{log}");
}

#[tokio::test]
async fn wrong_flags_about_the_local_service_are_told_at_once_and_end_the_client() {
    let flags = [
        "--server",
        "127.0.0.1:1",
        "--local",
        "http://x",
        "--local-ca",
        "/nowhere/ca.pem",
        "--local-insecure",
    ];
    let mut client = process::client(&flags, folder());
    assert_eq!(client.exit_code().await, 2);
    for part in ["no https:// service", "one of the two", "/nowhere/ca.pem"] {
        client.logs(part).await;
    }
    let bad = ["--server", "x", "--local", "https://user@nas.lan"];
    let mut client = process::client(&bad, folder());
    assert_eq!(client.exit_code().await, 2);
    client.logs("holds no user and no password").await;
}
