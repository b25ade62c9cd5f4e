//! Why an object is invalid, in the words of apimachinery's `field.Error`.

use std::fmt;

use serde_json::Value;

use crate::object::Key;

/// One thing that is wrong with one field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// Path of the field: `spec.ports[0].port`.
    pub field: String,
    /// What is wrong: `Invalid value: 70000: must be between 1 and 65535, inclusive`.
    pub problem: String,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.problem)
    }
}

/// An object that was refused, with everything that is wrong with it. Displayed as kubectl does:
/// one cause on the line, several as a list.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Invalid {
    /// The object.
    pub key: Key,
    /// At least one.
    pub causes: Vec<Cause>,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?} is invalid: ", self.key.kind.name(), &*self.key.name)?;
        match self.causes.as_slice() {
            [only] => write!(f, "{only}"),
            several => several.iter().try_for_each(|cause| write!(f, "\n* {cause}")),
        }
    }
}

/// Collects causes. The methods are named as the constructors of `field.Error`.
#[derive(Debug, Default)]
pub(super) struct Causes(Vec<Cause>);

impl Causes {
    pub(super) fn invalid(
        &mut self,
        field: impl Into<String>,
        value: impl Into<Value>,
        rule: impl fmt::Display,
    ) {
        self.push(field, format!("Invalid value: {}: {rule}", value.into()));
    }

    pub(super) fn required(&mut self, field: impl Into<String>, detail: &str) {
        let colon = if detail.is_empty() { "" } else { ": " };
        self.push(field, format!("Required value{colon}{detail}"));
    }

    pub(super) fn duplicate(&mut self, field: impl Into<String>, value: impl Into<Value>) {
        self.push(field, format!("Duplicate value: {}", value.into()));
    }

    pub(super) fn forbidden(&mut self, field: impl Into<String>, detail: &str) {
        self.push(field, format!("Forbidden: {detail}"));
    }

    /// `NotSupported`.
    pub(super) fn unsupported(
        &mut self,
        field: impl Into<String>,
        value: impl Into<Value>,
        supported: &[&str],
    ) {
        let supported: Vec<_> = supported.iter().map(|value| format!("{value:?}")).collect();
        let supported = supported.join(", ");
        self.push(
            field,
            format!("Unsupported value: {}: supported values: {supported}", value.into()),
        );
    }

    pub(super) fn too_many(&mut self, field: impl Into<String>, actual: usize, most: usize) {
        self.push(field, format!("Too many: {actual}: must have at most {most} items"));
    }

    pub(super) fn too_long(&mut self, field: impl Into<String>, most: usize) {
        self.push(field, format!("Too long: may not be more than {most} bytes"));
    }

    /// Nothing is wrong with the field, but it cannot be had (`InternalError`).
    pub(super) fn internal(&mut self, field: impl Into<String>, detail: impl fmt::Display) {
        self.push(field, format!("Internal error: {detail}"));
    }

    /// One `Invalid` for each broken rule.
    pub(super) fn each(
        &mut self,
        field: &str,
        value: &str,
        rules: impl IntoIterator<Item = String>,
    ) {
        for rule in rules {
            self.invalid(field, value, rule);
        }
    }

    /// Checks that an optional field has one of a few values.
    pub(super) fn one_of(&mut self, field: &str, value: Option<&str>, supported: &[&str]) {
        if let Some(value) = value.filter(|value| !supported.contains(value)) {
            self.unsupported(field, value, supported);
        }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn into_vec(self) -> Vec<Cause> {
        self.0
    }

    fn push(&mut self, field: impl Into<String>, problem: String) {
        self.0.push(Cause { field: field.into(), problem });
    }
}
