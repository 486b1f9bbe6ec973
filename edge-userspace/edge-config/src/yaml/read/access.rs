//! Lists, maps and structs on their way into a shape.

use std::borrow::Cow;

use serde::de::value::{CowStrDeserializer, StrDeserializer};
use serde::de::{DeserializeSeed, IntoDeserializer, MapAccess, SeqAccess};
use serde_yaml::{Mapping, Value, mapping};

use super::error::ReadError;
use super::node::{Node, Path, key_text};

/// Elements of a list.
pub(super) struct Elements<'p, 'de> {
    node: Node<'p, 'de>,
    elements: std::iter::Enumerate<std::slice::Iter<'de, Value>>,
}

impl<'p, 'de> Elements<'p, 'de> {
    pub(super) fn new(node: Node<'p, 'de>, elements: &'de [Value]) -> Self {
        Self {
            node,
            elements: elements.iter().enumerate(),
        }
    }
}

impl<'de> SeqAccess<'de> for Elements<'_, 'de> {
    type Error = ReadError;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, ReadError> {
        let reading = self.node.reading;
        for (index, value) in self.elements.by_ref() {
            let path = Path::Index(self.node.path, index);
            if !reading.leaves_out(&path) {
                let node = Node {
                    value,
                    path: &path,
                    reading,
                };
                return seed.deserialize(node).map(Some).map_err(|error| error.at(&path));
            }
        }
        Ok(None)
    }
}

/// Entries of a map whose keys are the user's.
pub(super) struct Entries<'p, 'de> {
    node: Node<'p, 'de>,
    entries: mapping::Iter<'de>,
    value: Option<(Cow<'de, str>, &'de Value)>,
}

impl<'p, 'de> Entries<'p, 'de> {
    pub(super) fn new(node: Node<'p, 'de>, map: &'de Mapping) -> Self {
        Self {
            node,
            entries: map.iter(),
            value: None,
        }
    }
}

impl<'de> MapAccess<'de> for Entries<'_, 'de> {
    type Error = ReadError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, ReadError> {
        for (key, value) in self.entries.by_ref() {
            let key = key_text(key);
            if !self.node.reading.leaves_out(&Path::Key(self.node.path, &key)) {
                self.value = Some((key.clone(), value));
                let key: CowStrDeserializer<'_, ReadError> = key.into_deserializer();
                return seed.deserialize(key).map(Some);
            }
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, ReadError> {
        read_value(self.node, self.value.take(), seed)
    }
}

/// Entries of a map whose keys are the fields of a struct. Those that are `null` or unknown are passed over.
pub(super) struct Fields<'p, 'de> {
    node: Node<'p, 'de>,
    fields: &'static [&'static str],
    entries: Option<mapping::Iter<'de>>,
    value: Option<(Cow<'de, str>, &'de Value)>,
}

impl<'p, 'de> Fields<'p, 'de> {
    /// `None` stands for a struct without any field.
    pub(super) fn new(
        node: Node<'p, 'de>,
        fields: &'static [&'static str],
        map: Option<&'de Mapping>,
    ) -> Self {
        Self {
            node,
            fields,
            entries: map.map(Mapping::iter),
            value: None,
        }
    }
}

impl<'de> MapAccess<'de> for Fields<'_, 'de> {
    type Error = ReadError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, ReadError> {
        for (key, value) in self.entries.iter_mut().flatten() {
            let key = key_text(key);
            let Some(field) = self.node.field_of(&key, self.fields) else {
                continue;
            };
            let left_out = self.node.reading.leaves_out(&Path::Key(self.node.path, &key));
            if !left_out && !value.is_null() {
                self.value = Some((key, value));
                let field: StrDeserializer<'_, ReadError> = field.into_deserializer();
                return seed.deserialize(field).map(Some);
            }
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, ReadError> {
        read_value(self.node, self.value.take(), seed)
    }
}

fn read_value<'de, V: DeserializeSeed<'de>>(
    node: Node<'_, 'de>,
    entry: Option<(Cow<'de, str>, &'de Value)>,
    seed: V,
) -> Result<V::Value, ReadError> {
    let (key, value) =
        entry.ok_or_else(|| ReadError::new("a value was asked for before its key", "report this"))?;
    let path = Path::Key(node.path, &key);
    let value = Node {
        value,
        path: &path,
        reading: node.reading,
    };
    seed.deserialize(value).map_err(|error| error.at(&path))
}
