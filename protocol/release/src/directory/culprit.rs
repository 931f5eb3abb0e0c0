//! Which part of a value keeps the whole from being read.
//!
//! In: a value that does not become a `T`. Out: the JSON pointer of the innermost part that is to blame. It is found by leaving parts out
//! and looking whether the complaint goes away, so a type needs no other way of being read for it. Only used once something is wrong.

use serde::de::DeserializeOwned;
use serde_json::Value;

/// The innermost part without which the complaint about `value` is another one, or none; the empty pointer where no part is.
pub(super) fn culprit<T: DeserializeOwned>(value: &Value) -> String {
    let mut pointer = String::new();
    let Err(complaint) = T::deserialize(value).map(drop).map_err(|error| error.to_string()) else {
        return pointer;
    };
    while let Some(below) = parts(value.pointer(&pointer), &pointer)
        .into_iter()
        .find(|below| is_to_blame::<T>(value, below, &complaint))
    {
        pointer = below;
    }
    pointer
}

fn parts(value: Option<&Value>, pointer: &str) -> Vec<String> {
    match value {
        Some(Value::Object(map)) => map
            .keys()
            .map(|key| format!("{pointer}/{}", key.replace('~', "~0").replace('/', "~1")))
            .collect(),
        Some(Value::Array(items)) => (0..items.len())
            .map(|index| format!("{pointer}/{index}"))
            .collect(),
        _ => Vec::new(),
    }
}

fn is_to_blame<T: DeserializeOwned>(whole: &Value, pointer: &str, complaint: &str) -> bool {
    let mut without = whole.clone();
    let Some((above, key)) = pointer.rsplit_once('/') else {
        return false;
    };
    match without.pointer_mut(above) {
        Some(Value::Object(map)) => drop(map.remove(&key.replace("~1", "/").replace("~0", "~"))),
        Some(Value::Array(items)) => drop(key.parse().map(|index: usize| items.remove(index))),
        _ => return false,
    }
    match T::deserialize(&without) {
        Ok(_) => true,
        // Where a field is missing, leaving out another one that must be there changes the words as well.
        Err(error) => !complaint.starts_with("missing field") && error.to_string() != complaint,
    }
}
