//! Tasks that let others go first, so that what those write leaves together.
//!
//! Whoever drives a tunnel's connection is woken by the first visit that writes to its stream. If it wrote at
//! once, every small answer would cost a system call and a packet of its own, while more answers are ready
//! already. A runtime prefers the task that was woken last; so the driver gives up its turn once, and runs
//! behind all that was ready with it.

use std::io;
use std::net::UdpSocket;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use quinn::{AsyncTimer, AsyncUdpSocket, Runtime, TokioRuntime};

/// A future that gives up its turn once whenever it is woken.
#[must_use = "futures do nothing unless they are polled"]
pub struct Coalesced<F: ?Sized> {
    inner: Pin<Box<F>>,
    has_waited: bool,
}

impl<F: Future> Coalesced<F> {
    /// Wraps a task. What it needs from its wakers it gets, one turn later.
    pub fn new(inner: F) -> Self {
        Self {
            inner: Box::pin(inner),
            has_waited: false,
        }
    }
}

impl<F: Future + ?Sized> Future for Coalesced<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        if !self.has_waited {
            self.has_waited = true;
            // A task that wakes itself goes behind all that are ready.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.has_waited = false;
        self.inner.as_mut().poll(cx)
    }
}

/// tokio for quinn, whose own tasks are [`Coalesced`].
#[derive(Debug)]
pub struct Quinn;

impl Runtime for Quinn {
    fn new_timer(&self, at: Instant) -> Pin<Box<dyn AsyncTimer>> {
        TokioRuntime.new_timer(at)
    }

    fn spawn(&self, future: Pin<Box<dyn Future<Output = ()> + Send>>) {
        TokioRuntime.spawn(Box::pin(Coalesced {
            inner: future,
            has_waited: false,
        }));
    }

    fn wrap_udp_socket(&self, socket: UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        TokioRuntime.wrap_udp_socket(socket)
    }

    fn now(&self) -> Instant {
        TokioRuntime.now()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[tokio::test]
    async fn who_is_coalesced_runs_behind_all_that_are_ready() {
        let order = Arc::new(Mutex::new(vec![]));
        let note = |name| {
            let order = order.clone();
            async move { order.lock().expect("not poisoned").push(name) }
        };
        let tasks = [
            tokio::spawn(Coalesced::new(note("driver"))),
            tokio::spawn(note("a visit")),
            tokio::spawn(note("another")),
        ];
        for task in tasks {
            task.await.expect("ends");
        }
        let order = order.lock().expect("not poisoned");
        assert_eq!(*order, ["a visit", "another", "driver"]);
    }
}
