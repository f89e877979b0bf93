//! What a finding says is to be done, read from its printed sentence.

use anyhow::{Context as _, Result, bail};

/// `raise the listen backlog of nginx: `listen …;` in the server block, then reload it: `nginx -s reload` (default: 511)`
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Printed {
    /// The setting, word for word.
    pub(super) setting: String,
    /// What is to be written elsewhere, with it.
    pub(super) also: Vec<String>,
    pub(super) then: Then,
}

/// How it takes effect.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Then {
    Restart,
    /// By this command.
    Reload(String),
}

impl Printed {
    /// Of the remedies that a finding gives: the one that begins like this.
    pub(super) fn find(remedies: &[String], begins: &str) -> Result<Self> {
        let found = remedies.iter().find_map(|text| text.strip_prefix(begins)?.strip_prefix(": "));
        let text = found.with_context(|| format!("no remedy begins with {begins:?}: {remedies:?}"))?;
        let (place, then) = text
            .split_once(", then ")
            .with_context(|| format!("{text:?} does not say how it takes effect"))?;
        let mut quoted = quotes(place);
        let setting = quoted.next().with_context(|| format!("{text:?} has no setting"))?;
        let also = quoted.collect();
        let then = if then.starts_with("restart it") || then.starts_with("stop and start it") {
            Then::Restart
        } else if let Some(command) = then.strip_prefix("reload it: ").and_then(|rest| quotes(rest).next()) {
            Then::Reload(command)
        } else {
            bail!("{then:?} is nothing that can be carried out here");
        };
        Ok(Self { setting, also, then })
    }
}

/// What stands between backticks.
fn quotes(text: &str) -> impl Iterator<Item = String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_setting_is_taken_word_for_word() {
        let remedies = [
            "give nginx more workers: `worker_processes 3;` in the main context, then reload it: `nginx -s reload`".to_owned(),
            "let nginx use connections again: `keepalive 64;` in the upstream block, with `proxy_http_version 1.1;` in the \
             location, then reload it: `nginx -s reload` (default: off)"
                .to_owned(),
            "raise the listen backlog of Redis: `tcp-backlog 1024` in redis.conf, then restart it (default: 511); no more"
                .to_owned(),
        ];
        assert_eq!(
            Printed::find(&remedies, "let nginx use connections again").unwrap(),
            Printed {
                setting: "keepalive 64;".to_owned(),
                also: vec!["proxy_http_version 1.1;".to_owned()],
                then: Then::Reload("nginx -s reload".to_owned()),
            }
        );
        let redis = Printed::find(&remedies, "raise the listen backlog of Redis").unwrap();
        assert_eq!((redis.setting.as_str(), redis.then), ("tcp-backlog 1024", Then::Restart));
        assert!(Printed::find(&remedies, "raise the listen backlog of nginx").is_err());
    }
}
