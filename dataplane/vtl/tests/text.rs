//! References in text, texts in quotes, and white space.

mod support;

use support::{Request, all_over, all_plain, output, over, plain};

const PET: &str = r#"{"id":1,"type":"dog","price":249.99,"owner":{"name":{"first":"Ann"}},"tags":["a","b"],"partition-key":"k"}"#;

/// VTL-170
#[test]
fn text_without_references_or_directives_stays_as_it_is() {
    for text in [
        "",
        "{\"a\": [1, 2], 'b': {}}",
        "costs 5$ or $5, $. $- $ $$ $!5 $",
        "#fff # 1. #1 #{ #} #foo #foo() # #",
        "a\\b \\ \\\\ \\n C:\\dir\\",
        "\r\n\ttext \u{1F600} ü",
        "#set $x = 1",
        "#endpoint #iffy #elsewhere #settle($x)",
    ] {
        assert_eq!(plain(text), text.replace("$x", ""));
    }
}

/// VTL-171, VTL-172, VTL-173, VTL-174, VTL-175, SCN-184
#[test]
fn references_end_where_their_grammar_ends() {
    let table = [
        ("$elem.id", "1"),
        ("${elem.type}number$elem.id", "dognumber1"),
        ("$!elem.id$!{elem.id}", "11"),
        ("Item $elem.id is a $elem.type.", "Item 1 is a dog."),
        ("$elem.type ($elem.id)", "dog (1)"),
        ("$elem.id$elem.type", "1dog"),
        ("$elem.owner.name.first", "Ann"),
        ("$elem.partition-key", "k"),
        ("$elem.id-", ""),
        ("${elem.id}-x", "1-x"),
        ("$elem.id:$elem.id,", "1:1,"),
        ("\"$elem.type\"", "\"dog\""),
        ("$elem.tags[0]$elem.tags[1]$elem.tags[2]|", "ab|"),
        (
            "$elem['type'] ${elem[\"type\"]} $elem.owner['name'].first",
            "dog dog Ann",
        ),
        ("$elem.tags.size()$elem.tags.get(1).toUpperCase()", "2B"),
        ("$elem.tags.get( 1 )$elem.owner.get(\n'name'\n).first", "bAnn"),
        ("${elem.tags}", r#"["a","b"]"#),
        ("$elem.tags.0", r#"["a","b"].0"#),
    ];
    for (template, expected) in table {
        assert_eq!(
            over(&format!("#set($elem = $input.path('$')){template}"), PET),
            expected,
            "{template}"
        );
    }
}

/// VTL-176, VTL-177, VTL-300
#[test]
fn indexes_take_numbers_and_keys() {
    let request = Request {
        stage: vec![("vpcLinkId", "gim7c3")],
        ..Request::default()
    };
    for (template, expected) in [
        (
            "$stageVariables.vpcLinkId ${stageVariables['vpcLinkId']}",
            "gim7c3 gim7c3",
        ),
        (
            "$stageVariables['vpcLinkId']$stageVariables.get('vpcLinkId')",
            "gim7c3gim7c3",
        ),
        (
            "#set($n = 'vpcLinkId')$stageVariables[$n]$stageVariables[\"$n\"]",
            "gim7c3gim7c3",
        ),
        (
            "#set($o = $util.parseJson('{\"key2\":{\"arr\":[1,2,3]}}'))$o.key2.arr[0]",
            "1",
        ),
        ("#set($l = ['a', 'b'])$l[1]$l[5]$l[-1]", "b"),
        ("#foreach($i in [0..1])#set($l = ['a', 'b'])$l[$i]#end", "ab"),
        ("#set($m = {'k': 'v'})$m['k']$m.k$m['x']", "vv"),
        ("#set($m = {'1': 'v'})$m[1]", "v"),
    ] {
        assert_eq!(output(template, &request), expected, "{template}");
    }
}

/// VTL-178, VTL-179, VTL-180, VTL-181, VTL-182
#[test]
fn texts_in_quotes() {
    let body = r#"{"id":"7","m":"it's \"ok\""}"#;
    all_over(
        body,
        &[
            ("#set($x = 'too $much!')$x", "too $much!"),
            ("#set($a = 'b')#set($x = \"a${a}c$a\")$x", "abcb"),
            (r##"$input.json("$")"##, r##"{"id":"7","m":"it's \"ok\""}"##),
            (r#"$input.json("$.id")"#, r#""7""#),
            ("#set($k = 'id')$input.path(\"$.$k\")", "7"),
            ("#set($x = \"$input.path('$.id')!\")$x", "7!"),
            ("#set($x = \"#if(true)yes#end\")$x", "yes"),
            ("#set($x = \"#foreach($i in [1..3])$i#end\")$x", "123"),
            ("#set($x = \"a #b ## c\")$x", "a #b ## c"),
            (r#"#set($x = "a\nb\\")$x"#, r"a\nb\\"),
            (r"#set($x = 'a\')$x", r"a\"),
            (
                "#set($x = \"say \"\"hi\"\" $input.path('$.id')\")$x",
                "say \"hi\" 7",
            ),
            ("#set($x = 'it''s')$x", "it's"),
            ("#set($x = '')[$x]#set($x = \"\")[$x]", "[][]"),
            (
                r#"{"x":"$util.escapeJavaScript($input.path('$.m')).replaceAll("\\'","'")"}"#,
                r#"{"x":"it's \"ok\""}"#,
            ),
        ],
    );
}

/// VTL-183, VTL-210: a variable outlives loops and conditions.
#[test]
fn variables_belong_to_the_whole_template() {
    all_plain(&[
        ("#if(true)#set($x = 1)#end$x", "1"),
        ("#foreach($i in [1..3])#set($x = $i)#end$x", "3"),
        (
            "#set($x = 'a')#foreach($i in [1..2])#set($x = \"$x$i\")$x #end",
            "a1 a12 ",
        ),
        ("#set($x = 1)#set($x = $x + 1)$x", "2"),
        ("#set($hy-phen = 1)$hy-phen ${hy-phen}-x", "1 1-x"),
        ("#set($_x1 = 1)$_x1", "1"),
    ]);
}

/// OBV-221, OBV-274: what is undefined or null prints nothing, quiet or not.
#[test]
fn undefined_references_print_nothing() {
    let body = r#"{"n":null,"t":true,"f":false}"#;
    all_over(
        body,
        &[
            ("[$x][${x}][$!x][$x.y.z][$x.m()][$x[0]]", "[][][][][][]"),
            ("[$stageVariables.version]", "[]"),
            ("[$input.path('$.n')][$input.path('$.nothing').deeper]", "[][]"),
            ("$input.path('$.t')$input.path('$.f')", "truefalse"),
            ("[$input][$util][$foreach.index][$velocityCount]", "[][][][]"),
        ],
    );
}

/// Backslashes before references and directives, as in Velocity (an OPEN of the spec).
#[test]
fn backslashes_take_the_meaning_away() {
    all_plain(&[
        ("#set($x = 1)\\$x \\\\$x \\\\\\$x \\${x}", "$x \\1 \\$x ${x}"),
        // Undefined, the backslashes stay.
        ("\\$x [\\\\$x]", "\\$x [\\\\]"),
        ("\\#if \\#set($x = 1) \\#end", "#if #set( = 1) #end"),
        ("\\\\#if(true)a#end", "\\a"),
        ("\\#foo \\a \\\"", "\\#foo \\a \\\""),
    ]);
}

/// Comments and verbatim text (an OPEN of the spec).
#[test]
fn comments_leave_nothing() {
    all_plain(&[
        ("a## comment $x #if\nb", "ab"),
        ("a\n## comment\nb", "a\nb"),
        ("a#* comment\n #end *#b", "ab"),
        ("a#** doc *#b", "ab"),
        ("a## to the end", "a"),
        ("a#* to the end", "a"),
        ("#[[ $x #if( ## ]] ]]#b", " $x #if( ## ]] b"),
    ]);
}

/// VTL-220
#[test]
fn set_leaves_no_trace() {
    all_plain(&[
        ("a\n   #set($x = 1)   \nb", "a\nb"),
        ("#set($x = 1)\n{", "{"),
        ("a   #set($x = 1)\nb", "ab"),
        ("\t #set($x = 1)\t\r\nb", "b"),
        ("a #set($x = 1) b", "a b"),
        ("#set ( $x = 1 )\n#set($y=2)\n$x$y", "12"),
        ("#set($x = 1)\n\nb", "\nb"),
        ("#{set}($x = 1)\n$x", "1"),
    ]);
}

/// VTL-221, VTL-222, VTL-204
#[test]
fn directives_eat_the_rest_of_their_line() {
    all_plain(&[
        ("#if(true)  \n  a\n#end  \nb", "  a\nb"),
        ("  #if(true)\na\n  #end\nb", "  a\n  b"),
        ("#if(false)\na\n#else  \nb\n#end\n", "b\n"),
        ("#if(false)a#elseif(true)\nb#end c", "b c"),
        (
            "  #foreach($i in [1..2])\n    $i\n  #end\nx",
            "      1\n      2\n  x",
        ),
        ("}#if(true),#end\n]", "},]"),
        ("#if(true)a #end b", "a  b"),
        ("#foreach($i in [1..2])#if($foreach.hasNext),#end\n#end", ","),
        ("#define($d)\nx\n#end\n[$d]", "[x\n]"),
        ("#macro(m)\nx\n#end\n[#m()\n]", "[x\n]"),
    ]);
}

/// VTL-223
#[test]
fn an_empty_line_behind_an_end_is_one_line_end_a_round() {
    all_plain(&[
        (
            "#foreach($i in [1..2])\n  $i}#if($foreach.hasNext),#end\n   \n#end\n]",
            "  1},   \n  2}   \n]",
        ),
        (
            "#foreach($i in [1..2])\n}#if($foreach.hasNext),#end\n\n#end\n]",
            "},\n}\n]",
        ),
    ]);
}

/// VTL-220, VTL-221, VTL-222, VTL-265, VTL-267, OBV-224: the guide's template of all parameters, blank by blank.
#[test]
fn the_template_of_all_parameters_keeps_its_blanks() {
    let template = r##"#set($allParams = $input.params())
{
  "params" : {
    #foreach($type in $allParams.keySet())
    #set($params = $allParams.get($type))
    "$type" : {
      #foreach($paramName in $params.keySet())
      "$paramName" : "$util.escapeJavaScript($params.get($paramName))"
      #if($foreach.hasNext),#end
      #end
    }
    #if($foreach.hasNext),#end
    #end
  }
}
"##;
    let request = Request {
        path: vec![("path", "myparam")],
        query: vec![("querystring1", "value1,value2"), ("querystring2", "value3")],
        header: vec![
            ("header1", "value1"),
            ("header2", "value2"),
            ("header3", "value3"),
        ],
        ..Request::default()
    };
    let text = output(template, &request);
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        json,
        serde_json::json!({"params": {
            "path": {"path": "myparam"},
            "querystring": {"querystring1": "value1,value2", "querystring2": "value3"},
            "header": {"header1": "value1", "header2": "value2", "header3": "value3"},
        }})
    );
    let two = Request {
        query: vec![("a", "1"), ("b", "2")],
        ..Request::default()
    };
    let blanks = |count: usize| " ".repeat(count);
    let expected = format!(
        "{{\n  \"params\" : {{\n{}\"path\" : {{\n{}}}\n{},{}\"querystring\" : {{\n{}\"a\" : \"1\"\n{},{}\"b\" : \
         \"2\"\n{}}}\n{},{}\"header\" : {{\n{}}}\n{}}}\n}}\n",
        blanks(8),
        blanks(6 + 4),
        blanks(4),
        blanks(8),
        blanks(12),
        blanks(6),
        blanks(12),
        blanks(6 + 6 + 4),
        blanks(4),
        blanks(8),
        blanks(6 + 4),
        blanks(4 + 4 + 2),
    );
    assert_eq!(output(template, &two), expected);
}
