//! The DNS record by which the owner of a name says who may certify it (RFC 8659), down to the account and the
//! way of validation (RFC 8657).

use crate::hostname::Hostname;

/// What stands in a record for an authority that does not say what it calls itself there.
pub const UNTOLD: &str = "<the authority's name>";

/// The record that lets `account`, an account at the authority which calls itself `identity` there, have
/// certificates for `host` by TLS-ALPN-01, and nobody else any. Fit to be pasted into a zone.
pub fn record(host: &Hostname, identity: &str, account: &str) -> String {
    format!(
        "{host}. CAA 0 issue \"{identity}; validationmethods=tls-alpn-01; accounturi={account}\""
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_names_the_account_and_the_way() {
        let host = "a.example.com".parse().expect("a name");
        assert_eq!(
            record(&host, "ca.example", "https://ca.example/acct/7"),
            "a.example.com. CAA 0 issue \"ca.example; validationmethods=tls-alpn-01; \
             accounturi=https://ca.example/acct/7\""
        );
    }
}
