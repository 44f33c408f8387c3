//! Threads for reads that wait for the disk and compute nothing.
//!
//! A disk or a network share answers many small requests at once in little more than the time of one, so a row of each of
//! thousands of frames is asked for by more threads than there are cores. What is decoded stays with the threads of the
//! caller, and so does everything where `run.threads` leaves cores to others.

use std::sync::OnceLock;

use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::threads;

/// Requests at a time; twice as many make single rows little faster (`benches/RESULTS.md`).
const AT_ONCE: usize = 16;
/// Larger requests keep a disk busy by themselves, and sixteen of them take memory \[bytes\].
pub(crate) const SMALL_BYTES: usize = 256 << 10;

/// Does `work`, whose parallel parts each read `bytes` bytes as they are stored, on as many threads as the disk can use.
pub(crate) fn at_once<R: Send>(bytes: usize, work: impl FnOnce() -> R + Send) -> R {
    static THREADS: OnceLock<Option<ThreadPool>> = OnceLock::new();
    if bytes > SMALL_BYTES || threads::are_fewer_than_cores() {
        return work();
    }
    let pool = THREADS.get_or_init(|| {
        ThreadPoolBuilder::new()
            .num_threads(AT_ONCE.max(threads::cores()))
            .thread_name(|number| format!("reads {number}"))
            .build()
            .inspect_err(|error| log::debug!("no threads that wait for the disk: {error}"))
            .ok()
    });
    match pool {
        Some(pool) => pool.install(work),
        None => work(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use rayon::prelude::*;

    use super::*;

    #[test]
    fn small_reads_wait_side_by_side_unless_cores_are_left_to_others() {
        let side_by_side = |threads: usize, bytes: usize| {
            let callers = ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            let (now, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
            let wait = |_| {
                most.fetch_max(1 + now.fetch_add(1, Ordering::SeqCst), Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(5));
                now.fetch_sub(1, Ordering::SeqCst);
            };
            callers.install(|| at_once(bytes, || (0..64).into_par_iter().for_each(wait)));
            most.into_inner()
        };
        let cores = threads::cores();
        assert!(side_by_side(cores, SMALL_BYTES) > cores.min(AT_ONCE - 1));
        assert!(side_by_side(cores, SMALL_BYTES + 1) <= cores);
        if cores > 1 {
            assert_eq!(side_by_side(1, SMALL_BYTES), 1);
        }
    }
}
