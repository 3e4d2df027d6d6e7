//! `$input`, `$util`, `$stageVariables`, `$context` and overrides.

mod support;

use support::{Request, all_over, failure, output, over, render, render_with};
use tidegate_vtl::{Budget, ErrorKind, OverrideValue, Overrides, Phase, Source};

const PRICE: &str = r#"{"Price" : "249.99", "Age": "6"}"#;

fn bella() -> Request {
    Request {
        query: vec![("name", "Bella"), ("type", "dog")],
        ..Request::of(PRICE)
    }
}

/// VTL-260, VTL-261, VTL-262, VTL-281, INT-083, SCN-044
#[test]
fn the_guides_examples_of_input() {
    for (template, expected) in [
        (
            r#"{"name" : "$input.params('name')", "body" : $input.json('$')}"#,
            r#"{"name" : "Bella", "body" : {"Price":"249.99","Age":"6"}}"#,
        ),
        (
            r#"{"name" : "$input.params('name')", "body" : "$util.escapeJavaScript($input.json('$'))"}"#,
            r#"{"name" : "Bella", "body" : "{\"Price\":\"249.99\",\"Age\":\"6\"}"}"#,
        ),
        ("$input.json('$.Age')", r#""6""#),
        (r#"{"N": $input.json("$.Age")}"#, r#"{"N": "6"}"#),
        (r#""$util.escapeJavaScript($input.json('$.Age'))""#, r#""\"6\"""#),
        ("$input.body", PRICE),
        (
            "Action=SendMessage&MessageBody=$input.body",
            &format!("Action=SendMessage&MessageBody={PRICE}"),
        ),
    ] {
        assert_eq!(output(template, &bella()), expected, "{template}");
    }
}

/// VTL-178, VTL-243, VTL-263, VTL-282
#[test]
fn the_guides_example_of_things() {
    let request = Request {
        path: vec![("id", "123")],
        ..Request::of(r#"{"things": {"1": {}, "2": {}, "3": {}}}"#)
    };
    for (template, expected) in [
        (
            r#"{"id":"$input.params('id')","count":"$input.path('$.things').size()","things":$input.json('$.things')}"#,
            r#"{"id":"123","count":"3","things":{"1":{},"2":{},"3":{}}}"#,
        ),
        (
            r#"{"things":"$util.escapeJavaScript($input.json('$.things'))"}"#,
            r#"{"things":"{\"1\":{},\"2\":{},\"3\":{}}"}"#,
        ),
        (r#"$util.escapeJavaScript("it's").replaceAll("\\'","'")"#, "it's"),
    ] {
        assert_eq!(output(template, &request), expected, "{template}");
    }
}

/// VTL-264, VTL-269, WSS-136
#[test]
fn paths_give_values_to_work_with() {
    all_over(
        r#"{"a":{"b":[{"c":1},{"c":2}]},"pets":["a","b","c"],"s":"x","n":null}"#,
        &[
            ("$input.path('$.a.b')[1].c", "2"),
            ("$input.path('$.a').b.size()$input.path('$.a.b').get(0).c", "21"),
            ("$input.path('a.b[0].c')", "1"),
            ("$input.path('$.pets').count()", "3"),
            ("#set($p = '$.s')$input.path($p)$input.json($p)", "x\"x\""),
            ("$input.path('$..c')", "[1,2]"),
            ("#foreach($c in $input.path('$.a.b[*].c'))$c #end", "1 2 "),
            ("$input.path('$.pets.length()')", "3"),
            (
                "$input.path('$')",
                r#"{a={b=[{"c":1},{"c":2}]}, pets=["a","b","c"], s=x, n=null}"#,
            ),
            ("$input.json('$.a.b[?(@.c > 1)]')", r#"[{"c":2}]"#),
        ],
    );
}

/// VTL-265, VTL-266, VTL-267, VTL-268, OBV-224, OBV-276, RES-145, SCN-183
#[test]
fn parameters_in_their_three_forms() {
    let request = Request {
        path: vec![("id", "p"), ("stream-name", "s")],
        query: vec![("id", "q"), ("only", "q\"1\"")],
        header: vec![("id", "h"), ("Shard-Iterator", "AAAA"), ("only", "h")],
        ..Request::default()
    };
    for (template, expected) in [
        ("$input.params('id')$input.params('only')", "pq\"1\""),
        (
            "$input.params('stream-name') $input.params(\"Shard-Iterator\") $input.params('shard-iterator')",
            "s AAAA AAAA",
        ),
        ("[$input.params('nothing')]", "[]"),
        ("$input.params().keySet()", "[path, querystring, header]"),
        (
            "$input.params().querystring.id$input.params().get('header').get('id')$input.params()['path']['id']",
            "qhp",
        ),
        (
            "[$input.params().header.shard-iterator][$input.params().other]",
            "[][]",
        ),
        (
            "$input.params().header.keySet()$input.params().querystring.keySet()$input.params().path.keySet()",
            "[id, Shard-Iterator, only][id, only][id, stream-name]",
        ),
        ("$input.params().path", "{id=p, stream-name=s}"),
        (
            "$input.params().path.size()$input.params().path.containsKey('id')$input.params().path.containsKey('x')",
            "2truefalse",
        ),
        (
            "#foreach($h in $input.params().header.entrySet())$h.key=$h.value;#end",
            "id=h;Shard-Iterator=AAAA;only=h;",
        ),
        (
            "$input.params()",
            "{path={id=p, stream-name=s}, querystring={id=q, only=q\"1\"}, header={id=h, Shard-Iterator=AAAA, only=h}}",
        ),
        ("#set($p = $input.params().path)$p.get('id')$p.id", "pp"),
    ] {
        assert_eq!(output(template, &request), expected, "{template}");
    }
}

/// OBV-271, OBV-272, OBV-273: bodies that are empty, or no JSON.
#[test]
fn bodies_that_are_no_documents() {
    all_over(
        "",
        &[
            ("$input.body", "{}"),
            ("$input.json('$')", "{}"),
            ("[$input.path('$.x')]$input.path('$').size()", "[]0"),
            ("$input.json('$.x')", "\"\""),
        ],
    );
    all_over(
        "plain text",
        &[
            ("$input.body", "plain text"),
            ("[$input.path(\"$.x\")]", "[]"),
            ("[$input.path('$')]", "[]"),
        ],
    );
    all_over(
        r#"{"message":"text","n":null}"#,
        &[
            ("[$input.json('$.message').testAccess]", "[]"),
            ("$input.json('$.n')", "null"),
            ("$input.json('$.nothing')$input.json('$.n.deeper')", "\"\"\"\""),
        ],
    );
}

/// VTL-270, VTL-390, VTL-280
#[test]
fn a_body_that_is_no_json_fails_where_json_is_wanted() {
    let kind = failure("a\n  $input.json('$.x')", "{\"x\": \"un\"escaped\"}");
    assert_eq!(
        kind.to_string(),
        "Could not parse request body into json: expected `,` or `}` at line 1, column 11"
    );
    let error = render("a\n  $input.json('$.x')", &Request::of("{")).unwrap_err();
    assert_eq!((error.line, error.column), (2, 3));
    assert!(matches!(error.kind, ErrorKind::Body(_)));
    // Beyond ASCII it is UTF-8 throughout.
    assert_eq!(
        over(
            "$input.json('$')$input.path('$.\u{fc}')",
            "{\"\u{fc}\":\"\u{1F600}\\u00e9\\/\"}"
        ),
        "{\"\u{fc}\":\"\u{1F600}\u{e9}/\"}\u{1F600}\u{e9}/"
    );
}

/// VTL-280, VTL-281, VTL-282, VTL-283, VTL-284, SCN-187, SCN-188
#[test]
fn utilities() {
    all_over(
        r#"{"s":"a\"b\\c'd/e\n\t\u0001é😀","Data":"some data","j":"{\"k\":[1.50,{\"x\":\"y\"}]}","bad":"{","e":"","n":null}"#,
        &[
            (
                "$util.escapeJavaScript($input.path('$.s'))",
                r#"a\"b\\c\'d\/e\n\t\u0001\u00E9\uD83D\uDE00"#,
            ),
            ("$util.escapeJavaScript($input.path('$.n'))|", "|"),
            (
                "$util.escapeJavaScript(5)$util.escapeJavaScript($input.path('$.j').length())",
                "522",
            ),
            ("$util.parseJson($input.path('$.j')).k[1].x", "y"),
            ("$util.parseJson($input.path('$.j')).k[0]", "1.50"),
            (
                "#set($j = $util.parseJson($input.path('$.j')))#if($j.k[0] > 1)more#end",
                "more",
            ),
            (
                "[$util.parseJson('')][$util.parseJson($input.path('$.e'))]",
                "[][]",
            ),
            (
                "$util.parseJson('\"text\"')$util.parseJson('5')$util.parseJson('true')",
                "text5true",
            ),
            (
                "$util.urlEncode('a b&c=d/e.f-g*h_i~é+')",
                "a+b%26c%3Dd%2Fe.f-g*h_i%7E%C3%A9%2B",
            ),
            ("$util.urlDecode('a+b%26c%3Dd%C3%A9%2b')", "a b&c=d\u{e9}+"),
            ("$util.base64Encode($input.json('$.Data'))", "InNvbWUgZGF0YSI="),
            ("$util.base64Encode($input.path('$.Data'))", "c29tZSBkYXRh"),
            (
                "$util.base64Decode('c29tZSBkYXRh')$util.base64Decode('c29tZQ')",
                "some datasome",
            ),
            ("[$util.base64Decode('!!')]", "[]"),
            ("[$util.unknown('a')][$util.escapeJavaScript()]", "[][]"),
        ],
    );
    assert!(matches!(failure("$util.parseJson('{')", ""), ErrorKind::Json(_)));
    for bad in ["%", "%4", "%zz", "%\u{fc}"] {
        assert!(matches!(
            failure(&format!("$util.urlDecode('{bad}')"), ""),
            ErrorKind::Method { .. }
        ));
    }
}

/// VTL-283, WSS-136: the guide's example of a JSON text inside JSON.
#[test]
fn parse_json_reads_a_text_inside_a_document() {
    let body = r#"{"errorMessage":"{\"key1\":\"var1\",\"key2\":{\"arr\":[1,2,3]}}"}"#;
    let template = "#set ($errorMessageObj = $util.parseJson($input.path('$.errorMessage')))\n{\"errorMessageObjKey2ArrVal\" : $errorMessageObj.key2.arr[0]}";
    assert_eq!(over(template, body), "{\"errorMessageObjKey2ArrVal\" : 1}");
    // RES-159: as it stands, the text becomes an object of the output.
    assert_eq!(
        over("{\"e\": $input.path('$.errorMessage')}", body),
        "{\"e\": {\"key1\":\"var1\",\"key2\":{\"arr\":[1,2,3]}}}"
    );
}

/// VTL-300, OBV-221, OBV-276
#[test]
fn stage_variables() {
    let request = Request {
        stage: vec![("a", "1"), ("b", "2")],
        ..Request::default()
    };
    for (template, expected) in [
        (
            "$stageVariables.a$stageVariables['a']${stageVariables['a']}",
            "111",
        ),
        ("[$stageVariables.version]", "[]"),
        (
            "#foreach($k in $stageVariables.keySet())$k=$stageVariables.get($k) #end",
            "a=1 b=2 ",
        ),
        ("$stageVariables", "{a=1, b=2}"),
    ] {
        assert_eq!(output(template, &request), expected, "{template}");
    }
}

fn signed() -> Request {
    Request {
        context: vec![
            ("stage", "prod"),
            ("requestId", "abcdefg-000-000-0000-abcdefg"),
            ("apiId", "abcd1234"),
            ("resourcePath", "/root/child"),
            ("path", "/prod/root/child"),
            ("httpMethod", "GET"),
            ("protocol", "HTTP/1.1"),
            ("identity.sourceIp", "192.0.2.1"),
            ("identity.userAgent", "curl/7.84.0"),
            ("identity.clientCert.validity.notBefore", "May 28 2019"),
            ("authorizer.principalId", "u"),
            ("authorizer.numKey", "1"),
            ("authorizer.claims.sub", "s"),
            ("error.message", "hidden"),
            ("error.messageString", "\"hidden\""),
            ("error.responseType", "hidden"),
            ("status", "200"),
            ("integration.status", "200"),
        ],
        ..Request::default()
    }
}

/// VTL-322, VTL-323, VTL-350, OBV-276
#[test]
fn context_variables() {
    for (template, expected) in [
        (
            "$context.stage $context.requestId $context.apiId",
            "prod abcdefg-000-000-0000-abcdefg abcd1234",
        ),
        (
            "$context.path $context.resourcePath",
            "/prod/root/child /root/child",
        ),
        (
            "$context.identity.sourceIp ${context.identity.userAgent}",
            "192.0.2.1 curl/7.84.0",
        ),
        ("$context.identity.clientCert.validity.notBefore", "May 28 2019"),
        (
            "$context['identity']['sourceIp']$context.get('stage')$context.identity.get('userAgent')",
            "192.0.2.1prodcurl/7.84.0",
        ),
        (
            "[$context.identity.apiKey][$context.nothing][$context.nothing.deeper][$context.stage.deeper]",
            "[][][][]",
        ),
        (
            "$context.authorizer.principalId$context.authorizer.numKey$context.authorizer.claims.sub",
            "u1s",
        ),
        (
            "[$context.authorizer.claims]#if($context.authorizer.claims)x#end",
            "[]",
        ),
        (
            "$context.authorizer.claims['sub']$context.authorizer.claims.get('sub')",
            "ss",
        ),
        (
            "[$context.error.message$context.error.messageString$context.error.responseType]",
            "[]",
        ),
        ("[$context.status$context.integration.status]", "[]"),
        (
            "#foreach($k in $context.authorizer.keySet())$k=$context.authorizer.get($k) #end",
            "principalId=u numKey=1 ",
        ),
        (
            "#foreach($k in $context.identity.keySet())$k #end",
            "sourceIp userAgent ",
        ),
        ("$context.identity", "{sourceIp=192.0.2.1, userAgent=curl/7.84.0}"),
        ("#set($i = $context.identity)$i.sourceIp$i.size()", "192.0.2.12"),
        (
            "$context.stage.toUpperCase()$context.path.split('/').size()",
            "PROD4",
        ),
        (
            "#if($context.stage == 'prod')yes#end#if($context.nothing)no#end",
            "yes",
        ),
        ("#set($context.stage = 'x')$context.stage", "prod"),
    ] {
        assert_eq!(output(template, &signed()), expected, "{template}");
    }
}

fn overridden(template: &str, request: &Request, phase: Phase) -> (String, Overrides) {
    let mut overrides = Overrides::new();
    let rendered = render_with(template, request, phase, &mut overrides, &Budget::default());
    (
        rendered
            .unwrap_or_else(|error| panic!("{template}\n{error}"))
            .text,
        overrides,
    )
}

fn pairs(overrides: &Overrides, source: Source) -> Vec<(&str, &OverrideValue)> {
    overrides
        .request(source)
        .iter()
        .map(|entry| (&*entry.name, &entry.value))
        .collect()
}

fn one(text: &str) -> OverrideValue {
    OverrideValue::One(text.to_owned())
}

fn many(texts: &[&str]) -> OverrideValue {
    OverrideValue::Many(texts.iter().map(|text| (*text).to_owned()).collect())
}

/// VTL-143, VTL-144, VTL-147, VTL-150, VTL-151, OBV-277, OBV-278: the guide's walk-through. What is not
/// overridden is not in the overrides, so that its mapped value stays.
#[test]
fn the_guides_request_overrides() {
    let template = r##"#set($header1Override = "foo")
#set($header3Value = "$input.params('header1')$input.params('header2')")
$input.json("$")
#set($context.requestOverride.header.header3 = $header3Value)
#set($context.requestOverride.header.header1 = $header1Override)
#set($context.requestOverride.header.multivalueheader=[$header1Override, $header3Value])
"##;
    let request = Request {
        header: vec![("header1", "header1Val"), ("header2", "header2Val")],
        ..Request::default()
    };
    let (text, overrides) = overridden(template, &request, Phase::Request);
    assert_eq!(text, "{}\n");
    assert_eq!(
        pairs(&overrides, Source::Header),
        [
            ("header3", &one("header1Valheader2Val")),
            ("header1", &one("foo")),
            ("multivalueheader", &many(&["foo", "header1Valheader2Val"])),
        ]
    );
    assert!(overrides.request(Source::Path).is_empty() && overrides.request(Source::Querystring).is_empty());
}

/// VTL-145, VTL-148, VTL-207, OBV-223: the guide's status override.
#[test]
fn the_guides_response_override() {
    let template = "#set($inputRoot = $input.path('$'))\n$input.json(\"$\")\n#if($inputRoot.toString().contains(\"error\"))\n#set($context.responseOverride.status = 400)\n#end\n";
    for (body, status) in [
        (
            r#"{"errors":[{"key":"GetPetRequest.petId","message":"The value is out of range."}]}"#,
            Some(400),
        ),
        (r#"{"id":1,"type":"dog","price":249.99}"#, None),
    ] {
        let (text, overrides) = overridden(template, &Request::of(body), Phase::Response);
        assert_eq!(text, format!("{body}\n"));
        assert_eq!(overrides.status(), status);
    }
}

/// OBV-232, VTL-146, VTL-201
#[test]
fn override_names_may_be_computed() {
    let request = Request::of(r#"{"X-One":"1","x-two":"2"}"#);
    for template in [
        "#foreach($name in $input.path('$').keySet())#set($context.requestOverride.header[$name] = $input.path('$').get($name))#end",
        "#foreach($name in $input.path('$').keySet())$context.requestOverride.header.put($name, $input.path('$').get($name))#end",
        "#foreach($name in $input.path('$').keySet())#set($context[\"requestOverride\"].header[\"$name\"] = $input.path('$')[$name])#end",
        "#foreach($e in $input.path('$').entrySet())#set($context[\"requestOverride\"][\"header\"][$e.key] = $e.value)#end",
        "#set($h = $context.requestOverride.header)#set($h.X-One = 1)$h.putAll({'x-two': 2})",
    ] {
        let (text, overrides) = overridden(template, &request, Phase::Request);
        assert_eq!(text, "", "{template}");
        assert_eq!(
            pairs(&overrides, Source::Header),
            [("X-One", &one("1")), ("x-two", &one("2"))],
            "{template}"
        );
    }
    let (_, overrides) = overridden(
        "#set($context.requestOverride.path.id = 5)#set($context.requestOverride.querystring[\"k\"] = true)",
        &Request::default(),
        Phase::Request,
    );
    assert_eq!(pairs(&overrides, Source::Path), [("id", &one("5"))]);
    assert_eq!(pairs(&overrides, Source::Querystring), [("k", &one("true"))]);
}

/// OBV-231, VTL-141: overrides can be read, in the template that sets them and in the response's.
#[test]
fn overrides_can_be_read_back() {
    let mut overrides = Overrides::new();
    let mut run = |template: &str, phase| {
        let rendered = render_with(
            template,
            &Request::default(),
            phase,
            &mut overrides,
            &Budget::default(),
        );
        rendered
            .unwrap_or_else(|error| panic!("{template}\n{error}"))
            .text
    };
    let set = "#set($context.requestOverride.querystring.foo = 'v')#set($context.requestOverride.header.X = ['a', 'b'])$context.requestOverride.querystring.foo";
    assert_eq!(run(set, Phase::Request), "v");
    for (template, expected) in [
        ("$context.requestOverride.querystring[\"foo\"]", "v"),
        (
            "$context.requestOverride.header.x$context.requestOverride.header.x.size()",
            "[a, b]2",
        ),
        (
            "[$context.requestOverride.path.foo][$context.requestOverride.other.foo]",
            "[][]",
        ),
        (
            "$context.requestOverride.header.keySet()$context.requestOverride.querystring",
            "[X]{foo=v}",
        ),
        (
            "#set($context.responseOverride.status = '201')$context.responseOverride.status",
            "201",
        ),
        (
            "#set($context.responseOverride.header.h = 1)$context.responseOverride.header.H",
            "1",
        ),
    ] {
        assert_eq!(run(template, Phase::Response), expected, "{template}");
    }
    assert_eq!(overrides.response_headers().len(), 1);
    assert_eq!(
        overrides.status(),
        None,
        "each render of a phase begins with none"
    );
    assert_eq!(overrides.request(Source::Querystring).len(), 1);
}

/// VTL-142, VTL-391, VTL-141: twice the same override fails, and leaves none.
#[test]
fn a_second_assignment_to_an_override_fails() {
    for (template, phase, name) in [
        (
            "#set($context.requestOverride.header.a = 1)\n#set($context.requestOverride.header.A = 1)",
            Phase::Request,
            "$context.requestOverride.header.A",
        ),
        (
            "#set($context.requestOverride.path.a = 1)$context.requestOverride.path.put('a', 2)",
            Phase::Request,
            "$context.requestOverride.path.a",
        ),
        (
            "#set($context.responseOverride.status = 200)#set($context.responseOverride.status = 200)",
            Phase::Response,
            "$context.responseOverride.status",
        ),
        (
            "#foreach($i in [1, 2])#set($context.responseOverride.header.h = $i)#end",
            Phase::Response,
            "$context.responseOverride.header.h",
        ),
    ] {
        let mut overrides = Overrides::new();
        let error = render_with(
            template,
            &Request::default(),
            phase,
            &mut overrides,
            &Budget::default(),
        )
        .unwrap_err();
        assert_eq!(error.kind, ErrorKind::OverriddenTwice(name.to_owned()));
        assert!(overrides.is_empty());
    }
    // Query strings and paths are different parameters by their case, and null is no assignment.
    let (_, overrides) = overridden(
        "#set($context.requestOverride.path.a = 1)#set($context.requestOverride.path.A = 2)#set($context.requestOverride.path.a = $nothing)",
        &Request::default(),
        Phase::Request,
    );
    assert_eq!(overrides.request(Source::Path).len(), 2);
}

/// VTL-148 and OPENs of the spec: statuses that are none fail; what cannot be set here is noted.
#[test]
fn overrides_that_cannot_be() {
    for status in ["99", "600", "'abc'", "''", "200.5", "[200]"] {
        let template = format!("#set($context.responseOverride.status = {status})");
        let error = render_with(
            &template,
            &Request::default(),
            Phase::Response,
            &mut Overrides::new(),
            &Budget::default(),
        );
        assert!(
            matches!(error.unwrap_err().kind, ErrorKind::Status(_)),
            "{status}"
        );
    }
    for (template, phase) in [
        ("#set($context.responseOverride.status = 200)", Phase::Request),
        ("#set($context.responseOverride.header.a = 1)", Phase::Request),
        ("#set($context.requestOverride.header.a = 1)", Phase::Response),
        ("#set($context.responseOverride.path.a = 1)", Phase::Response),
        ("#set($context.requestOverride.status = 200)", Phase::Request),
        ("#set($context.requestOverride.header = {'a': 1})", Phase::Request),
        ("#set($context.requestOverride.header.a.b = 1)", Phase::Request),
        ("$context.requestOverride.put('a', 1)", Phase::Request),
        ("#set($context.identity.sourceIp = 1)", Phase::Request),
    ] {
        let mut overrides = Overrides::new();
        let rendered = render_with(
            template,
            &Request::default(),
            phase,
            &mut overrides,
            &Budget::default(),
        )
        .unwrap();
        assert!(overrides.is_empty(), "{template}");
        assert_eq!(rendered.text, "");
        assert_eq!(rendered.notes.len(), 1, "{template}");
    }
}
