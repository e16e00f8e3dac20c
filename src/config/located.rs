//! Reads a typed value out of JSON; an error says where.
//!
//! `serde_path_to_error` does the same for any format, and takes a tenth of the plugin for it.

use std::fmt;

use serde::Deserialize;
use serde::de::value::StrDeserializer;
use serde::de::{self, DeserializeSeed, Deserializer, Expected, MapAccess, SeqAccess, Unexpected, Visitor};
use serde_json::map::Iter as Members;
use serde_json::{Map, Number, Value};

/// What `value` says as a `T`.
///
/// # Errors
/// What is unknown, missing or of the wrong type, in the words of `serde_json`.
pub fn read<'de, T: Deserialize<'de>>(value: &'de Value) -> Result<T, Error> {
    T::deserialize(Located(value))
}

/// What is wrong, and where. Boxed, so that the many results that may hold one are small.
#[derive(Debug)]
pub struct Error(Box<Wrong>);

#[derive(Debug)]
struct Wrong {
    /// The steps to the value, innermost first: they are collected on the way out.
    steps: Vec<String>,
    message: String,
}

impl Error {
    /// The path, such as `providers.corp.audiences[1]`; empty at the top.
    pub fn path(&self) -> String {
        let path = self.0.steps.iter().rev().map(String::as_str).collect::<String>();
        path.strip_prefix('.').map(str::to_owned).unwrap_or(path)
    }

    /// What is wrong there.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    #[cold]
    #[inline(never)]
    fn new(message: String) -> Self {
        Self(Box::new(Wrong { steps: Vec::new(), message }))
    }

    #[cold]
    #[inline(never)]
    fn in_member(mut self, name: &str) -> Self {
        self.0.steps.push(format!(".{name}"));
        self
    }

    #[cold]
    #[inline(never)]
    fn in_item(mut self, index: usize) -> Self {
        self.0.steps.push(format!("[{index}]"));
        self
    }

    #[cold]
    #[inline(never)]
    fn mismatch(what: &str, unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::new(match unexpected {
            Unexpected::Unit => format!("invalid {what}: null, expected {expected}"),
            Unexpected::Float(value) => match Number::from_f64(value) {
                Some(value) => format!("invalid {what}: floating point `{value}`, expected {expected}"),
                None => format!("invalid {what}: floating point, expected {expected}"),
            },
            unexpected => format!("invalid {what}: {unexpected}, expected {expected}"),
        })
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message())
    }
}

impl std::error::Error for Error {}

impl de::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(message.to_string())
    }

    fn invalid_type(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::mismatch("type", unexpected, expected)
    }

    fn invalid_value(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::mismatch("value", unexpected, expected)
    }
}

struct Located<'de>(&'de Value);

impl<'de> Deserializer<'de> for Located<'de> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Number(_) => match kind(self.0) {
                Unexpected::Unsigned(value) => visitor.visit_u64(value),
                Unexpected::Signed(value) => visitor.visit_i64(value),
                Unexpected::Float(value) => visitor.visit_f64(value),
                other => Err(de::Error::invalid_type(other, &visitor)),
            },
            Value::String(text) => visitor.visit_borrowed_str(text),
            Value::Array(array) => {
                let mut items = Items { rest: array, index: 0 };
                let value = visitor.visit_seq(&mut items)?;
                if !items.rest.is_empty() {
                    return Err(de::Error::invalid_length(array.len(), &"fewer elements in array"));
                }
                Ok(value)
            }
            Value::Object(members) => visitor.visit_map(Object::of(members)),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.0.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    /// A variant without fields: its name, or `{NAME: null}`, as `serde_json` reads it.
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let (name, value) = match self.0 {
            Value::String(name) => (name, None),
            Value::Object(members) => match members.iter().next() {
                Some((name, value)) if members.len() == 1 => (name, Some(value)),
                _ => return Err(de::Error::invalid_value(Unexpected::Map, &"map with a single key")),
            },
            other => return Err(de::Error::invalid_type(kind(other), &"string or map")),
        };
        let variant = visitor.visit_enum(StrDeserializer::<Error>::new(name))?;
        match value {
            None | Some(Value::Null) => Ok(variant),
            Some(value) => Err(<Error as de::Error>::invalid_type(kind(value), &"unit").in_member(name)),
        }
    }

    /// What is an object has no second form as a list of its fields in order, as other formats would have it.
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.0 {
            Value::Object(members) => visitor.visit_map(Object::of(members)),
            other => Err(de::Error::invalid_type(kind(other), &visitor)),
        }
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        newtype_struct seq tuple tuple_struct map identifier ignored_any
    }
}

/// What a value is, for an error.
fn kind(value: &Value) -> Unexpected<'_> {
    match value {
        Value::Null => Unexpected::Unit,
        Value::Bool(value) => Unexpected::Bool(*value),
        Value::Number(number) => match (number.as_u64(), number.as_i64(), number.as_f64()) {
            (Some(value), ..) => Unexpected::Unsigned(value),
            (None, Some(value), _) => Unexpected::Signed(value),
            (None, None, Some(value)) => Unexpected::Float(value),
            (None, None, None) => Unexpected::Other("number"),
        },
        Value::String(text) => Unexpected::Str(text),
        Value::Array(_) => Unexpected::Seq,
        Value::Object(_) => Unexpected::Map,
    }
}

struct Items<'de> {
    rest: &'de [Value],
    index: usize,
}

impl<'de> SeqAccess<'de> for &mut Items<'de> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        let Some((item, rest)) = self.rest.split_first() else { return Ok(None) };
        let index = self.index;
        (self.rest, self.index) = (rest, index.saturating_add(1));
        seed.deserialize(Located(item)).map(Some).map_err(|error| error.in_item(index))
    }
}

struct Object<'de> {
    rest: Members<'de>,
    /// The member whose name was read last.
    member: Option<(&'de str, &'de Value)>,
}

impl<'de> Object<'de> {
    fn of(members: &'de Map<String, Value>) -> Self {
        Self { rest: members.iter(), member: None }
    }
}

impl<'de> MapAccess<'de> for Object<'de> {
    type Error = Error;

    fn next_key_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        let Some((name, value)) = self.rest.next() else { return Ok(None) };
        self.member = Some((name, value));
        seed.deserialize(StrDeserializer::new(name)).map(Some).map_err(|error: Error| error.in_member(name))
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Error> {
        let Some((name, value)) = self.member.take() else {
            return Err(de::Error::custom("value is missing"));
        };
        seed.deserialize(Located(value)).map_err(|error| error.in_member(name))
    }
}
