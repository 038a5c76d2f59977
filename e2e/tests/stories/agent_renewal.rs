//! What an agent does with an authority's limits, windows and profiles: the authority is the story's own.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use e2e::agent::{Agent, config, new_key, same_key, start};
use e2e::certified::{is_certified, issued, orders, validated_relay};
use e2e::mock_ca::{Ari, Garbled, MockCa, RateLimit, RetryAfter, mock_ca};
use e2e::origin::http;
use e2e::poll::eventually;
use e2e::process::folder;
use e2e::relay::Relay;
use e2e::transport::Over;
use rcgen::{KeyPair, PublicKeyData as _};
use rstest::rstest;
use tempfile::TempDir;
use tunnel_client::config::Issued;
use tunnel_common::acme::state::CertificateState;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

struct Town {
    relay: Relay,
    ca: MockCa,
    origin: e2e::origin::Origin,
    folder: Arc<TempDir>,
}

impl Town {
    async fn new() -> Self {
        Self {
            relay: validated_relay().await,
            ca: mock_ca().await,
            origin: http("hello").await,
            folder: folder(),
        }
    }

    fn agent(&self, key: &KeyPair, change: impl FnOnce(&mut Issued)) -> Agent {
        let mut config = config(Over::Quic, &self.relay, same_key(key), self.origin.address);
        let mut issued = issued(&self.ca, &self.relay, self.folder.path());
        change(&mut issued);
        orders(&mut config, issued);
        start(config)
    }
}

/// When the certificate ends and when it will be renewed.
fn dates(state: &CertificateState) -> (SystemTime, SystemTime) {
    match state {
        CertificateState::Certified {
            validity, renewal, ..
        } => (validity.not_after, *renewal),
        other => panic!("{other:?}"),
    }
}

#[rstest]
#[case(90)]
#[case(64)]
#[case(45)]
#[case(6)]
#[tokio::test]
async fn a_certificate_of_any_lifetime_will_be_renewed_when_a_third_is_left(#[case] days: u32) {
    let town = Town::new().await;
    town.ca.rules(|rules| rules.lifetime = DAY * days);
    let agent = town.agent(&new_key(), |_| {});
    let state = agent.certificate("it is there", is_certified).await;
    let (end, renewal) = dates(&state);
    let third = DAY * days / 3;
    let left = end.duration_since(renewal).expect("is before the end");
    assert!(left >= third && left <= third + third / 10, "{left:?}");
}

#[tokio::test]
async fn the_authority_says_when_to_renew_and_hears_which_certificate_is_replaced() {
    let town = Town::new().await;
    let now = SystemTime::now();
    let window = |from: Duration, to: Duration| {
        Some(Ari {
            start: now + from,
            end: now + to,
            retry_after: DAY,
        })
    };
    town.ca.rules(|rules| {
        rules.ari = window(DAY * 3, DAY * 4);
    });
    let key = new_key();
    let agent = town.agent(&key, |_| {});
    let is_planned = |state: &CertificateState| match state {
        CertificateState::Certified { renewal, .. } => *renewal >= now + DAY * 3,
        _ => false,
    };
    agent
        .certificate("its renewal is in the window", is_planned)
        .await;
    agent.stop().await;

    town.ca
        .rules(|rules| rules.ari = window(Duration::ZERO, Duration::ZERO));
    let again = town.agent(&key, |_| {});
    eventually("the window is open: another is ordered", || {
        town.ca.orders().len() >= 2
    })
    .await;
    town.ca.rules(|rules| rules.ari = window(DAY, DAY));
    again.stop().await;
    let orders = town.ca.orders();
    assert_eq!(orders[0].replaces, None);
    assert!(orders[1].replaces.is_some(), "{:?}", orders[1]);
    assert_eq!(town.ca.accounts(), 1);
}

#[rstest]
#[case(RetryAfter::In(DAY * 2))]
#[case(RetryAfter::At(SystemTime::now() + DAY * 2))]
#[tokio::test]
async fn a_limit_is_told_with_its_end_and_nobody_comes_before(#[case] retry_after: RetryAfter) {
    let town = Town::new().await;
    let detail =
        "too many certificates (50) already issued for \"tunnel.test\" in the last 168h0m0s";
    town.ca.rules(|rules| {
        rules.refuse_orders = Some(RateLimit {
            retry_after,
            detail: detail.to_owned(),
        });
    });
    let key = new_key();
    for _ in 0..2 {
        let agent = town.agent(&key, |_| {});
        let waits = |state: &CertificateState| matches!(state, CertificateState::Waiting { .. });
        let state = agent.certificate("it waits", waits).await;
        let CertificateState::Waiting { until, why } = state else {
            unreachable!("waited for");
        };
        let left = until.duration_since(SystemTime::now()).expect("is ahead");
        let least = DAY * 2 - Duration::from_secs(60);
        assert!(
            left >= least && left <= DAY * 2 + Duration::from_secs(60 * 60),
            "{left:?}"
        );
        assert!(
            why.contains("limit") && why.contains("tunnel.test"),
            "{why}"
        );
        agent.stop().await;
    }
    let asked = town.ca.requests();
    let asked = asked
        .iter()
        .filter(|request| request.line.contains("order"));
    assert_eq!(asked.count(), 1, "not even by the next process");
}

#[tokio::test]
async fn a_profile_is_passed_on_and_the_request_says_nothing_but_the_name_and_the_key() {
    let town = Town::new().await;
    let key = new_key();
    let agent = town.agent(&key, |issued| {
        issued.acme.authority.profile = Some("shortlived".to_owned());
    });
    agent.certificate("it is there", is_certified).await;
    let (order, csr) = (&town.ca.orders()[0], &town.ca.csrs()[0]);
    assert_eq!(order.profile.as_deref(), Some("shortlived"));
    let host = agent.host().await;
    assert_eq!(csr.hosts, [host]);
    assert!(csr.subject_is_empty);
    assert_eq!(csr.spki, key.subject_public_key_info());
    let contacts = town.ca.contacts();
    assert!(
        contacts
            .iter()
            .flatten()
            .any(|c| c == "mailto:owner@example.com"),
        "{contacts:?}"
    );
}

#[tokio::test]
async fn a_user_may_say_how_many_days_before_the_end() {
    let town = Town::new().await;
    town.ca.rules(|rules| {
        rules.ari = Some(Ari {
            start: SystemTime::now(),
            end: SystemTime::now(),
            retry_after: DAY,
        });
    });
    let agent = town.agent(&new_key(), |issued| issued.renew_days = Some(10));
    let (end, renewal) = dates(&agent.certificate("it is there", is_certified).await);
    let left = end.duration_since(renewal).expect("is before the end");
    assert!(left >= DAY * 10 && left <= DAY * 11, "{left:?}");
    assert_eq!(town.ca.orders().len(), 1);
}

/// For how long the agent waits with its next attempt.
async fn waits(agent: &Agent) -> Duration {
    let waits = |state: &CertificateState| matches!(state, CertificateState::Waiting { .. });
    match agent.certificate("it waits", waits).await {
        CertificateState::Waiting { until, .. } => {
            until.duration_since(SystemTime::now()).expect("is ahead")
        }
        other => panic!("{other:?}"),
    }
}

#[rstest]
#[case("finalize")]
#[case("certificate")]
#[case("challenge")]
#[tokio::test]
async fn an_order_whose_answer_is_lost_may_have_counted_and_is_not_repeated_soon(
    #[case] resource: &'static str,
) {
    let town = Town::new().await;
    let (status, retry_after) = (502, None);
    town.ca.rules(|rules| {
        rules.garbled = Some(Garbled {
            resource,
            status,
            retry_after,
        });
    });
    let key = new_key();
    for _ in 0..2 {
        let agent = town.agent(&key, |_| {});
        let minutes = waits(&agent).await.as_secs() / 60;
        assert!((58..=66).contains(&minutes), "{minutes} min");
        agent.stop().await;
    }
    assert_eq!(town.ca.orders().len(), 1, "not even by the next process");
}

#[tokio::test]
async fn an_authority_that_is_overloaded_is_left_alone_for_as_long_as_it_says() {
    let town = Town::new().await;
    let retry_after = Some(Duration::from_secs(2 * 60 * 60));
    town.ca.rules(|rules| {
        rules.garbled = Some(Garbled {
            resource: "directory",
            status: 503,
            retry_after,
        });
    });
    let agent = town.agent(&new_key(), |_| {});
    let minutes = waits(&agent).await.as_secs() / 60;
    assert!((118..=133).contains(&minutes), "{minutes} min");
    assert_eq!(town.ca.accounts(), 0);
}
