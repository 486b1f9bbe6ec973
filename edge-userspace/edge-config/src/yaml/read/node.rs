//! A `serde` deserializer over YAML values that knows where it is.

use std::borrow::Cow;
use std::fmt;

use serde::Deserializer;
use serde::de::value::StrDeserializer;
use serde::de::{IntoDeserializer, Visitor};
use serde_yaml::{Mapping, Value};

use super::access::{Elements, Entries, Fields};
use super::error::ReadError;
use super::{Finding, Reading, UnknownFields};
use crate::Severity;
use crate::yaml::{in_path, nearest};

/// Where a value is, as a chain back to the root.
pub(super) enum Path<'a> {
    Root(&'a str),
    Key(&'a Self, &'a str),
    Index(&'a Self, usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root(path) => f.write_str(path),
            Self::Key(Self::Root(""), key) => f.write_str(in_path(key)),
            Self::Key(parent, key) => write!(f, "{parent}.{}", in_path(key)),
            Self::Index(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

/// One value on its way into a shape.
#[derive(Clone, Copy)]
pub(super) struct Node<'p, 'de> {
    pub(super) value: &'de Value,
    pub(super) path: &'p Path<'p>,
    pub(super) reading: &'p Reading,
}

impl<'de> Node<'_, 'de> {
    fn wrong(&self, needed: impl fmt::Display, hint: &str) -> ReadError {
        ReadError::new(format!("{needed} is needed, not {}", describe(self.value)), hint).at(self.path)
    }

    fn map(&self) -> Result<&'de Mapping, ReadError> {
        let map = self.value.as_mapping();
        map.ok_or_else(|| self.wrong("a map of fields", "indent the fields below their name"))
    }

    fn integer(&self, least: i128, most: i128) -> Result<i128, ReadError> {
        let number = self
            .value
            .as_i64()
            .map(i128::from)
            .or_else(|| self.value.as_u64().map(i128::from));
        // JSON knows no integers: 80.0 is one too.
        let whole = |number: &f64| number.fract() == 0.0 && number.abs() < 1e15;
        let number = number.or_else(|| self.value.as_f64().filter(whole).map(|number| number as i128));
        number
            .filter(|number| (least..=most).contains(number))
            .ok_or_else(|| {
                let quoted = self
                    .value
                    .as_str()
                    .is_some_and(|text| text.parse::<i128>().is_ok());
                let hint = if quoted {
                    "remove the quotes"
                } else {
                    "correct the value"
                };
                self.wrong(format_args!("a whole number from {least} to {most}"), hint)
            })
    }

    fn text(&self) -> Result<&'de str, ReadError> {
        self.value.as_str().ok_or_else(|| {
            let scalar = self.value.is_number() || self.value.is_bool();
            self.wrong(
                "text",
                if scalar {
                    "put it in quotes"
                } else {
                    "correct the value"
                },
            )
        })
    }

    /// The field of the shape that a key in the file stands for.
    pub(super) fn field_of(&self, key: &str, fields: &'static [&'static str]) -> Option<&'static str> {
        let find = |name: &str| fields.iter().copied().find(|field| *field == name);
        if let Some(field) = find(key) {
            return Some(field);
        }
        let style = self.reading.style;
        let field = if style.envoy {
            find(&snake_case(key))
        } else {
            find(&camel_case(key))
        };
        match field {
            None if style.unknown == UnknownFields::Refused && self.reading.has_room(Severity::Error) => {
                self.note(
                    Severity::Error,
                    key,
                    "unknown field".to_owned(),
                    unknown_field_hint(key, fields),
                );
            }
            Some(field) if !style.envoy && self.reading.has_room(Severity::Warning) => {
                let message = format!("{key} is protobuf's spelling of {field}");
                let hint = format!("write {field}: the API server takes no other");
                self.note(Severity::Warning, key, message, hint);
            }
            None | Some(_) => {}
        }
        field
    }

    fn note(&self, severity: Severity, key: &str, message: String, hint: String) {
        let field = Path::Key(self.path, key).to_string();
        self.reading.findings.borrow_mut().push(Finding {
            severity,
            field,
            message,
            hint,
        });
    }
}

fn unknown_field_hint(key: &str, fields: &'static [&'static str]) -> String {
    if let Some(name) = nearest(key, fields.iter().copied()) {
        return format!("did you mean {name}?");
    }
    let mut names = fields.to_vec();
    names.sort_unstable();
    match names.as_slice() {
        [] => "remove it".to_owned(),
        names => format!("its place has the fields {}", names.join(", ")),
    }
}

/// `tokens_per_fill` for `tokensPerFill`.
pub(crate) fn snake_case(name: &str) -> String {
    let mut snake = String::with_capacity(name.len() + 4);
    for c in name.chars() {
        if c.is_ascii_uppercase() {
            snake.push('_');
        }
        snake.push(c.to_ascii_lowercase());
    }
    snake
}

/// `prefixRewrite` for `prefix_rewrite`.
fn camel_case(name: &str) -> String {
    let mut words = name.split('_');
    let mut camel = words.next().unwrap_or_default().to_owned();
    for word in words {
        let mut letters = word.chars();
        camel.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        camel.push_str(letters.as_str());
    }
    camel
}

fn describe(value: &Value) -> Cow<'static, str> {
    match value {
        Value::Null => "null".into(),
        Value::Bool(value) => format!("{value}").into(),
        Value::Number(number) => format!("the number {number}").into(),
        Value::String(_) => "text".into(),
        Value::Sequence(_) => "a list".into(),
        Value::Mapping(_) => "a map".into(),
        Value::Tagged(_) => "a value with a YAML tag".into(),
    }
}

/// A key as JSON would have it: text.
pub(super) fn key_text(key: &Value) -> Cow<'_, str> {
    match key {
        Value::String(text) => text.into(),
        Value::Number(number) => number.to_string().into(),
        Value::Bool(value) => value.to_string().into(),
        Value::Null | Value::Sequence(_) | Value::Mapping(_) | Value::Tagged(_) => {
            format!("({})", describe(key)).into()
        }
    }
}

macro_rules! integers {
    ($($method:ident $visit:ident $type:ty,)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
            let number = self.integer(<$type>::MIN as i128, <$type>::MAX as i128)?;
            // In range: `integer` has just looked.
            visitor.$visit(number as $type).map_err(|error: ReadError| error.at(self.path))
        }
    )*};
}

impl<'de> Deserializer<'de> for Node<'_, 'de> {
    type Error = ReadError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        let result = match self.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Number(number) => match (number.as_u64(), number.as_i64(), number.as_f64()) {
                (Some(number), _, _) => visitor.visit_u64(number),
                (None, Some(number), _) => visitor.visit_i64(number),
                (None, None, Some(number)) => visitor.visit_f64(number),
                (None, None, None) => visitor.visit_unit(),
            },
            Value::String(text) => visitor.visit_str(text),
            Value::Sequence(_) => return self.deserialize_seq(visitor),
            Value::Mapping(_) => return self.deserialize_map(visitor),
            Value::Tagged(_) => Err(self.wrong("plain YAML", "remove the tag (!name)")),
        };
        result.map_err(|error| error.at(self.path))
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match self.value.as_bool() {
            Some(value) => visitor.visit_bool(value),
            None => Err(self.wrong("true or false", "write true or false without quotes")),
        }
    }

    integers! {
        deserialize_u8 visit_u8 u8,
        deserialize_u16 visit_u16 u16,
        deserialize_u32 visit_u32 u32,
        deserialize_u64 visit_u64 u64,
        deserialize_i8 visit_i8 i8,
        deserialize_i16 visit_i16 i16,
        deserialize_i32 visit_i32 i32,
        deserialize_i64 visit_i64 i64,
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        self.deserialize_f64(visitor)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match self.value.as_f64().filter(|number| number.is_finite()) {
            Some(number) => visitor.visit_f64(number),
            None => Err(self.wrong("a number", "correct the value")),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        visitor
            .visit_str(self.text()?)
            .map_err(|error: ReadError| error.at(self.path))
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        if self.value.is_null() {
            visitor.visit_none()
        } else {
            visitor.visit_some(self)
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        visitor
            .visit_newtype_struct(self)
            .map_err(|error: ReadError| error.at(self.path))
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        let Value::Sequence(elements) = self.value else {
            return Err(self.wrong("a list", "begin each element on its own line with a dash"));
        };
        visitor
            .visit_seq(Elements::new(self, elements))
            .map_err(|error: ReadError| error.at(self.path))
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        visitor
            .visit_map(Entries::new(self, self.map()?))
            .map_err(|error: ReadError| error.at(self.path))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        // A null element of a list: Istio reads it as an object without fields.
        let map = if matches!(self.value, Value::Null) {
            None
        } else {
            Some(self.map()?)
        };
        visitor
            .visit_map(Fields::new(self, fields, map))
            .map_err(|error: ReadError| error.at(self.path))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        let name: StrDeserializer<'_, ReadError> = self.text()?.into_deserializer();
        visitor
            .visit_enum(name)
            .map_err(|error: ReadError| error.at(self.path))
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        visitor.visit_unit()
    }

    serde::forward_to_deserialize_any! {
        i128 u128 char bytes byte_buf unit unit_struct tuple tuple_struct identifier
    }
}
