//! Shapes of JSON values, as JSON Schema 2020-12 writes them, which OpenAPI 3.1 takes.

use serde_json::{Map, Value, json};

/// Exactly what [`ccn_message::ItemHash::parse`] takes: a sha256, a CIDv0 or a CIDv1. The end-to-end tests try both.
const HASH: &str = "^([0-9a-f]{64}|Qm[1-9A-HJ-NP-Za-km-z]{42,44}|bafy[a-z2-7]{55})$";

/// The shape of a value.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::api) struct Shape {
    schema: Map<String, Value>,
    /// False for a member that an object may lack.
    is_required: bool,
}

impl Shape {
    fn of(schema: Value) -> Self {
        let schema = if let Value::Object(schema) = schema { schema } else { Map::new() };
        Self { schema, is_required: true }
    }

    fn kind(name: &str) -> Self {
        Self::of(json!({"type": name}))
    }

    pub(in crate::api) fn text() -> Self {
        Self::kind("string")
    }

    pub(in crate::api) fn number() -> Self {
        Self::kind("number")
    }

    pub(in crate::api) fn integer() -> Self {
        Self::kind("integer")
    }

    /// A whole number from 0 on.
    pub(in crate::api) fn whole() -> Self {
        Self::integer().with("minimum", 0)
    }

    pub(in crate::api) fn flag() -> Self {
        Self::kind("boolean")
    }

    /// Any JSON value.
    pub(in crate::api) fn anything() -> Self {
        Self::of(json!({}))
    }

    /// An object of which nothing more is said.
    pub(in crate::api) fn any_object() -> Self {
        Self::kind("object")
    }

    /// The hash of a message or a file.
    pub(in crate::api) fn hash() -> Self {
        Self::text().with("pattern", HASH)
    }

    /// A moment as text, RFC 3339.
    pub(in crate::api) fn moment() -> Self {
        Self::text().with("format", "date-time")
    }

    pub(in crate::api) fn words(words: &[&str]) -> Self {
        Self::text().with("enum", words)
    }

    pub(in crate::api) fn list(of: Self) -> Self {
        Self::kind("array").with("items", of.schema())
    }

    /// An object whose members, of any name, have one shape.
    pub(in crate::api) fn map(of: Self) -> Self {
        Self::kind("object").with("additionalProperties", of.schema())
    }

    /// An object with these members and no others.
    pub(in crate::api) fn object<const N: usize>(members: [(&str, Self); N]) -> Self {
        Self::open_object(members).with("additionalProperties", false)
    }

    /// An object that may have more than these.
    pub(in crate::api) fn open_object<const N: usize>(members: [(&str, Self); N]) -> Self {
        let required: Vec<&str> =
            members.iter().filter(|(_, shape)| shape.is_required).map(|(name, _)| *name).collect();
        let properties = members.iter().map(|(name, shape)| ((*name).to_owned(), shape.schema()));
        let properties: Map<String, Value> = properties.collect();
        Self::of(json!({"type": "object", "properties": properties, "required": required}))
    }

    /// An object of that shape with these members, too.
    pub(in crate::api) fn and<const N: usize>(mut self, members: [(&str, Self); N]) -> Self {
        for (name, shape) in members {
            if let Some(Value::Object(properties)) = self.schema.get_mut("properties") {
                properties.insert(name.to_owned(), shape.schema());
            }
            if let Some(Value::Array(required)) = self.schema.get_mut("required")
                && shape.is_required
            {
                required.push(name.into());
            }
        }
        self
    }

    /// One of several.
    pub(in crate::api) fn any_of<const N: usize>(shapes: [Self; N]) -> Self {
        let shapes: Vec<Value> = shapes.iter().map(Self::schema).collect();
        Self::of(json!({"anyOf": shapes}))
    }

    /// A shape that the document names.
    pub(in crate::api) fn named(name: &str) -> Self {
        Self::of(json!({"$ref": format!("#/components/schemas/{name}")}))
    }

    /// With another word of JSON Schema.
    pub(in crate::api) fn with(mut self, word: &str, value: impl Into<ShapeWord>) -> Self {
        self.schema.insert(word.to_owned(), value.into().0);
        self
    }

    /// With a sentence for people.
    pub(in crate::api) fn about(self, sentence: &str) -> Self {
        self.with("description", sentence)
    }

    /// A member that may be left out.
    pub(in crate::api) fn optional(self) -> Self {
        Self { is_required: false, ..self }
    }

    /// Or nothing.
    pub(in crate::api) fn or_null(mut self) -> Self {
        let is_required = self.is_required;
        if let Some(Value::String(kind)) = self.schema.get("type")
            && !self.schema.contains_key("enum")
        {
            let kinds = json!([kind, "null"]);
            self.schema.insert("type".to_owned(), kinds);
            return self;
        }
        Self { is_required, ..Self::any_of([self, Self::kind("null")]) }
    }

    /// As JSON Schema.
    pub(in crate::api) fn schema(&self) -> Value {
        Value::Object(self.schema.clone())
    }
}

/// The value of a word of JSON Schema.
pub(in crate::api) struct ShapeWord(Value);

macro_rules! words_of {
    ($($kind:ty),*) => {
        $(impl From<$kind> for ShapeWord {
            fn from(value: $kind) -> Self {
                Self(json!(value))
            }
        })*
    };
}

words_of!(&str, bool, i32, u64, usize, Value, &[&str]);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_schemas() {
        let shape = Shape::object([("a", Shape::whole()), ("b", Shape::text().or_null().optional())]);
        let expect = json!({"type": "object", "additionalProperties": false, "required": ["a"],
            "properties": {"a": {"type": "integer", "minimum": 0}, "b": {"type": ["string", "null"]}}});
        assert_eq!(shape.schema(), expect);
        let more = shape.and([("c", Shape::list(Shape::named("Message")))]).schema();
        assert_eq!(
            (&more["required"], &more["properties"]["c"]["items"]["$ref"]),
            (&json!(["a", "c"]), &json!("#/components/schemas/Message"))
        );
        assert_eq!(Shape::words(&["x"]).or_null().schema()["anyOf"][1], json!({"type": "null"}));
    }
}
