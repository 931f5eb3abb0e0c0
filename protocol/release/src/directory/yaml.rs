//! YAML to JSON as `kubectl` does it, with the place of every document.
//!
//! In: the text of a file with any number of documents. Out: one JSON value and line for each that is not empty, or the line, column
//! and reason why not. Plain scalars are resolved by the rules of go-yaml v2 in `sigs.k8s.io/yaml`, which `kubectl` uses: `yes`, `on` and `y` are
//! booleans and `0644` is octal, as in YAML 1.1. Where kubectl guesses silently, this refuses: duplicate keys, and numbers that JSON cannot hold.
//!
//! Source of the rules: go.yaml.in/yaml/v2 `resolve.go`, sigs.k8s.io/yaml `yaml.go`.

use serde_json::{Map, Number, Value};
use serde_saphyr::granit_parser::{Event, Parser, ScalarStyle, Span, StrInput};
use std::collections::{BTreeMap, HashMap};

/// The most values that one file may grow to, aliases expanded: far above any manifest, far below what hurts.
const MAX_VALUES: usize = 1_000_000;
/// The deepest nesting; Kubernetes itself stops at 10,000 bytes of nesting and no manifest comes near this.
const MAX_DEPTH: usize = 200;

/// One document of a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// Its content.
    pub value: Value,
    /// The line it starts at, from 1.
    pub line: usize,
    /// Its number in the file, from 1.
    pub number: usize,
}

/// Why a text cannot be used, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct YamlError {
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1.
    pub column: usize,
    /// What is wrong.
    pub reason: String,
}

type Result<T> = std::result::Result<T, YamlError>;

/// Where the keys of a document stand: line and column by JSON pointer.
pub type Places = BTreeMap<String, (usize, usize)>;

/// Reads all documents of `text`.
pub fn parse(text: &str) -> Result<Vec<Document>> {
    read(text, None).map(|(documents, _)| documents)
}

/// Reads all documents of `text`, and where the keys and items of the last of them stand.
pub fn parse_with_places(text: &str) -> Result<(Vec<Document>, Places)> {
    read(text, Some(Trace::default()))
}

/// Where the reader is, and what it came by.
#[derive(Default)]
struct Trace {
    pointer: String,
    places: Places,
}

fn read(text: &str, trace: Option<Trace>) -> Result<(Vec<Document>, Places)> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut reader = Reader {
        parser: Parser::new_from_str(text),
        anchors: HashMap::new(),
        values: 0,
        trace,
    };
    let mut documents = Vec::new();
    let mut number = 0;
    while let Some((event, _)) = reader.event()? {
        if !matches!(event, Event::DocumentStart(..)) {
            continue;
        }
        number += 1;
        reader.anchors.clear();
        let Some((event, span)) = reader.event()? else {
            break;
        };
        if matches!(event, Event::DocumentEnd) {
            continue;
        }
        let line = span.start.line();
        let value = reader.value(event, span, 0)?;
        if !value.is_null() {
            documents.push(Document { value, line, number });
        }
    }
    Ok((
        documents,
        reader.trace.map(|trace| trace.places).unwrap_or_default(),
    ))
}

struct Reader<'input> {
    parser: Parser<'input, StrInput<'input>>,
    /// What each anchor stands for, and how many values that is.
    anchors: HashMap<usize, (Value, usize)>,
    values: usize,
    trace: Option<Trace>,
}

fn wrong(span: Span, reason: impl Into<String>) -> YamlError {
    YamlError {
        line: span.start.line(),
        column: span.start.col() + 1,
        reason: reason.into(),
    }
}

impl<'input> Reader<'input> {
    /// The next event that carries content.
    fn event(&mut self) -> Result<Option<(Event<'input>, Span)>> {
        loop {
            match self.parser.next_event() {
                None => return Ok(None),
                Some(Err(error)) => {
                    return Err(YamlError {
                        line: error.marker().line(),
                        column: error.marker().col() + 1,
                        reason: error.info(),
                    });
                }
                Some(Ok((Event::Comment(..), _))) => {}
                Some(Ok(found)) => return Ok(Some(found)),
            }
        }
    }

    fn inner(&mut self, outer: Span) -> Result<(Event<'input>, Span)> {
        self.event()?
            .ok_or_else(|| wrong(outer, "the text ends within this"))
    }

    /// A value below the present one, whose key or item stands at `at`.
    fn below(
        &mut self,
        key: &str,
        at: Span,
        event: Event<'input>,
        span: Span,
        depth: usize,
    ) -> Result<Value> {
        let Some(trace) = &mut self.trace else {
            return self.value(event, span, depth);
        };
        let length = trace.pointer.len();
        trace.pointer.push('/');
        trace.pointer.push_str(&key.replace('~', "~0").replace('/', "~1"));
        let place = (at.start.line(), at.start.col() + 1);
        trace.places.insert(trace.pointer.clone(), place);
        let value = self.value(event, span, depth);
        if let Some(trace) = &mut self.trace {
            trace.pointer.truncate(length);
        }
        value
    }

    fn value(&mut self, event: Event<'input>, span: Span, depth: usize) -> Result<Value> {
        if depth > MAX_DEPTH {
            return Err(wrong(span, format!("nested deeper than {MAX_DEPTH}")));
        }
        let before = self.values;
        self.count(1, span)?;
        let (value, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                let tag = tag
                    .as_ref()
                    .map(|tag| {
                        tag.core_suffix()
                            .ok_or_else(|| wrong(span, format!("the tag {} is not known", tag.original())))
                    })
                    .transpose()?;
                (
                    resolve(&text, style, tag)
                        .map_err(|reason| wrong(span, reason))?
                        .into_value(span)?,
                    anchor,
                )
            }
            Event::SequenceStart(_, anchor, _) => {
                let mut items = Vec::new();
                loop {
                    match self.inner(span)? {
                        (Event::SequenceEnd, _) => break,
                        (event, span) => {
                            let index = items.len().to_string();
                            items.push(self.below(&index, span, event, span, depth + 1)?);
                        }
                    }
                }
                (Value::Array(items), anchor)
            }
            Event::MappingStart(_, anchor, _) => (self.mapping(span, depth)?, anchor),
            Event::Alias(anchor) => {
                let Some((value, count)) = self.anchors.get(&anchor).cloned() else {
                    return Err(wrong(span, "this alias stands within what it names"));
                };
                self.count(count, span)?;
                (value, 0)
            }
            _ => return Err(wrong(span, "a value is missing here")),
        };
        if anchor != 0 {
            self.anchors.insert(anchor, (value.clone(), self.values - before));
        }
        Ok(value)
    }

    fn count(&mut self, more: usize, span: Span) -> Result<()> {
        self.values = self.values.saturating_add(more);
        if self.values > MAX_VALUES {
            return Err(wrong(
                span,
                format!("the file grows to more than {MAX_VALUES} values"),
            ));
        }
        Ok(())
    }

    fn mapping(&mut self, outer: Span, depth: usize) -> Result<Value> {
        let mut map = Map::new();
        let mut merged = Map::new();
        loop {
            let (event, span) = self.inner(outer)?;
            let key = match event {
                Event::MappingEnd => break,
                Event::Scalar(text, ScalarStyle::Plain, _, None) if text == "<<" => {
                    let (event, span) = self.inner(outer)?;
                    merge(&mut merged, self.value(event, span, depth + 1)?, span)?;
                    continue;
                }
                event @ (Event::Scalar(..) | Event::Alias(_)) => match self.value(event, span, depth + 1)? {
                    Value::String(text) => text,
                    Value::Bool(value) => value.to_string(),
                    Value::Number(value) => value.to_string(),
                    _ => return Err(wrong(span, "a key must be text: put it in quotes")),
                },
                _ => return Err(wrong(span, "a key must be text, not a list or a map")),
            };
            let (event, value_span) = self.inner(outer)?;
            let value = self.below(&key, span, event, value_span, depth + 1)?;
            if map.contains_key(&key) {
                return Err(wrong(
                    span,
                    format!("the key {key:?} is there twice; remove one of them"),
                ));
            }
            map.insert(key, value);
        }
        for (key, value) in merged {
            map.entry(key).or_insert(value);
        }
        Ok(Value::Object(map))
    }
}

/// `<<`: takes keys over from a map, or from several, of which the first that has a key wins.
fn merge(into: &mut Map<String, Value>, value: Value, span: Span) -> Result<()> {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                into.entry(key).or_insert(value);
            }
            Ok(())
        }
        Value::Array(items) => items.into_iter().try_for_each(|item| match item {
            item @ Value::Object(_) => merge(into, item, span),
            _ => Err(wrong(span, "<< takes maps only")),
        }),
        _ => Err(wrong(span, "<< takes a map or a list of maps")),
    }
}

/// What a scalar is.
#[derive(Clone, Debug, PartialEq)]
enum Scalar {
    Null,
    Bool(bool),
    Signed(i64),
    Unsigned(u64),
    Float(f64),
    Text(String),
}

impl Scalar {
    fn into_value(self, span: Span) -> Result<Value> {
        Ok(match self {
            Self::Null => Value::Null,
            Self::Bool(value) => Value::Bool(value),
            Self::Signed(value) => Value::from(value),
            Self::Unsigned(value) => Value::from(value),
            // Go writes a float without a fraction as an integer, and Kubernetes wants integers so.
            Self::Float(value) if value.fract() == 0.0 && value.abs() < 9e15 => Value::from(value as i64),
            Self::Float(value) => Value::Number(Number::from_f64(value).ok_or_else(|| {
                wrong(
                    span,
                    "JSON has no such number; put it in quotes if it is meant as text",
                )
            })?),
            Self::Text(text) => Value::String(text),
        })
    }
}

/// Resolves a scalar by its tag, or by its look where it is plain.
fn resolve(text: &str, style: ScalarStyle, tag: Option<&str>) -> std::result::Result<Scalar, String> {
    let plain = style == ScalarStyle::Plain;
    let found = match tag {
        None if plain => look(text),
        None | Some("str") => return Ok(Scalar::Text(text.to_owned())),
        Some(_) => look(text),
    };
    let fits = match (tag, &found) {
        (None | Some("timestamp"), _)
        | (Some("null"), Scalar::Null)
        | (Some("bool"), Scalar::Bool(_))
        | (Some("int"), Scalar::Signed(_) | Scalar::Unsigned(_))
        | (Some("float"), Scalar::Float(_) | Scalar::Signed(_) | Scalar::Unsigned(_)) => true,
        (Some(_), _) => false,
    };
    match (fits, tag) {
        (true, Some("timestamp")) => Ok(Scalar::Text(text.to_owned())),
        (true, _) => Ok(found),
        (false, tag) => Err(format!("{text:?} is no !!{}", tag.unwrap_or_default())),
    }
}

fn look(text: &str) -> Scalar {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Scalar::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
            return Scalar::Bool(true);
        }
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            return Scalar::Bool(false);
        }
        ".nan" | ".NaN" | ".NAN" => return Scalar::Float(f64::NAN),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => return Scalar::Float(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => return Scalar::Float(f64::NEG_INFINITY),
        _ => {}
    }
    let number = match text.as_bytes()[0] {
        b'.' => float(text),
        b'0'..=b'9' | b'+' | b'-' => {
            let text = text.replace('_', "");
            integer(&text).or_else(|| float(&text))
        }
        _ => None,
    };
    number.unwrap_or_else(|| Scalar::Text(text.to_owned()))
}

/// An integer as Go's `strconv.ParseInt` reads it with base 0.
fn integer(text: &str) -> Option<Scalar> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let lower = digits.to_ascii_lowercase();
    let (radix, digits) = if let Some(rest) = lower.strip_prefix("0x") {
        (16, rest)
    } else if let Some(rest) = lower.strip_prefix("0o") {
        (8, rest)
    } else if let Some(rest) = lower.strip_prefix("0b") {
        (2, rest)
    } else if lower.len() > 1 && lower.starts_with('0') {
        (8, &lower[1..])
    } else {
        (10, lower.as_str())
    };
    // The standard library would take a second sign.
    if !digits.bytes().next()?.is_ascii_alphanumeric() {
        return None;
    }
    let magnitude = u64::from_str_radix(digits, radix).ok()?;
    if negative {
        0_i64.checked_sub_unsigned(magnitude).map(Scalar::Signed)
    } else {
        Some(i64::try_from(magnitude).map_or(Scalar::Unsigned(magnitude), Scalar::Signed))
    }
}

/// A float: `[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?`.
fn float(text: &str) -> Option<Scalar> {
    let valid = text
        .bytes()
        .all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'e' | b'E' | b'+' | b'-'));
    let digit = text.bytes().any(|byte| byte.is_ascii_digit());
    let value = (valid && digit).then(|| text.parse::<f64>().ok()).flatten()?;
    value.is_finite().then_some(Scalar::Float(value))
}

#[cfg(test)]
mod tests;
