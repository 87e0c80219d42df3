// SPDX-License-Identifier: Apache-2.0
//! Which plots there are of the results of a bench.

use crate::Error;
use crate::axis::Axis;
use crate::plot::{Dot, Dots, Figure, Key, Line, Lines, PALETTE, Spread, colour};
use crate::quantity::Quantity;
use crate::results::{Kind, Latency, Measurement, Memory, Place, Results, Row, Verdict, distinct};
use plotters::style::RGBColor;

const AIM: RGBColor = RGBColor(26, 127, 55);
const MUST: RGBColor = RGBColor(191, 135, 0);
const MISSED: RGBColor = RGBColor(207, 34, 46);
/// What dots and whiskers are.
const RUNS: &str = "dot: median of the runs; line: least to most";
const PERCENTILES: &str = "dot: median; line: up to 99.9 %";
const KILO: f64 = 1024.0;

/// All plots of a bench: ratios, values, growth, latencies, memory.
///
/// # Errors
///
/// A plot cannot be drawn.
pub fn of_bench(results: &Results, bench: &str) -> Result<Vec<Figure>, Error> {
    let rows: Vec<&Row> = results
        .rows
        .iter()
        .filter(|row| row.bench == bench)
        .collect();
    let memory = results.memory.iter().filter(|memory| memory.bench == bench);
    let mut figures = Vec::new();
    if !rows.is_empty() {
        figures.push(ratios(&rows)?);
    }
    figures.extend(values(&rows)?);
    figures.extend(growth(&rows)?);
    figures.extend(latencies(&rows)?);
    for memory in memory {
        figures.push(over_time(memory)?);
    }
    Ok(figures)
}

/// How much better each row is than its baseline, beside its marks.
fn ratios(rows: &[&Row]) -> Result<Figure, Error> {
    let spreads: Vec<Spread> = rows.iter().map(|row| ratio(row)).collect();
    let marks: Vec<(usize, f64)> = rows
        .iter()
        .enumerate()
        .flat_map(|(place, row)| {
            [row.must, row.aim]
                .into_iter()
                .flatten()
                .map(move |mark| (place, mark))
        })
        .collect();
    let ends = spreads.iter().flat_map(|spread| [spread.low, spread.high]);
    let reached = marks.iter().map(|(_, mark)| *mark).chain([1.0]);
    Dots {
        title: "Ratio to the baseline".to_owned(),
        x: (
            Axis::logarithmic_fitting(ends.chain(reached)),
            Quantity::ratio(format!("times better than the baseline ({RUNS})")),
        ),
        places: rows
            .iter()
            .map(|row| format!("{} / {}", row.name, row.baseline_name))
            .collect(),
        dots: spreads
            .into_iter()
            .zip(rows)
            .enumerate()
            .map(|(place, (spread, row))| Dot {
                place,
                spread,
                colour: verdict_colour(row.verdict),
            })
            .collect(),
        legend: ratio_legend(!marks.is_empty()),
        marks,
        reference: Some(1.0),
    }
    .draw()
}

fn ratio_legend(marked: bool) -> Vec<Key> {
    let without = Key::new(verdict_colour(None), "no mark to reach");
    if !marked {
        return vec![without];
    }
    vec![
        Key::new(AIM, "reaches the aim"),
        Key::new(MUST, "reaches the must"),
        Key::new(MISSED, "misses the must"),
        without,
        Key::new(RGBColor(0, 0, 0), "must and aim, as lines"),
    ]
}

fn verdict_colour(verdict: Option<Verdict>) -> RGBColor {
    match verdict {
        Some(Verdict::Aim) => AIM,
        Some(Verdict::Must) => MUST,
        Some(Verdict::Missed) => MISSED,
        None => PALETTE[0],
    }
}

/// The ratios of the runs of a row.
#[must_use]
pub fn ratio(row: &Row) -> Spread {
    spread(row.ratio, &row.ratios)
}

/// What was measured, a plot for each quantity.
fn values(rows: &[&Row]) -> Result<Vec<Figure>, Error> {
    let quantities = distinct(rows.iter().map(|row| row.quantity()));
    quantities
        .iter()
        .map(|quantity| {
            let same: Vec<&Row> = rows
                .iter()
                .copied()
                .filter(|row| row.quantity() == *quantity)
                .collect();
            values_of(quantity, &same)
        })
        .collect()
}

fn values_of(quantity: &Quantity, rows: &[&Row]) -> Result<Figure, Error> {
    let names = distinct(rows.iter().map(|row| row.name.as_str()));
    let baselines = distinct(rows.iter().map(|row| row.baseline_name.as_str()));
    let mut dots = Vec::new();
    for row in rows {
        let place = names.iter().position(|name| *name == row.name).unwrap_or(0);
        let baseline = baselines.iter().position(|name| *name == row.baseline_name);
        let baseline_colour = colour(1 + baseline.unwrap_or(0));
        for (measured, colour) in [(&row.baseline, baseline_colour), (&row.result, colour(0))] {
            dots.push(Dot {
                place,
                spread: value(measured),
                colour,
            });
        }
    }
    let ends = dots
        .iter()
        .flat_map(|dot| [dot.spread.low, dot.spread.high]);
    let mut legend = vec![Key::new(colour(0), "tokamak, as named on the left")];
    legend.extend(
        baselines
            .iter()
            .enumerate()
            .map(|(nth, name)| Key::new(colour(1 + nth), *name)),
    );
    Dots {
        title: sentence(&quantity.name),
        x: (axis(quantity, ends), described(quantity, rows)),
        places: names.into_iter().map(str::to_owned).collect(),
        dots,
        marks: Vec::new(),
        reference: None,
        legend,
    }
    .draw()
}

/// An axis for values of a quantity.
fn axis(quantity: &Quantity, values: impl Iterator<Item = f64>) -> Axis {
    if quantity.is_bytes() {
        Axis::linear_bytes(values.fold(KILO, f64::max))
    } else {
        Axis::fitting(values)
    }
}

/// The quantity, with what dots and whiskers are.
fn described(quantity: &Quantity, rows: &[&Row]) -> Quantity {
    let latency = rows.iter().any(|row| row.kind == Kind::Latency);
    let spread = if latency { PERCENTILES } else { RUNS };
    quantity.with_remark(spread)
}

/// The median of a measurement. The whisker of a latency reaches up to its 999th in 1,000.
fn value(measurement: &Measurement) -> Spread {
    match &measurement.latency {
        Some(latency) => Spread {
            low: measurement.median,
            median: measurement.median,
            high: latency.p999,
        },
        None => spread(measurement.median, &measurement.runs),
    }
}

fn spread(median: f64, runs: &[f64]) -> Spread {
    Spread {
        low: runs.iter().copied().fold(median, f64::min),
        median,
        high: runs.iter().copied().fold(median, f64::max),
    }
}

/// How numbers grow with descriptors, timers, callers and so on.
fn growth(rows: &[&Row]) -> Result<Vec<Figure>, Error> {
    let placed: Vec<(&Row, &Place)> = rows
        .iter()
        .filter_map(|row| Some((*row, row.plot.as_ref()?)))
        .collect();
    let titles = distinct(placed.iter().map(|(_, place)| place.title.as_str()));
    let mut figures = Vec::new();
    for title in titles {
        let same: Vec<_> = placed
            .iter()
            .copied()
            .filter(|(_, place)| place.title == title)
            .collect();
        figures.extend(growth_of(title, &same)?);
    }
    Ok(figures)
}

fn growth_of(title: &str, rows: &[(&Row, &Place)]) -> Result<Vec<Figure>, Error> {
    let Some((first, _)) = rows.first() else {
        return Ok(Vec::new());
    };
    if first.kind != Kind::Latency {
        let lines = lines(rows, &[("", value)]);
        return Ok(vec![growth_figure(title, &first.quantity(), rows, lines)?]);
    }
    let rate = |measured: &Measurement| at(measured, |latency| latency.rate);
    let median: Value = |measured| spread(measured.median, &[]);
    let p99: Value = |measured| at(measured, |latency| latency.p99);
    let rates = lines(rows, &[("", rate)]);
    let latencies = lines(rows, &[(", median", median), (", 99 %", p99)]);
    Ok(vec![
        growth_figure(title, &Quantity::rate(&first.unit), rows, rates)?,
        growth_figure(title, &first.quantity(), rows, latencies)?,
    ])
}

/// What a line shows of a measurement.
type Value = fn(&Measurement) -> Spread;

fn at(measured: &Measurement, value: fn(&Latency) -> f64) -> Spread {
    spread(
        measured.latency.as_ref().map_or(measured.median, value),
        &[],
    )
}

/// Lines of the subjects, then of the baselines.
fn lines(rows: &[(&Row, &Place)], values: &[(&str, Value)]) -> Vec<Line> {
    let subjects = rows
        .iter()
        .map(|(row, place)| (place.line.as_str(), place.x, &row.result));
    let baselines = rows
        .iter()
        .map(|(row, place)| (row.baseline_name.as_str(), place.x, &row.baseline));
    let all: Vec<_> = subjects.chain(baselines).collect();
    let mut lines = Vec::new();
    for name in distinct(all.iter().map(|(name, ..)| *name)) {
        for (suffix, value) in values {
            let measured = all.iter().filter(|(line, ..)| *line == name);
            let mut points: Vec<_> = measured
                .map(|(_, x, measured)| (*x, value(measured)))
                .collect();
            points.sort_by(|(left, _), (right, _)| left.total_cmp(right));
            points.dedup();
            lines.push(Line {
                name: format!("{name}{suffix}"),
                points,
            });
        }
    }
    lines
}

fn growth_figure(
    title: &str,
    quantity: &Quantity,
    rows: &[(&Row, &Place)],
    lines: Vec<Line>,
) -> Result<Figure, Error> {
    let x_name = rows.first().map_or("", |(_, place)| place.x_name.as_str());
    Lines {
        title: format!("{title}: {} by {x_name}", quantity.name),
        x: (
            Axis::at(rows.iter().map(|(_, place)| place.x)),
            Quantity::count(x_name),
        ),
        x_tick: None,
        y: (axis(quantity, spreads(&lines)), quantity.clone()),
        lines,
        marked: true,
    }
    .draw()
}

fn spreads(lines: &[Line]) -> impl Iterator<Item = f64> {
    let points = lines.iter().flat_map(|line| &line.points);
    points.flat_map(|(_, spread)| [spread.low, spread.high])
}

/// The distributions of latencies that have their baseline in common.
fn latencies(rows: &[&Row]) -> Result<Vec<Figure>, Error> {
    let rows: Vec<&Row> = rows
        .iter()
        .copied()
        .filter(|row| row.kind == Kind::Latency)
        .collect();
    let baselines = distinct(rows.iter().map(|row| (&row.baseline_name, &row.baseline)));
    baselines
        .into_iter()
        .map(|(name, baseline)| {
            let same: Vec<&Row> = rows
                .iter()
                .copied()
                .filter(|row| &row.baseline == baseline)
                .collect();
            distributions(&same, name, baseline)
        })
        .collect()
}

fn distributions(
    rows: &[&Row],
    baseline_name: &str,
    baseline: &Measurement,
) -> Result<Figure, Error> {
    let subjects = rows.iter().map(|row| (row.name.as_str(), &row.result));
    let lines: Vec<Line> = subjects
        .chain([(baseline_name, baseline)])
        .map(|(name, measured)| Line {
            name: name.to_owned(),
            points: distribution(measured),
        })
        .collect();
    let last = lines
        .iter()
        .flat_map(|line| &line.points)
        .map(|(x, _)| *x)
        .fold(10.0, f64::max);
    let quantity = Quantity::time("latency");
    let names: Vec<&str> = rows.iter().map(|row| row.name.as_str()).collect();
    Lines {
        title: format!("Distribution: {}", names.join("; ")),
        x: (
            Axis::decades(1.0, last),
            Quantity::count("share that takes no longer"),
        ),
        x_tick: Some(percent),
        y: (Axis::fitting(spreads(&lines)), quantity),
        lines,
        marked: false,
    }
    .draw()
}

/// The tail is what matters: 90, 99 and 99.9 percent stand at 10, 100 and 1,000 of a logarithmic axis.
fn distribution(measured: &Measurement) -> Vec<(f64, Spread)> {
    let values = measured
        .latency
        .iter()
        .flat_map(|latency| &latency.distribution);
    values
        .filter(|(percent, _)| *percent < 100.0)
        .map(|(percent, value)| (100.0 / (100.0 - percent), spread(*value, &[])))
        .collect()
}

fn percent(tail: f64) -> String {
    let percent = 100.0 - 100.0 / tail;
    format!("{} %", (percent * 1e6).round() / 1e6)
}

/// Memory over time.
fn over_time(memory: &Memory) -> Result<Figure, Error> {
    let lines: Vec<Line> = memory
        .curves
        .iter()
        .map(|curve| Line {
            name: curve.name.clone(),
            points: curve
                .samples
                .iter()
                .map(|(milliseconds, kilobytes)| {
                    (milliseconds / 1000.0, spread(kilobytes * KILO, &[]))
                })
                .collect(),
        })
        .collect();
    let end = lines
        .iter()
        .flat_map(|line| &line.points)
        .map(|(x, _)| *x)
        .fold(0.001, f64::max);
    let most = spreads(&lines).fold(KILO, f64::max);
    Lines {
        title: format!("Memory: {}", memory.name),
        x: (Axis::linear(0.0, end), Quantity::seconds()),
        x_tick: None,
        y: (
            Axis::linear_bytes(most),
            Quantity::bytes("resident memory of the VM"),
        ),
        lines,
        marked: false,
    }
    .draw()
}

fn sentence(text: &str) -> String {
    let mut characters = text.chars();
    match characters.next() {
        Some(first) => first.to_uppercase().chain(characters).collect(),
        None => String::new(),
    }
}
