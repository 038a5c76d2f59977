//! The two lines on standard output that scripts read.

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

/// Writes `ID:` and `URL:` as soon as a tunnel serves, those of a second endpoint behind them, and all
/// again when they change. An outage after which all is as before writes nothing. Ends with the agent,
/// and when nobody reads any more: the agent goes on without a word.
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
    let mut told = vec![];
    loop {
        let now = match &*status.borrow_and_update() {
            Status::Connecting => vec![],
            Status::Serving(published) => published.clone(),
        };
        if !now.is_empty() && now != told {
            for line in now.iter().flat_map(lines) {
                writeln!(out, "{line}")?;
            }
            out.flush()?;
            for line in now.iter().filter_map(curl_line) {
                // Whoever closed it does not want to know.
                let _ = writeln!(err, "{line}");
            }
            told = now;
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
    let url = endpoint.urls.first();
    let url = url.map(|url| format!("{prefix}URL: {url}"));
    [format!("{prefix}ID: {}", endpoint.id())]
        .into_iter()
        .chain(url)
}

/// How to visit an endpoint whose certificate nobody vouches for: by its key.
fn curl_line(endpoint: &Published) -> Option<String> {
    let url = endpoint.urls.first().filter(|_| is_secondary(endpoint))?;
    Some(format!("curl -k --pinnedpubkey {} {url}", endpoint.key))
}

fn is_secondary(endpoint: &Published) -> bool {
    endpoint.name == EndpointRef::secondary()
}

#[cfg(test)]
mod tests {
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
        }
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
