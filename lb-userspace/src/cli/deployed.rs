//! The options that `deploy/` and the manual name exist.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use clap::CommandFactory as _;

use super::Cli;

/// The variables and flags of `lb agent`.
fn options() -> BTreeSet<String> {
    let mut cli = Cli::command();
    cli.build();
    let agent = cli.find_subcommand("agent").expect("a command");
    let arguments = agent.get_arguments();
    let names = arguments.flat_map(|argument| {
        let variable = argument.get_env().map(|name| name.to_string_lossy().into_owned());
        variable.into_iter().chain(argument.get_long().map(|name| format!("--{name}")))
    });
    names.collect()
}

/// The files below a path, and their texts.
fn texts(path: &Path, found: &mut Vec<(String, String)>) {
    if path.is_dir() {
        for entry in fs::read_dir(path).expect("a folder").flatten() {
            texts(&entry.path(), found);
        }
    } else {
        let text = fs::read_to_string(path).expect("a text file");
        found.push((path.display().to_string(), text));
    }
}

/// The words of letters, digits, `_` and `-` that begin so.
fn words<'t>(text: &'t str, start: &'t str) -> impl Iterator<Item = &'t str> {
    let parts = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '-');
    parts.filter(move |word| word.len() > start.len() && word.starts_with(start))
}

#[test]
fn options_that_manifests_name_exist() {
    let options = options();
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut files = Vec::new();
    texts(&top.join("deploy/systemd"), &mut files);
    // Its options come with this one.
    if options.contains("--kubernetes") {
        texts(&top.join("deploy/kubernetes"), &mut files);
        texts(&top.join("docs/kubernetes.md"), &mut files);
    }
    let mut named = 0;
    for (file, text) in &files {
        let variables = words(text, "LB_");
        // Elsewhere other programs have flags.
        let agents =
            text.lines().filter(|line| line.contains("lb agent") || line.contains("args: [agent"));
        for option in variables.chain(agents.flat_map(|line| words(line, "--"))) {
            let known = options.contains(option) || option == "--help";
            assert!(known, "{file}: `lb agent` has no {option}");
            named += 1;
        }
    }
    assert!(named > 0, "none was looked at");
}
