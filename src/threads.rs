//! How many threads may be at work.

/// Cores that this process may use.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Whether the current pool leaves cores to others (`run.threads`): then no threads beside it are to be at work.
pub(crate) fn are_fewer_than_cores() -> bool {
    rayon::current_num_threads() < cores()
}
