//! Trying several addresses at once, a little apart (RFC 8305, 5).

use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::time::sleep;

/// Before the next address is tried beside those that have not answered, by default (RFC 8305, 8).
pub(crate) const HEAD_START: Duration = Duration::from_millis(250);

/// Gives the first success of `attempts`, each of which gets `head_start` before the next begins
/// beside it; one that fails does not keep the next waiting. When all have failed, their failures in
/// the order in which they came; none where there was no attempt.
///
/// Dropping the future gives up all attempts.
pub(crate) async fn race<T, E, F: Future<Output = Result<T, E>>>(
    attempts: impl IntoIterator<Item = F>,
    head_start: Duration,
) -> Result<T, Vec<E>> {
    let (mut waiting, mut running) = (attempts.into_iter().peekable(), FuturesUnordered::new());
    let mut failures = vec![];
    loop {
        running.extend(waiting.next());
        tokio::select! {
            outcome = running.next() => match outcome {
                Some(Ok(won)) => return Ok(won),
                Some(Err(error)) => failures.push(error),
                None => return Err(failures),
            },
            () = sleep(head_start), if waiting.peek().is_some() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;

    use tokio::time::Instant;

    use super::*;

    type Attempt = Pin<Box<dyn Future<Output = Result<u8, u8>>>>;

    fn at_once(outcome: Result<u8, u8>) -> Attempt {
        Box::pin(std::future::ready(outcome))
    }

    fn never() -> Attempt {
        Box::pin(std::future::pending())
    }

    async fn run(attempts: Vec<Attempt>) -> (Result<u8, Vec<u8>>, Duration) {
        let began = Instant::now();
        (race(attempts, HEAD_START).await, began.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn an_attempt_that_hangs_holds_the_next_up_for_a_head_start_only() {
        let (outcome, took) = run(vec![never(), never(), at_once(Ok(3))]).await;
        assert_eq!(outcome, Ok(3));
        assert!(took >= 2 * HEAD_START && took < 3 * HEAD_START, "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_attempt_that_fails_does_not_hold_the_next_up() {
        let (outcome, took) = run(vec![at_once(Err(1)), at_once(Ok(2))]).await;
        assert_eq!((outcome, took), (Ok(2), Duration::ZERO));
        let (outcome, _) = run(vec![at_once(Err(1)), at_once(Err(2))]).await;
        assert_eq!(outcome, Err(vec![1, 2]));
        let (outcome, _) = run(vec![]).await;
        assert_eq!(outcome, Err(vec![]));
    }
}
