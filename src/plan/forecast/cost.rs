//! Time by the clock, and of the processor.

use std::io::{Seek, Write};
use std::iter::Sum;
use std::ops::{Add, AddAssign, Mul, Sub};
use std::time::Instant;

use rayon::prelude::*;
use serde::Serialize;

use crate::error::Result;

/// A trial goes on for this long \[s\], so that the steps of the system's clock do not matter ...
const LEAST: f64 = 0.08;
/// ... and is not tried cold and warm where it takes so long by itself \[s\].
const LONG: f64 = 1.5;

/// What some work takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Cost {
    /// By the clock, with all threads of the program at work \[s\].
    pub wall: f64,
    /// Of all threads together, which a busy machine does not change much \[s\]; NaN where the system does not tell.
    pub cpu: f64,
}

impl Cost {
    /// Nothing.
    pub const NONE: Cost = Cost {
        wall: 0.0,
        cpu: 0.0,
    };

    /// Of work that takes `cpu` seconds in all and keeps every thread busy.
    #[must_use]
    pub fn shared(cpu: f64) -> Cost {
        Cost {
            wall: cpu / rayon::current_num_threads() as f64,
            cpu,
        }
    }

    /// Nothing in place of less than nothing.
    #[must_use]
    pub fn at_least_none(self) -> Cost {
        // `max` would take a NaN for nothing
        let clamp = |value: f64| if value < 0.0 { 0.0 } else { value };
        Cost {
            wall: clamp(self.wall),
            cpu: clamp(self.cpu),
        }
    }
}

impl Add for Cost {
    type Output = Cost;
    fn add(self, other: Cost) -> Cost {
        Cost {
            wall: self.wall + other.wall,
            cpu: self.cpu + other.cpu,
        }
    }
}

impl AddAssign for Cost {
    fn add_assign(&mut self, other: Cost) {
        *self = *self + other;
    }
}

impl Sub for Cost {
    type Output = Cost;
    fn sub(self, other: Cost) -> Cost {
        self + other * -1.0
    }
}

impl Mul<f64> for Cost {
    type Output = Cost;
    fn mul(self, times: f64) -> Cost {
        Cost {
            wall: self.wall * times,
            cpu: self.cpu * times,
        }
    }
}

impl Sum for Cost {
    fn sum<I: Iterator<Item = Cost>>(all: I) -> Cost {
        all.fold(Cost::NONE, Add::add)
    }
}

/// `at_least + each * n`.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Line {
    pub(super) at_least: Cost,
    pub(super) each: Cost,
}

impl Line {
    /// Through two trials, of so many items each; neither part is below nothing.
    pub(super) fn through([(few, of_few), (many, of_many)]: [(f64, Cost); 2]) -> Line {
        if many <= few {
            return Line {
                at_least: Cost::NONE,
                each: of_many * (1.0 / many.max(1.0)),
            };
        }
        let each = ((of_many - of_few) * (1.0 / (many - few))).at_least_none();
        Line {
            at_least: (of_few - each * few).at_least_none(),
            each,
        }
    }

    pub(super) fn at(&self, n: f64) -> Cost {
        self.at_least + self.each * n
    }
}

/// CPU time of all living threads \[s\]; NaN where the system does not tell.
fn cpu_seconds() -> f64 {
    let of_thread = |task: std::io::Result<std::fs::DirEntry>| {
        let text = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<f64>().ok()
    };
    std::fs::read_dir("/proc/self/task").map_or(f64::NAN, |tasks| {
        // a thread that ends meanwhile is not at work
        let all: Vec<f64> = tasks.filter_map(of_thread).collect();
        if all.is_empty() {
            f64::NAN
        } else {
            all.iter().sum::<f64>() * 1e-9
        }
    })
}

/// What `work` takes, and its result.
pub(super) fn spent<T>(work: impl FnOnce() -> T) -> (Cost, T) {
    let (began, cpu) = (Instant::now(), cpu_seconds());
    let out = work();
    let cost = Cost {
        wall: began.elapsed().as_secs_f64(),
        cpu: cpu_seconds() - cpu,
    };
    (cost.at_least_none(), out)
}

/// What `work` takes when it is done again and again, as a run does it: with memory and caches that are in use.
pub(crate) fn repeated(mut work: impl FnMut() -> Result<()>) -> Result<Cost> {
    let (first, done) = spent(&mut work);
    done?;
    if first.wall > LONG {
        return Ok(first);
    }
    let mut times = 0;
    let (all, done) = spent(|| {
        let began = Instant::now();
        loop {
            work()?;
            times += 1;
            if began.elapsed().as_secs_f64() > LEAST {
                return Ok(());
            }
        }
    });
    done.map(|()| all * (1.0 / f64::from(times)))
}

/// Bytes between places that lie on pages of their own.
const PAGE: usize = 4096;
/// Bytes of a file that are written at a time: a shard of a volume.
const WRITTEN: usize = 16 << 20;

/// What it takes to get `bytes` from the system for the first time, per byte: more than the allocator keeps, or it would not ask for them.
pub(super) fn fresh_memory(bytes: usize) -> Cost {
    let (cost, held) = spent(|| {
        let mut held = vec![0u8; bytes];
        held.par_chunks_mut(PAGE).for_each(|page| page[0] = 1);
        held
    });
    drop(std::hint::black_box(held));
    cost * (1.0 / bytes.max(1) as f64)
}

/// What it takes the system's cache to hold a file of `bytes` for the first time, per byte, beyond what a file takes that it holds already. One thread
/// writes a volume, and the pages are not those that programs get: where the host of a virtual machine takes free memory back, they are far dearer.
pub(super) fn fresh_cache(bytes: usize) -> std::io::Result<Cost> {
    let part = vec![1u8; bytes.min(WRITTEN)];
    let mut file = tempfile::tempfile()?;
    let mut write = || {
        file.rewind()?;
        (0..bytes / part.len().max(1)).try_for_each(|_| file.write_all(&part))
    };
    let ((fresh, first), (used, second)) = (spent(&mut write), spent(&mut write));
    first.and(second)?;
    Ok((fresh - used).at_least_none() * (1.0 / bytes.max(1) as f64))
}

/// What `work` takes per item, `n` at a time on all threads.
pub(crate) fn per_item(n: usize, work: impl Fn() + Sync) -> Cost {
    let all = repeated(|| {
        (0..n).into_par_iter().for_each(|_| work());
        Ok(())
    });
    all.map_or(Cost::NONE, |all| all * (1.0 / n as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_goes_through_its_trials_and_never_below_nothing() {
        let of = |wall: f64| Cost {
            wall,
            cpu: 2.0 * wall,
        };
        let line = Line::through([(10.0, of(3.0)), (30.0, of(5.0))]);
        assert!((line.at(100.0).wall - 12.0).abs() < 1e-12);
        assert!((line.at(100.0).cpu - 24.0).abs() < 1e-12);
        let falling = Line::through([(10.0, of(5.0)), (30.0, of(3.0))]);
        assert_eq!(falling.each, Cost::NONE);
        let steep = Line::through([(10.0, of(1.0)), (20.0, of(4.0))]);
        assert_eq!(steep.at_least, Cost::NONE);
        assert_eq!(
            Line::through([(0.0, of(1.0)), (0.0, of(1.0))]).at(2.0),
            of(2.0)
        );
    }

    #[test]
    fn work_is_measured_by_both_clocks() {
        let spin = |seconds: f64| {
            let began = Instant::now();
            let mut sum = 0u64;
            while began.elapsed().as_secs_f64() < seconds {
                sum = std::hint::black_box(sum + 1);
            }
        };
        let (cost, ()) = spent(|| spin(0.1));
        assert!(cost.wall >= 0.1);
        // other threads of the process count too
        assert!(cost.cpu.is_nan() || cost.cpu >= 0.0, "{cost:?}");
        let (rest, ()) = spent(|| std::thread::sleep(std::time::Duration::from_millis(100)));
        assert!(rest.wall >= 0.1);
    }
}
