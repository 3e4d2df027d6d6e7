//! JSONPath as the Java library that the service links has it.

use tidegate_vtl::path::OutOfSteps;
use tidegate_vtl::{Document, JsonPath};

const STORE: &str = r#"{
  "store": {
    "book": [
      {"category": "reference", "author": "Nigel Rees", "title": "Sayings of the Century", "price": 8.95, "tags": ["a", "b"]},
      {"category": "fiction", "author": "Evelyn Waugh", "title": "Sword of Honour", "price": 12.99, "tags": []},
      {"category": "fiction", "author": "Herman Melville", "title": "Moby Dick", "isbn": "0-553-21311-3", "price": 8.99},
      {"category": "fiction", "author": "J. R. R. Tolkien", "title": "The Lord of the Rings", "isbn": null, "price": 22.99}
    ],
    "bicycle": {"color": "red", "price": 19.95}
  },
  "expensive": 10,
  "numbers": [3, 1, 2],
  "with blank": {"a.b": 1, "it's": 2},
  "nothing": null,
  "words": ["x", "y"]
}"#;

fn select(path: &str) -> String {
    let document = Document::new(STORE);
    let path = JsonPath::compile(path).unwrap_or_else(|error| panic!("{error}"));
    path.select(document.json().unwrap(), &mut 100_000)
        .unwrap()
        .to_json()
}

fn all(table: &[(&str, &str)]) {
    for (path, expected) in table {
        assert_eq!(select(path), *expected, "{path}");
    }
}

/// VTL-269, VTL-104
#[test]
fn definite_paths_give_one_value() {
    all(&[
        ("$.expensive", "10"),
        ("$.store.bicycle.color", "\"red\""),
        ("$['store']['bicycle'].color", "\"red\""),
        ("$[\"store\"]['bicycle'][\"price\"]", "19.95"),
        ("$.store.book[0].title", "\"Sayings of the Century\""),
        ("$.store.book[-1].price", "22.99"),
        ("store.book[1].price", "12.99"),
        ("['store'].bicycle.price", "19.95"),
        ("$.numbers", "[3,1,2]"),
        ("$['with blank']['a.b']", "1"),
        (r"$['with blank']['it\'s']", "2"),
        ("$.nothing", "null"),
        (" $.expensive ", "10"),
        ("@.expensive", "10"),
        ("$.['expensive']", "10"),
    ]);
    assert_eq!(select("$"), Document::new(STORE).json().unwrap().to_text());
}

/// VTL-269: a definite path to nowhere leads to nothing, an indefinite one to an empty list.
#[test]
fn missing_parts() {
    for path in [
        "$.none",
        "$.store.none.deeper",
        "$.numbers[9]",
        "$.numbers[-9]",
        "$.expensive.x",
        "$.numbers.x",
        "$.store[0]",
        "$.nothing.x",
    ] {
        let document = Document::new(STORE);
        let path = JsonPath::compile(path).unwrap();
        let selection = path.select(document.json().unwrap(), &mut 1000).unwrap();
        assert_eq!(selection.to_json(), "\"\"", "{}", path.text());
        assert_eq!(selection.into_text(), None);
    }
    all(&[
        ("$..none", "[]"),
        ("$.store.book[*].none", "[]"),
        ("$.none[*]", "[]"),
        ("$.store.book[9:]", "[]"),
        ("$.store.book[?(@.price > 100)]", "[]"),
        ("$.expensive[*]", "[]"),
    ]);
}

/// VTL-269: wildcards, `..`, slices, several indexes and names.
#[test]
fn indefinite_paths_give_lists() {
    all(&[
        ("$.store.book[*].price", "[8.95,12.99,8.99,22.99]"),
        ("$.store.bicycle.*", "[\"red\",19.95]"),
        ("$.store.bicycle[*]", "[\"red\",19.95]"),
        ("$..price", "[8.95,12.99,8.99,22.99,19.95]"),
        ("$..book[0].price", "[8.95]"),
        ("$.store..price", "[8.95,12.99,8.99,22.99,19.95]"),
        ("$..['color']", "[\"red\"]"),
        ("$.numbers[0,2]", "[3,2]"),
        ("$.numbers[0:2]", "[3,1]"),
        ("$.numbers[1:]", "[1,2]"),
        ("$.numbers[:2]", "[3,1]"),
        ("$.numbers[-2:]", "[1,2]"),
        ("$.numbers[:-1]", "[3,1]"),
        ("$.numbers[:]", "[3,1,2]"),
        ("$.numbers[2:1]", "[]"),
        ("$.numbers[5:9]", "[]"),
        ("$.store.bicycle..*", "[\"red\",19.95]"),
        // At the end names make one object each; elsewhere they are several ways to go on.
        (
            "$.store.bicycle['price','color','none']",
            "{\"price\":19.95,\"color\":\"red\"}",
        ),
        (
            "$.store.book[0:2]['price','category']",
            "[{\"price\":8.95,\"category\":\"reference\"},{\"price\":12.99,\"category\":\"fiction\"}]",
        ),
        ("$['numbers','words'][0]", "[3,\"x\"]"),
        ("$.expensive['a','b']", "\"\""),
    ]);
}

/// VTL-269: conditions, with the library's own operators.
#[test]
fn filters() {
    let titles = |filter: &str| select(&format!("$.store.book[?({filter})].price"));
    for (filter, expected) in [
        ("@.isbn", "[8.99,22.99]"),
        ("!@.isbn", "[8.95,12.99]"),
        ("@.isbn == null", "[22.99]"),
        ("@.isbn != null", "[8.95,12.99,8.99]"),
        ("@.price < 10", "[8.95,8.99]"),
        ("@.price <= 8.95", "[8.95]"),
        ("@.price > $.expensive", "[12.99,22.99]"),
        ("@.price >= 12.99", "[12.99,22.99]"),
        ("@.category == 'fiction'", "[12.99,8.99,22.99]"),
        ("@.category == \"reference\"", "[8.95]"),
        ("@['category'] != 'fiction'", "[8.95]"),
        ("'fiction' == @.category && @.price < 20", "[12.99,8.99]"),
        ("@.price < 8.96 || @.price > 20", "[8.95,22.99]"),
        (
            "(@.price < 8.96 || @.price > 20) && @.category == 'fiction'",
            "[22.99]",
        ),
        ("!(@.category == 'fiction')", "[8.95]"),
        ("@.author =~ /.*waugh/i", "[12.99]"),
        ("@.author =~ /waugh/i", "[]"),
        ("@.category in ['reference', 'other']", "[8.95]"),
        ("@.category nin ['reference']", "[12.99,8.99,22.99]"),
        ("@.tags contains 'a'", "[8.95]"),
        ("@.title contains 'Sword'", "[12.99]"),
        ("@.tags size 2", "[8.95]"),
        ("@.tags empty true", "[12.99]"),
        ("@.tags empty false", "[8.95]"),
        ("@.tags subsetof ['a', 'b', 'c']", "[8.95,12.99]"),
        ("@.tags anyof ['b']", "[8.95]"),
        ("@.tags noneof ['b']", "[12.99]"),
        ("@.tags.length() == 2", "[8.95]"),
        ("@.tags[0] == 'a'", "[8.95]"),
        ("@.title < 'N'", "[8.99]"),
        ("@.price == '8.95'", "[]"),
        ("@.tags == ['a', 'b']", "[8.95]"),
    ] {
        assert_eq!(titles(filter), expected, "{filter}");
    }
    all(&[
        ("$..[?(@.color)].color", "[\"red\"]"),
        ("$.store.bicycle[?(@.color == 'red')].price", "[19.95]"),
        ("$.numbers[?(@ > 1)]", "[3,2]"),
        ("$.words[?(@ == 'y')]", "[\"y\"]"),
        ("$[ 'numbers' ][ ?( @ >= 2 ) ]", "[3,2]"),
    ]);
}

/// VTL-269: functions at the end.
#[test]
fn functions() {
    all(&[
        ("$.numbers.length()", "3"),
        ("$.store.bicycle.length()", "2"),
        ("$.numbers.min()", "1.0"),
        ("$.numbers.max()", "3.0"),
        ("$.numbers.avg()", "2.0"),
        ("$.numbers.sum()", "6.0"),
        ("$.numbers.stddev()", "0.816496580927726"),
        ("$.numbers.first()", "3"),
        ("$.numbers.last()", "2"),
        ("$.numbers.index(-2)", "1"),
        ("$.numbers.append(4.5)", "[3,1,2,4.5]"),
        ("$.store.bicycle.keys()", "[\"color\",\"price\"]"),
        ("$.store.book[*].price.max()", "22.99"),
        ("$.words.concat('z')", "\"xyz\""),
        ("$.store.bicycle.color.concat('dish')", "\"reddish\""),
        ("$..price.length()", "5"),
        ("$.words.sum()", "\"\""),
        ("$.none.length()", "\"\""),
        ("$.expensive.length()", "\"\""),
    ]);
}

/// VTL-104: what a parameter mapping takes of a path.
#[test]
fn texts_for_parameters() {
    let document = Document::new(r#"{"petstore":{"pets":[{"name":"rex","n":null,"age":1.50,"ok":true}]}}"#);
    for (path, expected) in [
        ("petstore.pets[0].name", Some("rex")),
        ("petstore.pets[0].age", Some("1.50")),
        ("petstore.pets[0].ok", Some("true")),
        ("petstore.pets[0].n", None),
        ("petstore.pets[1].name", None),
        ("petstore.pets[*].name", Some("[\"rex\"]")),
        (
            "petstore.pets[0]",
            Some(r#"{"name":"rex","n":null,"age":1.50,"ok":true}"#),
        ),
        ("petstore.pets.length()", Some("1")),
    ] {
        let path = JsonPath::compile(path).unwrap();
        let text = path
            .select(document.json().unwrap(), &mut 1000)
            .unwrap()
            .into_text();
        assert_eq!(text.as_deref(), expected, "{}", path.text());
    }
    assert!(JsonPath::compile("a.b[0]").unwrap().is_definite());
    assert!(!JsonPath::compile("a..b").unwrap().is_definite());
}

/// VTL-269: what is no path is refused, with the place.
#[test]
fn what_is_no_path_is_refused() {
    for (path, column) in [
        ("", 1),
        (" ", 2),
        ("$.", 3),
        ("$..", 4),
        ("$.a b", 5),
        ("$[", 3),
        ("$[a]", 3),
        ("$['a]", 3),
        ("$['a',]", 7),
        ("$[0", 4),
        ("$[99999999999]", 14),
        ("$[1:2:3]", 6),
        ("$[?@.a]", 4),
        ("$[?(@.a]", 8),
        ("$[?(@.a ==)]", 11),
        ("$[?('a')]", 8),
        ("$[?(@.a =~ 'x')]", 15),
        ("$[?(@.a =~ /(/)]", 12),
        ("$[?(@.a =~ /x)]", 12),
        ("$[?(@.a == [[1]])]", 13),
        ("$.a.nofunction()", 17),
        ("$.a.length(1)", 14),
        ("$.a]", 4),
        ("$\u{fc}", 2),
    ] {
        let error = JsonPath::compile(path).expect_err(path);
        assert_eq!(error.column, column, "{error}");
    }
    let deep = format!("$[?({}@.a{})]", "(".repeat(100), ")".repeat(100));
    assert!(JsonPath::compile(&deep).unwrap_err().reason.contains("too deep"));
    let deep = format!("{}@.a{}", "$[?(@".repeat(100), ")]".repeat(100));
    assert!(JsonPath::compile(&deep).is_err());
    assert!(
        JsonPath::compile(&".a".repeat(4000))
            .unwrap_err()
            .reason
            .contains("too long")
    );
}

/// A path cannot take more steps than it is given, whatever it asks for.
#[test]
fn steps_are_bounded() {
    let document = Document::new(format!("[{}1]", "[1,2,3],".repeat(1000)));
    for path in ["$..*", "$..*..*..*", "$[*]", "$[?(@ == $..*)]", "$..[?(@..*)]"] {
        let path = JsonPath::compile(path).unwrap();
        let mut steps = 500;
        assert_eq!(
            path.select(document.json().unwrap(), &mut steps).unwrap_err(),
            OutOfSteps
        );
    }
    let mut steps = 500;
    JsonPath::compile("$[0][1]")
        .unwrap()
        .select(document.json().unwrap(), &mut steps)
        .unwrap();
    assert!(steps > 400);
}
