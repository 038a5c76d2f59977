//! Who may register, who decides it, and what a change of mind does.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use e2e::agent::{config, new_key, publish_as, same_key, start};
use e2e::hello::hello;
use e2e::origin::{echo, http};
use e2e::pair::{self, Server, server};
use e2e::peer::{connect, hello as agents, wanted};
use e2e::poll::soon;
use e2e::porter::{Porter, no, porter, relay_of, yes};
use e2e::process::{self, Process, folder, tool};
use e2e::relay::{Relay, relay_with};
use e2e::transport::Over;
use e2e::visitor::{get, say, visit};
use rcgen::KeyPair;
use rstest::rstest;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::Instant;
use tunnel_common::wire::code::Code;
use tunnel_common::wire::frame::{Frame, Refused};
use tunnel_common::{key, tls};
use tunnel_server::admission::allow_list::AllowList;
use tunnel_server::admission::list_file;
use tunnel_server::config::Suffixes;

const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];
const DOMAIN: &str = "ours.example";
/// Within this an agent that is not allowed any more has lost all that it had.
const REMOVED_WITHIN: Duration = Duration::from_secs(1);

/// A closed server, its files in a folder of the story's.
async fn closed(flags: &[&str], data: &Path) -> Server {
    let data = data.to_str().expect("UTF-8");
    server(&[&["--domain-suffix", DOMAIN, "--data-dir", data], flags].concat()).await
}

fn client(over: Over, server: &Server, origin: std::net::SocketAddr) -> Process {
    let (api, local) = (server.api.to_string(), origin.to_string());
    let flags = ["--server", &api, "--server-fingerprint", &server.key];
    let flags = [&flags[..], &["--local", &local]].concat();
    process::client(&over.with(&flags), folder())
}

/// Runs the command of `server` that this log shows, as its reader would paste it.
async fn paste(log: &str) -> String {
    let (_, command) = log.split_once("run on the relay: server ").expect(log);
    let command = command
        .split_terminator(['\n', ';'])
        .next()
        .expect("a line");
    let words: Vec<_> = command.split(' ').filter(|word| !word.is_empty()).collect();
    run(&words).await
}

async fn run(words: &[&str]) -> String {
    let server = process::binary("server");
    tool(server.to_str().expect("UTF-8"), words).await
}

#[rstest]
#[tokio::test]
async fn a_server_with_a_domain_takes_nobody_in_who_is_not_allowed_and_says_how_to_allow_him(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let (data, origin) = (folder(), http("let in").await);
    let server = closed(&[], data.path()).await;
    let client = client(over, &server, origin.address);
    client.logs("run on the relay: server allow").await;
    let id = pair::fingerprint(&client.folder().path().join("client.key")).label();
    server.process.logs(&id.to_string()).await;
    let host = format!("{id}.{DOMAIN}");
    let said = say(server.visitors(), &hello(&host)).await;
    assert_eq!(said.expect("an alert"), UNRECOGNIZED_NAME);

    let said = paste(&client.log()).await;
    assert!(said.contains("may register now"), "{said}");
    let client = pair::serving(client).await;
    assert_eq!(client.id, id.to_string());
    let body = get(server.visitors(), &host).await;
    assert_eq!(body.expect("an answer"), "let in");
}

#[rstest]
#[tokio::test]
async fn an_agent_that_is_denied_loses_its_tunnels_and_its_visits_within_a_second(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let (data, origin, key) = (folder(), echo().await, new_key());
    let id = key::fingerprint(&key).label().to_string();
    let list = data.path().to_str().expect("UTF-8");
    let (other, others) = (new_key(), data.path().join("others"));
    list_file::allow(&others, key::fingerprint(&other).label(), "").expect("writes");
    run(&["allow", "--data-dir", list, &id, "the", "front", "door"]).await;
    let shown = run(&["clients", "--data-dir", list]).await;
    assert_eq!(shown, format!("{id}  the front door\n"));

    let relay = relay_with(|config| {
        let files = vec![data.path().join("allowed_clients"), others];
        let list = AllowList::load(files, Default::default(), "server allow");
        config.admission = Arc::new(list.expect("reads"));
    });
    let relay = relay.await;
    let other = publish_as(over, &relay, other, origin.address).await;
    let agent = publish_as(over, &relay, same_key(&key), origin.address).await;
    let mut visit_of_agent = visit(relay.public, &agent.host().await)
        .await
        .expect("visits");
    let mut visit_of_other = visit(relay.public, &other.host().await)
        .await
        .expect("visits");

    run(&["deny", "--data-dir", list, &id]).await;
    let denied = Instant::now();
    let mut byte = [0];
    let ended = soon("the visit ends", visit_of_agent.read(&mut byte)).await;
    assert!(ended.is_err(), "cut, and not ended: {ended:?}");
    agent.is_cut_off().await;
    assert!(
        denied.elapsed() < REMOVED_WITHIN,
        "after {:?}",
        denied.elapsed()
    );
    let said = say(relay.public, &hello(&format!("{id}.localhost"))).await;
    assert_eq!(said.expect("an alert"), UNRECOGNIZED_NAME);

    visit_of_other.write_all(b"?").await.expect("goes on");
    let heard = soon(
        "the other visit goes on",
        visit_of_other.read_exact(&mut byte),
    )
    .await;
    assert_eq!((heard.expect("an answer"), byte), (1, *b"?"));
}

#[tokio::test]
async fn agents_are_allowed_by_the_command_line_too_by_id_and_by_file() {
    let (data, origin) = (folder(), http("x").await);
    let keys = [(); 3].map(|()| new_key());
    let ids = keys.each_ref().map(|key| key::fingerprint(key).label());
    let file = data.path().join("others");
    std::fs::write(&file, format!("{} by file\n", ids[1])).expect("writes");
    let by_id = ids[0].to_string();
    let flags = [
        "--allow-client",
        &by_id,
        "--allow-client",
        file.to_str().expect("UTF-8"),
    ];
    let server = closed(&flags, data.path()).await;
    let start = |key: &KeyPair| {
        let files = folder();
        let path = files.path().join("client.key");
        tunnel_common::private_file::create(&path, key.serialize_pem().as_bytes()).expect("writes");
        let (api, local) = (server.api.to_string(), origin.address.to_string());
        process::client(&["--server", &api, "--local", &local], files)
    };
    for key in &keys[..2] {
        pair::serving(start(key)).await;
    }
    let third = start(&keys[2]);
    third.logs("does not know the id").await;
    list_file::allow(&file, ids[2], "by file as well").expect("writes");
    pair::serving(third).await;
}

#[tokio::test]
async fn an_open_server_and_one_without_a_domain_take_everybody_in() {
    let (data, origin) = (folder(), http("x").await);
    let open = closed(&["--open"], data.path()).await;
    pair::serving(client(Over::Quic, &open, origin.address)).await;
    let development = server(&[]).await;
    pair::serving(client(Over::Quic, &development, origin.address)).await;
    let mine = new_key();
    let only_mine = key::fingerprint(&mine).label().to_string();
    let closed = server(&["--allow-client", &only_mine]).await;
    client(Over::Quic, &closed, origin.address)
        .logs("does not know the id")
        .await;
}

#[tokio::test]
async fn what_is_wrong_with_a_list_is_told_at_the_start() {
    let data = folder();
    let list = data.path().join("allowed_clients");
    std::fs::write(&list, "# ours\nnobody\n").expect("writes");
    let data = data.path().to_str().expect("UTF-8");
    let cases = [
        (
            &["--domain-suffix", DOMAIN, "--data-dir", data][..],
            "allowed_clients, line 2",
        ),
        (
            &["--allow-client", "no-such-file"],
            "neither an id nor a file",
        ),
        (&["--allow-client", "x", "--open"], "--open"),
    ];
    for (flags, complaint) in cases {
        let mut server = process::server(flags);
        assert_eq!(server.exit_code().await, 2, "{flags:?}");
        server.logs(complaint).await;
    }
    let nowhere = folder();
    let mut command = tokio::process::Command::new(process::binary("server"));
    command
        .args(["allow", &"a".repeat(26)])
        .env_remove("STATE_DIRECTORY")
        .env_remove("XDG_STATE_HOME");
    let mut lost = process::spawn(command, nowhere);
    assert_eq!(lost.exit_code().await, 1);
    lost.logs("--data-dir").await;
}

/// A relay with a domain whose agents this porter decides about within so long.
async fn relay_for(porter: &Arc<Porter>, admission: Duration) -> Relay {
    relay_of(porter, |config| {
        config.timeouts.admission = admission;
        config.suffixes = Suffixes::These(vec![DOMAIN.parse().expect("a host name")]);
    })
    .await
}

const PATIENT: Duration = Duration::from_secs(60);
const IMPATIENT: Duration = Duration::from_millis(50);

#[rstest]
#[tokio::test]
async fn whoever_decides_gets_the_key_the_id_the_claim_and_the_names(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    use rcgen::PublicKeyData as _;
    let porter = porter(|_| yes());
    let (relay, key, origin) = (
        relay_for(&porter, PATIENT).await,
        new_key(),
        http("x").await,
    );
    let mut config = config(over, &relay, same_key(&key), origin.address);
    config.endpoint.claim = Some(vec![0xca, 0xfe]);
    let agent = start(config);
    let host = agent.host().await;
    let asked = porter.asked();
    let [knocks, applicant] = &asked[..] else {
        panic!("asked when it knocks and when it wishes: {asked:?}");
    };
    assert_eq!(knocks.hosts, []);
    assert_eq!(knocks.id, applicant.id);
    assert_eq!(applicant.id, key::fingerprint(&key));
    assert_eq!(applicant.public_key, key.subject_public_key_info());
    assert_eq!(applicant.extension.as_deref(), Some(&[0xca, 0xfe][..]));
    assert_eq!(applicant.hosts, [host.parse().expect("a host name")]);
    // Visitors do not see what the agent told the relay.
    let visitor = visit(relay.public, &host).await.expect("visits");
    let shown = e2e::visitor::certificate(&visitor);
    assert!(!shown.windows(2).any(|bytes| bytes == [0xca, 0xfe]));
}

#[rstest]
#[tokio::test]
async fn a_refusal_for_good_ends_the_agent_and_another_one_lets_it_come_again(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let porter = porter(|_| no(None));
    let (relay, origin) = (relay_for(&porter, PATIENT).await, http("x").await);
    let refused = start(config(over, &relay, new_key(), origin.address))
        .refused()
        .await;
    assert!(
        refused.to_string().contains("the porter says no"),
        "{refused}"
    );

    porter.changes_his_mind(|_| no(Some(Duration::from_millis(1))));
    let agent = start(config(over, &relay, new_key(), origin.address));
    let again = || porter.asked().len() >= 4;
    e2e::poll::eventually("it comes again and again", again).await;
    porter.changes_his_mind(|_| yes());
    agent.serves().await;
}

#[rstest]
#[tokio::test]
async fn one_who_changes_his_mind_is_heard_at_once(#[values(Over::Quic, Over::H2)] over: Over) {
    let porter = porter(|_| yes());
    let relay = relay_for(&porter, PATIENT).await;
    let peer = connect(over, relay.api, &new_key(), 10).await;
    let (mut control, _) = peer.register(agents(1, 0)).await;
    porter.changes_his_mind(|_| no(Some(Duration::from_secs(7))));
    let refused = Refused {
        code: Code::Refused.number(),
        text: "the porter says no".to_owned(),
        retry_after: Some(7000),
    };
    assert_eq!(control.next().await, Some(Frame::Refused(refused)));
    drop(control);
    assert_eq!(peer.closed_with().await, Code::Refused);
    let host = format!("{}.{DOMAIN}", peer.id);
    let said = say(relay.public, &hello(&host)).await;
    assert_eq!(said.expect("an alert"), UNRECOGNIZED_NAME);
}

#[rstest]
#[tokio::test]
async fn new_wishes_are_asked_about_too(#[values(Over::Quic, Over::H2)] over: Over) {
    let porter = porter(|_| yes());
    let relay = relay_for(&porter, PATIENT).await;
    let peer = connect(over, relay.api, &new_key(), 10).await;
    let (mut control, _) = peer.register(agents(1, 0)).await;
    let host = format!("{}.{DOMAIN}", peer.id);
    let wanted = vec![wanted(Some(host))];
    let frame = Frame::Wanted { rev: 2, wanted };
    control.writer.send(&frame).await.expect("sends");
    let answer = control.next().await;
    assert!(
        matches!(answer, Some(Frame::Granted { rev: 2, .. })),
        "{answer:?}"
    );
    assert_eq!(porter.asked().len(), 2);
}

#[rstest]
#[tokio::test]
async fn one_who_does_not_decide_turns_strangers_away_and_keeps_those_who_are_in(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let porter = porter(|_| None);
    let relay = relay_for(&porter, IMPATIENT).await;
    let stranger = connect(over, relay.api, &new_key(), 10).await;
    let mut control = stranger.control().await;
    let hello = Frame::Hello(agents(1, 0));
    control.writer.send(&hello).await.expect("sends");
    let Some(Frame::Refused(refused)) = control.next().await else {
        panic!("not refused");
    };
    assert!(refused.retry_after.is_some(), "{refused:?}");

    porter.changes_his_mind(|_| yes());
    let peer = connect(over, relay.api, &new_key(), 10).await;
    let (mut control, _) = peer.register(agents(1, 0)).await;
    let asked = porter.asked().len();
    porter.changes_his_mind(|_| None);
    let again = || porter.asked().len() >= asked + 3;
    e2e::poll::eventually("he is asked again and again", again).await;
    assert_eq!(e2e::arrival::rounds(&mut control, 1).await, []);
    porter.changes_his_mind(|_| no(None));
    assert!(matches!(control.next().await, Some(Frame::Refused(_))));
}

#[tokio::test]
async fn a_claim_that_is_no_hexadecimal_or_too_long_is_a_mistake() {
    for (claim, complaint) in [("xyz", "hexadecimal"), (&"00".repeat(7169), "7168")] {
        let flags = [
            "--server",
            "relay.example",
            "--primary-cert-extension-hex",
            claim,
        ];
        let mut client = process::client(&flags, folder());
        assert_eq!(client.exit_code().await, 2);
        client.logs(complaint).await;
    }
    let certified = tls::self_signed_with_claim(&new_key(), Some(&[7; 7168])).expect("signs");
    assert!(certified.cert[0].len() <= 8192, "a relay takes it");
}
