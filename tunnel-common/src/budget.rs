//! How much memory slow readers may pin, for one tunnel and for the process.
//!
//! A peer may fill a stream's window with bytes that the other side of the splice does not take.
//! Such a *stalled* stream is booked here at one window. While there is room a stalled visit may
//! wait (a paused video is legal); when the bookings of one tunnel pass half of its window, or
//! those of the process half of its budget, the streams that stalled first are told to go.
//! The bookings also lower the window that each tunnel grants its peer.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::watch;

use crate::quic::{CONNECTION_WINDOW, STREAM_WINDOW};

/// The process's budget. Cheap to clone.
#[derive(Clone, Debug)]
pub struct MemoryBudget(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    total: u64,
    ledger: Mutex<Ledger>,
    window: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Ledger {
    next: u64,
    booked: u64,
    /// In the order in which the streams stalled.
    bookings: BTreeMap<u64, Entry>,
    tunnels: HashMap<u64, Account>,
}

#[derive(Debug)]
struct Entry {
    tunnel: u64,
    bytes: u64,
    notice: Arc<Notice>,
}

#[derive(Debug, Default)]
struct Account {
    booked: u64,
    bookings: BTreeSet<u64>,
}

#[derive(Debug, Default)]
struct Notice {
    given: AtomicBool,
    waker: AtomicWaker,
}

impl MemoryBudget {
    /// A budget of `total` bytes.
    pub fn new(total: u64) -> Self {
        let window = watch::Sender::new(connection_window(total, 0));
        Self(Arc::new(Shared {
            total,
            ledger: Mutex::default(),
            window,
        }))
    }

    /// Opens the account of one tunnel.
    pub fn tunnel(&self) -> TunnelBudget {
        let tunnel = self.0.lock().draw_number();
        TunnelBudget {
            tunnel,
            shared: self.0.clone(),
        }
    }

    /// The window in bytes that a connection begins with.
    pub fn first_window(&self) -> u64 {
        connection_window(self.0.total, 0)
    }
}

/// What one connection may have in flight towards us: half of what is left of the budget, so that
/// two can be filled at once, in powers of two, so that it does not change with every booking. At
/// least two streams' windows: one may be stalled and another still moves.
fn connection_window(total: u64, booked: u64) -> u64 {
    let half = (total.saturating_sub(booked) / 2).clamp(2 * STREAM_WINDOW, CONNECTION_WINDOW);
    1 << half.ilog2()
}

/// What one tunnel may have booked: half of the smallest window that it can be lowered to, since
/// no more than half of the budget is ever booked.
fn tunnel_limit(total: u64) -> u64 {
    connection_window(total, total / 2) / 2
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish_window(&self, booked: u64) {
        let window = connection_window(self.total, booked);
        self.window
            .send_if_modified(|now| std::mem::replace(now, window) != window);
    }
}

impl Ledger {
    fn draw_number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn enter(&mut self, tunnel: u64, bytes: u64, notice: Arc<Notice>) -> u64 {
        let number = self.draw_number();
        self.booked += bytes;
        let account = self.tunnels.entry(tunnel).or_default();
        account.booked += bytes;
        account.bookings.insert(number);
        self.bookings.insert(
            number,
            Entry {
                tunnel,
                bytes,
                notice,
            },
        );
        number
    }

    fn remove(&mut self, number: u64) -> Option<Arc<Notice>> {
        let entry = self.bookings.remove(&number)?;
        self.booked -= entry.bytes;
        if let Some(account) = self.tunnels.get_mut(&entry.tunnel) {
            account.booked -= entry.bytes;
            account.bookings.remove(&number);
            if account.bookings.is_empty() {
                self.tunnels.remove(&entry.tunnel);
            }
        }
        Some(entry.notice)
    }

    /// The stream to be told next, of those that stand in the way of either limit.
    fn over_limit(&self, tunnel: u64, total: u64) -> Option<u64> {
        let account = self.tunnels.get(&tunnel)?;
        if account.booked > tunnel_limit(total) {
            return account.bookings.first().copied();
        }
        if self.booked > total / 2 {
            return self.bookings.first_key_value().map(|(number, _)| *number);
        }
        None
    }
}

/// One tunnel's account. Cheap to clone.
#[derive(Clone, Debug)]
pub struct TunnelBudget {
    tunnel: u64,
    shared: Arc<Shared>,
}

impl TunnelBudget {
    /// The windows in bytes that the tunnel should lower its peer's credit to, one after the other.
    ///
    /// A tunnel's window is only ever lowered: to raise it again would grant new credit at once,
    /// for bytes of the old that nobody has read. It is at most halved.
    pub fn lower_windows(&self) -> LowerWindows {
        let first = connection_window(self.shared.total, 0);
        LowerWindows {
            granted: first,
            window: self.shared.window.subscribe(),
        }
    }

    /// Books a stream that has stalled, at `bytes`, until the booking is dropped. Streams that
    /// stalled earlier may be told to go for it, or this one itself.
    pub fn book(&self, bytes: u64) -> Booking {
        let notice = Arc::new(Notice::default());
        let mut ledger = self.shared.lock();
        let number = ledger.enter(self.tunnel, bytes, notice.clone());
        while let Some(number) = ledger.over_limit(self.tunnel, self.shared.total) {
            if let Some(notice) = ledger.remove(number) {
                notice.give();
            }
        }
        self.shared.publish_window(ledger.booked);
        Booking {
            number,
            notice,
            shared: self.shared.clone(),
        }
    }
}

/// See [`TunnelBudget::lower_windows`].
#[derive(Debug)]
pub struct LowerWindows {
    granted: u64,
    window: watch::Receiver<u64>,
}

impl LowerWindows {
    /// Waits for the next lower window. Cancel safe.
    pub async fn next(&mut self) -> u64 {
        let granted = self.granted;
        let lower = self
            .window
            .wait_for(|window| *window < granted)
            .await
            .map(|window| *window);
        match lower {
            Ok(window) => self.granted = window,
            // The budget is gone, and with it whatever could lower a window.
            Err(_) => return std::future::pending().await,
        }
        self.granted
    }
}

impl Notice {
    fn give(&self) {
        self.given.store(true, Ordering::Release);
        self.waker.wake();
    }
}

/// A stalled stream's entry. Dropping it ends the booking.
#[derive(Debug)]
pub struct Booking {
    number: u64,
    notice: Arc<Notice>,
    shared: Arc<Shared>,
}

impl Booking {
    /// Ready when the stream must go, because others need its memory.
    pub fn poll_evicted(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.notice.waker.register(cx.waker());
        if self.notice.given.load(Ordering::Acquire) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }
}

impl Drop for Booking {
    fn drop(&mut self) {
        let mut ledger = self.shared.lock();
        ledger.remove(self.number);
        self.shared.publish_window(ledger.booked);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const AMPLE: u64 = 1 << 40;
    /// Streams that one tunnel may have stalled: half its window.
    const PER_TUNNEL: u64 = CONNECTION_WINDOW / 2 / STREAM_WINDOW;

    fn evicted(booking: &Booking) -> bool {
        booking
            .poll_evicted(&mut Context::from_waker(std::task::Waker::noop()))
            .is_ready()
    }

    #[test]
    fn the_stream_that_stalled_first_goes_when_its_tunnel_is_half_full() {
        let budget = MemoryBudget::new(AMPLE);
        let (tunnel, other) = (budget.tunnel(), budget.tunnel());
        let others = other.book(STREAM_WINDOW);
        let mut bookings: Vec<_> = (0..PER_TUNNEL)
            .map(|_| tunnel.book(STREAM_WINDOW))
            .collect();
        assert!(!bookings.iter().any(evicted));
        bookings.push(tunnel.book(STREAM_WINDOW));
        assert!(evicted(&bookings[0]));
        assert!(!bookings[1..].iter().any(evicted));
        assert!(!evicted(&others), "another tunnel pays nothing");
    }

    #[test]
    fn the_stream_that_stalled_first_goes_when_the_process_is_half_full() {
        let budget = MemoryBudget::new(4 * STREAM_WINDOW);
        let bookings: Vec<_> = (0..3)
            .map(|_| budget.tunnel().book(STREAM_WINDOW))
            .collect();
        assert_eq!(
            bookings.iter().map(evicted).collect::<Vec<_>>(),
            [true, false, false]
        );
    }

    #[test]
    fn a_dropped_booking_makes_room() {
        let budget = MemoryBudget::new(4 * STREAM_WINDOW);
        let tunnel = budget.tunnel();
        for _ in 0..100 {
            assert!(!evicted(&tunnel.book(STREAM_WINDOW)));
        }
        drop(tunnel);
        let ledger = budget.0.lock();
        assert_eq!(
            (ledger.booked, ledger.bookings.len(), ledger.tunnels.len()),
            (0, 0, 0)
        );
    }

    #[test]
    fn an_evicted_streams_memory_is_free_before_it_is_dropped_and_not_freed_twice() {
        let budget = MemoryBudget::new(4 * STREAM_WINDOW);
        let tunnel = budget.tunnel();
        let bookings: Vec<_> = (0..10).map(|_| tunnel.book(STREAM_WINDOW)).collect();
        assert_eq!(bookings.iter().filter(|b| evicted(b)).count(), 9);
        assert_eq!(budget.0.lock().booked, STREAM_WINDOW);
        drop(bookings);
        assert_eq!(budget.0.lock().booked, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_window_is_lowered_as_the_budget_fills_and_never_raised() {
        let budget = MemoryBudget::new(2 * CONNECTION_WINDOW);
        assert_eq!(budget.first_window(), CONNECTION_WINDOW);
        let mut windows = budget.tunnel().lower_windows();
        for _ in 0..3 {
            drop(budget.tunnel().book(STREAM_WINDOW));
        }
        let _booking = budget.tunnel().book(STREAM_WINDOW);
        assert_eq!(windows.next().await, CONNECTION_WINDOW / 2);
        let waits = Duration::from_secs(3600);
        assert!(
            tokio::time::timeout(waits, windows.next()).await.is_err(),
            "once is enough"
        );
    }

    #[tokio::test]
    async fn a_tunnel_that_comes_late_is_told_at_once() {
        let budget = MemoryBudget::new(2 * CONNECTION_WINDOW);
        let _booking = budget.tunnel().book(STREAM_WINDOW);
        assert_eq!(
            budget.tunnel().lower_windows().next().await,
            CONNECTION_WINDOW / 2
        );
    }

    #[test]
    fn whatever_is_stalled_a_tunnel_has_a_streams_window_left() {
        for total in (0..40).map(|power| 1_u64 << power) {
            let smallest = connection_window(total, total / 2);
            assert!(smallest >= tunnel_limit(total) + STREAM_WINDOW, "{total}");
            assert!(2 * smallest >= connection_window(total, 0), "{total}");
            assert!(tunnel_limit(total) >= STREAM_WINDOW, "{total}");
        }
    }

    #[test]
    fn a_small_machine_grants_small_windows() {
        assert_eq!(connection_window(128 << 20, 0), 64 << 20);
        assert_eq!(connection_window(0, 0), 2 * STREAM_WINDOW);
        assert_eq!(connection_window(1 << 30, u64::MAX), 2 * STREAM_WINDOW);
    }
}
