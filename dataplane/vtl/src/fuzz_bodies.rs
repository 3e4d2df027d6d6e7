//! What must hold for any bytes: one function a parser, called by cargo-fuzz with what it invents and by a test
//! with the corpus that is committed. A broken rule is a panic.

use std::borrow::Cow;

use crate::{Budget, Document, Each, JsonPath, Overrides, Phase, Render, Scope, Source, Template};

/// Bounds that let an input end soon.
fn budget() -> Budget {
    Budget {
        iterations: 100,
        steps: 50_000,
        output: 256 << 10,
        memory: 4 << 20,
        depth: 48,
        json_depth: 64,
    }
}

/// A template, a zero byte, a body: both templates of a method render or fail, twice in the same way, and a failure
/// leaves nothing.
pub fn template(data: &[u8]) {
    let (template, body) = halves(data);
    let Ok(template) = Template::parse(&template) else {
        return;
    };
    let body = Document::new(body);
    let budget = budget();
    for phase in [Phase::Request, Phase::Response] {
        let render = Render {
            phase,
            scope: &Sample,
            body: &body,
            budget: &budget,
        };
        let mut overrides = Overrides::new();
        let first = template.render(render, &mut overrides);
        match &first {
            Ok(rendered) => assert!(rendered.text.len() <= budget.output),
            Err(_) => assert!(overrides.is_empty()),
        }
        let mut again = overrides.clone();
        assert_eq!(template.render(render, &mut again), first);
        assert_eq!(again, overrides);
    }
}

/// A path, a zero byte, a document: what is selected is JSON, and a path means the same when it is compiled again.
pub fn json_path(data: &[u8]) {
    let (path, body) = halves(data);
    let Ok(path) = JsonPath::compile(&path) else {
        return;
    };
    let body = Document::new(body).with_depth(64);
    let Ok(root) = body.json() else { return };
    let Ok(selection) = path.select(root, &mut 20_000) else {
        return;
    };
    let text = selection.to_json();
    assert!(Document::new(&*text).with_depth(66).json().is_ok(), "{text}");
    assert!(path.is_definite() || !matches!(selection, crate::Selection::One(_) | crate::Selection::Missing));
}

/// A document: what is written is read as the same, and is what `serde_json` reads where it can.
pub fn json(data: &[u8]) {
    let document = Document::from_bytes(data);
    let Ok(json) = document.json() else { return };
    let text = json.to_text();
    let again = Document::new(&*text);
    let again = again.json().unwrap_or_else(|error| panic!("{error}: {text}"));
    assert_eq!(again.to_text(), text);
    assert_eq!(again.weight(), json.weight());
    if let Ok(value) = serde_json::from_str::<serde_json::Value>(&text) {
        assert_eq!(json.to_serde(), value);
    }
}

fn halves(data: &[u8]) -> (Cow<'_, str>, Cow<'_, str>) {
    let at = memchr::memchr(0, data).unwrap_or(data.len());
    let behind = data.get(at + 1..).unwrap_or_default();
    (
        String::from_utf8_lossy(&data[..at]),
        String::from_utf8_lossy(behind),
    )
}

/// A request with one of everything.
struct Sample;

impl Scope for Sample {
    fn parameter(&self, source: Source, name: &str) -> Option<Cow<'_, str>> {
        (name == "a").then(|| source.name().into())
    }

    fn parameters<'a>(&'a self, source: Source, each: Each<'a, '_>) {
        each("a".into(), source.name().into());
    }

    fn stage_variable(&self, name: &str) -> Option<Cow<'_, str>> {
        (name == "v").then(|| "w".into())
    }

    fn stage_variables<'a>(&'a self, each: Each<'a, '_>) {
        each("v".into(), "w".into());
    }

    fn context(&self, name: &[&str]) -> Option<Cow<'_, str>> {
        matches!(name, ["stage"] | ["identity", "sourceIp"]).then(|| "s".into())
    }

    fn context_group<'a>(&'a self, name: &[&str], each: Each<'a, '_>) -> bool {
        if name == ["identity"] {
            each("sourceIp".into(), "s".into());
        }
        name == ["identity"]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Body = fn(&[u8]);

    /// Every committed input still holds. One input a file.
    #[test]
    fn the_corpus_holds() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
        let targets: [(&str, Body); 3] = [("template", template), ("json_path", json_path), ("json", json)];
        for (name, body) in targets {
            let mut count = 0;
            for entry in std::fs::read_dir(root.join(name)).unwrap() {
                let data = std::fs::read(entry.unwrap().path()).unwrap();
                // Every beginning of an input is an input too, and so is every end.
                (0..=data.len()).for_each(|end| body(&data[..end]));
                (0..=data.len()).for_each(|start| body(&data[start..]));
                count += 1;
            }
            assert!(count > 0, "no corpus for {name}");
        }
    }
}
