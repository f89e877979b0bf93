//! A finding as a line: the same object live, replayed and reported.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Serialize, Serializer};

use super::identity::{Endpoint, Range, Subject, Time, options};
use crate::check::RULES;
use crate::finding::{
    Confidence, Evidence, ExplainedBy, Finding, KINDS, Key, Remedy, Severity, State, Value, keys,
};

/// A diagnosis: what is wrong, with whom, why, and what to do. It is reported when it opens, at most once a second while it
/// changes, and when it closes; `id` is the same in all of these lines.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct FindingLine {
    /// Its number, from 1; the same in all lines of one finding of one run or recording.
    pub id: u64,
    /// What kind of finding: `tcptrace explain CODE` explains it.
    pub code: &'static str,
    /// Whether it is new, changed or over.
    pub state: State,
    /// How bad it is.
    pub severity: Severity,
    /// How sure it is of its cause.
    pub confidence: Confidence,
    /// One sentence.
    pub title: String,
    /// What it is about.
    pub subject: Subject,
    /// The cause's code.
    pub cause: &'static str,
    /// The cause in words.
    pub explanation: String,
    /// The numbers in words, a line each.
    pub numbers: Vec<String>,
    /// What it rests on.
    pub evidence: EvidenceLine,
    /// What to do; empty if another finding explains this one.
    pub remedy: Vec<RemedyLine>,
    /// The finding that explains this one; null if none does.
    pub explained_by: Option<ExplainedByLine>,
    /// Only in reports: its course from its beginning to its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub history: Option<HistoryLine>,
}

/// The finding that explains another one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ExplainedByLine {
    /// Its number.
    pub id: u64,
    /// What kind of finding.
    pub code: &'static str,
}

impl From<&ExplainedBy> for ExplainedByLine {
    fn from(by: &ExplainedBy) -> Self {
        Self { id: by.id, code: by.code }
    }
}

/// Something to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct RemedyLine {
    /// What, in words.
    pub text: String,
    /// The command that does it, ready to paste; null where there is none.
    pub command: Option<String>,
    /// Whether it names what is *not* to be changed: a setting that people try, and that is not the limit.
    pub not: bool,
}

impl From<&Remedy> for RemedyLine {
    fn from(remedy: &Remedy) -> Self {
        Self { text: remedy.text.clone(), command: remedy.command.clone(), not: remedy.not }
    }
}

/// A finding from its beginning to its end.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct HistoryLine {
    /// When it was first reported.
    pub from: Time,
    /// When it was last reported.
    pub to: Time,
    /// Its worst severity.
    pub worst: Severity,
    /// Its first moment, each that says something new of cause or severity, and its last.
    pub moments: Vec<MomentLine>,
    /// What other recordings say about it.
    pub elsewhere: Vec<ElsewhereLine>,
}

/// A moment in a finding's course.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct MomentLine {
    /// When.
    pub time: Time,
    /// What state the finding was in.
    pub state: State,
    /// How bad it was.
    pub severity: Severity,
    /// The cause that was named.
    pub cause: &'static str,
    /// The first line of its numbers.
    pub numbers: String,
}

/// What another host's recording says about a client's finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ElsewhereLine {
    /// That recording.
    pub recording: String,
    /// The finding there.
    pub code: &'static str,
    /// Its cause.
    pub cause: Option<&'static str>,
    /// Its sentence, or what was seen.
    pub title: String,
    /// How sure it is that it explains this one.
    pub confidence: Confidence,
}

impl From<&Finding> for FindingLine {
    fn from(finding: &Finding) -> Self {
        Self {
            id: finding.id,
            code: finding.code,
            state: finding.state,
            severity: finding.severity,
            confidence: finding.confidence,
            title: finding.title.clone(),
            subject: Subject::from(&finding.subject),
            cause: finding.cause,
            explanation: finding.explanation.clone(),
            numbers: finding.numbers.clone(),
            evidence: EvidenceLine::of(&finding.evidence),
            remedy: finding.remedy.iter().map(RemedyLine::from).collect(),
            explained_by: finding.explained_by.as_ref().map(ExplainedByLine::from),
            history: None,
        }
    }
}

/// Evidence: names and values, in the order in which they matter.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EvidenceLine(Vec<(&'static str, EvidenceValue)>);

/// One value.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum EvidenceValue {
    /// Not known here.
    Unknown(()),
    /// A count or a setting.
    Number(u64),
    /// A measure.
    Measure(f64),
    /// Yes or no.
    Flag(bool),
    /// Words.
    Text(String),
    /// Several words.
    Texts(Vec<String>),
    /// Ports from one to another.
    Range(Range),
    /// Several of these.
    Ranges(Vec<Range>),
    /// An address and a port.
    Endpoint(Endpoint),
    /// A process, or a socket and its process.
    Subject(Box<Subject>),
    /// Several of these.
    Subjects(Vec<Subject>),
}

impl From<&Value> for EvidenceValue {
    fn from(value: &Value) -> Self {
        match value {
            Value::Unknown(()) => Self::Unknown(()),
            Value::Number(number) => Self::Number(*number),
            Value::Measure(measure) => Self::Measure(*measure),
            Value::Flag(flag) => Self::Flag(*flag),
            Value::Text(text) => Self::Text(text.clone()),
            Value::Texts(texts) => Self::Texts(texts.clone()),
            Value::Range(range) => Self::Range((*range).into()),
            Value::Ports(ports) => Self::Ranges(Range::all(ports)),
            Value::Options(of) => Self::Texts(options(*of)),
            Value::Endpoint(at) => Self::Endpoint((*at).into()),
            Value::Party(party) => Self::Subject(Box::new(Subject::from(&**party))),
            Value::Parties(parties) => Self::Subjects(parties.iter().map(Subject::from).collect()),
        }
    }
}

impl EvidenceLine {
    /// Of evidence.
    pub fn of(evidence: &Evidence) -> Self {
        // The cause in words is the finding's own member.
        let shown = evidence.iter().filter(|(name, _)| *name != "why");
        Self(shown.map(|(name, value)| (name, value.into())).collect())
    }
}

impl Serialize for EvidenceLine {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

impl JsonSchema for EvidenceLine {
    fn schema_name() -> Cow<'static, str> {
        "Evidence".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let of_findings = KINDS.iter().flat_map(|kind| kind.evidence);
        let of_risks = RULES.iter().flat_map(|rule| rule.evidence());
        let mut schema = of_keys(of_findings.chain(of_risks), generator);
        schema.insert(
            "description".into(),
            "What a finding or a risk rests on. Which keys it has depends on its code; null is a number that is not known here."
                .into(),
        );
        schema
    }
}

/// The schema of an object that has some of these keys.
pub(super) fn of_keys<'a>(keys: impl Iterator<Item = &'a Key>, generator: &mut SchemaGenerator) -> Schema {
    let properties: serde_json::Map<String, serde_json::Value> = keys
        .map(|key| {
            let mut schema = form(key.form, generator);
            schema.insert("description".into(), key.means.into());
            (key.name.to_owned(), schema.to_value())
        })
        .collect();
    json_schema!({"type": "object", "properties": properties})
}

fn form(form: keys::Form, generator: &mut SchemaGenerator) -> Schema {
    use keys::Form;
    match form {
        Form::Number => json_schema!({"type": ["integer", "null"], "minimum": 0}),
        Form::Measure => json_schema!({"type": ["number", "null"]}),
        Form::Flag => json_schema!({"type": ["boolean", "null"]}),
        Form::Text => json_schema!({"type": ["string", "null"]}),
        Form::Time => json_schema!({"type": ["string", "null"], "format": "date-time"}),
        Form::Texts => json_schema!({"type": ["array", "null"], "items": {"type": "string"}}),
        Form::Range => generator.subschema_for::<Option<Range>>(),
        Form::Ranges => generator.subschema_for::<Option<Vec<Range>>>(),
        Form::Endpoint => generator.subschema_for::<Option<Endpoint>>(),
        Form::Party => generator.subschema_for::<Option<Subject>>(),
        Form::Parties => generator.subschema_for::<Option<Vec<Subject>>>(),
    }
}
