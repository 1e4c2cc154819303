//! Label and field selectors of list requests.

use std::collections::BTreeMap;

use super::status::Refusal;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Term {
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    Missing(String),
}

/// Terms that must all hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Selector(Vec<Term>);

impl Selector {
    /// `a=b,c!=d,e in (f,g),h notin (i),j,!k`, as kubectl sends it.
    pub(crate) fn parse(text: &str) -> Result<Selector, Refusal> {
        let unreadable = || Refusal::bad_request(format!("unable to parse the selector {text:?}"));
        let mut terms = Vec::new();
        for part in split_outside_parentheses(text) {
            let part = part.trim();
            if part.is_empty() {
                continue;
            }
            let term = if let Some((key, values)) = part.split_once(" notin ") {
                Term::NotIn(
                    word(key).ok_or_else(unreadable)?,
                    set(values).ok_or_else(unreadable)?,
                )
            } else if let Some((key, values)) = part.split_once(" in ") {
                Term::In(
                    word(key).ok_or_else(unreadable)?,
                    set(values).ok_or_else(unreadable)?,
                )
            } else if let Some((key, value)) = part.split_once("!=") {
                Term::NotIn(word(key).ok_or_else(unreadable)?, vec![value.trim().to_owned()])
            } else if let Some((key, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
                Term::In(word(key).ok_or_else(unreadable)?, vec![value.trim().to_owned()])
            } else if let Some(key) = part.strip_prefix('!') {
                Term::Missing(word(key).ok_or_else(unreadable)?)
            } else {
                Term::Exists(word(part).ok_or_else(unreadable)?)
            };
            terms.push(term);
        }
        Ok(Selector(terms))
    }

    pub(crate) fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.0.iter().all(|term| match term {
            Term::In(key, values) => labels.get(key).is_some_and(|value| values.contains(value)),
            Term::NotIn(key, values) => labels.get(key).is_none_or(|value| !values.contains(value)),
            Term::Exists(key) => labels.contains_key(key),
            Term::Missing(key) => !labels.contains_key(key),
        })
    }

    /// The first key that is not one of `known`.
    pub(crate) fn unknown_key(&self, known: &[&str]) -> Option<&str> {
        self.0
            .iter()
            .map(|term| match term {
                Term::In(key, _) | Term::NotIn(key, _) | Term::Exists(key) | Term::Missing(key) => {
                    key.as_str()
                }
            })
            .find(|key| !known.contains(key))
    }
}

fn word(text: &str) -> Option<String> {
    let text = text.trim();
    (!text.is_empty() && !text.contains([' ', '(', ')'])).then(|| text.to_owned())
}

fn set(text: &str) -> Option<Vec<String>> {
    let inside = text.trim().strip_prefix('(')?.strip_suffix(')')?;
    Some(inside.split(',').map(|value| value.trim().to_owned()).collect())
}

fn split_outside_parentheses(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut depth, mut from) = (0usize, 0usize);
    for (at, character) in text.char_indices() {
        match character {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(&text[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[from..]);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_select() {
        let labels: BTreeMap<String, String> =
            [("plenum.dev/meeting", "standup"), ("plenum.dev/role", "host")]
                .map(|(k, v)| (k.into(), v.into()))
                .into();
        for (text, matches) in [
            ("", true),
            ("plenum.dev/meeting=standup", true),
            ("plenum.dev/meeting==other", false),
            ("plenum.dev/meeting=standup,plenum.dev/role!=viewer", true),
            ("plenum.dev/role in (host, cohost),plenum.dev/meeting", true),
            ("plenum.dev/role notin (host)", false),
            ("!plenum.dev/room", true),
        ] {
            assert_eq!(Selector::parse(text).unwrap().matches(&labels), matches, "{text}");
        }
        assert!(Selector::parse("a in b").is_err());
        assert!(Selector::parse("=b").is_err());
        let selector = Selector::parse("spec.shoe=1").unwrap();
        assert_eq!(selector.unknown_key(&["metadata.name"]), Some("spec.shoe"));
    }
}
