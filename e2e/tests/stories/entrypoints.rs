//! The entrypoints of the images: what the environment becomes, what is refused, and that the program takes the
//! place of the script.

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use e2e::origin::http;
use e2e::pair;
use e2e::poll::{eventually, until_ok};
use e2e::ports::{self, ADDRESS};
use e2e::process::{self, Process, folder};
use e2e::published::text;
use e2e::visitor::get;
use rcgen::KeyPair;
use rstest::rstest;
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::process::Command;
use tunnel_common::key;

/// Says who it is, and its arguments, one a line.
const FAKE: &str = "#!/bin/sh\necho $$\nfor flag in \"$@\"; do echo \"$flag\"; done\n";
const ID: &str = "3kousix2rszq526vyn6uvuzoce";

fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// The script `docker/<name>.sh` in this environment and no other, with its programs in `bin`.
fn script(name: &str, bin: &Path, variables: &[(&str, &str)], folder: &TempDir) -> Command {
    let mut command = Command::new(project(&format!("docker/{name}.sh")));
    command.env_clear();
    command.env("PATH", format!("{}:/usr/bin:/bin", bin.display()));
    command.env("STATE_DIRECTORY", folder.path());
    command.envs(variables.iter().copied());
    command
}

/// What the entrypoint of `program` comes to: the arguments of the program, the exit code, and the log.
async fn becomes(
    program: &str,
    variables: &[(&str, &str)],
    arguments: &[&str],
    folder: &Arc<TempDir>,
) -> (Vec<String>, i32, String) {
    let fake = folder.path().join(program);
    fs::write(&fake, FAKE).expect("writes");
    fs::set_permissions(&fake, fs::Permissions::from_mode(0o755)).expect("is ours");
    let name = format!("{program}-entrypoint");
    let mut command = script(&name, folder.path(), variables, folder);
    command.args(arguments);
    let mut process = process::spawn(command, folder.clone());
    let id = process.id();
    let mut said = process.rest().await.into_iter();
    if let Some(first) = said.next() {
        assert_eq!(first, id.to_string(), "the program has the script's place");
    }
    let code = process.exit_code().await;
    (said.collect(), code, process.log())
}

/// `A=1 B=2`, as a shell reads it.
fn variables(text: &str) -> Vec<(&str, &str)> {
    let pairs = text.split_whitespace();
    pairs
        .map(|pair| pair.split_once('=').expect("NAME=value"))
        .collect()
}

#[rstest]
#[case::nothing("", "")]
#[case::empty_is_unset("DOMAIN_SUFFIX= API_PORT= OPEN= TLS_CERT= ALLOW_CLIENT=", "")]
#[case::domains(
    "DOMAIN_SUFFIX=a.example,b.example",
    "--domain-suffix a.example --domain-suffix b.example"
)]
#[case::certificate(
    "ACME_DOMAIN=t.example ACME_EMAIL=me@t.example ACME_STAGING=1 ACME_CREDS_PATH=creds.json",
    "--acme-domain t.example --acme-email me@t.example --acme-staging --acme-creds-path creds.json"
)]
#[case::switched_off(
    "ACME_DOMAIN=t.example ACME_STAGING=false OPEN=0",
    "--acme-domain t.example"
)]
#[case::useless("ACME_EMAIL=me@t.example ACME_STAGING=yes", "")]
#[case::own_certificate("TLS_CERT=there TLS_KEY=there", "--tls-cert there --tls-key there")]
#[case::ports(
    "API_PORT=1 PUB_PORT=443 ALPN_PORT=65535 ADMIN_ADDR=127.0.0.1:9",
    "--api-port 1 --pub-port 443 --alpn-port 65535 --admin-addr 127.0.0.1:9"
)]
#[case::allowed(
    "ALLOW_CLIENT=3kousix2rszq526vyn6uvuzoce,there",
    "--allow-client 3kousix2rszq526vyn6uvuzoce --allow-client there"
)]
#[case::open(
    "DOMAIN_SUFFIX=a.example OPEN=True",
    "--domain-suffix a.example --open"
)]
#[tokio::test]
async fn the_environment_of_a_relay_becomes_flags(#[case] given: &str, #[case] flags: &str) {
    let folder = folder();
    fs::write(folder.path().join("there"), "").expect("writes");
    let (said, code, log) = becomes("server", &variables(given), &[], &folder).await;
    assert_eq!((said.join(" "), code), (flags.to_owned(), 0), "{log}");
}

#[rstest]
#[case::one_relay("SERVER_ADDR=t.example", "--server t.example")]
#[case::several(
    "SERVER_ADDR=a.example,b.example:99,[::1]:9",
    "--server a.example --server b.example:99 --server [::1]:9"
)]
#[case::known(
    "SERVER_ADDR=t SERVER_FINGERPRINT=sha256//pNsGb0rMzVJC0Ne2+hpkfXzBAAGQ6CI2uDyTxBbWdcU=",
    "--server t --server-fingerprint sha256//pNsGb0rMzVJC0Ne2+hpkfXzBAAGQ6CI2uDyTxBbWdcU="
)]
#[case::local(
    "SERVER_ADDR=t LOCAL_ADDR=https://nas.lan",
    "--server t --local https://nas.lan"
)]
#[case::socket(
    "SERVER_ADDR=t LOCAL_ADDR=unix:/run/web.sock",
    "--server t --local unix:/run/web.sock"
)]
#[case::keys(
    "SERVER_ADDR=t PRIMARY_KEY=/k/a PRIMARY_CERT_EXTENSION_HEX=00fF SECONDARY_KEY=b \
     SECONDARY_CERT_EXTENSION_HEX=01 CERT_PEM=c.pem",
    "--server t --primary-key /k/a --primary-cert-extension-hex 00fF --secondary-key b \
     --secondary-cert-extension-hex 01 --cert-pem c.pem"
)]
#[case::ways(
    "SERVER_ADDR=t FORCE_HTTP2=on POOL_SIZE=8",
    "--server t --force-h2 --pool-size 8"
)]
#[case::not_forced("SERVER_ADDR=t FORCE_HTTP2=no POOL_SIZE=", "--server t")]
#[case::certificate(
    "SERVER_ADDR=t DOMAIN_SUFFIX=a.example ACME_EMAIL=me@a.example ACME_STAGING=true ACME_CREDS_PATH=/k/c",
    "--server t --domain-suffix a.example --acme-email me@a.example --acme-staging --acme-creds-path /k/c"
)]
#[case::own_certificate(
    "SERVER_ADDR=t TLS_CERT=there TLS_KEY=there READY_FILE=/tmp/ready",
    "--server t --tls-cert there --tls-key there --ready-file /tmp/ready"
)]
#[tokio::test]
async fn the_environment_of_an_agent_becomes_flags(#[case] given: &str, #[case] flags: &str) {
    let folder = folder();
    fs::write(folder.path().join("there"), "").expect("writes");
    let (said, code, log) = becomes("client", &variables(given), &[], &folder).await;
    let flags: Vec<_> = flags.split_whitespace().collect();
    assert_eq!((said.join(" "), code), (flags.join(" "), 0), "{log}");
}

#[tokio::test]
async fn arguments_come_behind_the_flags_and_a_command_has_none_but_its_own() {
    let (folder, port) = (folder(), [("API_PORT", "5")]);
    let (said, ..) = becomes("server", &port, &["--drain-delay", "3"], &folder).await;
    assert_eq!(said, ["--api-port", "5", "--drain-delay", "3"]);
    let (said, ..) = becomes("server", &port, &["allow", ID, "a  comment"], &folder).await;
    assert_eq!(said, ["allow", ID, "a  comment"]);
    let blanks = [("ALLOW_CLIENT", " there , there ")];
    fs::write(folder.path().join("there"), "").expect("writes");
    let (said, ..) = becomes("server", &blanks, &[], &folder).await;
    assert_eq!(said, ["--allow-client", "there", "--allow-client", "there"]);
    let (said, code, _) = becomes("client", &[], &["verify", "https://x"], &folder).await;
    assert_eq!((said.join(" "), code), ("verify https://x".to_owned(), 0));
    let (said, code, _) = becomes("client", &[], &["--help"], &folder).await;
    assert_eq!((said.join(" "), code), ("--help".to_owned(), 0));
}

#[rstest]
#[case("server", "API_PORT=http", "a port, 1 to 65535, not 'http'")]
#[case("server", "PUB_PORT=65536", "a port, 1 to 65535")]
#[case("server", "ALPN_PORT=0", "a port, 1 to 65535")]
#[case("server", "OPEN=maybe", "1 or 0")]
#[case("server", "DOMAIN_SUFFIX=https://t.example", "a host name")]
#[case("server", "DOMAIN_SUFFIX=a.example,,b.example", "a host name")]
#[case("server", "ACME_DOMAIN=*.t.example", "a host name")]
#[case("server", "ACME_EMAIL=nobody", "an e-mail address")]
#[case("server", "ACME_STAGING=x", "1 or 0")]
#[case(
    "server",
    "ACME_DOMAIN=t.example ACME_CREDS_PATH=.",
    "the path of a file"
)]
#[case("server", "TLS_CERT=nowhere TLS_KEY=there", "a file that can be read")]
#[case("server", "TLS_CERT=there", "TLS_KEY")]
#[case("server", "TLS_KEY=there", "TLS_CERT")]
#[case(
    "server",
    "TLS_CERT=there TLS_KEY=there ACME_DOMAIN=t.example",
    "ACME_DOMAIN"
)]
#[case("server", "ALLOW_CLIENT=nobody", "the id of an agent")]
#[case("server", "OPEN=1 ALLOW_CLIENT=there", "no ALLOW_CLIENT")]
#[case("server", "ADMIN_ADDR=9433", "an address and a port")]
#[case("client", "", "SERVER_ADDR is missing")]
#[case("client", "SERVER_ADDR=https://t.example", "host or host:port")]
#[case("client", "SERVER_ADDR=t:99999", "host or host:port")]
#[case("client", "SERVER_ADDR=t SERVER_FINGERPRINT=pNsG", "sha256//")]
#[case(
    "client",
    "SERVER_ADDR=a,b SERVER_FINGERPRINT=sha256//pNsGb0rMzVJC0Ne2+hpkfXzBAAGQ6CI2uDyTxBbWdcU=",
    "one fingerprint for each relay"
)]
#[case("client", "SERVER_ADDR=t LOCAL_ADDR=localhost", "host:port")]
#[case("client", "SERVER_ADDR=t LOCAL_ADDR=ftp://nas.lan", "http://host")]
#[case("client", "SERVER_ADDR=t PRIMARY_KEY=/", "the path of a file")]
#[case("client", "SERVER_ADDR=t SECONDARY_KEY=/tmp", "the path of a file")]
#[case("client", "SERVER_ADDR=t POOL_SIZE=9", "a number from 1 to 8")]
#[case("client", "SERVER_ADDR=t FORCE_HTTP2=h2", "1 or 0")]
#[case(
    "client",
    "SERVER_ADDR=t PRIMARY_CERT_EXTENSION_HEX=abc",
    "hexadecimal"
)]
#[case(
    "client",
    "SERVER_ADDR=t SECONDARY_CERT_EXTENSION_HEX=ab",
    "SECONDARY_KEY"
)]
#[case(
    "client",
    "SERVER_ADDR=t DOMAIN_SUFFIX=a.example,b.example",
    "a host name"
)]
#[case("client", "SERVER_ADDR=t ACME_EMAIL=@", "an e-mail address")]
#[case("client", "SERVER_ADDR=t ACME_STAGING=2", "1 or 0")]
#[case("client", "SERVER_ADDR=t CERT_PEM=/", "the path of a file")]
#[tokio::test]
async fn a_wrong_value_starts_nothing_and_is_told_with_its_name_and_what_it_takes(
    #[case] program: &str,
    #[case] given: &str,
    #[case] takes: &str,
) {
    let folder = folder();
    fs::write(folder.path().join("there"), "").expect("writes");
    let (said, code, log) = becomes(program, &variables(given), &[], &folder).await;
    assert_eq!((said.as_slice(), code), (&[][..], 2), "{log}");
    let told = |line: &str| line.contains(takes) && line.contains(" takes ");
    assert!(log.lines().any(told), "{log}");
}

#[tokio::test]
async fn all_wrong_values_are_told_at_once() {
    let given = variables("SERVER_ADDR=: LOCAL_ADDR=: POOL_SIZE=0");
    let (_, code, log) = becomes("client", &given, &[], &folder()).await;
    assert_eq!((code, log.lines().count()), (2, 3), "{log}");
    let names = ["SERVER_ADDR", "LOCAL_ADDR", "POOL_SIZE"];
    for (name, line) in names.into_iter().zip(log.lines()) {
        assert!(line.starts_with(name), "{log}");
    }
}

/// The entrypoint of `program` with the real one behind it.
fn start(
    program: &str,
    given: &[(&str, &str)],
    arguments: &[&str],
    folder: &Arc<TempDir>,
) -> Process {
    let binary = process::binary(program);
    let bin = binary.parent().expect("a folder");
    let mut command = script(&format!("{program}-entrypoint"), bin, given, folder);
    command.args(arguments);
    process::spawn(command, folder.clone())
}

async fn is_healthy(admin: &str, folder: &Arc<TempDir>) -> bool {
    let given = [("ADMIN_ADDR", admin)];
    let command = script("server-healthcheck", "/usr/bin".as_ref(), &given, folder);
    process::spawn(command, folder.clone()).exit_code().await == 0
}

#[tokio::test]
async fn with_the_environment_alone_a_relay_and_an_agent_serve_tell_their_health_and_end_when_asked()
 {
    let (api, public, admin) = (ports::udp(), ports::tcp(), ports::tcp());
    let (api, public_port) = (api.address().to_string(), public.port.to_string());
    let admin = admin.address().to_string();
    let (keys, origin) = (folder(), http("from the environment").await);
    let of_relay: [(&str, &str); 4] = [
        ("API_PORT", api.rsplit(':').next().expect("a port")),
        ("PUB_PORT", &public_port),
        ("ALPN_PORT", &public_port),
        ("ADMIN_ADDR", &admin),
    ];
    assert!(!is_healthy(&admin, &keys).await);
    let address = ADDRESS.to_string();
    let bind = ["--bind-addr", &address];
    let mut relay = pair::introduce(start("server", &of_relay, &bind, &keys)).await;
    assert!(is_healthy(&admin, &keys).await, "{}", relay.process.log());

    let local = origin.address.to_string();
    let (own, ready) = (folder(), keys.path().join("ready"));
    let of_agent: [(&str, &str); 4] = [
        ("SERVER_ADDR", api.as_str()),
        ("SERVER_FINGERPRINT", &relay.key),
        ("LOCAL_ADDR", &local),
        ("READY_FILE", &text(&ready)),
    ];
    let mut agent = pair::serving(start("client", &of_agent, &[], &own)).await;
    let page = until_ok("a visitor is served", async || {
        get(relay.visitors(), agent.host()).await
    });
    assert_eq!(page.await, "from the environment");
    let url = format!("{}\n", agent.url);
    eventually("the file has the URL", || {
        fs::read_to_string(&ready).is_ok_and(|text| text == url)
    })
    .await;

    relay.process.signal(Signal::TERM);
    assert_eq!(relay.process.exit_code().await, 0);
    assert!(!is_healthy(&admin, &keys).await);
    eventually("the file has gone", || !ready.exists()).await;
    agent.process.signal(Signal::TERM);
    assert_eq!(agent.process.exit_code().await, 0);
    assert!(own.path().join("client.key").exists());
}

#[rstest]
#[case::relay_orders(
    "server",
    "DOMAIN_SUFFIX=t.example ACME_DOMAIN=t.example ACME_EMAIL=me@t.example ACME_STAGING=1 ACME_CREDS_PATH=c \
     API_PORT=1 PUB_PORT=2 ALPN_PORT=3 OPEN=1 ADMIN_ADDR=[::1]:4"
)]
#[case::relay_brings("server", "TLS_CERT=there TLS_KEY=there ALLOW_CLIENT=there")]
#[case::agent_orders(
    "client",
    "SERVER_ADDR=t.example:1 SERVER_FINGERPRINT=PIN LOCAL_ADDR=3 PRIMARY_KEY=a SECONDARY_KEY=b \
     PRIMARY_CERT_EXTENSION_HEX=01 SECONDARY_CERT_EXTENSION_HEX=02 DOMAIN_SUFFIX=t.example FORCE_HTTP2=1 \
     POOL_SIZE=2 ACME_EMAIL=me@t.example ACME_STAGING=1 ACME_CREDS_PATH=c CERT_PEM=d READY_FILE=e"
)]
#[case::agent_brings("client", "SERVER_ADDR=t.example TLS_CERT=there TLS_KEY=there")]
#[tokio::test]
async fn the_programs_know_all_these_flags(#[case] program: &str, #[case] given: &str) {
    let folder = folder();
    fs::write(folder.path().join("there"), "").expect("writes");
    let pin = key::fingerprint(&KeyPair::generate().expect("a key")).to_string();
    let given = given.replace("PIN", &pin);
    // What the flags say is read before the help is shown.
    let mut process = start(program, &variables(&given), &["--help"], &folder);
    let said = process.rest().await;
    assert_eq!(process.exit_code().await, 0, "{}", process.log());
    assert!(said.iter().any(|line| line.contains("Usage")), "{said:?}");
}

#[test]
fn the_images_are_built_with_the_compiler_that_the_workspace_names() {
    let dockerfile = fs::read_to_string(project("Dockerfile")).expect("reads");
    let wanted = env!("CARGO_PKG_RUST_VERSION");
    let line = format!("ARG RUST_IMAGE=rust:{wanted}-slim-bookworm");
    assert!(dockerfile.lines().any(|has| has == line), "{line}");
}
