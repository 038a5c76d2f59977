//! Streams that nobody holds any more, and that must not be reset yet.
//!
//! A reset ends both directions, and throws away what h2 has queued. So a stream that was finished
//! is reset only behind its end, and one that the peer has not answered only after its answer: h2
//! takes a peer that resets many streams before they are accepted for an attacker. Whoever drives
//! the connection drives these too; they end with it.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tokio::time::{Sleep, sleep};

use super::incoming::Incoming;
use super::outgoing::Outgoing;
use crate::wire::code::Code;

/// For the peer to take what was sent before: as long as a visit lingers.
const PATIENCE: Duration = Duration::from_secs(5);

/// One that is to be reset with a code as soon as it may.
#[derive(Debug)]
struct Leaver {
    incoming: Incoming,
    outgoing: Outgoing,
    code: Code,
    /// For what it has still to say, once the peer has answered.
    patience: Option<Pin<Box<Sleep>>>,
}

impl Future for Leaver {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        ready!(self.incoming.poll_answered(cx));
        // Nobody reads it any more: what lies there, and what still comes, is thrown away.
        self.incoming.discard();
        let sent = self.outgoing.poll_sent(cx);
        if sent.is_pending() {
            let patience = self
                .patience
                .get_or_insert_with(|| Box::pin(sleep(PATIENCE)));
            ready!(patience.as_mut().poll(cx));
        }
        let code = self.code;
        // Not sent to a peer that has reset the stream itself, or has ended it too.
        self.outgoing.reset(code);
        Poll::Ready(())
    }
}

/// Where streams go when they are dropped. Bounded by the number of streams.
#[derive(Clone, Debug)]
pub(super) struct Exit(mpsc::UnboundedSender<Leaver>);

impl Exit {
    /// Resets a stream as soon as it may be.
    pub(super) fn leave(&self, incoming: Incoming, outgoing: Outgoing, code: Code) {
        // Fails only when the connection is gone, and every stream with it.
        let _ = self.0.send(Leaver {
            incoming,
            outgoing,
            code,
            patience: None,
        });
    }
}

/// The streams that are leaving one connection.
#[derive(Debug)]
pub(super) struct Leaving {
    arriving: mpsc::UnboundedReceiver<Leaver>,
    waiting: FuturesUnordered<Leaver>,
}

impl Leaving {
    pub(super) fn new() -> (Exit, Self) {
        let (exit, arriving) = mpsc::unbounded_channel();
        let waiting = FuturesUnordered::new();
        (Exit(exit), Self { arriving, waiting })
    }

    /// Resets what may be reset; wakes the caller when there is more to do.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) {
        while let Poll::Ready(Some(leaver)) = self.arriving.poll_recv(cx) {
            self.waiting.push(leaver);
        }
        while let Poll::Ready(Some(())) = self.waiting.poll_next_unpin(cx) {}
    }
}
