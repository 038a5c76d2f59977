//! How much memory slow readers may pin, for one tunnel and for the process.
//!
//! A peer may fill a stream's window with bytes that the other side of the splice does not take.
//! Such a *stalled* stream is booked here at one window. While there is room a stalled visit may
//! wait (a paused video is legal); when the bookings of one tunnel pass half of its window, or
//! those of the process half of its budget, the streams that stalled first are told to go.
//! The bookings also lower the window that each tunnel grants its peer: a QUIC connection's, or
//! those of the connections of an HTTP/2 pool, each of which is a tunnel of its own.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::watch;

use crate::{h2, quic};

/// The process's budget. Cheap to clone.
#[derive(Clone, Debug)]
pub struct MemoryBudget(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    total: u64,
    ledger: Mutex<Ledger>,
    room: watch::Sender<Room>,
}

/// What is left of the budget, as coarsely as windows follow it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Room {
    /// The whole budget.
    total: u64,
    /// Half of what is left, so that two connections can be filled at once; a power of two, so that
    /// it does not change with every booking.
    half: u64,
    /// Whether half of what may ever be booked is booked.
    is_short: bool,
}

impl Room {
    fn new(total: u64, booked: u64) -> Self {
        let half = total.saturating_sub(booked) / 2;
        Self {
            total,
            half: 1 << half.max(1).ilog2(),
            is_short: booked > total / 4,
        }
    }
}

/// What a tunnel is made of, as far as its windows go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// One QUIC connection.
    Quic,
    /// One of a pool of HTTP/2 connections, which together are filled as much as one of QUIC.
    H2,
}

impl Carrier {
    /// What one connection may have in flight towards us. At least two streams' windows: one may be
    /// stalled and another still moves.
    fn window(self, room: Room) -> u64 {
        let (largest, share) = match self {
            Self::Quic => (quic::CONNECTION_WINDOW, 1),
            Self::H2 => (h2::CONNECTION_WINDOW.into(), h2::POOL.into()),
        };
        (room.half / share).clamp(2 * self.stream_window(room.total), largest)
    }

    /// The largest window of a stream, out of a budget of `total` bytes.
    fn stream_window(self, total: u64) -> u64 {
        match self {
            Self::Quic => quic::stream_window(Room::new(total, 0).half),
            Self::H2 => h2::MAX_STREAM_WINDOW.into(),
        }
    }

    /// What one tunnel may have booked: half of the smallest window that it can be lowered to, since
    /// no more than half of the budget is ever booked.
    fn limit(self, total: u64) -> u64 {
        self.window(Room::new(total, total / 2)) / 2
    }
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
        let room = watch::Sender::new(Room::new(total, 0));
        Self(Arc::new(Shared {
            total,
            ledger: Mutex::default(),
            room,
        }))
    }

    /// Opens the account of one tunnel.
    pub fn tunnel(&self, carrier: Carrier) -> TunnelBudget {
        let tunnel = self.0.lock().draw_number();
        TunnelBudget {
            tunnel,
            limit: carrier.limit(self.0.total),
            carrier,
            shared: self.0.clone(),
        }
    }

    /// The window in bytes that a connection begins with.
    pub fn first_window(&self, carrier: Carrier) -> u64 {
        carrier.window(Room::new(self.0.total, 0))
    }

    /// How the windows of an HTTP/2 connection stand, now and at each change.
    pub fn h2_windows(&self) -> H2Windows {
        H2Windows {
            lowest: u32::MAX,
            room: self.0.room.subscribe(),
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish_room(&self, booked: u64) {
        let room = Room::new(self.total, booked);
        self.room
            .send_if_modified(|now| std::mem::replace(now, room) != room);
    }

    /// Tells those to go who stand in the way of what `tunnel` has booked.
    fn evict(&self, ledger: &mut Ledger, tunnel: &TunnelBudget) {
        while let Some(number) = ledger.over_limit(tunnel, self.total) {
            if let Some(notice) = ledger.remove(number) {
                notice.give();
            }
        }
        self.publish_room(ledger.booked);
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

    /// Books more for a stream that has not been told to go.
    fn raise(&mut self, number: u64, bytes: u64) {
        let Some(entry) = self.bookings.get_mut(&number) else {
            return;
        };
        let more = bytes.saturating_sub(entry.bytes);
        entry.bytes += more;
        self.booked += more;
        if let Some(account) = self.tunnels.get_mut(&entry.tunnel) {
            account.booked += more;
        }
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
    fn over_limit(&self, tunnel: &TunnelBudget, total: u64) -> Option<u64> {
        let account = self.tunnels.get(&tunnel.tunnel)?;
        if account.booked > tunnel.limit {
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
    carrier: Carrier,
    /// What it may have booked.
    limit: u64,
    shared: Arc<Shared>,
}

impl TunnelBudget {
    /// The windows in bytes that the tunnel should lower its peer's credit to, one after the other.
    ///
    /// A tunnel's window is only ever lowered: to raise it again would grant new credit at once,
    /// for bytes of the old that nobody has read. It is at most halved.
    pub fn lower_windows(&self) -> LowerWindows {
        LowerWindows {
            carrier: self.carrier,
            granted: self.carrier.window(Room::new(self.shared.total, 0)),
            room: self.shared.room.subscribe(),
        }
    }

    /// What one stream holds at the most.
    fn stream_window(&self) -> u64 {
        self.carrier.stream_window(self.shared.total)
    }

    /// Books a stream that has stalled, at `bytes` or what a stream holds at the most, until the
    /// booking is dropped. Streams that stalled earlier may be told to go for it, or this one itself.
    pub fn book(&self, bytes: u64) -> Booking {
        let bytes = bytes.min(self.stream_window());
        let notice = Arc::new(Notice::default());
        let mut ledger = self.shared.lock();
        let number = ledger.enter(self.tunnel, bytes, notice.clone());
        self.shared.evict(&mut ledger, self);
        Booking {
            number,
            bytes,
            notice,
            tunnel: self.clone(),
        }
    }
}

/// See [`TunnelBudget::lower_windows`].
#[derive(Debug)]
pub struct LowerWindows {
    carrier: Carrier,
    granted: u64,
    room: watch::Receiver<Room>,
}

impl LowerWindows {
    /// Waits for the next lower window. Cancel safe.
    pub async fn next(&mut self) -> u64 {
        let (carrier, granted) = (self.carrier, self.granted);
        let lower = self
            .room
            .wait_for(|room| carrier.window(*room) < granted)
            .await
            .map(|room| carrier.window(*room));
        match lower {
            Ok(window) => self.granted = window,
            // The budget is gone, and with it whatever could lower a window.
            Err(_) => return std::future::pending().await,
        }
        self.granted
    }
}

/// See [`MemoryBudget::h2_windows`].
#[derive(Debug)]
pub struct H2Windows {
    lowest: u32,
    room: watch::Receiver<Room>,
}

/// How the windows of an HTTP/2 connection should stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct H2Window {
    /// What the peer may send ahead on all streams together, in bytes. Only ever lower than before.
    pub connection: u32,
    /// Whether single streams should have no more than they begin with.
    pub is_short: bool,
}

impl H2Windows {
    /// How they stand now.
    pub fn now(&mut self) -> H2Window {
        let room = *self.room.borrow_and_update();
        let window = u32::try_from(Carrier::H2.window(room)).unwrap_or(h2::CONNECTION_WINDOW);
        self.lowest = self.lowest.min(window);
        H2Window {
            connection: self.lowest,
            is_short: room.is_short,
        }
    }

    /// Waits until they may stand otherwise. Never ready when the budget is gone.
    pub async fn changed(mut self) -> Self {
        match self.room.changed().await {
            Ok(()) => self,
            Err(_) => std::future::pending().await,
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
    bytes: u64,
    notice: Arc<Notice>,
    tunnel: TunnelBudget,
}

impl Booking {
    /// Books more for it, if `bytes` are more: its window may have grown since. It stays in its
    /// place among those that stalled.
    pub fn raise(&mut self, bytes: u64) {
        let bytes = bytes.min(self.tunnel.stream_window());
        if bytes <= self.bytes {
            return;
        }
        self.bytes = bytes;
        let shared = &self.tunnel.shared;
        let mut ledger = shared.lock();
        ledger.raise(self.number, bytes);
        shared.evict(&mut ledger, &self.tunnel);
    }

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
        let shared = &self.tunnel.shared;
        let mut ledger = shared.lock();
        ledger.remove(self.number);
        shared.publish_room(ledger.booked);
    }
}

#[cfg(test)]
mod tests;
