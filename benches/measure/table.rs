//! Medians and quartiles, in a table that can go into a README.

/// One column of figures: what was measured, over repetitions.
#[derive(Clone, Debug, Default)]
pub(crate) struct Row {
    name: String,
    cells: Vec<String>,
}

/// The quartiles of some figures.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Quartiles {
    pub(crate) lower: f64,
    pub(crate) median: f64,
    pub(crate) upper: f64,
}

impl Quartiles {
    /// By linear interpolation between neighbours; zeros for no figures.
    pub(crate) fn of(figures: &[f64]) -> Self {
        let mut sorted = figures.to_vec();
        sorted.sort_by(f64::total_cmp);
        let at = |share: f64| quantile(&sorted, share);
        Self { lower: at(0.25), median: at(0.5), upper: at(0.75) }
    }
}

/// The value below which `share` of the ascending figures lie.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "an index into a short list"
)]
pub(crate) fn quantile(sorted: &[f64], share: f64) -> f64 {
    let place = share * sorted.len().saturating_sub(1) as f64;
    let below = sorted.get(place.floor() as usize).copied().unwrap_or_default();
    let above = sorted.get(place.ceil() as usize).copied().unwrap_or(below);
    below + (above - below) * place.fract()
}

impl Row {
    pub(crate) fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), cells: Vec::new() }
    }

    /// A cell with the median of `figures` and their quartiles.
    pub(crate) fn quartiles(mut self, figures: &[f64], digits: usize) -> Self {
        let Quartiles { lower, median, upper } = Quartiles::of(figures);
        self.cells.push(format!("{median:.digits$} ({lower:.digits$}–{upper:.digits$})"));
        self
    }

    /// A cell with the median of `figures`, and the least and the most where there are several.
    pub(crate) fn extremes(mut self, figures: &[f64], digits: usize) -> Self {
        let Quartiles { median, .. } = Quartiles::of(figures);
        let (least, most) = figures
            .iter()
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), it| (it.min(least), it.max(most)));
        self.cells.push(match figures {
            [_] => format!("{median:.digits$}"),
            _ => format!("{median:.digits$} ({least:.digits$}–{most:.digits$})"),
        });
        self
    }

    pub(crate) fn cell(mut self, cell: impl Into<String>) -> Self {
        self.cells.push(cell.into());
        self
    }
}

/// Prints rows under a heading, as Markdown.
pub(crate) fn print(heads: &[&str], rows: &[Row]) {
    let mut lines = vec![heads.iter().map(|head| (*head).to_owned()).collect::<Vec<_>>()];
    lines.extend(
        rows.iter().map(|row| {
            std::iter::once(row.name.clone()).chain(row.cells.iter().cloned()).collect::<Vec<_>>()
        }),
    );
    let widths: Vec<usize> = (0..heads.len())
        .map(|column| lines.iter().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max())
        .map(Option::unwrap_or_default)
        .collect();
    let print = |cells: &[String]| {
        let padded = cells.iter().zip(&widths).enumerate().map(|(column, (cell, width))| {
            let pad = " ".repeat(width - cell.chars().count());
            if column == 0 { format!("{cell}{pad}") } else { format!("{pad}{cell}") }
        });
        crate::say(&format!("| {} |", padded.collect::<Vec<_>>().join(" | ")));
    };
    for (index, line) in lines.iter().enumerate() {
        print(line);
        if index == 0 {
            let rules = widths.iter().enumerate().map(|(column, width)| {
                if column == 0 { "-".repeat(*width) } else { format!("{}:", "-".repeat(width - 1)) }
            });
            print(&rules.collect::<Vec<_>>());
        }
    }
    crate::say("");
}
