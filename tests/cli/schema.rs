//! `claimgate schema`: what the documentation shows is valid by it, and what the gate refuses for its form is not.

use claimgate::Config;
use jsonschema::Validator;
use serde_json::{Value, json};

use crate::desk::{Desk, file};

fn schema(arguments: &[&str]) -> Value {
    let text = Desk::new().answer(&[&["schema"], arguments].concat(), 0);
    let schema: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    schema
}

fn validator(arguments: &[&str]) -> Validator {
    let schema = schema(arguments);
    jsonschema::meta::validate(&schema).unwrap_or_else(|error| panic!("not a schema: {error}"));
    jsonschema::validator_for(&schema).expect("a schema")
}

#[track_caller]
fn valid(validator: &Validator, name: &str, instance: &Value) {
    let errors: Vec<String> =
        validator.iter_errors(instance).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert!(errors.is_empty(), "{name}: {errors:?}\n{instance:#}");
}

/// The plugin configurations in an Envoy or Istio file.
fn configurations(value: &Value, found: &mut Vec<Value>) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                let is_ours = |value: &Value| value.get("providers").is_some();
                match member {
                    Value::String(text) if name == "value" && text.contains("\"providers\"") => {
                        found.push(serde_json::from_str(text).expect("a configuration in a file"));
                    }
                    Value::Object(_) if ["value", "pluginConfig"].contains(&name.as_str()) && is_ours(member) => {
                        found.push(member.clone());
                    }
                    _ => configurations(member, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| configurations(item, found)),
        _ => {}
    }
}

#[test]
fn every_configuration_of_the_documentation_is_valid() {
    let validator = validator(&[]);
    let mut examples: Vec<(String, Value)> = Vec::new();
    for name in ["envoy/envoy.yaml", "envoy/scopes.yaml", "envoy/jwt_authn.yaml", "envoy/istio.yaml"] {
        let mut found = Vec::new();
        let documents: Vec<Value> = serde_saphyr::from_multiple(&file(name)).expect("YAML");
        documents.iter().for_each(|document| configurations(document, &mut found));
        assert!(!found.is_empty(), "{name} holds no configuration: is it read rightly?");
        examples.extend(found.into_iter().map(|found| (name.to_owned(), found)));
    }
    examples.push((
        "examples/contract/gate.json".to_owned(),
        serde_json::from_str(&file("examples/contract/gate.json")).expect("JSON"),
    ));
    examples.push(("README.md".to_owned(), readme_example()));
    examples.extend(
        schema(&[])["examples"].as_array().expect("a list").iter().map(|e| ("the schema".to_owned(), e.clone())),
    );
    for (name, example) in &examples {
        valid(&validator, name, example);
        Config::parse(example.to_string().as_bytes()).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

/// The configuration that the README's Envoy file holds.
fn readme_example() -> Value {
    let readme = file("README.md");
    let yaml = readme.split("```").find(|block| block.starts_with("yaml\n- name: claimgate")).expect("the block");
    let yaml: Value = serde_saphyr::from_str(yaml.trim_start_matches("yaml")).expect("YAML");
    let mut found = Vec::new();
    configurations(&yaml, &mut found);
    found.pop().expect("a configuration")
}

#[test]
fn what_the_gate_refuses_for_its_form_is_not_valid() {
    let validator = validator(&[]);
    for (place, value) in [
        ("/provider", json!({})),
        ("/providers", json!({})),
        ("/providers/corp/isuer", json!("x")),
        ("/providers/corp/issuer", json!(7)),
        ("/providers/corp/audiences", json!("orders")),
        ("/providers/corp/algorithms", json!(["RS257"])),
        ("/providers/corp/clock_skew_seconds", json!("60s")),
        ("/providers/corp/clock_skew_seconds", json!(-1)),
        ("/providers/corp/clock_skew_seconds", json!(86401)),
        ("/providers/corp/max_token_bytes", json!(65537)),
        ("/providers/corp/max_age", json!("5m")),
        ("/providers/corp/remote_jwks/http_uri/cluster", Value::Null),
        ("/providers/corp/remote_jwks/cache_duration", json!(600)),
        ("/providers/corp/payload_in_metadata", json!("x")),
        ("/providers/corp/claim_to_headers", json!([{"header_name": "x", "claim_name": "y", "format": "xml"}])),
        ("/unmatched", json!("reject")),
        ("/mode", json!("dry-run")),
        ("/rules", json!([{"requires": {}}])),
        ("/rules", json!([{"match": {"prefix": "/"}, "requires": {"requires_any": {"requirements": []}}}])),
        ("/rules", json!([{"match": {"prefix": "/", "grpc": {}}}])),
    ] {
        let example = changed(readme_example(), place, value);
        assert!(!validator.is_valid(&example), "{place}: {example}");
        assert!(Config::parse(example.to_string().as_bytes()).is_err(), "{place}: {example}");
    }
}

/// What a field's words say of its default, the schema says too.
#[test]
fn defaults_and_descriptions() {
    let schema = schema(&[]);
    let mut defaults = 0;
    let objects = schema["$defs"].as_object().expect("definitions").values().chain([&schema]);
    for object in objects.filter(|object| object["properties"].is_object()) {
        for (name, property) in object["properties"].as_object().expect("properties") {
            let words = property["description"].as_str().unwrap_or_else(|| panic!("{name} has no description"));
            let Some((_, told)) = words.split_once("Default ") else { continue };
            let told = told.trim_start_matches('`').split(['`', '.', ';', ' ', ':']).next().expect("a value");
            let default = match &property["default"] {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            assert!(default == told || told == "ten" || told == "as", "{name}: {default}, and in words: {words}");
            defaults += 1;
        }
    }
    assert!(defaults > 15, "{defaults} defaults: are they read rightly?");
}

#[test]
fn cases_have_a_schema_too() {
    let validator = validator(&["--contract"]);
    let example: Value = serde_saphyr::from_str(&file("examples/contract/contract.yaml")).expect("YAML");
    valid(&validator, "examples/contract/contract.yaml", &example);
    for (place, value) in
        [("/cases/0/expct", json!({})), ("/cases/0/expect/status", json!("401")), ("/keys/x", json!("ES256"))]
    {
        let example = changed(example.clone(), place, value);
        assert!(!validator.is_valid(&example), "{place}");
    }
}

/// The same with one member put in place or replaced.
fn changed(mut example: Value, place: &str, value: Value) -> Value {
    let (parent, name) = place.rsplit_once('/').expect("a path");
    let object = example.pointer_mut(parent).expect("a place").as_object_mut().expect("an object");
    object.insert(name.to_owned(), value);
    example
}
