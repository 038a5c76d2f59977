//! Which connection carries the tunnel, and when that changes: what is decided, and nothing of how it
//! is done.
//!
//! ```text
//!              first to be welcomed                        no tunnel serves
//!   QUIC, then HTTP/2, then HTTP/2 at 443  ──▶  serving  ─────────────────▶ again
//!                                                │   ▲
//!                        over HTTP/2: is QUIC back?  │ make before break
//!                        over any: is it silent?─────┘
//! ```
//!
//! * The ways race, each a head start behind the one before. A way is there when the relay has said
//!   Welcome on it; the first one is asked for our endpoints, the others were never more than a knock.
//! * One QUIC connection is enough: its streams do not wait for each other. TCP's do, so over HTTP/2
//!   there are several connections.
//! * Beside HTTP/2, QUIC is tried again and again, ever more seldom. Beside a pool that has fallen
//!   silent, every way is tried before it is given up for dead.
//! * QUIC is to blame for a silence only if HTTP/2 passed meanwhile, or if it falls silent again and
//!   again. What fell silent while this host slept or moved is excused.
//! * What is found begins to serve before the old stops: the relay sends new visits to the new, and
//!   those on the old go on to their end.

use std::time::Duration;

use tokio::time::Instant;

use crate::config::Transport;

/// A kind of connection to a port of the relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// QUIC at the relay's port.
    Quic,
    /// HTTP/2 over TCP at the relay's port, where UDP does not pass.
    H2,
    /// HTTP/2 at this port, where nothing else passes.
    H2At(u16),
}

/// A QUIC tunnel that served for so long proves that UDP passes.
const PROVEN: Duration = Duration::from_secs(30);
/// One that served for so long, and fell silent, has met an outage like any other.
const STEADY: Duration = Duration::from_secs(10 * 60);
/// The longest wait between two tries of QUIC, as a multiple of the first: 5 min, from 30 s on.
const LONGEST_PROBE: u32 = 10;
/// The same where QUIC tunnels begin and then fall silent: 1 h. Each return costs an outage.
const LONGEST_PROBE_DISTRUSTED: u32 = 120;
/// How far a wait is drawn off its middle, so that a thousand agents do not knock together.
const JITTER: f64 = 0.2;

/// A pool over which nothing came for so many keep-alives may be dead: all ways are tried.
const SILENT_KEEP_ALIVES: f64 = 1.5;
/// So long, and two round trips at least, a tunnel has to speak again after this host slept or moved.
const SPEAKS_WITHIN: Duration = Duration::from_secs(1);
/// HTTP/2 that took longer to be ready, and so many round trips, may have met the same outage as the
/// QUIC that was silent: what TCP loses first is sent again after 1 s.
const READY_AT_ONCE: Duration = Duration::from_millis(750);
const READY_ROUND_TRIPS: u32 = 4;
/// So many QUIC tunnels in a row that fell silent before they had proved themselves are no accident.
const SILENCES: u32 = 2;

/// What is decided once for a link.
#[derive(Clone, Debug)]
pub(crate) struct Policy {
    ways: Vec<Way>,
    pool_size: u16,
}

impl Policy {
    /// The ways over this transport to a relay at `port`, with HTTP/2 at `last_port` too. Over HTTP/2
    /// `pool_size` connections serve together, at least one.
    pub(crate) fn new(
        transport: Transport,
        port: u16,
        last_port: Option<u16>,
        pool_size: u16,
    ) -> Self {
        let last = last_port.filter(|last| *last != port).map(Way::H2At);
        let over_tcp = [Way::H2].into_iter().chain(last);
        Self {
            ways: match transport {
                Transport::Any => [Way::Quic].into_iter().chain(over_tcp).collect(),
                Transport::OnlyQuic => vec![Way::Quic],
                Transport::OnlyH2 => over_tcp.collect(),
            },
            pool_size: pool_size.max(1),
        }
    }

    /// All ways, best first, by what QUIC has shown.
    pub(crate) fn ways(&self, quic: &Probing) -> Vec<Way> {
        let mut ways = self.ways.clone();
        if quic.is_distrusted {
            ways.rotate_left(self.quic_ways());
        }
        ways
    }

    /// The ways to look for while a tunnel serves over `way`: none if it could not be better.
    pub(crate) fn better_than(&self, way: Way) -> &[Way] {
        match way {
            Way::Quic => &[],
            // HTTP/2 is as good at one port as at the other.
            Way::H2 | Way::H2At(_) => &self.ways[..self.quic_ways()],
        }
    }

    fn quic_ways(&self) -> usize {
        usize::from(self.ways.first() == Some(&Way::Quic))
    }

    /// After how long without anything from the relay a pool that is kept alive so often is in doubt: 3 s, and two
    /// round trips.
    pub(crate) fn silence(&self, keep_alive: Duration, round_trip: Duration) -> Duration {
        keep_alive.mul_f64(SILENT_KEEP_ALIVES) + 2 * round_trip
    }

    /// How long a tunnel may take to speak after this host slept or moved, before a substitute is
    /// looked for.
    pub(crate) fn patience(&self, round_trip: Duration) -> Duration {
        SPEAKS_WITHIN.max(2 * round_trip)
    }

    /// How many connections serve together over `way`.
    pub(crate) fn pool_size(&self, way: Way) -> u16 {
        match way {
            Way::Quic => 1,
            Way::H2 | Way::H2At(_) => self.pool_size,
        }
    }
}

/// How a tunnel ended, or came to be replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Somebody said so.
    Said,
    /// Nothing came any more, and nobody knows whether anything else would have passed.
    Silence,
    /// Nothing came any more while the relay was there to be reached otherwise.
    SilenceAlone,
    /// Nothing came any more since this host slept or moved.
    Excused,
}

impl End {
    /// How a silent tunnel with this round trip ended in whose place another was ready over `way` at the
    /// first attempt, which `took` so long; or at a later one.
    pub(crate) fn replaced_by(way: Way, took: Option<Duration>, round_trip: Duration) -> Self {
        let at_once = READY_AT_ONCE + READY_ROUND_TRIPS * round_trip;
        match way {
            Way::H2 | Way::H2At(_) if took.is_some_and(|took| took <= at_once) => {
                Self::SilenceAlone
            }
            _ => Self::Silence,
        }
    }
}

/// What QUIC has shown, and when it is tried again beside HTTP/2.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Probing {
    first: Duration,
    next: Duration,
    /// When it is tried next, once that is decided.
    due: Option<Instant>,
    /// Tunnels that fell silent since one has held.
    silences: u32,
    /// It began and fell silent: some networks pass a few packets. Then HTTP/2 has the head start.
    is_distrusted: bool,
}

impl Probing {
    /// The middle of the first wait.
    pub(crate) fn new(first: Duration) -> Self {
        Self {
            first,
            next: first,
            due: None,
            silences: 0,
            is_distrusted: false,
        }
    }

    /// This host has woken up: QUIC is tried at once, and the waits begin anew.
    pub(crate) fn hurry(&mut self, now: Instant) {
        self.next = self.first;
        self.due = Some(now);
    }

    /// This host has moved: what QUIC has shown elsewhere does not count here.
    pub(crate) fn move_on(&mut self, now: Instant) {
        *self = Self::new(self.first);
        self.hurry(now);
    }

    /// When to try next; `share` is drawn evenly from 0 to 1. What interrupts the wait does not begin it
    /// anew.
    pub(crate) fn due(&mut self, now: Instant, share: f64) -> Instant {
        let share = 1.0 - JITTER + 2.0 * JITTER * share.clamp(0.0, 1.0);
        *self.due.get_or_insert(now + self.next.mul_f64(share))
    }

    /// It was tried: the next wait is twice as long.
    pub(crate) fn probed(&mut self) {
        self.due = None;
        let longest = match self.is_distrusted {
            true => LONGEST_PROBE_DISTRUSTED,
            false => LONGEST_PROBE,
        };
        self.next = (self.next * 2).min(self.first * longest);
    }

    /// A tunnel over `way` has ended that served for so long. QUIC that served and is not to blame is
    /// tried at once if HTTP/2 takes its place.
    pub(crate) fn ended(&mut self, way: Way, served: Duration, end: End, now: Instant) {
        if way != Way::Quic {
            return;
        }
        match end {
            End::Said | End::Excused if served >= PROVEN => *self = Self::new(self.first),
            End::Said | End::Excused => {}
            End::Silence | End::SilenceAlone if served >= STEADY => *self = Self::new(self.first),
            End::Silence => {
                let before = if served >= PROVEN { 0 } else { self.silences };
                self.silences = before + 1;
                self.is_distrusted |= self.silences >= SILENCES;
            }
            End::SilenceAlone => self.is_distrusted = true,
        }
        let is_blameless = matches!(end, End::Silence | End::Excused) && !self.is_distrusted;
        if is_blameless && !served.is_zero() {
            self.hurry(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FIRST: Duration = Duration::from_secs(30);

    /// How long it would wait now, if it had not decided yet.
    fn wait(probing: &mut Probing) -> Duration {
        let now = Instant::now();
        let mut fresh = Probing {
            due: None,
            ..*probing
        };
        fresh.due(now, 0.5) - now
    }

    fn ended(probing: &mut Probing, way: Way, served: Duration, end: End) {
        probing.ended(way, served, end, Instant::now());
    }

    #[test]
    fn a_wait_that_is_interrupted_goes_on() {
        let (mut probing, now) = (Probing::new(FIRST), Instant::now());
        let due = probing.due(now, 0.0);
        assert_eq!(probing.due(now + FIRST / 2, 1.0), due);
        probing.probed();
        assert_ne!(probing.due(now, 0.0), due);
    }

    #[test]
    fn quic_comes_first_and_the_last_port_last_if_it_is_another() {
        let ways = |transport, last| {
            let policy = Policy::new(transport, 4433, last, 4);
            policy.ways(&Probing::new(FIRST))
        };
        assert_eq!(
            ways(Transport::Any, Some(443)),
            [Way::Quic, Way::H2, Way::H2At(443)]
        );
        assert_eq!(ways(Transport::Any, Some(4433)), [Way::Quic, Way::H2]);
        assert_eq!(
            ways(Transport::OnlyH2, Some(443)),
            [Way::H2, Way::H2At(443)]
        );
        assert_eq!(ways(Transport::OnlyH2, None), [Way::H2]);
        assert_eq!(ways(Transport::OnlyQuic, Some(443)), [Way::Quic]);
    }

    #[test]
    fn beside_http2_quic_is_looked_for_if_it_may_be_used_and_beside_quic_nothing() {
        let any = Policy::new(Transport::Any, 4433, Some(443), 4);
        assert_eq!(any.better_than(Way::Quic), []);
        assert_eq!(any.better_than(Way::H2), [Way::Quic]);
        assert_eq!(any.better_than(Way::H2At(443)), [Way::Quic]);
        let only = Policy::new(Transport::OnlyH2, 4433, Some(443), 4);
        assert_eq!(only.better_than(Way::H2At(443)), []);
    }

    #[test]
    fn several_connections_serve_together_over_tcp_and_one_over_udp() {
        let policy = Policy::new(Transport::Any, 4433, None, 4);
        assert_eq!(
            [Way::Quic, Way::H2, Way::H2At(443)].map(|way| policy.pool_size(way)),
            [1, 4, 4]
        );
        assert_eq!(
            Policy::new(Transport::Any, 4433, None, 0).pool_size(Way::H2),
            1
        );
    }

    #[test]
    fn the_waits_double_up_to_five_minutes_and_begin_anew_after_a_quic_tunnel_that_held() {
        let mut probing = Probing::new(FIRST);
        let next = |probing: &mut Probing| {
            let wait = wait(probing);
            probing.probed();
            wait.as_secs()
        };
        let waits: Vec<_> = (0..6).map(|_| next(&mut probing)).collect();
        assert_eq!(waits, [30, 60, 120, 240, 300, 300]);
        ended(&mut probing, Way::H2, STEADY, End::Silence);
        ended(&mut probing, Way::Quic, PROVEN / 2, End::Said);
        assert_eq!(wait(&mut probing).as_secs(), 300);
        ended(&mut probing, Way::Quic, PROVEN, End::Said);
        assert_eq!(wait(&mut probing), FIRST);
    }

    #[test]
    fn where_quic_falls_silent_again_and_again_it_is_tried_ever_more_seldom() {
        let mut probing = Probing::new(FIRST);
        let waits: Vec<_> = (0..9)
            .map(|_| {
                let wait = wait(&mut probing);
                probing.probed();
                ended(&mut probing, Way::Quic, PROVEN * 2, End::SilenceAlone);
                wait.as_secs()
            })
            .collect();
        assert_eq!(waits, [30, 60, 120, 240, 480, 960, 1920, 3600, 3600]);
        ended(&mut probing, Way::Quic, STEADY, End::SilenceAlone);
        assert_eq!(wait(&mut probing), FIRST);
    }

    #[test]
    fn quic_that_begins_and_falls_silent_comes_last_until_it_has_held() {
        let policy = Policy::new(Transport::Any, 4433, Some(443), 4);
        let mut probing = Probing::new(FIRST);
        ended(&mut probing, Way::Quic, PROVEN / 2, End::SilenceAlone);
        let last = [Way::H2, Way::H2At(443), Way::Quic];
        assert_eq!(policy.ways(&probing), last);
        ended(&mut probing, Way::H2, STEADY, End::Said);
        ended(&mut probing, Way::Quic, PROVEN, End::Silence);
        assert_eq!(policy.ways(&probing), last);
        ended(&mut probing, Way::Quic, PROVEN, End::Said);
        assert_eq!(policy.ways(&probing)[0], Way::Quic);
    }

    /// Whether QUIC comes last after tunnels that served for so long and ended so.
    fn is_distrusted_after(tunnels: &[(Duration, End)]) -> bool {
        let mut probing = Probing::new(FIRST);
        for (served, end) in tunnels {
            ended(&mut probing, Way::Quic, *served, *end);
        }
        probing.is_distrusted
    }

    #[test]
    fn one_silence_in_which_nothing_else_passed_is_the_networks() {
        let (soon, cut) = (PROVEN / 2, End::Silence);
        assert!(!is_distrusted_after(&[(soon, cut)]));
        assert!(is_distrusted_after(&[(soon, cut), (soon, cut)]));
        assert!(is_distrusted_after(&[(PROVEN, cut), (soon, cut)]));
        assert!(!is_distrusted_after(&[(PROVEN, cut), (PROVEN, cut)]));
        assert!(!is_distrusted_after(&[
            (soon, cut),
            (PROVEN, End::Said),
            (soon, cut)
        ]));
    }

    #[test]
    fn quic_is_to_blame_if_http2_was_ready_at_once_while_it_was_silent() {
        let end = |way, took| End::replaced_by(way, took, Duration::from_millis(50));
        let (soon, late) = (Some(READY_AT_ONCE), Some(READY_AT_ONCE * 2));
        for way in [Way::H2, Way::H2At(443)] {
            assert!(is_distrusted_after(&[(PROVEN, end(way, soon))]));
            assert!(!is_distrusted_after(&[(PROVEN, end(way, None))]));
            assert!(!is_distrusted_after(&[(PROVEN, end(way, late))]));
        }
        assert!(!is_distrusted_after(&[(PROVEN, end(Way::Quic, soon))]));
        assert!(!is_distrusted_after(&[(STEADY, end(Way::H2, soon))]));
    }

    #[test]
    fn a_silence_while_this_host_slept_or_moved_is_excused() {
        let asleep = (Duration::ZERO, End::Excused);
        assert!(!is_distrusted_after(&[asleep; 5]));
    }

    #[test]
    fn quic_that_is_not_to_blame_is_tried_at_once_where_http2_has_taken_its_place() {
        let now = Instant::now();
        let tried_at_once = |served, end| {
            let mut probing = Probing::new(FIRST);
            probing.ended(Way::Quic, served, end, now);
            probing.due(now, 0.5) == now
        };
        assert!(tried_at_once(PROVEN, End::Silence));
        assert!(tried_at_once(PROVEN, End::Excused));
        assert!(!tried_at_once(PROVEN, End::SilenceAlone));
        assert!(!tried_at_once(Duration::ZERO, End::Silence));
    }

    #[test]
    fn quic_is_tried_at_once_when_this_host_wakes_or_moves_and_only_elsewhere_it_is_trusted_anew() {
        let (mut probing, now) = (Probing::new(FIRST), Instant::now());
        ended(&mut probing, Way::Quic, Duration::ZERO, End::SilenceAlone);
        for _ in 0..5 {
            probing.probed();
        }
        probing.hurry(now);
        assert_eq!(probing.due(now, 0.5), now);
        assert_eq!(wait(&mut probing), FIRST);
        assert!(probing.is_distrusted);
        probing.probed();
        probing.move_on(now);
        assert_eq!(probing.due(now, 0.5), now);
        assert!(!probing.is_distrusted);
    }

    proptest! {
        #[test]
        fn a_wait_is_within_a_fifth_of_its_middle(share in 0.0..=1.0) {
            let now = Instant::now();
            let wait = Probing::new(FIRST).due(now, share) - now;
            prop_assert!(wait >= FIRST.mul_f64(0.8) && wait <= FIRST.mul_f64(1.2));
        }
    }
}
