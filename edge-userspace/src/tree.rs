//! Trees as text, for people to read.

/// A line with the lines below it.
pub(crate) struct Branch {
    line: String,
    below: Vec<Self>,
}

impl Branch {
    pub(crate) fn new(line: impl Into<String>, below: Vec<Self>) -> Self {
        let line = line.into();
        Self { line, below }
    }

    pub(crate) fn leaf(line: impl Into<String>) -> Self {
        Self::new(line, vec![])
    }

    /// Adds the lines of the tree to a text; `indent` stands before those below this one.
    fn write(&self, out: &mut String, indent: &str) {
        out.push_str(&self.line);
        out.push('\n');
        for (number, branch) in (1..).zip(&self.below) {
            let is_last = number == self.below.len();
            let (joint, beside) = if is_last {
                ("└─ ", "   ")
            } else {
                ("├─ ", "│  ")
            };
            out.push_str(indent);
            out.push_str(joint);
            branch.write(out, &format!("{indent}{beside}"));
        }
    }
}

/// Each root with the lines below it.
pub(crate) fn render(roots: &[Branch]) -> String {
    let mut out = String::new();
    roots.iter().for_each(|root| root.write(&mut out, ""));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_one_branch_hang_together() {
        let inner = |name: &str| Branch::new(name, vec![Branch::leaf("x"), Branch::leaf("y")]);
        let tree = render(&[
            Branch::new("root", vec![inner("a"), inner("b")]),
            Branch::leaf("other"),
        ]);
        let expected = "root\n├─ a\n│  ├─ x\n│  └─ y\n└─ b\n   ├─ x\n   └─ y\nother\n";
        assert_eq!(tree, expected);
    }
}
