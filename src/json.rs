//! JSON read strictly: what two parsers could read differently is refused (RFC 7519 §4, RFC 8725 §2.4).

use std::cell::Cell;
use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::limits::JSON_DEPTH;

/// The words of an error for nesting beyond [`JSON_DEPTH`].
const TOO_DEEP: &str = "nested too deeply";

/// Parses one JSON value without duplicate members, with at most [`JSON_DEPTH`] levels inside the outermost.
///
/// # Errors
/// What is wrong, with line and column. It may repeat a member's name, never a value.
pub fn parse(json: &[u8]) -> Result<Value, JsonError> {
    // `serde_json` reads bytes leniently inside strings only when asked to: invalid UTF-8 is an error here.
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let depth = Cell::new(0);
    let value = Strict { depth: &depth }.deserialize(&mut deserializer).map_err(|e| JsonError(e.to_string()))?;
    deserializer.end().map_err(|e| JsonError(e.to_string()))?;
    Ok(value)
}

/// Parses one JSON object; see [`parse`].
///
/// # Errors
/// As [`parse`], and for any value that is not an object.
pub fn parse_object(json: &[u8]) -> Result<Map<String, Value>, JsonError> {
    match parse(json)? {
        Value::Object(members) => Ok(members),
        other => Err(JsonError(format!("{} where an object was expected", kind(&other)))),
    }
}

/// The same JSON text without white space between its tokens.
pub fn compact(json: &str) -> String {
    let (mut in_string, mut escaped) = (false, false);
    let keep = |c: &char| {
        let blank = !in_string && matches!(c, ' ' | '\t' | '\n' | '\r');
        if in_string {
            in_string = escaped || *c != '"';
            escaped = *c == '\\' && !escaped;
        } else {
            in_string = *c == '"';
        }
        !blank
    };
    json.chars().filter(keep).collect()
}

/// What kind of value this is, for messages.
pub const fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// Why a text is not strict JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonError(String);

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[derive(Clone, Copy)]
struct Strict<'d> {
    depth: &'d Cell<usize>,
}

impl Strict<'_> {
    fn descend<E: de::Error>(self) -> Result<(), E> {
        let around = self.depth.replace(self.depth.get().saturating_add(1));
        if around > JSON_DEPTH { Err(E::custom(TOO_DEEP)) } else { Ok(()) }
    }

    fn ascend(self) {
        self.depth.set(self.depth.get().saturating_sub(1));
    }
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        self.descend()?;
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(self)? {
            items.push(item);
        }
        self.ascend();
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        self.descend()?;
        let mut members = Map::new();
        while let Some(name) = map.next_key::<String>()? {
            let value = map.next_value_seed(self)?;
            if members.contains_key(&name) {
                return Err(de::Error::custom(format_args!("duplicate member `{name}`")));
            }
            members.insert(name, value);
        }
        self.ascend();
        Ok(Value::Object(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(json: &str, why: &str) {
        let error = parse(json.as_bytes()).expect_err("strict JSON accepted what it must refuse").to_string();
        assert!(error.contains(why), "{json}: {error}");
    }

    #[test]
    fn two_readings_are_none() {
        refused(r#"{"a":1,"a":1}"#, "duplicate member `a`");
        refused(r#"{"x":[{"a":1,"\u0061":2}]}"#, "duplicate member `a`");
        refused(r#"{"a":1}{}"#, "trailing characters");
        refused("{'a':1}", "key must be a string");
        refused(r#"{"a":1,}"#, "trailing comma");
        refused(r#"{"a":01}"#, "invalid number");
        refused(r#"{"a":NaN}"#, "expected value");
        refused(r#"{"a":1e999}"#, "number out of range");
        refused(r#"{"a":"\ud800"}"#, "unexpected end of hex escape");
        refused("\u{feff}{}", "expected value");
        refused("", "EOF");
        assert!(parse(b"{\"a\":\"\xff\"}").is_err());
    }

    #[test]
    fn depth_is_bounded() {
        let nested = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
        assert!(parse(nested(1 + JSON_DEPTH).as_bytes()).is_ok());
        refused(&nested(1 + JSON_DEPTH + 1), TOO_DEEP);
        refused(&nested(100_000), TOO_DEEP);
        // Siblings do not add up.
        let wide = format!("[{}]", vec!["[[]]"; 100].join(","));
        assert!(parse(wide.as_bytes()).is_ok());
    }

    #[test]
    fn only_space_between_tokens_is_lost() {
        let json = "{ \"a b\\\\\" :\t[ 1e2 ,\"\\\" c \" ]\r\n}";
        assert_eq!(compact(json), "{\"a b\\\\\":[1e2,\"\\\" c \"]}");
    }

    #[test]
    fn values_survive() {
        let json = r#"{"b":[1,-2,1.5,18446744073709551615],"a":{"":null,"t":true,"s":"é\n"}}"#;
        assert_eq!(parse(json.as_bytes()).map(|v| v.to_string()), Ok(json.to_owned()));
        assert!(parse_object(b"[]").is_err());
    }
}
