//! Reads and writes that do not come back.
//!
//! A network share that hangs gives no error: the thread waits in the system, and the run stands still without a word. So
//! each read of a chunk or a frame, and each write of a part of a volume, is noted while it lasts, and a thread that does
//! nothing else says which file has been silent for how long. Nothing is given up: shares come back, and a signal ends the
//! run all the same (see [`crate::stop`]).

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, Once};
use std::time::{Duration, Instant};

/// Time after which a file is said to be silent; `None`: nobody listens, and nothing is noted.
static LISTENER: Mutex<Option<Duration>> = Mutex::new(None);
static WAITING: Mutex<Vec<Waiting>> = Mutex::new(Vec::new());

/// One read or write under way.
struct Waiting {
    /// Tells it apart from others of the same file.
    id: u64,
    path: PathBuf,
    since: Instant,
    /// Silence at which it is named next.
    next: Duration,
    named: bool,
}

/// Names files that give and take nothing for `after`, on the log; zero: none are.
///
/// The first call with a time starts the thread that listens.
pub fn warn_after(after: Duration) {
    static THREAD: Once = Once::new();
    *lock(&LISTENER) = (!after.is_zero()).then_some(after);
    if after.is_zero() {
        return;
    }
    THREAD.call_once(|| {
        let listener = || {
            loop {
                std::thread::sleep(Duration::from_secs(1));
                for line in overdue(&mut lock(&WAITING), Instant::now()) {
                    log::warn!("{line}");
                }
            }
        };
        // without this thread a run works as well, in silence
        let _ = std::thread::Builder::new()
            .name("stalls".into())
            .spawn(listener);
    });
}

/// Does `work`, which reads or writes `path`, under the eyes of the listener.
pub(crate) fn watched<T>(path: &Path, work: impl FnOnce() -> T) -> T {
    let Some(after) = *lock(&LISTENER) else {
        return work();
    };
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let id = NUMBER.fetch_add(1, Ordering::Relaxed);
    lock(&WAITING).push(Waiting {
        id,
        path: path.to_path_buf(),
        since: Instant::now(),
        next: after,
        named: false,
    });
    let _done = Done(id);
    work()
}

/// Takes a read or write off the list, also where it panics.
struct Done(u64);

impl Drop for Done {
    fn drop(&mut self) {
        let mut waiting = lock(&WAITING);
        if let Some(at) = waiting.iter().position(|waiting| waiting.id == self.0) {
            let done = waiting.swap_remove(at);
            drop(waiting);
            if done.named {
                let seconds = done.since.elapsed().as_secs();
                log::warn!("{} answers again after {seconds} s", done.path.display());
            }
        }
    }
}

/// A line for every file that is silent for longer than it was when it was last named, which doubles each time.
fn overdue(waiting: &mut [Waiting], now: Instant) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for one in waiting {
        let silent = now.saturating_duration_since(one.since);
        if silent < one.next {
            continue;
        }
        one.next = 2 * silent;
        one.named = true;
        let line = format!(
            "nothing from {} for {} s: is its disk or network share still there? The run waits; Ctrl-C stops it, and --resume goes on",
            one.path.display(),
            silent.as_secs()
        );
        // many threads may wait for one file
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    lines
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    // what a panic could leave behind is a stale entry at worst
    of.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_named_once_for_a_file_and_again_after_twice_the_time() {
        let start = Instant::now();
        let waiting = |id: u64, path: &str| Waiting {
            id,
            path: path.into(),
            since: start,
            next: Duration::from_secs(30),
            named: false,
        };
        let mut all = [
            waiting(1, "a.nxs"),
            waiting(2, "a.nxs"),
            waiting(3, "b.nxs"),
        ];
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        assert!(overdue(&mut all, at(29)).is_empty());
        let lines = overdue(&mut all, at(31));
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(
            lines[0].starts_with("nothing from a.nxs for 31 s"),
            "{lines:?}"
        );
        assert!(overdue(&mut all, at(61)).is_empty());
        assert_eq!(overdue(&mut all, at(62)).len(), 2);
        assert!(all.iter().all(|one| one.named));
    }
}
