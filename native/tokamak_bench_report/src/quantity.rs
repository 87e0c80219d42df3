// SPDX-License-Identifier: Apache-2.0
//! Numbers with their units, for people.

/// What numbers are, and how they are written.
#[derive(Clone, Debug, PartialEq)]
pub struct Quantity {
    /// What an axis is labelled with.
    pub name: String,
    scale: Scale,
}

/// Prefixes, each with the number of base units from which it is used.
type Scale = &'static [(f64, &'static str)];

const TIME: Scale = &[(1.0, "ns"), (1e3, "µs"), (1e6, "ms"), (1e9, "s")];
const SECONDS: Scale = &[(1.0, "s")];
const COUNT: Scale = &[(1.0, ""), (1e3, "k"), (1e6, "M"), (1e9, "G")];
const KIB: f64 = 1024.0;
const BYTES: Scale = &[
    (1.0, "B"),
    (KIB, "KiB"),
    (KIB * KIB, "MiB"),
    (KIB * KIB * KIB, "GiB"),
];
const TIMES: Scale = &[(1.0, "×")];

impl Quantity {
    /// Units per second.
    #[must_use]
    pub fn rate(unit: &str) -> Self {
        Self {
            name: format!("{unit}s per second"),
            scale: if unit == "byte" { BYTES } else { COUNT },
        }
    }

    /// Whether its round numbers are binary.
    #[must_use]
    pub fn is_bytes(&self) -> bool {
        self.scale == BYTES
    }

    /// Nanoseconds.
    #[must_use]
    pub fn time(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            scale: TIME,
        }
    }

    /// Seconds, as an axis of time has them.
    #[must_use]
    pub fn seconds() -> Self {
        Self {
            name: "time".to_owned(),
            scale: SECONDS,
        }
    }

    /// A number of something.
    #[must_use]
    pub fn count(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            scale: COUNT,
        }
    }

    /// Bytes.
    #[must_use]
    pub fn bytes(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            scale: BYTES,
        }
    }

    /// How many times better.
    #[must_use]
    pub fn ratio(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            scale: TIMES,
        }
    }

    /// The same, with a remark behind the name.
    #[must_use]
    pub fn with_remark(&self, remark: &str) -> Self {
        Self {
            name: format!("{} ({remark})", self.name),
            scale: self.scale,
        }
    }

    /// Writes a number with three digits that matter, and its unit.
    #[must_use]
    pub fn format(&self, value: f64) -> String {
        let (factor, prefix) = self.prefix(value);
        join(&digits(value / factor), prefix)
    }

    /// Writes a round number, as it stands at an axis.
    #[must_use]
    pub fn tick(&self, value: f64) -> String {
        let (factor, prefix) = self.prefix(value);
        // Twelve digits drop what arithmetic left.
        let value = (value / factor * 1e12).round() / 1e12;
        join(&value.to_string(), prefix)
    }

    fn prefix(&self, value: f64) -> (f64, &'static str) {
        // So that 999.9 is not 1000 of the smaller one.
        let reached = |(factor, _): &&(f64, &str)| value.abs() * 1.0005 >= *factor;
        let found = self.scale.iter().rev().find(reached);
        *found.unwrap_or(&self.scale[0])
    }
}

fn digits(value: f64) -> String {
    let decimals = match value.abs() {
        large if large >= 99.95 => 0,
        middle if middle >= 9.995 => 1,
        _ => 2,
    };
    format!("{value:.decimals$}")
}

fn join(number: &str, unit: &str) -> String {
    match unit {
        "" | "×" => format!("{number}{unit}"),
        _ => format!("{number} {unit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::Quantity;

    #[test]
    fn times_have_the_unit_of_their_size() {
        let time = Quantity::time("time per call");
        assert_eq!(time.format(83.25), "83.2 ns");
        assert_eq!(time.format(14_819.8), "14.8 µs");
        assert_eq!(time.format(999.9), "1.00 µs");
        assert_eq!(time.format(2.5e9), "2.50 s");
        assert_eq!(time.format(0.0), "0.00 ns");
    }

    #[test]
    fn rates_of_bytes_are_binary() {
        assert_eq!(
            Quantity::rate("byte").format(1.5 * 1024.0 * 1024.0 * 1024.0),
            "1.50 GiB"
        );
        assert_eq!(Quantity::rate("event").format(12_690_000.0), "12.7 M");
        assert_eq!(Quantity::rate("event").name, "events per second");
    }

    #[test]
    fn ticks_have_no_more_digits_than_they_need() {
        assert_eq!(Quantity::rate("event").tick(2e7), "20 M");
        assert_eq!(Quantity::ratio("ratio").tick(0.1 + 0.2), "0.3×");
        assert_eq!(Quantity::count("descriptors").tick(9900.0), "9.9 k");
    }
}
