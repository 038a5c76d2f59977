//! Who gets whose visitors.

use e2e::agent::{new_key, publish, publish_as, same_key};
use e2e::origin::http;
use e2e::poll::until_ok;
use e2e::relay::{relay, relay_again, relay_for, relay_identity, relay_with};
use e2e::transport::Over;
use e2e::visitor::{alert, certificate, get, get_on, key_in, visit};
use rstest::rstest;
use rustls::AlertDescription;
use tunnel_common::key;

#[rstest]
#[tokio::test]
async fn a_visitor_reaches_the_local_service_through_the_relay(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let (relay, origin) = (relay().await, http("hello from behind the NAT").await);
    let agent = publish(over, &relay, origin.address).await;
    let body = get(relay.public, &agent.host().await)
        .await
        .expect("an answer");
    assert_eq!(body, "hello from behind the NAT");
}

#[rstest]
#[tokio::test]
async fn the_certificate_that_a_visitor_sees_has_the_key_whose_hash_the_name_is(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let (relay, origin) = (relay().await, http("x").await);
    let agent = publish(over, &relay, origin.address).await;
    let host = agent.host().await;
    let visitor = visit(relay.public, &host).await.expect("visits");
    let shown = key_in(&certificate(&visitor));
    assert_eq!(host, format!("{}.localhost", shown.label()));
    assert_ne!(shown, relay.fingerprint);
}

#[rstest]
#[tokio::test]
async fn two_agents_on_one_relay_get_their_own_visitors(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let relay = relay().await;
    let (one, two) = (http("one").await, http("two").await);
    let first = publish(over, &relay, one.address).await;
    let second = publish(over, &relay, two.address).await;
    let (first, second) = (first.host().await, second.host().await);
    for _ in 0..10 {
        assert_eq!(get(relay.public, &first).await.expect("an answer"), "one");
        assert_eq!(get(relay.public, &second).await.expect("an answer"), "two");
    }
}

#[rstest]
#[tokio::test]
async fn upper_case_and_a_trailing_dot_are_the_same_name(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let (relay, origin) = (relay().await, http("same").await);
    let agent = publish(over, &relay, origin.address).await;
    let host = agent.host().await;
    assert_eq!(
        get(relay.public, &host.to_uppercase())
            .await
            .expect("an answer"),
        "same"
    );
}

#[rstest]
#[tokio::test]
async fn every_suffix_of_the_relay_serves_and_no_other(#[values(Over::Quic, Over::H2)] over: Over) {
    let relay = relay_for(&["tunnel.example", "second.example"]).await;
    let origin = http("mine").await;
    let agent = publish(over, &relay, origin.address).await;
    let hosts = agent.serves().await;
    assert_eq!(hosts.len(), 2);
    for host in &hosts {
        assert_eq!(get(relay.public, host).await.expect("an answer"), "mine");
    }
    let id = hosts[0].split('.').next().expect("an id");
    let others = [
        format!("{id}.evil.example"),
        format!("{id}.tunnel.example.evil.com"),
        format!("{id}.eviltunnel.example"),
        format!("x.{id}.tunnel.example"),
        "tunnel.example".to_owned(),
        id.to_owned(),
    ];
    for other in others {
        let error = visit(relay.public, &other).await.expect_err("refused");
        assert_eq!(
            alert(&error),
            Some(AlertDescription::UnrecognisedName),
            "{other}"
        );
    }
}

#[rstest]
#[tokio::test]
async fn an_unknown_id_and_an_offline_one_look_alike(#[values(Over::Quic, Over::H2)] over: Over) {
    let (relay, origin) = (relay().await, http("x").await);
    let agent = publish(over, &relay, origin.address).await;
    let offline = agent.host().await;
    agent.stop().await;
    let unknown = format!("{}.localhost", key::fingerprint(&new_key()).label());
    for host in [offline, unknown] {
        let refused = async || match visit(relay.public, &host).await {
            Err(error) if alert(&error) == Some(AlertDescription::UnrecognisedName) => Ok(()),
            other => Err(other.map(|_| "served")),
        };
        until_ok("the name is refused", refused).await;
    }
}

#[rstest]
#[tokio::test]
async fn an_agent_that_was_killed_serves_again_under_its_name_when_it_is_back(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let (relay, origin) = (relay().await, http("back").await);
    let key = new_key();
    let agent = publish_as(over, &relay, same_key(&key), origin.address).await;
    let host = agent.host().await;
    drop(agent);
    let again = publish_as(over, &relay, key, origin.address).await;
    assert_eq!(again.host().await, host);
    until_ok("it serves again", async || get(relay.public, &host).await).await;
}

#[rstest]
#[tokio::test]
async fn the_same_key_twice_is_two_replicas_and_the_end_of_one_leaves_the_other(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let relay = relay().await;
    let (one, two) = (http("one").await, http("two").await);
    let key = new_key();
    let first = publish_as(over, &relay, same_key(&key), one.address).await;
    let second = publish_as(over, &relay, key, two.address).await;
    let host = first.host().await;
    assert_eq!(second.host().await, host);

    // A visit in flight on one makes the other the better choice.
    let mut visitor = visit(relay.public, &host).await.expect("visits");
    let held = get_on(&mut visitor, &host).await.expect("an answer");
    let other = get(relay.public, &host).await.expect("an answer");
    assert_ne!(held, other, "both replicas serve");

    first.stop().await;
    let only_second = async || match get(relay.public, &host).await {
        Ok(body) if body == "two" => Ok(()),
        other => Err(other),
    };
    for _ in 0..5 {
        until_ok("the other replica serves", only_second).await;
    }
}

#[rstest]
#[tokio::test]
async fn an_agent_outlives_its_relay_and_serves_again_when_it_is_back(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let identity = relay_identity();
    let first = relay_with(|config| config.identity = identity.clone().into()).await;
    let origin = http("back again").await;
    let agent = publish(over, &first, origin.address).await;
    let (host, port) = (agent.host().await, first.api.port());
    first.stop().await;
    agent.is_cut_off().await;

    let restarted = relay_again(identity, port).await;
    assert_eq!(agent.host().await, host);
    assert_eq!(
        get(restarted.public, &host).await.expect("an answer"),
        "back again"
    );
}

#[rstest]
#[tokio::test]
async fn a_relay_with_another_key_in_the_same_place_gets_no_tunnel(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let (first, origin) = (relay().await, http("x").await);
    let agent = publish(over, &first, origin.address).await;
    let (host, port) = (agent.host().await, first.api.port());
    first.stop().await;
    agent.is_cut_off().await;

    let impostor = relay_with(|config| config.api_port = port).await;
    let other = publish(over, &impostor, origin.address).await;
    get(impostor.public, &other.host().await)
        .await
        .expect("others are served there");
    let error = visit(impostor.public, &host)
        .await
        .expect_err("the pinned one is not");
    assert_eq!(alert(&error), Some(AlertDescription::UnrecognisedName));
}
