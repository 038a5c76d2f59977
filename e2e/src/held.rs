//! A local service whose answers wait until the story lets them go.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::watch;

use crate::origin::{Origin, origin};
use crate::poll::eventually;

/// What it says, once it may.
pub const ANSWER: &str = "at last";

/// The service. Dropping it ends it.
#[derive(Debug)]
pub struct Held {
    /// Where it listens.
    pub address: SocketAddr,
    asked: Arc<AtomicUsize>,
    released: watch::Sender<bool>,
    _listening: Origin,
}

/// Takes HTTP requests, and answers none before it is told to: see [`Held::release`].
pub async fn held() -> Held {
    let (released, may_answer) = watch::channel(false);
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = asked.clone();
    let listening = origin(move |mut stream| {
        let (counter, mut may_answer) = (counter.clone(), may_answer.clone());
        async move {
            let (mut head, mut chunk) = (vec![], [0; 1024]);
            while let Ok(got @ 1..) = stream.read(&mut chunk).await {
                head.extend_from_slice(&chunk[..got]);
                if !head.ends_with(b"\r\n\r\n") {
                    continue;
                }
                head.clear();
                counter.fetch_add(1, Ordering::AcqRel);
                // The story that is over wants no answer.
                if may_answer.wait_for(|may| *may).await.is_err() {
                    return;
                }
                let length = ANSWER.len();
                let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{ANSWER}");
                if stream.write_all(answer.as_bytes()).await.is_err() {
                    return;
                }
            }
        }
    });
    let listening = listening.await;
    Held {
        address: listening.address,
        asked,
        released,
        _listening: listening,
    }
}

impl Held {
    /// Waits until so many requests have come, from the beginning on.
    pub async fn is_asked(&self, times: usize) {
        let asked = || self.asked.load(Ordering::Acquire) >= times;
        eventually("the requests come", asked).await;
    }

    /// Answers, from now on.
    pub fn release(&self) {
        self.released.send_replace(true);
    }
}
