//! Values that differ between nodes: declared in a release, given by labels or rules, filled in by the hub for each node.

use crate::NodeId;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The most variables of a release.
pub const MAX_VARIABLES: usize = 256;
/// The most rules that give values to nodes.
pub const MAX_VALUE_RULES: usize = 1_000;

/// A declared value. `${variables.NAME}` in a release stands for it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Variable {
    /// What it may be.
    #[serde(rename = "type", default, skip_serializing_if = "is_default")]
    pub kind: VariableKind,
    /// What it is for, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// What it is where nothing else says; a node for which nothing says it cannot be given the release where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<Value>,
    /// Where its value comes from, over `default`: `node.name` or `node.labels.KEY`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The least number, or the least length of a text in characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<f64>,
    /// The greatest number, or the greatest length of a text in characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<f64>,
    /// A regular expression that the whole text must match.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pattern: Option<String>,
    /// What an `enum` may be.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
}

// serde hands a reference.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_default(kind: &VariableKind) -> bool {
    *kind == VariableKind::default()
}

/// What a variable may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VariableKind {
    /// Text.
    #[default]
    String,
    /// A whole number, from -2^53 to 2^53, which every JSON reader holds exactly.
    Integer,
    /// Any number.
    Number,
    /// `true` or `false`.
    Boolean,
    /// One of `options`.
    Enum,
}

/// Values for some nodes; of several rules that fit a node, the last one wins, variable by variable.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ValueRule {
    /// For the node of this name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeId>,
    /// For nodes with these labels: `site=berlin,tier!=test`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// The values by variable.
    pub set: Map<String, Value>,
}
