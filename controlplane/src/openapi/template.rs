//! What a document may carry around and inside its definition: a CloudFormation template, its references, and the
//! variables `${AWS::…}` (OAP-040 to OAP-045).

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::{ImportOptions, context::scalar, error::ImportError};

/// The definition in `document`, references and variables replaced by text. What has no value here is remarked by name.
pub(super) fn unfold(
    document: Value,
    options: &ImportOptions,
) -> Result<(Map<String, Value>, Vec<String>), ImportError> {
    let Value::Object(members) = document else {
        return Err(ImportError::NotADefinition {
            reason: "its root is not an object".to_owned(),
        });
    };
    let mut pass = Pass {
        options,
        unknown: BTreeSet::new(),
        functions: BTreeSet::new(),
    };
    let mut remarks = Vec::new();
    let definition = if is_definition(&members) || !members.contains_key("Resources") {
        members
    } else {
        let (name, definition) = embedded(members)?;
        remarks.push(format!(
            "the document is a CloudFormation template; only the definition of its resource `{name}` was imported"
        ));
        definition
    };
    let definition = definition
        .into_iter()
        .map(|(name, value)| (name, pass.value(value)))
        .collect();
    remarks.extend(
        pass.unknown
            .iter()
            .map(|name| format!("`${{{name}}}` has no value here and was kept as text")),
    );
    remarks.extend(
        pass.functions
            .iter()
            .map(|name| format!("the CloudFormation function `{name}` is not evaluated")),
    );
    Ok((definition, remarks))
}

fn is_definition(members: &Map<String, Value>) -> bool {
    members.contains_key("openapi") || members.contains_key("swagger")
}

/// The one definition that a template holds inline.
fn embedded(template: Map<String, Value>) -> Result<(String, Map<String, Value>), ImportError> {
    let Some(Value::Object(resources)) = template
        .into_iter()
        .find(|(name, _)| name == "Resources")
        .map(|(_, v)| v)
    else {
        return Err(ImportError::NotADefinition {
            reason: "`Resources` of the template is not an object".to_owned(),
        });
    };
    let mut found: Vec<(String, Map<String, Value>)> = resources
        .into_iter()
        .filter_map(|(name, resource)| Some((name, inline_definition(resource)?)))
        .collect();
    if found.len() > 1 {
        let names: Vec<_> = found.iter().map(|(name, _)| format!("`{name}`")).collect();
        return Err(ImportError::NotADefinition {
            reason: format!(
                "the template holds several ({}); import each from a file of its own",
                names.join(", ")
            ),
        });
    }
    found.pop().ok_or_else(|| ImportError::NotADefinition {
        reason: "the template holds no inline definition (`DefinitionBody` or `Body`)".to_owned(),
    })
}

fn inline_definition(resource: Value) -> Option<Map<String, Value>> {
    let Value::Object(mut resource) = resource else {
        return None;
    };
    let Some(Value::Object(mut properties)) = resource.remove("Properties") else {
        return None;
    };
    ["DefinitionBody", "Body"]
        .into_iter()
        .find_map(|name| match properties.remove(name) {
            Some(Value::Object(definition)) if is_definition(&definition) => Some(definition),
            _ => None,
        })
}

struct Pass<'a> {
    options: &'a ImportOptions,
    /// Names without a value.
    unknown: BTreeSet<String>,
    /// Functions that need the template's other parts.
    functions: BTreeSet<String>,
}

impl Pass<'_> {
    fn value(&mut self, value: Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.text(text, false)),
            Value::Array(list) => list.into_iter().map(|value| self.value(value)).collect(),
            Value::Object(members) => self.object(members),
            other => other,
        }
    }

    fn object(&mut self, members: Map<String, Value>) -> Value {
        if members.len() == 1
            && let Some((name, argument)) = members.iter().next()
            && (name == "Ref" || name.starts_with("Fn::"))
            && let Some(text) = self.function(name, argument)
        {
            return Value::String(text);
        }
        Value::Object(
            members
                .into_iter()
                .map(|(name, value)| (name, self.value(value)))
                .collect(),
        )
    }

    /// The text of a template's function; `None` where it is none, or its value needs the rest of the template.
    fn function(&mut self, name: &str, argument: &Value) -> Option<String> {
        match (name, argument) {
            ("Ref", Value::String(target)) => Some(self.text(format!("${{{target}}}"), true)),
            ("Ref", _) => None,
            ("Fn::GetAtt", Value::String(target)) => Some(self.text(format!("${{{target}}}"), true)),
            ("Fn::GetAtt", Value::Array(parts)) => {
                let parts: Option<Vec<String>> = parts.iter().map(scalar).collect();
                Some(self.text(format!("${{{}}}", parts?.join(".")), true))
            }
            ("Fn::Sub", Value::String(text)) => Some(self.text(text.clone(), true)),
            ("Fn::Sub", Value::Array(parts)) => {
                let [Value::String(text), Value::Object(values)] = parts.as_slice() else {
                    return None;
                };
                let mut text = text.clone();
                for (name, value) in values {
                    if let Value::String(value) = self.value(value.clone()) {
                        text = text.replace(&format!("${{{name}}}"), &value);
                    }
                }
                Some(self.text(text, true))
            }
            ("Fn::Join", Value::Array(parts)) => {
                let [Value::String(separator), Value::Array(pieces)] = parts.as_slice() else {
                    return None;
                };
                let pieces: Option<Vec<String>> = pieces
                    .iter()
                    .map(|piece| scalar(&self.value(piece.clone())))
                    .collect();
                Some(pieces?.join(separator))
            }
            _ => {
                self.functions.insert(name.to_owned());
                None
            }
        }
    }

    /// Replaces `${AWS::…}`; where `named` is set, other `${…}` are names of a template too.
    fn text(&mut self, text: String, named: bool) -> String {
        if !text.contains("${") {
            return text;
        }
        let mut out = String::with_capacity(text.len());
        let mut rest = text.as_str();
        while let Some(start) = rest.find("${") {
            let Some(length) = rest[start..].find('}') else {
                break;
            };
            let name = &rest[start + 2..start + length];
            out.push_str(&rest[..start]);
            match name {
                "AWS::AccountId" => out.push_str(&self.options.account_id),
                "AWS::Region" => out.push_str(&self.options.region),
                "AWS::Partition" => out.push_str(&self.options.partition),
                "AWS::URLSuffix" if named => out.push_str("amazonaws.com"),
                _ => {
                    // `${!Name}` is a template's way to write `${Name}` itself.
                    let literal = named && name.starts_with('!');
                    if literal {
                        out.push_str("${");
                        out.push_str(&name[1..]);
                        out.push('}');
                    } else {
                        out.push_str(&rest[start..=start + length]);
                        if name.starts_with("AWS::") || (named && !name.starts_with("stageVariables.")) {
                            self.unknown.insert(name.to_owned());
                        }
                    }
                }
            }
            rest = &rest[start + length + 1..];
        }
        out.push_str(rest);
        out
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn options() -> ImportOptions {
        ImportOptions {
            account_id: "123456789012".into(),
            region: "us-east-2".into(),
            ..ImportOptions::default()
        }
    }

    /// OAP-040, OAP-041, OAP-042, OAP-045: variables anywhere in a text, several times; stage variables stay.
    #[test]
    fn aws_variables() {
        let document = json!({"openapi": "3.0.1", "u": "arn:${AWS::Partition}:${AWS::Region}:${AWS::AccountId}:${AWS::Region}:${stageVariables.f}"});
        let (definition, remarks) = unfold(document, &options()).expect("a definition");
        assert_eq!(
            definition["u"],
            "arn:aws:us-east-2:123456789012:us-east-2:${stageVariables.f}"
        );
        assert!(remarks.is_empty(), "{remarks:?}");
        let (definition, remarks) =
            unfold(json!({"openapi": "3.0.1", "u": "${AWS::StackName}"}), &options()).expect("a definition");
        assert_eq!(definition["u"], "${AWS::StackName}");
        assert!(remarks[0].contains("AWS::StackName"), "{remarks:?}");
    }

    #[test]
    fn a_template_gives_its_one_definition() {
        let document = json!({"Resources": {
            "Role": {"Type": "AWS::IAM::Role"},
            "Api": {"Properties": {"DefinitionBody": {
                "openapi": "3.0.1",
                "uri": {"Fn::Sub": "http://${Host}:${AWS::Region}/"},
                "role": {"Fn::GetAtt": ["Role", "Arn"]},
                "joined": {"Fn::Join": ["-", ["a", {"Ref": "AWS::AccountId"}]]},
                "given": {"Fn::Sub": ["x${V}", {"V": "1"}]},
                "pick": {"Fn::If": ["C", "a", "b"]},
            }}},
        }});
        let (definition, remarks) = unfold(document, &options()).expect("a definition");
        assert_eq!(definition["uri"], "http://${Host}:us-east-2/");
        assert_eq!(definition["role"], "${Role.Arn}");
        assert_eq!(definition["joined"], "a-123456789012");
        assert_eq!(definition["given"], "x1");
        for name in ["Api", "Host", "Role.Arn", "Fn::If"] {
            assert!(
                remarks.iter().any(|remark| remark.contains(name)),
                "{name}: {remarks:?}"
            );
        }
    }

    #[test]
    fn a_template_without_one_definition_is_refused() {
        let api = json!({"Properties": {"Body": {"swagger": "2.0"}}});
        for (resources, word) in [(json!({}), "no inline"), (json!({"A": api, "B": api}), "several")] {
            let error = unfold(json!({"Resources": resources}), &options())
                .expect_err("refused")
                .to_string();
            assert!(error.contains(word), "{error}");
        }
    }
}
