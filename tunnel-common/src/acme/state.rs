//! How a host name stands with its certificate, for whoever shows it.

use std::time::SystemTime;

use super::renewal::Validity;

/// How a host name stands with its certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum CertificateState {
    /// Nobody vouches for it: the certificate is signed by its own key.
    #[default]
    SelfSigned,
    /// The user has brought it.
    Brought,
    /// The first one is being ordered. Until it is there the certificate is self-signed.
    Ordering,
    /// The first one has to wait. Until it is there the certificate is self-signed.
    Waiting {
        /// Until when.
        until: SystemTime,
        /// Why, for people.
        why: String,
    },
    /// An authority vouches for it.
    Certified {
        /// Its dates.
        validity: Validity,
        /// About when it will be renewed.
        renewal: SystemTime,
        /// Why it has not been renewed yet, if it should have been.
        overdue: Option<String>,
    },
}

/// A time as people and programs read it: RFC 3339, in UTC, to the second. One beyond the calendar is told in
/// seconds.
pub fn date(time: SystemTime) -> String {
    use time::OffsetDateTime;
    use time::format_description::well_known::Rfc3339;

    let since_epoch = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let seconds = i64::try_from(since_epoch.as_secs()).unwrap_or(i64::MAX);
    let told = OffsetDateTime::from_unix_timestamp(seconds);
    let told = told.ok().and_then(|told| told.format(&Rfc3339).ok());
    told.unwrap_or_else(|| format!("{seconds} s after 1970"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_date_is_told_in_utc() {
        let time = SystemTime::UNIX_EPOCH + Duration::from_millis(784_111_777_900);
        assert_eq!(date(time), "1994-11-06T08:49:37Z");
        let never = SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 50);
        assert!(date(never).ends_with("s after 1970"));
    }
}
