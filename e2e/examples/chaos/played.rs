//! Plays the stories, one after the other, over both transports at the same time.

use std::any::Any;
use std::thread::{self, ScopedJoinHandle};

use e2e::transport::Over;
use tokio::runtime::Runtime;

use crate::story::{Outcome, Story};

/// The processes and this one must not wait for others.
const NICENESS: i32 = -15;

/// A story that was played.
pub(crate) struct Played {
    pub(crate) story: &'static Story,
    outcomes: Vec<(Over, Outcome)>,
}

impl Played {
    /// What came of it over this transport, if it was played over that.
    pub(crate) fn outcome(&self, over: Over) -> Option<&Outcome> {
        let mut outcomes = self.outcomes.iter();
        let found = outcomes.find(|(played, _)| *played == over);
        found.map(|(_, outcome)| outcome)
    }

    /// All of it.
    pub(crate) fn outcomes(&self) -> impl Iterator<Item = (Over, &Outcome)> {
        self.outcomes.iter().map(|(over, outcome)| (*over, outcome))
    }
}

/// What a transport is called.
pub(crate) fn name(over: Over) -> &'static str {
    match over {
        Over::Quic => "QUIC",
        Over::H2 => "HTTP/2",
    }
}

/// Plays all of these, and says how each ended.
pub(crate) fn all(stories: &[&'static Story]) -> Vec<Played> {
    // Without it the figures of a busy machine are worse.
    let _ = rustix::process::setpriority_process(None, NICENESS);
    let play = |story: &&'static Story| {
        let played = one(story);
        for (over, outcome) in played.outcomes() {
            println!("{} {}: {outcome:.2?}", story.name, name(over));
        }
        played
    };
    stories.iter().map(play).collect()
}

/// Each way on a thread and a runtime of its own: a panic is the end of one row, and no task of another
/// is counted or in the way.
fn one(story: &'static Story) -> Played {
    let play = |over| {
        let runtime = Runtime::new().expect("a runtime");
        runtime.block_on((story.play)(over))
    };
    let outcomes = thread::scope(|scope| {
        let begin = |over| (over, scope.spawn(move || play(over)));
        let end = |(over, playing): (Over, ScopedJoinHandle<'_, Outcome>)| {
            let outcome = playing.join();
            (
                over,
                outcome.unwrap_or_else(|panic| Outcome::broken(said(panic))),
            )
        };
        if story.is_alone {
            return story.ways().map(begin).map(end).collect();
        }
        let playing: Vec<_> = story.ways().map(begin).collect();
        playing.into_iter().map(end).collect()
    });
    Played { story, outcomes }
}

/// The first line of what a panic says: why a story could not be played.
fn said(panic: Box<dyn Any + Send>) -> String {
    let text = match panic.downcast::<String>() {
        Ok(text) => *text,
        Err(panic) => match panic.downcast::<&str>() {
            Ok(text) => (*text).to_owned(),
            Err(_) => "a panic without words".to_owned(),
        },
    };
    text.lines().next().unwrap_or_default().to_owned()
}

/// The rows in which a bar is missed, and why.
pub(crate) fn missed(played: &[Played]) -> Vec<String> {
    let mut rows = vec![];
    for one in played {
        for (over, outcome) in one.outcomes() {
            let bars = one.story.bars(over).unwrap_or_default();
            let broken = bars.iter().filter_map(|bar| bar.missed(outcome));
            let why: Vec<_> = outcome.faults.iter().cloned().chain(broken).collect();
            if !why.is_empty() {
                let (story, over, why) = (one.story.name, name(over), why.join("; "));
                rows.push(format!("{story} over {over}: {why}"));
            }
        }
    }
    rows
}
