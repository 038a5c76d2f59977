//! `client verify`: one line about who answers at a public URL.

use std::fmt;
use std::io::{self, Write as _};

use tracing::warn;
use tunnel_client::outward::Outward;
use tunnel_client::verify::{PublicUrl, Verdict, verify};
use tunnel_common::escape::Escaped;
use tunnel_common::process::exit;

/// What is asked.
#[derive(Debug)]
pub(crate) struct Question {
    /// About whom.
    pub(crate) url: PublicUrl,
    /// How he is reached.
    pub(crate) dial: Outward,
}

/// Asks, says the answer on standard output, and gives the exit code. Takes 40 s at most.
pub(crate) async fn run(question: &Question) -> u8 {
    let url = &question.url;
    let verdict = verify(&question.dial, url).await;
    let answer = Answer {
        url,
        verdict: &verdict,
    };
    if let Err(error) = writeln!(io::stdout(), "{answer}") {
        warn!("standard output is closed ({error}): nobody is told the answer");
    }
    match verdict {
        Verdict::True { .. } => exit::ASKED,
        Verdict::Lying { .. } => exit::LYING,
        Verdict::Unknown { .. } => exit::UNKNOWN,
    }
}

struct Answer<'a> {
    url: &'a PublicUrl,
    verdict: &'a Verdict,
}

impl fmt::Display for Answer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = self.url;
        match self.verdict {
            Verdict::True { label } => write!(
                f,
                "TRUE: at {url} the agent {label} itself answers: whoever is there has the key that the name \
                 is made of"
            ),
            Verdict::Lying { expected, shown } => write!(
                f,
                "LYING: at {url} somebody answers who has not the key of {expected}, but {shown}. He stands \
                 between you and the agent, and reads and changes what you send; the relay's operator could \
                 be it. Or the agent shows a certificate with a key of its own (--cert-key, --tls \
                 passthrough), and gives this check up: ask whoever runs it"
            ),
            Verdict::Unknown { why } => {
                write!(f, "UNKNOWN: {}", Escaped(&why.to_string()))
            }
        }
    }
}
