//! Rendering the guide's photo album, against what a plain round trip through `serde_json` takes over the same
//! document; and what a template's parts cost.

use std::borrow::Cow;
use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use tidegate_vtl::{Budget, Document, Each, JsonPath, Overrides, Phase, Render, Scope, Source, Template};

const PHOTOS: &str = include_str!("../../../dataplane/vtl/tests/documents/photos.json");
const ALBUM: &str = include_str!("../../../dataplane/vtl/tests/documents/photos.vtl");
const SAME: &str = include_str!("../../../dataplane/vtl/tests/documents/photos.same.vtl");

/// A request of which templates see nothing but the body.
struct Nothing;

impl Scope for Nothing {
    fn parameter(&self, _: Source, _: &str) -> Option<Cow<'_, str>> {
        None
    }

    fn parameters<'a>(&'a self, _: Source, _: Each<'a, '_>) {}

    fn stage_variable(&self, _: &str) -> Option<Cow<'_, str>> {
        None
    }

    fn stage_variables<'a>(&'a self, _: Each<'a, '_>) {}

    fn context(&self, _: &[&str]) -> Option<Cow<'_, str>> {
        None
    }

    fn context_group<'a>(&'a self, _: &[&str], _: Each<'a, '_>) -> bool {
        false
    }
}

fn templates(c: &mut Criterion) {
    let mut group = c.benchmark_group("template");
    group.bench_function("serde_json round trip of the photo album", |b| {
        b.iter(|| {
            let value: serde_json::Value = serde_json::from_str(black_box(PHOTOS)).unwrap();
            value.to_string()
        });
    });
    let budget = Budget::default();
    for (name, text) in [
        ("photo album", ALBUM),
        ("photo album, copied", SAME),
        ("photo album, as JSON", "$input.json('$')"),
        ("parameter", "{\"name\": \"$input.params('name')\"}"),
    ] {
        let template = Template::parse(text).unwrap();
        group.bench_function(name, |b| {
            b.iter(|| {
                // As a shard has it: a body's bytes, not yet read.
                let body = Document::from_bytes(black_box(PHOTOS.as_bytes()));
                let render = Render {
                    phase: Phase::Request,
                    scope: &Nothing,
                    body: &body,
                    budget: &budget,
                };
                template.render(render, &mut Overrides::new()).unwrap()
            });
        });
    }
    group.bench_function("read the document", |b| {
        b.iter(|| {
            Document::from_bytes(black_box(PHOTOS.as_bytes()))
                .json()
                .unwrap()
                .len()
        });
    });
    let path = JsonPath::compile("$.photos.photo[1].title").unwrap();
    let body = Document::from_bytes(PHOTOS.as_bytes());
    group.bench_function("follow a path", |b| {
        b.iter(|| path.select(black_box(body.json().unwrap()), &mut 1000).unwrap());
    });
    group.bench_function("parse", |b| b.iter(|| Template::parse(black_box(ALBUM)).unwrap()));
    group.finish();
}

criterion_group!(benches, templates);
criterion_main!(benches);
