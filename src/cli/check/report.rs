//! Prints the result of each check as soon as it is known.

use crate::{
    Exit,
    text::{Canvas, count, print},
};

/// The widths of the verdict and of the subject.
const VERDICT: usize = 6;
const SUBJECT: usize = 15;
const REMEDY: usize = VERDICT + 2;

#[derive(Debug)]
pub(super) struct Report {
    canvas: Canvas,
    /// Replaces standard output in tests.
    kept: Option<String>,
    first_failure: Option<Exit>,
    failures: u32,
    warnings: u32,
}

impl Report {
    pub(super) fn stdout() -> Self {
        Self { canvas: Canvas::stdout(), kept: None, first_failure: None, failures: 0, warnings: 0 }
    }

    pub(super) fn ok(&mut self, subject: &str, found: &str) {
        self.line(("ok", "32"), subject, found, &[]);
    }

    /// A check that was skipped, because something else is missing.
    pub(super) fn skip(&mut self, subject: &str, why: &str) {
        self.line(("-", "2"), subject, why, &[]);
    }

    pub(super) fn warn(&mut self, subject: &str, found: &str, remedies: &[&str]) {
        self.warnings += 1;
        self.line(("warn", "33"), subject, found, remedies);
    }

    /// `exit`: the exit code if this is the first failure.
    pub(super) fn fail(&mut self, exit: Exit, subject: &str, found: &str, remedies: &[&str]) {
        self.failures += 1;
        self.first_failure.get_or_insert(exit);
        self.line(("FAIL", "1;31"), subject, found, remedies);
    }

    /// The last line, and the exit code.
    pub(super) fn end(mut self) -> Exit {
        let text = match (self.failures, self.warnings) {
            (0, 0) => "No problems: `backscroll run` can archive.".to_owned(),
            (0, warnings) => format!("{}; `backscroll run` can archive.", count(warnings, "warning")),
            (failures, 0) => format!("{}.", count(failures, "failure")),
            (failures, warnings) => {
                format!("{}, {}.", count(failures, "failure"), count(warnings, "warning"))
            }
        };
        self.show(&format!("\n{text}\n"));
        self.first_failure.unwrap_or(Exit::Success)
    }

    fn line(&mut self, (verdict, code): (&str, &str), subject: &str, found: &str, remedies: &[&str]) {
        let head = format!("{}{subject:<SUBJECT$}", self.canvas.paint(code, &format!("{verdict:<VERDICT$}")));
        let mut lines = found.lines();
        let mut text = self.canvas.hang(&head, VERDICT + SUBJECT, lines.next().unwrap_or_default());
        // An error of several lines contains its remedies, indented by two.
        for line in lines.map(|line| line.strip_prefix("  ").unwrap_or(line)).chain(remedies.iter().copied())
        {
            let indent = REMEDY + line.len() - line.trim_start().len();
            text += &self.canvas.hang(&" ".repeat(indent), indent + 2, line);
        }
        self.show(&text);
    }

    fn show(&mut self, text: &str) {
        match &mut self.kept {
            Some(kept) => kept.push_str(text),
            // A reader that closes the pipe does not change the result.
            None => drop(print(text)),
        }
    }
}

#[cfg(test)]
impl Report {
    pub(super) fn kept(columns: usize) -> Self {
        let canvas = Canvas { columns, colour: false };
        Self { canvas, kept: Some(String::new()), first_failure: None, failures: 0, warnings: 0 }
    }

    pub(super) fn text(&self) -> &str {
        self.kept.as_deref().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_has_its_remedy_below_it() {
        let mut report = Report::kept(60);
        report.ok("homeserver", "https://hs.test answers");
        report.fail(
            Exit::Unavailable,
            "database",
            "failed to connect: connection refused by everybody in sight",
            &["start it"],
        );
        report.fail(Exit::Configuration, "token", "failed\n  do one of:\n    this", &[]);
        report.skip("rooms", "needs a token\u{1b}[2J");
        assert_eq!(
            report.text(),
            "\
ok    homeserver     https://hs.test answers
FAIL  database       failed to connect: connection refused
                     by everybody in sight
        start it
FAIL  token          failed
        do one of:
          this
-     rooms          needs a token\\u{1b}[2J
"
        );
        assert_eq!(report.end(), Exit::Unavailable);
        let mut report = Report::kept(60);
        report.warn("x", "y", &[]);
        assert_eq!(report.end(), Exit::Success);
    }
}
