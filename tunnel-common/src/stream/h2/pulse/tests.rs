//! A pulse beside a made-up clock.

use super::*;

const EVERY: Duration = Duration::from_secs(2);
const WITHIN: Duration = Duration::from_secs(8);
const MS: Duration = Duration::from_millis(1);
const WINDOW: u64 = STREAM_WINDOW as u64;

/// A pulse whose first question, asked at once, was answered after `trip`.
fn met(trip: Duration) -> (Pulse, Instant) {
    let start = Instant::now();
    let mut pulse = Pulse::new(EVERY, WITHIN, start);
    assert_eq!(pulse.next(start), Next::Ask);
    pulse.asked(start);
    pulse.answered(start + trip);
    (pulse, start + trip)
}

/// Asks, and answers after `trip`, in which `bytes` come.
fn measure(pulse: &mut Pulse, now: &mut Instant, bytes: u64, trip: Duration) {
    assert_eq!(pulse.next(*now), Next::Ask);
    pulse.asked(*now);
    *now += trip;
    pulse.received(pulse.received + bytes, *now);
    pulse.answered(*now);
}

/// Lets a window come, so that it is time to measure.
fn flow(pulse: &mut Pulse, now: &mut Instant) {
    pulse.received(pulse.received + u64::from(pulse.window), *now);
    if let Next::Wait(at) = pulse.next(*now) {
        *now = at;
    }
}

#[test]
fn a_peer_that_is_silent_is_asked_again_and_again_and_no_more_often() {
    let (mut pulse, mut now) = met(MS);
    for _ in 0..10 {
        assert_eq!(pulse.next(now), Next::Wait(now + EVERY));
        now += EVERY;
        measure(&mut pulse, &mut now, 0, MS);
    }
}

#[test]
fn a_peer_of_which_nothing_comes_is_dead_after_the_time_it_has_to_answer() {
    let (mut pulse, mut now) = met(MS);
    now += EVERY;
    assert_eq!(pulse.next(now), Next::Ask);
    pulse.asked(now);
    assert_eq!(pulse.next(now), Next::Wait(now + WITHIN));
    assert_eq!(pulse.next(now + WITHIN - MS), Next::Wait(now + WITHIN));
    assert_eq!(pulse.next(now + WITHIN), Next::Dead);
}

#[test]
fn a_peer_whose_bytes_come_lives_without_an_answer_and_is_not_asked_twice() {
    let (mut pulse, mut now) = met(MS);
    now += EVERY;
    pulse.asked(now);
    for byte in 1..1_000 {
        now += WITHIN - MS;
        pulse.received(byte, now);
        assert_eq!(pulse.next(now), Next::Wait(now + WITHIN));
    }
    assert_eq!(pulse.next(now + WITHIN), Next::Dead);
}

#[test]
fn bytes_that_came_before_the_question_do_not_answer_it() {
    let (mut pulse, mut now) = met(MS);
    pulse.received(1, now);
    now += EVERY;
    pulse.asked(now);
    assert_eq!(pulse.next(now + WITHIN), Next::Dead);
}

#[test]
fn a_window_grows_to_what_a_long_path_holds_within_a_second_of_full_use() {
    let trip = 100 * MS;
    let (mut pulse, mut now) = met(trip);
    let begin = now;
    while pulse.window() < MAX_STREAM_WINDOW {
        flow(&mut pulse, &mut now);
        let window = u64::from(pulse.window());
        measure(&mut pulse, &mut now, window, trip);
    }
    assert!(now - begin <= 1_000 * MS, "{:?}", now - begin);
    // And there is nothing more to measure.
    pulse.received(pulse.received + 100 * WINDOW, now);
    assert_eq!(pulse.next(now), Next::Wait(now + EVERY));
}

#[test]
fn a_window_grows_to_four_times_what_the_path_holds_and_no_further() {
    let trip = 100 * MS;
    let (mut pulse, mut now) = met(trip);
    for _ in 0..100 {
        flow(&mut pulse, &mut now);
        measure(&mut pulse, &mut now, WINDOW, trip);
    }
    assert_eq!(u64::from(pulse.window()), 4 * WINDOW);
}

#[test]
fn a_window_that_takes_two_round_trips_because_of_losses_grows_all_the_same() {
    let trip = 50 * MS;
    let (mut pulse, mut now) = met(trip);
    for _ in 0..20 {
        flow(&mut pulse, &mut now);
        let window = u64::from(pulse.window());
        measure(&mut pulse, &mut now, window, 2 * trip);
    }
    assert_eq!(pulse.window(), MAX_STREAM_WINDOW);
}

#[test]
fn a_queue_on_the_way_is_not_taken_for_a_longer_path() {
    let (mut pulse, mut now) = met(10 * MS);
    // 2 Mbit/s: a window waits a second.
    for _ in 0..10 {
        flow(&mut pulse, &mut now);
        measure(&mut pulse, &mut now, WINDOW, 1_000 * MS);
    }
    assert_eq!(u64::from(pulse.window()), WINDOW);
}

#[test]
fn a_way_that_has_become_longer_is_found_out() {
    let (mut pulse, mut now) = met(10 * MS);
    let begin = now;
    while pulse.window() < MAX_STREAM_WINDOW {
        flow(&mut pulse, &mut now);
        let window = u64::from(pulse.window());
        measure(&mut pulse, &mut now, window, 100 * MS);
    }
    assert!(now - begin < 5 * FORGETS_WITHIN, "{:?}", now - begin);
}

#[test]
fn a_path_that_was_found_well_served_is_left_alone_for_a_while() {
    let (mut pulse, mut now) = met(MS);
    flow(&mut pulse, &mut now);
    measure(&mut pulse, &mut now, 1_000, MS);
    pulse.received(pulse.received + WINDOW, now);
    assert_eq!(pulse.next(now), Next::Wait(now + MEASURED_FOR));
}

#[test]
fn what_was_shrunk_grows_again_by_the_same_measure() {
    let trip = 100 * MS;
    let (mut pulse, mut now) = met(trip);
    flow(&mut pulse, &mut now);
    measure(&mut pulse, &mut now, 8 * WINDOW, trip);
    assert_eq!(pulse.window(), MAX_STREAM_WINDOW);
    pulse.shrink();
    assert_eq!(pulse.window(), STREAM_WINDOW);
    flow(&mut pulse, &mut now);
    measure(&mut pulse, &mut now, WINDOW, trip);
    assert_eq!(u64::from(pulse.window()), 4 * WINDOW);
}
