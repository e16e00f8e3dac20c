//! Reads a typed value out of JSON; an error says where.
//!
//! `serde` derives this too, and its code for our types takes 100 KB of the plugin: it is made anew for each of them.
//! Here an object is the names of its fields and where they are, and one function reads them all.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{ConfigError, raw};

/// What can be read out of JSON.
pub trait Read {
    /// Puts what `value` says in the place of a default.
    ///
    /// # Errors
    /// What is unknown, missing or of the wrong type. What was read until then is of no use.
    fn read(&mut self, value: &Value) -> Result<(), Error>;
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

impl From<Error> for ConfigError {
    /// The path is one such as `providers.corp.audiences[1]`; empty at the top.
    fn from(error: Error) -> Self {
        let path = error.0.steps.iter().rev().map(String::as_str).collect::<String>();
        Self { path: path.strip_prefix('.').map(str::to_owned).unwrap_or(path), message: error.0.message }
    }
}

impl Error {
    fn new(message: String) -> Self {
        Self(Box::new(Wrong { steps: Vec::new(), message }))
    }

    fn in_member(mut self, name: &str) -> Self {
        self.0.steps.push(format!(".{name}"));
        self
    }

    fn in_item(mut self, index: usize) -> Self {
        self.0.steps.push(format!("[{index}]"));
        self
    }

    /// A value of the wrong type.
    #[cold]
    pub fn mismatch(found: &Value, expected: &str) -> Self {
        Self::new(format!("invalid type: {}, expected {expected}", described(found)))
    }

    /// A number that is out of range.
    #[cold]
    fn out_of_range(found: &Value, expected: &str) -> Self {
        Self::new(format!("invalid value: {}, expected {expected}", described(found)))
    }
}

/// What a value is, for an error. A string may be a secret in the wrong place: its kind is said and not the string.
fn described(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(value) => format!("boolean `{value}`"),
        Value::Number(number) if number.is_f64() => format!("floating point `{number}`"),
        Value::Number(number) => format!("integer `{number}`"),
        Value::String(_) => "a string".to_owned(),
        Value::Array(_) => "sequence".to_owned(),
        Value::Object(_) => "map".to_owned(),
    }
}

/// Reads an object's members into fields, of which the first `required` ones must be there.
///
/// # Errors
/// The first of its members that is wrong; or else which one is missing.
pub fn read_object(value: &Value, names: &[&str], required: usize, fields: &mut [&mut dyn Read]) -> Result<(), Error> {
    let Value::Object(members) = value else { return Err(Error::mismatch(value, "an object")) };
    for (name, member) in members {
        let place = names.iter().position(|known| known == name);
        let Some(field) = place.and_then(|place| fields.get_mut(place)) else {
            return Err(Error::new(raw::unknown_field(name, names)).in_member(name));
        };
        field.read(member).map_err(|error| error.in_member(name))?;
    }
    match names.iter().take(required).find(|name| !members.contains_key(**name)) {
        Some(name) => Err(Error::new(format!("missing field `{name}`"))),
        None => Ok(()),
    }
}

/// Reads one of several names, or `{NAME: null}`; its place among them comes back.
///
/// # Errors
/// What is not one of them.
pub fn read_name(value: &Value, names: &[&str]) -> Result<usize, Error> {
    let (name, inner) = match value {
        Value::String(name) => (name, None),
        Value::Object(members) => match members.iter().next() {
            Some((name, inner)) if members.len() == 1 => (name, Some(inner)),
            _ => return Err(Error::out_of_range(value, "map with a single key")),
        },
        other => return Err(Error::mismatch(other, "string or map")),
    };
    let Some(place) = names.iter().position(|known| known == name) else {
        let known = names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>();
        let known = if known.len() > 2 { format!("one of {}", known.join(", ")) } else { known.join(" or ") };
        return Err(Error::new(format!("unknown variant `{name}`, expected {known}")));
    };
    match inner {
        None | Some(Value::Null) => Ok(place),
        Some(inner) => Err(Error::mismatch(inner, "unit").in_member(name)),
    }
}

/// The name of a field; Rust writes `match` as `r#match`.
pub const fn name(field: &str) -> &str {
    match field.as_bytes() {
        [b'r', b'#', ..] => field.split_at(2).1,
        _ => field,
    }
}

/// Makes an object readable: the fields that must be there, a semicolon, and the others. No field can be forgotten.
macro_rules! object {
    ($object:ident { $($required:ident),*; $($optional:ident),* }) => {
        impl Read for $object {
            fn read(&mut self, value: &Value) -> Result<(), Error> {
                const REQUIRED: &[&str] = &[$(stringify!($required)),*];
                const NAMES: &[&str] = &[$(name(stringify!($required)),)* $(name(stringify!($optional))),*];
                let Self { $($required,)* $($optional),* } = self;
                read_object(value, NAMES, REQUIRED.len(), &mut [$($required,)* $($optional),*])
            }
        }
    };
}

/// Makes one of several names readable.
macro_rules! names {
    ($choice:ident { $($name:literal: $variant:ident),* }) => {
        impl Read for $choice {
            fn read(&mut self, value: &Value) -> Result<(), Error> {
                let place = read_name(value, &[$($name),*])?;
                if let Some(variant) = [$(Self::$variant),*].get(place) {
                    *self = *variant;
                }
                Ok(())
            }
        }
    };
}

pub(super) use {names, object};

impl Read for String {
    fn read(&mut self, value: &Value) -> Result<(), Error> {
        let text = value.as_str().ok_or_else(|| Error::mismatch(value, "a string"))?;
        text.clone_into(self);
        Ok(())
    }
}

impl Read for bool {
    fn read(&mut self, value: &Value) -> Result<(), Error> {
        *self = value.as_bool().ok_or_else(|| Error::mismatch(value, "a boolean"))?;
        Ok(())
    }
}

impl Read for u32 {
    fn read(&mut self, value: &Value) -> Result<(), Error> {
        *self = match value {
            Value::Number(number) if !number.is_f64() => {
                let number = number.as_u64().and_then(|number| Self::try_from(number).ok());
                number.ok_or_else(|| Error::out_of_range(value, "u32"))?
            }
            other => return Err(Error::mismatch(other, "u32")),
        };
        Ok(())
    }
}

impl Read for i64 {
    fn read(&mut self, value: &Value) -> Result<(), Error> {
        *self = match value {
            Value::Number(number) if !number.is_f64() => {
                number.as_i64().ok_or_else(|| Error::out_of_range(value, "i64"))?
            }
            other => return Err(Error::mismatch(other, "i64")),
        };
        Ok(())
    }
}

impl Read for Map<String, Value> {
    fn read(&mut self, value: &Value) -> Result<(), Error> {
        self.clone_from(value.as_object().ok_or_else(|| Error::mismatch(value, "a map"))?);
        Ok(())
    }
}

impl Read for Vec<Value> {
    fn read(&mut self, value: &Value) -> Result<(), Error> {
        self.clone_from(value.as_array().ok_or_else(|| Error::mismatch(value, "a sequence"))?);
        Ok(())
    }
}

/// A member that is there, even if it is null.
impl Read for Option<Value> {
    fn read(&mut self, value: &Value) -> Result<(), Error> {
        *self = Some(value.clone());
        Ok(())
    }
}

/// What is null is not there.
impl<T: Read + Default> Read for Option<T> {
    fn read(&mut self, value: &Value) -> Result<(), Error> {
        if value.is_null() { Ok(()) } else { self.insert(T::default()).read(value) }
    }
}

impl<T: Read + Default> Read for Vec<T> {
    fn read(&mut self, value: &Value) -> Result<(), Error> {
        let items = value.as_array().ok_or_else(|| Error::mismatch(value, "a sequence"))?;
        for (index, item) in items.iter().enumerate() {
            let mut read = T::default();
            read.read(item).map_err(|error| error.in_item(index))?;
            self.push(read);
        }
        Ok(())
    }
}

impl<T: Read + Default> Read for BTreeMap<String, T> {
    fn read(&mut self, value: &Value) -> Result<(), Error> {
        let members = value.as_object().ok_or_else(|| Error::mismatch(value, "a map"))?;
        for (name, member) in members {
            let mut read = T::default();
            read.read(member).map_err(|error| error.in_member(name))?;
            self.insert(name.clone(), read);
        }
        Ok(())
    }
}
