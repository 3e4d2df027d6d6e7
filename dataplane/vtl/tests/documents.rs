//! The spec's conformance documents, under `documents/`: an input, a template, what comes of it; and for some a
//! template whose output is the input.

mod support;

use support::{Request, over, render_with};
use tidegate_vtl::{Budget, Overrides, Phase};

macro_rules! document {
    ($name:literal) => {
        include_str!(concat!("documents/", $name))
    };
}

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// VTL-370, VTL-170, VTL-172, VTL-173, VTL-174, VTL-205, VTL-208, VTL-209, VTL-240, VTL-242, VTL-245: as response
/// templates, over what a backend answers.
#[test]
fn each_document_becomes_its_output() {
    for (input, template, output) in [
        (
            document!("pets.json"),
            document!("pets.vtl"),
            document!("pets.out.json"),
        ),
        (
            document!("photos.json"),
            document!("photos.vtl"),
            document!("photos.out.json"),
        ),
        (
            document!("news.json"),
            document!("news.vtl"),
            document!("news.out.json"),
        ),
        (
            document!("invoice.json"),
            document!("invoice.vtl"),
            document!("invoice.out.json"),
        ),
        (
            document!("employee.json"),
            document!("employee.vtl"),
            document!("employee.out.json"),
        ),
    ] {
        let rendered = render_with(
            template,
            &Request::of(input),
            Phase::Response,
            &mut Overrides::new(),
            &Budget::default(),
        );
        assert_eq!(json(&rendered.unwrap().text), json(output));
    }
}

/// VTL-371, VTL-241: the templates that copy a document member by member.
#[test]
fn a_copying_template_gives_the_document_back() {
    for (input, template) in [
        (document!("photos.json"), document!("photos.same.vtl")),
        (document!("news.json"), document!("news.same.vtl")),
        (document!("invoice.json"), document!("invoice.same.vtl")),
        (document!("employee.json"), document!("employee.same.vtl")),
    ] {
        let output = over(template, input);
        assert_eq!(json(&output), json(input));
        // Numbers keep their words, and members their order.
        assert_eq!(over("$input.json('$')", &output), over("$input.json('$')", input));
    }
}

/// VTL-370, VTL-171, VTL-200, VTL-203, VTL-205, VTL-210: the output that is no JSON, line by line. The guide prints
/// one blank less before two of the prices than Velocity does (an OPEN of the spec), so runs of blanks count as one.
#[test]
fn the_complex_pet_template_prints_its_text() {
    let collapsed = |text: &str| -> Vec<String> {
        text.lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect()
    };
    let output = over(document!("pets-complex.vtl"), document!("pets.json"));
    assert_eq!(collapsed(&output), collapsed(document!("pets-complex.out.txt")));
    assert!(output.contains("\n    \"askingPrice\" : 0.99\n"), "{output}");
}

/// SCN-174, SCN-176, SCN-177, SCN-184, SCN-186, SCN-187, SCN-188: the stream tutorial's templates.
#[test]
fn the_stream_tutorials_templates() {
    let create = "{ \"ShardCount\": #if($input.path('$.ShardCount') == '') 5 #else $input.path('$.ShardCount') #end, \"StreamName\": \"$input.params('stream-name')\" }";
    for (body, count) in [("{}", 5), ("", 5), ("{\"ShardCount\":7}", 7)] {
        let request = Request {
            path: vec![("stream-name", "yourStream")],
            ..Request::of(body)
        };
        let output = json(&support::output(create, &request));
        assert_eq!(
            output,
            serde_json::json!({"ShardCount": count, "StreamName": "yourStream"})
        );
    }
    let put = "{\"Data\": \"$util.base64Encode($input.json('$.Data'))\", \"PartitionKey\": \"$input.path('$.PartitionKey')\"}";
    assert_eq!(
        json(&over(put, r#"{"Data":"some data","PartitionKey":"some key"}"#)),
        serde_json::json!({"Data": "InNvbWUgZGF0YSI=", "PartitionKey": "some key"})
    );
    let records = "{\"Records\": [\n#foreach($elem in $input.path('$.records'))\n  {\"Data\": \"$util.base64Encode($elem.data)\", \"PartitionKey\": \"$elem.partition-key\"}#if($foreach.hasNext),#end\n#end\n]}";
    assert_eq!(
        json(&over(
            records,
            r#"{"records":[{"data":"some data","partition-key":"some key"},{"data":"some other data","partition-key":"some key"}]}"#
        )),
        serde_json::json!({"Records": [
            {"Data": "c29tZSBkYXRh", "PartitionKey": "some key"},
            {"Data": "c29tZSBvdGhlciBkYXRh", "PartitionKey": "some key"},
        ]})
    );
    // Without its loop the template has a reference that is bound to nothing, and renders all the same.
    assert_eq!(over("\"$elem.data\"#if($foreach.hasNext),#end", "{}"), "\"\"");
}

/// INT-066: a mock's request template; blanks around its object and calls before it do no harm.
#[test]
fn a_mocks_template_decides_on_a_status() {
    let template = "{ #if( $input.params('scope') == \"internal\" ) \"statusCode\": 200 #else \"statusCode\": 500 #end }";
    for (scope, status) in [
        (vec![("scope", "internal")], 200),
        (vec![("scope", "public")], 500),
        (vec![], 500),
    ] {
        let request = Request {
            query: scope,
            ..Request::default()
        };
        assert_eq!(
            json(&support::output(template, &request)),
            serde_json::json!({"statusCode": status})
        );
    }
    assert_eq!(
        over("\n#set($m = {})\n$m.put('a', 1)\n{statusCode: 200}\n", ""),
        "\n\n{statusCode: 200}\n"
    );
}
