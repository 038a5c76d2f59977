//! Senders on one path, in simulated time.
//!
//! ```text
//! window, paced ─▶ queue of bounded length ─▶ so many bytes a second ─▶ half a round trip ─┐
//!       ▲                                                   lost at random ◀──────────────┤
//!       └──────────────────────── acknowledged, half a round trip ◀───────────────────────┘
//! ```

use super::*;

const PACKET: u16 = 1452;
const STEP: Duration = Duration::from_micros(100);
const MEGABIT: f64 = 1e6 / 8.0;

#[derive(Clone, Copy)]
struct Path {
    /// Bytes by the second.
    rate: f64,
    rtt: Duration,
    /// The longest queue, in bytes.
    queue: f64,
    /// The share of packets that is lost.
    loss: f64,
    /// Acknowledgements come together, so far apart.
    lump: Duration,
}

impl Path {
    fn new(megabits: f64, rtt_ms: u64) -> Self {
        let (rate, rtt) = (megabits * MEGABIT, Duration::from_millis(rtt_ms));
        Self {
            rate,
            rtt,
            queue: 4.0 * rate * rtt.as_secs_f64(),
            loss: 0.0,
            lump: Duration::ZERO,
        }
    }

    fn with_loss(self, loss: f64) -> Self {
        Self { loss, ..self }
    }
}

/// A packet on its way: when its sender learns of it, when it was sent, whether it arrived.
struct Packet {
    known_at: Instant,
    sent_at: Instant,
    arrives: bool,
}

struct Sender {
    bbr: Bbr,
    starts_at: Instant,
    under_way: VecDeque<Packet>,
    tokens: f64,
    rtt: Duration,
    delivered: u64,
}

struct World {
    now: Instant,
    path: Path,
    /// When the queue will have drained.
    busy_until: Instant,
    dice: fastrand::Rng,
    senders: Vec<Sender>,
    /// The longest wait in the queue.
    longest_wait: Duration,
}

impl World {
    fn new(path: Path) -> Self {
        let now = Instant::now();
        Self {
            now,
            path,
            busy_until: now,
            dice: fastrand::Rng::with_seed(7),
            senders: vec![],
            longest_wait: Duration::ZERO,
        }
    }

    fn with_sender(mut self) -> Self {
        self.add_sender();
        self
    }

    fn add_sender(&mut self) {
        self.senders.push(Sender {
            bbr: Bbr::new(self.now, PACKET),
            starts_at: self.now,
            under_way: VecDeque::new(),
            tokens: 0.0,
            rtt: self.path.rtt,
            delivered: 0,
        });
    }

    /// Lets time go by, and gives each sender's share of what the path could have carried.
    fn run(&mut self, time: Duration) -> Vec<f64> {
        let (until, before): (_, Vec<_>) = (
            self.now + time,
            self.senders.iter().map(|sender| sender.delivered).collect(),
        );
        self.longest_wait = Duration::ZERO;
        while self.now < until {
            self.now += STEP;
            for number in 0..self.senders.len() {
                self.hear(number);
                self.speak(number);
            }
        }
        let most = self.path.rate * time.as_secs_f64();
        let gained = self.senders.iter().zip(before);
        gained
            .map(|(sender, before)| (sender.delivered - before) as f64 / most)
            .collect()
    }

    fn hear(&mut self, number: usize) {
        let (now, sender) = (self.now, &mut self.senders[number]);
        let mut heard = false;
        while sender
            .under_way
            .front()
            .is_some_and(|packet| packet.known_at <= now)
        {
            let packet = sender.under_way.pop_front().expect("was looked at");
            if packet.arrives {
                sender.bbr.acked(now, packet.sent_at, PACKET.into(), false);
                sender.delivered += u64::from(PACKET);
                sender.rtt = (sender.rtt * 7 + (now - packet.sent_at)) / 8;
                heard = true;
            } else {
                sender.bbr.lost(PACKET.into(), false);
            }
        }
        if heard {
            let in_flight = sender.under_way.len() as u64 * u64::from(PACKET);
            sender.bbr.all_acked(now, in_flight, false);
        }
    }

    /// Sends what window and pace allow, as quinn's pacer does: 5/4 of a window in each round trip.
    fn speak(&mut self, number: usize) {
        let (now, path, sender) = (self.now, self.path, &mut self.senders[number]);
        let window = sender.bbr.window as f64;
        let gained = window * 1.25 * STEP.as_secs_f64() / sender.rtt.as_secs_f64();
        sender.tokens = (sender.tokens + gained).min(10.0 * f64::from(PACKET));
        while sender.tokens >= f64::from(PACKET)
            && (sender.under_way.len() + 1) as f64 * f64::from(PACKET) <= window
        {
            sender.tokens -= f64::from(PACKET);
            sender.bbr.sent(now);
            let wait = self.busy_until.saturating_duration_since(now);
            let fits = wait.as_secs_f64() * path.rate <= path.queue;
            if fits {
                self.longest_wait = self.longest_wait.max(wait);
                let takes = Duration::from_secs_f64(f64::from(PACKET) / path.rate);
                self.busy_until = now + wait + takes;
            }
            let mut known_at = now + wait + path.rtt;
            if !path.lump.is_zero() {
                let lumps = (known_at - sender.starts_at)
                    .div_duration_f64(path.lump)
                    .ceil();
                known_at = sender.starts_at + path.lump.mul_f64(lumps);
            }
            sender.under_way.push_back(Packet {
                known_at,
                sent_at: now,
                arrives: fits && self.dice.f64() >= path.loss,
            });
        }
    }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// What one sender gets of a path, from the first second on.
fn alone(path: Path) -> f64 {
    let mut world = World::new(path).with_sender();
    world.run(seconds(1));
    world.run(seconds(20))[0]
}

#[test]
fn a_path_is_filled_whatever_it_loses() {
    for (megabits, rtt) in [
        (100.0, 50),
        (10.0, 20),
        (1.0, 100),
        (1000.0, 5),
        (100.0, 200),
    ] {
        for loss in [0.0, 0.01, 0.05, 0.1] {
            let share = alone(Path::new(megabits, rtt).with_loss(loss));
            assert!(
                share > 0.93 * (1.0 - loss),
                "{megabits} Mbit/s, {rtt} ms, {loss}: {share}"
            );
        }
    }
}

#[test]
fn the_queue_stays_short() {
    let path = Path::new(100.0, 50);
    let mut world = World::new(path).with_sender();
    world.run(seconds(2));
    world.run(seconds(30));
    assert!(
        world.longest_wait < path.rtt / 2,
        "{:?}",
        world.longest_wait
    );
}

#[test]
fn a_short_buffer_is_not_kept_full() {
    let mut path = Path::new(100.0, 50);
    path.queue = 0.05 * path.rate * path.rtt.as_secs_f64();
    let mut world = World::new(path).with_sender();
    world.run(seconds(2));
    assert!(world.run(seconds(20))[0] > 0.9);
}

#[test]
fn more_room_is_found_within_a_second_and_less_believed_as_fast() {
    let mut world = World::new(Path::new(10.0, 50)).with_sender();
    world.run(seconds(5));
    world.path.rate *= 10.0;
    world.run(seconds(1));
    let share = world.run(seconds(5))[0];
    assert!(share > 0.93, "{share}");
    world.path.rate /= 10.0;
    world.run(seconds(2));
    let share = world.run(seconds(5))[0];
    assert!(share > 0.93, "{share}");
    assert!(world.longest_wait < seconds(1), "{:?}", world.longest_wait);
}

#[test]
fn a_longer_way_is_believed_after_the_next_probe() {
    let mut world = World::new(Path::new(100.0, 20)).with_sender();
    world.run(seconds(5));
    world.path.rtt *= 5;
    world.run(seconds(12));
    let share = world.run(seconds(10))[0];
    assert!(share > 0.9, "{share}");
}

#[test]
fn acknowledgements_in_lumps_do_not_slow_it_down() {
    for lump in [5, 20, 60] {
        let path = Path {
            lump: Duration::from_millis(lump),
            ..Path::new(100.0, 20)
        };
        let share = alone(path);
        assert!(share > 0.9, "{lump} ms: {share}");
    }
}

#[test]
fn who_comes_later_gets_a_share() {
    let mut world = World::new(Path::new(100.0, 50)).with_sender();
    world.run(seconds(10));
    world.add_sender();
    world.run(seconds(20));
    let shares = world.run(seconds(20));
    let total: f64 = shares.iter().sum();
    assert!(total > 0.93, "{shares:?}");
    assert!(shares.iter().all(|share| *share > 0.25), "{shares:?}");
}

#[test]
fn what_nobody_had_to_send_is_no_measure_of_the_path() {
    let mut world = World::new(Path::new(100.0, 50)).with_sender();
    world.run(seconds(5));
    let Sender { bbr, .. } = &mut world.senders[0];
    let (rate, mut now) = (bbr.rate(), world.now + seconds(10));
    for _ in 0..100 {
        bbr.sent(now);
        let sent = now;
        now += Duration::from_millis(50);
        bbr.acked(now, sent, 1000, true);
        bbr.all_acked(now, 0, true);
    }
    assert_eq!(bbr.rate(), rate);
}

#[test]
fn after_a_persistent_loss_it_begins_anew() {
    let mut world = World::new(Path::new(100.0, 50)).with_sender();
    world.run(seconds(5));
    let bbr = &mut world.senders[0].bbr;
    bbr.lost(PACKET.into(), true);
    assert_eq!(bbr.window, LEAST_PACKETS * u64::from(PACKET));
    assert!(matches!(bbr.phase, Phase::Startup { .. }));
}
