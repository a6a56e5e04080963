//! Draws the figures: how many times the floor each implementation takes, and how the cost of a
//! message depends on how many are in the buffer.
//!
//! There is no background, and all colours are of medium lightness, so that they can be read on
//! white and on black.

use plotters::coord::Shift;
use plotters::coord::ranged1d::ValueFormatter;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::report::Row;
use crate::work::title;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

const WIDTH: u32 = 900;
/// Pixels for each bar, and for the space between two works.
const BAR: u32 = 16;
/// Pixels for the names of works, axes, titles and the machine.
const LABELS: u32 = 230;
const AXIS: u32 = 45;
const HEAD: u32 = 40;
const FOOT: u32 = 30;
const CURVES: u32 = 320;

const TEXT: RGBColor = RGBColor(0x76, 0x76, 0x76);
const FONT: &str = "sans-serif";

/// The implementations and their colours, in the order of the table.
const SERIES: [(&str, RGBColor); 7] = [
    ("floor", TEXT),
    ("classic", RGBColor(0x3b, 0x82, 0xd0)),
    ("modern", RGBColor(0x1f, 0x99, 0x6b)),
    ("ipc-channel", RGBColor(0xd0, 0x7a, 0x1f)),
    ("C classic", RGBColor(0x7f, 0xb2, 0xe5)),
    ("C modern", RGBColor(0x6f, 0xc9, 0xa6)),
    ("imsg-compat", RGBColor(0xb0, 0x5f, 0xb8)),
];

/// The chart, as SVG.
pub(crate) fn draw(rows: &[Row]) -> String {
    let mut svg = String::new();
    draw_to(&mut svg, rows).expect("nothing but a string is written to");
    svg
}

fn draw_to(svg: &mut String, rows: &[Row]) -> Outcome<()> {
    let works = works(rows);
    let bars = works.iter().map(|work| work.len() as u32 + 1).sum::<u32>() * BAR;
    let bars_height = HEAD + bars + AXIS;
    let curves: Vec<_> = rows.iter().filter(|row| row.work == "take").collect();
    let curves_height = if curves.is_empty() { 0 } else { CURVES };
    let size = (WIDTH, bars_height + curves_height + FOOT);
    let root = SVGBackend::with_string(svg, size).into_drawing_area();
    let (above, below) = root.split_vertically(bars_height);
    let (below, foot) = below.split_vertically(curves_height);
    if !works.is_empty() {
        draw_bars(&above, &works)?;
    }
    if !curves.is_empty() {
        draw_curves(&below, &curves)?;
    }
    let machine = rows.first().map_or("", |row| &row.machine[..]);
    foot.draw(&Text::new(machine.to_owned(), (10, 8), text(12)))?;
    root.present()?;
    Ok(())
}

/// The rows of each work, without the floor and what the curves show.
fn works(rows: &[Row]) -> Vec<Vec<&Row>> {
    let works = rows.chunk_by(|one, other| work(one) == work(other));
    let compared = works.filter(|rows| rows[0].work != "take");
    let bars = compared.map(|rows| rows.iter().filter(|row| row.implementation != "floor"));
    bars.map(Iterator::collect).collect()
}

fn work(row: &Row) -> (&str, usize, usize) {
    (&row.work, row.payload, row.batch)
}

fn draw_bars(area: &Area<'_>, works: &[Vec<&Row>]) -> Outcome<()> {
    let ratios = || works.iter().flatten().map(|row| row.ratio_to_floor);
    let least = ratios().fold(0.9, f64::min) * 0.95;
    let most = ratios().fold(2.0, f64::max) * 1.2;
    // From the top: a space, the bars of the first work, a space, and so on.
    let lines = works.iter().map(|work| work.len() + 1).sum::<usize>();
    let mut chart = ChartBuilder::on(area)
        .caption(
            "Time of a message, in multiples of plain system calls (or of a loop by hand)",
            text(18),
        )
        .set_label_area_size(LabelAreaPosition::Left, LABELS)
        .set_label_area_size(LabelAreaPosition::Bottom, AXIS)
        .margin_right(20)
        .build_cartesian_2d((least..most).log_scale(), lines as f64..0.0)?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .disable_y_axis()
        .x_max_light_lines(1)
        .light_line_style(TEXT.mix(0.15))
        .bold_line_style(TEXT.mix(0.35))
        .axis_style(TEXT)
        .x_label_formatter(&|ratio| format!("{ratio}"))
        .x_label_style(text(13))
        .draw()?;
    let mut top = 1.0;
    for rows in works {
        let bottom = top + rows.len() as f64;
        let (x, y) = chart.backend_coord(&(least, (top + bottom) / 2.0));
        // The coordinates are those of the whole picture, whose upper part this is.
        area.draw(&Text::new(name(rows[0]), (x - 8, y), anchored(13, HPos::Right)))?;
        for (line, row) in rows.iter().enumerate() {
            let at = top + line as f64;
            let bar = [(1.0, at + 0.1), (row.ratio_to_floor, at + 0.9)];
            let label = format!("{:.2}", row.ratio_to_floor);
            let end = row.ratio_to_floor.max(1.0) * 1.02;
            chart.draw_series([Rectangle::new(bar, colour(row).filled())])?;
            let style = anchored(12, HPos::Left);
            chart.draw_series([Text::new(label, (end, at + 0.5), style)])?;
        }
        top = bottom + 1.0;
    }
    for (name, colour) in &SERIES[1..] {
        if works.iter().flatten().any(|row| row.implementation == *name) {
            let square = |(x, y)| Rectangle::new([(x, y - 5), (x + 14, y + 5)], colour.filled());
            let no_more_bars = std::iter::empty::<Rectangle<(f64, f64)>>();
            chart.draw_series(no_more_bars)?.label(*name).legend(square);
        }
    }
    legend(&mut chart, SeriesLabelPosition::LowerRight)
}

fn draw_curves(area: &Area<'_>, rows: &[&Row]) -> Outcome<()> {
    let costs = || rows.iter().map(|row| row.ns_per_message);
    let least = costs().fold(f64::INFINITY, f64::min) / 1.5;
    // Room for the legend above.
    let most = costs().fold(0.0, f64::max) * 6.0;
    let longest = rows.iter().map(|row| row.batch).max().unwrap_or(1) as f64;
    let mut chart = ChartBuilder::on(area)
        .caption("Nanoseconds to take a message, by how many are in the buffer", text(18))
        .set_label_area_size(LabelAreaPosition::Left, 60)
        .set_label_area_size(LabelAreaPosition::Bottom, AXIS)
        .margin_right(30)
        .build_cartesian_2d(
            (1.0..longest * 1.1).log_scale().base(4.0),
            (least..most).log_scale(),
        )?;
    chart
        .configure_mesh()
        .max_light_lines(1)
        .y_labels(4)
        .light_line_style(TEXT.mix(0.15))
        .bold_line_style(TEXT.mix(0.35))
        .axis_style(TEXT)
        .x_label_formatter(&|messages| format!("{messages}"))
        .y_label_formatter(&|ns| format!("{ns}"))
        .label_style(text(13))
        .draw()?;
    for (name, colour) in SERIES {
        let points: Vec<_> = rows
            .iter()
            .filter(|row| row.implementation == name)
            .map(|row| (row.batch as f64, row.ns_per_message))
            .collect();
        if !points.is_empty() {
            let sample =
                move |(x, y)| PathElement::new([(x, y), (x + 14, y)], colour.stroke_width(2));
            let line = LineSeries::new(points, colour.stroke_width(2)).point_size(3);
            chart.draw_series(line)?.label(name).legend(sample);
        }
    }
    legend(&mut chart, SeriesLabelPosition::UpperRight)
}

fn legend<'a, X, Y>(
    chart: &mut ChartContext<'a, SVGBackend<'a>, Cartesian2d<X, Y>>,
    position: SeriesLabelPosition,
) -> Outcome<()>
where
    X: Ranged<ValueType = f64> + ValueFormatter<f64>,
    Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    chart
        .configure_series_labels()
        .position(position)
        .label_font(text(13))
        .border_style(TEXT.mix(0.5))
        .draw()?;
    Ok(())
}

fn name(row: &Row) -> String {
    let mut name = String::new();
    title(&mut name, &row.work, row.payload, row.batch).expect("it is a string");
    name
}

fn colour(row: &Row) -> RGBColor {
    let known = SERIES.iter().find(|(name, _)| *name == row.implementation);
    known.map_or(TEXT, |(_, colour)| *colour)
}

fn text(size: u32) -> TextStyle<'static> {
    (FONT, size, &TEXT).into_text_style(&(WIDTH, HEAD))
}

fn anchored(size: u32, side: HPos) -> TextStyle<'static> {
    text(size).pos(Pos::new(side, VPos::Center))
}
