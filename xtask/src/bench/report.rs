//! The report: a table on the terminal, and `target/bench/report.md` and `report.json`.

use std::fmt::Write as _;
use std::fs;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::pairs::{Comparison, Goal, Row, Spread};
use crate::workspace;

const HEADER: [&str; 6] = ["case", "quantity", "lb", "reference", "ratio", "goal"];

/// Prints what was found, and writes both files.
pub(super) fn show(machine: &[(&str, String)], comparisons: &[Comparison]) -> Result<()> {
    let text = markdown(machine, comparisons);
    println!("\n{text}");
    let folder = workspace::target_dir().join("bench");
    let write = |name: &str, content: &str| {
        let file = folder.join(name);
        fs::create_dir_all(&folder)
            .and_then(|()| fs::write(&file, content))
            .with_context(|| format!("cannot write {}", file.display()))
    };
    write("report.md", &text)?;
    write("report.json", &format!("{:#}\n", data(machine, comparisons)))?;
    println!("written to {}: report.md, report.json", folder.display());
    Ok(())
}

fn markdown(machine: &[(&str, String)], comparisons: &[Comparison]) -> String {
    let mut text = String::from("# Benchmark\n\n");
    for (name, value) in machine {
        let _ = writeln!(text, "- {name}: {value}");
    }
    for comparison in comparisons {
        let Comparison { scenario, reference, conditions, rows } = comparison;
        let _ =
            writeln!(text, "\n## {scenario}\n\nReference: {reference}. Each number is a median,");
        let _ = writeln!(text, "with the least and the greatest; the ratio is lb to reference.\n");
        text += &table(rows);
        text.push('\n');
        for condition in conditions {
            let _ = writeln!(text, "- {condition}");
        }
    }
    text
}

/// A table that reads well as text, too.
fn table(rows: &[Row]) -> String {
    let mut lines = vec![HEADER.map(str::to_owned)];
    lines.extend(rows.iter().map(|row| {
        let goal = row.goal.map_or_else(String::new, |goal| verdict(goal, row.ratio().median));
        [
            row.case.clone(),
            row.quantity.clone(),
            spread(row.subject(), number),
            spread(row.reference(), number),
            spread(row.ratio(), |ratio| format!("{ratio:.2}")),
            goal,
        ]
    }));
    let widths: [usize; HEADER.len()] = std::array::from_fn(|column| {
        lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0)
    });
    lines.insert(1, widths.map(|width| "-".repeat(width)));
    let mut text = String::new();
    for line in &lines {
        for (cell, width) in line.iter().zip(widths) {
            let _ = write!(text, "| {cell:width$} ");
        }
        text.push_str("|\n");
    }
    text
}

fn verdict(goal: Goal, ratio: f64) -> String {
    let wanted = match goal {
        Goal::AtLeast(bound) => format!("≥ {bound}"),
        Goal::AtMost(bound) => format!("≤ {bound}"),
    };
    format!("{wanted}: {}", if goal.is_met(ratio) { "met" } else { "missed" })
}

fn spread(spread: Spread, show: impl Fn(f64) -> String) -> String {
    // The ratio of nothing to nothing.
    if spread.median.is_nan() {
        return "–".to_owned();
    }
    format!("{} ({}–{})", show(spread.median), show(spread.least), show(spread.greatest))
}

/// Three significant digits at the least.
fn number(value: f64) -> String {
    match value.abs() {
        small if small < 10.0 => format!("{value:.2}"),
        middle if middle < 100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

fn data(machine: &[(&str, String)], comparisons: &[Comparison]) -> Value {
    let machine: serde_json::Map<String, Value> =
        machine.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
    let of = |spread: Spread| json!({ "median": spread.median, "least": spread.least, "greatest": spread.greatest });
    let rows = |comparison: &Comparison| -> Vec<Value> {
        let row = |row: &Row| {
            json!({
                "case": row.case,
                "quantity": row.quantity,
                "lb": of(row.subject()),
                "reference": of(row.reference()),
                "ratio": of(row.ratio()),
                "pairs": row.pairs,
                "goal_met": row.goal.map(|goal| goal.is_met(row.ratio().median)),
            })
        };
        comparison.rows.iter().map(row).collect()
    };
    let scenarios: Vec<Value> = comparisons
        .iter()
        .map(|comparison| {
            json!({
                "scenario": comparison.scenario,
                "reference": comparison.reference,
                "conditions": comparison.conditions,
                "rows": rows(comparison),
            })
        })
        .collect();
    json!({ "machine": machine, "scenarios": scenarios })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_shows_medians_the_ratio_and_whether_the_goal_is_met() {
        let rows = [Row {
            case: "A".into(),
            quantity: "queries/s".into(),
            pairs: vec![[40_000.0, 80_000.0], [44_000.0, 80_000.0], [20_000.0, 80_000.0]],
            goal: Some(Goal::AtLeast(0.5)),
        }];
        let table = table(&rows);
        let line = table.lines().last().expect("a row");
        for cell in ["40000 (20000–44000)", "80000 (80000–80000)", "0.50 (0.25–0.55)", "≥ 0.5: met"]
        {
            assert!(line.contains(cell), "{cell} is missing: {line}");
        }
        let lengths: Vec<usize> = table.lines().map(|line| line.chars().count()).collect();
        assert!(lengths.iter().all(|length| *length == lengths[0]), "ragged:\n{table}");
    }
}
