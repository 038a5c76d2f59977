//! What is said to an agent goes out in a task of its own, so that one that does not read holds up
//! nothing but what is said to it.

use std::time::Duration;

use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tunnel_common::stream::control::ControlSend;
use tunnel_common::wire::control::ControlWriter;
use tunnel_common::wire::frame::Frame;

use super::error::SessionError;

/// Frames that wait to be sent.
const QUEUE: usize = 64;
/// Of these, what is kept for what the relay says of its own accord. When no more than that is left,
/// nothing is read of the agent that would want an answer.
const RESERVED: usize = 16;

/// The sending half of a control stream. Dropping it drops what has not been sent.
#[derive(Debug)]
pub(super) struct Mouth {
    /// Boxed: a channel keeps room for 32, and most are never used.
    frames: Sender<Box<Frame>>,
    speaking: JoinSet<Result<(), SessionError>>,
}

impl Mouth {
    /// Speaks through `writer`. An agent must take each frame within `patience`.
    pub(super) fn new(writer: ControlWriter<ControlSend>, patience: Duration) -> Self {
        let (frames, queue) = mpsc::channel(QUEUE);
        let mut speaking = JoinSet::new();
        speaking.spawn(speak(writer, queue, patience));
        Self { frames, speaking }
    }

    /// Says `frame` as soon as what is before it has been said. Fails if too much is.
    pub(super) fn say(&self, frame: Frame) -> Result<(), SessionError> {
        self.frames
            .try_send(Box::new(frame))
            .map_err(|_| SessionError::Deaf)
    }

    /// Whether an answer to the agent would find room.
    pub(super) fn has_room(&self) -> bool {
        self.frames.capacity() > RESERVED
    }

    /// Ready when there is room again where there was none, or with an error when nothing can be said
    /// any more. Cancel safe.
    pub(super) async fn room(&mut self) -> Result<(), SessionError> {
        let is_full = !self.has_room();
        tokio::select! {
            Ok(_) = self.frames.reserve_many(RESERVED + 1), if is_full => Ok(()),
            Some(ended) = self.speaking.join_next() => match ended {
                Ok(Err(error)) => Err(error),
                _ => Err(SessionError::Deaf),
            },
            else => Err(SessionError::Deaf),
        }
    }

    /// Ends the stream behind what was said, and waits until the agent has it. The caller sets the
    /// deadline.
    pub(super) async fn end(mut self) {
        drop(self.frames);
        let _ = self.speaking.join_next().await;
    }
}

async fn speak(
    mut writer: ControlWriter<ControlSend>,
    mut queue: Receiver<Box<Frame>>,
    patience: Duration,
) -> Result<(), SessionError> {
    while let Some(frame) = queue.recv().await {
        let saying = timeout(patience, writer.send(&frame));
        saying.await.map_err(|_| SessionError::Deaf)??;
    }
    writer.into_inner().end().await;
    Ok(())
}
