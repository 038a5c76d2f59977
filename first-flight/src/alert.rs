//! The one TLS alert that a refused visitor gets instead of an answer.
//!
//! A fatal alert is a record of seven bytes, so it is written by hand: no handshake has begun and
//! there is no TLS connection that could do it (RFC 8446, 6).

/// Bytes of a fatal alert on the wire: a record header of 5 and an alert of 2 (RFC 8446, 5.1 and
/// 6).
const ALERT_RECORD_LEN: usize = 7;

/// What stands before the description in every fatal alert: content type alert, legacy version
/// 0x0303, length 2, level fatal.
const ALERT_RECORD_START: [u8; ALERT_RECORD_LEN - 1] = [21, 3, 3, 0, 2, 2];

/// A fatal TLS alert, known by its description (RFC 8446, 6.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alert(u8);

impl Alert {
    /// The bytes are no ClientHello, or one with a length that lies.
    pub const DECODE_ERROR: Self = Self(50);
    /// The fault is ours: no tunnel took the visit although the name is known and online.
    pub const INTERNAL_ERROR: Self = Self(80);
    /// The ClientHello names no host, so there is nothing to route by (RFC 8446, 9.2).
    pub const MISSING_EXTENSION: Self = Self(109);
    /// The name is not one of ours, or nobody serves it now; which of the two is nobody's business
    /// (RFC 6066, 3).
    pub const UNRECOGNIZED_NAME: Self = Self(112);
    /// Nobody speaks what is offered, and nothing else is (RFC 7301, 3.2).
    pub const NO_APPLICATION_PROTOCOL: Self = Self(120);

    /// Reads back an alert that a TLS library wrote; `None` if `record` is anything but one fatal
    /// alert in plain text.
    pub fn from_record(record: &[u8]) -> Option<Self> {
        match record {
            [21, 3, _, 0, 2, 2, description] => Some(Self(*description)),
            _ => None,
        }
    }

    /// The number that stands for this alert on the wire and in the registry of IANA.
    pub fn description(self) -> u8 {
        self.0
    }

    /// The whole record as it goes over the wire.
    pub fn to_bytes(self) -> [u8; ALERT_RECORD_LEN] {
        let mut record = [self.0; ALERT_RECORD_LEN];
        record[..ALERT_RECORD_START.len()].copy_from_slice(&ALERT_RECORD_START);
        record
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alerts_are_fatal_and_have_the_numbers_of_the_registry() {
        let alerts = [
            (Alert::DECODE_ERROR, 50),
            (Alert::INTERNAL_ERROR, 80),
            (Alert::MISSING_EXTENSION, 109),
            (Alert::UNRECOGNIZED_NAME, 112),
            (Alert::NO_APPLICATION_PROTOCOL, 120),
        ];
        for (alert, description) in alerts {
            assert_eq!(alert.to_bytes(), [21, 3, 3, 0, 2, 2, description]);
            assert_eq!(alert.description(), description);
            assert_eq!(Alert::from_record(&alert.to_bytes()), Some(alert));
        }
    }

    #[test]
    fn only_one_fatal_alert_record_is_an_alert() {
        for record in [
            &[][..],
            &[21, 3, 3, 0, 2, 2],
            &[21, 3, 3, 0, 2, 1, 0],
            &[22, 3, 3, 0, 2, 2, 50],
            &[21, 3, 3, 0, 2, 2, 50, 0],
        ] {
            assert_eq!(Alert::from_record(record), None, "{record:?}");
        }
    }
}
