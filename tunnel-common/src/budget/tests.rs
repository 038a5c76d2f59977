//! The arithmetic of bookings and windows.

use std::time::Duration;

use super::*;
use crate::quic::{CONNECTION_WINDOW, LEAST_STREAM_WINDOW as STREAM_WINDOW, MAX_STREAM_WINDOW};

const AMPLE: u64 = 1 << 40;
/// Streams that one tunnel may have stalled: half its window.
const PER_TUNNEL: u64 = CONNECTION_WINDOW / 2 / MAX_STREAM_WINDOW;

fn evicted(booking: &Booking) -> bool {
    booking
        .poll_evicted(&mut Context::from_waker(std::task::Waker::noop()))
        .is_ready()
}

#[test]
fn the_stream_that_stalled_first_goes_when_its_tunnel_is_half_full() {
    let budget = MemoryBudget::new(AMPLE);
    let (tunnel, other) = (budget.tunnel(Carrier::Quic), budget.tunnel(Carrier::Quic));
    let others = other.book(MAX_STREAM_WINDOW);
    let mut bookings: Vec<_> = (0..PER_TUNNEL)
        .map(|_| tunnel.book(MAX_STREAM_WINDOW))
        .collect();
    assert!(!bookings.iter().any(evicted));
    bookings.push(tunnel.book(MAX_STREAM_WINDOW));
    assert!(evicted(&bookings[0]));
    assert!(!bookings[1..].iter().any(evicted));
    assert!(!evicted(&others), "another tunnel pays nothing");
}

#[test]
fn the_stream_that_stalled_first_goes_when_the_process_is_half_full() {
    let budget = MemoryBudget::new(4 * STREAM_WINDOW);
    let bookings: Vec<_> = (0..3)
        .map(|_| budget.tunnel(Carrier::Quic).book(STREAM_WINDOW))
        .collect();
    assert_eq!(
        bookings.iter().map(evicted).collect::<Vec<_>>(),
        [true, false, false]
    );
}

#[test]
fn a_dropped_booking_makes_room() {
    let budget = MemoryBudget::new(4 * STREAM_WINDOW);
    let tunnel = budget.tunnel(Carrier::Quic);
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
    let tunnel = budget.tunnel(Carrier::Quic);
    let bookings: Vec<_> = (0..10).map(|_| tunnel.book(STREAM_WINDOW)).collect();
    assert_eq!(bookings.iter().filter(|b| evicted(b)).count(), 9);
    assert_eq!(budget.0.lock().booked, STREAM_WINDOW);
    drop(bookings);
    assert_eq!(budget.0.lock().booked, 0);
}

#[tokio::test(start_paused = true)]
async fn a_window_is_lowered_as_the_budget_fills_and_never_raised() {
    let budget = MemoryBudget::new(2 * CONNECTION_WINDOW);
    assert_eq!(budget.first_window(Carrier::Quic), CONNECTION_WINDOW);
    let mut windows = budget.tunnel(Carrier::Quic).lower_windows();
    for _ in 0..3 {
        drop(budget.tunnel(Carrier::Quic).book(STREAM_WINDOW));
    }
    let _booking = budget.tunnel(Carrier::Quic).book(STREAM_WINDOW);
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
    let _booking = budget.tunnel(Carrier::Quic).book(STREAM_WINDOW);
    assert_eq!(
        budget.tunnel(Carrier::Quic).lower_windows().next().await,
        CONNECTION_WINDOW / 2
    );
}

#[test]
fn whatever_is_stalled_a_tunnel_has_a_streams_window_left() {
    for carrier in [Carrier::Quic, Carrier::H2] {
        for total in (0..40).map(|power| 1_u64 << power) {
            let first = carrier.window(Room::new(total, 0));
            let smallest = carrier.window(Room::new(total, total / 2));
            let limit = carrier.limit(total);
            let stream = carrier.stream_window(total);
            assert!(smallest >= limit + stream, "{carrier:?}: {total}");
            assert!(2 * smallest >= first, "{carrier:?}: {total}");
            assert!(limit >= stream, "{carrier:?}: {total}");
        }
    }
}

#[test]
fn a_small_machine_grants_small_windows() {
    let window = |carrier: Carrier, total, booked| carrier.window(Room::new(total, booked));
    assert_eq!(window(Carrier::Quic, 128 << 20, 0), 64 << 20);
    assert_eq!(window(Carrier::H2, 128 << 20, 0), 16 << 20);
    for carrier in [Carrier::Quic, Carrier::H2] {
        let least = 2 * carrier.stream_window(0);
        assert_eq!(window(carrier, 0, 0), least);
        assert_eq!(window(carrier, 128 << 20, u64::MAX), least);
    }
}

#[test]
fn a_quic_streams_window_follows_the_budget_and_a_booking_is_no_more_than_that() {
    for (total, stream) in [(128 << 20, 4), (512 << 20, 4), (1 << 30, 8), (AMPLE, 8)] {
        let budget = MemoryBudget::new(total);
        let tunnel = budget.tunnel(Carrier::Quic);
        let _booking = tunnel.book(MAX_STREAM_WINDOW);
        assert_eq!(budget.0.lock().booked, stream << 20, "{total}");
        let granted = quic::stream_window(budget.first_window(Carrier::Quic));
        assert_eq!(granted, stream << 20, "{total}");
    }
}

#[test]
fn the_connections_of_a_pool_together_are_filled_as_one_of_quic_and_no_more_than_the_budget() {
    for total in (26..40).map(|power| 1_u64 << power) {
        let room = Room::new(total, 0);
        let pool = Carrier::H2.window(room) * u64::from(h2::POOL);
        assert!(pool <= total / 2, "{total}");
        assert!(pool >= Carrier::Quic.window(room), "{total}");
    }
}

#[test]
fn sixteen_of_the_largest_streams_may_stall_on_one_http2_connection() {
    let largest = u64::from(h2::MAX_STREAM_WINDOW);
    let tunnel = MemoryBudget::new(AMPLE).tunnel(Carrier::H2);
    let bookings: Vec<_> = (0..17).map(|_| tunnel.book(largest)).collect();
    assert_eq!(bookings.iter().filter(|b| evicted(b)).count(), 1);
    assert!(evicted(&bookings[0]));
}

#[test]
fn a_booking_grows_with_the_window_and_keeps_its_place() {
    let window = u64::from(h2::MAX_STREAM_WINDOW);
    let budget = MemoryBudget::new(4 * window);
    let tunnel = budget.tunnel(Carrier::H2);
    let mut first = tunnel.book(window / 16);
    let second = tunnel.book(window / 16);
    first.raise(window / 2);
    assert_eq!(budget.0.lock().booked, window / 16 * 9);
    first.raise(window / 4);
    assert_eq!(budget.0.lock().booked, window / 16 * 9, "never less");
    first.raise(window);
    assert!(evicted(&first) && !evicted(&second));
    first.raise(2 * window);
    assert_eq!(budget.0.lock().booked, window / 16, "it is gone");
    drop((first, second));
    assert_eq!(budget.0.lock().booked, 0);
}

#[tokio::test(start_paused = true)]
async fn http2_windows_follow_the_budget_down_and_streams_back_up_as_well() {
    let total = 32 * STREAM_WINDOW;
    let budget = MemoryBudget::new(total);
    let mut windows = budget.h2_windows();
    let wide = windows.now();
    assert_eq!(u64::from(wide.connection), 4 * STREAM_WINDOW);
    assert!(!wide.is_short);
    let tunnels: Vec<_> = (0..9).map(|_| budget.tunnel(Carrier::Quic)).collect();
    let bookings: Vec<_> = tunnels.iter().map(|one| one.book(STREAM_WINDOW)).collect();
    let mut windows = windows.changed().await;
    assert!(windows.now().is_short, "more than a quarter is booked");
    drop(bookings);
    let mut windows = windows.changed().await;
    let later = windows.now();
    assert_eq!(u64::from(later.connection), 2 * STREAM_WINDOW);
    assert!(!later.is_short);
}
