//! What one route does, in words and shapes.

use super::Shape;
use crate::api::parameters::QueryParameter;
use serde_json::{Map, Value, json};

const JSON: &str = "application/json";
/// The name of the shape of errors, and of what the operator shows.
pub(super) const ERROR: &str = "Error";
pub(super) const OPERATOR: &str = "operator";

/// What the server says of itself, before any route is asked, and without a body.
pub(super) const TOO_LONG: &str = "The address is longer than 64 KiB.";

/// What routes are about: the headings of the reference, in its order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::api) enum Group {
    Messages,
    Accounts,
    Files,
    Prices,
    Compute,
    Chains,
    Node,
    Operator,
}

impl Group {
    pub(super) const ALL: [Self; 8] = [
        Self::Messages,
        Self::Accounts,
        Self::Files,
        Self::Prices,
        Self::Compute,
        Self::Chains,
        Self::Node,
        Self::Operator,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Messages => "messages",
            Self::Accounts => "accounts",
            Self::Files => "files",
            Self::Prices => "prices",
            Self::Compute => "compute",
            Self::Chains => "chains",
            Self::Node => "node",
            Self::Operator => "operator",
        }
    }

    pub(super) fn about(self) -> &'static str {
        match self {
            Self::Messages => "Sending messages, and finding them.",
            Self::Accounts => "What addresses have: balances, credits, files, counts.",
            Self::Files => "Files come and go.",
            Self::Prices => "What messages cost, and what they would.",
            Self::Compute => "What runs where.",
            Self::Chains => "How far chains are followed.",
            Self::Node => "What the node is and how it does.",
            Self::Operator => "What only the operator of the node may do.",
        }
    }
}

/// A request and its answers.
#[derive(Debug, Clone)]
pub(in crate::api) struct Operation {
    group: Group,
    summary: &'static str,
    about: Option<String>,
    parameters: Vec<Value>,
    query: Vec<&'static str>,
    body: Option<Value>,
    answers: Map<String, Value>,
    is_operators: bool,
}

impl Operation {
    pub(in crate::api) fn new(group: Group, summary: &'static str) -> Self {
        let mut answers = Map::new();
        answers.insert("5XX".to_owned(), error("The node cannot answer: it is overloaded (503), stops, or failed."));
        Self {
            group,
            summary,
            about: None,
            parameters: Vec::new(),
            query: Vec::new(),
            body: None,
            answers,
            is_operators: false,
        }
    }

    /// More than the summary says.
    pub(in crate::api) fn about(self, about: impl Into<String>) -> Self {
        Self { about: Some(about.into()), ..self }
    }

    /// A part of the path.
    pub(in crate::api) fn path(mut self, name: &str, about: &str, shape: &Shape) -> Self {
        let parameter =
            json!({"name": name, "in": "path", "required": true, "description": about, "schema": shape.schema()});
        self.parameters.push(parameter);
        self.refuses(400, "The path is wrong.")
    }

    /// An address in the path.
    pub(in crate::api) fn address(self) -> Self {
        self.path("address", "An address, spelled as in its messages.", &Shape::text().with("minLength", 1))
    }

    /// The hash of a message or a file in the path.
    pub(in crate::api) fn hash(self, about: &str) -> Self {
        self.path("hash", about, &Shape::hash())
    }

    /// What can be asked for beside the path.
    pub(in crate::api) fn query<const N: usize>(mut self, parameters: [&'static dyn QueryParameter; N]) -> Self {
        self.query.extend(parameters.iter().map(|parameter| parameter.name()));
        self.parameters.extend(parameters.iter().map(|parameter| parameter.described()));
        self.refuses(422, "A parameter is wrong; `field` says which.").answers_empty(414, TOO_LONG)
    }

    /// A header that changes the answer.
    pub(in crate::api) fn header(mut self, name: &str, about: &str) -> Self {
        let schema = Shape::text().schema();
        self.parameters.push(json!({"name": name, "in": "header", "description": about, "schema": schema}));
        self
    }

    /// A body of JSON.
    pub(in crate::api) fn takes(self, shape: &Shape) -> Self {
        self.takes_as(JSON, shape)
    }

    /// A body of that form; of several, any.
    pub(in crate::api) fn takes_as(mut self, form: &str, shape: &Shape) -> Self {
        let body = self.body.get_or_insert_with(|| json!({"required": true, "content": {}}));
        body["content"][form] = json!({"schema": shape.schema()});
        self.refuses(422, "The request is wrong; `field` says where.").refuses(413, "The body is too long.")
    }

    /// Without a body, it is as if there were an empty one.
    pub(in crate::api) fn or_nothing(mut self) -> Self {
        if let Some(body) = &mut self.body {
            body["required"] = false.into();
        }
        self
    }

    /// What comes when all is well.
    pub(in crate::api) fn answers(self, about: &str, shape: &Shape) -> Self {
        self.answers_with(200, about, JSON, shape)
    }

    /// An answer of that status and form.
    pub(in crate::api) fn answers_with(mut self, status: u16, about: &str, form: &str, shape: &Shape) -> Self {
        let answer = json!({"description": about, "content": {form: {"schema": shape.schema()}}});
        self.answers.insert(status.to_string(), answer);
        self
    }

    /// The same answer in another form.
    pub(in crate::api) fn or_in(mut self, status: u16, form: &str, shape: &Shape) -> Self {
        self.answers.entry(status.to_string()).or_insert_with(|| json!({}))["content"][form] =
            json!({"schema": shape.schema()});
        self
    }

    /// An answer without a body.
    pub(in crate::api) fn answers_empty(mut self, status: u16, about: &str) -> Self {
        self.answers.insert(status.to_string(), json!({"description": about}));
        self
    }

    /// An error of that status.
    pub(in crate::api) fn refuses(mut self, status: u16, about: &str) -> Self {
        self.answers.insert(status.to_string(), error(about));
        self
    }

    /// For those who can read the data folder.
    pub(in crate::api) fn for_operator(mut self) -> Self {
        self.is_operators = true;
        self.refuses(401, "The word of the operator is missing.").refuses(403, "The word is wrong.")
    }

    /// The names of what can be asked for beside the path.
    pub(in crate::api) fn query_names(&self) -> &[&'static str] {
        &self.query
    }

    /// As OpenAPI writes it.
    pub(super) fn described(&self, method: &str, path: &str) -> Value {
        let mut answers: Vec<(&String, &Value)> = self.answers.iter().collect();
        answers.sort_unstable_by_key(|(status, _)| *status);
        let answers: Map<String, Value> =
            answers.into_iter().map(|(status, answer)| (status.clone(), answer.clone())).collect();
        let mut described = json!({
            "operationId": id(method, path),
            "tags": [self.group.name()],
            "summary": self.summary,
            "parameters": self.parameters,
            "responses": answers,
        });
        if let Some(about) = &self.about {
            described["description"] = about.as_str().into();
        }
        if let Some(body) = &self.body {
            described["requestBody"] = body.clone();
        }
        if self.is_operators {
            described["security"] = json!([{OPERATOR: []}]);
        }
        described
    }
}

/// An error as every route answers it.
pub(super) fn error(about: &str) -> Value {
    json!({"description": about, "content": {JSON: {"schema": Shape::named(ERROR).schema()}}})
}

/// A name for an operation: its method and its path, in words.
pub(super) fn id(method: &str, path: &str) -> String {
    let words = path.split(|letter: char| !letter.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    std::iter::once(method).chain(words).collect::<Vec<_>>().join("_")
}
