//! Directives, expressions and what is no template.

mod support;

use support::{all_over, all_plain, over, plain};
use tidegate_vtl::Template;

/// VTL-200, VTL-201, VTL-202
#[test]
fn set_assigns_to_variables_and_members() {
    all_plain(&[
        ("#set ($afford = 'too much!')$afford", "too much!"),
        ("#set($a=1)#set( $b = 2 )#set(\n$c\n=\n3\n)$a$b$c", "123"),
        (
            "#set($m = {})#set($m.a = 1)#set($m['b'] = 2)#set($m.a = 3)$m",
            "{a=3, b=2}",
        ),
        ("#set($l = [1, 2])#set($l[0] = 'x')$l", "[x, 2]"),
        ("#set($m = {'in': {}})#set($m.in.a = [1])$m", "{in={a=[1]}}"),
        ("#set(${a} = 400)#set($!b = 100)$a$b", "400100"),
        (
            "#set($l = [])#set($l = ['a', \"b\", 1, -2.5, true, $l, [], {}])$l",
            "[a, b, 1, -2.5, true, [], [], {}]",
        ),
        // Null leaves what was there, the old trap in loops.
        ("#set($x = 1)#set($x = $nothing)$x", "1"),
        ("#set($x.y = 1)[$x.y]", "[]"),
        ("#set($m = {'a': 1})#set($m.a = $nothing)$m.a", "1"),
    ]);
}

/// VTL-203, VTL-204, VTL-207, INT-066
#[test]
fn conditions() {
    all_over(
        r#"{"error":"no","n":null,"z":0,"e":"","l":[]}"#,
        &[
            ("#if(true)a#{else}b#end", "a"),
            ("#if(false)a#{else}b#end", "b"),
            ("#if(false)a#else b#end", " b"),
            ("#if(false)a#elseif(true)b#else c#end", "b"),
            ("#if(false)a#elseif(false)b#{elseif}(false)x#else c#end", " c"),
            ("#{if}(true)a#{end}b", "ab"),
            ("#if($input.path('$').toString().contains(\"error\"))e#end", "e"),
            ("#if($nothing)a#{else}b#end", "b"),
            // Everything but null and false holds.
            (
                "#if($input.path('$.z'))a#end#if($input.path('$.e'))b#end#if($input.path('$.l'))c#end",
                "abc",
            ),
            ("#if($input.path('$.n'))a#{else}b#end", "b"),
            (
                "#if(!$nothing)a#end#if(not true)b#end#if(!true || !false)c#end",
                "ac",
            ),
        ],
    );
}

/// VTL-205, VTL-206, SCN-185, RES-145
#[test]
fn comparisons() {
    let body = r#"{"price":249.99,"small":0.99,"one":1,"s":"1","b":true,"o":{"k":"v"},"ShardCount":5}"#;
    for (condition, holds) in [
        ("$input.path('$.price') > 100", true),
        ("$input.path('$.small') > 100", false),
        ("$input.path('$.one') == 1.0", true),
        ("$input.path('$.s') == 1", true),
        ("$input.path('$.s') == '1'", true),
        ("$input.path('$.b') == true", true),
        ("$input.path('$.b') == 'true'", true),
        ("$input.path('$.o') == '{k=v}'", true),
        ("$input.params('scope') == \"internal\"", false),
        ("$input.params('scope') == ''", true),
        ("$input.path('$.nothing') == ''", true),
        ("$input.path('$.ShardCount') == ''", false),
        ("$nothing == $nowhere", true),
        ("$nothing == false", false),
        ("'a' != 'b'", true),
        ("1 < 2 && 2 <= 2 && 3 > 2 && 3 >= 3", true),
        (
            "1 lt 2 and 2 le 2 and 3 gt 2 and 3 ge 3 and 1 eq 1 and 1 ne 2",
            true,
        ),
        ("1 > 2 or not (1 > 2)", true),
        ("false || true && false", false),
        ("(false || true) && true", true),
        ("$nothing < 1", false),
        ("$nothing >= 1", false),
        ("'5' > 3", false),
        ("1 + 1 == 2", true),
        ("2 * 3 + 4 == 10 && 2 + 3 * 4 == 14", true),
        ("!false == true", true),
    ] {
        let template = format!("#if( {condition} )yes#{{else}}no#end");
        assert_eq!(
            over(&template, body),
            if holds { "yes" } else { "no" },
            "{condition}"
        );
    }
}

/// Arithmetic as in Java (an OPEN of the spec); VTL-202 for the literals.
#[test]
fn arithmetic() {
    for (expression, expected) in [
        ("1 + 2", "3"),
        ("7 / 2", "3"),
        ("-7 / 2", "-3"),
        ("7 % 3", "1"),
        ("7.0 / 2", "3.5"),
        ("1 / 0", ""),
        ("1 % 0", ""),
        ("1.5 / 0", ""),
        ("2 - 3 - 4", "-5"),
        ("2 -3", "-1"),
        ("(1 + 2) * 3", "9"),
        ("-(1 + 2)", "-3"),
        ("1 + 'a'", "1a"),
        ("'a' + 1 + 2", "a12"),
        ("'a' + $nothing", "a"),
        ("1 + $nothing", ""),
        ("true + 1", ""),
        ("9223372036854775807 + 1", "9.223372036854776E18"),
        ("0.1 + 0.2", "0.30000000000000004"),
        ("1e3 + 0", "1000.0"),
        ("10000000.0 * 1", "1.0E7"),
    ] {
        assert_eq!(
            plain(&format!("#set($x = {expression})$!x")),
            expected,
            "{expression}"
        );
    }
}

/// VTL-208, VTL-209, VTL-210, SCN-186
#[test]
fn loops() {
    all_over(
        r#"{"l":[{"id":1},{"id":2}],"m":{"a":1,"b":2},"s":"text","e":[]}"#,
        &[
            (
                "#foreach($e in $input.path('$.l'))$e.id#if($foreach.hasNext),#end#end",
                "1,2",
            ),
            ("#foreach( $k in $input.path('$.m').keySet() )$k;#end", "a;b;"),
            ("#foreach($v in $input.path('$.m'))$v;#end", "1;2;"),
            (
                "#foreach($e in $input.path('$.m').entrySet())$e.key=$e.value/$e.getKey()$e.getValue() #end",
                "a=1/a1 b=2/b2 ",
            ),
            (
                "#foreach($x in [1..3])$x#end#foreach($x in [3..1])$x#end",
                "123321",
            ),
            (
                "#foreach($x in ['a', 'b'])$foreach.index$foreach.count$foreach.first$foreach.last$velocityCount #end",
                "01truefalse1 12falsetrue2 ",
            ),
            (
                "#foreach($x in [1, 2])#foreach($y in [1, 2])$foreach.parent.count$foreach.count$foreach.topmost.index #end#end",
                "110 120 211 221 ",
            ),
            (
                "#foreach($x in [1, 2])#foreach($y in [1])$foreach.hasNext#end$foreach.hasNext #end",
                "falsetrue falsefalse ",
            ),
            (
                "#foreach($x in $nothing)a#end#foreach($x in $input.path('$.s'))b#end#foreach($x in $input.path('$.e'))c#end",
                "",
            ),
            ("#foreach($x in [1..5])#if($x == 3)#break#end$x#end.", "12."),
            (
                "#foreach($x in [1..5])#foreach($y in [1..5])#if($y == 2)#break#end$x$y #end#end",
                "11 21 31 41 51 ",
            ),
            ("a#if(true)b#stop c#end d", "ab"),
            // The loop's variables are what they were before.
            (
                "#set($x = 'x')#foreach($x in [1])$x#end$x$foreach.index$velocityCount",
                "1x",
            ),
            // A list is walked as it was when the loop began.
            (
                "#set($l = [1, 2])#foreach($x in $l)#if($l.add($x))#end$x#end$l",
                "12[1, 2, 1, 2]",
            ),
        ],
    );
}

/// OBV-275
#[test]
fn defined_blocks_are_rendered_at_each_use() {
    all_plain(&[
        (
            "#define($d)[$x]#end#set($x = 1)$d#set($x = 2)$d\"$d\"",
            "[1][2]\"[2]\"",
        ),
        (
            "#define($print)#foreach($k in $map.keySet())$k=$map.get($k);#end#end#set($map = {'a': 1})$print #set($map = {'b': 2})$print",
            "a=1;b=2;",
        ),
        ("#define( $d )x#end#set($s = \"<$d>\")$s", "<x>"),
        ("#define($d)#if(true)x#end#end$d.length()|", "|"),
    ]);
}

/// Macros within one template (an OPEN of the spec).
#[test]
fn macros() {
    all_plain(&[
        (
            "#macro(pair $k $v)\"$k\": $v#end{#pair('a' 1), #pair(\"b\", 2)}",
            "{\"a\": 1, \"b\": 2}",
        ),
        ("#twice('x')#macro(twice $t)$t$t#end", "xx"),
        ("#macro(m $a $b)[$a|$b]#end#m(1)#m()#m(1 2 3)", "[1|][|][1|2]"),
        ("#set($a = 'out')#macro(m $a)$a#end#m('in')$a", "inout"),
        ("#macro(m)#set($x = 1)#end#m()$x", "1"),
        ("#macro(m)a#stop b#end#m()c", "a"),
        (
            "#macro(fact $n)#if($n > 1)#set($m = $n - 1)$n*#fact($m)#{else}1#end#end#fact(4)",
            "4*3*2*1",
        ),
        ("#macro(m)1#end#macro(m)2#end#m()", "1"),
        ("#m #m() #{m}()#macro(m)x#end", "#m x x"),
        ("## #macro(m)\n#m(1 'a')", "#m(1 'a')"),
    ]);
}

/// VTL-390 is about requests; a template that cannot be read is refused where it is stored, with the place.
#[test]
fn what_is_no_template_is_refused_with_its_place() {
    let mut wrong = Vec::new();
    for (template, line, column, says) in [
        ("#if(true)a", 1, 1, "has no `#end`"),
        ("a\n  #foreach($x in $y)", 2, 3, "has no `#end`"),
        ("#end", 1, 5, "without an `#if`"),
        ("#else", 1, 6, "without an `#if`"),
        ("#if(true)#else #else #end", 1, 21, "expected `#end`"),
        ("#foreach($x in $y)#else#end", 1, 24, "has no `#if`"),
        ("#if true", 1, 5, "expected `(`"),
        ("#if($a = 1)#end", 1, 8, "`==`"),
        ("#set(x = 1)", 1, 6, "assigns to a reference"),
        ("#set($x == 1)", 1, 9, "expected `=`"),
        ("#set($x = )", 1, 11, "expected a value"),
        ("#set($x = foo)", 1, 11, "`foo` is no value"),
        ("#set($x = 'a)", 1, 11, "has no end"),
        ("#set($x = 1", 1, 12, "`)` to end `#set`"),
        ("#set($x = [1, 2)", 1, 16, "`]` in a list"),
        ("#set($x = {1 2})", 1, 14, "`:` behind"),
        ("#set($x = [1..2, 3])", 1, 16, "end the range"),
        ("#foreach(x in $y)#end", 1, 10, "expected a variable"),
        ("#foreach($x of $y)#end", 1, 15, "expected `in`"),
        ("#foreach($x.y in $z)#end", 1, 14, "expected a variable"),
        ("#macro()#end", 1, 8, "wants a name"),
        ("#macro(if)#end", 1, 10, "is a directive"),
        ("#macro(m x)#end", 1, 10, "expected a variable"),
        ("#include('x')", 1, 1, "not supported"),
        ("#parse('x')", 1, 1, "not supported"),
        ("#evaluate('x')", 1, 1, "not supported"),
        ("${x", 1, 4, "expected `}`"),
        ("${x.y z}", 1, 6, "expected `}`"),
        ("$x[1", 1, 5, "expected `]`"),
        ("$x[", 1, 4, "expected a value"),
        ("$x.m(1 2)", 1, 8, "behind an argument"),
        ("\u{fc}$x.m(", 1, 7, "expected a value"),
        ("#set($x = \"#if(true)\")", 1, 12, "has no `#end`"),
        ("#set($x = \"a#end\")", 1, 17, "belongs to nothing"),
    ] {
        let error = Template::parse(template).expect_err(template);
        if (error.line, error.column) != (line, column) || !error.message.contains(says) {
            wrong.push(format!("{template}: {error}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for deep in [
        "#if(true)".repeat(100),
        format!("#set($x = {}1{})", "(".repeat(100), ")".repeat(100)),
        format!("#set($x = {}{})", "[".repeat(100), "]".repeat(100)),
        format!("#set($x = {}true)", "!".repeat(1000)),
        format!("#set($x = {}$y)", "-".repeat(1000)),
        "$a.b(".repeat(100),
        format!("#set($x = {}1)", "1 == 1 + (".repeat(50)),
        "$a[".repeat(100),
    ] {
        let error = Template::parse(&deep).expect_err(&deep);
        assert!(error.message.contains("nests deeper"), "{error}");
    }
}
