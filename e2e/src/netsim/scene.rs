//! Both programs and a local service, at the two ends of a line.

use std::sync::Arc;
use std::time::Instant;

use super::conditions::Block;
use super::line::Line;
use super::local::near_echo;
use super::programs::{publish, server};
use super::traffic::Entrance;
use crate::origin::Origin;
use crate::pair::{Client, Server};
use crate::process::folder;

/// What a story over a line plays on. Dropping it ends and removes all of it.
#[derive(Debug)]
pub struct Scene {
    /// The relay, far.
    pub server: Server,
    /// The agent, near.
    pub client: Client,
    /// Its local service: an [`echo`](near_echo).
    pub origin: Origin,
    /// Where its visitors come in.
    pub entrance: Entrance,
    /// When the client was started.
    pub began: Instant,
    /// When the client had printed its URL.
    pub announced: Instant,
    /// The line between them.
    pub line: Arc<Line>,
}

/// Starts both programs with these flags of `client`, under the conditions that the line has.
pub async fn scene(line: Line, flags: &[&str]) -> Scene {
    let line = Arc::new(line);
    let origin = near_echo(&line);
    let server = server(&line, &[]).await;
    let began = Instant::now();
    let client = publish(&line, &server, origin.address, flags, folder()).await;
    Scene {
        began,
        announced: Instant::now(),
        entrance: Entrance::new(&line, &server, &client),
        server,
        client,
        origin,
        line,
    }
}

impl Scene {
    /// Blocks this in both directions, and nothing else any more. Gives when that was.
    pub fn blocks(&self, block: Block) -> Instant {
        self.line.both(|conditions| conditions.block = block);
        Instant::now()
    }
}
