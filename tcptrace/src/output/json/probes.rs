//! Lines of `tcptrace probes`.

use schemars::JsonSchema;
use serde::Serialize;

use crate::event::Family;
use crate::rehearse::{Value, Wrong};

/// One attachment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ProbeLine {
    /// Kind of attachment and kernel function: `fexit tcp_conn_request`.
    pub name: String,
    /// The program that is attached.
    pub program: String,
    /// The observations that it serves.
    pub observations: Vec<&'static str>,
    /// Whether it is attached.
    pub attached: bool,
    /// Whether it ran in the self-test; null without one, and for what that could not try.
    pub fired: Option<bool>,
    /// Why the self-test could not try it.
    pub not_tried: Option<String>,
    /// How often the program ran in the self-test; programs with several attachments count them together.
    pub runs: Option<u64>,
    /// How many instructions the kernel's verifier went through before it allowed the program; null before 5.16, which does not
    /// tell. The start waits for this work.
    pub verified_instructions: Option<u64>,
}

/// A record of the self-test of which everything is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct RecordLine {
    /// The observation that makes it.
    pub observation: &'static str,
    /// What was done, in words.
    pub record: String,
    /// Over which family.
    pub family: Family,
    /// By what it is observed.
    pub via: String,
    /// Whether it came.
    pub seen: bool,
    /// Fields that are not what they must be.
    pub wrong: Vec<WrongLine>,
}

/// A field that is not what it must be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct WrongLine {
    /// Its name.
    pub field: &'static str,
    /// What was done.
    pub expected: Value,
    /// What the record says; null: nothing.
    pub seen: Option<Value>,
}

impl From<&Wrong> for WrongLine {
    fn from(wrong: &Wrong) -> Self {
        Self { field: wrong.field, expected: wrong.expected, seen: wrong.seen }
    }
}
