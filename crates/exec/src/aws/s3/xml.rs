//! The XML that S3 answers with: texts by the path of their elements. No entity of a document's own is
//! known, nothing is nested beyond a few levels, and the caller bounds the bytes.

use quick_xml::Reader;
use quick_xml::escape::resolve_xml_entity;
use quick_xml::events::Event;

/// Levels of elements; S3 needs four.
const MAX_DEPTH: usize = 8;

/// Why an answer cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum XmlError {
    #[error("the answer is not text")]
    NotText,
    #[error("the answer is no XML: {0}")]
    Syntax(String),
    #[error("the answer declares or uses entities of its own")]
    Entity,
    #[error("the answer is nested beyond {MAX_DEPTH} levels")]
    Depth,
}

/// Calls `found` for every element without elements in it, with names from the root on, joined by `/`,
/// and for the end of those with elements, without text.
pub(crate) fn walk(xml: &[u8], mut found: impl FnMut(&str, Option<&str>)) -> Result<(), XmlError> {
    let text = std::str::from_utf8(xml).map_err(|_| XmlError::NotText)?;
    let mut reader = Reader::from_str(text);
    let mut path: Vec<String> = Vec::new();
    let mut content = String::new();
    let mut leaf = false;
    loop {
        match reader
            .read_event()
            .map_err(|e| XmlError::Syntax(e.to_string()))?
        {
            Event::Start(start) => {
                if path.len() >= MAX_DEPTH {
                    return Err(XmlError::Depth);
                }
                path.push(start.local_name().as_ref().to_owned());
                content.clear();
                leaf = true;
            }
            Event::Empty(start) => {
                let name = start.local_name().as_ref().to_owned();
                found(&joined(&path, &name), Some(""));
            }
            Event::Text(text) => content.push_str(&text.xml10_content()),
            Event::CData(text) => content.push_str(&text.xml10_content()),
            Event::GeneralRef(entity) => {
                let name = entity.xml10_content();
                match entity.resolve_char_ref() {
                    Ok(Some(c)) => content.push(c),
                    Ok(None) => {
                        content.push_str(resolve_xml_entity(&name).ok_or(XmlError::Entity)?)
                    }
                    Err(e) => return Err(XmlError::Syntax(e.to_string())),
                }
            }
            Event::DocType(_) => return Err(XmlError::Entity),
            Event::End(_) => {
                let whole = path.join("/");
                found(&whole, leaf.then_some(content.as_str()));
                path.pop();
                content.clear();
                leaf = false;
            }
            Event::Eof if path.is_empty() => return Ok(()),
            Event::Eof => return Err(XmlError::Syntax("it ends early".to_owned())),
            Event::Comment(_) | Event::Decl(_) | Event::PI(_) => {}
        }
    }
}

fn joined(path: &[String], name: &str) -> String {
    match path.is_empty() {
        true => name.to_owned(),
        false => format!("{}/{name}", path.join("/")),
    }
}

/// The texts of some elements, each by its path; empty when it is not there.
pub(crate) fn texts<const N: usize>(xml: &[u8], names: [&str; N]) -> Result<[String; N], XmlError> {
    let mut all = names.map(|_| String::new());
    walk(xml, |path, text| {
        let at = names.iter().position(|name| *name == path);
        if let (Some(slot), Some(text)) = (at.and_then(|at| all.get_mut(at)), text) {
            text.clone_into(slot);
        }
    })?;
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_found_by_path_with_references_resolved() {
        let xml = b"<?xml version=\"1.0\"?>\n<E xmlns=\"x\"><Code>A&amp;B&#32;&#x263a;</Code>\
            <In><Code>no</Code></In><Empty/><C><![CDATA[<raw>]]></C></E>";
        let found = texts(xml, ["E/Code", "E/Empty", "E/C", "E/None"]).unwrap();
        assert_eq!(found, ["A&B \u{263a}", "", "<raw>", ""]);
    }

    #[test]
    fn bombs_and_nonsense_are_refused() {
        let bomb = b"<!DOCTYPE x [<!ENTITY a \"aaaa\"><!ENTITY b \"&a;&a;\">]><x>&b;</x>";
        let deep = format!("{}{}", "<a>".repeat(100_000), "</a>".repeat(100_000));
        let syntax = XmlError::Syntax(String::new());
        let all: [(&[u8], XmlError); 7] = [
            (bomb, XmlError::Entity),
            (b"<x>&b;</x>", XmlError::Entity),
            (deep.as_bytes(), XmlError::Depth),
            (b"\xff\xfe<x/>", XmlError::NotText),
            (b"<x><y></x>", syntax.clone()),
            (b"<x>", syntax.clone()),
            (b"<x>&#xFFFFFFFF;</x>", syntax),
        ];
        for (xml, expected) in all {
            let error = walk(xml, |_, _| ()).unwrap_err();
            let same = std::mem::discriminant(&error) == std::mem::discriminant(&expected);
            assert!(same, "{error}");
        }
    }
}
