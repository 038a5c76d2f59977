//! Frames on a control stream, from either peer: cuts do not matter, a length that is too long is
//! refused before it is made room for, and every frame comes back from JSON.

use tunnel_common::wire::control::{ControlError, ControlReader, MAX_FRAME_BYTES};
use tunnel_common::wire::frame::Frame;

use crate::reads::{self, Reads};
use crate::verdict::Verdict;

/// The most that a reader may make room for: a frame with its length, doubled as buffers grow.
const MAX_ROOM: usize = 2 * (MAX_FRAME_BYTES + 4);

/// The frames that came, and how it ended; `None` if there is no end yet.
type Outcome = (Vec<Frame>, Option<Result<(), ControlError>>);

/// Checks the frames in `input`; see [`reads::split`] for its form. Taken are some frames and nothing
/// bad behind them.
pub fn check(input: &[u8]) -> Verdict {
    let (lengths, wire) = reads::split(input);
    let (frames, end) = outcome(wire, lengths);
    let (whole, whole_end) = outcome(wire, &[]);
    assert_eq!(frames, whole);
    assert_eq!(format!("{end:?}"), format!("{whole_end:?}"));
    for frame in &frames {
        let json = serde_json::to_vec(frame).expect("a frame becomes JSON");
        let again: Frame = serde_json::from_slice(&json).expect("its JSON is a frame");
        assert_eq!(&again, frame);
    }
    match end {
        Some(Err(error)) => {
            assert!(error.is_peers_fault(), "{error}");
            Verdict::Refused
        }
        _ if frames.is_empty() => Verdict::Undecided,
        _ => Verdict::Taken,
    }
}

fn outcome(wire: &[u8], lengths: &[u8]) -> Outcome {
    let (mut stream, mut frames) = (Reads::new(wire, lengths), vec![]);
    let end = reads::run(async {
        let mut reader = ControlReader::new(&mut stream);
        while let Some(frame) = reader.next().await? {
            frames.push(frame);
        }
        Ok(())
    });
    assert!(stream.most_room() <= MAX_ROOM, "{}", stream.most_room());
    (frames, end)
}
