//! The lines on standard output that scripts read: an id, and a URL for each relay.

use std::io::{self, Write};
use std::thread;

use tokio::runtime::Handle;
use tokio::sync::watch;
use tracing::warn;
use tunnel_client::status::{Published, Status};
use tunnel_common::wire::frame::EndpointRef;

/// Announces on standard output and standard error from a thread of its own: a reader who has stopped
/// to read holds up that thread and nothing else. It ends with the agent, or with the process, which
/// does not wait for it. Must be called inside a tokio runtime.
pub(crate) fn on_a_thread(status: watch::Receiver<Status>) -> io::Result<()> {
    let runtime = Handle::current();
    let announcing = move || runtime.block_on(announce(status, io::stdout(), io::stderr()));
    thread::Builder::new()
        .name("announce".to_owned())
        .spawn(announcing)?;
    Ok(())
}

/// Writes `ID:` and `URL:` as soon as a tunnel serves, a `URL:` for each relay whose URL is another,
/// those of a second endpoint behind them, and all of them again with each that is new: what was
/// written last holds all at which visitors come now. An outage, of one relay or all, writes nothing, nor
/// does its end if all is as before. Ends with the agent, and when nobody reads any more: the agent
/// goes on without a word.
///
/// `out` is for scripts. `err` gets, for a second endpoint, the curl line by which people try it.
async fn announce(status: watch::Receiver<Status>, out: impl Write, err: impl Write) {
    if let Err(error) = tell(status, out, err).await {
        warn!("standard output is closed ({error}): nobody is told the URL");
    }
}

async fn tell(
    mut status: watch::Receiver<Status>,
    mut out: impl Write,
    mut err: impl Write,
) -> io::Result<()> {
    let mut told: Vec<String> = vec![];
    loop {
        let now = match &*status.borrow_and_update() {
            Status::Connecting => vec![],
            Status::Serving(published) => published.clone(),
        };
        let lines: Vec<_> = now.iter().flat_map(lines).collect();
        if lines.iter().any(|line| !told.contains(line)) {
            for line in &lines {
                writeln!(out, "{line}")?;
            }
            out.flush()?;
            for line in now.iter().flat_map(curl_lines) {
                // Whoever closed it does not want to know.
                let _ = writeln!(err, "{line}");
            }
            told = lines;
        }
        if status.changed().await.is_err() {
            return Ok(());
        }
    }
}

fn lines(endpoint: &Published) -> impl Iterator<Item = String> {
    let prefix = if is_secondary(endpoint) {
        "SECONDARY-"
    } else {
        ""
    };
    let urls = endpoint.shown.iter();
    let urls = urls.map(move |url| format!("{prefix}URL: {url}"));
    [format!("{prefix}ID: {}", endpoint.id())]
        .into_iter()
        .chain(urls)
}

/// How to visit an endpoint whose certificate nobody vouches for: by its key.
fn curl_lines(endpoint: &Published) -> impl Iterator<Item = String> {
    let urls = endpoint.shown.iter().filter(|_| is_secondary(endpoint));
    urls.map(|url| format!("curl -k --pinnedpubkey {} {url}", endpoint.key))
}

fn is_secondary(endpoint: &Published) -> bool {
    endpoint.name == EndpointRef::secondary()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::{Arc, Mutex};

    use tunnel_common::identity::KeyFingerprint;

    use super::*;

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("not poisoned").write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn published(name: EndpointRef, url: &str) -> Published {
        Published {
            key: KeyFingerprint::of_spki(name.as_str().as_bytes()),
            name,
            urls: vec![url.to_owned(), "https://second".to_owned()],
            shown: vec![url.to_owned()],
            certificates: BTreeMap::new(),
            impersonated: false,
        }
    }

    /// An agent at the relays that show these URLs.
    fn serving_at(urls: &[&str]) -> Status {
        let mut published = published(EndpointRef::default(), "");
        published.shown = urls.iter().map(|url| (*url).to_owned()).collect();
        Status::Serving(vec![published])
    }

    fn serving(url: &str) -> Status {
        Status::Serving(vec![published(EndpointRef::default(), url)])
    }

    /// What is written to both outputs while these states follow each other.
    async fn announced(states: impl IntoIterator<Item = Status>) -> [String; 2] {
        let (sender, receiver) = watch::channel(Status::Connecting);
        let (out, err) = (Shared::default(), Shared::default());
        let announcing = announce(receiver, out.clone(), err.clone());
        tokio::pin!(announcing);
        for state in states {
            sender.send_replace(state);
            tokio::select! {
                biased;
                ended = &mut announcing => panic!("ended: {ended:?}"),
                () = tokio::task::yield_now() => {}
            }
        }
        [out, err].map(|written| {
            let bytes = written.0.lock().expect("not poisoned").clone();
            String::from_utf8(bytes).expect("UTF-8")
        })
    }

    #[tokio::test]
    async fn the_lines_come_once_and_again_only_when_they_change() {
        let states = [
            serving("https://a"),
            Status::Connecting,
            serving("https://a"),
            serving("https://b:8443"),
        ];
        let [out, err] = announced(states).await;
        let id = published(EndpointRef::default(), "").id();
        let lines = format!("ID: {id}\nURL: https://a\nID: {id}\nURL: https://b:8443\n");
        assert_eq!((out, err), (lines, String::new()));
    }

    #[tokio::test]
    async fn that_somebody_answers_in_its_place_writes_no_line() {
        let seen = Published {
            impersonated: true,
            ..published(EndpointRef::default(), "https://a")
        };
        let states = [serving("https://a"), Status::Serving(vec![seen])];
        let [out, _] = announced(states).await;
        assert_eq!(out.lines().count(), 2, "{out}");
    }

    #[tokio::test]
    async fn each_relay_has_a_line_and_only_a_new_url_makes_all_come_again() {
        let states = [
            serving_at(&["https://b"]),
            serving_at(&["https://a", "https://b"]),
            serving_at(&["https://b"]),
            Status::Connecting,
            serving_at(&["https://a"]),
            serving_at(&["https://a", "https://b"]),
            serving_at(&["https://c"]),
            serving_at(&["https://c", "https://b"]),
        ];
        let [out, _] = announced(states).await;
        let id = published(EndpointRef::default(), "").id();
        let blocks = [&["b"][..], &["a", "b"], &["c"], &["c", "b"]].map(|urls| {
            let urls = urls.iter().map(|url| format!("URL: https://{url}\n"));
            format!("ID: {id}\n{}", urls.collect::<String>())
        });
        assert_eq!(out, blocks.concat());
    }

    #[tokio::test]
    async fn a_second_endpoint_has_lines_of_its_own_and_a_curl_line_with_its_key() {
        let main = published(EndpointRef::default(), "https://a");
        let second = published(EndpointRef::secondary(), "https://b");
        let (ids, key) = ([main.id(), second.id()], second.key);
        let [out, err] = announced([Status::Serving(vec![main, second])]).await;
        let lines = format!(
            "ID: {}\nURL: https://a\nSECONDARY-ID: {}\nSECONDARY-URL: https://b\n",
            ids[0], ids[1]
        );
        assert_eq!(out, lines);
        assert_eq!(err, format!("curl -k --pinnedpubkey {key} https://b\n"));
    }
}
