//! What is kept of a column while its cells pass by.

use super::distinct::Counter;

/// Marks that may stand between the values of a list, the surer first.
pub(super) const SEPARATORS: [u8; 5] = *b"|;^, ";
/// Texts that often mean "missing".
const MISSING: [&str; 10] = ["na", "n/a", "nan", "null", "none", "nil", "?", "-", "\\n", "unknown"];
/// Values that are shown.
const EXAMPLES: usize = 3;

/// What is kept of a column: the same few kilobytes, however many rows there are.
#[derive(Clone, Debug, Default)]
pub(super) struct Sketch {
    pub(super) rows: u64,
    /// Empty cells.
    pub(super) empty: u64,
    /// Cells with a text that means "missing", and those texts.
    pub(super) said_missing: u64,
    pub(super) missing_texts: Vec<String>,
    /// Cells that are neither missing nor a finite number.
    pub(super) texts: u64,
    pub(super) values: Counter,
    pub(super) numbers: Numbers,
    pub(super) lists: [Lists; SEPARATORS.len()],
    pub(super) examples: Vec<String>,
}

/// The numbers of a column.
#[derive(Clone, Copy, Debug)]
pub(super) struct Numbers {
    pub(super) count: u64,
    pub(super) zeros: u64,
    pub(super) ones: u64,
    pub(super) whole: u64,
    pub(super) least: f64,
    pub(super) largest: f64,
    pub(super) mean: f64,
    squares: f64,
}

/// The cells of a column as lists with one separator.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Lists {
    /// Cells that have the separator.
    pub(super) cells: u64,
    pub(super) shortest: u64,
    pub(super) longest: u64,
    /// Values of all of them.
    pub(super) values: u64,
    /// Cells with a value that is more than letters, digits and plain marks: a range, a sentence.
    pub(super) unclean: u64,
}

impl Sketch {
    /// Takes note of a cell. Returns its number, if it is one.
    pub(super) fn add(&mut self, cell: &str) -> Option<f64> {
        self.rows += 1;
        let text = cell.trim();
        if text.is_empty() {
            self.empty += 1;
            return None;
        }
        self.values.add(text);
        if self.examples.len() < EXAMPLES && !self.examples.iter().any(|example| example == text) {
            self.examples.push(text.to_owned());
        }
        if MISSING.iter().any(|missing| text.eq_ignore_ascii_case(missing)) {
            self.said_missing += 1;
            if !self.missing_texts.iter().any(|missing| missing == text) {
                self.missing_texts.push(text.to_owned());
            }
            return None;
        }
        for (lists, separator) in self.lists.iter_mut().zip(SEPARATORS) {
            if text.as_bytes().contains(&separator) {
                lists.add(text, separator.into());
            }
        }
        let number = text.parse::<f64>().ok().filter(|x| x.abs() <= f64::from(f32::MAX));
        match number {
            Some(x) => self.numbers.add(x),
            None => self.texts += 1,
        }
        number
    }

    /// Cells that are not missing.
    pub(super) fn present(&self) -> u64 {
        self.rows - self.empty - self.said_missing
    }

    /// Whether every cell that is not missing is a number.
    pub(super) fn is_numeric(&self) -> bool {
        self.texts == 0 && self.numbers.count > 0
    }

    /// Whether every cell is 0 or 1.
    pub(super) fn is_binary(&self) -> bool {
        self.rows > 0 && self.numbers.zeros + self.numbers.ones == self.rows
    }
}

impl Default for Numbers {
    fn default() -> Self {
        Numbers {
            count: 0,
            zeros: 0,
            ones: 0,
            whole: 0,
            least: f64::INFINITY,
            largest: f64::NEG_INFINITY,
            mean: 0.0,
            squares: 0.0,
        }
    }
}

impl Numbers {
    fn add(&mut self, x: f64) {
        self.count += 1;
        self.zeros += u64::from(x == 0.0);
        self.ones += u64::from(x == 1.0);
        self.whole += u64::from(x.fract() == 0.0);
        self.least = self.least.min(x);
        self.largest = self.largest.max(x);
        // Welford's update.
        let before = x - self.mean;
        self.mean += before / self.count as f64;
        self.squares += before * (x - self.mean);
    }

    /// Population standard deviation.
    pub(super) fn deviation(&self) -> f64 {
        (self.squares / self.count.max(1) as f64).sqrt()
    }
}

impl Lists {
    fn add(&mut self, text: &str, separator: char) {
        let (mut values, mut clean) = (0, true);
        for value in text.split(separator).filter(|value| !value.is_empty()) {
            values += 1;
            clean &= value.chars().all(|c| c.is_alphanumeric() || "_-.:/+#&".contains(c));
        }
        self.shortest = if self.cells == 0 { values } else { self.shortest.min(values) };
        self.longest = self.longest.max(values);
        self.cells += 1;
        self.values += values;
        self.unclean += u64::from(!clean);
    }
}

/// How a column and a label go together: correlations of the label with the column's number, and with whether the cell
/// is present and not 0.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Association {
    number: Correlation,
    presence: Correlation,
}

impl Association {
    pub(super) fn add(&mut self, cell: &str, number: Option<f64>, label: f64) {
        if let Some(x) = number {
            self.number.add(x, label);
        }
        let present = number.map_or(!cell.trim().is_empty(), |x| x != 0.0);
        self.presence.add(f64::from(u8::from(present)), label);
    }

    /// The larger of the two, without sign.
    pub(super) fn strength(&self) -> f64 {
        self.number.strength().max(self.presence.strength())
    }
}

/// Pearson's correlation of a stream of pairs.
#[derive(Clone, Copy, Debug, Default)]
struct Correlation {
    n: f64,
    means: [f64; 2],
    squares: [f64; 2],
    products: f64,
}

impl Correlation {
    fn add(&mut self, x: f64, y: f64) {
        self.n += 1.0;
        let before = [x - self.means[0], y - self.means[1]];
        self.means[0] += before[0] / self.n;
        self.means[1] += before[1] / self.n;
        let after = [x - self.means[0], y - self.means[1]];
        self.squares[0] += before[0] * after[0];
        self.squares[1] += before[1] * after[1];
        self.products += before[0] * after[1];
    }

    fn strength(&self) -> f64 {
        let scale = (self.squares[0] * self.squares[1]).sqrt();
        if scale > 0.0 { (self.products / scale).abs() } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sketch(cells: &[&str]) -> Sketch {
        let mut sketch = Sketch::default();
        for cell in cells {
            sketch.add(cell);
        }
        sketch
    }

    #[test]
    fn cells_are_missing_numbers_or_texts() {
        let s = sketch(&["1", " 2.5 ", "", "NA", "NaN", "inf", "abc"]);
        assert_eq!((s.rows, s.empty, s.said_missing, s.texts, s.numbers.count), (7, 1, 2, 2, 2));
        assert_eq!(s.missing_texts, ["NA", "NaN"]);
        assert_eq!(
            (s.numbers.least, s.numbers.largest, s.numbers.mean, s.numbers.whole),
            (1.0, 2.5, 1.75, 1)
        );
        assert!((s.numbers.deviation() - 0.75).abs() < 1e-12);
        assert_eq!(s.present(), 4);
        assert!(sketch(&["0", "1", "1.0"]).is_binary() && !sketch(&["0", ""]).is_binary());
    }

    #[test]
    fn lists_are_seen_by_each_separator() {
        let s = sketch(&["a|b|c", "a", "a|b", "(1,2]"]);
        let Lists { cells, shortest, longest, values, unclean } = s.lists[0];
        assert_eq!((cells, shortest, longest, values, unclean), (2, 2, 3, 5, 0));
        assert_eq!((s.lists[3].cells, s.lists[3].unclean), (1, 1));
    }

    #[test]
    fn a_column_that_tells_the_label_is_noticed() {
        let (mut told, mut other) = (Association::default(), Association::default());
        for (row, label) in [0.0, 1.0, 1.0, 0.0, 0.0, 1.0].into_iter().enumerate() {
            let paid = if label == 1.0 { (row * 100) as f64 + 1.0 } else { 0.0 };
            told.add("x", Some(paid), label);
            other.add("x", Some((row % 3) as f64), label);
        }
        assert!((told.strength() - 1.0).abs() < 1e-12);
        assert!(other.strength() < 0.9);
    }
}
