//! What ran when: the timeline behind `-v` and `--trace`.
//!
//! Spans are kept only where they are wanted; a trace that is off costs a branch. The lane of the GPU is drawn by the host:
//! a batch begins when it was handed over or when the one before it ended, and ends when the host was told so, which
//! can be a little late.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::error::{Error, Result};

/// Who was at work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// The host reads and corrects.
    Read,
    /// The host fills a staging buffer.
    Upload,
    /// The GPU, and which one of several.
    Gpu(usize),
    /// The host takes slices out.
    Download,
    /// The host writes the volume.
    Write,
}

impl Lane {
    fn name(self) -> String {
        match self {
            Lane::Read => "read".into(),
            Lane::Upload => "upload".into(),
            Lane::Gpu(number) => format!("gpu {number}"),
            Lane::Download => "download".into(),
            Lane::Write => "write".into(),
        }
    }

    fn number(self) -> usize {
        match self {
            Lane::Read => 0,
            Lane::Upload => 1,
            Lane::Download => 2,
            Lane::Write => 3,
            Lane::Gpu(number) => 4 + number,
        }
    }
}

/// Something that took from `begin` to `end`, since the trace began.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    /// Who.
    pub lane: Lane,
    /// What.
    pub name: String,
    /// When it began.
    pub begin: Duration,
    /// When it ended.
    pub end: Duration,
}

/// Keeps spans, or nothing where it is off; clones share them.
#[derive(Debug, Clone, Default)]
pub struct Trace(Option<Arc<Inner>>);

#[derive(Debug)]
struct Inner {
    began: Instant,
    file: Option<PathBuf>,
    spans: Mutex<Vec<Span>>,
}

impl Inner {
    fn spans(&self) -> MutexGuard<'_, Vec<Span>> {
        self.spans.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Trace {
    /// Begins now; [`Trace::write`] will write into `file`.
    #[must_use]
    pub fn on(file: Option<PathBuf>) -> Trace {
        Trace(Some(Arc::new(Inner {
            began: Instant::now(),
            file,
            spans: Mutex::default(),
        })))
    }

    /// Whether spans are kept.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// A span that ends when the guard is dropped.
    #[must_use]
    pub fn span(&self, lane: Lane, name: &str) -> Guard {
        Guard(
            self.0
                .as_ref()
                .map(|inner| (Arc::clone(inner), lane, name.to_string(), Instant::now())),
        )
    }

    /// A batch that was handed over at `begin` and has just ended; those of a lane run one after another.
    pub fn ended(&self, lane: Lane, name: &str, begin: Instant) {
        let Some(inner) = &self.0 else { return };
        let end = inner.began.elapsed();
        let mut spans = inner.spans();
        let before = spans.iter().rev().find(|span| span.lane == lane);
        let begin = begin
            .saturating_duration_since(inner.began)
            .max(before.map_or(Duration::ZERO, |span| span.end));
        spans.push(Span {
            lane,
            name: name.to_string(),
            begin: begin.min(end),
            end,
        });
    }

    /// Everything kept so far.
    #[must_use]
    pub fn spans(&self) -> Vec<Span> {
        self.0
            .as_ref()
            .map_or_else(Vec::new, |inner| inner.spans().clone())
    }

    /// The spans as Chrome's trace format, which its viewer and Perfetto read.
    #[must_use]
    pub fn chrome(&self) -> Value {
        let spans = self.spans();
        let mut lanes: Vec<Lane> = Vec::new();
        for span in &spans {
            if !lanes.contains(&span.lane) {
                lanes.push(span.lane);
            }
        }
        let names = lanes.iter().map(|lane| {
            json!({ "name": "thread_name", "ph": "M", "pid": 1, "tid": lane.number(), "args": { "name": lane.name() } })
        });
        let events = spans.iter().map(|span| {
            json!({
                "name": span.name,
                "ph": "X",
                "pid": 1,
                "tid": span.lane.number(),
                "ts": span.begin.as_secs_f64() * 1e6,
                "dur": (span.end - span.begin).as_secs_f64() * 1e6,
            })
        });
        json!({ "displayTimeUnit": "ms", "traceEvents": names.chain(events).collect::<Vec<_>>() })
    }

    /// How long each lane was at work, and for how much of that a GPU was at work as well; one line each.
    #[must_use]
    pub fn summary(&self) -> String {
        let spans = self.spans();
        let of = |wanted: &dyn Fn(Lane) -> bool| {
            let all = spans.iter().filter(|span| wanted(span.lane));
            joined(all.map(|span| (span.begin, span.end)).collect())
        };
        let on_gpu = of(&|lane| matches!(lane, Lane::Gpu(_)));
        let mut text = String::new();
        let mut seen: Vec<Lane> = Vec::new();
        for span in &spans {
            if seen.contains(&span.lane) {
                continue;
            }
            seen.push(span.lane);
            let busy = of(&|lane| lane == span.lane);
            // writing into a string cannot fail
            let _ = write!(text, "{:>9.2} s  {}", length(&busy), span.lane.name());
            let _ = match span.lane {
                Lane::Gpu(_) => writeln!(text),
                _ if on_gpu.is_empty() => writeln!(text),
                _ => writeln!(
                    text,
                    ", {:.0} % of it while a GPU was at work",
                    100.0 * length(&shared(&busy, &on_gpu)) / length(&busy).max(1e-9)
                ),
            };
        }
        text
    }

    /// Writes the file that was asked for.
    ///
    /// # Errors
    /// [`Error::Io`]
    pub fn write(&self) -> Result<()> {
        let Some(path) = self.0.as_ref().and_then(|inner| inner.file.as_deref()) else {
            return Ok(());
        };
        self.write_to(path)
    }

    fn write_to(&self, path: &Path) -> Result<()> {
        std::fs::write(path, self.chrome().to_string()).map_err(Error::io("write", path))
    }
}

type Interval = (Duration, Duration);

/// Intervals without overlap, in order.
fn joined(mut intervals: Vec<Interval>) -> Vec<Interval> {
    intervals.sort();
    let mut all: Vec<Interval> = Vec::new();
    for (begin, end) in intervals {
        match all.last_mut() {
            Some(last) if begin <= last.1 => last.1 = last.1.max(end),
            _ => all.push((begin, end)),
        }
    }
    all
}

/// What two lists without overlap have in common.
fn shared(a: &[Interval], b: &[Interval]) -> Vec<Interval> {
    let (mut i, mut j, mut all) = (0, 0, Vec::new());
    while i < a.len() && j < b.len() {
        let (begin, end) = (a[i].0.max(b[j].0), a[i].1.min(b[j].1));
        if begin < end {
            all.push((begin, end));
        }
        if a[i].1 < b[j].1 {
            i += 1;
        } else {
            j += 1;
        }
    }
    all
}

fn length(intervals: &[Interval]) -> f64 {
    intervals
        .iter()
        .map(|(begin, end)| (*end - *begin).as_secs_f64())
        // the sum of nothing would be -0
        .fold(0.0, |all, one| all + one)
}

/// Ends its span when dropped.
pub struct Guard(Option<(Arc<Inner>, Lane, String, Instant)>);

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some((inner, lane, name, begin)) = self.0.take() {
            let span = Span {
                lane,
                name,
                begin: begin.saturating_duration_since(inner.began),
                end: inner.began.elapsed(),
            };
            inner.spans().push(span);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(begin: u64, end: u64) -> Interval {
        (Duration::from_millis(begin), Duration::from_millis(end))
    }

    #[test]
    fn overlap_is_counted_once() {
        let a = joined(vec![ms(5, 9), ms(0, 2), ms(1, 4), ms(8, 12)]);
        assert_eq!(a, [ms(0, 4), ms(5, 12)]);
        assert_eq!(
            shared(&a, &[ms(3, 6), ms(7, 8), ms(20, 30)]),
            [ms(3, 4), ms(5, 6), ms(7, 8)]
        );
        assert!((length(&a) - 0.011).abs() < 1e-12);
    }

    #[test]
    fn a_trace_is_json_that_a_viewer_reads_and_one_that_is_off_keeps_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("trace.json");
        let trace = Trace::on(Some(file.clone()));
        let begin = Instant::now();
        drop(trace.span(Lane::Read, "rows 0..4"));
        trace.ended(Lane::Gpu(1), "filter", begin);
        trace.ended(Lane::Gpu(1), "back-projection", begin);
        let spans = trace.spans();
        assert!(spans[1].end <= spans[2].begin, "one after another");
        trace.write().unwrap();
        let read: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
        let events = read["traceEvents"].as_array().unwrap();
        assert_eq!(events.len(), 5, "two lanes and three spans");
        assert!(
            events
                .iter()
                .all(|event| event["ph"] == "M" || event["dur"].as_f64().unwrap() >= 0.0)
        );
        assert!(trace.summary().contains("gpu 1") && trace.summary().contains("read"));
        let off = Trace::default();
        drop(off.span(Lane::Write, "x"));
        off.ended(Lane::Write, "x", begin);
        assert!(!off.is_on() && off.spans().is_empty() && off.write().is_ok());
    }
}
