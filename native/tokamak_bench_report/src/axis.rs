// SPDX-License-Identifier: Apache-2.0
//! Axes whose scale follows from the data, with ticks at round numbers.

use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint, KeyPointWeight, Ranged};
use std::ops::Range;

/// From where on a logarithmic scale shows more than a linear one.
const LOGARITHMIC_FROM: f64 = 12.0;
/// A linear axis has fewer steps than this.
const STEPS: f64 = 6.0;
/// Above so many decades only some have ticks.
const MAX_TICKS: usize = 9;

/// An axis, linear or logarithmic.
#[derive(Clone, Debug)]
pub struct Axis {
    low: f64,
    high: f64,
    logarithmic: bool,
    ticks: Vec<f64>,
}

impl Axis {
    /// An axis that all values fit: logarithmic where they differ by more than an order of magnitude, and
    /// otherwise linear from 0.
    #[must_use]
    pub fn fitting(values: impl Iterator<Item = f64>) -> Self {
        let (low, high) = extent(values.filter(|value| *value > 0.0));
        if high / low >= LOGARITHMIC_FROM {
            Self::logarithmic(low, high)
        } else {
            Self::linear(0.0, high)
        }
    }

    /// A logarithmic axis that all values fit.
    #[must_use]
    pub fn logarithmic_fitting(values: impl Iterator<Item = f64>) -> Self {
        let (low, high) = extent(values.filter(|value| *value > 0.0));
        Self::logarithmic(low, high)
    }

    /// An axis that starts and ends with the values, and has its ticks at them.
    #[must_use]
    pub fn at(values: impl Iterator<Item = f64>) -> Self {
        let mut ticks: Vec<f64> = values.filter(|value| *value > 0.0).collect();
        ticks.sort_by(f64::total_cmp);
        ticks.dedup();
        let (low, high) = extent(ticks.iter().copied());
        let logarithmic = high / low >= 4.0;
        Self {
            low,
            high: if high > low { high } else { low * 2.0 },
            logarithmic,
            ticks,
        }
    }

    /// A linear axis.
    #[must_use]
    pub fn linear(low: f64, high: f64) -> Self {
        Self::stepwise(low, high, round_step((high - low) / STEPS))
    }

    /// A linear axis of bytes, from 0: its ticks are round in binary units.
    #[must_use]
    pub fn linear_bytes(high: f64) -> Self {
        let mut unit = 1.0;
        while high >= unit * 1024.0 {
            unit *= 1024.0;
        }
        Self::stepwise(0.0, high, round_step(high / unit / STEPS) * unit)
    }

    fn stepwise(low: f64, high: f64, step: f64) -> Self {
        let first = (low / step).floor();
        let last = (high / step).ceil().max(first + 1.0);
        let ticks = successive(first, last).map(|n| n * step).collect();
        Self {
            low: first * step,
            high: last * step,
            logarithmic: false,
            ticks,
        }
    }

    /// A logarithmic axis with a tick at each power of ten.
    #[must_use]
    pub fn decades(low: f64, high: f64) -> Self {
        let exponents = successive(low.log10().floor(), high.log10().ceil());
        Self {
            low,
            high,
            logarithmic: true,
            ticks: exponents
                .map(|exponent| 10_f64.powf(exponent))
                .filter(|tick| (low..=high).contains(tick))
                .collect(),
        }
    }

    /// Places of so many lines, one below the other.
    #[must_use]
    pub fn places(count: usize) -> Self {
        Self {
            low: -0.5,
            high: count as f64 - 0.5,
            logarithmic: false,
            ticks: (0..count).map(|place| place as f64).collect(),
        }
    }

    fn logarithmic(low: f64, high: f64) -> Self {
        let rounded: Vec<f64> = successive(low.log10().floor(), high.log10().ceil())
            .flat_map(|exponent| [1.0, 2.0, 5.0].map(|digit| digit * 10_f64.powf(exponent)))
            .collect();
        let below = rounded.iter().rposition(|tick| *tick <= low).unwrap_or(0);
        let above = rounded.iter().position(|tick| *tick >= high);
        let above = above.unwrap_or(rounded.len() - 1).max(below + 1);
        let (low, high) = (rounded[below], rounded[above]);
        let mut ticks = rounded[below..=above].to_vec();
        if ticks.len() > MAX_TICKS {
            ticks = Self::decades(low, high).ticks;
        }
        if ticks.len() > MAX_TICKS {
            ticks = ticks.into_iter().step_by(3).collect();
        }
        Self {
            low,
            high,
            logarithmic: true,
            ticks,
        }
    }

    /// The ends.
    #[must_use]
    pub fn ends(&self) -> (f64, f64) {
        (self.low, self.high)
    }

    /// How many ticks there are.
    #[must_use]
    pub fn ticks(&self) -> usize {
        self.ticks.len()
    }

    fn position(&self, value: f64) -> f64 {
        if self.logarithmic {
            value.max(f64::MIN_POSITIVE).log10()
        } else {
            value
        }
    }
}

impl Ranged for Axis {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (start, end): (i32, i32)) -> i32 {
        let value = value.clamp(self.low, self.high);
        let (low, high) = (self.position(self.low), self.position(self.high));
        let share = (self.position(value) - low) / (high - low);
        start + (f64::from(end - start) * share).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        match hint.weight() {
            KeyPointWeight::Bold => self.ticks.clone(),
            KeyPointWeight::Any => Vec::new(),
        }
    }

    fn range(&self) -> Range<f64> {
        self.low..self.high
    }
}

/// The least and the most; without values, something to draw an empty axis of.
fn extent(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let ends = values.fold(None, |ends: Option<(f64, f64)>, value| {
        let (low, high) = ends.unwrap_or((value, value));
        Some((low.min(value), high.max(value)))
    });
    ends.unwrap_or((1.0, 10.0))
}

/// Whole numbers from the first to the last.
fn successive(first: f64, last: f64) -> impl Iterator<Item = f64> {
    std::iter::successors(Some(first), |n| Some(n + 1.0)).take_while(move |n| *n <= last)
}

/// The least of 1, 2, 5 with any power of ten that is not below.
fn round_step(step: f64) -> f64 {
    let power = 10_f64.powf(step.max(f64::MIN_POSITIVE).log10().floor());
    let digits = [1.0, 2.0, 5.0, 10.0];
    let digit = digits.into_iter().find(|digit| digit * power >= step);
    digit.unwrap_or(10.0) * power
}

#[cfg(test)]
mod tests {
    use super::Axis;
    use plotters::coord::ranged1d::Ranged;

    fn near(left: &[f64], right: &[f64]) -> bool {
        left.len() == right.len()
            && left
                .iter()
                .zip(right)
                .all(|(a, b)| (a - b).abs() <= b.abs() * 1e-9)
    }

    #[test]
    fn values_of_one_order_of_magnitude_have_a_linear_axis_from_zero() {
        let axis = Axis::fitting([3.0, 9.0].into_iter());
        assert_eq!(axis.ends(), (0.0, 10.0));
        assert!(near(&axis.ticks, &[0.0, 2.0, 4.0, 6.0, 8.0, 10.0]));
    }

    #[test]
    fn values_of_several_orders_of_magnitude_have_a_logarithmic_axis() {
        let axis = Axis::fitting([3.0, 90.0].into_iter());
        assert!(near(&axis.ticks, &[2.0, 5.0, 10.0, 20.0, 50.0, 100.0]));
        assert_eq!(axis.map(&2.0, (0, 100)), 0);
        assert_eq!(axis.map(&100.0, (0, 100)), 100);
    }

    #[test]
    fn no_values_or_the_same_value_still_make_an_axis() {
        for values in [vec![], vec![5.0], vec![1.0, 1.0], vec![0.0]] {
            let axis = Axis::fitting(values.iter().copied());
            let (low, high) = axis.ends();
            assert!(low < high, "{values:?}");
            let axis = Axis::logarithmic_fitting(values.iter().copied());
            let (low, high) = axis.ends();
            assert!(0.0 < low && low < high, "{values:?}");
            let (low, high) = Axis::at(values.iter().copied()).ends();
            assert!(low < high, "{values:?}");
        }
    }

    #[test]
    fn bytes_have_ticks_at_binary_numbers() {
        let mebibyte = 1024.0 * 1024.0;
        let axis = Axis::linear_bytes(130.0 * mebibyte);
        assert!(near(
            &axis.ticks,
            &[0.0, 50.0 * mebibyte, 100.0 * mebibyte, 150.0 * mebibyte]
        ));
    }

    #[test]
    fn what_lies_outside_stays_at_the_edge() {
        let axis = Axis::linear(0.0, 10.0);
        assert_eq!(axis.map(&-5.0, (100, 0)), 100);
        assert_eq!(axis.map(&50.0, (100, 0)), 0);
    }
}
