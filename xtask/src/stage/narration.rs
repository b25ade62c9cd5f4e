//! How a command speaks that shows what it does: steps, the commands as run, what they answered, what that proves.

use std::path::Path;
use std::process::Command;

/// Opens a step of the story.
pub(crate) fn step(title: &str) {
    println!("\n── {title}");
}

/// A command, as a person would type it; `place` says where it runs.
pub(crate) fn command(place: &str, command: &Command) {
    let program = Path::new(command.get_program()).file_name().unwrap_or_default();
    let words = std::iter::once(program).chain(command.get_args());
    let line: Vec<String> = words.map(|word| quoted(&word.to_string_lossy())).collect();
    println!("{place} $ {}", line.join(" "));
}

/// What a command answered.
pub(crate) fn seen(output: &str) {
    for line in output.lines() {
        println!("    {line}");
    }
}

/// What was checked, and holds.
pub(crate) fn verified(fact: &str) {
    println!("  ✓ {fact}");
}

fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_so_that_the_line_can_be_pasted() {
        assert_eq!(quoted("--host=10.96.0.7"), "--host=10.96.0.7");
        assert_eq!(quoted("SELECT 1"), "'SELECT 1'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted(""), "''");
    }
}
