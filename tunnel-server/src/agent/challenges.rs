//! The hosts at which a tunnel's agent waits for a certificate authority (TLS-ALPN-01, RFC 8737), and whose
//! turn it is where several tunnels wait at one.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;
use tunnel_common::hostname::Hostname;

/// Hosts of one tunnel at one time: two endpoints with a name under each of a relay's few suffixes need
/// less, and what an agent can make the relay keep is bounded by it.
pub(crate) const MAX_CHALLENGES: usize = 32;
/// For how long an announcement counts at most. An order takes a minute, and an agent that forgets to
/// withdraw is found out by then.
pub(crate) const MAX_PENDING: Duration = Duration::from_secs(600);

/// What one tunnel has announced.
#[derive(Clone, Debug, Default)]
pub(crate) struct Challenges(HashMap<Hostname, Pending>);

#[derive(Clone, Copy, Debug)]
struct Pending {
    until: Instant,
    /// When it was asked last, counted by host; 0 before.
    turn: u64,
}

/// The tunnel has announced as many hosts as it may.
#[derive(Debug, thiserror::Error, Clone, Copy, PartialEq, Eq)]
#[error("{MAX_CHALLENGES} challenges are pending")]
pub(crate) struct TooMany;

impl Challenges {
    /// From `now` on a challenge is pending at `host`, for so long or [`MAX_PENDING`]; for no time
    /// withdraws it.
    pub(crate) fn announce(
        &mut self,
        host: Hostname,
        lasts: Duration,
        now: Instant,
    ) -> Result<(), TooMany> {
        self.0.retain(|_, pending| pending.until > now);
        if lasts.is_zero() {
            self.0.remove(&host);
            return Ok(());
        }
        let until = now + lasts.min(MAX_PENDING);
        if let Some(pending) = self.0.get_mut(&host) {
            pending.until = until;
            return Ok(());
        }
        if self.0.len() == MAX_CHALLENGES {
            return Err(TooMany);
        }
        self.0.insert(host, Pending { until, turn: 0 });
        Ok(())
    }

    /// When it was asked last at `host`; nothing if no challenge is pending there.
    pub(crate) fn turn(&self, host: &Hostname, now: Instant) -> Option<u64> {
        let pending = self.0.get(host)?;
        (pending.until > now).then_some(pending.turn)
    }

    /// Takes over what is pending at `from` for as long as it is there. What was announced here too stays as it
    /// is, and beyond [`MAX_CHALLENGES`] nothing is taken.
    pub(crate) fn inherit(&mut self, from: &Self, now: Instant) {
        self.0.retain(|_, pending| pending.until > now);
        for (host, pending) in from.0.iter().filter(|(_, pending)| pending.until > now) {
            if self.0.len() < MAX_CHALLENGES {
                self.0.entry(host.clone()).or_insert(*pending);
            }
        }
    }

    /// It is asked at `host`, which is that host's turn number `turn`.
    pub(crate) fn asked(&mut self, host: &Hostname, turn: u64) {
        if let Some(pending) = self.0.get_mut(host) {
            pending.turn = turn;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn host(text: &str) -> Hostname {
        text.parse().expect("a host name")
    }

    #[tokio::test(start_paused = true)]
    async fn a_challenge_is_pending_from_its_announcement_until_it_is_over_or_withdrawn() {
        let mut challenges = Challenges::default();
        let here = host("here.example");
        assert_eq!(challenges.turn(&here, Instant::now()), None);
        for _ in 0..2 {
            let announced = challenges.announce(here.clone(), MINUTE, Instant::now());
            assert_eq!(announced, Ok(()));
            assert_eq!(challenges.turn(&here, Instant::now()), Some(0));
            let elsewhere = host("elsewhere.example");
            assert_eq!(challenges.turn(&elsewhere, Instant::now()), None);
            advance(MINUTE).await;
            assert_eq!(challenges.turn(&here, Instant::now()), None);
        }
        let announced = challenges.announce(here.clone(), MINUTE, Instant::now());
        let withdrawn = challenges.announce(here.clone(), Duration::ZERO, Instant::now());
        assert_eq!((announced, withdrawn), (Ok(()), Ok(())));
        assert_eq!(challenges.turn(&here, Instant::now()), None);
    }

    #[tokio::test(start_paused = true)]
    async fn an_announcement_may_be_made_again_but_never_counts_for_ever() {
        let mut challenges = Challenges::default();
        let here = host("here.example");
        for lasts in [MINUTE, Duration::from_millis(u64::MAX)] {
            let announced = challenges.announce(here.clone(), lasts, Instant::now());
            assert_eq!(announced, Ok(()));
            challenges.asked(&here, 7);
        }
        advance(MAX_PENDING - MINUTE).await;
        assert_eq!(challenges.turn(&here, Instant::now()), Some(7));
        advance(MINUTE).await;
        assert_eq!(challenges.turn(&here, Instant::now()), None);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_pending_is_inherited_and_what_is_over_or_known_or_too_much_is_not() {
        let (mut old, mut new) = (Challenges::default(), Challenges::default());
        let hosts = ["over.example", "known.example", "pending.example"].map(host);
        for (at, lasts) in hosts.iter().zip([MINUTE, 3 * MINUTE, 2 * MINUTE]) {
            let announced = old.announce(at.clone(), lasts, Instant::now());
            assert_eq!(announced, Ok(()));
            old.asked(at, 7);
        }
        advance(MINUTE).await;
        let announced = new.announce(hosts[1].clone(), MINUTE, Instant::now());
        assert_eq!(announced, Ok(()));
        new.inherit(&old, Instant::now());
        let turns = |now| hosts.each_ref().map(|host| new.turn(host, now));
        assert_eq!(turns(Instant::now()), [None, Some(0), Some(7)]);
        advance(MINUTE).await;
        assert_eq!(
            turns(Instant::now()),
            [None; 3],
            "for no longer than before"
        );

        let mut full = Challenges::default();
        for number in 0..MAX_CHALLENGES {
            let announced = full.announce(
                host(&format!("host{number}.example")),
                MINUTE,
                Instant::now(),
            );
            assert_eq!(announced, Ok(()));
        }
        let announced = new.announce(hosts[0].clone(), MINUTE, Instant::now());
        assert_eq!(announced, Ok(()));
        full.inherit(&new, Instant::now());
        assert_eq!(full.0.len(), MAX_CHALLENGES);
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_announcements_is_not_kept_and_makes_room_when_it_is_over() {
        let mut challenges = Challenges::default();
        let mut announce = |number: usize| {
            let host = host(&format!("host{number}.example"));
            challenges.announce(host, MINUTE, Instant::now())
        };
        for number in 0..MAX_CHALLENGES {
            assert_eq!(announce(number), Ok(()));
        }
        for number in MAX_CHALLENGES..10 * MAX_CHALLENGES {
            assert_eq!(announce(number), Err(TooMany));
        }
        assert_eq!(announce(0), Ok(()), "it is one of them");
        advance(MINUTE).await;
        assert_eq!(announce(MAX_CHALLENGES), Ok(()));
        assert_eq!(challenges.0.len(), 1, "what is over is forgotten");
    }
}
