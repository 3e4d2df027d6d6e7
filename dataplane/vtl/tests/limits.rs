//! What a render may cost, and what bad input costs.

mod support;

use support::{Request, render_with};
use tidegate_vtl::error::Bound;
use tidegate_vtl::{Budget, Document, ErrorKind, JsonPath, Overrides, Phase, Rendered};

fn within(template: &str, body: &str, budget: &Budget) -> Result<Rendered, ErrorKind> {
    let result = render_with(
        template,
        &Request::of(body),
        Phase::Request,
        &mut Overrides::new(),
        budget,
    );
    result.map_err(|error| error.kind)
}

/// QUO-072: a loop ends after 1000 rounds, with a note; the template goes on.
#[test]
fn a_loop_ends_after_its_rounds() {
    let rendered = within(
        "#foreach($i in [1..5000])#set($n = $i)#end$n",
        "",
        &Budget::default(),
    )
    .unwrap();
    assert_eq!(rendered.text, "1000");
    assert_eq!(rendered.notes.len(), 1);
    assert!(
        rendered.notes[0].message.contains("1000 rounds of 5000"),
        "{:?}",
        rendered.notes
    );
    let three = Budget {
        iterations: 3,
        ..Budget::default()
    };
    let body = "[1,2,3,4,5]";
    for template in [
        "#foreach($i in $input.path('$'))$i$foreach.hasNext #end",
        "#set($l = [])$l.addAll($input.path('$')).toString().substring(4)#foreach($i in $l)$i$foreach.hasNext #end",
    ] {
        assert_eq!(within(template, body, &three).unwrap().text, "1true 2true 3true ");
    }
    assert_eq!(
        within("#foreach($i in [1..3])$i#end", "", &three).unwrap().notes,
        []
    );
}

/// An endless template, too large an output, too many values, too deep a nesting: each ends at its bound.
#[test]
fn each_bound_ends_a_render() {
    let nested = "#foreach($a in [1..1000])#foreach($b in [1..1000])#foreach($c in [1..1000])#set($x = $a)#end#end#end";
    let doubled = "#set($s = 'x')#foreach($i in [1..60])#set($s = \"$s$s\")#end";
    for (template, bound) in [
        (nested, Bound::Steps),
        (
            "#foreach($a in [1..1000])#foreach($b in [1..1000])$input.body#end#end",
            Bound::Steps,
        ),
        // A text that is made of parts is made behind the output.
        (doubled, Bound::Output),
        (
            "#set($s = 'x')#foreach($i in [1..60])#set($s = $s + $s)#end",
            Bound::Output,
        ),
        (
            "#set($s = 'x')#foreach($i in [1..60])#set($s = $s.concat($s))#end",
            Bound::Memory,
        ),
        (
            "#set($s = 'xx')#foreach($i in [1..60])#set($s = $s.replace('x', $s))#end",
            Bound::Memory,
        ),
        (
            "#set($s = 'xx')#foreach($i in [1..60])#set($s = $s.replaceAll('x', $s))#end",
            Bound::Memory,
        ),
        ("#set($s = 'xx')#set($s = $s.repeat(1000000000))", Bound::Memory),
        (
            "#set($l = [1, 2, 3])#foreach($i in [1..60])#if($l.addAll($l))#end#end",
            Bound::Memory,
        ),
        ("#set($l = [1..9000000000])$l.size()$l", Bound::Memory),
        ("#set($l = [1])$l.add($l)$l", Bound::Depth),
        ("#set($m = {})$m.put('m', $m)$m", Bound::Depth),
        (
            "#set($m = $input.path('$'))#set($m.m = $m)$input.json('$')",
            Bound::Depth,
        ),
        ("#macro(m)#m()#end#m()", Bound::Depth),
        ("#define($d)$d#end$d", Bound::Depth),
        ("#define($d)\"$d\"#end#set($x = \"$d\")", Bound::Depth),
        ("#macro(a)#b()#b()#end#macro(b)#a()#a()#end#a()", Bound::Depth),
        (
            "#macro(m $n)#if($n > 0)#set($k = $n - 1)#m($k)#set($k = $n - 1)#m($k)#end#end#m(30)",
            Bound::Steps,
        ),
    ] {
        assert_eq!(
            within(template, "{}", &Budget::default()),
            Err(ErrorKind::OverLimit(bound)),
            "{template}"
        );
    }
    let small = Budget {
        output: 10,
        ..Budget::default()
    };
    for template in [
        "12345678901",
        "#foreach($i in [1..11])x#end",
        "$input.json('$')",
        "$input.path('$.a')",
        "#set($s = \"$input.body\")",
    ] {
        assert_eq!(
            within(template, r#"{"a":"12345678901"}"#, &small),
            Err(ErrorKind::OverLimit(Bound::Output)),
            "{template}"
        );
    }
    assert_eq!(within("1234567890", "", &small).unwrap().text, "1234567890");
}

/// However a template recurses, the stack has an end first in our count and not in memory.
#[test]
fn recursion_of_every_kind_is_counted() {
    let deep = |inner: &str| format!("{}{inner}{}", "(".repeat(25), ")".repeat(25));
    for template in [
        format!("#macro(m)#set($x = {})#end#m()", deep("\"#m()\"")),
        format!("#macro(m)#set($x = {})#end#m()", deep("1 + [\"#m()\"]")),
        format!(
            "#define($d){}$d{}#end$d",
            "#if(true)#foreach($i in [1])".repeat(10),
            "#end#end".repeat(10)
        ),
        "#set($y = {})#macro(m)$y.put('a', $y.get(\"#m()\"))#end#m()".to_owned(),
    ] {
        let error = within(&template, "", &Budget::default());
        assert_eq!(error, Err(ErrorKind::OverLimit(Bound::Depth)), "{template}");
    }
    // Long is not deep.
    let elses = format!("#if(false){}#else z#end", "#elseif(false)".repeat(5000));
    let path = format!("$.l[?({}@ == 1)]", "@ == 2 || ".repeat(300));
    for (template, expected) in [
        (format!("#set($x = 0{})$x", " + 1".repeat(10_000)), "10000"),
        (format!("#set($x = 'a')$x{}", ".trim()".repeat(10_000)), "a"),
        (elses, " z"),
        (format!("$input.json('{path}')"), "[1]"),
    ] {
        assert_eq!(
            within(&template, r#"{"l":[1,3]}"#, &Budget::default())
                .unwrap()
                .text,
            expected
        );
    }
}

/// Long texts cost steps wherever they are looked at, so that a body of few values is not a cheap one.
#[test]
fn long_texts_cost_steps() {
    let (long, many) = ("x".repeat(1 << 20), "1,".repeat(2000));
    let body = format!(r#"{{"t":"{long}","o":{{"{long}\n":1}},"l":[{many}1]}}"#);
    for template in [
        "$input.json('$.l[?($.t contains @)]')",
        "$input.json('$.l[?($.t == @)]')",
        "$input.json('$.l[?($.o == @)]')",
        "$input.json('$.l[?($.o.keys() == @)]')",
        "#foreach($i in [1..1000])#if($input.path('$.t').contains('y'))#end#end",
        "#foreach($i in [1..1000])#if($input.path('$.t').matches('y*'))#end#end",
        "#set($a = 'a')#foreach($i in [1..1000])#if($a.matches(\"$i\"))#end#end",
    ] {
        let error = within(template, &body, &Budget::default());
        assert!(
            matches!(error, Err(ErrorKind::OverLimit(Bound::Steps | Bound::Memory))),
            "{template}"
        );
    }
    let cheap = "#foreach($i in [1..1000])$input.path('$.o.a')#if($input.path('$.t').empty)#end#end";
    assert_eq!(within(cheap, &body, &Budget::default()).unwrap().text, "");
    let same = "#set($p = '[0-9]')#foreach($i in [1..1000])#set($s = \"$i\")#if($s.matches($p))$i#end#end";
    assert_eq!(within(same, "", &Budget::default()).unwrap().text, "123456789");
}

/// A failure leaves no output and no overrides.
#[test]
fn a_failed_render_leaves_nothing() {
    let mut overrides = Overrides::new();
    let template = "text#set($context.requestOverride.header.a = 1)$input.body.substring(99)";
    assert!(
        render_with(
            template,
            &Request::default(),
            Phase::Request,
            &mut overrides,
            &Budget::default()
        )
        .is_err()
    );
    assert!(overrides.is_empty());
}

/// JSON 10,000 deep, in the body, in a text, in a path's way: refused where it is read, and cheaply.
#[test]
fn deep_documents_are_refused() {
    for deep in [
        "[".repeat(10_000),
        "{\"a\":".repeat(10_000),
        format!("{}{}", "[".repeat(10_000), "]".repeat(10_000)),
    ] {
        assert!(matches!(
            within("$input.json('$')", &deep, &Budget::default()),
            Err(ErrorKind::Body(_))
        ));
        assert_eq!(
            within("[$input.path('$')]", &deep, &Budget::default())
                .unwrap()
                .text,
            "[]"
        );
        assert!(matches!(
            within("$util.parseJson($input.body)", &deep, &Budget::default()),
            Err(ErrorKind::Json(_))
        ));
    }
    let nested = format!("{}{}", "[".repeat(500), "]".repeat(500));
    assert_eq!(
        within("$input.json('$')", &nested, &Budget::default())
            .unwrap()
            .text,
        nested
    );
    assert_eq!(
        within("$input.path('$')", &nested, &Budget::default())
            .unwrap()
            .text,
        nested
    );
    assert_eq!(
        within("$input.path('$..*').size()", &nested, &Budget::default())
            .unwrap()
            .text,
        "499"
    );
    let objects = format!("{}1{}", "{\"a\":".repeat(500), "}".repeat(500));
    assert_eq!(
        within("$input.path('$')", &objects, &Budget::default()),
        Err(ErrorKind::OverLimit(Bound::Depth))
    );
    let shallow = Document::new("[[1]]").with_depth(1);
    assert!(shallow.json().unwrap_err().to_string().contains("too deep"));
}

/// A JSONPath's steps count as the template's.
#[test]
fn paths_spend_the_templates_steps() {
    let body = format!("[{}1]", "[1,2,3],".repeat(2000));
    for template in [
        "$input.path('$..[?(@ == $..*)]')",
        "$input.json('$[?(@ == $..*)]')",
        "#foreach($i in [1..1000])$input.path('$[1999]')$input.path('$..*').size()#end",
    ] {
        assert_eq!(
            within(template, &body, &Budget::default()),
            Err(ErrorKind::OverLimit(Bound::Steps)),
            "{template}"
        );
    }
}

/// VTL-247: patterns that stall a backtracking engine take linear time here; those that need one are told of when the
/// template is parsed, and fail when it is rendered.
#[test]
fn catastrophic_patterns_do_no_harm() {
    let body = format!("{}!", "a".repeat(100_000));
    for pattern in ["(a+)+$", "(a|aa)+$", "(.*a){20}", "([a-zA-Z]+)*$"] {
        let template =
            format!("$input.body.matches('{pattern}')$input.body.replaceAll('{pattern}', '').length()");
        let text = within(&template, &body, &Budget::default()).unwrap().text;
        assert!(text.starts_with("false"), "{pattern}: {text}");
    }
    let template = tidegate_vtl::Template::parse("a\n $input.body.replaceAll('(a)\\1', '')").unwrap();
    let [warning] = template.warnings() else {
        panic!("{:?}", template.warnings())
    };
    assert_eq!((warning.line, warning.column), (2, 13));
    assert!(warning.message.contains("linear time"), "{}", warning.message);
    let template = tidegate_vtl::Template::parse("$input.json('$.')").unwrap();
    assert_eq!(template.warnings().len(), 1);
    assert!(matches!(
        within("$input.json('$.')", "", &Budget::default()),
        Err(ErrorKind::Path(_))
    ));
    assert!(JsonPath::compile("$.").is_err());
}

/// Shards share a template.
#[test]
fn templates_can_be_shared() {
    fn shared<T: Send + Sync>() {}
    shared::<tidegate_vtl::Template>();
    shared::<JsonPath>();
}
