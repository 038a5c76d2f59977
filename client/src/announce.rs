//! The two lines on standard output that scripts read.

use std::convert::Infallible;
use std::io::{self, Write};

use tokio::sync::watch;
use tracing::warn;
use tunnel_client::status::{Published, Status};

/// Writes `ID:` and `URL:` as soon as a tunnel serves, and again when they change. An outage after
/// which all is as before writes nothing. Never ends; when nobody reads any more, the agent goes on
/// without a word.
pub(crate) async fn announce(status: watch::Receiver<Status>, out: impl Write) -> Infallible {
    if let Err(error) = tell(status, out).await {
        warn!("standard output is closed ({error}): nobody is told the URL");
    }
    std::future::pending().await
}

async fn tell(mut status: watch::Receiver<Status>, mut out: impl Write) -> io::Result<()> {
    let mut told = vec![];
    loop {
        let now = lines(&status.borrow_and_update());
        if !now.is_empty() && now != told {
            for line in &now {
                writeln!(out, "{line}")?;
            }
            out.flush()?;
            told = now;
        }
        if status.changed().await.is_err() {
            return Ok(());
        }
    }
}

fn lines(status: &Status) -> Vec<String> {
    match status {
        Status::Connecting => vec![],
        Status::Serving(published) => published.iter().flat_map(endpoint_lines).collect(),
    }
}

fn endpoint_lines(endpoint: &Published) -> Vec<String> {
    let url = endpoint.urls.first().map(|url| format!("URL: {url}"));
    [format!("ID: {}", endpoint.id)]
        .into_iter()
        .chain(url)
        .collect()
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

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

    const ID: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaa";

    fn serving(url: &str) -> Status {
        let id = ID.parse().expect("a label");
        let urls = vec![url.to_owned(), "https://second".to_owned()];
        Status::Serving(vec![Published {
            name: Default::default(),
            id,
            urls,
        }])
    }

    #[tokio::test]
    async fn the_lines_come_once_and_again_only_when_they_change() {
        let (sender, receiver) = watch::channel(Status::Connecting);
        let out = Shared::default();
        let announcing = announce(receiver, out.clone());
        tokio::pin!(announcing);
        let states = [
            serving("https://a"),
            Status::Connecting,
            serving("https://a"),
            serving("https://b:8443"),
        ];
        for state in states {
            sender.send_replace(state);
            tokio::select! {
                biased;
                ended = &mut announcing => panic!("ended: {ended:?}"),
                () = tokio::task::yield_now() => {}
            }
        }
        let told = String::from_utf8(out.0.lock().expect("not poisoned").clone()).expect("UTF-8");
        assert_eq!(
            told,
            format!("ID: {ID}\nURL: https://a\nID: {ID}\nURL: https://b:8443\n")
        );
    }
}
