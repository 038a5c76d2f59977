//! Waiting for a condition that nobody announces: asked again and again, under a deadline.

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// How long a story waits for what should happen soon. Generous: the machine may be busy.
pub const SOON: Duration = Duration::from_secs(20);
/// The pause between two looks.
const PAUSE: Duration = Duration::from_millis(5);

/// Waits until `condition` holds; panics with `what` after [`SOON`].
pub async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !condition() {
        assert!(Instant::now() < deadline, "still not: {what}");
        sleep(PAUSE).await;
    }
}

/// Runs `attempt` until it succeeds; panics with `what` and the last error after [`SOON`].
pub async fn until_ok<T, E: std::fmt::Debug>(
    what: &str,
    mut attempt: impl AsyncFnMut() -> Result<T, E>,
) -> T {
    let deadline = Instant::now() + SOON;
    loop {
        match attempt().await {
            Ok(value) => return value,
            Err(error) => assert!(Instant::now() < deadline, "still not: {what}: {error:?}"),
        }
        sleep(PAUSE).await;
    }
}

/// Ends a story that hangs: `future` within [`SOON`], or a panic with `what`.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(SOON, future).await {
        Ok(value) => value,
        Err(_) => panic!("not within {SOON:?}: {what}"),
    }
}

/// Lets so much time pass, and gives when it began. For measurements, which watch what happens
/// meanwhile; a story waits for what it wants to see.
pub async fn pass(time: Duration) -> std::time::Instant {
    let begin = std::time::Instant::now();
    sleep(time).await;
    begin
}
