//! A progress bar per stage on stderr, silent when stderr is no terminal or `-q` was given; and where the time goes.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::trace::Trace;

/// One kind of work: what it took and what it did.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Work {
    /// What was done.
    pub name: String,
    /// Wall time.
    pub time: Duration,
    /// Bytes that went through it (decoded counts, line integrals, voxels); 0 where that says nothing.
    pub bytes: u64,
    /// Voxel updates (a voxel meets a projection); 0 for other work. The Fourier method is credited with those that
    /// back-projection would have made.
    pub updates: u64,
}

/// Adds up where the time goes. Clones add to the same sums; a few additions per slab, nothing in between.
#[derive(Clone, Default)]
pub struct Meter {
    work: Arc<Mutex<Vec<Work>>>,
}

impl Meter {
    /// Adds to the work of this name.
    pub fn add(&self, name: &str, time: Duration, bytes: u64, updates: u64) {
        let Ok(mut all) = self.work.lock() else {
            return;
        };
        let at = all.iter().position(|work| work.name == name);
        let at = at.unwrap_or_else(|| {
            all.push(Work {
                name: name.to_string(),
                ..Work::default()
            });
            all.len() - 1
        });
        all[at].time += time;
        all[at].bytes += bytes;
        all[at].updates += updates;
    }

    /// Does `job` and adds its time.
    pub fn time<T>(&self, name: &str, job: impl FnOnce() -> T) -> T {
        let started = Instant::now();
        let out = job();
        self.add(name, started.elapsed(), 0, 0);
        out
    }

    /// Everything so far, in the order in which it was first done.
    #[must_use]
    pub fn work(&self) -> Vec<Work> {
        self.work.lock().map_or_else(|_| Vec::new(), |w| w.clone())
    }

    /// Time of everything so far.
    #[must_use]
    pub fn total(&self) -> Duration {
        self.work().iter().map(|work| work.time).sum()
    }

    /// A table for people: seconds, share of `wall`, bytes and updates per second; what was not measured is the last line. Rows are
    /// read while others are reconstructed, so shares can add up to more than 1.
    #[must_use]
    pub fn table(&self, wall: Duration) -> String {
        let mut text = format!(
            "{:>10} {:>6} {:>8} {:>8}\n",
            "seconds", "share", "GB/s", "GUPS"
        );
        let all = wall.as_secs_f64().max(1e-9);
        let rate = |count: u64, time: Duration| {
            if count == 0 || time.is_zero() {
                String::new()
            } else {
                format!("{:.3}", count as f64 / time.as_secs_f64() / 1e9)
            }
        };
        let rest = Work {
            name: "all else".into(),
            time: wall.saturating_sub(self.total()),
            ..Work::default()
        };
        for work in self.work().iter().chain([&rest]) {
            let seconds = work.time.as_secs_f64();
            text += &format!(
                "{seconds:>10.2} {:>5.1}% {:>8} {:>8}  {}\n",
                100.0 * seconds / all,
                rate(work.bytes, work.time),
                rate(work.updates, work.time),
                work.name
            );
        }
        text
    }
}

/// Makes the bars of a run and remembers how long each stage took.
#[derive(Clone)]
pub struct Progress {
    bars: MultiProgress,
    times: Arc<Mutex<Vec<(String, Duration)>>>,
    meter: Meter,
    trace: Trace,
    started: Instant,
}

impl Progress {
    /// Draws on stderr; `quiet` draws nothing.
    #[must_use]
    pub fn new(quiet: bool) -> Self {
        let target = if quiet {
            ProgressDrawTarget::hidden()
        } else {
            ProgressDrawTarget::stderr()
        };
        Progress {
            bars: MultiProgress::with_draw_target(target),
            times: Arc::default(),
            meter: Meter::default(),
            trace: Trace::default(),
            started: Instant::now(),
        }
    }

    /// The same with a timeline.
    #[must_use]
    pub fn with_trace(self, trace: Trace) -> Self {
        Progress { trace, ..self }
    }

    /// The timeline; off unless it was asked for.
    #[must_use]
    pub fn trace(&self) -> &Trace {
        &self.trace
    }

    /// Where the time goes.
    #[must_use]
    pub fn meter(&self) -> &Meter {
        &self.meter
    }

    /// Time since this was made.
    #[must_use]
    pub fn wall(&self) -> Duration {
        self.started.elapsed()
    }

    /// The bars, for a logger that has to draw above them.
    #[must_use]
    pub fn bars(&self) -> MultiProgress {
        self.bars.clone()
    }

    /// Starts a stage of `total` steps (slices, rows, frames: named by `unit`).
    ///
    /// # Panics
    /// Never: the template is a constant.
    #[must_use]
    pub fn stage(&self, name: &str, total: u64, unit: &str) -> Stage {
        let style = ProgressStyle::with_template(
            "{msg:<36} [{bar:30}] {pos}/{len} {prefix} {elapsed} (left {eta})",
        )
        .expect("the template is a constant")
        .progress_chars("=> ");
        let bar = self.bars.add(ProgressBar::new(total).with_style(style));
        bar.set_message(name.to_string());
        bar.set_prefix(unit.to_string());
        bar.enable_steady_tick(Duration::from_millis(250));
        Stage {
            bar,
            name: name.to_string(),
            started: Instant::now(),
            times: self.times.clone(),
            trace: self.trace.clone(),
        }
    }

    /// Name and wall time of every finished stage, in order of finishing.
    ///
    /// # Panics
    /// If a thread panicked while it finished a stage.
    #[must_use]
    pub fn times(&self) -> Vec<(String, Duration)> {
        self.times
            .lock()
            .expect("no stage panics while it holds the lock")
            .clone()
    }
}

/// A running stage; it ends, and its time is noted, when dropped.
pub struct Stage {
    bar: ProgressBar,
    name: String,
    started: Instant,
    times: Arc<Mutex<Vec<(String, Duration)>>>,
    trace: Trace,
}

impl Stage {
    /// The timeline of the run.
    #[must_use]
    pub fn trace(&self) -> &Trace {
        &self.trace
    }

    /// Advances the bar.
    pub fn inc(&self, steps: u64) {
        self.bar.inc(steps);
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.bar.finish();
        if let Ok(mut times) = self.times.lock() {
            times.push((self.name.clone(), self.started.elapsed()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_adds_up_by_name_and_the_rest_is_shown() {
        let meter = Meter::default();
        let second = Duration::from_secs(1);
        meter.add("read", second, 3_000_000_000, 0);
        meter
            .clone()
            .add("back-project", 2 * second, 0, 14_000_000_000);
        meter.add("read", second, 1_000_000_000, 0);
        assert_eq!(meter.time("write", || 7), 7);
        let table = meter.table(8 * second);
        let lines: Vec<Vec<&str>> = table
            .lines()
            .map(|l| l.split_whitespace().collect())
            .collect();
        assert_eq!(lines[1], ["2.00", "25.0%", "2.000", "read"]);
        assert_eq!(lines[2], ["2.00", "25.0%", "7.000", "back-project"]);
        assert_eq!(lines[4][..2], ["4.00", "50.0%"], "{table}");
        assert_eq!(meter.work()[0].bytes, 4_000_000_000);
    }
}
