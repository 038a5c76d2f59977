//! A file that is there while visitors can come: what a health check in a container looks at.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use tokio::runtime::Handle;
use tokio::sync::watch;
use tracing::warn;
use tunnel_client::status::Status;

/// The file, kept as the agent stands. Dropping it removes the file, and nobody makes it again.
#[derive(Debug)]
pub(crate) struct ReadyFile(Arc<Mutex<Option<PathBuf>>>);

impl ReadyFile {
    /// Keeps the file at `path` from a thread of its own, since a disk may be slow. What an earlier process
    /// has left there is removed first. The thread ends with the agent. Must be called inside a tokio
    /// runtime.
    pub(crate) fn follow(path: PathBuf, status: watch::Receiver<Status>) -> io::Result<Self> {
        remove(&path)?;
        let kept = Arc::new(Mutex::new(Some(path)));
        let (runtime, its) = (Handle::current(), kept.clone());
        thread::Builder::new()
            .name("ready-file".to_owned())
            .spawn(move || runtime.block_on(keep(&its, status)))?;
        Ok(Self(kept))
    }
}

impl Drop for ReadyFile {
    fn drop(&mut self) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(path) = kept.take()
            && let Err(error) = remove(&path)
        {
            warn!("--ready-file: {}: {error}", path.display());
        }
    }
}

async fn keep(kept: &Mutex<Option<PathBuf>>, mut status: watch::Receiver<Status>) {
    let mut written = None;
    loop {
        let urls = urls(&status.borrow_and_update());
        if urls != written {
            put(kept, urls.as_deref());
            written = urls;
        }
        if status.changed().await.is_err() {
            return;
        }
    }
}

/// Writes the file, or removes it where there is nothing to write.
fn put(kept: &Mutex<Option<PathBuf>>, urls: Option<&str>) {
    let kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(path) = kept.as_deref() else {
        return;
    };
    let done = urls.map_or_else(|| remove(path), |urls| write(path, urls));
    if let Err(error) = done {
        warn!("--ready-file: {}: {error}", path.display());
    }
}

/// The URLs at which visitors come, one a line; `None` while they can not.
fn urls(status: &Status) -> Option<String> {
    let Status::Serving(published) = status else {
        return None;
    };
    let shown = published.iter().flat_map(|endpoint| &endpoint.shown);
    Some(shown.map(|url| format!("{url}\n")).collect())
}

/// Whoever reads finds the old text or the new one.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    fs::write(&beside, text)?;
    fs::rename(&beside, path)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tunnel_client::status::Published;
    use tunnel_common::identity::KeyFingerprint;
    use tunnel_common::wire::frame::EndpointRef;

    use super::*;

    fn serving(shown: &[&str]) -> Status {
        Status::Serving(vec![Published {
            name: EndpointRef::default(),
            key: KeyFingerprint::of_spki(b"a key"),
            urls: vec![],
            shown: shown.iter().map(|url| (*url).to_owned()).collect(),
            certificates: BTreeMap::new(),
            impersonated: false,
        }])
    }

    #[tokio::test]
    async fn the_file_is_there_while_visitors_can_come_and_has_the_urls() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("ready");
        let kept = Mutex::new(Some(path.clone()));
        let (sender, receiver) = watch::channel(Status::Connecting);
        let keeping = keep(&kept, receiver);
        tokio::pin!(keeping);
        for (status, text) in [
            (Status::Connecting, None),
            (serving(&["https://a"]), Some("https://a\n")),
            (
                serving(&["https://a", "https://b"]),
                Some("https://a\nhttps://b\n"),
            ),
            (Status::Connecting, None),
            (serving(&["https://b"]), Some("https://b\n")),
        ] {
            sender.send_replace(status);
            tokio::select! {
                biased;
                () = &mut keeping => panic!("ended"),
                () = tokio::task::yield_now() => {}
            }
            assert_eq!(fs::read_to_string(&path).ok().as_deref(), text);
        }
    }

    #[tokio::test]
    async fn what_was_left_is_removed_at_the_start_and_what_is_kept_at_the_end() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("ready");
        fs::write(&path, "https://old\n").expect("writes");
        let (_sender, receiver) = watch::channel(Status::Connecting);
        let file = ReadyFile::follow(path.clone(), receiver).expect("can be kept");
        assert!(!path.exists(), "that was another process");
        fs::write(&path, "https://a\n").expect("writes");
        let kept = file.0.clone();
        drop(file);
        assert!(!path.exists());
        put(&kept, Some("https://late\n"));
        assert!(!path.exists(), "it has ended");
        let folder = folder.path().to_owned();
        let (_sender, receiver) = watch::channel(Status::Connecting);
        ReadyFile::follow(folder, receiver).expect_err("is a folder");
    }
}
