//! Files of address prefixes, one a line, as block lists are published.

use edge_model::Prefix;

use crate::{Problem, Severity};

/// Most lines that are reported as wrong: a file of another kind would report them all.
const MAX_PROBLEMS: usize = 5;

/// Reads a file of prefixes: an address or prefix at the beginning of a line; `#` and `;` begin a comment. `file` is
/// only what problems call it.
pub fn parse_prefixes(file: &str, text: &str, problems: &mut Vec<Problem>) -> Vec<Prefix> {
    let mut wrong = 0;
    let mut prefixes = vec![];
    for (line, content) in (1..).zip(text.lines()) {
        let entry = content.split(['#', ';']).next().unwrap_or_default().trim();
        if entry.is_empty() {
            continue;
        }
        match entry.parse() {
            Ok(prefix) => prefixes.push(prefix),
            Err(error) => {
                wrong += 1;
                if wrong <= MAX_PROBLEMS {
                    problems.push(problem(file, line, entry, &error));
                }
            }
        }
    }
    prefixes
}

fn problem(file: &str, line: usize, entry: &str, error: &edge_model::NotAPrefix) -> Problem {
    let shown: String = entry.chars().take(64).collect();
    Problem {
        severity: Severity::Error,
        object: None,
        file: file.to_owned(),
        line,
        field: String::new(),
        message: format!("{shown:?} {error}"),
        hint: "write one address or prefix a line; # and ; begin a comment".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_published_list_is_read_and_wrong_lines_are_named() {
        let text = "; Spamhaus DROP\n1.10.16.0/20 ; SBL256894\n\n# ours\n 192.0.2.7\t# a host\n2001:db8::/32\nnonsense\n10.0.0.0/33\n";
        let mut problems = vec![];
        let prefixes = parse_prefixes("drop.txt", text, &mut problems);
        let texts: Vec<_> = prefixes.iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["1.10.16.0/20", "192.0.2.7", "2001:db8::/32"]);
        let lines: Vec<_> = problems.iter().map(|problem| problem.line).collect();
        assert_eq!(lines, [7, 8]);
        assert!(
            problems[0]
                .message
                .starts_with("\"nonsense\" is no address or prefix")
        );
    }

    #[test]
    fn a_file_of_another_kind_is_not_reported_line_by_line() {
        let mut problems = vec![];
        parse_prefixes("binary", &"garbage\n".repeat(1000), &mut problems);
        assert_eq!(problems.len(), MAX_PROBLEMS);
    }
}
