//! Puts a [`Node`] tree together from the events of a reader, and keeps the limits.

use std::collections::BTreeMap;

use amiforge_types::{Diagnostic, Diagnostics, Position, Span};

use crate::node::{Key, Node, NodeKind, Scalar, Style};

/// How deep lists and mappings may nest.
pub const MAX_DEPTH: usize = 64;
/// How many values a document may have, those that aliases repeat counted each time.
pub const MAX_NODES: usize = 200_000;
/// How many bytes of text aliases may repeat in all.
pub const MAX_ALIASED_BYTES: usize = 4 << 20;
/// How many problems with keys are reported; more say nothing new.
const MAX_KEY_PROBLEMS: usize = 20;

/// A problem was reported after which reading makes no sense.
pub(crate) struct Stop;

/// A list or mapping whose end has not come yet.
struct Frame {
    span: Span,
    anchor: usize,
    tag: Option<String>,
    /// Values inside, this one counted; bytes of text inside.
    nodes: usize,
    bytes: usize,
    content: Content,
}

pub(crate) enum Content {
    Seq(Vec<Node>),
    Map {
        fields: Vec<(Key, Node)>,
        places: BTreeMap<String, Position>,
        key: Pending,
    },
}

impl Content {
    pub(crate) fn seq() -> Self {
        Self::Seq(Vec::new())
    }

    pub(crate) fn map() -> Self {
        Self::Map {
            fields: Vec::new(),
            places: BTreeMap::new(),
            key: Pending::Key,
        }
    }
}

/// What a mapping expects next.
pub(crate) enum Pending {
    Key,
    Value(Key),
    /// The value of a key that was refused; dropped.
    Refused,
}

/// What an alias repeats.
struct Anchored {
    node: Node,
    nodes: usize,
    bytes: usize,
}

/// Takes events in document order; anchors are numbers from 1, 0 is none.
pub(crate) struct Builder<'d> {
    diags: &'d mut Diagnostics,
    frames: Vec<Frame>,
    anchors: BTreeMap<usize, Anchored>,
    root: Option<Node>,
    nodes: usize,
    aliased: usize,
    key_problems: usize,
}

impl<'d> Builder<'d> {
    pub(crate) fn new(diags: &'d mut Diagnostics) -> Self {
        Self {
            diags,
            frames: Vec::new(),
            anchors: BTreeMap::new(),
            root: None,
            nodes: 0,
            aliased: 0,
            key_problems: 0,
        }
    }

    /// The finished tree.
    pub(crate) fn finish(self) -> Option<Node> {
        self.root
    }

    pub(crate) fn stop<T>(&mut self, problem: Diagnostic) -> Result<T, Stop> {
        self.diags.push(problem);
        Err(Stop)
    }

    pub(crate) fn scalar(
        &mut self,
        scalar: Scalar,
        span: Span,
        anchor: usize,
        tag: Option<String>,
    ) -> Result<(), Stop> {
        let bytes = scalar.text.len();
        self.count(1, span)?;
        self.put(
            Node {
                span,
                kind: NodeKind::Scalar(scalar),
                tag,
            },
            anchor,
            1,
            bytes,
        );
        Ok(())
    }

    pub(crate) fn open(
        &mut self,
        content: Content,
        span: Span,
        anchor: usize,
        tag: Option<String>,
    ) -> Result<(), Stop> {
        self.refuse_as_key(span)?;
        if self.frames.len() >= MAX_DEPTH {
            return self.too_deep(span);
        }
        self.count(1, span)?;
        self.frames.push(Frame {
            span,
            anchor,
            tag,
            nodes: 1,
            bytes: 0,
            content,
        });
        Ok(())
    }

    pub(crate) fn too_deep<T>(&mut self, span: Span) -> Result<T, Stop> {
        let message = format!("lists and mappings nest deeper than {MAX_DEPTH} levels");
        self.stop(Diagnostic::error("nested-too-deep", span, message))
    }

    pub(crate) fn close(&mut self) {
        let Some(frame) = self.frames.pop() else {
            return;
        };
        let (kind, first) = match frame.content {
            Content::Seq(items) => {
                let first = items.first().map(|n| n.span);
                (NodeKind::Seq(items), first)
            }
            Content::Map { fields, .. } => {
                let first = fields.first().map(|(k, _)| k.span);
                (NodeKind::Map(fields), first)
            }
        };
        // A list or mapping is shown by its opening bracket, or by its first item or key.
        let span = if frame.span.start == frame.span.end {
            first.unwrap_or(frame.span)
        } else {
            frame.span
        };
        self.put(
            Node {
                span,
                kind,
                tag: frame.tag,
            },
            frame.anchor,
            frame.nodes,
            frame.bytes,
        );
    }

    pub(crate) fn alias(&mut self, anchor: usize, span: Span) -> Result<(), Stop> {
        self.refuse_as_key(span)?;
        let Some(anchored) = self.anchors.get(&anchor) else {
            let message = "this alias stands inside the value that it names";
            return self.stop(Diagnostic::error("recursive-alias", span, message));
        };
        let (nodes, bytes) = (anchored.nodes, anchored.bytes);
        self.aliased += bytes;
        if self.nodes + nodes > MAX_NODES || self.aliased > MAX_ALIASED_BYTES {
            let message = format!(
                "aliases repeat too much: at most {MAX_NODES} values and {MAX_ALIASED_BYTES} bytes in all"
            );
            return self.stop(Diagnostic::error("alias-limit", span, message));
        }
        self.nodes += nodes;
        if self.frames.len() + depth_of(&anchored.node) > MAX_DEPTH {
            return self.too_deep(span);
        }
        let node = Node {
            span,
            ..anchored.node.clone()
        };
        self.put(node, 0, nodes, bytes);
        Ok(())
    }

    /// Only text can be a key; everything else stops the reading.
    fn refuse_as_key(&mut self, span: Span) -> Result<(), Stop> {
        if let Some(Frame {
            content: Content::Map {
                key: Pending::Key, ..
            },
            ..
        }) = self.frames.last()
        {
            let message = "a key must be text, not a list, a mapping or an alias";
            let problem = Diagnostic::error("complex-key", span, message);
            return self
                .stop(problem.with_help("a value that starts with `{{` needs quotes around it"));
        }
        Ok(())
    }

    /// Counts values against the budget.
    fn count(&mut self, nodes: usize, span: Span) -> Result<(), Stop> {
        self.nodes += nodes;
        if self.nodes > MAX_NODES {
            let message = format!("the document has more than {MAX_NODES} values");
            return self.stop(Diagnostic::error("document-too-large", span, message));
        }
        Ok(())
    }

    /// Puts a complete value where it belongs.
    fn put(&mut self, node: Node, anchor: usize, nodes: usize, bytes: usize) {
        if anchor != 0 {
            self.anchors.insert(
                anchor,
                Anchored {
                    node: node.clone(),
                    nodes,
                    bytes,
                },
            );
        }
        let Some(frame) = self.frames.last_mut() else {
            self.root = Some(node);
            return;
        };
        frame.nodes += nodes;
        frame.bytes += bytes;
        match &mut frame.content {
            Content::Seq(items) => items.push(node),
            Content::Map {
                fields,
                places,
                key,
            } => match std::mem::replace(key, Pending::Key) {
                Pending::Value(key) => fields.push((key, node)),
                Pending::Refused => {}
                Pending::Key => match take_key(node, places) {
                    Ok(taken) => *key = Pending::Value(taken),
                    Err(problem) => {
                        *key = Pending::Refused;
                        self.key_problems += 1;
                        if self.key_problems <= MAX_KEY_PROBLEMS {
                            self.diags.push(problem);
                        }
                    }
                },
            },
        }
    }
}

fn take_key(node: Node, places: &mut BTreeMap<String, Position>) -> Result<Key, Diagnostic> {
    let span = node.span;
    let NodeKind::Scalar(Scalar { text, style }) = node.kind else {
        return Err(Diagnostic::error("complex-key", span, "a key must be text"));
    };
    if text == "<<" && style == Style::Plain {
        let problem = Diagnostic::error("merge-key", span, "merge keys (`<<`) are not read");
        return Err(problem.with_help("write the fields out, or alias the whole value"));
    }
    if let Some(first) = places.get(&text) {
        let shown = crate::decode::shown(&text);
        let message = format!(
            "the key {shown} is already set in line {}, column {}",
            first.line, first.column
        );
        let problem = Diagnostic::error("duplicate-key", span, message);
        return Err(problem.with_help("remove one of the two"));
    }
    places.insert(text.clone(), span.start);
    Ok(Key { text, span })
}

/// Levels of lists and mappings, this one counted.
fn depth_of(node: &Node) -> usize {
    match &node.kind {
        NodeKind::Scalar(_) => 0,
        NodeKind::Seq(items) => 1 + items.iter().map(depth_of).max().unwrap_or(0),
        NodeKind::Map(fields) => 1 + fields.iter().map(|(_, n)| depth_of(n)).max().unwrap_or(0),
    }
}
