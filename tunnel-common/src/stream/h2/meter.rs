//! Counts the peer's frames that cost more than their bytes: each SETTINGS walks all streams, each PING
//! wants an answer before anything else is read. h2 limits neither.
//!
//! It reads frame headers (RFC 9113, 4.1) as they go by, and nothing else.

use std::time::Duration;

use tokio::time::Instant;

/// Frames are counted anew in each such time.
const PERIOD: Duration = Duration::from_secs(10);
/// SETTINGS that are no acknowledgement: an honest peer sends one for each growth of its windows.
const MAX_SETTINGS: u32 = 100;
/// PINGs and their answers: an honest peer sends and answers ten each second at most.
const MAX_PINGS: u32 = 1_000;

const HEADER_BYTES: usize = 9;
const SETTINGS: u8 = 0x4;
const PING: u8 = 0x6;
const ACK: u8 = 0x1;

/// What comes over one connection.
#[derive(Debug)]
pub(super) struct Meter {
    /// Bytes of the preface or of a payload that are still to come.
    skip: usize,
    header: [u8; HEADER_BYTES],
    /// How much of it has come.
    got: usize,
    since: Instant,
    settings: u32,
    pings: u32,
}

/// The peer sends too many of them.
#[derive(Debug, thiserror::Error, Clone, Copy, PartialEq, Eq)]
#[error("the peer floods the connection with SETTINGS or PING frames")]
pub(super) struct Flood;

impl Meter {
    /// Of a connection on which so many bytes come before the first frame.
    pub(super) fn new(preface_bytes: usize, now: Instant) -> Self {
        Self {
            skip: preface_bytes,
            header: [0; HEADER_BYTES],
            got: 0,
            since: now,
            settings: 0,
            pings: 0,
        }
    }

    /// These bytes have come next.
    pub(super) fn feed(&mut self, mut bytes: &[u8], now: Instant) -> Result<(), Flood> {
        if now.duration_since(self.since) >= PERIOD {
            (self.since, self.settings, self.pings) = (now, 0, 0);
        }
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            (self.skip, bytes) = (self.skip - skipped, &bytes[skipped..]);
            let more = (HEADER_BYTES - self.got).min(bytes.len());
            self.header[self.got..self.got + more].copy_from_slice(&bytes[..more]);
            (self.got, bytes) = (self.got + more, &bytes[more..]);
            if self.got == HEADER_BYTES {
                self.got = 0;
                self.count()?;
            }
        }
        Ok(())
    }

    fn count(&mut self) -> Result<(), Flood> {
        let [high, middle, low, kind, flags, ..] = self.header;
        self.skip = u32::from_be_bytes([0, high, middle, low]) as usize;
        match kind {
            SETTINGS if flags & ACK == 0 => self.settings += 1,
            PING => self.pings += 1,
            _ => {}
        }
        if self.settings > MAX_SETTINGS || self.pings > MAX_PINGS {
            return Err(Flood);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PREFACE: usize = 24;

    fn frame(kind: u8, flags: u8, payload: usize) -> Vec<u8> {
        let [_, high, middle, low] = (payload as u32).to_be_bytes();
        let mut frame = vec![high, middle, low, kind, flags, 0, 0, 0, 0];
        // A payload that looks like headers.
        frame.extend(
            [0, 0, 0, SETTINGS, 0, 0, 0, 0, 0]
                .iter()
                .cycle()
                .take(payload),
        );
        frame
    }

    fn fed(frames: &[u8], step: usize, now: Instant) -> Result<(), Flood> {
        let mut meter = Meter::new(PREFACE, now);
        let all = [&[SETTINGS; PREFACE], frames].concat();
        all.chunks(step)
            .try_for_each(|piece| meter.feed(piece, now))
    }

    #[test]
    fn settings_and_pings_are_counted_however_they_are_cut_and_nothing_else_is() {
        let now = Instant::now();
        let data = frame(0x0, 0, 1_000);
        for step in [1, 2, 9, 10, 1_013] {
            let answers = frame(SETTINGS, ACK, 0).repeat(500);
            assert_eq!(
                fed(&[data.repeat(200), answers].concat(), step, now),
                Ok(())
            );
            for (one, most) in [
                (frame(SETTINGS, 0, 6), MAX_SETTINGS),
                (frame(PING, 0, 8), MAX_PINGS),
                (frame(PING, ACK, 8), MAX_PINGS),
            ] {
                let most = one.repeat(most as usize);
                assert_eq!(fed(&most, step, now), Ok(()));
                assert_eq!(
                    fed(&[most, data.clone(), one].concat(), step, now),
                    Err(Flood)
                );
            }
        }
    }

    #[test]
    fn ten_seconds_later_they_are_counted_anew() {
        let now = Instant::now();
        let mut meter = Meter::new(0, now);
        let most = frame(PING, 0, 8).repeat(MAX_PINGS as usize);
        assert_eq!(meter.feed(&most, now), Ok(()));
        assert_eq!(meter.feed(&most, now + PERIOD), Ok(()));
        assert_eq!(meter.feed(&frame(PING, 0, 8), now + PERIOD), Err(Flood));
    }
}
