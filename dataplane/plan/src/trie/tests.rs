use proptest::prelude::*;

use super::*;
use crate::path::normalize;

fn trie(routes: &[&str]) -> Trie {
    let mut builder = Builder::new(10_000);
    for (at, route) in routes.iter().enumerate() {
        assert_eq!(builder.insert(route), Ok(RouteIndex(at as u32)), "{route}");
    }
    builder.finish()
}

fn refusal(routes: &[&str]) -> TrieError {
    let mut builder = Builder::new(10_000);
    let (last, before) = routes.split_last().unwrap();
    for route in before {
        builder.insert(route).unwrap();
    }
    builder.insert(last).unwrap_err()
}

/// The route's text and the values of its parameters.
fn find<'r>(routes: &[&'r str], path: &str) -> Option<(&'r str, Vec<String>)> {
    let path = normalize(path.as_bytes()).unwrap();
    let mut captures = Captures::new();
    let index = trie(routes).find(path.view(), &mut captures)?;
    let values = (0..captures.len()).map(|at| captures.value(at, path.view()).unwrap().to_owned());
    Some((routes[index.0 as usize], values.collect()))
}

fn route<'r>(routes: &[&'r str], path: &str) -> Option<&'r str> {
    find(routes, path).map(|(route, _)| route)
}

/// DEP-002, DEP-003, DEP-005, RES-020
#[test]
fn the_root_is_reached_with_and_without_a_slash() {
    assert_eq!(route(&["/", "/a"], "/"), Some("/"));
    let mut captures = Captures::new();
    let path = normalize(b"/prod").unwrap();
    let (_, empty) = path.view().split_first().unwrap();
    assert_eq!(trie(&["/"]).find(empty, &mut captures), Some(RouteIndex(0)));
    assert_eq!(route(&["/a"], "/"), None);
}

/// RES-037, RES-038
#[test]
fn a_parameter_takes_one_segment() {
    let routes = ["/pets/{petId}", "/pets"];
    assert_eq!(
        find(&routes, "/pets/1"),
        Some(("/pets/{petId}", vec!["1".into()]))
    );
    assert_eq!(
        find(&routes, "/pets/a%2Fb"),
        Some(("/pets/{petId}", vec!["a%2Fb".into()]))
    );
    assert_eq!(route(&routes, "/pets/"), Some("/pets"));
    assert_eq!(route(&routes, "/pets//"), None);
    assert_eq!(route(&routes, "/pets/1/2"), None);
    let two = ["/{shop}/items/{item}"];
    assert_eq!(
        find(&two, "/s/items/i"),
        Some((two[0], vec!["s".into(), "i".into()]))
    );
}

/// RES-040, RES-041, RES-042
#[test]
fn a_greedy_parameter_takes_the_remainder_but_not_the_parent() {
    let routes = ["/{proxy+}"];
    let value = |path| find(&routes, path).map(|(_, values)| values[0].clone());
    assert_eq!(value("/produce").as_deref(), Some("produce"));
    assert_eq!(
        value("/produce/vegetables/carrot").as_deref(),
        Some("produce/vegetables/carrot")
    );
    assert_eq!(value("/a/").as_deref(), Some("a/"));
    assert_eq!(value("/a//b").as_deref(), Some("a//b"));
    assert_eq!(value("//a").as_deref(), Some("/a"));
    for nothing in ["/", "//", "///"] {
        assert_eq!(value(nothing), None, "{nothing}");
    }
    assert_eq!(route(&["/parent/{proxy+}"], "/parent"), None);
    assert_eq!(route(&["/parent/{proxy+}"], "/parent/"), None);
    assert_eq!(route(&["/parent/{any+}"], "/parent/x"), Some("/parent/{any+}"));
}

/// RES-043, RES-047, OBV-063
#[test]
fn at_each_level_the_literal_goes_first_and_keeps_what_is_below_it() {
    let routes = [
        "/{proxy+}",
        "/parent",
        "/parent/{child}",
        "/parent/{child}/{rest+}",
        "/parent/lit/x",
    ];
    assert_eq!(route(&routes, "/other/x/y"), Some("/{proxy+}"));
    assert_eq!(route(&routes, "/parent"), Some("/parent"));
    assert_eq!(route(&routes, "/parent/a"), Some("/parent/{child}"));
    assert_eq!(
        find(&routes, "/parent/a/b/c"),
        Some(("/parent/{child}/{rest+}", vec!["a".into(), "b/c".into()]))
    );
    // Below a literal there is no way back to its siblings.
    assert_eq!(route(&routes, "/parent/lit"), None);
    assert_eq!(route(&routes, "/parent/lit/y"), None);
    assert_eq!(route(&routes, "/parent/lit/x"), Some("/parent/lit/x"));
    assert_eq!(route(&["/{proxy+}", "/parent"], "/parent/x"), None);
    let produce = ["/{proxy+}", "/produce/{proxy+}", "/produce/vegetables/{proxy+}"];
    assert_eq!(route(&produce, "/produce/fruit/apple"), Some("/produce/{proxy+}"));
    assert_eq!(
        route(&produce, "/produce/vegetables/carrot"),
        Some("/produce/vegetables/{proxy+}")
    );
}

/// Literals compare with case, after unreserved characters are decoded (D12).
#[test]
fn literals_compare_in_canonical_form() {
    let routes = ["/Pets/a~b", "/é", "/a:b"];
    assert_eq!(route(&routes, "/Pets/a%7eb"), Some("/Pets/a~b"));
    assert_eq!(route(&routes, "/pets/a~b"), None);
    assert_eq!(route(&routes, "/%c3%A9"), Some("/é"));
    assert_eq!(route(&routes, "/a%3Ab"), None);
    assert_eq!(route(&["/a/b"], "/a%2Fb"), None);
}

/// OBV-061, OBV-062, RES-044
#[test]
fn conflicts_are_refused_in_the_services_words() {
    let sibling =
        "A sibling ({proxy+}) of this resource already has a variable path part -- only one is allowed";
    assert_eq!(refusal(&["/{proxy+}", "/{dynamic}"]).to_string(), sibling);
    assert_eq!(
        refusal(&["/{a}", "/{b}/c"]),
        TrieError::VariableSibling("{a}".into())
    );
    assert_eq!(
        refusal(&["/{a}", "/{a+}"]),
        TrieError::VariableSibling("{a}".into())
    );
    let child = "Cannot create a child of a resource with a greedy path variable: {proxy+}";
    assert_eq!(refusal(&["/{proxy+}/child"]).to_string(), child);
    assert_eq!(
        refusal(&["/parent/{c}/{proxy+}/{grandchild+}"]).to_string(),
        child
    );
    assert_eq!(refusal(&["/a", "/a"]), TrieError::Duplicate("/a".into()));
    assert_eq!(refusal(&["/a", "/%61"]), TrieError::Duplicate("/%61".into()));
    for bad in ["/a//b", "/a/", "//"] {
        assert_eq!(refusal(&[bad]), TrieError::EmptyPart(bad.into()));
    }
    for bad in ["/{}", "/{+}", "/a{b}", "/{a}b", "/{a+b}", "/{{a}}", "/}"] {
        assert!(matches!(refusal(&[bad]), TrieError::Part { .. }), "{bad}");
    }
    for bad in ["/..", "/a/.", "/%2e", "/a%", "/a\\b", "/a?b"] {
        assert!(matches!(refusal(&[bad]), TrieError::Literal { .. }), "{bad}");
    }
    assert_eq!(refusal(&["a"]), TrieError::NotAbsolute("a".into()));
    assert!(matches!(
        refusal(&[&"/{a}".repeat(256)]),
        TrieError::Parameters(_)
    ));
}

#[test]
fn the_number_of_routes_is_bounded() {
    let mut builder = Builder::new(2);
    builder.insert("/a").unwrap();
    builder.insert("/b").unwrap();
    assert_eq!(builder.insert("/c"), Err(TrieError::Full(2)));
}

/// C1: what a route may cost, of which the trie has a small part.
#[test]
fn many_routes_are_found_and_take_little_memory() {
    let mut builder = Builder::new(10_000);
    for at in 0..5000 {
        builder.insert(&format!("/service-{at}")).unwrap();
        builder.insert(&format!("/service-{at}/{{id}}")).unwrap();
    }
    let trie = builder.finish();
    let mut captures = Captures::new();
    for at in 0..5000 {
        let text = format!("/service-{at}/x{at}");
        let path = normalize(text.as_bytes()).unwrap();
        assert_eq!(
            trie.find(path.view(), &mut captures),
            Some(RouteIndex(at * 2 + 1))
        );
        assert_eq!(captures.value(0, path.view()), Some(format!("x{at}").as_str()));
    }
    assert!(
        trie.heap_bytes() / 10_000 <= 64,
        "{} bytes a route",
        trie.heap_bytes() / 10_000
    );
}

/// What the rules say, word by word, without a trie.
fn naive<'r>(routes: &[&'r str], path: &str) -> Option<(&'r str, Vec<String>)> {
    let significant = path.strip_suffix('/').unwrap_or(path);
    let wanted: Vec<&str> = significant.split('/').skip(1).collect();
    let mut prefix: Vec<&str> = Vec::new();
    let mut values = Vec::new();
    let parts =
        |route: &'r str| -> Vec<&'r str> { route.split('/').skip(1).filter(|p| !p.is_empty()).collect() };
    for (depth, segment) in wanted.iter().enumerate() {
        let below: Vec<&str> = routes
            .iter()
            .map(|route| parts(route))
            .filter(|parts| parts.len() > depth && parts[..depth] == prefix[..])
            .map(|parts| parts[depth])
            .collect();
        let variable = below.iter().find(|part| part.starts_with('{'));
        if below.contains(segment) {
            prefix.push(below.iter().find(|part| *part == segment).unwrap());
            continue;
        }
        let variable = variable?;
        if variable.ends_with("+}") {
            let start: usize = wanted[..depth]
                .iter()
                .map(|segment| segment.len() + 1)
                .sum::<usize>()
                + 1;
            significant[start..].bytes().any(|b| b != b'/').then_some(())?;
            prefix.push(variable);
            values.push(path[start..].to_owned());
            break;
        }
        if segment.is_empty() {
            return None;
        }
        prefix.push(variable);
        values.push((*segment).to_owned());
    }
    let route = routes.iter().find(|route| parts(route) == prefix)?;
    Some((route, values))
}

fn part() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => "[ab]{1,2}",
        2 => Just("{x}".to_owned()),
        1 => Just("{y+}".to_owned()),
    ]
}

proptest! {
    /// Whatever routes stand together, the trie finds what the rules say.
    #[test]
    fn the_trie_agrees_with_the_rules(
        candidates in prop::collection::vec(prop::collection::vec(part(), 0..5), 1..40),
        paths in prop::collection::vec(prop::collection::vec("[ab]{0,2}", 0..5), 1..20),
    ) {
        let mut builder = Builder::new(100);
        let texts: Vec<String> = candidates.iter().map(|parts| format!("/{}", parts.join("/"))).collect();
        let routes: Vec<&str> = texts.iter().map(String::as_str).filter(|t| builder.insert(t).is_ok()).collect();
        // A refused route leaves parts behind; the trie is built again from those that fit.
        let trie = trie(&routes);
        for parts in paths {
            let text = format!("/{}", parts.join("/"));
            let path = normalize(text.as_bytes()).unwrap();
            let mut captures = Captures::new();
            let found = trie.find(path.view(), &mut captures).map(|index| {
                let values = (0..captures.len()).map(|at| captures.value(at, path.view()).unwrap().to_owned());
                (routes[index.0 as usize], values.collect::<Vec<_>>())
            });
            prop_assert_eq!(found, naive(&routes, &text), "{} in {:?}", text, routes);
        }
    }
}
