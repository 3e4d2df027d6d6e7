//! Bytes to a tree: JSON or YAML, with a place for every syntax error and a bound on what a document can make us hold.

use std::{cell::Cell, fmt};

use serde::{
    Deserializer,
    de::{DeserializeSeed, EnumAccess, Error as _, MapAccess, SeqAccess, VariantAccess, Visitor},
};
use serde_json::{Map, Value};

use super::error::{ImportError, Position};

/// The largest document that is taken unless the installation says otherwise: the service's 6 MB.
pub const MAX_DOCUMENT_BYTES: usize = 6 << 20;

/// Reads a document of at most `max_bytes`.
pub(super) fn parse(bytes: &[u8], max_bytes: usize) -> Result<Value, ImportError> {
    if bytes.len() > max_bytes {
        return Err(ImportError::TooLarge { limit: max_bytes });
    }
    let text = std::str::from_utf8(bytes).map_err(|error| ImportError::Syntax {
        position: Some(Position::of(bytes, error.valid_up_to())),
        reason: "the text is not UTF-8".to_owned(),
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.trim().is_empty() {
        return Err(ImportError::Syntax {
            position: None,
            reason: "the document is empty".to_owned(),
        });
    }
    let budget = Budget::new(max_bytes);
    if text.trim_start().starts_with(['{', '[']) {
        parse_json(text, &budget)
    } else {
        parse_yaml(text, &budget)
    }
}

fn parse_json(text: &str, budget: &Budget) -> Result<Value, ImportError> {
    let mut reader = serde_json::Deserializer::from_str(text);
    let read = Node(budget)
        .deserialize(&mut reader)
        .and_then(|value| reader.end().map(|()| value));
    read.map_err(|error| ImportError::Syntax {
        position: (error.line() > 0).then(|| Position {
            line: error.line(),
            column: error.column().max(1),
        }),
        reason: without_position(&error.to_string()),
    })
}

fn parse_yaml(text: &str, budget: &Budget) -> Result<Value, ImportError> {
    // The parser holds every event of a document before it hands out the first value, so the count is bounded before.
    let tokens = text.bytes().filter(|byte| b"\n,:[]{}".contains(byte)).count();
    if tokens > MAX_YAML_TOKENS {
        return Err(ImportError::Syntax {
            position: None,
            reason: format!(
                "a YAML document may have at most {MAX_YAML_TOKENS} lines and separators; JSON may be longer"
            ),
        });
    }
    Node(budget)
        .deserialize(serde_norway::Deserializer::from_str(text))
        .map_err(|error| ImportError::Syntax {
            position: error.location().map(|location| Position {
                line: location.line().max(1),
                column: location.column().max(1),
            }),
            reason: without_position(&error.to_string()),
        })
}

/// The libraries end their messages with the position, which we tell in our own words.
fn without_position(message: &str) -> String {
    match message.rfind(" at line ") {
        Some(at) => message[..at].to_owned(),
        None => message.to_owned(),
    }
}

/// What a document may still unfold into. Aliases let a small document describe a huge one.
struct Budget {
    nodes: Cell<usize>,
    bytes: Cell<usize>,
}

impl Budget {
    fn new(max_bytes: usize) -> Self {
        Self {
            nodes: Cell::new(MAX_NODES),
            bytes: Cell::new(max_bytes.saturating_mul(2)),
        }
    }

    fn spend<E: serde::de::Error>(&self, bytes: usize) -> Result<(), E> {
        match (
            self.nodes.get().checked_sub(1),
            self.bytes.get().checked_sub(bytes),
        ) {
            (Some(nodes), Some(left)) => {
                self.nodes.set(nodes);
                self.bytes.set(left);
                Ok(())
            }
            _ => Err(E::custom(
                "the document unfolds into more than is allowed; does it repeat aliases of aliases?",
            )),
        }
    }
}

/// One value of the tree.
#[derive(Clone, Copy)]
struct Node<'a>(&'a Budget);

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<Value, E> {
        self.0.spend(0)?;
        Ok(Value::from(value))
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Value, E> {
        self.0.spend(0)?;
        Ok(Value::from(value))
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Value, E> {
        self.0.spend(0)?;
        Ok(Value::from(value))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        self.0.spend(0)?;
        Ok(Value::from(value))
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Value, E> {
        self.0.spend(value.len())?;
        Ok(Value::from(value))
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Value, E> {
        self.0.spend(0)?;
        Ok(Value::Null)
    }

    fn visit_none<E: serde::de::Error>(self) -> Result<Value, E> {
        self.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Value, A::Error> {
        self.0.spend(0)?;
        let mut list = Vec::new();
        while let Some(value) = sequence.next_element_seed(self)? {
            list.push(value);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        self.0.spend(0)?;
        let mut members = Map::new();
        let mut merged = None;
        while let Some(key) = access.next_key_seed(Name(self.0))? {
            let value = access.next_value_seed(self)?;
            if key == "<<" {
                merged = Some(value);
            } else if members.contains_key(&key) {
                return Err(A::Error::custom(format_args!("`{key}` stands here twice")));
            } else {
                members.insert(key, value);
            }
        }
        merge(&mut members, merged);
        Ok(Value::Object(members))
    }

    /// A YAML tag. CloudFormation's short forms become their long forms; the value of any other tag is taken as it is.
    fn visit_enum<A: EnumAccess<'de>>(self, access: A) -> Result<Value, A::Error> {
        let (tag, content) = access.variant_seed(Name(self.0))?;
        let value = content.newtype_variant_seed(self)?;
        let name = match tag.as_str() {
            "Ref" | "Condition" => tag,
            "GetAtt" | "Sub" | "Join" | "Select" | "Split" | "FindInMap" | "ImportValue" | "If"
            | "Equals" | "Not" | "And" | "Or" | "Base64" | "Cidr" | "GetAZs" | "Transform"
            | "ToJsonString" | "Length" => {
                format!("Fn::{tag}")
            }
            _ => return Ok(value),
        };
        let mut members = Map::new();
        members.insert(name, value);
        Ok(Value::Object(members))
    }
}

/// YAML's merge key: members that are not there yet come from the mapping, or from the first of the mappings.
fn merge(members: &mut Map<String, Value>, merged: Option<Value>) {
    let sources = match merged {
        Some(Value::Object(source)) => vec![source],
        Some(Value::Array(list)) => list
            .into_iter()
            .filter_map(|value| match value {
                Value::Object(source) => Some(source),
                _ => None,
            })
            .collect(),
        _ => return,
    };
    for source in sources {
        for (name, value) in source {
            members.entry(name).or_insert(value);
        }
    }
}

/// A member's name: YAML lets status codes and booleans stand where names do.
struct Name<'a>(&'a Budget);

impl<'de> DeserializeSeed<'de> for Name<'_> {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Visitor<'_> for Name<'_> {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<String, E> {
        self.0.spend(value.len())?;
        Ok(value.to_owned())
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<String, E> {
        Ok(value.to_string())
    }
}

/// Values that a document may hold, aliases unfolded. A description of 10,000 routes has about 300,000.
const MAX_NODES: usize = 1_000_000;
/// Bounds the parser's event list at about 200 MiB.
const MAX_YAML_TOKENS: usize = 1_000_000;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(text: &str) -> Result<Value, ImportError> {
        parse(text.as_bytes(), MAX_DOCUMENT_BYTES)
    }

    fn place(error: ImportError) -> (usize, usize, String) {
        match error {
            ImportError::Syntax {
                position: Some(position),
                reason,
            } => (position.line, position.column, reason),
            other => panic!("no place in {other:?}"),
        }
    }

    /// OAP-001: both forms, told apart by their content.
    #[test]
    fn json_and_yaml_are_told_apart() {
        assert_eq!(read("{\"a\": [1, true]}").expect("json"), json!({"a": [1, true]}));
        assert_eq!(
            read("a: [1, true]\n200: ok\n").expect("yaml"),
            json!({"a": [1, true], "200": "ok"})
        );
        assert_eq!(read("\u{feff}a: b").expect("yaml with a mark"), json!({"a": "b"}));
    }

    /// OAP-046: what is malformed is refused with line, column and reason.
    #[test]
    fn syntax_errors_have_a_place() {
        let (line, column, _) = place(read("{\n  \"a\": 1,\n  \"b\": }\n").expect_err("json"));
        assert_eq!((line, column), (3, 8));
        let (line, _, reason) = place(read("a: 1\nb: [1, 2\nc: 3\n").expect_err("yaml"));
        assert!(line >= 2, "line {line}: {reason}");
        let (line, _, reason) = place(read("{\"a\": 1,\n \"a\": 2}").expect_err("twice"));
        assert_eq!(line, 2, "{reason}");
        assert!(reason.contains("`a`"), "{reason}");
        let (line, column, _) = place(parse(b"a: b\nc: \xff", 100).expect_err("not utf-8"));
        assert_eq!((line, column), (2, 4));
    }

    #[test]
    fn aliases_unfold_within_a_bound() {
        assert_eq!(
            read("x: &x {a: 1}\ny:\n  <<: *x\n  b: 2\n").expect("merge"),
            json!({"x": {"a": 1}, "y": {"b": 2, "a": 1}})
        );
        let mut laughs = String::from("a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n");
        for level in 1..12 {
            let below = format!("*a{}", level - 1);
            laughs.push_str(&format!("a{level}: &a{level} [{}]\n", vec![below; 9].join(", ")));
        }
        assert!(matches!(read(&laughs), Err(ImportError::Syntax { .. })));
        assert!(matches!(read("a: &a [*a]"), Err(ImportError::Syntax { .. })));
    }

    #[test]
    fn size_and_depth_are_bounded() {
        assert!(matches!(
            parse(&[b' '; 11], 10),
            Err(ImportError::TooLarge { limit: 10 })
        ));
        assert!(matches!(
            read(&"[".repeat(100_000)),
            Err(ImportError::Syntax { .. })
        ));
        assert!(matches!(
            read(&format!("a: {}", "[".repeat(10_000))),
            Err(ImportError::Syntax { .. })
        ));
        assert!(matches!(
            read(&"- a\n".repeat(1_000_001)),
            Err(ImportError::Syntax { .. })
        ));
        assert!(matches!(read("  \n"), Err(ImportError::Syntax { .. })));
    }

    #[test]
    fn cloudformation_tags_become_their_long_form() {
        assert_eq!(
            read("uri: !Sub 'http://${Host}/'\nrole: !GetAtt Role.Arn\nother: !mine 1\n").expect("yaml"),
            json!({"uri": {"Fn::Sub": "http://${Host}/"}, "role": {"Fn::GetAtt": "Role.Arn"}, "other": 1})
        );
    }
}
