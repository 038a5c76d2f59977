//! What the binaries leave behind: keys, and a log that somebody may or may not read.

use std::collections::HashSet;
use std::os::unix::fs::PermissionsExt as _;

use e2e::origin::http;
use e2e::pair::{self, at, publish, server, server_at};
use e2e::poll::until_ok;
use e2e::ports;
use e2e::process::{self, folder};
use e2e::transport::Over;
use e2e::visitor::{get, say, visit};
use rustix::process::Signal;
use tokio::process::Command;

#[tokio::test]
async fn the_servers_key_is_in_a_file_that_only_its_owner_may_read() {
    let data = folder();
    let flags = at(0, 0, data.path());
    let first = server_at(&flags).await;
    let file = data.path().join("relay.key");
    let mode = file
        .metadata()
        .expect("the key is stored")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(pair::fingerprint(&file).to_string(), first.key);
    // A key that was made is told.
    first.process.logs(&first.key).await;
}

#[tokio::test]
async fn a_key_is_kept_where_the_service_manager_says() {
    let (server, origin, state) = (server(&[]).await, http("x").await, folder());
    let (api, local) = (server.api.to_string(), origin.address.to_string());
    let cases = [
        ("STATE_DIRECTORY", "client.key"),
        ("XDG_STATE_HOME", "client/client.key"),
    ];
    for (variable, file) in cases {
        let elsewhere = folder();
        let mut command = Command::new(process::binary("client"));
        command.args(["--server", &api, "--local", &local]);
        command
            .env_remove("STATE_DIRECTORY")
            .env(variable, state.path());
        let client = pair::serving(process::spawn(command, elsewhere.clone())).await;
        let file = state.path().join(file);
        let id = pair::fingerprint(&file).label().to_string();
        assert_eq!(id, client.id, "{variable}");
        let mode = file.metadata().expect("is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{variable}");
        assert!(!elsewhere.path().join("client.key").exists());
    }
}

#[tokio::test]
async fn clients_that_start_together_in_a_new_folder_have_one_identity() {
    let (server, origin, keys) = (server(&[]).await, http("x").await, folder());
    let (api, local) = (server.api.to_string(), origin.address.to_string());
    let flags = ["--server", &api, "--local", &local];
    let together: Vec<_> = (0..8)
        .map(|_| process::client(&flags, keys.clone()))
        .collect();
    let stored = || pair::fingerprint(&keys.path().join("client.key")).label();
    let mut ids = HashSet::new();
    for client in together {
        ids.insert(pair::serving(client).await.id);
    }
    assert_eq!(ids, HashSet::from([stored().to_string()]));
}

#[tokio::test]
async fn a_client_whose_output_nobody_reads_serves_all_the_same() {
    let (api, public, data, origin) = (ports::udp(), ports::tcp(), folder(), http("mute").await);
    let (to, local, keys) = (
        api.address().to_string(),
        origin.address.to_string(),
        folder(),
    );
    let mut mute = process::client(&["--server", &to, "--local", &local], keys.clone());
    mute.close_output();
    let server = server_at(&at(api.port, public.port, data.path())).await;
    mute.logs("tunnel serves").await;
    let id = pair::fingerprint(&keys.path().join("client.key")).label();
    let host = format!("{id}.localhost");
    let served = until_ok("a visitor is served", async || {
        let log = mute.log();
        get(server.visitors(), &host).await.map_err(|e| (e, log))
    });
    assert_eq!(served.await, "mute");
    mute.signal(Signal::TERM);
    assert_eq!(mute.exit_code().await, 0);
}

#[tokio::test]
async fn a_log_that_nobody_reads_ends_neither() {
    let (mut server, origin) = (server(&[]).await, http("unread").await);
    let mut client = publish(Over::Quic, &server, origin.address, &[], folder()).await;
    server.process.close_log().await;
    client.process.close_log().await;
    // Both have something to log: the server of another client, the client of its end.
    let other = publish(Over::Quic, &server, origin.address, &[], folder()).await;
    for host in [client.host(), other.host()] {
        let body = get(server.visitors(), host).await;
        assert_eq!(body.expect("an answer"), "unread");
    }
    for process in [&mut client.process, &mut server.process] {
        process.signal(Signal::TERM);
        assert_eq!(process.exit_code().await, 0);
    }
}

#[tokio::test]
async fn what_visitors_do_is_not_in_the_log_of_either() {
    let (mut server, origin) = (server(&[]).await, http("x").await);
    let mut client = publish(Over::Quic, &server, origin.address, &[], folder()).await;
    let strange = format!("Evil-{}.localhost", client.id);
    let to = server.visitors();
    visit(to, &strange).await.expect_err("refused");
    for bytes in [&b"SSH-2.0-evil\r\n"[..], b"GET /evil HTTP/1.1\r\n\r\n"] {
        say(to, bytes).await.expect("is answered");
    }
    for _ in 0..5 {
        let body = get(to, client.host()).await;
        assert_eq!(body.expect("an answer"), "x");
    }
    for process in [&mut client.process, &mut server.process] {
        process.signal(Signal::TERM);
        assert_eq!(process.exit_code().await, 0);
        let log = process.log();
        let loud = |line: &&str| {
            let line = line.to_lowercase();
            line.contains("evil") || line.contains(" error ") || line.contains("visit{")
        };
        assert_eq!(log.lines().find(loud), None, "{log}");
    }
}

#[tokio::test]
async fn a_key_that_was_half_written_by_a_process_of_the_same_number_is_in_nobodys_way() {
    let (server, origin, keys) = (server(&[]).await, http("x").await, folder());
    let (api, local) = (server.api.to_string(), origin.address.to_string());
    let flags = ["--server", &api, "--local", &local];
    let client = process::command("client", &flags, &keys);
    // In a container every process has the same number; `exec` keeps it.
    let mut command = Command::new("sh");
    let crashed = r#"touch "$0.$$.tmp" && exec "$@""#;
    command
        .args(["-c", crashed])
        .arg(keys.path().join("client.key"));
    command.arg(client.as_std().get_program());
    command.args(client.as_std().get_args());
    let client = pair::serving(process::spawn(command, keys)).await;
    let body = get(server.visitors(), client.host()).await;
    assert_eq!(body.expect("an answer"), "x");
}
