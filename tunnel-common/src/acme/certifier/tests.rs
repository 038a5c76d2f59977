//! Under a paused clock: an authority, a site and a file that do as the story says.

use std::fs;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::UNIX_EPOCH;

use rcgen::CertificateParams;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::*;
use crate::acme::challenge::Answer;
use crate::tls;

const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// What the authority does with an order.
#[derive(Clone, Copy, Debug)]
enum Does {
    Issue { days: u32 },
    Limit { retry_after: Duration },
    Reject,
    Vanish,
}

#[derive(Debug)]
struct Played {
    clock: Clock,
    does: Mutex<Does>,
    window: Mutex<Option<Window>>,
    orders: Mutex<Vec<SystemTime>>,
    replaced: Mutex<usize>,
    wait: Mutex<Option<Wait>>,
}

impl Ca for Arc<Played> {
    async fn order<S: Site>(&self, wish: Wish<'_>, _: &S) -> Result<Chain, Failure> {
        let now = self.clock.now();
        self.orders.lock().expect("no panic").push(now);
        *self.replaced.lock().expect("no panic") += usize::from(wish.replaces.is_some());
        match *self.does.lock().expect("no panic") {
            Does::Issue { days } => Ok(issue(wish, now, days)),
            Does::Limit { retry_after } => Err(Failure::Limited {
                detail: "too many certificates already issued for example.com".to_owned(),
                retry_after: Some(retry_after),
            }),
            Does::Reject => Err(Failure::Validation("connection refused".to_owned())),
            Does::Vanish => Err(Failure::Unreachable {
                what: "no route".to_owned(),
                retry_after: None,
            }),
        }
    }

    async fn window(&self, _: &Chain) -> Result<Option<(Window, Duration)>, Failure> {
        let window = *self.window.lock().expect("no panic");
        Ok(window.map(|window| (window, 6 * HOUR)))
    }

    async fn has_issued(&self, _: &Hostname) {}

    async fn wait(&self, _: &Hostname) -> Result<Option<Wait>, Failure> {
        Ok(self.wait.lock().expect("no panic").clone())
    }

    async fn remember(&self, _: &Hostname, wait: Option<Wait>) -> Result<(), Failure> {
        *self.wait.lock().expect("no panic") = wait;
        Ok(())
    }
}

/// Lets so much of the paused time pass.
async fn pass(time: Duration) {
    let _ = timeout(time, std::future::pending::<()>()).await;
}

fn issue(wish: Wish<'_>, now: SystemTime, days: u32) -> Chain {
    let mut params = CertificateParams::new([wish.host.to_string()]).expect("names");
    params.not_before = now.into();
    params.not_after = (now + DAY * days).into();
    params.serial_number = Some(fastrand::u64(..).into());
    let pem = params.self_signed(wish.key).expect("signs").pem();
    Chain::parse(&pem, wish.key).expect("is ours")
}

#[derive(Clone, Debug, Default)]
struct Scene {
    states: Arc<Mutex<Vec<CertificateState>>>,
    shown: Arc<Mutex<Vec<String>>>,
    /// Whether another one orders.
    follows: watch::Sender<bool>,
}

impl Site for Scene {
    type Presented = ();

    async fn may_order(&self) {
        let mut follows = self.follows.subscribe();
        follows.wait_for(|follows| !follows).await.expect("lives");
    }

    async fn present(&self, _: Answer) -> Result<(), Failure> {
        Ok(())
    }

    fn install(&self, chain: &Chain) {
        self.shown.lock().expect("no panic").push(chain.pem.clone());
    }

    fn tell(&self, state: CertificateState) {
        self.states.lock().expect("no panic").push(state);
    }
}

struct Play {
    ca: Arc<Played>,
    scene: Scene,
    key: Arc<KeyPair>,
    folder: TempDir,
    clock: Clock,
    /// How far the clock is ahead of what it should be, in seconds.
    ahead: Arc<AtomicU64>,
    renew_days: Option<u32>,
}

impl Play {
    fn new(does: Does) -> Self {
        let (begun, ahead) = (Instant::now(), Arc::new(AtomicU64::new(0)));
        let error = ahead.clone();
        let clock = Clock::from_fn(move || {
            let error = Duration::from_secs(error.load(Ordering::Acquire));
            UNIX_EPOCH + DAY * 20_000 + begun.elapsed() + error
        });
        let ca = Played {
            clock: clock.clone(),
            does: Mutex::new(does),
            window: Mutex::default(),
            orders: Mutex::default(),
            replaced: Mutex::default(),
            wait: Mutex::default(),
        };
        Self {
            ca: Arc::new(ca),
            scene: Scene::default(),
            key: Arc::new(tls::generate_key().expect("a key")),
            folder: tempfile::tempdir().expect("a folder"),
            clock,
            ahead,
            renew_days: None,
        }
    }

    fn clock_is_ahead(&self, by: Duration) {
        self.ahead.store(by.as_secs(), Ordering::Release);
    }

    fn now(&self) -> SystemTime {
        self.clock.now()
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("acme_cert.pem")
    }

    /// Keeps the name for so long, as one process does.
    async fn lasts(&self, long: Duration) {
        let found = Chain::read(&self.file(), &self.key).expect("is whole");
        self.lasts_with(long, found).await;
    }

    /// The same for a process that has found no chain of its name.
    async fn lasts_without_a_chain(&self, long: Duration) {
        self.lasts_with(long, None).await;
    }

    async fn lasts_with(&self, long: Duration, found: Option<Chain>) {
        let host = "x.example.com".parse().expect("a name");
        let certifier = Certifier {
            host,
            key: self.key.clone(),
            ca: self.ca.clone(),
            site: self.scene.clone(),
            file: self.file(),
            renew_days: self.renew_days,
            clock: self.clock.clone(),
        };
        let _ = timeout(long, certifier.keep(found)).await;
    }

    fn does(&self, does: Does) {
        *self.ca.does.lock().expect("no panic") = does;
    }

    /// How long after the story's beginning each order came, in hours.
    fn orders(&self) -> Vec<f64> {
        let begin = UNIX_EPOCH + DAY * 20_000;
        let orders = self.ca.orders.lock().expect("no panic");
        let hours =
            |at: &SystemTime| at.duration_since(begin).expect("later").as_secs_f64() / 3600.0;
        orders.iter().map(hours).collect()
    }

    fn last_state(&self) -> CertificateState {
        let states = self.scene.states.lock().expect("no panic");
        states.last().expect("one").clone()
    }

    fn shown(&self) -> usize {
        self.scene.shown.lock().expect("no panic").len()
    }
}

#[tokio::test(start_paused = true)]
async fn certificates_of_every_lifetime_are_renewed_in_time_and_seldom() {
    for days in [90, 64, 45, 6] {
        let play = Play::new(Does::Issue { days });
        play.lasts(DAY * days * 3 / 2).await;
        let orders = play.orders();
        assert_eq!(orders.len(), 3, "{days} days");
        let longest = orders
            .windows(2)
            .map(|pair| pair[1] - pair[0])
            .fold(0.0, f64::max);
        assert!(
            longest <= f64::from(days) * 24.0 * 2.0 / 3.0 + 0.1,
            "{longest} h"
        );
        assert_eq!(
            *play.ca.replaced.lock().expect("no panic"),
            orders.len() - 1
        );
        let CertificateState::Certified {
            validity,
            renewal,
            overdue,
        } = play.last_state()
        else {
            panic!("{:?}", play.last_state());
        };
        assert!(renewal > play.now() && validity.not_after > renewal && overdue.is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn the_authoritys_window_is_obeyed_and_one_that_is_always_now_costs_an_order_an_hour() {
    let play = Play::new(Does::Issue { days: 90 });
    let window = |from: Duration, to: Duration| Window {
        start: play.now() + from,
        end: play.now() + to,
    };
    *play.ca.window.lock().expect("no panic") = Some(window(DAY * 3, DAY * 4));
    play.lasts(DAY * 3 - HOUR).await;
    assert_eq!(play.orders().len(), 1);
    play.lasts(DAY + 2 * HOUR).await;
    let second = play.orders()[1] / 24.0;
    assert!((3.0..4.1).contains(&second), "after {second} days");
    let orders = play.orders().len();
    *play.ca.window.lock().expect("no panic") = Some(window(Duration::ZERO, Duration::ZERO));
    play.lasts(5 * HOUR).await;
    let more = play.orders().len() - orders;
    assert!((1..=6).contains(&more), "{more} orders in five hours");
}

#[tokio::test(start_paused = true)]
async fn days_that_the_user_gives_count_alone() {
    let mut play = Play::new(Does::Issue { days: 90 });
    play.renew_days = Some(10);
    play.lasts(DAY * 78).await;
    assert_eq!(play.orders().len(), 1);
    play.lasts(DAY * 3).await;
    assert_eq!(play.orders().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn whoever_is_limited_says_so_and_does_not_come_before_his_time_not_even_after_a_restart() {
    let play = Play::new(Does::Limit {
        retry_after: 50 * HOUR,
    });
    play.lasts(30 * HOUR).await;
    assert_eq!(play.orders().len(), 1);
    let CertificateState::Waiting { until, why } = play.last_state() else {
        panic!("{:?}", play.last_state());
    };
    assert!(
        why.contains("limit") && why.contains("example.com"),
        "{why}"
    );
    let left = until.duration_since(play.now()).expect("is ahead");
    assert!(
        left >= 20 * HOUR && left <= 21 * HOUR + HOUR / 10,
        "{left:?}"
    );
    play.does(Does::Issue { days: 90 });
    play.lasts(19 * HOUR).await;
    assert_eq!(play.orders().len(), 1, "the next process waits as well");
    play.lasts(3 * HOUR).await;
    assert_eq!(play.orders().len(), 2);
    assert!(matches!(
        play.last_state(),
        CertificateState::Certified { .. }
    ));
}

#[tokio::test(start_paused = true)]
async fn a_name_that_is_not_validated_is_ordered_once_an_hour_at_the_most_and_ever_more_seldom() {
    let play = Play::new(Does::Reject);
    play.lasts(DAY * 4).await;
    let orders = play.orders();
    let gaps: Vec<_> = orders.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(gaps.iter().all(|gap| *gap >= 1.0), "{gaps:?}");
    assert!((7..=9).contains(&orders.len()), "{orders:?}");
    play.does(Does::Issue { days: 90 });
    play.lasts(DAY * 2).await;
    assert_eq!(play.shown(), 1);
    assert_eq!(
        *play.ca.wait.lock().expect("no panic"),
        None,
        "nothing is left to wait for"
    );
}

#[tokio::test(start_paused = true)]
async fn an_authority_that_is_not_reached_is_tried_again_soon() {
    let play = Play::new(Does::Vanish);
    play.lasts(Duration::from_secs(90)).await;
    let orders = play.orders().len();
    assert!((3..=5).contains(&orders), "{orders}");
    play.lasts(Duration::from_secs(1)).await;
    assert_eq!(
        play.orders().len(),
        orders + 1,
        "and at once by the next process"
    );
}

#[tokio::test(start_paused = true)]
async fn the_old_certificate_serves_while_renewal_fails_and_the_status_says_why() {
    let play = Play::new(Does::Issue { days: 90 });
    play.lasts(DAY).await;
    play.does(Does::Reject);
    play.lasts(DAY * 65).await;
    assert_eq!(play.shown(), 2, "shown at each start, and never another");
    let CertificateState::Certified {
        validity, overdue, ..
    } = play.last_state()
    else {
        panic!("{:?}", play.last_state());
    };
    assert!(validity.not_after > play.now());
    assert!(overdue.expect("it is late").contains("connection refused"));
}

#[tokio::test(start_paused = true)]
async fn a_certificate_that_expired_while_nobody_ran_is_replaced_at_once() {
    let play = Play::new(Does::Issue { days: 6 });
    play.lasts(HOUR).await;
    tokio::time::advance(DAY * 400).await;
    play.lasts(Duration::from_secs(10)).await;
    assert_eq!(play.orders().len(), 2);
    let CertificateState::Certified { validity, .. } = play.last_state() else {
        panic!("{:?}", play.last_state());
    };
    assert!(!validity.is_over(play.now()));
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_does_not_lead_orders_nothing_and_shows_what_comes_into_the_file() {
    let play = Play::new(Does::Issue { days: 90 });
    play.scene.follows.send_replace(true);
    play.lasts(HOUR).await;
    assert_eq!((play.orders().len(), play.shown()), (0, 0));
    let host = "x.example.com".parse().expect("a name");
    let wish = Wish {
        host: &host,
        key: &play.key,
        replaces: None,
    };
    let file = play.file();
    let waiting = play.lasts(Duration::from_secs(60));
    let sharing = async {
        pass(Duration::from_secs(7)).await;
        fs::write(&file, "half a certific").expect("writes");
        pass(Duration::from_secs(12)).await;
        fs::remove_file(&file).expect("moves it away");
        issue(wish, play.now(), 90)
            .write(&file, &play.key, &host)
            .expect("writes");
    };
    tokio::join!(waiting, sharing);
    assert_eq!((play.orders().len(), play.shown()), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_certificate_that_is_due_is_replaced_though_no_process_lives_for_long() {
    let play = Play::new(Does::Issue { days: 90 });
    play.lasts(HOUR).await;
    tokio::time::advance(DAY * 62).await;
    play.lasts(Duration::from_secs(60)).await;
    assert_eq!(play.orders().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_right_keeps_nobody_waiting() {
    for does in [Does::Vanish, Does::Reject] {
        let play = Play::new(does);
        play.clock_is_ahead(DAY * 400);
        let set_right = async {
            pass(Duration::from_secs(5)).await;
            play.clock_is_ahead(Duration::ZERO);
            play.does(Does::Issue { days: 90 });
        };
        // An hour and a tenth, and what the first failure took.
        tokio::join!(play.lasts(HOUR + HOUR / 5), set_right);
        assert_eq!(play.shown(), 1, "{does:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_wait_from_the_future_does_not_bind_the_next_process() {
    let play = Play::new(Does::Reject);
    play.clock_is_ahead(DAY * 400);
    play.lasts(Duration::from_secs(5)).await;
    play.clock_is_ahead(Duration::ZERO);
    play.does(Does::Issue { days: 90 });
    play.lasts(Duration::from_secs(5)).await;
    assert_eq!(play.shown(), 1);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_ordered_that_could_not_be_kept() {
    let play = Play::new(Does::Issue { days: 90 });
    let other = "y.example.com".parse().expect("a name");
    let wish = Wish {
        host: &other,
        key: &play.key,
        replaces: None,
    };
    let (file, key) = (play.file(), play.key.clone());
    issue(wish, play.now(), 90)
        .write(&file, &key, &other)
        .expect("writes");
    let certifier = play.lasts_without_a_chain(Duration::from_secs(60));
    certifier.await;
    assert_eq!(play.orders().len(), 0, "the file has another name's");
    let CertificateState::Waiting { why, .. } = play.last_state() else {
        panic!("{:?}", play.last_state());
    };
    assert!(why.contains("y.example.com"), "{why}");
}

#[tokio::test(start_paused = true)]
async fn an_older_or_expired_chain_in_the_file_is_not_taken() {
    let play = Play::new(Does::Issue { days: 90 });
    play.lasts(HOUR).await;
    let host = "x.example.com".parse().expect("a name");
    let wish = Wish {
        host: &host,
        key: &play.key,
        replaces: None,
    };
    let older = issue(wish, play.now() - DAY * 10, 90);
    let begun = play.shown();
    let deploying = async {
        pass(HOUR).await;
        older.write(&play.file(), &play.key, &host).expect("writes");
    };
    tokio::join!(play.lasts(HOUR * 2), deploying);
    assert_eq!(
        play.shown(),
        begun + 1,
        "what it has at its start, and no other"
    );
}
