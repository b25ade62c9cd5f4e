//! A failing test's report: what did not hold, where, and the log of the agents it ran.

use std::backtrace::Backtrace;
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};

use libtest_mimic::{Failed, Trial};

thread_local! {
    static IN_TEST: Cell<bool> = const { Cell::new(false) };
    static FAILURE: RefCell<Option<String>> = const { RefCell::new(None) };
    static EVIDENCE: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Makes a panic of a test part of its report; other threads' panics are printed as ever.
pub(crate) fn install() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if IN_TEST.get() {
            FAILURE.with_borrow_mut(|failure| {
                failure.get_or_insert_with(|| describe(info));
            });
        } else {
            usual(info);
        }
    }));
}

fn describe(info: &PanicHookInfo<'_>) -> String {
    let message = info.payload_as_str().unwrap_or("a panic without a message");
    let place = info.location().map(ToString::to_string).unwrap_or_default();
    let frames = Backtrace::force_capture().to_string();
    format!("{message}\n  at {place}{}", callers(&frames))
}

/// The lines of the tests themselves that led to the panic, innermost first: what panics is mostly
/// a helper of the harness.
fn callers(frames: &str) -> String {
    let of_a_test = |frame: &&str| {
        let file = frame.split_once("tests/e2e/").map(|(_, file)| file);
        let helpers = ["harness/", "probe/", "main.rs"];
        file.is_some_and(|file| !helpers.iter().any(|helper| file.starts_with(helper)))
    };
    let places = frames.lines().filter_map(|line| line.trim_start().strip_prefix("at "));
    places.filter(of_a_test).map(|place| format!("\n  called at {place}")).collect()
}

/// Adds to the report of the test that is failing on this thread.
pub(crate) fn evidence(title: &str, text: &str) {
    EVIDENCE.with_borrow_mut(|all| all.push(format!("---- {title}\n{}", text.trim_end())));
}

/// A test as the runner wants it.
pub(crate) fn trial(path: &str, test: fn()) -> Trial {
    let name = path.split_once("::").map_or(path, |(_crate, rest)| rest).to_owned();
    Trial::test(name, move || run(test))
}

fn run(test: fn()) -> Result<(), Failed> {
    IN_TEST.set(true);
    FAILURE.set(None);
    EVIDENCE.set(Vec::new());
    let outcome = catch_unwind(AssertUnwindSafe(test));
    IN_TEST.set(false);
    if outcome.is_ok() {
        return Ok(());
    }
    let mut report = vec![FAILURE.take().unwrap_or_else(|| "panicked".to_owned())];
    report.extend(EVIDENCE.take());
    Err(Failed::from(report.join("\n")))
}
