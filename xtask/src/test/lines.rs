//! The JSON lines of one run, by type.

use serde_json::Value;

/// What a run printed, sorted; nothing is judged yet.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    /// In the order of printing.
    pub(crate) all: Vec<Value>,
    /// Lines that are no JSON object with a type.
    pub(crate) broken: Vec<String>,
}

impl Lines {
    pub(crate) fn parse(stdout: &[u8]) -> Self {
        let mut lines = Self::default();
        for line in String::from_utf8_lossy(stdout).lines() {
            match serde_json::from_str::<Value>(line) {
                Ok(value) if value.get("type").is_some_and(Value::is_string) => lines.all.push(value),
                _ => lines.broken.push(line.to_owned()),
            }
        }
        lines
    }

    pub(crate) fn of_type<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Value> {
        self.all.iter().filter(move |line| line["type"] == kind)
    }

    /// Each finding as it was told last, in the order of first mention.
    pub(crate) fn findings(&self) -> Vec<&Value> {
        let mut latest: Vec<&Value> = Vec::new();
        for finding in self.of_type("finding") {
            match latest.iter_mut().find(|known| known["id"] == finding["id"]) {
                Some(known) => *known = finding,
                None => latest.push(finding),
            }
        }
        latest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_on_a_finding_counts() {
        let lines = Lines::parse(
            b"{\"type\":\"finding\",\"id\":1,\"state\":\"opened\"}\n{\"type\":\"finding\",\"id\":2}\n\
              {\"type\":\"finding\",\"id\":1,\"state\":\"closed\"}\nnoise\n{\"no\":\"type\"}\n",
        );
        let findings = lines.findings();
        assert_eq!(findings.len(), 2);
        assert_eq!(findings[0]["state"], "closed");
        assert_eq!(lines.broken.len(), 2);
    }
}
