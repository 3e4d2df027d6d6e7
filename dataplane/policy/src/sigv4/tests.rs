//! Examples of the guides' topics, and cases whose signatures another program has made.

use super::*;

fn scope<'a>(date: &str, region: &'a str, service: &'a str) -> Scope<'a> {
    Scope {
        date: AmzDate::parse(date).unwrap(),
        region,
        service,
    }
}

fn canonical(path: &str, query: &str, rule: PathRule) -> (String, String) {
    let request = Request {
        method: "GET",
        path: path.as_bytes(),
        query: query.as_bytes(),
        headers: &[("Host", b"h")],
        payload: Payload::Hash("x"),
    };
    let text = String::from_utf8(canonical_request(&request, rule).bytes).unwrap();
    let mut lines = text.lines().skip(1).map(str::to_owned);
    (lines.next().unwrap(), lines.next().unwrap())
}

/// The IAM guide's "Create a signed AWS API request": its canonical request, string to sign and signature.
#[test]
fn listing_users() {
    let headers: [(&str, &[u8]); 2] = [
        ("Host", b"iam.amazonaws.com"),
        (
            "Content-Type",
            b"application/x-www-form-urlencoded; charset=utf-8",
        ),
    ];
    let request = Request {
        method: "GET",
        path: b"/",
        query: b"Version=2010-05-08&Action=ListUsers",
        headers: &headers,
        payload: Payload::Bytes(b""),
    };
    let credentials = Credentials::new(
        "AKIDEXAMPLE",
        "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".into(),
        None,
    );
    let scope = scope("20150830T123600Z", "us-east-1", "iam");
    let added = sign_headers(
        &request,
        &credentials,
        &scope,
        Rules::of("iam"),
        &mut SigningKeys::new(1),
    );
    assert_eq!(
        added,
        [
            ("X-Amz-Date", "20150830T123600Z".to_owned()),
            (
                "Authorization",
                "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/iam/aws4_request, \
                 SignedHeaders=content-type;host;x-amz-date, \
                 Signature=5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7"
                    .to_owned()
            ),
        ]
    );
}

/// The S3 guide's "Authenticating Requests: Using the Authorization Header", its first example.
#[test]
fn an_object_of_s3() {
    let headers: [(&str, &[u8]); 2] = [
        ("Host", b"examplebucket.s3.amazonaws.com"),
        ("Range", b"bytes=0-9"),
    ];
    let request = Request {
        method: "GET",
        path: b"/test.txt",
        query: b"",
        headers: &headers,
        payload: Payload::Bytes(b""),
    };
    let credentials = Credentials::new(
        "AKIAIOSFODNN7EXAMPLE",
        "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".into(),
        None,
    );
    let scope = scope("20130524T000000Z", "us-east-1", "s3");
    let mut keys = SigningKeys::new(1);
    let added = sign_headers(&request, &credentials, &scope, Rules::of("s3"), &mut keys);
    assert_eq!(
        added[1],
        (
            "X-Amz-Content-Sha256",
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855".to_owned()
        )
    );
    let authorization = &added[2].1;
    assert!(
        authorization.contains("SignedHeaders=host;range;x-amz-content-sha256;x-amz-date,")
            && authorization.ends_with("f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"),
        "{authorization}"
    );
    // "Authenticating Requests: Using Query Parameters".
    let request = Request {
        headers: &headers[..1],
        ..request
    };
    let query = presign(&request, &credentials, &scope, Rules::of("s3"), 86_400, &mut keys);
    assert_eq!(
        query,
        "X-Amz-Algorithm=AWS4-HMAC-SHA256\
         &X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request\
         &X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host\
         &X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"
    );
}

/// A session token is signed with the rest, or added when all is signed.
#[test]
fn session_tokens() {
    let headers: [(&str, &[u8]); 2] = [("Content-Type", b"application/json"), ("host", b"lambda.example")];
    let call = Request {
        method: "POST",
        path: b"/2015-03-31/functions/arn:aws:lambda:us-east-1:000000000000:function:hello/invocations",
        query: b"Qualifier=2",
        headers: &headers,
        payload: Payload::Bytes(br#"{"a":1}"#),
    };
    let credentials = Credentials::new("AKIDOWN", "sec/ret".into(), Some("tok/en==".into()));
    let of_lambda = scope("20240301T101112Z", "us-east-1", "lambda");
    let mut keys = SigningKeys::new(2);
    let rules = Rules::of("lambda");
    let added = sign_headers(&call, &credentials, &of_lambda, rules, &mut keys);
    assert_eq!(added[1], ("X-Amz-Security-Token", "tok/en==".to_owned()));
    assert!(added[2].1.ends_with(SIGNED_TOKEN), "{}", added[2].1);

    let bare = Request {
        path: b"",
        query: b"",
        headers: &headers[1..],
        payload: Payload::Bytes(b""),
        ..call
    };
    let late = Rules {
        sign_session_token: false,
        ..rules
    };
    let added = sign_headers(&bare, &credentials, &of_lambda, late, &mut keys);
    assert_eq!(added[1], ("X-Amz-Security-Token", "tok/en==".to_owned()));
    assert!(added[2].1.ends_with(LATE_TOKEN), "{}", added[2].1);

    let headers: [(&str, &[u8]); 1] = [("host", b"api.example")];
    let link = Request {
        method: "GET",
        path: b"/",
        query: b"b=2",
        headers: &headers,
        payload: Payload::Bytes(b""),
    };
    let of_api = scope("20240301T101112Z", "us-east-1", "execute-api");
    let query = presign(&link, &credentials, &of_api, rules, 60, &mut keys);
    assert!(query.starts_with("b=2&X-Amz-Algorithm="), "{query}");
    assert!(
        query.contains("&X-Amz-Security-Token=tok%2Fen%3D%3D&X-Amz-Signature="),
        "{query}"
    );
    assert!(query.ends_with(LINK), "{query}");
}

/// Made by Python's `hmac` from canonical requests written by hand.
const SIGNED_TOKEN: &str = "c933431dce9f5e91f16deb87706e666073e146564f73799a25c6a459b2719e3b";
const LATE_TOKEN: &str = "6f917a82e0d47c549bc95aab8480d5a5c3ec1b4143eeb5384f6f44007a02fd25";
const LINK: &str = "2d0ce5ebf0fc3413893edb97777366de99905b950250e4e94fb0d1cefcd49cfd";

#[test]
fn paths() {
    use PathRule::{Encoded, Normalized, Once};
    for (path, rule, canonical_path) in [
        ("", Normalized, "/"),
        ("/", Normalized, "/"),
        ("/a/./b/../c", Normalized, "/a/c"),
        ("/a/b/..", Normalized, "/a/"),
        ("/..", Normalized, "/"),
        ("//a//", Normalized, "/a/"),
        ("/a b", Normalized, "/a%20b"),
        ("/a%20b", Normalized, "/a%2520b"),
        ("/a:b~_.-", Normalized, "/a%3Ab~_.-"),
        ("/\u{fc}", Normalized, "/%C3%BC"),
        ("//a/../b", Encoded, "//a/../b"),
        ("/a%20b", Encoded, "/a%2520b"),
        ("/a%20b//../c%2f", Once, "/a%20b//../c/"),
        ("/a%2bb+%zz%4", Once, "/a%2Bb%2B%25zz%254"),
    ] {
        assert_eq!(canonical(path, "", rule).0, canonical_path, "{path} {rule:?}");
    }
}

#[test]
fn queries() {
    for (query, canonical_query) in [
        ("", ""),
        ("b&a", "a=&b="),
        ("a=2&a=1&A=3", "A=3&a=1&a=2"),
        ("a=%2f&b=/&c=a+b", "a=%2F&b=%2F&c=a%2Bb"),
        ("a%20b=1&&=x", "=x&a%20b=1"),
        ("a==b", "a=%3Db"),
        ("a-=1&a=2", "a=2&a-=1"),
    ] {
        assert_eq!(
            canonical("/", query, PathRule::Normalized).1,
            canonical_query,
            "{query}"
        );
    }
}

#[test]
fn headers() {
    let headers: [(&str, &[u8]); 5] = [
        ("Zed", b"1"),
        ("zed", b"  0\t 1 "),
        ("My-Header", b"\"a   b\"\r\n  c"),
        ("Empty", b""),
        ("HOST", b"h"),
    ];
    let request = Request {
        method: "PUT",
        path: b"/",
        query: b"",
        headers: &headers,
        payload: Payload::Unsigned,
    };
    let canonical = canonical_request(&request, PathRule::Once);
    assert_eq!(
        String::from_utf8(canonical.bytes).unwrap(),
        "PUT\n/\n\nempty:\nhost:h\nmy-header:\"a b\" c\nzed:1,0 1\n\nempty;host;my-header;zed\nUNSIGNED-PAYLOAD"
    );
    assert_eq!(canonical.signed_headers, "empty;host;my-header;zed");
}
