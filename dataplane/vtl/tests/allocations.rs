//! A render borrows what the request has.

use std::alloc::System;

use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use tidegate_vtl::{Budget, Document, Each, Overrides, Phase, Render, Scope, Source, Template};

#[global_allocator]
static GLOBAL: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// A request whose texts lie somewhere already.
struct Borrowed;

impl Scope for Borrowed {
    fn parameter(&self, _: Source, name: &str) -> Option<std::borrow::Cow<'_, str>> {
        (name == "id").then(|| "7".into())
    }

    fn parameters<'a>(&'a self, _: Source, _: Each<'a, '_>) {}

    fn stage_variable(&self, _: &str) -> Option<std::borrow::Cow<'_, str>> {
        Some("v".into())
    }

    fn stage_variables<'a>(&'a self, _: Each<'a, '_>) {}

    fn context(&self, _: &[&str]) -> Option<std::borrow::Cow<'_, str>> {
        Some("c".into())
    }

    fn context_group<'a>(&'a self, _: &[&str], _: Each<'a, '_>) -> bool {
        false
    }
}

/// One test only: the allocator counts for the whole process.
#[test]
fn a_render_allocates_its_variables_and_its_output() {
    let body = Document::new(include_str!("documents/photos.json"));
    let budget = Budget::default();
    let render = Render {
        phase: Phase::Request,
        scope: &Borrowed,
        body: &body,
        budget: &budget,
    };
    body.json().unwrap();
    for (template, most) in [
        (
            "{\"id\": \"$input.params('id')\", \"v\": \"$stageVariables.v\", \"c\": \"$context.identity.sourceIp\"}",
            2,
        ),
        (
            "#set($x = 1)#if($x + 1 > 1)$input.path('$.photos.photo[1].title') and then some more of it#end",
            2,
        ),
        // The row of loops beside.
        (
            "#foreach($p in $input.path('$.photos.photo'))$p.id $p.owner#end and then some more of it",
            3,
        ),
    ] {
        let template = Template::parse(template).unwrap();
        let region = Region::new(GLOBAL);
        let rendered = template.render(render, &mut Overrides::new()).unwrap();
        let made = region.change().allocations;
        assert!(made <= most, "{made} allocations for `{}`", rendered.text);
    }
}
