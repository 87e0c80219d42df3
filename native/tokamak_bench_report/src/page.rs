// SPDX-License-Identifier: Apache-2.0
//! The page and the table: what the templates are filled with.

use crate::Error;
use crate::figures;
use crate::plot::Figure;
use crate::quantity::Quantity;
use crate::results::{Kind, Measurement, Results, Row, Verdict};
use askama::Template;

#[derive(Template)]
#[template(path = "index.html")]
struct Page<'a> {
    results: &'a Results,
    command: String,
    busy: bool,
    marked: Vec<Line<'a>>,
    sections: Vec<Section<'a>>,
}

#[derive(Template)]
#[template(path = "table.md", escape = "none")]
struct Table<'a> {
    results: &'a Results,
    command: String,
    cores: String,
    marked: Vec<Line<'a>>,
}

struct Section<'a> {
    bench: &'a str,
    figures: Vec<Figure>,
    lines: Vec<Line<'a>>,
}

/// A row as text.
struct Line<'a> {
    row: &'a Row,
    result: String,
    baseline: String,
    low: String,
    median: String,
    high: String,
    must: String,
    aim: String,
    verdict: &'static str,
    memory: String,
    user: String,
    system: String,
}

/// The page, complete in itself.
///
/// # Errors
///
/// A plot cannot be drawn or the template not be filled.
pub fn html(results: &Results) -> Result<String, Error> {
    let sections = results
        .benches()
        .into_iter()
        .map(|bench| section(results, bench))
        .collect::<Result<_, _>>()?;
    let page = Page {
        results,
        command: results.command(),
        busy: results.system.load > f64::from(results.system.schedulers) / 4.0,
        marked: marked(results),
        sections,
    };
    Ok(page.render()?)
}

/// The rows that have a mark, as a table in Markdown, with the machine and the command.
///
/// # Errors
///
/// The template cannot be filled.
pub fn markdown(results: &Results) -> Result<String, Error> {
    let table = Table {
        results,
        command: results.command(),
        cores: cores(results),
        marked: marked(results),
    };
    Ok(table.render()?)
}

fn section<'a>(results: &'a Results, bench: &'a str) -> Result<Section<'a>, Error> {
    let rows = results.rows.iter().filter(|row| row.bench == bench);
    Ok(Section {
        bench,
        figures: figures::of_bench(results, bench)?,
        lines: rows.map(Line::new).collect(),
    })
}

fn marked(results: &Results) -> Vec<Line<'_>> {
    let rows = results.rows.iter();
    rows.filter(|row| row.must.is_some())
        .map(Line::new)
        .collect()
}

fn cores(results: &Results) -> String {
    match results.system.cores {
        Some(cores) => format!("{cores} processors"),
        None => format!("{} schedulers", results.system.schedulers),
    }
}

impl<'a> Line<'a> {
    fn new(row: &'a Row) -> Self {
        let ratio = figures::ratio(row);
        let mark =
            |mark: Option<f64>| mark.map_or_else(String::new, |mark| format!("{}×", round(mark)));
        Self {
            row,
            result: value(row, &row.result),
            baseline: value(row, &row.baseline),
            low: format!("{:.2}", ratio.low),
            median: format!("{:.2}", ratio.median),
            high: format!("{:.2}", ratio.high),
            must: mark(row.must),
            aim: mark(row.aim),
            verdict: verdict(row.verdict),
            memory: Quantity::bytes("").format(row.usage.peak_rss * 1024.0),
            user: Quantity::time("").format(row.usage.user * 1000.0),
            system: Quantity::time("").format(row.usage.system * 1000.0),
        }
    }

    /// The name of the row in a cell of Markdown.
    fn name_cell(&self) -> String {
        cell(&self.row.name)
    }

    /// The name of the baseline in a cell of Markdown.
    fn baseline_cell(&self) -> String {
        cell(&self.row.baseline_name)
    }
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

fn round(mark: f64) -> f64 {
    (mark * 100.0).round() / 100.0
}

fn verdict(verdict: Option<Verdict>) -> &'static str {
    match verdict {
        Some(Verdict::Aim) => "aim",
        Some(Verdict::Must) => "must",
        Some(Verdict::Missed) => "missed",
        None => "",
    }
}

fn value(row: &Row, measured: &Measurement) -> String {
    let time = row.quantity();
    match (row.kind, &measured.latency) {
        (Kind::Rate, _) => format!("{}/s", time.format(measured.median)),
        (Kind::CpuCost, _) => format!("{} cpu", time.format(measured.median)),
        (_, Some(latency)) => format!(
            "{}, p99 {}, p999 {}, n {}",
            time.format(measured.median),
            time.format(latency.p99),
            time.format(latency.p999),
            measured.n
        ),
        _ => time.format(measured.median),
    }
}
