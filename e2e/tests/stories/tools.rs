//! Real tools as visitors, and a real web server as the local service.

use std::net::{Ipv4Addr, TcpListener};

use e2e::nginx::{Nginx, nginx};
use e2e::origin::{Origin, http, origin};
use e2e::pair::{Client, publish, server};
use e2e::poll::{soon, until_ok};
use e2e::process::{self, folder, tool};
use e2e::published::{Published, big_file, published, text};
use e2e::tools;
use e2e::transport::Over;
use rstest::rstest;
use rustix::process::Signal;
use tokio::io::AsyncReadExt as _;
use tokio::sync::mpsc;

#[rstest]
#[tokio::test]
async fn curl_gets_the_page_and_sees_the_agents_key_and_no_other(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let origin = http("hello, curl").await;
    let published = published(over, origin.address, &[]).await;
    let url = published.url("/");
    assert_eq!(published.curl(&[&url]).await, "hello, curl");

    let pin = published.client.visitor_key().to_string();
    let body = published.curl(&["--pinnedpubkey", &pin, &url]).await;
    assert_eq!(body, "hello, curl");

    let relays = published.server.key.as_str();
    let output = published.try_curl(&["--pinnedpubkey", relays, &url]).await;
    // 90: "Failed to match the pinned key" (curl's manual page).
    assert_eq!(output.status.code(), Some(90), "{}", tools::errors(&output));
}

#[tokio::test]
async fn curl_that_speaks_plain_http_is_sent_to_https() {
    let origin = http("over https").await;
    let published = published(Over::Quic, origin.address, &[]).await;
    let https = published.url("/a/path?and=query");
    let plain = https.replace("https://", "http://");
    let shown = "%{http_code} %{redirect_url}";
    let told = published
        .curl(&["-o", "/dev/null", "-w", shown, &plain])
        .await;
    assert_eq!(told, format!("308 {https}"));
    let shown = "\n%{http_code} %{num_redirects} %{url_effective}";
    let followed = published.curl(&["-L", "-w", shown, &plain]).await;
    assert_eq!(followed, format!("over https\n200 1 {https}"));
}

/// An origin that tells what each connection sent until it ended.
async fn hears_out() -> (Origin, mpsc::UnboundedReceiver<std::io::Result<String>>) {
    let (sender, heard) = mpsc::unbounded_channel();
    let origin = origin(move |mut stream| {
        let sender = sender.clone();
        async move {
            let mut text = String::new();
            let read = stream.read_to_string(&mut text).await;
            // A story that ended does not listen any more.
            let _ = sender.send(read.map(|_| text));
        }
    });
    (origin.await, heard)
}

#[rstest]
#[tokio::test]
async fn openssl_gets_tls_1_3_and_its_end_of_input_arrives_as_an_end(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let (origin, mut heard) = hears_out().await;
    let published = published(over, origin.address, &[]).await;
    let (to, host) = (published.server.visitors(), published.client.host());
    let line = format!(
        "printf 'from openssl\\n' | openssl s_client -connect {to} -servername {host} -brief 2>&1"
    );
    let said = tool("sh", &["-c", &line]).await;
    assert!(said.contains("Protocol version: TLSv1.3"), "{said}");
    let sent = soon("the local service hears the end", heard.recv()).await;
    let sent = sent.expect("the origin runs");
    assert_eq!(sent.expect("a clean end"), "from openssl\n");
}

#[tokio::test]
async fn openssl_without_a_server_name_gets_the_alert_that_says_so() {
    let origin = http("x").await;
    let published = published(Over::Quic, origin.address, &[]).await;
    let to = published.server.visitors().to_string();
    let output = tools::run("openssl", &["s_client", "-connect", &to, "-noservername"]).await;
    assert!(!output.status.success(), "no default agent");
    let said = tools::errors(&output);
    assert!(said.contains("SSL alert number 109"), "{said}");
}

async fn web_server(over: Over) -> (Nginx, Published) {
    let nginx = nginx().await;
    std::fs::write(nginx.file("page"), "from nginx").expect("writes");
    let published = published(over, nginx.address, &[]).await;
    (nginx, published)
}

#[rstest]
#[tokio::test]
async fn curl_keeps_its_connection_to_nginx_for_a_second_request(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let (nginx, published) = web_server(over).await;
    let url = published.url("/page");
    let shown = " %{num_connects}\n";
    let said = published.curl(&["-w", shown, &url, &url]).await;
    assert_eq!(said, "from nginx 1\nfrom nginx 0\n", "{}", nginx.log());
}

#[rstest]
#[tokio::test]
async fn curl_downloads_100_mib_from_nginx_and_every_byte_is_right(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let (nginx, published) = web_server(over).await;
    big_file(&nginx.file("big"), 100);
    let got = text(&nginx.file("got"));
    published.curl(&["-o", &got, &published.url("/big")]).await;
    tool("cmp", &[&text(&nginx.file("big")), &got]).await;
}

#[rstest]
#[tokio::test]
async fn curl_uploads_50_mib_to_nginx_and_every_byte_is_right(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let (nginx, published) = web_server(over).await;
    let source = folder();
    let big = source.path().join("big");
    big_file(&big, 50);
    let url = published.url("/uploaded");
    let big = text(&big);
    let shown = ["-w", "%{http_code}", "-T", &big, &url];
    assert_eq!(published.curl(&shown).await, "201", "{}", nginx.log());
    tool("cmp", &[&big, &text(&nginx.file("uploaded"))]).await;
}

#[tokio::test]
async fn the_demo_prints_curl_lines_that_work_when_pasted() {
    let mut demo = process::client(&["demo"], folder());
    let url = demo.line_after("URL: https://").await;
    let mut lines = vec![];
    while lines.len() < 2 {
        let line = demo.line().await.expect("two curl lines");
        if line.starts_with("curl ") {
            lines.push(line);
        }
    }
    for line in &lines {
        assert!(line.contains(&url), "{line}");
        let page = tool("sh", &["-c", line]).await;
        assert!(page.starts_with("It works."), "{line}: {page}");
    }
    demo.signal(Signal::INT);
    assert_eq!(demo.exit_code().await, 0);

    // Where somebody has its usual port it takes another.
    let usual = async || TcpListener::bind((Ipv4Addr::LOCALHOST, 8443));
    let _taken = until_ok("8443 can be taken", usual).await;
    let mut demo = process::client(&["demo"], folder());
    let line = demo.line_after("curl -k --resolve ").await;
    assert!(!line.contains(":8443"), "{line}");
    let page = tool("sh", &["-c", &format!("curl -k --resolve {line}")]).await;
    assert!(page.starts_with("It works."), "{page}");
    demo.signal(Signal::TERM);
    assert_eq!(demo.exit_code().await, 0);
}

#[tokio::test]
async fn openssl_is_offered_the_protocols_that_the_client_was_given() {
    let (server, origin) = (server(&[]).await, http("x").await);
    let alpn = ["--alpn", "h2,http/1.1"];
    let default = publish(Over::Quic, &server, origin.address, &[], folder()).await;
    let both = publish(Over::Quic, &server, origin.address, &alpn, folder()).await;
    let to = server.visitors().to_string();
    let offer = async |client: &Client, offered: &str| {
        let host = client.host();
        let flags = ["s_client", "-connect", &to, "-servername", host];
        let flags = [&flags[..], &["-alpn", offered]].concat();
        let output = tools::run("openssl", &flags).await;
        tools::text(&output) + &tools::errors(&output)
    };
    let said = offer(&both, "http/1.1,h2").await;
    assert!(said.contains("ALPN protocol: h2"), "{said}");
    let said = offer(&default, "h2,http/1.1").await;
    assert!(said.contains("ALPN protocol: http/1.1"), "{said}");
    let said = offer(&default, "h2").await;
    assert!(said.contains("SSL alert number 120"), "{said}");
}

#[tokio::test]
async fn curl_downloads_through_a_tunnel_with_cubic_as_well() {
    let nginx = nginx().await;
    big_file(&nginx.file("big"), 20);
    let cubic = ["--congestion", "cubic"];
    let server = server(&cubic).await;
    let client = publish(Over::Quic, &server, nginx.address, &cubic, folder()).await;
    let published = Published::new(server, client);
    let got = text(&nginx.file("got"));
    published.curl(&["-o", &got, &published.url("/big")]).await;
    tool("cmp", &[&text(&nginx.file("big")), &got]).await;
}
