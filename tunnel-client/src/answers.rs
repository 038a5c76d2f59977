//! What certificate authorities are shown that come to look at our names.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls::ServerConfig;
use tunnel_common::hostname::Hostname;

/// The answers that are up, by name. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answers(Arc<Mutex<HashMap<Hostname, Arc<ServerConfig>>>>);

/// An answer that is up until this is dropped.
#[derive(Debug)]
pub(crate) struct Shown {
    answers: Answers,
    host: Hostname,
    config: Arc<ServerConfig>,
}

impl Answers {
    /// Shows `config` to who asks at `host`. A later one takes the place of an earlier.
    pub(crate) fn show(&self, host: &Hostname, config: Arc<ServerConfig>) -> Shown {
        self.table().insert(host.clone(), config.clone());
        Shown {
            answers: self.clone(),
            host: host.clone(),
            config,
        }
    }

    /// What is shown at the name that somebody asks for.
    pub(crate) fn at(&self, server_name: Option<&str>) -> Option<Arc<ServerConfig>> {
        let host: Hostname = server_name?.parse().ok()?;
        self.table().get(&host).cloned()
    }

    fn table(&self) -> MutexGuard<'_, HashMap<Hostname, Arc<ServerConfig>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        let mut table = self.answers.table();
        let shown = table.get(&self.host);
        if shown.is_some_and(|shown| Arc::ptr_eq(shown, &self.config)) {
            table.remove(&self.host);
        }
    }
}

#[cfg(test)]
mod tests {
    use tunnel_common::acme::challenge::Answer;
    use tunnel_common::clock::Clock;

    use super::*;

    #[test]
    fn an_answer_is_up_at_its_name_until_it_is_dropped_or_replaced() {
        let host: Hostname = "a.example".parse().expect("a name");
        let config = || {
            let answer = Answer::trial(&host, &Clock::system()).expect("makes");
            answer.config()
        };
        let (answers, first, second) = (Answers::default(), config(), config());
        let is_up = |config: &Arc<ServerConfig>| {
            let up = answers.at(Some("A.example."));
            up.is_some_and(|up| Arc::ptr_eq(&up, config))
        };
        let shown = answers.show(&host, first.clone());
        assert!(
            is_up(&first) && answers.at(Some("b.example")).is_none() && answers.at(None).is_none()
        );
        let later = answers.show(&host, second.clone());
        drop(shown);
        assert!(
            is_up(&second),
            "the end of the first is not that of the second"
        );
        drop(later);
        assert!(answers.at(Some("a.example")).is_none());
    }
}
