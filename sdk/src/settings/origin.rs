use std::fmt;
use std::sync::Arc;

/// The place where a key or a value was written, for errors.
#[derive(Debug, Clone)]
pub(super) enum Origin {
    /// A line of a document, counted from 1.
    Line { document: Arc<str>, line: usize },
    /// An environment variable.
    Variable(Arc<str>),
    /// A value that another deserializer passed on.
    Embedded,
    /// The settings of a backend as a whole.
    Backend(Arc<str>),
}

impl Origin {
    /// Returns the origin at byte `offset` of `text`.
    pub(super) fn at(document: &Arc<str>, text: &str, offset: usize) -> Self {
        let before = text.as_bytes().get(..offset).unwrap_or(text.as_bytes());
        Self::Line {
            document: document.clone(),
            line: 1 + before.iter().filter(|byte| **byte == b'\n').count(),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line { document, line } => write!(f, "{document}, line {line}"),
            Self::Variable(name) => write!(f, "environment variable {name}"),
            Self::Embedded => f.write_str("settings"),
            Self::Backend(name) => write!(f, "settings of the {name} backend"),
        }
    }
}
