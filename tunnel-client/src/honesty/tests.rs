use std::collections::BTreeMap;
use std::io;

use tunnel_common::acme::dial::Direct;
use tunnel_common::acme::probe::NotShown;

use super::*;

fn key(name: &str) -> KeyFingerprint {
    KeyFingerprint::of_spki(name.as_bytes())
}

fn published(name: EndpointRef, domains: &[&str]) -> Published {
    let key = key(name.as_str());
    let url = |domain: &&str| format!("https://{}.{domain}", key.label());
    let urls: Vec<_> = domains.iter().map(url).collect();
    Published {
        name,
        key,
        shown: urls[..1].to_vec(),
        urls,
        certificates: BTreeMap::new(),
        impersonated: false,
    }
}

fn watch(local_names: bool) -> Watch {
    Watch {
        dial: Arc::new(Direct),
        times: Honesty {
            local_names,
            ..Honesty::default()
        },
        own: vec![EndpointRef::default()],
        standing: Arc::new(Standing::new(1)),
    }
}

fn hosts(watch: &Watch, published: &[Published]) -> Vec<String> {
    let chosen = watch.choose(published, &mut fastrand::Rng::with_seed(1));
    let domain = |own: &Own| {
        own.public
            .host()
            .split_first()
            .map(|(_, rest)| rest.to_owned())
    };
    let mut hosts: Vec<_> = chosen.iter().filter_map(domain).collect();
    hosts.sort_unstable();
    hosts
}

fn lying(shown: KeyFingerprint) -> Verdict {
    Verdict::Lying {
        expected: key("ours").label(),
        shown,
    }
}

fn unknown() -> Verdict {
    Verdict::Unknown {
        why: NotShown::Unreachable {
            host: "a.example".parse().expect("a name"),
            port: 443,
            source: io::ErrorKind::TimedOut.into(),
        },
    }
}

#[test]
fn public_names_of_endpoints_that_show_their_own_key_are_looked_at() {
    let endpoints = [
        published(EndpointRef::default(), &["b.example", "localhost", "t.lan"]),
        published(EndpointRef::secondary(), &["passes.example"]),
    ];
    assert_eq!(hosts(&watch(false), &endpoints), ["b.example"]);
    let all = ["b.example", "localhost", "t.lan"];
    assert_eq!(hosts(&watch(true), &endpoints), all);
}

#[test]
fn a_round_has_eight_urls_at_most_however_many_a_relay_names() {
    let domains: Vec<_> = (0..30).map(|number| format!("d{number}.example")).collect();
    let domains: Vec<_> = domains.iter().map(String::as_str).collect();
    let endpoints = [published(EndpointRef::default(), &domains)];
    assert_eq!(hosts(&watch(false), &endpoints).len(), MAX_URLS);
}

#[test]
fn each_change_is_told_once_and_what_can_not_be_asked_changes_nothing() {
    let mut impostors = Impostors::default();
    let (one, other) = (key("one"), key("other"));
    let ours = Verdict::True {
        label: key("ours").label(),
    };
    let cases = [
        (&ours, None),
        (&unknown(), None),
        (&lying(one), Some(News::Impostor(one))),
        (&lying(one), None),
        (&unknown(), None),
        (&lying(one), None),
        (&lying(other), Some(News::Impostor(other))),
        (&ours, Some(News::Gone)),
        (&ours, None),
        (&lying(other), Some(News::Impostor(other))),
    ];
    for (at, (verdict, news)) in cases.into_iter().enumerate() {
        assert_eq!(impostors.learn("https://a", verdict), news, "{at}");
    }
    let b = "https://b".to_owned();
    impostors.forget_all_but(&[&b]);
    assert!(impostors.0.is_empty(), "the URL has gone");
}

#[test]
fn looks_are_a_fifth_earlier_or_later_by_chance() {
    let hour = Duration::from_secs(3600);
    let minutes = |luck| around(hour, luck).as_secs() / 60;
    assert_eq!([0.0, 0.5, 1.0].map(minutes), [48, 60, 72]);
}
