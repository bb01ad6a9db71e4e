//! A table that fits the terminal. The first column is flexible, and the least important columns are left out if
//! necessary.

use console::measure_text_width;

use super::{Canvas, cut};

const GAP: &str = "  ";

/// The smallest width of the first column. It is cut to this width before other columns are left out.
const NARROWEST_NAME: usize = 20;
/// The largest width of the first column.
const WIDEST_NAME: usize = 44;

/// The text of one cell, which is escaped, and its SGR code.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cell {
    pub(crate) text: String,
    pub(crate) code: &'static str,
}

impl Cell {
    pub(crate) fn new(text: impl Into<String>, code: &'static str) -> Self {
        Self { text: text.into(), code }
    }
}

#[derive(Debug)]
pub(crate) struct Column {
    pub(crate) title: &'static str,
    pub(crate) right: bool,
    /// The column with the highest number is left out first.
    pub(crate) spare: u8,
    pub(crate) cells: Vec<Cell>,
}

impl Column {
    fn width(&self) -> usize {
        let cells = self.cells.iter().map(|cell| measure_text_width(&cell.text));
        cells.chain([self.title.len()]).max().unwrap_or_default()
    }

    fn is_empty(&self) -> bool {
        self.cells.iter().all(|cell| cell.text.is_empty())
    }

    fn lay(&self, cell: &Cell, width: usize, canvas: Canvas) -> String {
        let gap = " ".repeat(width.saturating_sub(measure_text_width(&cell.text)));
        let text = canvas.paint(cell.code, &cell.text);
        if self.right { format!("{gap}{text}") } else { format!("{text}{gap}") }
    }
}

/// The columns that fit, below their headings. A column without content is left out.
pub(crate) fn lay_out(mut columns: Vec<Column>, canvas: Canvas) -> String {
    let mut first = columns.remove(0);
    columns.retain(|column| !column.is_empty());
    let wanted = first.width().min(WIDEST_NAME);
    let others = |columns: &[Column]| columns.iter().map(|column| GAP.len() + column.width()).sum::<usize>();
    while others(&columns) + wanted.min(NARROWEST_NAME) > canvas.columns {
        let spared = (0..columns.len()).max_by_key(|at| columns[*at].spare);
        let Some(spared) = spared.filter(|at| columns[*at].spare > 0) else { break };
        columns.remove(spared);
    }
    let left = canvas.columns.saturating_sub(others(&columns));
    let width = wanted.min(left).max(1);
    for cell in &mut first.cells {
        cell.text = cut(&cell.text, width);
    }
    columns.insert(0, first);
    let widths: Vec<_> =
        columns.iter().enumerate().map(|(n, c)| if n == 0 { width } else { c.width() }).collect();
    let line = |cell: &dyn Fn(&Column) -> Cell| {
        let cells =
            columns.iter().zip(&widths).map(|(column, width)| column.lay(&cell(column), *width, canvas));
        format!("{}\n", cells.collect::<Vec<_>>().join(GAP).trim_end())
    };
    let mut table = line(&|column| Cell::new(column.title, "2"));
    for row in 0..columns[0].cells.len() {
        table.push_str(&line(&|column| column.cells[row].clone()));
    }
    table
}
