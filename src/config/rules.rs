//! What a value of the config may be.

use std::fmt::Display;
use std::ops::{Range, RangeInclusive};

use crate::error::{Error, Result};

/// A table of the config, by its full name: names the key where a value breaks a rule.
#[derive(Clone, Copy)]
pub(super) struct Table(pub(super) &'static str);

impl Table {
    fn refuse(self, key: &str, value: impl Display, rule: impl Into<String>) -> Result<()> {
        Err(Error::config(format!("{}.{key}", self.0), value, rule))
    }

    pub(super) fn positive(self, key: &str, value: impl Into<f64>) -> Result<()> {
        let value = value.into();
        if value > 0.0 && value.is_finite() {
            return Ok(());
        }
        self.refuse(key, value, "must be above 0")
    }

    /// NaN lies in no range.
    pub(super) fn within(
        self,
        key: &str,
        value: impl Into<f64>,
        range: RangeInclusive<f64>,
    ) -> Result<()> {
        let value = value.into();
        if range.contains(&value) {
            return Ok(());
        }
        let (low, high) = (range.start(), range.end());
        self.refuse(key, value, format!("must lie between {low} and {high}"))
    }

    pub(super) fn one_of<T: Display + PartialEq>(
        self,
        key: &str,
        value: T,
        allowed: &[T],
        rule: &str,
    ) -> Result<()> {
        if allowed.contains(&value) {
            return Ok(());
        }
        self.refuse(key, value, rule)
    }
}

/// `A..B` with A below B; A may be left out.
pub(super) fn parse_range(text: &str) -> Option<Range<usize>> {
    let (start, end) = text.trim().split_once("..")?;
    let start = if start.trim().is_empty() {
        0
    } else {
        start.trim().parse().ok()?
    };
    let end = end.trim().parse().ok()?;
    (start < end).then_some(start..end)
}
