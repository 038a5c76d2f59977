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

#[derive(Debug)]
struct Account {
    booked: u64,
    bookings: BTreeSet<u64>,
    window: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Notice {
    given: AtomicBool,
    waker: AtomicWaker,
}

impl MemoryBudget {
    /// A budget of `total` bytes.
    pub fn new(total: u64) -> Self {
        Self(Arc::new(Shared {
            total,
            ledger: Mutex::default(),
        }))
    }

    /// Opens the account of one tunnel.
    pub fn tunnel(&self) -> TunnelBudget {
        let mut ledger = self.0.lock();
        let window = watch::Sender::new(connection_window(self.0.total, ledger.booked));
        let tunnel = ledger.draw_number();
        let account = Account {
            booked: 0,
            bookings: BTreeSet::new(),
            window: window.clone(),
        };
        ledger.tunnels.insert(tunnel, account);
        TunnelBudget(Arc::new(Opened {
            tunnel,
            window,
            shared: self.0.clone(),
        }))
    }

    /// The window in bytes that a connection begins with.
    pub fn first_window(&self) -> u64 {
        connection_window(self.0.total, 0)
    }
}

/// What one connection may have in flight towards us: half of what is left of the budget, so that
/// two can be filled at once, within the fixed bounds, and in powers of two, so that it does not
/// change with every booking.
fn connection_window(total: u64, booked: u64) -> u64 {
    let half = (total.saturating_sub(booked) / 2).clamp(STREAM_WINDOW, CONNECTION_WINDOW);
    1 << half.ilog2()
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
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
        if let Some(account) = self.tunnels.get_mut(&tunnel) {
            account.booked += bytes;
            account.bookings.insert(number);
        }
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

    fn remove(&mut self, number: u64) -> Option<Entry> {
        let entry = self.bookings.remove(&number)?;
        self.booked -= entry.bytes;
        if let Some(account) = self.tunnels.get_mut(&entry.tunnel) {
            account.booked -= entry.bytes;
            account.bookings.remove(&number);
        }
        Some(entry)
    }

    /// The stream to be told next, of those that stand in the way of either limit.
    fn over_limit(&self, tunnel: u64, total: u64) -> Option<u64> {
        let account = self.tunnels.get(&tunnel)?;
        let tunnel_limit = (connection_window(total, 0) / 2).max(STREAM_WINDOW);
        if account.booked > tunnel_limit {
            return account.bookings.first().copied();
        }
        if self.booked > total / 2 {
            return self.bookings.first_key_value().map(|(number, _)| *number);
        }
        None
    }

    /// Tells tunnels their windows after the bookings of `tunnel` changed from `before` in all: its
    /// own bookings come on top, or its stalled streams would use up what the others move in.
    fn tell_windows(&self, total: u64, tunnel: u64, before: u64) {
        let window = connection_window(total, self.booked);
        if window == connection_window(total, before) {
            self.tunnels
                .get(&tunnel)
                .into_iter()
                .for_each(|account| account.tell(window));
        } else {
            self.tunnels
                .values()
                .for_each(|account| account.tell(window));
        }
    }
}

impl Account {
    fn tell(&self, window: u64) {
        let window = window + self.booked;
        self.window
            .send_if_modified(|now| std::mem::replace(now, window) != window);
    }
}

/// One tunnel's account. Cheap to clone; it is closed with the last clone.
#[derive(Clone, Debug)]
pub struct TunnelBudget(Arc<Opened>);

#[derive(Debug)]
struct Opened {
    tunnel: u64,
    window: watch::Sender<u64>,
    shared: Arc<Shared>,
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.shared.lock().tunnels.remove(&self.tunnel);
    }
}

impl TunnelBudget {
    /// The window in bytes that the tunnel should grant its peer now, and as it changes. The first
    /// value counts as a change.
    pub fn window(&self) -> watch::Receiver<u64> {
        let mut window = self.0.window.subscribe();
        window.mark_changed();
        window
    }

    /// Books a stream that has stalled, at `bytes`, until the booking is dropped. Streams that
    /// stalled earlier may be told to go for it, or this one itself.
    pub fn book(&self, bytes: u64) -> Booking {
        let notice = Arc::new(Notice::default());
        let (shared, tunnel) = (&self.0.shared, self.0.tunnel);
        let mut ledger = shared.lock();
        let before = ledger.booked;
        let number = ledger.enter(tunnel, bytes, notice.clone());
        while let Some(number) = ledger.over_limit(tunnel, shared.total) {
            if let Some(entry) = ledger.remove(number) {
                entry.notice.give();
                ledger.tell_windows(shared.total, entry.tunnel, ledger.booked);
            }
        }
        ledger.tell_windows(shared.total, tunnel, before);
        Booking {
            number,
            notice,
            tunnel: self.clone(),
        }
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
    tunnel: TunnelBudget,
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
        let Opened { tunnel, shared, .. } = &*self.tunnel.0;
        let mut ledger = shared.lock();
        let before = ledger.booked;
        if ledger.remove(self.number).is_some() {
            ledger.tell_windows(shared.total, *tunnel, before);
        }
    }
}

#[cfg(test)]
mod tests {
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

    #[test]
    fn windows_shrink_as_the_budget_fills_and_come_back() {
        let budget = MemoryBudget::new(2 * CONNECTION_WINDOW);
        let (tunnel, other) = (budget.tunnel(), budget.tunnel());
        let (own, others) = (tunnel.window(), other.window());
        let windows = || (*own.borrow(), *others.borrow());
        assert_eq!(windows(), (CONNECTION_WINDOW, CONNECTION_WINDOW));
        let booking = tunnel.book(STREAM_WINDOW);
        let half = CONNECTION_WINDOW / 2;
        assert_eq!(
            windows(),
            (half + STREAM_WINDOW, half),
            "its own bookings come on top"
        );
        drop(booking);
        assert_eq!(windows(), (CONNECTION_WINDOW, CONNECTION_WINDOW));
    }

    #[test]
    fn a_tunnel_that_comes_late_is_told_the_window_at_once() {
        let budget = MemoryBudget::new(2 * CONNECTION_WINDOW);
        let _booking = budget.tunnel().book(STREAM_WINDOW);
        let tunnel = budget.tunnel();
        let late = tunnel.window();
        assert_eq!(late.has_changed().ok(), Some(true));
        assert_eq!(*late.borrow(), CONNECTION_WINDOW / 2);
    }

    #[test]
    fn a_small_machine_grants_small_windows_but_always_one_stream() {
        assert_eq!(connection_window(128 << 20, 0), 64 << 20);
        assert_eq!(connection_window(0, 0), STREAM_WINDOW);
        assert_eq!(connection_window(1 << 30, u64::MAX), STREAM_WINDOW);
    }
}
