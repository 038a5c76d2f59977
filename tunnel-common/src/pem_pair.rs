//! A certificate chain and its private key in two PEM files, and what becomes of them while the process
//! runs.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};

use crate::acme::chain;
use crate::acme::renewal::Validity;
use crate::clock::{Clock, date};
use crate::file_watch::{FileWatch, off_the_reactor};
use crate::identity::KeyFingerprint;
use crate::key::MAX_KEY_FILE_BYTES;
use crate::private_file::{self, Guard};
use crate::tls::{self, CertificateError};

/// How often a pair is looked at that is in use. It takes two looks to see a change: nobody who renews a
/// certificate waits for that.
pub const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The end of a pair in use is warned of when fewer days are left: time for somebody to see it, and to act.
const WARN_BEFORE: Duration = Duration::from_secs(14 * 24 * 60 * 60);
/// For one that is made for a shorter time, when less than a third of its life is left: by then it is renewed.
const WARN_SHARE: u32 = 3;
/// How often the dates of a pair in use are looked at: the warning comes as often.
const LOOK_AT_DATES_EVERY: Duration = Duration::from_secs(24 * 60 * 60);

/// Why a certificate can not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PemError {
    /// The file can not be read, or is no PEM of that kind.
    #[error("{path} can not be used as {what} in PEM: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
        /// Why.
        source: pem::Error,
    },
    /// The key's file can not be read, or others may read or change it.
    #[error("{path} can not be used as a private key: {source}")]
    Unsafe {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file has no certificate.
    #[error("{0} holds no certificate in PEM")]
    Empty(PathBuf),
    /// The two do not belong together, or the key is of no use.
    #[error("{chain} and {key} can not be used together: {source}")]
    Pair {
        /// The certificate's file.
        chain: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// Why.
        source: CertificateError,
    },
    /// The certificate is not valid any more.
    #[error("the certificate in {chain} has expired: it was valid until {until}")]
    Expired {
        /// The certificate's file.
        chain: PathBuf,
        /// The last second of its life, in UTC (RFC 3339).
        until: String,
    },
}

impl PemError {
    /// Whether the files may be readable the next time, though nobody changes them.
    fn may_pass(&self) -> bool {
        match self {
            Self::Unsafe { .. } => true,
            Self::Read { source, .. } => matches!(source, pem::Error::Io(_)),
            Self::Empty(_) | Self::Pair { .. } | Self::Expired { .. } => false,
        }
    }
}

/// Where a certificate and its key are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PemPair {
    /// The certificate, and behind it those that lead to an authority.
    pub chain: PathBuf,
    /// Its private key, which others may neither read nor change.
    pub key: PathBuf,
}

impl PemPair {
    /// Reads both files, and checks that they belong together and that the certificate has not expired
    /// by `clock`. One that is not valid yet gives a warning and no more: a machine that has just
    /// started may have a clock that is far behind.
    ///
    /// It blocks the thread for as long as the disk takes.
    pub fn load(&self, clock: &Clock) -> Result<Arc<CertifiedKey>, PemError> {
        let certified = self.read()?;
        self.check_dates(&certified, clock)?;
        Ok(certified)
    }

    /// Looks at both files every so often (see [`LOOK_EVERY`]; not zero), and hands over the certificate
    /// whenever they hold another one than `shown`, or than was handed over last. It never returns.
    /// Must be polled inside a tokio runtime; dropping the future ends the watch.
    ///
    /// A pair that [`load`](Self::load) would refuse changes nothing, and is told with a warning once:
    /// a new chain whose key is not there yet is such a pair. When the end of the one that is shown is near or
    /// past, a warning tells so once a day.
    pub async fn watch(
        self,
        mut shown: Arc<CertifiedKey>,
        clock: Clock,
        every: Duration,
        mut on_change: impl FnMut(Arc<CertifiedKey>),
    ) {
        let mut files = FileWatch::new(vec![self.chain.clone(), self.key.clone()], every);
        let mut dates = interval(LOOK_AT_DATES_EVERY);
        dates.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut complaint = None;
        loop {
            tokio::select! {
                () = files.changed() => {}
                _ = dates.tick() => {
                    self.warn_of_end(&shown, &clock);
                    continue;
                }
            }
            let (pair, old, clock) = (self.clone(), shown.clone(), clock.clone());
            match off_the_reactor(move || pair.load_another(&old, &clock)).await {
                Ok(None) => complaint = None,
                Ok(Some(new)) => {
                    complaint = None;
                    self.tell(&new);
                    shown = new.clone();
                    on_change(new);
                    dates.reset_immediately();
                }
                Err(error) => {
                    let text = error.to_string();
                    if complaint.as_ref() != Some(&text) {
                        warn!("{text}; the one before goes on serving");
                    }
                    // What is the same at the next look is told once; a new state is told again.
                    complaint = error.may_pass().then_some(text);
                    if complaint.is_some() {
                        files.try_again();
                    }
                }
            }
        }
    }

    /// The pair, if it is another one than `old`.
    fn load_another(
        &self,
        old: &CertifiedKey,
        clock: &Clock,
    ) -> Result<Option<Arc<CertifiedKey>>, PemError> {
        let certified = self.read()?;
        if certified.cert == old.cert {
            return Ok(None);
        }
        self.check_dates(&certified, clock)?;
        Ok(Some(certified))
    }

    fn read(&self) -> Result<Arc<CertifiedKey>, PemError> {
        let Self { chain, key } = self;
        let read = |path: &PathBuf, what| {
            let path = path.clone();
            move |source| PemError::Read { path, what, source }
        };
        let certificates = CertificateDer::pem_file_iter(chain)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(read(chain, "a certificate chain"))?;
        if certificates.is_empty() {
            return Err(PemError::Empty(chain.clone()));
        }
        let secret = private_file::read(key, Guard::Secret, MAX_KEY_FILE_BYTES);
        let secret = secret.map_err(|source| PemError::Unsafe {
            path: key.clone(),
            source,
        })?;
        let private = PrivateKeyDer::from_pem_slice(secret.as_bytes());
        let private = private.map_err(read(key, "a private key"))?;
        let certified = tls::certified(certificates, private);
        let certified = certified.map_err(|source| PemError::Pair {
            chain: chain.clone(),
            key: key.clone(),
            source,
        });
        certified.map(Arc::new)
    }

    fn check_dates(&self, certified: &CertifiedKey, clock: &Clock) -> Result<(), PemError> {
        let Some(validity) = validity(certified) else {
            return Ok(());
        };
        let now = clock.now();
        if validity.is_over(now) {
            return Err(PemError::Expired {
                chain: self.chain.clone(),
                until: date(validity.not_after),
            });
        }
        if now < validity.not_before {
            let (chain, from) = (self.chain.display(), date(validity.not_before));
            warn!(
                "the certificate in {chain} is not valid before {from}, by the clock of this machine"
            );
        }
        Ok(())
    }

    fn warn_of_end(&self, shown: &CertifiedKey, clock: &Clock) {
        let validity = validity(shown);
        let near = validity.and_then(|validity| near_end(&self.chain, validity, clock.now()));
        if let Some(near) = near {
            warn!("{near}; put a new one there");
        }
    }

    fn tell(&self, new: &CertifiedKey) {
        let key = new.cert.first().map(KeyFingerprint::of_certificate);
        let key = key.and_then(Result::ok).map(|key| key.to_string());
        let chain = self.chain.display();
        info!(%chain, key, "a new certificate is shown from now on");
    }
}

/// The dates of a certificate. What this parser does not understand and TLS does is left to whoever is shown
/// it.
fn validity(certified: &CertifiedKey) -> Option<Validity> {
    let leaf = certified.cert.first()?;
    let (_, leaf) = x509_parser::parse_x509_certificate(leaf).ok()?;
    Some(chain::validity(&leaf))
}

/// What there is to say of the certificate in `chain` at `now`, if its end is near or past.
fn near_end(chain: &Path, validity: Validity, now: SystemTime) -> Option<String> {
    let until = date(validity.not_after);
    if validity.is_over(now) {
        let chain = chain.to_owned();
        return Some(PemError::Expired { chain, until }.to_string());
    }
    let left = validity.not_after.duration_since(now).unwrap_or_default();
    let is_near = left < WARN_BEFORE.min(validity.lifetime() / WARN_SHARE);
    let (chain, days) = (chain.display(), validity.days_left(now));
    is_near.then(|| format!("the certificate in {chain} is valid until {until}, days left: {days}"))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::sync::Mutex;
    use std::time::UNIX_EPOCH;

    use rcgen::{CertificateParams, KeyPair, date_time_ymd};
    use tokio::sync::mpsc::{self, UnboundedReceiver};
    use tokio::time::{Instant, timeout};
    use tracing_subscriber::util::SubscriberInitExt as _;

    use super::*;
    use crate::key;

    /// A certificate from the beginning of 2020 to that of 2021, with its key.
    struct Made {
        certificate: rcgen::Certificate,
        key: KeyPair,
    }

    impl Made {
        fn new() -> Self {
            Self::until(2021)
        }

        fn until(year: i32) -> Self {
            let key = tls::generate_key().expect("a key");
            let mut params = CertificateParams::new(["relay.example".to_owned()]).expect("a name");
            params.not_before = date_time_ymd(2020, 1, 1);
            params.not_after = date_time_ymd(year, 1, 1);
            let certificate = params.self_signed(&key).expect("signs");
            Self { certificate, key }
        }

        /// Puts both into `folder`.
        fn put(&self, folder: &Path) -> PemPair {
            let pair = PemPair {
                chain: folder.join("chain.pem"),
                key: folder.join("key.pem"),
            };
            fs::write(&pair.chain, self.certificate.pem()).expect("writes");
            let secret = self.key.serialize_pem();
            private_file::create(&pair.key, secret.as_bytes()).expect("writes");
            pair
        }

        fn is(&self, certified: &CertifiedKey) -> bool {
            certified.cert == [self.certificate.der().clone()]
        }
    }

    /// A clock at noon of the first day of this year.
    fn noon_of(year: u64) -> Clock {
        let days = (year - 1970) * 365 + (year - 1969) / 4;
        let noon = UNIX_EPOCH + Duration::from_secs((days * 24 + 12) * 3600);
        Clock::from_fn(move || noon)
    }

    fn refused(pair: &PemPair) -> String {
        let error = pair.load(&noon_of(2020)).expect_err("is refused");
        error.to_string()
    }

    #[test]
    fn a_pair_of_files_is_an_identity() {
        let (folder, made) = (tempfile::tempdir().expect("a folder"), Made::new());
        let shown = made.put(folder.path()).load(&noon_of(2020));
        let shown = KeyFingerprint::of_certificate(&shown.expect("loads").cert[0]);
        assert_eq!(shown.expect("parses"), key::fingerprint(&made.key));
    }

    #[test]
    fn a_wrong_pair_is_refused_by_name() {
        let (folder, other) = (tempfile::tempdir().expect("a folder"), Made::new());
        let pair = Made::new().put(folder.path());
        fs::write(&pair.key, other.key.serialize_pem()).expect("writes");
        let error = refused(&pair);
        assert!(
            error.contains("key.pem") && error.contains("chain.pem"),
            "{error}"
        );
        fs::write(&pair.key, "").expect("writes");
        assert!(refused(&pair).contains("key.pem"));
        fs::remove_file(&pair.key).expect("removes");
        assert!(refused(&pair).contains("key.pem"));
        fs::write(&pair.chain, "").expect("writes");
        assert!(refused(&pair).contains("chain.pem"));
    }

    #[test]
    fn an_expired_certificate_is_refused_with_its_date_and_one_of_tomorrow_is_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let pair = Made::new().put(folder.path());
        for year in [1970, 2019, 2020] {
            assert!(pair.load(&noon_of(year)).is_ok(), "{year}");
        }
        let error = pair.load(&noon_of(2021)).expect_err("is refused");
        let error = error.to_string();
        assert!(
            error.contains("chain.pem") && error.contains("2021-01-01T00:00:00Z"),
            "{error}"
        );
    }

    type HandedOver = UnboundedReceiver<Arc<CertifiedKey>>;

    /// Watches `pair` from what it holds now on, while `story` goes on.
    async fn watched(pair: &PemPair, story: impl AsyncFnOnce(&mut HandedOver)) {
        watched_by(noon_of(2020), LOOK_EVERY, pair, story).await;
    }

    async fn watched_by(
        clock: Clock,
        every: Duration,
        pair: &PemPair,
        story: impl AsyncFnOnce(&mut HandedOver),
    ) {
        let first = pair.load(&clock).expect("loads");
        let (sender, mut handed_over) = mpsc::unbounded_channel();
        let hand_over = |new| sender.send(new).expect("the story goes on");
        let pair = pair.clone();
        tokio::select! {
            () = pair.watch(first, clock, every, hand_over) => unreachable!("for ever"),
            () = story(&mut handed_over) => {}
        }
    }

    async fn nothing_comes(handed_over: &mut HandedOver) -> bool {
        timeout(4 * LOOK_EVERY, handed_over.recv()).await.is_err()
    }

    #[tokio::test(start_paused = true)]
    async fn a_pair_that_is_replaced_is_handed_over_once_and_half_a_pair_is_not() {
        let (folder, new) = (tempfile::tempdir().expect("a folder"), Made::new());
        let pair = Made::new().put(folder.path());
        let story = async |handed_over: &mut HandedOver| {
            assert!(nothing_comes(handed_over).await, "nothing has changed");
            fs::write(&pair.chain, new.certificate.pem()).expect("writes");
            assert!(nothing_comes(handed_over).await, "the old key is there");
            fs::remove_file(&pair.key).expect("removes");
            assert!(nothing_comes(handed_over).await, "no key is there");
            new.put(folder.path());
            assert!(new.is(&handed_over.recv().await.expect("watches")));
            fs::write(&pair.chain, new.certificate.pem()).expect("writes");
            assert!(nothing_comes(handed_over).await, "it is the same");
        };
        watched(&pair, story).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_pair_that_has_expired_is_not_handed_over_and_the_next_is() {
        let (folder, new) = (tempfile::tempdir().expect("a folder"), Made::new());
        let pair = Made::new().put(folder.path());
        let replace = |made: &Made| {
            fs::remove_file(&pair.key).expect("removes");
            made.put(folder.path());
        };
        let story = async |handed_over: &mut HandedOver| {
            replace(&Made::until(2020));
            assert!(nothing_comes(handed_over).await);
            replace(&new);
            assert!(new.is(&handed_over.recv().await.expect("watches")));
        };
        watched(&pair, story).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_folder_that_a_link_leads_to_is_replaced_in_one_step_as_mounted_secrets_are() {
        let (folder, new) = (tempfile::tempdir().expect("a folder"), Made::new());
        let at = |name: &str| folder.path().join(name);
        for (name, made) in [("old", &Made::new()), ("new", &new)] {
            fs::create_dir(at(name)).expect("creates");
            made.put(&at(name));
        }
        symlink(at("old"), at("now")).expect("links");
        let pair = PemPair {
            chain: at("now/chain.pem"),
            key: at("now/key.pem"),
        };
        let story = async |handed_over: &mut HandedOver| {
            symlink(at("new"), at("next")).expect("links");
            fs::rename(at("next"), at("now")).expect("replaces");
            assert!(new.is(&handed_over.recv().await.expect("watches")));
        };
        watched(&pair, story).await;
    }

    /// What is logged on this thread.
    #[derive(Clone, Debug, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Log {
        fn write(&mut self, text: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("not poisoned").extend(text);
            Ok(text.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Log {
        fn warnings(&self) -> Vec<String> {
            let text = self.0.lock().expect("not poisoned").clone();
            let text = String::from_utf8(text).expect("UTF-8");
            let warnings = text.lines().filter(|line| line.contains(" WARN "));
            warnings.map(str::to_owned).collect()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_of_a_pair_in_use_is_warned_of_each_day_until_another_is_there() {
        let (log, folder) = (Log::default(), tempfile::tempdir().expect("a folder"));
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone());
        let _logging = subscriber.with_ansi(false).finish().set_default();
        let days = |days: u32| days * LOOK_AT_DATES_EVERY;
        // Nine days and a half before the end of 2020, and then by tokio's clock.
        let (begin, noon) = (Instant::now(), noon_of(2021).since_epoch() - days(10));
        let clock = Clock::from_fn(move || UNIX_EPOCH + noon + begin.elapsed());
        let (near, far) = (Made::until(2021), Made::until(2022));
        let pair = far.put(folder.path());
        let replace = |made: &Made| {
            fs::remove_file(&pair.key).expect("removes");
            made.put(folder.path());
        };
        let story = async |handed_over: &mut HandedOver| {
            let mut passes = async |time: Duration| timeout(time, handed_over.recv()).await.ok();
            assert!(passes(days(2)).await.is_none());
            assert_eq!(log.warnings().len(), 0);
            replace(&near);
            assert!(passes(days(1)).await.is_some());
            assert!(passes(days(9) + days(1) / 2).await.is_none());
            let warnings = log.warnings();
            let says = (0..=7).rev().map(|days| format!("days left: {days}"));
            let says: Vec<_> = says
                .chain(["has expired", "has expired"].map(Into::into))
                .collect();
            assert_eq!(warnings.len(), says.len(), "{warnings:#?}");
            for (warning, says) in warnings.iter().zip(&says) {
                let parts = [says, "chain.pem", "2021-01-01T00:00:00Z"];
                assert!(parts.iter().all(|part| warning.contains(part)), "{warning}");
            }
            replace(&far);
            assert!(passes(days(1)).await.is_some());
            assert!(passes(days(2)).await.is_none());
            assert_eq!(log.warnings().len(), says.len());
        };
        watched_by(clock, Duration::from_secs(3600), &pair, story).await;
    }

    #[test]
    fn one_that_is_made_for_days_is_warned_of_when_a_third_of_its_life_is_left() {
        let day = |day: u64| UNIX_EPOCH + Duration::from_secs(day * 24 * 60 * 60);
        let validity = Validity {
            not_before: day(100),
            not_after: day(106),
        };
        let second = Duration::from_secs(1);
        let said = |now| near_end(Path::new("chain.pem"), validity, day(now) + second);
        assert_eq!(said(103), None);
        assert!(said(104).expect("is near").contains("days left: 1"));
        assert!(said(106).expect("is over").contains("expired"));
    }
}
