// SPDX-License-Identifier: Apache-2.0
//! Plots as SVG. Titles and legends are left to the page, where they cannot cover anything.

use crate::Error;
use crate::axis::Axis;
use crate::quantity::Quantity;
use plotters::prelude::*;

const LABEL: (&str, u32) = ("sans-serif", 14);
const TICK: u32 = 6;
const GRID: RGBColor = RGBColor(225, 228, 232);
const LINES_SIZE: (u32, u32) = (640, 380);
const DOTS_WIDTH: u32 = 1120;
/// Of each line of a [`Dots`] plot, and of what is around them.
const PLACE_HEIGHT: usize = 23;
const DOTS_FRAME: usize = 74;
/// What a character of a label takes, at most on average.
const CHARACTER_WIDTH: f64 = 6.8;

/// Colours that people with colour blindness can tell apart (Okabe and Ito), and grey.
pub const PALETTE: [RGBColor; 8] = [
    RGBColor(0, 114, 178),
    RGBColor(230, 159, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(213, 94, 0),
    RGBColor(86, 180, 233),
    RGBColor(110, 110, 110),
    RGBColor(120, 94, 30),
];

/// The colour of the n-th of several.
#[must_use]
pub fn colour(nth: usize) -> RGBColor {
    PALETTE[nth % PALETTE.len()]
}

/// A plot with what the page writes around it.
#[derive(Debug)]
pub struct Figure {
    /// What it shows.
    pub title: String,
    /// What its colours mean.
    pub legend: Vec<Key>,
    /// The plot.
    pub svg: String,
    /// Whether it takes the whole width of the page.
    pub wide: bool,
}

/// What a colour means.
#[derive(Debug)]
pub struct Key {
    /// The colour, as CSS has it.
    pub colour: String,
    /// What it stands for.
    pub name: String,
}

impl Key {
    /// A key of a legend.
    #[must_use]
    pub fn new(RGBColor(red, green, blue): RGBColor, name: impl Into<String>) -> Self {
        Self {
            colour: format!("#{red:02x}{green:02x}{blue:02x}"),
            name: name.into(),
        }
    }
}

/// A value with the least and the most of its runs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The least.
    pub low: f64,
    /// The median.
    pub median: f64,
    /// The most.
    pub high: f64,
}

/// Lines over a horizontal axis.
#[derive(Debug)]
pub struct Lines {
    /// What the plot shows.
    pub title: String,
    /// The horizontal axis, and what it counts.
    pub x: (Axis, Quantity),
    /// How the ticks of the horizontal axis are written, if not as the quantity has it.
    pub x_tick: Option<fn(f64) -> String>,
    /// The vertical axis, and what it counts.
    pub y: (Axis, Quantity),
    /// The lines.
    pub lines: Vec<Line>,
    /// Whether the points that were measured are marked.
    pub marked: bool,
}

/// A line of [`Lines`].
#[derive(Debug)]
pub struct Line {
    /// Its name in the legend.
    pub name: String,
    /// Its points, from left to right.
    pub points: Vec<(f64, Spread)>,
}

impl Lines {
    /// Draws the plot.
    ///
    /// # Errors
    ///
    /// What the plotting library refuses.
    pub fn draw(self) -> Result<Figure, Error> {
        let mut svg = String::new();
        self.draw_into(&mut svg)
            .map_err(|error| failed(&self.title, &*error))?;
        let named = self.lines.iter().enumerate();
        Ok(Figure {
            legend: named
                .map(|(nth, line)| Key::new(colour(nth), &line.name))
                .collect(),
            title: self.title,
            svg,
            wide: false,
        })
    }

    fn draw_into(&self, svg: &mut String) -> Result<(), Box<dyn std::error::Error>> {
        let root = SVGBackend::with_string(svg, LINES_SIZE).into_drawing_area();
        root.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&root)
            .margin(10)
            .margin_right(24)
            .x_label_area_size(46)
            .y_label_area_size(84)
            .build_cartesian_2d(self.x.0.clone(), self.y.0.clone())?;
        let x_tick = |value: &f64| match self.x_tick {
            Some(write) => write(*value),
            None => self.x.1.tick(*value),
        };
        chart
            .configure_mesh()
            .set_all_tick_mark_size(TICK)
            .bold_line_style(GRID)
            .light_line_style(TRANSPARENT)
            .label_style(LABEL)
            .axis_desc_style(LABEL)
            .x_labels(self.x.0.ticks())
            .y_labels(self.y.0.ticks())
            .x_desc(&self.x.1.name)
            .y_desc(&self.y.1.name)
            .x_label_formatter(&x_tick)
            .y_label_formatter(&|value| self.y.1.tick(*value))
            .draw()?;
        for (nth, Line { points, .. }) in self.lines.iter().enumerate() {
            let colour = colour(nth);
            let medians = points.iter().map(|(x, spread)| (*x, spread.median));
            chart.draw_series(LineSeries::new(medians.clone(), colour.stroke_width(2)))?;
            if self.marked {
                chart.draw_series(points.iter().map(|(x, spread)| {
                    PathElement::new([(*x, spread.low), (*x, spread.high)], colour)
                }))?;
                chart.draw_series(medians.map(|at| Circle::new(at, 3, colour.filled())))?;
            }
        }
        root.present()?;
        Ok(())
    }
}

/// Named lines below each other, with dots and whiskers over a common horizontal axis.
#[derive(Debug)]
pub struct Dots {
    /// What the plot shows.
    pub title: String,
    /// The horizontal axis, and what it counts.
    pub x: (Axis, Quantity),
    /// The lines, from above.
    pub places: Vec<String>,
    /// The values.
    pub dots: Vec<Dot>,
    /// Values to reach: the line and the value.
    pub marks: Vec<(usize, f64)>,
    /// A value that all are compared with.
    pub reference: Option<f64>,
    /// What the colours mean.
    pub legend: Vec<Key>,
}

/// A value of [`Dots`].
#[derive(Debug)]
pub struct Dot {
    /// The line it stands on, from above.
    pub place: usize,
    /// The value, and the whisker.
    pub spread: Spread,
    /// Its colour.
    pub colour: RGBColor,
}

type DotsChart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<Axis, Axis>>;

impl Dots {
    /// Draws the plot.
    ///
    /// # Errors
    ///
    /// What the plotting library refuses.
    pub fn draw(self) -> Result<Figure, Error> {
        let mut svg = String::new();
        self.draw_into(&mut svg)
            .map_err(|error| failed(&self.title, &*error))?;
        Ok(Figure {
            title: self.title,
            legend: self.legend,
            svg,
            wide: true,
        })
    }

    fn draw_into(&self, svg: &mut String) -> Result<(), Box<dyn std::error::Error>> {
        let height = u32::try_from(DOTS_FRAME + PLACE_HEIGHT * self.places.len())?;
        let root = SVGBackend::with_string(svg, (DOTS_WIDTH, height)).into_drawing_area();
        root.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&root)
            .margin(10)
            .margin_right(30)
            .x_label_area_size(46)
            .y_label_area_size(self.label_width())
            .build_cartesian_2d(self.x.0.clone(), Axis::places(self.places.len()))?;
        chart
            .configure_mesh()
            .set_all_tick_mark_size(TICK)
            .bold_line_style(GRID)
            .light_line_style(TRANSPARENT)
            .label_style(LABEL)
            .axis_desc_style(LABEL)
            .x_labels(self.x.0.ticks())
            .y_labels(self.places.len())
            .x_desc(&self.x.1.name)
            .x_label_formatter(&|value| self.x.1.tick(*value))
            .y_label_formatter(&|place| self.place(*place))
            .draw()?;
        self.draw_marks(&mut chart)?;
        self.draw_dots(&mut chart)?;
        root.present()?;
        Ok(())
    }

    /// Plots count from below, tables from above.
    fn height(&self, place: usize) -> f64 {
        self.places.len() as f64 - 1.0 - place as f64
    }

    fn place(&self, height: f64) -> String {
        let from_above = self.places.len() as f64 - 1.0 - height;
        let name = self.places.get(from_above.round() as usize);
        name.cloned().unwrap_or_default()
    }

    fn label_width(&self) -> u32 {
        let longest = self.places.iter().map(|place| place.chars().count()).max();
        (longest.unwrap_or(0) as f64 * CHARACTER_WIDTH) as u32 + 16
    }

    fn draw_marks(&self, chart: &mut DotsChart<'_, '_>) -> Result<(), Box<dyn std::error::Error>> {
        if let Some(reference) = self.reference {
            let ends = [
                (reference, -0.5),
                (reference, self.places.len() as f64 - 0.5),
            ];
            chart.draw_series([PathElement::new(ends, BLACK.mix(0.5))])?;
        }
        chart.draw_series(self.marks.iter().map(|(place, value)| {
            let height = self.height(*place);
            PathElement::new(
                [(*value, height - 0.36), (*value, height + 0.36)],
                BLACK.stroke_width(2),
            )
        }))?;
        Ok(())
    }

    fn draw_dots(&self, chart: &mut DotsChart<'_, '_>) -> Result<(), Box<dyn std::error::Error>> {
        chart.draw_series(self.dots.iter().map(|dot| {
            let height = self.height(dot.place);
            PathElement::new(
                [(dot.spread.low, height), (dot.spread.high, height)],
                dot.colour.mix(0.6).stroke_width(3),
            )
        }))?;
        chart.draw_series(self.dots.iter().map(|dot| {
            let at = (dot.spread.median, self.height(dot.place));
            Circle::new(at, 5, dot.colour.filled())
        }))?;
        Ok(())
    }
}

fn failed(title: &str, error: &dyn std::error::Error) -> Error {
    Error::Draw {
        title: title.to_owned(),
        reason: error.to_string(),
    }
}
