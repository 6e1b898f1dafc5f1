//! The XML of manifests: elements, attributes and texts, and nothing else of XML. Entities of a document's own, processing instructions,
//! comments and CDATA are refused: what is signed and what is read must be one and the same.

use std::ops::Range;

use quick_xml::Reader;
use quick_xml::escape::{escape, resolve_xml_entity};
use quick_xml::events::{BytesStart, Event};

use crate::error::ManifestError;

/// Levels of elements; a manifest has five.
const MAX_DEPTH: usize = 8;
/// Most elements: three for each part, and then some.
const MAX_ELEMENTS: usize = 4 * super::MAX_PARTS + 1_000;

/// An element.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Element {
    pub(super) name: String,
    pub(super) attributes: Vec<(String, String)>,
    pub(super) children: Vec<Element>,
    /// Of an element without elements; else white space.
    pub(super) text: String,
    /// Its bytes in the document, from `<` to `>`.
    pub(super) range: Range<usize>,
}

impl Element {
    pub(super) fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, v)| v.as_str())
    }

    /// As a writer has it that adds no white space, escapes what must be, and writes empty elements with two tags.
    pub(super) fn canonical(&self) -> String {
        let mut out = String::new();
        self.write(&mut out);
        out
    }

    fn write(&self, out: &mut String) {
        let attributes: Vec<(&str, &str)> = self
            .attributes
            .iter()
            .map(|(n, v)| (n.as_str(), v.as_str()))
            .collect();
        if self.children.is_empty() {
            leaf(out, &self.name, &attributes, &self.text);
            return;
        }
        open(out, &self.name, &attributes);
        for child in &self.children {
            child.write(out);
        }
        out.push_str(&format!("</{}>", self.name));
    }
}

fn open(out: &mut String, name: &str, attributes: &[(&str, &str)]) {
    out.push('<');
    out.push_str(name);
    for (name, value) in attributes {
        out.push_str(&format!(" {name}=\"{}\"", escape(*value)));
    }
    out.push('>');
}

/// Writes an element with a text.
pub(super) fn leaf(out: &mut String, name: &str, attributes: &[(&str, &str)], text: &str) {
    open(out, name, attributes);
    out.push_str(&escape(text));
    out.push_str(&format!("</{name}>"));
}

/// Reads a document.
pub(super) fn parse(text: &str) -> Result<Element, ManifestError> {
    let mut reader = Reader::from_str(text);
    let mut open: Vec<Element> = Vec::new();
    let mut root = None;
    let mut elements = 0;
    loop {
        let at = reader.buffer_position();
        let problem = |problem: String| ManifestError::Xml { at, problem };
        let start = usize::try_from(at).unwrap_or(usize::MAX);
        let event = reader.read_event().map_err(|e| problem(e.to_string()))?;
        let end = usize::try_from(reader.buffer_position()).unwrap_or(usize::MAX);
        let mut closed = None;
        match event {
            Event::Start(tag) => {
                if open.len() == MAX_DEPTH {
                    return Err(problem(format!("nested beyond {MAX_DEPTH} levels")));
                }
                elements += 1;
                open.push(element(&tag, start..end).map_err(problem)?);
            }
            Event::Empty(tag) => {
                elements += 1;
                closed = Some(element(&tag, start..end).map_err(problem)?);
            }
            Event::End(_) => {
                closed = open.pop().map(|mut element| {
                    element.range.end = end;
                    element
                });
            }
            Event::Text(content) => {
                let content = content.xml10_content();
                append(&mut open, &content).map_err(problem)?;
            }
            Event::GeneralRef(entity) => {
                let name = entity.xml10_content();
                let content = match entity.resolve_char_ref() {
                    Ok(Some(c)) => c.to_string(),
                    Ok(None) => resolve_xml_entity(&name)
                        .ok_or_else(|| {
                            problem(format!("the entity {:?}", crate::error::shorten(&name)))
                        })?
                        .to_owned(),
                    Err(e) => return Err(problem(e.to_string())),
                };
                append(&mut open, &content).map_err(problem)?;
            }
            Event::Decl(_) if start == 0 => {}
            Event::Eof => break,
            Event::Decl(_)
            | Event::PI(_)
            | Event::DocType(_)
            | Event::Comment(_)
            | Event::CData(_) => {
                return Err(problem(
                    "a document type, instruction, comment or CDATA, which manifests do not have"
                        .to_owned(),
                ));
            }
        }
        if elements > MAX_ELEMENTS {
            return Err(problem(format!("more than {MAX_ELEMENTS} elements")));
        }
        let Some(element) = closed else { continue };
        match open.last_mut() {
            Some(parent) if parent.text.trim().is_empty() => parent.children.push(element),
            Some(_) => return Err(problem("elements beside a text".to_owned())),
            None if root.is_none() => root = Some(element),
            None => return Err(problem("a second root".to_owned())),
        }
    }
    match root {
        Some(root) if open.is_empty() => Ok(root),
        _ => Err(ManifestError::Xml {
            at: reader.buffer_position(),
            problem: "it ends early".to_owned(),
        }),
    }
}

fn append(open: &mut [Element], content: &str) -> Result<(), String> {
    let white = content.trim().is_empty();
    match open.last_mut() {
        Some(element) if white || element.children.is_empty() => element.text.push_str(content),
        None if white => {}
        _ => return Err("a text beside elements".to_owned()),
    }
    Ok(())
}

fn element(tag: &BytesStart<'_>, range: Range<usize>) -> Result<Element, String> {
    let mut attributes: Vec<(String, String)> = Vec::new();
    for attribute in tag.attributes() {
        let attribute = attribute.map_err(|e| e.to_string())?;
        let value = attribute
            .normalized_value(quick_xml::XmlVersion::Implicit1_0)
            .map_err(|e| e.to_string())?;
        attributes.push((attribute.key.as_ref().to_owned(), value.into_owned()));
    }
    Ok(Element {
        name: tag.name().as_ref().to_owned(),
        attributes,
        range,
        ..Element::default()
    })
}
