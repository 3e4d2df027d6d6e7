//! No template and no body can panic, whatever is in them.

mod support;

use proptest::prelude::*;
use support::{Request, render_with};
use tidegate_vtl::{Budget, Document, JsonPath, Overrides, Phase, Template};

/// Small bounds, so that a case ends soon.
fn budget() -> Budget {
    Budget {
        iterations: 50,
        steps: 20_000,
        output: 64 << 10,
        memory: 1 << 20,
        depth: 32,
        json_depth: 64,
    }
}

fn run(template: &str, body: &str) {
    let Ok(template) = Template::parse(template) else {
        return;
    };
    let request = Request {
        path: vec![("id", "1")],
        query: vec![("q", "a b")],
        header: vec![("X-Y", "z")],
        stage: vec![("v", "w")],
        context: vec![("stage", "prod"), ("identity.sourceIp", "192.0.2.1")],
        body: body.to_owned(),
    };
    for phase in [Phase::Request, Phase::Response] {
        let mut overrides = Overrides::new();
        let result = render_with(template.source(), &request, phase, &mut overrides, &budget());
        match result {
            Ok(rendered) => assert!(rendered.text.len() <= budget().output),
            Err(_) => assert!(overrides.is_empty()),
        }
    }
}

/// Pieces that templates are made of.
fn piece() -> impl Strategy<Value = String> {
    let fixed = prop::sample::select(vec![
        "#set(",
        "#if(",
        "#elseif(",
        "#else",
        "#{else}",
        "#end",
        "#foreach(",
        "#macro(m ",
        "#m(",
        "#define(",
        "#break",
        "#stop",
        "#[[",
        "]]#",
        "##",
        "#*",
        "*#",
        "$x",
        "$y",
        "${x",
        "$!",
        "$",
        "#",
        "\\",
        "}",
        ")",
        "]",
        "(",
        "[",
        "{",
        ",",
        ":",
        " ",
        "\n",
        " in ",
        "=",
        " == ",
        " + ",
        " - ",
        " * ",
        " / ",
        " % ",
        " && ",
        " || ",
        "!",
        " < ",
        "..",
        "'",
        "\"",
        "'a'",
        "\"$x\"",
        "1",
        "2.5",
        "true",
        "$input",
        "$input.body",
        "$input.path('$')",
        "$input.json('$')",
        "$input.path('$..*')",
        "$input.params()",
        "$util",
        "$context",
        "$context.identity",
        "$context.requestOverride.header",
        "$context.responseOverride.status",
        "$stageVariables",
        "$foreach",
        ".hasNext",
        ".index",
        ".parent",
        ".size()",
        ".get(",
        ".put(",
        ".add(",
        ".remove(",
        ".keySet()",
        ".entrySet()",
        ".values()",
        ".toString()",
        ".split(",
        ".replaceAll(",
        ".substring(",
        ".charAt(",
        ".format(",
        ".matches(",
        ".subList(",
        ".set(",
        ".addAll(",
        ".putAll(",
        ".escapeJavaScript(",
        ".parseJson(",
        ".urlDecode(",
        ".base64Decode(",
        ".x",
        ".y",
        "[0]",
        "['x']",
        "[1..9]",
        "{'x': 1}",
        "[1, 'a', {}]",
        "\u{e9}",
        "\u{1F600}",
    ]);
    prop_oneof![8 => fixed.prop_map(str::to_owned), 1 => "\\PC{0,6}"]
}

/// Whole statements, which parse more often than pieces do.
fn statement() -> impl Strategy<Value = String> {
    let value = prop::sample::select(vec![
        "$x",
        "$y",
        "$x.x",
        "$x[0]",
        "$input.path('$')",
        "$input.path('$.x')",
        "$input.path('$..*')",
        "$input.params()",
        "$input.body",
        "$context.requestOverride.header",
        "$context.identity",
        "$stageVariables",
        "$foreach.parent",
        "[1, $x, 'a']",
        "{'k': $x}",
        "[3..1]",
        "\"$x-$y\"",
        "$x.size() - 1",
        "$x + $y",
        "!$x",
        "$x.keySet()",
        "$x.entrySet()",
        "$x.toString().split('')",
        "'text'",
        "-7",
        "2.5e300",
        "9223372036854775807 * 2",
        "$x / 0",
        "$util.parseJson($input.body)",
        "$util.escapeJavaScript($x)",
        "$x == $y",
        "$x < $y",
    ]);
    let value = value.prop_map(str::to_owned);
    let leaf = prop_oneof![
        value.clone(),
        (value.clone(), value.clone()).prop_map(|(to, from)| {
            let to = if to.starts_with('$') { to } else { "$x".to_owned() };
            format!("#set({to} = {from})")
        }),
        value.clone().prop_map(|value| format!("#set($x = {value})")),
        value.clone().prop_map(|value| format!("#set($y = {value})$y")),
        (value.clone(), value.clone()).prop_map(|(a, b)| format!(
            "#set($x = {a})$x.put({b}, {a})$x.add({b})$x.addAll($x)$x.remove({b})$x"
        )),
        (value.clone(), value.clone()).prop_map(|(a, b)| format!(
            "#set($x = {a})$x.substring({b})$x.charAt({b})$x.get({b})$x.set({b}, {a})"
        )),
        Just("#break".to_owned()),
        Just("#m($x $y)".to_owned()),
        Just("$input.json('$')".to_owned()),
    ];
    leaf.prop_recursive(4, 24, 4, move |inner| {
        let block = prop::collection::vec(inner, 0..4).prop_map(|all| all.concat());
        prop_oneof![
            (value.clone(), block.clone(), block.clone())
                .prop_map(|(c, a, b)| format!("#if({c}){a}#else {b}#end")),
            (value.clone(), block.clone())
                .prop_map(|(list, body)| format!("#foreach($x in {list}){body}$foreach.count#end")),
            block
                .clone()
                .prop_map(|body| format!("#macro(m $x $y){body}#end#m($y, 1)")),
            block.clone().prop_map(|body| format!("#define($y){body}#end$y")),
            block.prop_map(|body| format!("#set($x = \"{}\")$x", body.replace('"', "\"\""))),
        ]
    })
}

fn body() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(r#"{"x":{"x":[1,{"y":null}],"y":"a\"b"},"y":[true,1e400,-0]}"#.to_owned()),
        Just("[[1,2],[3,[4]],{\"x\":\"\u{1F600}\"}]".to_owned()),
        "[\\[\\]{}\",:0-9a\\\\u .eE+-]{0,40}",
        "\\PC{0,20}",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn pieces_of_templates_do_not_panic(pieces in prop::collection::vec(piece(), 0..24), body in body()) {
        run(&pieces.concat(), &body);
    }

    #[test]
    fn statements_do_not_panic(statements in prop::collection::vec(statement(), 1..5), body in body()) {
        run(&statements.concat(), &body);
    }

    #[test]
    fn any_text_as_template_and_body(template in "\\PC{0,60}", body in "\\PC{0,60}") {
        run(&template, &body);
    }

    /// Text without `$`, `#` and backslashes is its own output.
    #[test]
    fn plain_text_comes_out_as_it_went_in(text in "[^$#\\\\]{0,200}") {
        assert_eq!(support::plain(&text), text);
    }

    /// What is read and written is what serde_json reads and writes, but for numbers, which keep their words.
    #[test]
    fn documents_mean_what_serde_json_makes_of_them(text in body()) {
        let document = Document::new(&*text);
        let ours = document.json();
        match serde_json::from_str::<serde_json::Value>(&text) {
            Ok(value) => {
                let written = ours.unwrap().to_text();
                assert_eq!(serde_json::from_str::<serde_json::Value>(&written).unwrap(), value);
            }
            // serde_json refuses numbers beyond a double and halves of surrogate pairs; an empty body is an object.
            Err(error) => {
                let message = error.to_string();
                let lenient = ["number out of range", "surrogate", "hex escape", "EOF while parsing a value"];
                assert!(ours.is_err() || lenient.iter().any(|reason| message.contains(reason)), "{text}: {message}");
            }
        }
    }

    #[test]
    fn paths_do_not_panic(path in "(\\$|@|)(\\.|\\.\\.|\\[|\\]|\\*|\\?|\\(|\\)|[a-c0-9]|'|\"|,|:|-|@|==|<|=~|/|!|&&|\\|\\|| in |length|é){0,20}", body in body()) {
        if let Ok(path) = JsonPath::compile(&path) {
            let document = Document::new(body);
            if let Ok(root) = document.json()
                && let Ok(selection) = path.select(root, &mut 10_000)
            {
                assert!(!selection.to_json().is_empty());
            }
        }
    }
}
