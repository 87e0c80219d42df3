// SPDX-License-Identifier: Apache-2.0
//! What the benches write: `test/bench/bench_report.erl` has the other side.

use crate::Error;
use crate::quantity::Quantity;
use serde::Deserialize;
use std::path::Path;

/// All that a run of the benches measured.
#[derive(Debug, Deserialize)]
pub struct Results {
    /// The machine and its state.
    pub system: System,
    /// The arguments of the run.
    pub arguments: Vec<String>,
    /// How often each side was measured.
    pub runs: u32,
    /// 1, or the share of the usual work.
    pub scale: f64,
    /// What was compared.
    pub rows: Vec<Row>,
    /// Memory over time.
    pub memory: Vec<Memory>,
}

/// The machine and what ran on it.
#[derive(Debug, Deserialize)]
pub struct System {
    /// When the run began.
    pub time: String,
    /// The version of tokamak.
    pub tokamak: String,
    /// The release of OTP.
    pub otp: String,
    /// Processors of the machine, where the VM knows.
    pub cores: Option<u32>,
    /// Schedulers online.
    pub schedulers: u32,
    /// The model of the processor.
    pub processor: String,
    /// The system's kernel.
    pub kernel: String,
    /// The load average of the minute before.
    pub load: f64,
}

/// A subject beside its baseline.
#[derive(Debug, Deserialize)]
pub struct Row {
    /// The bench that it belongs to.
    pub bench: String,
    /// What was measured.
    pub name: String,
    /// What the numbers are.
    pub kind: Kind,
    /// What is counted: event, call, byte.
    pub unit: String,
    /// What the subject gave.
    pub result: Measurement,
    /// What it is compared with.
    pub baseline_name: String,
    /// What the baseline gave.
    pub baseline: Measurement,
    /// How much better than the baseline: the median of `ratios`.
    pub ratio: f64,
    /// The ratio of each run.
    pub ratios: Vec<f64>,
    /// The ratio that has to be reached.
    pub must: Option<f64>,
    /// The ratio to aim for.
    pub aim: Option<f64>,
    /// Whether the marks are reached, where there are any.
    pub verdict: Option<Verdict>,
    /// Where the row stands in a plot.
    pub plot: Option<Place>,
    /// What a run of the subject used.
    pub usage: Usage,
}

/// What the numbers of a row are.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Units per second.
    Rate,
    /// Nanoseconds per unit, on the clock.
    WallCost,
    /// Nanoseconds of processor time per unit.
    CpuCost,
    /// Nanoseconds, as a distribution.
    Latency,
}

/// Whether a row reaches its marks.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It reaches the aim.
    Aim,
    /// It reaches what it must.
    Must,
    /// It misses what it must.
    Missed,
}

/// The numbers of one side.
#[derive(Debug, Deserialize, PartialEq)]
pub struct Measurement {
    /// What a run counted; of latencies, those of all runs.
    pub n: u64,
    /// The median of the runs; of latencies, of all of them.
    pub median: f64,
    /// The value of each run.
    pub runs: Vec<f64>,
    /// What only latencies have.
    #[serde(flatten)]
    pub latency: Option<Latency>,
}

/// What only latencies have. All values are nanoseconds.
#[derive(Debug, Deserialize, PartialEq)]
pub struct Latency {
    /// 99 of 100 are below.
    pub p99: f64,
    /// 999 of 1,000 are below.
    pub p999: f64,
    /// The largest.
    pub max: f64,
    /// How many there were per second.
    pub rate: f64,
    /// Percentiles, ascending, with their values.
    pub distribution: Vec<(f64, f64)>,
}

/// Where a row stands in a plot.
#[derive(Debug, Deserialize)]
pub struct Place {
    /// The plot.
    pub title: String,
    /// The line in it.
    pub line: String,
    /// What the horizontal axis counts.
    pub x_name: String,
    /// The place on it.
    pub x: f64,
}

/// What a run used: microseconds and kilobytes.
#[derive(Debug, Deserialize)]
pub struct Usage {
    /// Time in the processes' own code.
    pub user: f64,
    /// Time in the kernel.
    pub system: f64,
    /// The most memory of any run.
    pub peak_rss: f64,
    /// Context switches by waiting.
    pub voluntary_switches: u64,
    /// Context switches by others' turn.
    pub involuntary_switches: u64,
    /// Page faults without the disk.
    pub minor_faults: u64,
    /// Page faults with the disk.
    pub major_faults: u64,
}

/// Memory over the time of something that runs long.
#[derive(Debug, Deserialize)]
pub struct Memory {
    /// The bench that it belongs to.
    pub bench: String,
    /// What ran.
    pub name: String,
    /// One for each way of running it.
    pub curves: Vec<Curve>,
}

/// One way of running it.
#[derive(Debug, Deserialize)]
pub struct Curve {
    /// The way.
    pub name: String,
    /// Milliseconds since the start, with kilobytes.
    pub samples: Vec<(f64, f64)>,
}

/// Reads results.
///
/// # Errors
///
/// The file cannot be read, is not what the benches write, or has no rows.
pub fn read(path: &Path) -> Result<Results, Error> {
    let text = std::fs::read_to_string(path).map_err(|source| Error::Read {
        path: path.to_owned(),
        source,
    })?;
    let results: Results = serde_json::from_str(&text).map_err(|source| Error::Parse {
        path: path.to_owned(),
        source,
    })?;
    if results.rows.is_empty() && results.memory.is_empty() {
        return Err(Error::Empty {
            path: path.to_owned(),
        });
    }
    match results.rows.iter().find(|row| row.lacks_distribution()) {
        Some(row) => Err(Error::NoDistribution {
            path: path.to_owned(),
            row: row.name.clone(),
        }),
        None => Ok(results),
    }
}

impl Results {
    /// The benches, in the order they ran.
    #[must_use]
    pub fn benches(&self) -> Vec<&str> {
        let names = self.rows.iter().map(|row| row.bench.as_str());
        distinct(names.chain(self.memory.iter().map(|memory| memory.bench.as_str())))
    }

    /// The command that measures the same.
    #[must_use]
    pub fn command(&self) -> String {
        // Where the results went to is nobody else's business.
        let output = self
            .arguments
            .iter()
            .position(|argument| argument == "--output");
        let arguments: Vec<&str> = self
            .arguments
            .iter()
            .enumerate()
            .filter(|(nth, _)| output.is_none_or(|output| *nth != output && *nth != output + 1))
            .map(|(_, argument)| argument.as_str())
            .collect();
        if arguments.is_empty() {
            "make bench".to_owned()
        } else {
            format!("make bench BENCH=\"{}\"", arguments.join(" "))
        }
    }
}

impl Row {
    fn lacks_distribution(&self) -> bool {
        let sides = [&self.result, &self.baseline];
        self.kind == Kind::Latency && sides.iter().any(|side| side.latency.is_none())
    }

    /// What the numbers of the row are, for people.
    #[must_use]
    pub fn quantity(&self) -> Quantity {
        match self.kind {
            Kind::Rate => Quantity::rate(&self.unit),
            Kind::WallCost => Quantity::time(format!("time per {}", self.unit)),
            Kind::CpuCost => Quantity::time(format!("processor time per {}", self.unit)),
            Kind::Latency => Quantity::time(format!("latency of one {}", self.unit)),
        }
    }
}

/// Each value once, in the order of its first appearance.
pub(crate) fn distinct<T: PartialEq>(values: impl Iterator<Item = T>) -> Vec<T> {
    let mut seen = Vec::new();
    for value in values {
        if !seen.contains(&value) {
            seen.push(value);
        }
    }
    seen
}
