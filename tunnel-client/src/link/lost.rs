//! Why an attempt or a tunnel ended, and how long to wait before the next.

use std::time::Duration;

use tokio::time::Instant;
use tunnel_common::wire::code::Code;
use tunnel_common::wire::frame::Refused;

use super::backoff::Backoff;
use super::control::ControlFailure;
use super::dial_error::DialError;
use super::tunnel::TunnelError;

/// A relay that asks us to come back at once is given this much time all the same.
const MIN_REFUSED_WAIT: Duration = Duration::from_secs(1);
/// However long a relay wants us to stay away: somebody may have changed his mind.
const MAX_REFUSED_WAIT: Duration = Duration::from_secs(10 * 60);
/// The wait after another process of the same key has taken our place: processes that fight for
/// one do so less than once a minute.
const REPLACED_WAIT: Duration = Duration::from_secs(60);

/// The wait after a proxy has not taken our credentials: accounts are locked for a few wrong ones in a
/// quarter of an hour.
const CREDENTIALS_WAIT: Duration = Duration::from_secs(15 * 60);

/// The shortest wait after a relay had no time for us …
const BUSY_WAIT: Duration = Duration::from_secs(1);
/// … and what is drawn on top of it: those who were turned away together come apart. It does not double,
/// since the relay is there, and works through those who wait.
const BUSY_SPREAD: Duration = Duration::from_secs(3);

/// Why an attempt or a tunnel ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum Lost {
    /// The relay was not reached, or did not welcome us.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// It did not take what we publish, or a tunnel that served is gone.
    #[error(transparent)]
    Tunnel(#[from] TunnelError),
    /// A task of ours failed.
    #[error("a fault of ours ended the tunnel")]
    Fault,
}

impl Lost {
    fn control_failure(&self) -> Option<&ControlFailure> {
        match self {
            Self::Dial(DialError::Greeting(failure))
            | Self::Tunnel(TunnelError::Control(failure)) => Some(failure),
            _ => None,
        }
    }

    /// What the relay said, if it was the relay that refused.
    fn refusal(&self) -> Option<&Refused> {
        match self.control_failure()? {
            ControlFailure::Refused(refused) => Some(refused),
            _ => None,
        }
    }

    /// Whether it was the relay that refused.
    pub(super) fn is_refusal(&self) -> bool {
        self.refusal().is_some()
    }

    /// What the relay said, if it refused and trying again would not help.
    pub(super) fn refusal_for_good(&self) -> Option<&Refused> {
        self.refusal()
            .filter(|refused| refused.retry_after.is_none())
    }

    /// Whether another tunnel of this agent took the place of ours.
    pub(super) fn is_replaced(&self) -> bool {
        match self.control_failure() {
            Some(ControlFailure::Connection(closed)) => closed.code == Some(Code::Replaced),
            _ => false,
        }
    }

    /// Whether a relay that was there did not answer what it was asked.
    pub(super) fn is_unanswered(&self) -> bool {
        matches!(self.control_failure(), Some(ControlFailure::Timeout))
    }

    /// Whether the relay has stopped, having said so.
    pub(super) fn is_draining(&self) -> bool {
        match self.control_failure() {
            Some(ControlFailure::Connection(closed)) => closed.code == Some(Code::Draining),
            _ => false,
        }
    }

    /// Whether the relay, or the network, has just fallen silent.
    pub(super) fn is_silence(&self) -> bool {
        match self.control_failure() {
            Some(ControlFailure::Connection(closed)) => closed.is_silence,
            Some(ControlFailure::Timeout) => true,
            _ => false,
        }
    }

    /// Whether the relay has no time for us.
    fn is_busy(&self) -> bool {
        matches!(self, Self::Dial(error) if error.is_busy())
    }

    /// Whether a proxy does not take our credentials: each attempt shows them again.
    fn may_lock_an_account(&self) -> bool {
        matches!(
            self,
            Self::Dial(DialError::NoWayThroughProxy {
                are_credentials_refused: true,
                ..
            })
        )
    }

    /// Whether the next attempt may come as soon as it has better prospects. Whoever was refused, or
    /// replaced, waits all the same.
    pub(super) fn may_be_hurried(&self) -> bool {
        let is_asked_to_wait =
            self.is_refusal() || self.is_busy() || self.is_replaced() || self.is_draining();
        !is_asked_to_wait && !self.may_lock_an_account()
    }

    /// How long to wait before the next attempt. An outage counts from `since`, when the attempt began or
    /// the tunnel was lost: silence takes its time by itself. What somebody has asked for counts from now.
    pub(super) fn wait(&self, backoff: &mut Backoff, since: Instant) -> Duration {
        let share = fastrand::f64();
        let after = self.refusal().and_then(|refused| refused.retry_after);
        match after {
            Some(milliseconds) => {
                let after = Duration::from_millis(milliseconds);
                let after = after.clamp(MIN_REFUSED_WAIT, MAX_REFUSED_WAIT);
                after + after.mul_f64(share / 4.0)
            }
            None if self.may_lock_an_account() => {
                CREDENTIALS_WAIT + CREDENTIALS_WAIT.mul_f64(share / 2.0)
            }
            None if self.is_busy() => BUSY_WAIT + BUSY_SPREAD.mul_f64(share),
            None if self.is_replaced() => REPLACED_WAIT + REPLACED_WAIT.mul_f64(share / 2.0),
            None => {
                let now = Instant::now();
                (since + backoff.next(now, share)).saturating_duration_since(now)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Redial;

    const SECOND: Duration = Duration::from_secs(1);

    fn backoff() -> Backoff {
        let redial = Redial {
            first: 4 * SECOND,
            ..Redial::default()
        };
        Backoff::new(redial, Instant::now())
    }

    #[test]
    fn a_busy_relay_is_left_alone_for_one_to_four_seconds_however_often_it_is() {
        let address = "192.0.2.1:4433".parse().expect("an address");
        let (lost, mut backoff) = (Lost::from(DialError::Busy(address)), backoff());
        let waits: Vec<_> = (0..100)
            .map(|_| lost.wait(&mut backoff, Instant::now()))
            .collect();
        let range = Duration::from_secs(1)..=Duration::from_secs(4);
        assert!(waits.iter().all(|wait| range.contains(wait)), "{waits:?}");
        let first = backoff.next(Instant::now(), 1.0);
        assert_eq!(first, 4 * SECOND, "nothing has doubled");
    }

    #[tokio::test(start_paused = true)]
    async fn an_attempt_that_took_longer_than_the_wait_is_followed_by_the_next_at_once() {
        let lost = Lost::from(TunnelError::from(ControlFailure::Timeout));
        let since = Instant::now();
        tokio::time::advance(3 * SECOND).await;
        assert!(lost.wait(&mut backoff(), since) <= SECOND);
        tokio::time::advance(SECOND).await;
        assert_eq!(lost.wait(&mut backoff(), since), Duration::ZERO);
        assert!(lost.may_be_hurried());
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_that_a_refusal_names_counts_from_the_refusal() {
        let refused = Refused {
            retry_after: Some(10_000),
            ..Refused::for_good(Code::Refused, "later")
        };
        let lost = Lost::from(TunnelError::from(ControlFailure::Refused(refused)));
        let since = Instant::now();
        tokio::time::advance(20 * SECOND).await;
        assert!(lost.wait(&mut backoff(), since) >= 10 * SECOND);
        assert!(!lost.may_be_hurried());
    }
}
