//! The packet programs at network devices: which, how, and what is left of them.

mod choice;
mod facts;
mod filters;
mod links;

use libtest_mimic::Trial;

pub(crate) use facts::folders;

pub(crate) fn tests() -> Vec<Trial> {
    [choice::tests(), links::tests(), filters::tests()].into_iter().flatten().collect()
}
