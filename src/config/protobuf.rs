//! Reads the binary form of `google.protobuf.Struct` (`google/protobuf/struct.proto`) as the JSON that it stands for.

use serde_json::{Map, Number, Value};

use crate::limits::JSON_DEPTH;

/// The JSON object; nothing if `document` is no `Struct`, or nested more than [`JSON_DEPTH`] levels deep.
pub fn read(document: &[u8]) -> Option<Value> {
    object(document, JSON_DEPTH)
}

/// A `Struct`: entries of a map.
fn object(mut rest: &[u8], depth: usize) -> Option<Value> {
    let mut members = Map::new();
    while !rest.is_empty() {
        match field(&mut rest)? {
            (1, Content::Bytes(entry)) => {
                let (name, member) = member(entry, depth)?;
                members.insert(name, member);
            }
            (1, _) => return None,
            _ => {}
        }
    }
    Some(Value::Object(members))
}

fn member(mut rest: &[u8], depth: usize) -> Option<(String, Value)> {
    let (mut name, mut member) = (String::new(), None);
    while !rest.is_empty() {
        match field(&mut rest)? {
            (1, Content::Bytes(text)) => name = string(text)?,
            (2, Content::Bytes(inner)) => member = Some(value(inner, depth)?),
            (1 | 2, _) => return None,
            _ => {}
        }
    }
    Some((name, member?))
}

/// A `Value`: the last of its kinds holds. Without one it is no value.
fn value(mut rest: &[u8], depth: usize) -> Option<Value> {
    let mut value = None;
    while !rest.is_empty() {
        value = Some(match field(&mut rest)? {
            (1, Content::Varint(_)) => Value::Null,
            (2, Content::Fixed64(bits)) => Value::Number(number(f64::from_bits(bits))?),
            (3, Content::Bytes(text)) => Value::String(string(text)?),
            (4, Content::Varint(bit)) => Value::Bool(bit != 0),
            (5, Content::Bytes(members)) => object(members, depth.checked_sub(1)?)?,
            (6, Content::Bytes(items)) => list(items, depth.checked_sub(1)?)?,
            (1..=6, _) => return None,
            _ => continue,
        });
    }
    value
}

/// A `ListValue`.
fn list(mut rest: &[u8], depth: usize) -> Option<Value> {
    let mut items = Vec::new();
    while !rest.is_empty() {
        match field(&mut rest)? {
            (1, Content::Bytes(item)) => items.push(value(item, depth)?),
            (1, _) => return None,
            _ => {}
        }
    }
    Some(Value::Array(items))
}

fn string(text: &[u8]) -> Option<String> {
    std::str::from_utf8(text).ok().map(str::to_owned)
}

/// Every number of a `Struct` is a double; those that were whole when typed are whole again.
fn number(value: f64) -> Option<Number> {
    const WHOLE: std::ops::Range<f64> = -9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0;
    if value.fract() == 0.0 && WHOLE.contains(&value) {
        #[expect(clippy::cast_possible_truncation, reason = "it is whole and in the range of an `i64`")]
        return Some(Number::from(value as i64));
    }
    Number::from_f64(value)
}

/// What a field holds, by its wire type.
enum Content<'d> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'d [u8]),
    Fixed32,
}

/// Takes a field off the front: its number and its content. Groups, which are no longer written, are not read.
fn field<'d>(rest: &mut &'d [u8]) -> Option<(u64, Content<'d>)> {
    let key = varint(rest)?;
    let content = match key & 7 {
        0 => Content::Varint(varint(rest)?),
        1 => Content::Fixed64(u64::from_le_bytes(take(rest, 8)?.try_into().ok()?)),
        2 => {
            let length = usize::try_from(varint(rest)?).ok()?;
            Content::Bytes(take(rest, length)?)
        }
        5 => take(rest, 4).map(|_| Content::Fixed32)?,
        _ => return None,
    };
    Some((key >> 3, content))
}

fn take<'d>(rest: &mut &'d [u8], length: usize) -> Option<&'d [u8]> {
    let (taken, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(taken)
}

/// Seven bits in each byte, the least significant first; the high bit says that more follow.
fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    let mut shift = 0;
    while shift < u64::BITS {
        let (byte, after) = rest.split_first()?;
        *rest = after;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
        shift = shift.saturating_add(7);
    }
    None
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use prost_types::value::Kind;
    use serde_json::json;

    use super::*;

    fn on_the_wire(value: &Value) -> Kind {
        let wrap = |value| prost_types::Value { kind: Some(on_the_wire(value)) };
        match value {
            Value::Null => Kind::NullValue(0),
            Value::Bool(value) => Kind::BoolValue(*value),
            Value::Number(value) => Kind::NumberValue(value.as_f64().unwrap_or_default()),
            Value::String(value) => Kind::StringValue(value.clone()),
            Value::Array(items) => Kind::ListValue(prost_types::ListValue { values: items.iter().map(wrap).collect() }),
            Value::Object(members) => Kind::StructValue(prost_types::Struct {
                fields: members.iter().map(|(name, value)| (name.clone(), wrap(value))).collect(),
            }),
        }
    }

    fn encoded(value: &Value) -> Vec<u8> {
        match on_the_wire(value) {
            Kind::StructValue(members) => members.encode_to_vec(),
            _ => Vec::new(),
        }
    }

    #[track_caller]
    fn check(value: &Value) {
        assert_eq!(read(&encoded(value)).as_ref(), Some(value));
    }

    #[test]
    fn what_another_implementation_writes_is_read() {
        check(&json!({}));
        check(&json!({"a": null, "b": [true, false, "", "é", [], {}], "": {"c": {"d": "x".repeat(300)}}}));
        check(&json!({"a": [0, 1, -1, 1.5, -0.25, 9_007_199_254_740_992_i64, 1e300, i64::MIN]}));
    }

    #[test]
    fn what_is_cut_is_nothing() {
        let whole = encoded(&json!({"a": {"b": [1.5, "x", true, null]}}));
        for length in 1..whole.len() {
            assert_eq!(whole.get(..length).and_then(read), None, "{length}");
        }
    }

    #[test]
    fn what_is_no_struct_is_nothing() {
        for document in [&b"\x08\x01"[..], b"\x0a\x02\x08\x01", b"\x0a\x02\x12\x00", b"\x0b", b"\x0a\xff", &[0xff; 12]]
        {
            assert_eq!(read(document), None, "{document:x?}");
        }
        // `{"a": <the bytes 0xff>}` is no text, and neither infinity nor NaN is JSON.
        assert_eq!(read(b"\x0a\x08\x0a\x01a\x12\x03\x1a\x01\xff"), None);
        for number in [f64::INFINITY, f64::NAN] {
            let mut document = b"\x0a\x0e\x0a\x01a\x12\x09\x11".to_vec();
            document.extend_from_slice(&number.to_le_bytes());
            assert_eq!(read(&document), None, "{number}");
        }
        // Fields that are not known are passed over, whatever their type.
        assert_eq!(read(b"\x50\x01\x51\0\0\0\0\0\0\0\0\x52\x01x\x55\0\0\0\0"), Some(json!({})));
    }

    #[test]
    fn depth_is_bounded() {
        let nested = |levels: usize| (0..levels).fold(json!(1), |inner, _| json!([inner]));
        assert!(read(&encoded(&json!({"a": nested(JSON_DEPTH)}))).is_some());
        assert_eq!(read(&encoded(&json!({"a": nested(JSON_DEPTH + 1)}))), None);
    }
}
