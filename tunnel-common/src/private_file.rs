//! Files that decide who somebody is or whom he trusts: others may not change them, nor read the
//! secret ones.
//!
//! Every file here is whole or not there: a new content is written beside the old one, synced, and
//! takes its name in one step. Reading follows links, because that is how secrets are mounted.

use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io::ErrorKind::{NotFound, PermissionDenied, Unsupported};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown,
};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FlockOperation, OFlags, RenameFlags, flock};
use rustix::io::Errno;
use rustix::process::geteuid;

/// The permission to write for anybody but the owner.
const OTHERS_WRITE: u32 = 0o022;
/// Any permission for anybody but the owner.
const OTHERS_ANY: u32 = 0o077;
/// A new file is its owner's alone.
const OWNER_ONLY: u32 = 0o600;
/// Root's number.
const ROOT: u32 = 0;
/// What a user namespace shows for owners that it does not know (user_namespaces(7)).
const OVERFLOW: u32 = 65534;
/// How long to wait for others who change the same file: they need milliseconds.
const LOCK_WAIT: Duration = Duration::from_secs(2);
/// The pause between two attempts to have the lock.
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// What others may not do with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    /// They may not change it: it says who is trusted.
    Trusted,
    /// They may not change it, nor read it if it is ours: it holds a key.
    Secret,
}

/// Reads a text file of at most `max_bytes`.
///
/// A file that others may write, or a [`Guard::Secret`] one that is ours and that others may read,
/// is an error that says how to mend it; so is a link to a file that is not there. A file must belong
/// to us or to root; a [`Guard::Secret`] one may belong to somebody whom our user namespace does not
/// know. Only a file that is not there at all gives [`NotFound`].
///
/// It blocks the thread for as long as the disk takes; on what is no file it does not wait.
pub fn read(path: &Path, guard: Guard, max_bytes: u64) -> io::Result<String> {
    let whole = |file: &Metadata| {
        check(file, guard)?;
        check_owner(file.uid(), guard)
    };
    read_checked(path, max_bytes, whole)
}

fn read_checked(
    path: &Path,
    max_bytes: u64,
    check: impl FnOnce(&Metadata) -> io::Result<()>,
) -> io::Result<String> {
    // A pipe that nobody writes to would be waited for.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
        .open(path)
        .map_err(|error| tell_dangling(path, error))?;
    check(&file.metadata()?)?;
    let mut text = String::new();
    file.take(max_bytes.saturating_add(1))
        .read_to_string(&mut text)?;
    if text.len() as u64 > max_bytes {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("it has more than {max_bytes} bytes"),
        ));
    }
    Ok(text)
}

fn check(file: &Metadata, guard: Guard) -> io::Result<()> {
    let refuse = |who_may: &str, mend: &str| {
        let text = format!("others may {who_may} it; mend that with chmod {mend}");
        Err(io::Error::new(PermissionDenied, text))
    };
    if !file.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    let mode = file.mode();
    if mode & OTHERS_WRITE != 0 {
        return refuse("write to", "go-w");
    }
    let ours = file.uid() == geteuid().as_raw();
    if guard == Guard::Secret && ours && mode & OTHERS_ANY != 0 {
        return refuse("read", "600");
    }
    Ok(())
}

fn check_owner(owner: u32, guard: Guard) -> io::Result<()> {
    let us = geteuid().as_raw();
    let unknown = guard == Guard::Secret && owner == OVERFLOW;
    if owner == us || owner == ROOT || unknown {
        return Ok(());
    }
    let text = format!("it belongs to uid {owner}, and must belong to us (uid {us}) or to root");
    Err(io::Error::new(PermissionDenied, text))
}

/// A link to a file that is not there, a secret that is not mounted yet, is not "no file".
fn tell_dangling(path: &Path, error: io::Error) -> io::Error {
    if error.kind() == NotFound && fs::symlink_metadata(path).is_ok() {
        return io::Error::other("it is a link to a file that is not there");
    }
    error
}

/// Makes a file that only its owner may read or write, and its folder if that is missing. A file
/// that is there already is an error, never overwritten.
pub fn create(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = make_folder_of(path)?;
    beside(path, |temporary| {
        fill(temporary, bytes, None)?;
        place_new(temporary, path)
    })?;
    sync(folder);
    Ok(())
}

/// Changes a text file of at most `max_bytes`: `change` gets the old text, or nothing if there is no
/// file, and gives the new one, or nothing to leave all as it is.
///
/// Processes that change a file take turns, by a lock on the file `<path>.lock`, which stays: who has
/// not got it after 2 s fails. Owner and mode stay, and where they can not nothing is changed; a new
/// file gets the owner of its folder, so that what root edits can still be read by the service whose
/// folder it is. Whose the file is does not matter, but a file that others may write is an error.
///
/// It blocks the thread.
pub fn update<E: From<io::Error>>(
    path: &Path,
    max_bytes: u64,
    change: impl FnOnce(Option<&str>) -> Result<Option<String>, E>,
) -> Result<(), E> {
    // What a link leads to is changed, not the link.
    let path = &fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let folder = make_folder_of(path)?;
    let _lock = lock(path, folder)?;
    let old = match read_checked(path, max_bytes, |file| check(file, Guard::Trusted)) {
        Ok(text) => Some(text),
        Err(error) if error.kind() == NotFound => None,
        Err(error) => return Err(error.into()),
    };
    let Some(new) = change(old.as_deref())? else {
        return Ok(());
    };
    let like = fs::metadata(path).or_else(|_| fs::metadata(folder))?;
    beside(path, |temporary| {
        fill(temporary, new.as_bytes(), Some(&like))?;
        fs::rename(temporary, path)
    })?;
    sync(folder);
    Ok(())
}

/// The lock of the file at `path`, held until the value is dropped.
fn lock(path: &Path, folder: &Path) -> io::Result<File> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(OWNER_ONLY)
        .custom_flags((OFlags::NONBLOCK | OFlags::NOFOLLOW).bits().cast_signed())
        .open(&name)?;
    let (found, folder) = (file.metadata()?, fs::metadata(folder)?);
    if !found.is_file() || found.nlink() != 1 {
        let name = Path::new(&name).display();
        return Err(io::Error::other(format!(
            "{name} is no lock of ours; remove it"
        )));
    }
    if found.uid() != folder.uid() {
        // Only root can, and only root needs to: the service whose folder it is takes it next.
        let _ = fchown(&file, Some(folder.uid()), Some(folder.gid()));
    }
    let deadline = Instant::now() + LOCK_WAIT;
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) if Instant::now() < deadline => thread::sleep(LOCK_PAUSE),
            Err(Errno::WOULDBLOCK) => {
                let name = Path::new(&name).display();
                let text = format!("another process holds {name}");
                return Err(io::Error::new(io::ErrorKind::TimedOut, text));
            }
            // File systems without locks have no other way either: then the last one wins.
            _ => return Ok(file),
        }
    }
}

fn make_folder_of(path: &Path) -> io::Result<&Path> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or_else(|| Path::new("."));
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)?;
    Ok(folder)
}

/// Runs `write` with the name of a temporary file beside `path`, which is gone afterwards.
fn beside(path: &Path, write: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    // Random: in containers every process has the same number.
    temporary.push(format!(".{:016x}.tmp", fastrand::u64(..)));
    let temporary = PathBuf::from(temporary);
    let written = write(&temporary);
    // An error of the above is the one to tell; what is left behind has no name that is ever read.
    let _ = fs::remove_file(&temporary);
    written
}

fn fill(path: &Path, bytes: &[u8], like: Option<&Metadata>) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(OWNER_ONLY)
        .open(path)?;
    let mut mode = OWNER_ONLY;
    if let Some(like) = like {
        keep_owner(&file, like)?;
        if like.is_file() {
            mode = like.mode() & 0o777;
        }
    }
    // Whatever the umask took away.
    file.set_permissions(Permissions::from_mode(mode))?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Gives `file` the owner and the group of `like`. It must succeed if `like` is what is replaced; that
/// a new file has the owner of its folder is a favour of root's.
fn keep_owner(file: &File, like: &Metadata) -> io::Result<()> {
    let given = fchown(file, Some(like.uid()), Some(like.gid()));
    let now = file.metadata()?;
    if !like.is_file() || (now.uid(), now.gid()) == (like.uid(), like.gid()) {
        return Ok(());
    }
    given.map_err(|error| {
        let (uid, gid) = (like.uid(), like.gid());
        let text = format!("its owner (uid {uid}, gid {gid}) can not be kept: {error}");
        io::Error::new(error.kind(), text)
    })
}

/// Gives a file its name, unless somebody has it.
fn place_new(temporary: &Path, path: &Path) -> io::Result<()> {
    match fs::hard_link(temporary, path) {
        Err(error) if matches!(error.kind(), Unsupported | PermissionDenied) => {
            // No links on this file system, as on FAT and some mounts.
            rustix::fs::renameat_with(CWD, temporary, CWD, path, RenameFlags::NOREPLACE)?;
            Ok(())
        }
        linked => linked,
    }
}

/// The file is in its place; some folders can not be opened or synced, and need not be.
fn sync(folder: &Path) {
    let _ = File::open(folder).and_then(|folder| folder.sync_all());
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    const MAX: u64 = 100;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("is there").mode() & 0o777
    }

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).expect("is ours");
    }

    fn append(path: &Path, line: &str) {
        update(path, MAX, |old| {
            Ok::<_, io::Error>(Some(format!("{}{line}\n", old.unwrap_or_default())))
        })
        .expect("updates");
    }

    #[test]
    fn a_new_file_is_its_owners_alone_and_is_never_overwritten() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("sub/secret");
        create(&path, b"first").expect("creates");
        assert_eq!(
            (mode(&path), mode(&folder.path().join("sub"))),
            (0o600, 0o700)
        );
        let again = create(&path, b"second").expect_err("is there");
        assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(read(&path, Guard::Secret, MAX).expect("reads"), "first");
        let files = fs::read_dir(folder.path().join("sub")).expect("lists");
        assert_eq!(files.count(), 1, "nothing is left behind");
    }

    #[test]
    fn what_others_may_write_is_refused_and_so_is_a_secret_that_they_may_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("file");
        create(&path, b"text").expect("creates");
        for (bits, secret, trusted) in [
            (0o600, true, true),
            (0o400, true, true),
            (0o640, false, true),
            (0o604, false, true),
            (0o644, false, true),
            (0o620, false, false),
            (0o602, false, false),
            (0o666, false, false),
        ] {
            set_mode(&path, bits);
            let reads = |guard| read(&path, guard, MAX).is_ok();
            assert_eq!(reads(Guard::Secret), secret, "{bits:o}");
            assert_eq!(reads(Guard::Trusted), trusted, "{bits:o}");
        }
        let error = read(&path, Guard::Secret, MAX).expect_err("is refused");
        assert!(error.to_string().contains("chmod"), "{error}");
    }

    #[test]
    fn a_secret_of_another_owner_may_be_readable_as_mounted_ones_are() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, link) = (folder.path().join("file"), folder.path().join("link"));
        create(&path, b"text").expect("creates");
        set_mode(&path, 0o644);
        symlink(&path, &link).expect("links");
        if std::os::unix::fs::chown(&path, Some(65534), None).is_err() {
            eprintln!("SKIPPED: only root can give a file away");
            return;
        }
        assert_eq!(read(&link, Guard::Secret, MAX).expect("reads"), "text");
    }

    #[test]
    fn a_dangling_link_is_not_a_missing_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, link) = (folder.path().join("file"), folder.path().join("link"));
        let missing = read(&path, Guard::Secret, MAX).expect_err("is missing");
        assert_eq!(missing.kind(), NotFound);
        symlink(&path, &link).expect("links");
        let dangling = read(&link, Guard::Secret, MAX).expect_err("dangles");
        assert_ne!(dangling.kind(), NotFound);
        let folder = read(folder.path(), Guard::Trusted, MAX).expect_err("is a folder");
        assert!(folder.to_string().contains("no file"), "{folder}");
    }

    #[test]
    fn a_file_over_the_limit_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("file");
        create(&path, &[b'x'; 101]).expect("creates");
        assert!(read(&path, Guard::Trusted, MAX).is_err());
        assert!(read(&path, Guard::Trusted, MAX + 1).is_ok());
    }

    #[test]
    fn an_update_keeps_mode_and_link_and_changes_nothing_when_told_so() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, link) = (folder.path().join("file"), folder.path().join("link"));
        append(&path, "one");
        assert_eq!(mode(&path), 0o600);
        set_mode(&path, 0o644);
        symlink(&path, &link).expect("links");
        append(&link, "two");
        assert_eq!(fs::read_to_string(&path).expect("reads"), "one\ntwo\n");
        assert_eq!(mode(&path), 0o644);
        assert!(fs::symlink_metadata(&link).expect("is there").is_symlink());
        let before = fs::metadata(&path).expect("is there").ino();
        update(&path, MAX, |_| Ok::<_, io::Error>(None)).expect("does nothing");
        assert_eq!(fs::metadata(&path).expect("is there").ino(), before);
    }

    #[test]
    fn updates_at_the_same_time_are_all_there_afterwards() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("file");
        thread::scope(|scope| {
            for _ in 0..10 {
                scope.spawn(|| append(&path, "line"));
            }
        });
        assert_eq!(
            fs::read_to_string(&path).expect("reads"),
            "line\n".repeat(10)
        );
    }

    #[test]
    fn a_file_of_another_user_is_refused_by_his_number_but_may_be_edited_by_root() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("file");
        append(&path, "one");
        for (owner, secret, trusted) in [(ROOT, true, true), (OVERFLOW, true, false)] {
            assert_eq!(check_owner(owner, Guard::Secret).is_ok(), secret);
            assert_eq!(check_owner(owner, Guard::Trusted).is_ok(), trusted);
        }
        if std::os::unix::fs::chown(&path, Some(12345), Some(12346)).is_err() {
            eprintln!("SKIPPED: only root can give a file away");
            return;
        }
        for guard in [Guard::Secret, Guard::Trusted] {
            let error = read(&path, guard, MAX)
                .expect_err("is another's")
                .to_string();
            assert!(error.contains("uid 12345"), "{error}");
        }
        append(&path, "two");
        let file = fs::metadata(&path).expect("is there");
        assert_eq!((file.uid(), file.gid()), (12345, 12346));
        assert_eq!(fs::read_to_string(&path).expect("reads"), "one\ntwo\n");
    }

    #[test]
    fn a_lock_that_another_holds_is_waited_for_for_a_while_only() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("file");
        let whole = File::open(folder.path()).expect("opens");
        flock(&whole, FlockOperation::LockExclusive).expect("anybody may lock the folder");
        append(&path, "one");
        let held = lock(&path, folder.path()).expect("nobody has it");
        assert_eq!(mode(&folder.path().join("file.lock")), 0o600);
        let began = Instant::now();
        let change = |_: Option<&str>| Ok::<_, io::Error>(Some(String::new()));
        let error = update(&path, MAX, change).expect_err("is held").to_string();
        assert!(error.contains("another process holds"), "{error}");
        assert!(began.elapsed() >= LOCK_WAIT);
        drop(held);
        append(&path, "two");
    }

    #[test]
    fn a_pipe_is_no_file_and_is_not_waited_for() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&path).status();
        assert!(made.expect("mkfifo is there").success());
        let error = read(&path, Guard::Trusted, MAX).expect_err("is a pipe");
        assert!(error.to_string().contains("no file"), "{error}");
    }
}
