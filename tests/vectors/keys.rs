//! Keys of other projects: which of them verify, and which do not.

use claimgate::KeySet;
use libtest_mimic::Failed;
use serde::Deserialize;
use serde_json::Value;

use crate::suite::{ACCEPT, REFUSE, Suite, read};
use crate::tokens;

/// Wycheproof's key sets, each with tokens that must or must not verify with it.
pub fn of_wycheproof() -> Result<(), Failed> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct File {
        number_of_tests: usize,
        test_groups: Vec<Group>,
    }
    #[derive(Deserialize)]
    struct Group {
        comment: String,
        private: Value,
        public: Option<Value>,
        tests: Vec<Test>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Test {
        tc_id: usize,
        comment: String,
        jws: String,
        result: String,
    }
    let File { number_of_tests, test_groups } = read("data/json_web_key_test.json");
    let mut cases = Vec::new();
    for group in &test_groups {
        for test in &group.tests {
            let id = format!("{} {} {}", test.tc_id, group.comment, test.comment);
            let expected = if test.result == "valid" { ACCEPT } else { REFUSE };
            // What a verifier is given; for secrets there is nothing else.
            cases.push((id, &*test.jws, group.public.as_ref().unwrap_or(&group.private), expected));
        }
    }
    assert_eq!(cases.len(), number_of_tests, "cases are missing");
    let suite = Suite::new("json_web_key", "json_web_key", |_| true);
    tokens::verify_all(suite, cases.iter().map(|(id, jws, keys, expected)| (&**id, *jws, *keys, *expected)))
}

/// The keys that RFCs show: those that verify, and the thumbprints that RFCs give for them.
pub fn of_rfcs() -> Result<(), Failed> {
    #[derive(Deserialize)]
    struct Case {
        id: String,
        key: Value,
        expected: String,
        thumbprint: Option<String>,
    }
    let mut suite = Suite::new("keys of RFCs", "rfc_keys", |_| true);
    for case in read::<Vec<Case>>("data/rfc_keys.json") {
        let document = serde_json::json!({"keys": [case.key]}).to_string();
        let set = KeySet::parse(document.as_bytes(), 1).map_err(|error| error.to_string())?;
        suite.case(&case.id, &case.expected, if set.keys().is_empty() { REFUSE } else { ACCEPT });
        if let Some(expected) = &case.thumbprint
            && set.keys().first().and_then(|key| key.thumbprint()) != Some(expected)
        {
            suite.fail(format!("{}: another thumbprint than {expected}", case.id));
        }
    }
    suite.finish()
}
