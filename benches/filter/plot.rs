//! The plot: nanoseconds of a publish over the number of filters, both logarithmic, from the
//! medians that criterion left behind. Colours suit light and dark pages.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// Draws `docs/filter-cost.svg` if there is a median for every point.
pub(crate) fn draw(shapes: &[(&str, &[usize])]) {
    let mut lines = Vec::new();
    for &(name, sizes) in shapes {
        let points = sizes.iter().map(|&size| Some((size as f64, median(name, size)?)));
        match points.collect::<Option<Vec<_>>>() {
            Some(points) => lines.push((name, points)),
            None => return eprintln!("no plot: not everything has been measured"),
        }
    }
    let path = Path::new("docs/filter-cost.svg");
    fs::write(path, svg(&lines)).unwrap();
    eprintln!("drawn: {}", path.display());
}

/// What criterion found for one point, in nanoseconds.
fn median(shape: &str, size: usize) -> Option<f64> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or("target".into(), PathBuf::from);
    let point = target.join("criterion/filter").join(shape).join(size.to_string());
    let text = fs::read_to_string(point.join("new/estimates.json")).ok()?;
    let estimates: serde_json::Value = serde_json::from_str(&text).ok()?;
    estimates["median"]["point_estimate"].as_f64()
}

type Line<'n> = (&'n str, Vec<(f64, f64)>);

fn svg(lines: &[Line<'_>]) -> String {
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"12\" fill=\"#808080\">\n\
         <title>Cost of a publish by the number of filters on its topic</title>\n"
    );
    for power in MIN_X..=MAX_X {
        let x = at_x(10f64.powi(power));
        let label = ["", "10", "100", "1,000", "10,000", "100,000", "1,000,000"][power as usize];
        let _ = writeln!(
            svg,
            "<line x1=\"{x:.0}\" y1=\"{TOP}\" x2=\"{x:.0}\" y2=\"{BOTTOM}\" {GRID}/>\
             <text x=\"{x:.0}\" y=\"{}\" text-anchor=\"middle\">{label}</text>",
            BOTTOM + 18.0
        );
    }
    for power in MIN_Y..=MAX_Y {
        let y = at_y(10f64.powi(power));
        let label = ["", "10 ns", "100 ns", "1 µs", "10 µs", "100 µs", "1 ms"][power as usize];
        let _ = writeln!(
            svg,
            "<line x1=\"{LEFT}\" y1=\"{y:.0}\" x2=\"{RIGHT}\" y2=\"{y:.0}\" {GRID}/>\
             <text x=\"{}\" y=\"{:.0}\" text-anchor=\"end\">{label}</text>",
            LEFT - 8.0,
            y + 4.0
        );
    }
    for (nth, (name, points)) in lines.iter().enumerate() {
        let colour = COLOURS[nth % COLOURS.len()];
        let places: Vec<String> =
            points.iter().map(|&(x, y)| format!("{:.1},{:.1}", at_x(x), at_y(y))).collect();
        let _ = writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
            places.join(" ")
        );
        for &(x, y) in points {
            let _ = writeln!(
                svg,
                "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\" fill=\"{colour}\">\
                 <title>{name}, {x}: {y:.0} ns</title></circle>",
                at_x(x),
                at_y(y)
            );
        }
        let y = TOP + 6.0 + 20.0 * nth as f64;
        let (line, label) = (RIGHT + 14.0, RIGHT + 40.0);
        let _ = writeln!(
            svg,
            "<line x1=\"{line}\" y1=\"{y}\" x2=\"{}\" y2=\"{y}\" stroke=\"{colour}\" \
             stroke-width=\"2\"/><text x=\"{label}\" y=\"{}\">{name}</text>",
            line + 20.0,
            y + 4.0
        );
    }
    let middle = (LEFT + RIGHT) / 2.0;
    let _ = writeln!(
        svg,
        "<text x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">filters on the topic</text>\n\
         <text x=\"{LEFT}\" y=\"18\">one publish, median; two cores of an AMD EPYC, a virtual \
         machine</text>\n</svg>",
        BOTTOM + 38.0
    );
    svg
}

fn at_x(size: f64) -> f64 {
    LEFT + (size.log10() - f64::from(MIN_X)) / f64::from(MAX_X - MIN_X) * (RIGHT - LEFT)
}

fn at_y(nanos: f64) -> f64 {
    BOTTOM - (nanos.log10() - f64::from(MIN_Y)) / f64::from(MAX_Y - MIN_Y) * (BOTTOM - TOP)
}

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 380.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 520.0;
const TOP: f64 = 32.0;
const BOTTOM: f64 = 330.0;

/// Powers of ten at the ends of the axes.
const MIN_X: i32 = 1;
const MAX_X: i32 = 6;
const MIN_Y: i32 = 1;
const MAX_Y: i32 = 6;

const GRID: &str = "stroke=\"#808080\" stroke-opacity=\"0.25\"";
const COLOURS: [&str; 6] = ["#1b9e77", "#d95f02", "#7570b3", "#e7298a", "#66a61e", "#a6761d"];
