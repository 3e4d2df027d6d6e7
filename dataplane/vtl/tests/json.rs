//! JSON documents: what is read, what is refused, what goes out.

use tidegate_vtl::Document;

fn compact(text: &str) -> String {
    Document::new(text)
        .json()
        .unwrap_or_else(|error| panic!("{text}: {error}"))
        .to_text()
}

/// VTL-241, VTL-242, VTL-261: without blanks, and otherwise as it came.
#[test]
fn documents_go_out_as_they_came() {
    for (text, expected) in [
        ("null", "null"),
        (" true ", "true"),
        ("\t-0\r\n", "-0"),
        ("1.0", "1.0"),
        ("1E+400", "1E+400"),
        ("12345678901234567890123", "12345678901234567890123"),
        ("\"\"", "\"\""),
        ("[ ]", "[]"),
        ("{ }", "{}"),
        ("[1, [2, {}], {\"a\": []}, null]", "[1,[2,{}],{\"a\":[]},null]"),
        (
            "{ \"b\" : 1 , \"a\" : { \"c\" : \"d\" } }",
            "{\"b\":1,\"a\":{\"c\":\"d\"}}",
        ),
        // Escapes are written anew, each in its shortest form.
        (
            r#""\u0041\/\"\\\b\f\n\r\t\u001f\u00e9""#,
            "\"A/\\\"\\\\\\b\\f\\n\\r\\t\\u001f\u{e9}\"",
        ),
        (
            r#""\ud83d\ude00\ud83dx\ude00\ud83d\u0041""#,
            "\"\u{1F600}\u{FFFD}x\u{FFFD}\u{FFFD}A\"",
        ),
        ("{\"\\u0061\": 1}", "{\"a\":1}"),
        ("\"\u{7f}\u{fc}\"", "\"\u{7f}\u{fc}\""),
    ] {
        assert_eq!(compact(text), expected, "{text}");
    }
}

/// Of doubled members the last value holds, in the first one's place: nobody downstream sees another one than we do.
#[test]
fn of_doubled_members_the_last_holds() {
    for (text, expected) in [
        (
            r#"{"a":1,"b":2,"a":{"x":[3]},"c":4}"#,
            r#"{"a":{"x":[3]},"b":2,"c":4}"#,
        ),
        (r#"{"a":1,"\u0061":2}"#, r#"{"a":2}"#),
        (
            r#"[{"a":{"k":1,"k":2},"a":{"k":3,"k":4}},5]"#,
            r#"[{"a":{"k":4}},5]"#,
        ),
    ] {
        assert_eq!(compact(text), expected);
    }
    let many: String = (0..40).map(|at| format!("\"m{}\":{at},", at % 20)).collect();
    let document = Document::new(format!("{{{}\"z\":0}}", many));
    let json = document.json().unwrap();
    assert_eq!(json.len(), 21);
    assert_eq!(json.get("m3").unwrap().to_text(), "23");
    assert_eq!(json.members().count(), 21);
}

/// VTL-390: what is no JSON is told of with its place.
#[test]
fn what_is_no_json_is_refused() {
    for (text, line, column) in [
        ("x", 1, 1),
        ("{", 1, 2),
        ("[1,]", 1, 4),
        ("[1 2]", 1, 4),
        ("{\"a\" 1}", 1, 6),
        ("{\"a\":1,}", 1, 8),
        ("{a:1}", 1, 2),
        ("{\"a\":}", 1, 6),
        ("[1]\n 2", 2, 2),
        ("01", 1, 2),
        ("-", 1, 2),
        ("1.", 1, 3),
        ("1e", 1, 3),
        (".5", 1, 1),
        ("+1", 1, 1),
        ("tru", 1, 1),
        ("nul", 1, 1),
        ("\"a", 1, 3),
        ("\"a\nb\"", 1, 3),
        ("\"\\x\"", 1, 2),
        ("\"\\u12\"", 1, 2),
        ("\"\\", 1, 2),
        ("'a'", 1, 1),
        ("[1}", 1, 3),
        ("{]", 1, 2),
        ("\u{feff}{}", 1, 1),
        ("[\n\"\u{fc}\", x]", 2, 6),
        ("NaN", 1, 1),
    ] {
        let document = Document::new(text);
        let error = document.json().expect_err(text);
        assert_eq!((error.line, error.column), (line, column), "{text}: {error}");
    }
}

/// OBV-272
#[test]
fn an_empty_body_is_an_empty_object() {
    for text in ["", " ", "\r\n\t"] {
        assert_eq!(compact(text), "{}");
    }
    assert_eq!(Document::new("").text(), "{}");
    assert_eq!(Document::new(" ").text(), " ");
    assert!(Document::new("").is_empty());
}

#[test]
fn bytes_that_are_not_utf8_count_as_replacement_characters() {
    let document = Document::from_bytes(b"{\"a\":\"\xff\"}");
    assert_eq!(document.json().unwrap().to_text(), "{\"a\":\"\u{FFFD}\"}");
}

/// The same value for those who work on `serde_json`.
#[test]
fn documents_become_values_of_serde() {
    let text = r#"{"a":[1,-2,3.5,1e3,true,false,null,"\u00e9"],"b":{"c":12345678901234567890},"d":1e999}"#;
    let value = Document::new(text).json().unwrap().to_serde();
    assert_eq!(
        value,
        serde_json::json!({"a": [1, -2, 3.5, 1000.0, true, false, null, "\u{e9}"], "b": {"c": 12_345_678_901_234_567_890_u64}, "d": null})
    );
}
