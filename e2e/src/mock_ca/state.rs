//! All that the authority remembers.

use std::collections::HashSet;
use std::time::{Duration, SystemTime};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tunnel_common::clock::Clock;

use super::answer::{Problem, problem};
use super::rules::Rules;
use super::seen::{SeenCsr, SeenOrder, SeenRequest};
use crate::authority::Authority;

/// One of the authority, behind a lock.
#[derive(Debug)]
pub(super) struct State {
    /// What all URLs begin with.
    pub(super) base: String,
    pub(super) clock: Clock,
    pub(super) authority: Authority,
    pub(super) rules: Rules,
    pub(super) accounts: Vec<Account>,
    pub(super) orders: Vec<Order>,
    /// The ids of all certificates that it issued (RFC 9773, 4.1).
    pub(super) issued: Vec<String>,
    pub(super) seen_orders: Vec<SeenOrder>,
    pub(super) seen_csrs: Vec<SeenCsr>,
    pub(super) seen_requests: Vec<SeenRequest>,
    nonces: HashSet<String>,
    nonces_given: u64,
}

/// Somebody who may order.
#[derive(Debug)]
pub(super) struct Account {
    /// See [`super::jws::Signer::Key`].
    pub(super) key: String,
    pub(super) contact: Vec<String>,
}

/// An order (RFC 8555, 7.1.3).
#[derive(Debug)]
pub(super) struct Order {
    pub(super) authorizations: Vec<Authorization>,
    pub(super) profile: Option<String>,
    pub(super) replaces: Option<String>,
    /// The chain, once it is issued.
    pub(super) chain: Option<String>,
}

/// The right to a certificate for a host, with its one challenge.
#[derive(Debug)]
pub(super) struct Authorization {
    pub(super) host: String,
    pub(super) token: String,
    pub(super) challenge: Challenge,
}

/// Where a challenge stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    Pending,
    Won,
    Lost,
}

impl State {
    /// Of an authority that has seen nobody.
    pub(super) fn new(base: String, clock: Clock, authority: Authority) -> Self {
        Self {
            base,
            clock,
            authority,
            rules: Rules::default(),
            accounts: vec![],
            orders: vec![],
            issued: vec![],
            seen_orders: vec![],
            seen_csrs: vec![],
            seen_requests: vec![],
            nonces: HashSet::new(),
            nonces_given: 0,
        }
    }

    /// What the clock shows.
    pub(super) fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + self.clock.since_epoch()
    }

    /// A week from now, when nothing happens: objects must name an end.
    pub(super) fn expires(&self) -> String {
        date(self.now() + Duration::from_secs(7 * 24 * 3600))
    }

    /// A nonce that was never given.
    pub(super) fn new_nonce(&mut self) -> String {
        self.nonces_given += 1;
        let nonce = format!("nonce-{}", self.nonces_given);
        self.nonces.insert(nonce.clone());
        nonce
    }

    /// Takes a nonce back, for ever.
    pub(super) fn take_nonce(&mut self, nonce: &str) -> Result<(), Problem> {
        let known = self.nonces.remove(nonce);
        if known && fastrand::u8(0..100) >= self.rules.bad_nonces {
            return Ok(());
        }
        Err(problem("badNonce", "not a nonce of ours, or one too many"))
    }
}

/// As ACME writes dates (RFC 3339).
pub(super) fn date(time: SystemTime) -> String {
    let date = OffsetDateTime::from(time).format(&Rfc3339);
    date.expect("a year of four digits")
}
