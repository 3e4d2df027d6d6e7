//! The values of the language, how they print, and their methods.

mod support;

use support::{Request, all_over, all_plain, failure, over, render};
use tidegate_vtl::ErrorKind;

/// VTL-240, VTL-241, VTL-242, OBV-274
#[test]
fn scalars_print_as_they_are() {
    all_over(
        r#"{"s":"a \"q\" b","big":2345678901,"huge":123456789012345678901234567890,"d":249.99,"z":0.99,"f":25.0,"e":1e7,"n":-0.0,"t":true,"x":false}"#,
        &[
            ("$input.path('$.s')", "a \"q\" b"),
            (
                "$input.path('$.big') $input.path('$.huge')",
                "2345678901 123456789012345678901234567890",
            ),
            (
                "$input.path('$.d') $input.path('$.z') $input.path('$.f') $input.path('$.e') $input.path('$.n')",
                "249.99 0.99 25.0 1e7 -0.0",
            ),
            (
                "$input.json('$.f') $input.json('$.e') $input.json('$.huge')",
                "25.0 1e7 123456789012345678901234567890",
            ),
            ("$input.path('$.t') $input.path('$.x')", "true false"),
            ("#set($f = $input.path('$.f') + 1)$f", "26.0"),
            ("#set($e = $input.path('$.e') + 0)$e", "1.0E7"),
            ("#set($b = $input.path('$.big') * 2)$b", "4691357802"),
        ],
    );
}

/// VTL-243, VTL-244, VTL-245, VTL-246: maps print as Java prints them, arrays as JSON.
#[test]
fn maps_and_lists_of_documents() {
    let body = r#"{"o":{"1":{},"2":{},"3":{}},"a":["x",{"k":"v"},null,1.0],"size":"member","errors":[{"key":"k"}],"deep":{"in":{"l":["s"]}}}"#;
    all_over(
        body,
        &[
            (
                "$input.path('$.o').size()$input.path('$.a').size()$input.path('$.a').count()$input.path('$.o').count()",
                "3443",
            ),
            ("$input.path('$').size", "member"),
            ("$input.path('$').size()", "5"),
            ("$input.path('$.o')", "{1={}, 2={}, 3={}}"),
            ("$input.path('$.a')", r#"["x",{"k":"v"},null,1.0]"#),
            ("$input.path('$.deep')", r#"{in={l=["s"]}}"#),
            (
                "#if($input.path('$').toString().contains('errors'))yes#end",
                "yes",
            ),
            (
                "$input.path('$.o').keySet() $input.path('$.o').values()",
                "[1, 2, 3] [{}, {}, {}]",
            ),
            (
                "$input.path('$.o').isEmpty()$input.path('$.o').get('1').isEmpty()$input.path('$.a').empty",
                "falsetruefalse",
            ),
            (
                "$input.path('$.o').containsKey('2')$input.path('$.o').containsKey('x')",
                "truefalse",
            ),
            (
                "$input.path('$.a').contains('x')$input.path('$.a').contains('y')",
                "truefalse",
            ),
            ("$input.path('$.deep').entrySet()", r#"[in={l=["s"]}]"#),
        ],
    );
}

/// Maps that templates make (an OPEN of the spec); VTL-243 for their size.
#[test]
fn methods_of_maps() {
    for (expression, expected) in [
        ("$m", "{a=1, b=x}"),
        ("$m.get('a')$m.a$m['b']$m.get('c')", "11x"),
        ("$m.put('c', 2)$m.put('a', 3)$m", "1{a=3, b=x, c=2}"),
        ("$m.putAll({'b': 'y', 'd': 4})$m", "{a=1, b=y, d=4}"),
        (
            "$m.putIfAbsent('a', 5)$m.putIfAbsent('c', 6)$m",
            "1{a=1, b=x, c=6}",
        ),
        ("$m.getOrDefault('a', 0)$m.getOrDefault('z', 0)", "10"),
        ("$m.remove('a')$m.remove('z')$m", "1{b=x}"),
        (
            "$m.containsKey('a')$m.containsValue('x')$m.containsValue('y')",
            "truetruefalse",
        ),
        ("$m.keySet()$m.values()$m.entrySet()", "[a, b][1, x][a=1, b=x]"),
        ("$m.size()$m.isEmpty()$m.clear()$m.isEmpty()$m", "2falsetrue{}"),
        ("$m.equals($m)$m.equals({})$m.toString()", "truefalse{a=1, b=x}"),
        ("[$m.unknown()$m.unknown('x')$m.size(1)]", "[]"),
    ] {
        assert_eq!(
            support::plain(&format!("#set($m = {{'a': 1, 'b': 'x'}}){expression}")),
            expected,
            "{expression}"
        );
    }
}

/// Lists (an OPEN of the spec); VTL-244 for `count`.
#[test]
fn methods_of_lists() {
    for (expression, expected) in [
        ("$l $l.size()$l.count()$l.isEmpty()", "[a, b, 1] 33false"),
        ("$l.get(0)$l[1]$l.get(2)", "ab1"),
        ("$l.add('c')$l", "true[a, b, 1, c]"),
        ("$l.add(0, 'c')$l", "[c, a, b, 1]"),
        ("$l.addAll(['x', 'y'])$l.addAll([])$l", "truefalse[a, b, 1, x, y]"),
        ("$l.addAll($l)$l", "true[a, b, 1, a, b, 1]"),
        ("$l.remove(0)$l.remove('b')$l.remove('z')$l", "atruefalse[1]"),
        ("$l.set(0, 'z')$l", "a[z, b, 1]"),
        (
            "$l.contains('a')$l.contains(1)$l.contains('1')$l.indexOf('b')$l.indexOf('z')$l.lastIndexOf(1)",
            "truetruefalse1-12",
        ),
        ("$l.containsAll(['a', 1])$l.containsAll(['a', 'z'])", "truefalse"),
        ("$l.subList(1, 3)$l.subList(0, 0)", "[b, 1][]"),
        ("$l.clear()$l", "[]"),
        (
            "#set($r = [1..3])$r $r.size()$r.get(1)$r.contains(3)$r[0]",
            "[1, 2, 3] 32true1",
        ),
        ("#set($r = [3..1])$r$r[2]", "[3, 2, 1]1"),
        ("[$l.unknown()]$l.equals(['a', 'b', 1])", "[]true"),
        ("#set($l[7] = 1)$l", "[a, b, 1]"),
    ] {
        assert_eq!(
            support::plain(&format!("#set($l = ['a', 'b', 1]){expression}")),
            expected,
            "{expression}"
        );
    }
    for bad in [
        "$l.get(3)",
        "$l.get(-1)",
        "$l.remove(9)",
        "$l.subList(2, 1)",
        "$l.subList(0, 9)",
        "$l.add(9, 1)",
    ] {
        let kind = failure(&format!("#set($l = ['a', 'b', 1]){bad}"), "");
        assert!(matches!(kind, ErrorKind::Method { .. }), "{bad}");
    }
}

/// VTL-178, VTL-182, VTL-247, and the methods of an OPEN of the spec.
#[test]
fn methods_of_strings() {
    for (call, expected) in [
        ("length()", "13"),
        ("isEmpty()", "false"),
        ("contains('World')", "true"),
        ("contains('x')", "false"),
        ("equals('Hello, World')", "false"),
        ("equals(\"$s\")", "true"),
        ("equalsIgnoreCase('hello, world!')", "true"),
        ("startsWith('Hello')", "true"),
        ("startsWith('World', 7)", "true"),
        ("endsWith('!')", "true"),
        ("indexOf('o')", "4"),
        ("indexOf('o', 5)", "8"),
        ("indexOf('x')", "-1"),
        ("lastIndexOf('o')", "8"),
        ("charAt(1)", "e"),
        ("substring(7)", "World!"),
        ("substring(0, 5)", "Hello"),
        ("substring(13)", ""),
        ("concat('?')", "Hello, World!?"),
        ("replace('l', 'L')", "HeLLo, WorLd!"),
        ("replaceAll('[eo]', '*')", "H*ll*, W*rld!"),
        ("replaceAll('(l+)o', '<$1>')", "He<ll>, World!"),
        ("replaceFirst('o', '0')", "Hell0, World!"),
        ("matches('Hello.*')", "true"),
        ("matches('Hello')", "false"),
        ("split(', ')", "[Hello, World!]"),
        ("split('o')", "[Hell, , W, rld!]"),
        ("split('o', 2)", "[Hell, , World!]"),
        ("toLowerCase()", "hello, world!"),
        ("toUpperCase()", "HELLO, WORLD!"),
        ("trim()", "Hello, World!"),
        ("compareTo('Hello, World!')", "0"),
        ("compareTo('Hello')", "8"),
        ("compareTo('Jello')", "-2"),
        ("toString()", "Hello, World!"),
        ("hashCode()", "1498789909"),
        ("repeat(2)", "Hello, World!Hello, World!"),
        ("unknown()", ""),
        ("toUpperCase().toLowerCase().substring(0, 1)", "h"),
        ("split(',').get(1).trim()", "World!"),
    ] {
        assert_eq!(
            support::plain(&format!("#set($s = 'Hello, World!')$s.{call}")),
            expected,
            "{call}"
        );
    }
    all_plain(&[
        ("#set($s = '  a ')[$s.trim()][$s.isBlank()]", "[a][false]"),
        (
            "#set($s = 'x.y.z')$s.replace('.', '')$s.split('\\.').size()",
            "xyz3",
        ),
        (
            "#set($p = '[0-9]+')#set($s = 'a12b3')$s.replaceAll($p, '#')",
            "a#b#",
        ),
        (
            "#set($s = '5')#set($Integer = 0)#set($n = $Integer.parseInt($s) + 1)$n",
            "6",
        ),
        ("#set($x = 0)$x.parseDouble('1.50')$x.valueOf('7')", "1.57"),
        (
            "#set($x = 7.9)$x.intValue()$x.longValue()$x.doubleValue()$x.toString().length()",
            "777.93",
        ),
        (
            "#set($x = 3)$x.compareTo(5)$x.compareTo(3)$x.equals(3)$x.equals('3')",
            "-10truefalse",
        ),
        ("#set($b = true)$b.toString()$b.equals(true)", "truetrue"),
        (
            "#set($s = '%s is %d, %5.2f%%|%-5s|%05d|%x')$s.format($s, 'a', 7, 2.5, 'b', 42, 255)",
            "a is 7,  2.50%|b    |00042|ff",
        ),
    ]);
}

/// Places in texts count UTF-16 units, as in Java (an OPEN of the spec).
#[test]
fn places_in_texts_count_utf16_units() {
    let body = "{\"s\":\"\u{e9}\u{1F600}x\"}";
    all_over(
        body,
        &[
            ("$input.path('$.s').length()", "4"),
            ("$input.path('$.s').substring(1, 3)", "\u{1F600}"),
            (
                "$input.path('$.s').substring(3)$input.path('$.s').indexOf('x')",
                "x3",
            ),
            ("$input.path('$.s').charAt(0)", "\u{e9}"),
        ],
    );
}

/// What Java throws at makes the render fail, with its place.
#[test]
fn calls_that_java_refuses_fail() {
    for call in [
        "substring(9)",
        "substring(2, 1)",
        "substring(-1)",
        "charAt(9)",
        "charAt(99999999999)",
        "contains($nothing)",
        "replace($nothing, 'a')",
        "split($nothing)",
        "format('%d', 'x')",
        "format('%s')",
        "format('%q', 1)",
    ] {
        let kind = failure(&format!("#set($s = 'abc')$s.{call}"), "");
        assert!(matches!(kind, ErrorKind::Method { .. }), "{call}: {kind}");
    }
    for call in [
        "replaceAll('a', '$9')",
        "replaceAll('(', 'x')",
        "matches('(?=a)')",
        "split('a++')",
    ] {
        let kind = failure(&format!("#set($s = 'abc')$s.{call}"), "");
        assert!(matches!(kind, ErrorKind::Regex { .. }), "{call}: {kind}");
    }
    let error = render("line\n  $input.body.substring(99)", &Request::default()).unwrap_err();
    assert_eq!((error.line, error.column), (2, 3));
    assert_eq!(
        error.to_string(),
        "line 2, column 3: `substring` fails: the text has 2 characters only"
    );
}

/// What a template changes in the document is changed wherever it meets it.
#[test]
fn documents_can_be_changed() {
    let body = r#"{"a":{"x":1},"l":[1,{"y":2}],"s":"t"}"#;
    for (template, expected) in [
        (
            "#set($r = $input.path('$'))#set($r.s = 'new')$input.json('$')",
            r#"{"a":{"x":1},"l":[1,{"y":2}],"s":"new"}"#,
        ),
        (
            "#set($r = $input.path('$'))$r.put('n', {'k': [1, 'v']})$input.json('$')",
            r#"{"a":{"x":1},"l":[1,{"y":2}],"s":"t","n":{"k":[1,"v"]}}"#,
        ),
        (
            "$input.path('$').remove('l')$input.json('$')$input.path('$')",
            r#"[1,{"y":2}]{"a":{"x":1},"s":"t"}{a={x=1}, s=t}"#,
        ),
        (
            "#set($a = $input.path('$.a'))#set($a.x = 2)$input.path('$.a.x')$input.path('$').a.x$input.json('$.a')",
            r#"22{"x":2}"#,
        ),
        (
            "$input.path('$.l').add(true)$input.path('$.l')$input.json('$.l[-1]')",
            r#"true[1,{"y":2},true]true"#,
        ),
        ("#set($input.path('$.l')[1].y = 3)x", "x"),
        (
            "#set($l = $input.path('$.l'))#set($l[1].y = 3)$input.json('$..y')",
            "[3]",
        ),
        (
            "#set($l = $input.path('$.l'))#set($l[0] = 'z')#foreach($i in $l)$i;#end",
            "z;{y=2};",
        ),
        (
            "#set($a = $input.path('$.a'))#set($a.x = 2)[$input.json('$.nothing')][$input.path('$.nothing')]",
            "[\"\"][]",
        ),
        (
            "#set($m = $util.parseJson('{\"k\":1}'))#set($m.k = 2)$m$m.size()",
            "{k=2}1",
        ),
    ] {
        assert_eq!(over(template, body), expected, "{template}");
    }
}
