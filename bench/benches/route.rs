//! How long the relay needs to find out whose a visitor is: for an agent's name, a stranger's, and one that
//! is an agent's but for the domain, under one domain and under many.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use tunnel_server::config::Suffixes;
use tunnel_server::names::Names;
use tunnel_server::public::route::{Route, route};

const ID: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaa";
/// As many domains as a relay may reasonably have.
const MANY: usize = 100;

/// The names of a relay with so many domains.
fn names(domains: usize) -> Names {
    let domain = |number| format!("d{number}.example").parse().expect("a host name");
    Names::new(Suffixes::These((0..domains).map(domain).collect()), 443)
}

fn routes(c: &mut Criterion) {
    let mut group = c.benchmark_group("route");
    let offered = [b"h2".to_vec(), b"http/1.1".to_vec()];
    for domains in [1, MANY] {
        let names = names(domains);
        let last = domains - 1;
        let visited = [
            ("agent", format!("{ID}.d{last}.example"), true),
            ("stranger", "www.elsewhere.example".to_owned(), false),
            ("other domain", format!("{ID}.elsewhere.example"), false),
        ];
        for (who, host, is_ours) in visited {
            let found = route(&names, Some(&host), &offered);
            assert_eq!(matches!(found, Route::Agent(_)), is_ours, "{host}");
            group.bench_function(BenchmarkId::new(who, domains), |b| {
                b.iter(|| route(black_box(&names), Some(black_box(&host)), &offered));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, routes);
criterion_main!(benches);
