//! What was measured, as tables in Markdown, and the bars it is held against.

use std::fmt::Display;

/// A table in Markdown.
pub fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let line = |cells: &[&str]| format!("| {} |\n", cells.join(" | "));
    let rule: Vec<&str> = head.iter().map(|_| "---").collect();
    let rows: String = rows.iter().map(|row| line(&row.iter().map(String::as_str).collect::<Vec<_>>())).collect();
    format!("{}{}{rows}", line(head), line(&rule))
}

/// A number with as many digits as it deserves: three.
pub fn number(value: f64) -> String {
    match value.abs() {
        0.0..1.0 => format!("{value:.2}"),
        1.0..100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

/// A value and its ratio to another.
pub fn with_ratio(value: f64, to: Option<f64>) -> String {
    match to {
        Some(to) if to > 0.0 => format!("{} (× {:.2})", number(value), value / to),
        _ => number(value),
    }
}

/// What was not measured.
pub fn or_dash(value: Option<impl Display>) -> String {
    value.map_or_else(|| "–".to_owned(), |value| value.to_string())
}

/// A bar: what must be shown.
pub struct Bar {
    pub measure: &'static str,
    /// Nothing if a part of it could not be measured.
    pub measured: Option<f64>,
    pub at_most: f64,
    pub unit: &'static str,
}

impl Bar {
    /// Nothing that was not measured is good.
    pub fn is_met(&self) -> bool {
        self.measured.is_some_and(|measured| measured <= self.at_most)
    }

    pub fn row(&self) -> Vec<String> {
        let with_unit = |value: f64| format!("{} {}", number(value), self.unit).trim().to_owned();
        let outcome = match (self.measured, self.is_met()) {
            (None, _) => "not measured",
            (_, true) => "pass",
            (_, false) => "FAIL",
        };
        vec![
            self.measure.to_owned(),
            with_unit(self.at_most),
            or_dash(self.measured.map(with_unit)),
            outcome.to_owned(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_markdown() {
        let rows = [vec!["x".to_owned(), "1".to_owned()]];
        assert_eq!(table(&["a", "b"], &rows), "| a | b |\n| --- | --- |\n| x | 1 |\n");
    }

    #[test]
    fn numbers_have_three_digits() {
        for (value, expected) in [(0.254, "0.25"), (1.0, "1.0"), (23.449, "23.4"), (99.0, "99.0"), (1234.6, "1235")] {
            assert_eq!(number(value), expected);
        }
        assert_eq!(with_ratio(30.0, Some(40.0)), "30.0 (× 0.75)");
        assert_eq!(with_ratio(30.0, None), "30.0");
        assert_eq!(or_dash(None::<f64>), "–");
    }

    #[test]
    fn a_bar_is_met_by_what_was_measured_alone() {
        #[track_caller]
        fn check(measured: Option<f64>, outcome: &str) {
            let bar = Bar { measure: "m", measured, at_most: 0.25, unit: "" };
            assert_eq!(bar.is_met(), outcome == "pass", "{measured:?}");
            assert_eq!(bar.row()[3], outcome);
        }
        check(Some(0.25), "pass");
        check(Some(0.2501), "FAIL");
        check(Some(f64::NAN), "FAIL");
        check(None, "not measured");
    }
}
