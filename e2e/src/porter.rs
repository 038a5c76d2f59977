//! Somebody who decides about agents as the story says.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;
use tunnel_server::admission::{Admission, Applicant, Deciding, Verdict};
use tunnel_server::config::Config;

use crate::relay::{Relay, relay_with};

type Rule = Box<dyn Fn(&Applicant) -> Option<Verdict> + Send>;

/// Decides by a rule, and remembers whom it was asked about. A rule that gives nothing never decides.
pub struct Porter {
    rule: Mutex<Rule>,
    asked: Mutex<Vec<Applicant>>,
    changes: watch::Sender<u64>,
}

/// Decides by this rule.
pub fn porter(rule: impl Fn(&Applicant) -> Option<Verdict> + Send + 'static) -> Arc<Porter> {
    Arc::new(Porter {
        rule: Mutex::new(Box::new(rule)),
        asked: Mutex::default(),
        changes: watch::Sender::new(0),
    })
}

/// A relay whose agents this porter decides about.
pub async fn relay_of(porter: &Arc<Porter>, change: impl FnOnce(&mut Config)) -> Relay {
    let admission = porter.clone();
    relay_with(|config| {
        config.admission = admission;
        change(config);
    })
    .await
}

/// The verdict for those who may come in.
pub fn yes() -> Option<Verdict> {
    Some(Verdict::Admitted)
}

/// The verdict for those who may not, and perhaps when they may ask again.
pub fn no(retry_after: Option<Duration>) -> Option<Verdict> {
    let text = "the porter says no".to_owned();
    Some(Verdict::Refused { text, retry_after })
}

impl Porter {
    /// Decides by another rule from now on, and says so.
    pub fn changes_his_mind(&self, rule: impl Fn(&Applicant) -> Option<Verdict> + Send + 'static) {
        self.decides(rule);
        self.changes.send_modify(|change| *change += 1);
    }

    /// Decides by another rule from now on, and does not say so.
    pub fn decides(&self, rule: impl Fn(&Applicant) -> Option<Verdict> + Send + 'static) {
        *self.rule.lock().expect("not poisoned") = Box::new(rule);
    }

    /// Whom it was asked about.
    pub fn asked(&self) -> Vec<Applicant> {
        self.asked.lock().expect("not poisoned").clone()
    }
}

impl fmt::Debug for Porter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Porter").finish_non_exhaustive()
    }
}

impl Admission for Porter {
    fn decide<'a>(&'a self, applicant: &'a Applicant) -> Deciding<'a> {
        self.asked
            .lock()
            .expect("not poisoned")
            .push(applicant.clone());
        let verdict = self.rule.lock().expect("not poisoned")(applicant);
        match verdict {
            Some(verdict) => Box::pin(std::future::ready(verdict)),
            None => Box::pin(std::future::pending()),
        }
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}
