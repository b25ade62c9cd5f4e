//! What a person's file becomes: each case is a text and what decoding says of each document.

use proptest::prelude::*;
use serde_json::json;

use super::{DecodeError, Kind, Object, Problem, decode};

/// `2:1 service default/a`, its warnings in parentheses, or the problem as shown.
fn results(bytes: &[u8]) -> Vec<String> {
    let show = |result: super::Decoded| match result {
        Ok(document) => {
            let (key, at) = (document.object.key(), document.position);
            let mut text = format!("{}:{} {key} in {:?}", at.line, at.column, &*key.namespace);
            for warning in document.warnings {
                text.push_str(&format!(" ({warning})"));
            }
            text
        }
        Err(problem) => problem.to_string(),
    };
    decode(bytes, "f.yaml").into_iter().map(show).collect()
}

#[track_caller]
fn check(description: &str, text: &str, expected: &[&str]) {
    assert_eq!(results(text.as_bytes()), expected, "{description}:\n{text}");
}

const A: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\n";
const B: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: b, namespace: n}\n";

#[test]
fn documents_are_split_and_placed() {
    let a = "1:1 service/a in \"default\"";
    let cases = [
        ("one document", A.to_owned(), vec![a]),
        ("two", format!("{A}---\n{B}"), vec![a, "5:1 service/b in \"n\""]),
        (
            "content after the marker",
            format!("--- {{}}\n---\n{A}"),
            vec![
                "f.yaml:1:5: Object 'kind' is missing: write what it is, such as kind: Service",
                "3:1 service/a in \"default\"",
            ],
        ),
        (
            "flow style after the marker",
            "--- {apiVersion: v1, kind: Node, metadata: {name: n}}\n".into(),
            vec!["1:5 node/n in \"\""],
        ),
        (
            "empty and comment-only documents",
            format!("# hello\n---\n\n---\n# x\n---\n{A}---\n"),
            vec!["7:1 service/a in \"default\""],
        ),
        ("nothing", String::new(), vec![]),
        ("null", "---\n~\n".into(), vec![]),
        ("comment before content", format!("# hello\n\n{A}"), vec!["3:1 service/a in \"default\""]),
        ("marker with comment", format!("--- # first\n{A}"), vec!["2:1 service/a in \"default\""]),
        ("end marker", format!("{A}...\n{B}"), vec![a, "5:1 service/b in \"n\""]),
        ("directive", format!("%YAML 1.2\n---\n{A}"), vec!["3:1 service/a in \"default\""]),
        ("byte order mark", format!("\u{feff}{A}"), vec![a]),
        ("CRLF", format!("{A}---\n{B}").replace('\n', "\r\n"), vec![a, "5:1 service/b in \"n\""]),
        ("no newline at the end", A.trim_end().to_owned(), vec![a]),
        (
            "dashes within a text",
            format!("{A}spec:\n  externalName: |\n    x\n    ---\n    y\n"),
            vec![a],
        ),
    ];
    for (description, text, expected) in cases {
        check(description, &text, &expected);
    }
}

#[test]
fn a_malformed_document_is_placed_and_hides_no_neighbour() {
    let results = results(format!("{A}---\nkind: Service\n  metadata: [\n---\n{B}").as_bytes());
    assert_eq!(results.len(), 3, "{results:#?}");
    assert_eq!(results[0], "1:1 service/a in \"default\"");
    assert!(results[1].starts_with("f.yaml:6:"), "line of the file: {}", results[1]);
    assert!(results[1].contains("not valid YAML"), "{}", results[1]);
    assert_eq!(results[2], "8:1 service/b in \"n\"");
}

#[test]
fn errors_name_object_field_and_remedy() {
    let service = |spec: &str| {
        format!("apiVersion: v1\nkind: Service\nmetadata:\n  name: mysql\nspec:\n{spec}")
    };
    let cases = [
        (
            "quoted port",
            service("  ports:\n  - port: \"80\"\n"),
            "f.yaml:7:11: Service \"mysql\" cannot be decoded: spec.ports[0].port: expected a 32-bit integer, found string \"80\": write the number without quotes",
        ),
        (
            "port beyond i32",
            service("  ports: [{port: 99999999999}]\n"),
            "f.yaml:6:18: Service \"mysql\" cannot be decoded: spec.ports[0].port: expected a 32-bit integer, found integer `99999999999`",
        ),
        (
            "port beyond i64",
            service("  ports: [{port: 99999999999999999999999}]\n"),
            "f.yaml:6:18: Service \"mysql\" cannot be decoded: spec.ports[0].port: expected a 32-bit integer, found floating point `1e+23`",
        ),
        (
            "target port beyond i32",
            service("  ports: [{port: 80, targetPort: 99999999999}]\n"),
            "f.yaml:6:34: Service \"mysql\" cannot be decoded: spec.ports[0].targetPort: expected a 32-bit integer, found integer `99999999999`",
        ),
        (
            "mapping for a list",
            service("  ports: {port: 80}\n"),
            "f.yaml:6:10: Service \"mysql\" cannot be decoded: spec.ports: expected a sequence, found map",
        ),
        (
            "number in the selector",
            service("  selector: {app: 1}\n"),
            "f.yaml:6:19: Service \"mysql\" cannot be decoded: spec.selector.app: expected string, found integer `1`: write it in quotes",
        ),
        (
            "boolean label",
            "apiVersion: v1\nkind: Pod\nmetadata: {name: p, labels: {x.y/z: true}}\n".to_owned(),
            "f.yaml:3:37: Pod \"p\" cannot be decoded: metadata.labels.x.y/z: expected string, found boolean `true`: write it in quotes",
        ),
        (
            "numeric name",
            "apiVersion: v1\nkind: Pod\nmetadata: {name: 1}\n".to_owned(),
            "f.yaml:3:18: Pod cannot be decoded: metadata.name: expected string, found integer `1`: write it in quotes",
        ),
        (
            "no name",
            "apiVersion: v1\nkind: Pod\n".to_owned(),
            "f.yaml:1:1: Pod: metadata.name: Required value: name or generateName is required; write metadata.name",
        ),
        (
            "generated name",
            "apiVersion: v1\nkind: Pod\nmetadata: {generateName: x-}\n".to_owned(),
            "f.yaml:1:1: Pod: metadata.name: Required value: lb does not generate names; write metadata.name instead of metadata.generateName",
        ),
        (
            "no kind",
            "apiVersion: v1\n".to_owned(),
            "f.yaml:1:1: Object 'kind' is missing: write what it is, such as kind: Service",
        ),
        (
            "no apiVersion",
            "kind: EndpointSlice\n".to_owned(),
            "f.yaml:1:1: Object 'apiVersion' is missing: write apiVersion: discovery.k8s.io/v1",
        ),
        (
            "version of the wrong group",
            "apiVersion: v1\nkind: EndpointSlice\n".to_owned(),
            "f.yaml:1:1: no matches for kind \"EndpointSlice\" in version \"v1\": write apiVersion: discovery.k8s.io/v1",
        ),
        (
            "a text",
            "just words\n".to_owned(),
            "f.yaml:1:1: this document is a string, not an object: expected a mapping with apiVersion, kind and metadata",
        ),
        (
            "a List without items",
            "apiVersion: v1\nkind: List\nitems: 3\n".to_owned(),
            "f.yaml:3:8: List cannot be decoded: items: expected a sequence, found a number",
        ),
        (
            "duplicate key",
            "apiVersion: v1\nkind: Pod\nkind: Service\n".to_owned(),
            "f.yaml:3:1: not valid YAML: duplicate mapping key `kind` is not allowed here",
        ),
    ];
    for (description, text, expected) in cases {
        check(description, &text, &[expected]);
    }
}

#[test]
fn other_kinds_are_named_and_skipped() {
    check(
        "kinds of real manifests",
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\n---\napiVersion: serving.knative.dev/v1\nkind: Service\nmetadata: {name: k}\n",
        &[
            "f.yaml:1: Deployment \"web\" (apps/v1) is not a kind that lb serves; skipped",
            "f.yaml:5: Service \"k\" (serving.knative.dev/v1) is not a kind that lb serves; skipped",
        ],
    );
}

#[test]
fn lists_are_flattened_and_their_items_placed() {
    check(
        "a List with a good, a bad and an unserved item, and a list inside",
        "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Node\n  metadata: {name: n}\n- apiVersion: v1\n  kind: Service\n  metadata: {name: s}\n  spec:\n    ports:\n    - port: x\n      prot: 1\n- {kind: Job, apiVersion: batch/v1}\n- {kind: PodList, apiVersion: v1, items: [{metadata: {name: p}, spek: 1}]}\n- 5\n",
        &[
            "4:3 node/n in \"\"",
            "f.yaml:12:13: Service \"s\" cannot be decoded: items[1].spec.ports[0].port: expected a 32-bit integer, found string \"x\": write the number without quotes",
            "f.yaml:14: Job \"\" (batch/v1) is not a kind that lb serves; skipped",
            "15:43 pod/p in \"default\" (unknown field \"items[3].items[0].spek\")",
            "f.yaml:16:3: this document is a number, not an object: expected a mapping with apiVersion, kind and metadata",
        ],
    );
    check("no items", "apiVersion: v1\nkind: List\nitems: null\n", &[]);
}

#[test]
fn unknown_fields_are_warnings_with_their_path() {
    check(
        "a misspelt field",
        "apiVersion: v1\nkind: Service\nmetadata: {name: a, lables: {}}\nspec:\n  prots: []\n  ports: [{port: 80, targetport: 1}]\n",
        &[
            "1:1 service/a in \"default\" (unknown field \"metadata.lables\") (unknown field \"spec.ports[0].targetport\") (unknown field \"spec.prots\")",
        ],
    );
}

#[test]
fn json_is_read_with_tabs_and_as_a_stream() {
    let one = "{\n\t\"apiVersion\": \"v1\",\n\t\"kind\": \"Node\",\n\t\"metadata\": {\"name\": \"n\"}\n}\n";
    check("tabs", one, &["1:1 node/n in \"\""]);
    check("two values", &format!("{one} {one}"), &["1:1 node/n in \"\"", "6:2 node/n in \"\""]);
    let broken = results(b"{\n  \"apiVersion\": \"v1\",\n  \"kind\": \n}}");
    assert!(broken[0].starts_with("f.yaml:4:"), "{broken:?}");
}

#[test]
fn scalars_are_read_as_users_of_kubectl_write_them() {
    let text = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: p\n  labels: {a: yes, b: on, c: \"5\", d: 1.2.3, e: null-ish, f: 2001:db8::1, g: 1e}\n";
    let decoded = decode(text.as_bytes(), "f").remove(0).expect("a pod");
    let labels = decoded.object.metadata().labels.clone().expect("labels");
    let values: Vec<_> = labels.values().map(String::as_str).collect();
    assert_eq!(values, ["yes", "on", "5", "1.2.3", "null-ish", "2001:db8::1", "1e"]);
}

#[test]
fn what_is_not_text_is_said_so_once() {
    let binary = [b"a: b\n".as_slice(), &[0x7f, b'E', 0xff, 0xfe], b"\n---\n---\n"].concat();
    assert_eq!(
        results(&binary),
        [
            "f.yaml:2:0: the file is not text: byte 0xff at offset 7 is not UTF-8; a manifest is YAML or JSON in UTF-8"
        ]
    );
    assert_eq!(
        results(b"a\0b"),
        [
            "f.yaml:1:0: the file is not text: it has a NUL at offset 1; a manifest is YAML or JSON in UTF-8"
        ]
    );
    assert!(results(&[0xff, 0xfe, b'a', 0])[0].contains("UTF-16"));
}

#[test]
fn ten_megabytes_of_services_decode_and_alias_bombs_do_not() {
    let services: usize = 10_000;
    let note = "x".repeat(900);
    let item = format!(
        "- {{apiVersion: v1, kind: Service, metadata: {{name: s, annotations: {{a: {note}}}}}, spec: {{ports: [{{port: 80}}]}}}}\n"
    );
    let list = format!("apiVersion: v1\nkind: List\nitems:\n{}", item.repeat(services));
    assert!(list.len() > 10_000_000);
    let decoded = decode(list.as_bytes(), "f");
    assert_eq!(decoded.iter().filter(|one| one.is_ok()).count(), services);
    let last = decoded.last().and_then(|last| last.as_ref().ok()).map(|last| last.position.line);
    assert_eq!(last, Some(services + 3), "each on its line");

    let mut bomb = "apiVersion: v1\nkind: Service\na0: &a0 [x,x,x,x,x,x,x,x,x]\n".to_owned();
    for level in 1..12 {
        let below = vec![format!("*a{}", level - 1); 9].join(",");
        bomb.push_str(&format!("a{level}: &a{level} [{below}]\n"));
    }
    let results = results(bomb.as_bytes());
    assert!(results[0].contains("not valid YAML"), "{results:?}");

    let deep = format!("a: {}", "[".repeat(100_000));
    assert!(matches!(decode(deep.as_bytes(), "f")[0], Err(Problem::Malformed { .. })));
}

#[test]
fn an_object_survives_the_way_through_json() {
    let value = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": "s", "namespace": "n"}, "addressType": "IPv4", "endpoints": [],
    });
    let (object, warnings) = Object::from_value(value.clone()).expect("a slice");
    assert_eq!((object.kind(), warnings.len()), (Kind::EndpointSlice, 0));
    assert_eq!(object.to_value(), value);
    assert_eq!(object.key().to_string(), "endpointslice.discovery.k8s.io/s");

    let unserved = Object::from_value(json!({"apiVersion": "v1", "kind": "Secret"}));
    assert!(matches!(unserved, Err(DecodeError::Unserved { .. })), "{unserved:?}");
}

proptest! {
    #[test]
    fn decoding_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        decode(&bytes, "f");
    }

    /// Text made of what manifests are made of reaches deeper than arbitrary bytes.
    #[test]
    fn decoding_never_panics_on_near_manifests(parts in proptest::collection::vec(
        proptest::sample::select(vec![
            "apiVersion: v1\n", "kind: Service\n", "kind: List\n", "items:\n", "- ", "  ", "\n---\n",
            "...", "{", "}", "[", "]", ":", "&a ", "*a", "metadata:\n", "name: x\n", "\t", "\r\n",
            "spec: {ports: [{port: 1}]}\n", "\"", "'", "|\n", "#", "%", "\u{feff}", "é", "!!int ", "<<: ",
            "99999999999999999999", "~", "{\"kind\":\"List\",\"items\":[5]}",
        ]), 0..40,
    )) {
        decode(parts.concat().as_bytes(), "f");
    }

    /// However a neighbour is broken, a good document is found on its line.
    #[test]
    fn neighbours_are_independent(garbage in "[^\u{0}]{0,80}") {
        prop_assume!(!garbage.lines().any(|line| line.starts_with("---") || line.starts_with("...")));
        prop_assume!(!garbage.contains('\r'));
        let text = format!("{garbage}\n---\n{A}");
        let line = text.matches('\n').count() - 2;
        let last = results(text.as_bytes()).pop();
        prop_assert_eq!(last, Some(format!("{line}:1 service/a in \"default\"")));
    }
}
