//! Following a path through a document.

use super::{JsonPath, OutOfSteps, Selection, Step};
use crate::json::{Json, Kind, write_string};

pub(super) fn select<'d>(
    path: &JsonPath,
    root: Json<'d>,
    steps: &mut u64,
) -> Result<Selection<'d>, OutOfSteps> {
    select_from(path, root, root, steps)
}

/// Follows a path from a value; `root` is the document's, for filters that refer to it.
pub(super) fn select_from<'d>(
    path: &JsonPath,
    from: Json<'d>,
    root: Json<'d>,
    steps: &mut u64,
) -> Result<Selection<'d>, OutOfSteps> {
    let found = match plain(&path.steps, from, steps)? {
        Some(selection) => selection,
        None => walk(path, from, root, steps)?,
    };
    Ok(match &path.function {
        Some(function) => {
            match &found {
                Selection::Many(list) => list.iter().try_for_each(|json| spend(steps, json.cost()))?,
                Selection::One(json) => spend(steps, json.cost())?,
                Selection::Missing | Selection::Made(_) => {}
            }
            function.apply(found)
        }
        None => found,
    })
}

/// A path of members and indexes; `None` where the path has other parts.
fn plain<'d>(path: &[Step], from: Json<'d>, steps: &mut u64) -> Result<Option<Selection<'d>>, OutOfSteps> {
    let mut at = from;
    for step in path {
        let next = match step {
            Step::Member(name) => {
                spend(steps, 1 + at.len() / 16)?;
                at.get(name)
            }
            Step::Item(index) => {
                spend(steps, 1 + at.len() / 16)?;
                item(at, *index)
            }
            _ => return Ok(None),
        };
        match next {
            Some(json) => at = json,
            // A later part may make the path an indefinite one, which yields a list.
            None if path
                .iter()
                .all(|step| matches!(step, Step::Member(_) | Step::Item(_))) =>
            {
                return Ok(Some(Selection::Missing));
            }
            None => return Ok(None),
        }
    }
    Ok(Some(Selection::One(at)))
}

fn walk<'d>(
    path: &JsonPath,
    from: Json<'d>,
    root: Json<'d>,
    steps: &mut u64,
) -> Result<Selection<'d>, OutOfSteps> {
    let mut found = vec![from];
    let mut is_single = true;
    for (at, step) in path.steps.iter().enumerate() {
        if let Step::Members(names) = step
            && at + 1 == path.steps.len()
        {
            return made_objects(&found, names, is_single, steps);
        }
        is_single &= matches!(step, Step::Member(_) | Step::Item(_));
        let mut next = Vec::new();
        for &json in &found {
            apply(step, json, root, &mut next, steps)?;
        }
        found = next;
    }
    Ok(match (is_single, found.first()) {
        (true, Some(json)) => Selection::One(*json),
        (true, None) => Selection::Missing,
        (false, _) => Selection::Many(found),
    })
}

fn apply<'d>(
    step: &Step,
    json: Json<'d>,
    root: Json<'d>,
    next: &mut Vec<Json<'d>>,
    steps: &mut u64,
) -> Result<(), OutOfSteps> {
    spend(steps, 1 + json.len() / 16)?;
    match step {
        Step::Member(name) => next.extend(json.get(name)),
        Step::Members(names) => next.extend(names.iter().filter_map(|name| json.get(name))),
        Step::Item(index) => next.extend(item(json, *index)),
        Step::Items(indexes) => next.extend(indexes.iter().filter_map(|index| item(json, *index))),
        Step::Slice(from, to) => {
            let len = if json.kind() == Kind::Array {
                json.len() as i64
            } else {
                0
            };
            let place = |index: i64| (if index < 0 { index + len } else { index }).clamp(0, len);
            let (from, to) = (place(from.unwrap_or(0)), place(to.unwrap_or(len)));
            let count = usize::try_from(to - from).unwrap_or(0);
            spend(steps, count)?;
            next.extend(json.items().skip(from as usize).take(count));
        }
        Step::All => {
            spend(steps, json.len())?;
            next.extend(json.items());
            next.extend(json.members().map(|(_, value)| value));
        }
        Step::Descend => descend(json, next, steps)?,
        Step::Filter(filter) => match json.kind() {
            Kind::Array => {
                for item in json.items() {
                    spend(steps, 1)?;
                    if filter.passes(item, root, steps)? {
                        next.push(item);
                    }
                }
            }
            Kind::Object if filter.passes(json, root, steps)? => next.push(json),
            _ => {}
        },
    }
    Ok(())
}

/// The value and all below it, each before what it holds. Documents are not deeper than their limit.
fn descend<'d>(json: Json<'d>, next: &mut Vec<Json<'d>>, steps: &mut u64) -> Result<(), OutOfSteps> {
    spend(steps, 1)?;
    next.push(json);
    for below in json.items() {
        descend(below, next, steps)?;
    }
    for (_, below) in json.members() {
        descend(below, next, steps)?;
    }
    Ok(())
}

/// One new object of the chosen members for each value; those that are missing are left out.
fn made_objects<'d>(
    found: &[Json<'d>],
    names: &[Box<str>],
    is_single: bool,
    steps: &mut u64,
) -> Result<Selection<'d>, OutOfSteps> {
    let mut objects = Vec::new();
    for json in found.iter().filter(|json| json.kind() == Kind::Object) {
        spend(steps, names.len() * (1 + json.len() / 16))?;
        let mut out = String::from("{");
        for name in names {
            if let Some(value) = json.get(name) {
                if out.len() > 1 {
                    out.push(',');
                }
                spend(steps, value.cost())?;
                write_string(name, &mut out);
                out.push(':');
                value.write(&mut out);
            }
        }
        out.push('}');
        objects.push(out);
    }
    Ok(match (is_single, objects.pop()) {
        (true, Some(object)) => Selection::Made(object),
        (true, None) => Selection::Missing,
        (false, last) => {
            objects.extend(last);
            Selection::Made(format!("[{}]", objects.join(",")))
        }
    })
}

/// An item, from the end where the index is negative.
fn item(json: Json<'_>, index: i64) -> Option<Json<'_>> {
    let index = if index < 0 {
        index + json.len() as i64
    } else {
        index
    };
    json.item(usize::try_from(index).ok()?)
}

fn spend(steps: &mut u64, count: usize) -> Result<(), OutOfSteps> {
    *steps = steps.checked_sub(count as u64).ok_or(OutOfSteps)?;
    Ok(())
}
