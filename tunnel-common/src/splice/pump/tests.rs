//! The rules of a splice, told on ends that do what a test says, under a paused clock.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::task::Waker;
use std::time::Duration;

use bytes::Bytes;

use super::super::buffer::{BufferPool, Held};
use super::super::options::{Sight, Timeouts};
use super::*;
use crate::budget::{Carrier, MemoryBudget};
use crate::quic::LEAST_STREAM_WINDOW as STREAM_WINDOW;

/// An end whose peer is the test.
#[derive(Clone)]
struct Scripted(Arc<Mutex<Script>>);

struct Script {
    arriving: VecDeque<Event>,
    room: usize,
    taken: Vec<u8>,
    put_error: bool,
    /// What it sends as soon as anything is put.
    answer: Option<&'static [u8]>,
    probe_error: bool,
    sound: bool,
    finished: bool,
    aborted: Option<Code>,
    pinned: u64,
    waker: Option<Waker>,
}

enum Event {
    Bytes(&'static [u8]),
    End,
    Truncated,
    Reset,
}

fn end() -> Scripted {
    Scripted(Arc::new(Mutex::new(Script {
        arriving: VecDeque::new(),
        room: usize::MAX,
        taken: Vec::new(),
        put_error: false,
        answer: None,
        probe_error: false,
        sound: false,
        finished: false,
        aborted: None,
        pinned: 0,
        waker: None,
    })))
}

impl Scripted {
    /// Changes what the end does, and lets the splice know.
    fn then(&self, change: impl FnOnce(&mut Script)) {
        let mut script = self.0.lock().expect("not poisoned");
        change(&mut script);
        if let Some(waker) = script.waker.take() {
            waker.wake();
        }
    }

    fn sends(&self, event: Event) {
        self.then(|script| script.arriving.push_back(event));
    }

    fn got(&self) -> Vec<u8> {
        self.0.lock().expect("not poisoned").taken.clone()
    }

    fn saw_clean_end(&self) -> bool {
        self.0.lock().expect("not poisoned").finished
    }

    fn saw_reset(&self) -> Option<Code> {
        self.0.lock().expect("not poisoned").aborted
    }
}

fn reset() -> io::Error {
    io::ErrorKind::ConnectionReset.into()
}

impl End for Scripted {
    fn poll_take(
        &mut self,
        cx: &mut Context<'_>,
        held: &mut Held,
        _: &BufferPool,
    ) -> Poll<io::Result<usize>> {
        let mut script = self.0.lock().expect("not poisoned");
        match script.arriving.pop_front() {
            Some(Event::Bytes(bytes)) => {
                *held = Held::Chunks([Bytes::from_static(bytes)].into());
                Poll::Ready(Ok(bytes.len()))
            }
            Some(Event::End) => Poll::Ready(Ok(0)),
            Some(Event::Truncated) => Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
            Some(Event::Reset) => Poll::Ready(Err(reset())),
            None => {
                script.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    fn poll_put(&mut self, cx: &mut Context<'_>, held: &mut Held) -> Poll<io::Result<usize>> {
        let mut script = self.0.lock().expect("not poisoned");
        if script.put_error {
            return Poll::Ready(Err(reset()));
        }
        let put = held.first().len().min(script.room);
        if put == 0 {
            script.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        script.room -= put;
        let answer = script.answer.map(Event::Bytes);
        script.arriving.extend(answer);
        if let Some(waker) = script.waker.take() {
            waker.wake();
        }
        let bytes = held.first()[..put].to_vec();
        script.taken.extend(bytes);
        held.advance(put);
        Poll::Ready(Ok(put))
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_finish(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.lock().expect("not poisoned").finished = true;
        Poll::Ready(Ok(()))
    }

    fn probe(&mut self, _: &mut Context<'_>) -> io::Result<()> {
        if self.0.lock().expect("not poisoned").probe_error {
            Err(reset())
        } else {
            Ok(())
        }
    }

    fn abort(&mut self, code: Code) {
        self.0.lock().expect("not poisoned").aborted = Some(code);
    }

    fn ends_soundly(&self) -> bool {
        self.0.lock().expect("not poisoned").sound
    }

    fn pinned_bytes(&self) -> u64 {
        self.0.lock().expect("not poisoned").pinned
    }
}

fn options() -> Options {
    Options {
        pool: BufferPool::default(),
        budget: MemoryBudget::new(1 << 40).tunnel(Carrier::Quic),
        timeouts: Arc::default(),
        first_answer: None,
        meter: Arc::default(),
    }
}

fn splice(a: &Scripted, b: &Scripted) -> Splice<Scripted, Scripted> {
    Splice::new(a.clone(), b.clone(), options())
}

/// Lets the splice do all it can do now.
async fn settle(splice: &mut Splice<Scripted, Scripted>) -> Option<Ended> {
    tokio::select! {
        biased;
        ended = splice => Some(ended),
        () = tokio::task::yield_now() => None,
    }
}

/// How long the splice goes on by itself, and how it ends.
async fn outlives(splice: impl Future<Output = Ended>) -> (Duration, Ended) {
    let start = Instant::now();
    let ended = splice.await;
    (start.elapsed(), ended)
}

fn assert_lasted(lasted: Duration, expected: Duration) {
    let off = lasted.abs_diff(expected);
    assert!(
        off < Duration::from_secs(1),
        "lasted {lasted:?}, expected {expected:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_clean_end_passes_and_the_other_direction_goes_on() {
    let (a, b) = (end(), end());
    let mut splice = splice(&a, &b);
    a.sends(Event::Bytes(b"request"));
    a.sends(Event::End);
    assert!(settle(&mut splice).await.is_none());
    assert_eq!(b.got(), b"request");
    assert!(b.saw_clean_end() && !a.saw_clean_end());

    b.sends(Event::Bytes(b"answer"));
    b.sends(Event::End);
    let ended = splice.await;
    assert_eq!(a.got(), b"answer");
    assert!(a.saw_clean_end());
    assert!(
        matches!(
            ended,
            Ended {
                a_to_b: 7,
                b_to_a: 6,
                cause: Cause::Clean
            }
        ),
        "{ended:?}"
    );
    assert_eq!((a.saw_reset(), b.saw_reset()), (None, None));
}

#[tokio::test(start_paused = true)]
async fn a_reset_is_a_reset_on_the_other_side_and_never_a_clean_end() {
    let (a, b) = (end(), end());
    b.sends(Event::Bytes(b"half an ans"));
    b.sends(Event::Reset);
    let ended = splice(&a, &b).await;
    assert!(
        matches!(ended.cause, Cause::Broke { side: Side::B, .. }),
        "{ended:?}"
    );
    assert!(!a.saw_clean_end());
    assert_eq!(a.saw_reset(), Some(Code::LocalRefused));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_came_before_the_service_closed_is_delivered_but_not_as_complete() {
    let (a, b) = (end(), end());
    b.then(|script| script.put_error = true);
    let mut splice = splice(&a, &b);
    a.sends(Event::Bytes(b"an upload that b refuses"));
    b.sends(Event::Bytes(b"413"));
    assert!(settle(&mut splice).await.is_none());
    assert_eq!(a.got(), b"413");
    b.sends(Event::End);
    let ended = splice.await;
    assert!(
        matches!(ended.cause, Cause::Broke { side: Side::B, .. }),
        "{ended:?}"
    );
    assert!(a.saw_reset().is_some());
}

#[tokio::test(start_paused = true)]
async fn what_a_broken_side_never_ends_is_ended_for_it() {
    let (a, b) = (end(), end());
    b.then(|script| script.put_error = true);
    a.sends(Event::Bytes(b"x"));
    let (lasted, ended) = outlives(splice(&a, &b)).await;
    assert_lasted(lasted, Timeouts::default().linger);
    assert!(
        matches!(ended.cause, Cause::Broke { side: Side::B, .. }),
        "{ended:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_visitor_who_is_cut_off_without_an_end_gets_his_answer_but_the_service_no_end() {
    let (a, b) = (end(), end());
    let mut splice = splice(&a, &b);
    a.sends(Event::Bytes(b"request"));
    a.sends(Event::Truncated);
    assert!(settle(&mut splice).await.is_none());
    b.sends(Event::Bytes(b"answer"));
    b.sends(Event::End);
    let ended = splice.await;
    assert!(
        matches!(ended.cause, Cause::Broke { side: Side::A, .. }),
        "{ended:?}"
    );
    assert_eq!(a.got(), b"answer");
    assert!(a.saw_clean_end() && a.saw_reset().is_none());
    assert!(!b.saw_clean_end() && b.saw_reset() == Some(Code::VisitorAborted));
}

#[tokio::test(start_paused = true)]
async fn a_reset_does_not_overtake_what_the_service_sent_before_it() {
    let (a, b) = (end(), end());
    b.sends(Event::Bytes(b"half an answer"));
    b.sends(Event::Reset);
    let mut splice = splice(&a, &b);
    assert!(settle(&mut splice).await.is_none());
    assert_eq!((a.got(), a.saw_reset()), (b"half an answer".to_vec(), None));
    let (lasted, _) = outlives(splice).await;
    assert_eq!(
        lasted.as_millis() / 10,
        Timeouts::default().arrival.as_millis() / 10
    );
    assert!(a.saw_reset().is_some() && !a.saw_clean_end());
}

#[tokio::test(start_paused = true)]
async fn a_complete_answer_is_not_reset_when_the_upload_behind_it_breaks() {
    let (a, b) = (end(), end());
    let mut splice = splice(&a, &b);
    b.sends(Event::Bytes(b"answer"));
    b.sends(Event::End);
    assert!(settle(&mut splice).await.is_none());
    b.then(|script| script.put_error = true);
    a.sends(Event::Bytes(b"more"));
    let ended = splice.await;
    assert!(
        matches!(ended.cause, Cause::Broke { side: Side::B, .. }),
        "{ended:?}"
    );
    assert_eq!((a.saw_clean_end(), a.saw_reset()), (true, None));
}

#[tokio::test(start_paused = true)]
async fn a_reader_who_drips_is_stalled_all_the_same() {
    let budget = MemoryBudget::new(0);
    let (a, b) = (end(), end());
    a.then(|script| script.room = 1);
    b.then(|script| script.pinned = 8 * STREAM_WINDOW);
    b.sends(Event::Bytes(b"a long video"));
    let mut splice = Splice::new(
        a.clone(),
        b,
        Options {
            budget: budget.tunnel(Carrier::Quic),
            ..options()
        },
    );
    for _ in 0..5 {
        assert!(settle(&mut splice).await.is_none());
        tokio::time::advance(Duration::from_secs(1)).await;
        a.then(|script| script.room = 1);
    }
    let ended = settle(&mut splice).await.expect("evicted");
    assert!(
        matches!(ended.cause, Cause::Limit(Limit::Evicted)),
        "{ended:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_half_closed_splice_is_reaped_after_silence_which_bytes_interrupt() {
    let (a, b) = (end(), end());
    let mut splice = splice(&a, &b);
    a.sends(Event::End);
    assert!(settle(&mut splice).await.is_none());
    tokio::time::advance(Duration::from_secs(50)).await;
    b.sends(Event::Bytes(b"still here"));
    assert!(settle(&mut splice).await.is_none());
    let (lasted, ended) = outlives(splice).await;
    assert_lasted(lasted, Timeouts::default().half_closed);
    assert!(
        matches!(ended.cause, Cause::Limit(Limit::HalfClosed)),
        "{ended:?}"
    );
    assert_eq!(
        (a.saw_reset(), b.saw_reset()),
        (Some(Code::Limit), Some(Code::Limit))
    );
}

#[tokio::test(start_paused = true)]
async fn silence_both_ways_is_borne_for_an_hour() {
    let (lasted, ended) = outlives(splice(&end(), &end())).await;
    assert_lasted(lasted, Duration::from_secs(3600));
    assert!(
        matches!(ended.cause, Cause::Limit(Limit::Idle)),
        "{ended:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_paused_reader_is_borne_for_ten_minutes() {
    let (a, b) = (end(), end());
    a.then(|script| script.room = 3);
    b.sends(Event::Bytes(b"a video"));
    let (lasted, ended) = outlives(splice(&a, &b)).await;
    assert_lasted(lasted, Duration::from_secs(600));
    assert!(
        matches!(ended.cause, Cause::Limit(Limit::Stalled)),
        "{ended:?}"
    );
    assert_eq!(a.got(), b"a v");
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_goes_on_is_never_stalled() {
    let (a, b) = (end(), end());
    a.then(|script| script.room = 1);
    b.sends(Event::Bytes(b"a long video"));
    let mut splice = splice(&a, &b);
    for read in 1..=10 {
        assert!(settle(&mut splice).await.is_none());
        assert_eq!(a.got().len(), read);
        tokio::time::advance(Duration::from_secs(599)).await;
        a.then(|script| script.room = 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stalled_stream_goes_when_others_need_its_memory() {
    let budget = MemoryBudget::new(2 * STREAM_WINDOW);
    let stalled = |bytes| {
        let (a, b) = (end(), end());
        a.then(|script| script.room = 0);
        b.then(|script| script.pinned = STREAM_WINDOW);
        b.sends(Event::Bytes(bytes));
        Splice::new(
            a,
            b,
            Options {
                budget: budget.tunnel(Carrier::Quic),
                ..options()
            },
        )
    };
    let mut first = stalled(b"first");
    assert!(settle(&mut first).await.is_none());
    tokio::time::advance(Duration::from_secs(2)).await;
    let mut second = stalled(b"second");
    let start = Instant::now();
    let ended = tokio::select! {
        ended = &mut first => ended,
        ended = &mut second => panic!("the one that stalled last went: {ended:?}"),
    };
    assert!(
        matches!(ended.cause, Cause::Limit(Limit::Evicted)),
        "{ended:?}"
    );
    assert_lasted(start.elapsed(), Timeouts::default().stalled);
}

#[tokio::test(start_paused = true)]
async fn a_side_that_breaks_while_nobody_reads_from_it_is_found_within_a_second() {
    let (a, b) = (end(), end());
    b.then(|script| script.room = 0);
    a.sends(Event::Bytes(b"an upload that b does not take"));
    let mut splice = splice(&a, &b);
    assert!(settle(&mut splice).await.is_none());
    a.then(|script| script.probe_error = true);
    let (lasted, ended) = outlives(splice).await;
    assert!(lasted <= Duration::from_secs(1), "{lasted:?}");
    assert!(
        matches!(ended.cause, Cause::Broke { side: Side::A, .. }),
        "{ended:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_tunnel_that_never_answers_is_given_up() {
    let first_answer = Some(Duration::from_secs(10));
    let (a, b) = (end(), end());
    a.sends(Event::Bytes(b"hello?"));
    let silent = Splice::new(
        a,
        b,
        Options {
            first_answer,
            ..options()
        },
    );
    let (lasted, ended) = outlives(silent).await;
    assert_lasted(lasted, Duration::from_secs(10));
    assert!(
        matches!(ended.cause, Cause::Limit(Limit::NoAnswer)),
        "{ended:?}"
    );

    let (a, b) = (end(), end());
    b.sends(Event::Bytes(b"hello!"));
    let answered = Splice::new(
        a,
        b,
        Options {
            first_answer,
            ..options()
        },
    );
    let (lasted, _) = outlives(answered).await;
    assert_lasted(lasted, Duration::from_secs(3600));
}

#[tokio::test(start_paused = true)]
async fn an_abort_tells_both_sides_why() {
    let (a, b) = (end(), end());
    let mut splice = splice(&a, &b);
    assert!(settle(&mut splice).await.is_none());
    let ended = splice.abort(Code::Draining);
    assert!(
        matches!(ended.cause, Cause::Aborted(Code::Draining)),
        "{ended:?}"
    );
    assert_eq!(
        (a.saw_reset(), b.saw_reset()),
        (Some(Code::Draining), Some(Code::Draining))
    );
}

#[tokio::test(start_paused = true)]
async fn the_meter_can_be_read_while_bytes_move() {
    let (a, b) = (end(), end());
    let options = options();
    let meter = options.meter.clone();
    let mut splice = Splice::new(a.clone(), b.clone(), options);
    a.sends(Event::Bytes(b"12345"));
    b.sends(Event::Bytes(b"123"));
    assert!(settle(&mut splice).await.is_none());
    assert_eq!((meter.a_to_b(), meter.b_to_a()), (5, 3));
}

#[tokio::test(start_paused = true)]
async fn a_complete_answer_is_not_reset_when_the_service_is_found_broken_later() {
    let (a, b) = (end(), end());
    let mut splice = splice(&a, &b);
    b.sends(Event::Bytes(b"answer"));
    b.sends(Event::End);
    assert!(settle(&mut splice).await.is_none());
    assert!(a.saw_clean_end());
    b.then(|script| script.probe_error = true);
    let ended = splice.await;
    assert!(
        matches!(ended.cause, Cause::Broke { side: Side::B, .. }),
        "{ended:?}"
    );
    assert_eq!(a.saw_reset(), None);
}

#[tokio::test(start_paused = true)]
async fn an_end_after_a_long_silence_is_an_end_like_any_other() {
    let (a, b) = (end(), end());
    let mut splice = splice(&a, &b);
    a.sends(Event::Bytes(b"hi"));
    assert!(settle(&mut splice).await.is_none());
    tokio::time::advance(Duration::from_secs(90)).await;
    a.sends(Event::End);
    assert!(settle(&mut splice).await.is_none());
    assert!(b.saw_clean_end());
    let (lasted, ended) = outlives(splice).await;
    assert_lasted(lasted, Timeouts::default().half_closed);
    assert!(
        matches!(ended.cause, Cause::Limit(Limit::HalfClosed)),
        "{ended:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_second_break_does_not_overtake_the_answer_either() {
    let (a, b) = (end(), end());
    b.sends(Event::Bytes(b"413"));
    b.sends(Event::Reset);
    b.sends(Event::Reset);
    b.then(|script| script.put_error = true);
    a.sends(Event::Bytes(b"upload"));
    let (lasted, _) = outlives(splice(&a, &b)).await;
    assert_eq!(a.got(), b"413");
    assert!(lasted >= Timeouts::default().arrival, "{lasted:?}");
}

#[tokio::test(start_paused = true)]
async fn two_breaks_at_once_are_never_a_clean_end() {
    let (a, b) = (end(), end());
    a.sends(Event::Truncated);
    b.sends(Event::Bytes(b"half"));
    b.sends(Event::Reset);
    // What a socket reads whose error has been told.
    b.sends(Event::End);
    splice(&a, &b).await;
    assert!(!a.saw_clean_end());
}

#[tokio::test(start_paused = true)]
async fn an_end_that_can_be_believed_makes_an_answer_complete_after_a_refused_upload() {
    let (a, b) = (end(), end());
    b.then(|script| (script.put_error, script.sound) = (true, true));
    a.sends(Event::Bytes(b"an upload that b refuses"));
    b.sends(Event::Bytes(b"413"));
    b.sends(Event::End);
    let ended = splice(&a, &b).await;
    assert!(
        matches!(ended.cause, Cause::Broke { side: Side::B, .. }),
        "{ended:?}"
    );
    assert_eq!(
        (a.got(), a.saw_clean_end(), a.saw_reset()),
        (b"413".to_vec(), true, None)
    );
}

#[tokio::test(start_paused = true)]
async fn a_first_end_from_which_nothing_was_taken_survives_the_second() {
    let (a, b) = (end(), end());
    let mut splice = splice(&a, &b).keeping_first();
    assert!(settle(&mut splice).await.is_none());
    assert!(splice.is_untouched());
    b.sends(Event::Reset);
    let ended = settle(&mut splice).await.expect("is over");
    assert!(
        matches!(ended.cause, Cause::Broke { side: Side::B, .. }),
        "{ended:?}"
    );
    assert_eq!(a.saw_reset(), None);
    assert!(splice.take_apart(Code::Replaced).is_some());
    assert_eq!(a.saw_reset(), None);
}

#[tokio::test(start_paused = true)]
async fn a_first_end_that_was_read_or_written_to_goes_down_with_the_second() {
    for (a_sends, b_sends) in [
        (Some(Event::Bytes(b"more")), None),
        (Some(Event::End), None),
        (None, Some(Event::Bytes(b"an answer"))),
    ] {
        let (a, b) = (end(), end());
        let mut splice = splice(&a, &b).keeping_first();
        a_sends.into_iter().for_each(|event| a.sends(event));
        b_sends.into_iter().for_each(|event| b.sends(event));
        assert!(settle(&mut splice).await.is_none());
        assert!(!splice.is_untouched());
        b.sends(Event::Reset);
        let (_, ended) = outlives(&mut splice).await;
        assert!(matches!(ended.cause, Cause::Broke { .. }), "{ended:?}");
        assert_eq!(a.saw_reset(), Some(Code::LocalRefused));
        assert!(splice.take_apart(Code::Replaced).is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn a_splice_that_should_close_ends_cleanly_both_ways_when_the_answer_is_over() {
    let (a, b) = (end(), end());
    let mut splice = splice(&a, &b);
    a.sends(Event::Bytes(b"request"));
    assert!(settle(&mut splice).await.is_none());
    b.sends(Event::Bytes(b"answer"));
    assert!(settle(&mut splice).await.is_none());
    splice.close_when_idle(Sight::Clear);
    assert!(settle(&mut splice).await.is_none());
    assert!(!a.saw_clean_end() && !b.saw_clean_end());
    tokio::time::advance(Timeouts::default().half_idle).await;
    assert!(settle(&mut splice).await.is_none());
    assert!(a.saw_clean_end() && b.saw_clean_end());
    a.sends(Event::Bytes(b"what comes too late"));
    a.sends(Event::End);
    let (lasted, ended) = outlives(splice).await;
    assert_eq!(lasted, Duration::ZERO);
    assert!(matches!(ended.cause, Cause::Closed), "{ended:?}");
    assert_eq!((ended.a_to_b, ended.b_to_a), (7, 6));
    assert_eq!((a.saw_reset(), b.saw_reset()), (None, None));
}

#[tokio::test(start_paused = true)]
async fn a_visitor_who_does_not_end_his_side_is_waited_for_a_second() {
    let (a, b) = (end(), end());
    let mut splice = splice(&a, &b);
    b.sends(Event::Bytes(b"answer"));
    splice.close_when_idle(Sight::Clear);
    let (lasted, ended) = outlives(splice).await;
    assert_lasted(lasted, Timeouts::default().half_idle + PARTING);
    assert!(matches!(ended.cause, Cause::Closed), "{ended:?}");
    assert!(a.saw_clean_end() && b.saw_clean_end());
}

#[tokio::test(start_paused = true)]
async fn a_splice_that_has_been_idle_for_long_closes_as_soon_as_it_is_asked() {
    let (a, b) = (end(), end());
    let mut splice = splice(&a, &b);
    b.sends(Event::Bytes(b"answer"));
    assert!(settle(&mut splice).await.is_none());
    tokio::time::advance(Duration::from_secs(60)).await;
    a.then(|script| script.arriving.clear());
    splice.close_when_idle(Sight::Clear);
    assert!(settle(&mut splice).await.is_none());
    assert!(a.saw_clean_end() && b.saw_clean_end());
    a.sends(Event::End);
    let (lasted, _) = outlives(splice).await;
    assert_eq!(lasted, Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_waits_for_its_answer_is_not_idle_however_long_it_waits() {
    let (a, b) = (end(), end());
    let mut splice = splice(&a, &b);
    b.sends(Event::Bytes(b"an earlier answer"));
    assert!(settle(&mut splice).await.is_none());
    a.sends(Event::Bytes(b"request"));
    assert!(settle(&mut splice).await.is_none());
    splice.close_when_idle(Sight::Clear);
    tokio::time::advance(Duration::from_secs(600)).await;
    assert!(settle(&mut splice).await.is_none());
    assert!(!a.saw_clean_end() && !b.saw_clean_end());
    b.sends(Event::Bytes(b", answered"));
    let (lasted, ended) = outlives(splice).await;
    assert_lasted(lasted, Timeouts::default().half_idle + PARTING);
    assert!(matches!(ended.cause, Cause::Closed), "{ended:?}");
    assert_eq!(a.got(), b"an earlier answer, answered");
}

#[tokio::test(start_paused = true)]
async fn a_first_answer_that_is_waited_for_is_not_idle_but_a_visitor_who_has_asked_nothing_is() {
    let first_answer = Some(Duration::from_secs(10));
    let mut unanswered = Splice::new(
        end(),
        end(),
        Options {
            first_answer,
            ..options()
        },
    );
    unanswered.close_when_idle(Sight::Clear);
    let (lasted, ended) = outlives(unanswered).await;
    assert_lasted(lasted, Duration::from_secs(10));
    assert!(
        matches!(ended.cause, Cause::Limit(Limit::NoAnswer)),
        "{ended:?}"
    );
    let mut unasked = splice(&end(), &end());
    unasked.close_when_idle(Sight::Clear);
    let (lasted, _) = outlives(unasked).await;
    assert_lasted(lasted, Timeouts::default().half_idle + PARTING);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_not_read_is_not_idle() {
    let (a, b) = (end(), end());
    let mut splice = splice(&a, &b);
    a.then(|script| script.room = 3);
    b.sends(Event::Bytes(b"answer"));
    splice.close_when_idle(Sight::Clear);
    tokio::time::advance(Duration::from_secs(60)).await;
    assert!(settle(&mut splice).await.is_none());
    assert!(!a.saw_clean_end() && !b.saw_clean_end());
    a.then(|script| script.room = usize::MAX);
    let (lasted, _) = outlives(splice).await;
    assert_lasted(lasted, Timeouts::default().half_idle + PARTING);
    assert_eq!(a.got(), b"answer");
    assert!(a.saw_clean_end());
}

#[tokio::test(start_paused = true)]
async fn a_visitor_who_has_half_closed_gets_the_rest_of_an_answer_that_pauses() {
    let (a, b) = (end(), end());
    let mut splice = splice(&a, &b);
    a.sends(Event::Bytes(b"request"));
    a.sends(Event::End);
    b.sends(Event::Bytes(b"half "));
    splice.close_when_idle(Sight::Clear);
    assert!(settle(&mut splice).await.is_none());
    tokio::time::advance(Duration::from_secs(30)).await;
    assert!(settle(&mut splice).await.is_none());
    b.sends(Event::Bytes(b"an answer"));
    b.sends(Event::End);
    let ended = splice.await;
    assert!(matches!(ended.cause, Cause::Clean), "{ended:?}");
    assert_eq!(a.got(), b"half an answer");
}

#[tokio::test(start_paused = true)]
async fn a_splice_that_closes_can_still_be_aborted_and_can_still_break() {
    let (a, b) = (end(), end());
    let mut asked = splice(&a, &b);
    a.sends(Event::Bytes(b"request"));
    asked.close_when_idle(Sight::Clear);
    assert!(settle(&mut asked).await.is_none());
    asked.abort(Code::Draining);
    assert_eq!(a.saw_reset(), Some(Code::Draining));

    let (a, b) = (end(), end());
    let mut broken = splice(&a, &b);
    broken.close_when_idle(Sight::Clear);
    b.sends(Event::Reset);
    let ended = broken.await;
    assert!(matches!(ended.cause, Cause::Broke { .. }), "{ended:?}");
    assert!(!a.saw_clean_end());
}

#[tokio::test(start_paused = true)]
async fn where_tls_is_all_that_is_seen_tickets_are_no_answer() {
    const TICKETS: &[u8] = &[b't'; 500];
    const PAGE: &[u8] = &[b'p'; 5_000];
    let (a, b) = (end(), end());
    let mut splice = splice(&a, &b);
    b.sends(Event::Bytes(PAGE));
    splice.close_when_idle(Sight::Opaque);
    assert!(settle(&mut splice).await.is_none());
    // The server's part of the handshake alone is no answer either.
    tokio::time::advance(Duration::from_secs(30)).await;
    assert!(settle(&mut splice).await.is_none());
    a.sends(Event::Bytes(b"finished, and a request"));
    assert!(settle(&mut splice).await.is_none());
    b.sends(Event::Bytes(TICKETS));
    assert!(settle(&mut splice).await.is_none());
    tokio::time::advance(Duration::from_secs(30)).await;
    assert!(settle(&mut splice).await.is_none());
    assert!(!a.saw_clean_end() && !b.saw_clean_end());
    b.sends(Event::Bytes(PAGE));
    let (lasted, ended) = outlives(splice).await;
    let after = Timeouts::default().half_idle + Duration::from_secs(1);
    assert_lasted(lasted, after + PARTING);
    assert!(matches!(ended.cause, Cause::Closed), "{ended:?}");
}

#[tokio::test(start_paused = true)]
async fn a_visitor_who_does_not_notice_that_his_answer_has_ended_holds_nobody_up() {
    for sight in [Sight::Clear, Sight::Opaque] {
        let (a, b) = (end(), end());
        let mut splice = splice(&a, &b);
        a.sends(Event::Bytes(b"request"));
        assert!(settle(&mut splice).await.is_none());
        b.sends(Event::Bytes(b"answer"));
        b.sends(Event::End);
        splice.close_when_idle(sight);
        let (lasted, ended) = outlives(splice).await;
        assert!(lasted <= Duration::from_secs(4), "{lasted:?}");
        assert!(matches!(ended.cause, Cause::Closed), "{ended:?}");
        assert!(a.saw_clean_end() && b.saw_clean_end());
    }
}

#[tokio::test(start_paused = true)]
async fn a_visitor_who_has_gone_behind_his_answer_holds_nobody_up() {
    let (a, b) = (end(), end());
    let mut splice = splice(&a, &b);
    a.sends(Event::Bytes(b"request"));
    assert!(settle(&mut splice).await.is_none());
    b.sends(Event::Bytes(b"answer"));
    a.sends(Event::Truncated);
    splice.close_when_idle(Sight::Clear);
    let (lasted, ended) = outlives(splice).await;
    assert_lasted(lasted, Timeouts::default().half_idle);
    assert!(matches!(ended.cause, Cause::Broke { .. }), "{ended:?}");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_comes_at_once_is_an_answer() {
    let (a, b) = (end(), end());
    let mut splice = splice(&a, &b);
    b.then(|script| script.answer = Some(b"answer"));
    a.sends(Event::Bytes(b"request"));
    splice.close_when_idle(Sight::Clear);
    let (lasted, ended) = outlives(splice).await;
    assert_lasted(lasted, Timeouts::default().half_idle + PARTING);
    assert!(matches!(ended.cause, Cause::Closed), "{ended:?}");
    assert_eq!(a.got(), b"answer");
}
