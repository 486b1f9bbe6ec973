//! A YAML stream cut into its documents, so that a mistake in one does not hide the others.

/// One document with its place in the file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Document<'a> {
    /// Text of the document, without its `---`.
    pub(crate) text: &'a str,
    /// Lines of the file before `text`.
    pub(crate) lines_before: usize,
}

/// Cuts at lines that begin with `---` or `...`. At the beginning of a line they mark a document's end even within
/// block scalars (YAML 1.2.2, 9.1.2).
pub(crate) fn split(text: &str) -> Vec<Document<'_>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut documents = Vec::new();
    let (mut start, mut start_line, mut offset) = (0, 0, 0);
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let after = offset + line.len();
        if is_marker(line) {
            documents.push(Document {
                text: &text[start..offset],
                lines_before: start_line,
            });
            // Content may follow on the marker's own line, as in `--- {kind: Gateway}`.
            (start, start_line) = (offset + 3, number);
        }
        offset = after;
    }
    documents.push(Document {
        text: &text[start..],
        lines_before: start_line,
    });
    documents.retain(|document| !is_blank(document.text));
    documents
}

fn is_marker(line: &str) -> bool {
    let rest = line.strip_prefix("---").or_else(|| line.strip_prefix("..."));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
}

/// Nothing but comments, directives (`%YAML 1.2`) and white space.
fn is_blank(text: &str) -> bool {
    text.lines().all(|line| {
        let line = line.trim();
        line.is_empty() || line.starts_with('#') || line.starts_with('%')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &[(&str, usize)]) {
        let documents: Vec<_> = split(text)
            .iter()
            .map(|d| (d.text.trim(), d.lines_before))
            .collect();
        assert_eq!(documents, expected, "{text:?}");
    }

    #[test]
    fn documents_are_cut_at_their_markers_and_keep_their_lines() {
        check("a: 1\n---\nb: 2\n", &[("a: 1", 0), ("b: 2", 1)]);
        check(
            "---\na: 1\n---\n# none\n---\nb: 2\n...\n",
            &[("a: 1", 0), ("b: 2", 4)],
        );
        check("%YAML 1.2\n--- {a: 1}\n", &[("{a: 1}", 1)]);
        check("a: 1\r\n---\r\nb: 2\r\n", &[("a: 1", 0), ("b: 2", 1)]);
    }

    #[test]
    fn three_dashes_within_a_line_or_word_cut_nothing() {
        check(
            "a: ---\nb: |\n  ---\n---x: 1\n",
            &[("a: ---\nb: |\n  ---\n---x: 1", 0)],
        );
    }

    #[test]
    fn blank_streams_have_no_documents() {
        for text in ["", "\n\n", "---\n---\n", "# only a comment\n", "\u{feff}"] {
            check(text, &[]);
        }
    }
}
