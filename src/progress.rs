//! A progress bar per stage on stderr, silent when stderr is no terminal or `-q` was given.

use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Makes the bars of a run and remembers how long each stage took.
#[derive(Clone)]
pub struct Progress {
    bars: MultiProgress,
    times: std::sync::Arc<std::sync::Mutex<Vec<(String, Duration)>>>,
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
            times: std::sync::Arc::default(),
        }
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
    times: std::sync::Arc<std::sync::Mutex<Vec<(String, Duration)>>>,
}

impl Stage {
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
