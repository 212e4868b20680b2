//! What charts are drawn with: an SVG document, text, lines, marks, axes and legends, laid out by hand.
//!
//! plotters writes the SVG. Its own axes are not used: without font metrics it cannot know how wide a label is.
//! Here every text is anchored where it belongs and gets room by an estimate that errs on the wide side.

use plotters::prelude::*;
use plotters::style::text_anchor::{Pos, VPos};

pub(super) const INK: RGBColor = RGBColor(34, 34, 34);
pub(super) const MUTED: RGBColor = RGBColor(90, 90, 90);
pub(super) const GRID: RGBColor = RGBColor(224, 224, 224);

/// Okabe and Ito's colours, told apart by the colour-blind; yellow, too pale on white, is left out.
pub(super) const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(0, 0, 0),
];

/// Font sizes in pixels.
pub(super) const TITLE: f64 = 15.0;
pub(super) const TEXT: f64 = 12.0;

/// plotters places in whole pixels; documents are drawn this much larger and shown at their size.
const FINE: f64 = 8.0;

/// Where a text is held: its left end, its middle, its right end.
pub(super) use plotters::style::text_anchor::HPos as Hold;

/// A rectangle of a document, with its own origin at the top left; lengths in pixels.
#[derive(Clone, Copy)]
pub(super) struct Canvas<'c, 'd> {
    area: &'c DrawingArea<SVGBackend<'d>, plotters::coord::Shift>,
    origin: (f64, f64),
    pub(super) width: f64,
    pub(super) height: f64,
}

/// An SVG document on white, named `title` for those who cannot see it.
pub(super) fn document(width: f64, height: f64, title: &str, draw: impl FnOnce(&Canvas<'_, '_>)) -> String {
    let size = ((width * FINE) as u32, (height * FINE) as u32);
    let mut drawn = String::new();
    {
        let area = SVGBackend::with_string(&mut drawn, size).into_drawing_area();
        let canvas = Canvas { area: &area, origin: (0.0, 0.0), width, height };
        canvas.rect((0.0, 0.0), (width, height), WHITE, 1.0);
        draw(&canvas);
        area.present().expect("a string takes everything");
    }
    // The head that plotters wrote states the enlarged size.
    let body = drawn.split_once('>').map_or("", |(_, body)| body);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {} {}\" \
         role=\"img\"><title>{}</title>{body}",
        size.0,
        size.1,
        escape(title),
    )
}

/// `text` as it stands in HTML and SVG, also inside quoted attributes.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

/// Estimated width of `text` in pixels.
pub(super) fn text_width(text: &str, size: f64) -> f64 {
    0.6 * size * text.chars().count() as f64
}

/// `text`, cut so that it fits `width` pixels.
pub(super) fn fitted(text: &str, size: f64, width: f64) -> String {
    if text_width(text, size) <= width {
        return text.to_owned();
    }
    let kept = (width / (0.6 * size)).max(2.0) as usize - 1;
    text.chars().take(kept).chain(['…']).collect()
}

impl Canvas<'_, '_> {
    /// The part of `width` and `height` at `origin`.
    pub(super) fn part(&self, origin: (f64, f64), width: f64, height: f64) -> Self {
        Canvas { origin: (self.origin.0 + origin.0, self.origin.1 + origin.1), width, height, ..*self }
    }

    pub(super) fn text(&self, text: &str, at: (f64, f64), hold: Hold, size: f64, colour: RGBColor) {
        // plotters divides sizes by 1.24.
        let style = ("sans-serif", size * FINE * 1.24).into_font().color(&colour);
        self.draw(&Text::new(text, self.fine(at), style.pos(Pos::new(hold, VPos::Center))));
    }

    /// A text around `x`, moved as far as it takes to stay inside.
    pub(super) fn centred(&self, text: &str, (x, y): (f64, f64), colour: RGBColor) {
        let half = text_width(text, TEXT) / 2.0;
        self.text(text, (x.min(self.width - half).max(half), y), Hold::Center, TEXT, colour);
    }

    pub(super) fn title(&self, text: &str, at: (f64, f64)) {
        let style = ("sans-serif", TITLE * FINE * 1.24, FontStyle::Bold).into_font().color(&INK);
        let text = fitted(text, TITLE, self.width - at.0);
        self.draw(&Text::new(text, self.fine(at), style.pos(Pos::new(Hold::Left, VPos::Center))));
    }

    pub(super) fn line(&self, points: &[(f64, f64)], colour: impl Color, width: f64) {
        let points: Vec<(i32, i32)> = points.iter().map(|&p| self.fine(p)).collect();
        self.draw(&PathElement::new(points, colour.stroke_width((width * FINE) as u32)));
    }

    pub(super) fn dashed(&self, from: (f64, f64), to: (f64, f64), colour: RGBColor, width: f64) {
        let (dash, gap) = (5.0, 4.0);
        let length = (to.0 - from.0).hypot(to.1 - from.1);
        let at = |d: f64| {
            let t = (d / length).min(1.0);
            (from.0 + t * (to.0 - from.0), from.1 + t * (to.1 - from.1))
        };
        for i in 0..(length / (dash + gap)).ceil() as usize {
            let start = i as f64 * (dash + gap);
            self.line(&[at(start), at(start + dash)], colour, width);
        }
    }

    pub(super) fn rect(&self, from: (f64, f64), to: (f64, f64), colour: RGBColor, opacity: f64) {
        self.draw(&Rectangle::new([self.fine(from), self.fine(to)], colour.mix(opacity).filled()));
    }

    /// A mark of about 8 pixels; `kind` 0 to 3 gives a disc, square, triangle, diamond.
    pub(super) fn mark(&self, at: (f64, f64), kind: usize, colour: RGBColor) {
        let corners: &[(f64, f64)] = match kind % 4 {
            0 => return self.disc(at, 3.5, colour),
            1 => &[(-3.2, -3.2), (3.2, -3.2), (3.2, 3.2), (-3.2, 3.2)],
            2 => &[(0.0, -4.4), (4.2, 3.2), (-4.2, 3.2)],
            _ => &[(0.0, -4.6), (4.6, 0.0), (0.0, 4.6), (-4.6, 0.0)],
        };
        let corners: Vec<(i32, i32)> = corners.iter().map(|c| self.fine((at.0 + c.0, at.1 + c.1))).collect();
        self.draw(&Polygon::new(corners, colour.filled()));
    }

    fn disc(&self, at: (f64, f64), radius: f64, colour: RGBColor) {
        self.draw(&Circle::new(self.fine(at), (radius * FINE) as i32, colour.filled()));
    }

    fn fine(&self, at: (f64, f64)) -> (i32, i32) {
        (((at.0 + self.origin.0) * FINE).round() as i32, ((at.1 + self.origin.1) * FINE).round() as i32)
    }

    fn draw<'e, E>(&self, element: &'e E)
    where
        &'e E: plotters::element::PointCollection<'e, (i32, i32)>,
        E: for<'b> plotters::element::Drawable<SVGBackend<'b>>,
    {
        self.area.draw(element).expect("a string takes everything");
    }
}

/// What stands beside a name in a legend.
#[derive(Clone, Copy)]
pub(super) enum Key {
    /// A line with a mark of this kind, or none.
    Line(RGBColor, Option<usize>),
    Dashed(RGBColor),
    Bar(RGBColor),
}

/// Height of a line of a legend.
const LEGEND_LINE: f64 = 18.0;

/// Draws a legend from `at` on, in as many lines as the width asks for; returns the height it took.
pub(super) fn legend(canvas: &Canvas<'_, '_>, at: (f64, f64), entries: &[(String, Key)]) -> f64 {
    for ((name, (dx, dy)), (_, key)) in legend_places(canvas.width - at.0, entries).into_iter().zip(entries) {
        let (x, y) = (at.0 + dx, at.1 + dy);
        match *key {
            Key::Line(colour, mark) => {
                canvas.line(&[(x, y), (x + 22.0, y)], colour, 2.0);
                if let Some(kind) = mark {
                    canvas.mark((x + 11.0, y), kind, colour);
                }
            }
            Key::Dashed(colour) => canvas.dashed((x, y), (x + 22.0, y), colour, 1.5),
            Key::Bar(colour) => canvas.rect((x + 4.0, y - 5.5), (x + 18.0, y + 5.5), colour, 1.0),
        }
        canvas.text(&name, (x + 28.0, y), Hold::Left, TEXT, INK);
    }
    legend_height(canvas.width - at.0, entries)
}

/// Height of a legend in `width` pixels.
pub(super) fn legend_height(width: f64, entries: &[(String, Key)]) -> f64 {
    legend_places(width, entries).last().map_or(0.0, |(_, (_, y))| y + LEGEND_LINE)
}

/// The names, cut to the width, and where each entry begins.
fn legend_places(width: f64, entries: &[(String, Key)]) -> Vec<(String, (f64, f64))> {
    let (mut x, mut y) = (0.0, 0.0);
    let place = |(name, _): &(String, Key)| {
        let name = fitted(name, TEXT, width - 40.0);
        let taken = 38.0 + text_width(&name, TEXT);
        if x > 0.0 && x + taken > width {
            (x, y) = (0.0, y + LEGEND_LINE);
        }
        let at = (x, y);
        x += taken;
        (name, at)
    };
    entries.iter().map(place).collect()
}

/// A linear scale: values `from .. to` lie at the pixels `start .. end`.
#[derive(Clone, Copy)]
pub(super) struct Axis {
    pub(super) from: f64,
    pub(super) to: f64,
    pub(super) start: f64,
    pub(super) end: f64,
}

impl Axis {
    pub(super) fn at(&self, value: f64) -> f64 {
        self.start + (value - self.from) / (self.to - self.from) * (self.end - self.start)
    }

    /// Round values in range, about `count` of them, with their labels.
    pub(super) fn ticks(&self, count: usize) -> Vec<(f64, String)> {
        let rough = (self.to - self.from) / count as f64;
        let power = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|m| m * power).into_iter().find(|s| *s >= rough * 0.999);
        let step = step.unwrap_or(rough);
        let decimals = (-(step.log10() + 1e-9).floor()).max(0.0) as usize;
        let (first, last) = ((self.from / step - 1e-9).ceil(), (self.to / step + 1e-9).floor());
        let values = (0..=(last - first) as usize).map(|i| (first + i as f64) * step);
        values.map(|value| (value, number(value, decimals))).collect()
    }
}

/// `12,600` or `0.72`, and `2e12` from a thousand million on.
fn number(value: f64, decimals: usize) -> String {
    if value.abs() >= 1e9 {
        return format!("{value:.1e}").replace(".0e", "e");
    }
    let text = format!("{:.decimals$}", if value == 0.0 { 0.0 } else { value });
    if decimals > 0 { text } else { thousands(&text) }
}

/// Digits in groups of three: `12600` becomes `12,600`.
pub(super) fn thousands(digits: &str) -> String {
    let mut grouped = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) && !grouped.ends_with('-') {
            grouped.push(',');
        }
        grouped.push(c);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(from: f64, to: f64, count: usize) -> Vec<String> {
        let axis = Axis { from, to, start: 0.0, end: 1.0 };
        axis.ticks(count).into_iter().map(|tick| tick.1).collect()
    }

    #[test]
    fn ticks_are_round_and_in_range() {
        assert_eq!(labels(0.0, 150.0, 5), ["0", "50", "100", "150"]);
        assert_eq!(labels(0.0, 15_000.0, 3), ["0", "5,000", "10,000", "15,000"]);
        assert_eq!(labels(0.643, 0.704, 5), ["0.66", "0.68", "0.70"]);
        assert_eq!(labels(-0.2, 0.2, 4), ["-0.2", "-0.1", "0.0", "0.1", "0.2"]);
        assert_eq!(labels(0.0, 2e300, 2), ["0", "1e300", "2e300"]);
        assert_eq!(labels(0.0, 1.0, 5), ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
    }

    #[test]
    fn texts_are_escaped_fitted_and_grouped() {
        assert_eq!(escape("<a href=\"x\">&'"), "&lt;a href=&quot;x&quot;&gt;&amp;&#39;");
        assert_eq!(fitted("a_rather_long_name", 10.0, 60.0), "a_rather_…");
        assert_eq!(fitted("short", 10.0, 60.0), "short");
        assert_eq!(["7", "1234", "-123", "-1234567"].map(thousands), ["7", "1,234", "-123", "-1,234,567"]);
    }
}
