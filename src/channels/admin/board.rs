//! What operators are shown, in parts, and which of them changed when.
//!
//! Pure: no lock, no I/O, no clock. Its invariant: who holds a version and is given what came after it holds every part
//! as it is now; versions only grow, also when the parts are forgotten.

/// The parts of an overview, by name, each as JSON.
pub(super) type Parts = [(&'static str, String); PARTS];
/// How many there are.
pub(super) const PARTS: usize = 5;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Board {
    version: u64,
    /// Nothing where nobody looks.
    parts: Option<[Part; PARTS]>,
}

#[derive(Debug)]
struct Part {
    name: &'static str,
    text: String,
    changed: u64,
}

impl Board {
    /// Takes in what was read: the version that there is now.
    pub(super) fn put(&mut self, parts: Parts) -> u64 {
        let next = self.version + 1;
        let before = self.parts.take();
        let mut any = before.is_none();
        let parts = parts.map(|(name, text)| {
            let known = before.iter().flatten().find(|part| part.name == name && part.text == text);
            let changed = known.map_or(next, |part| part.changed);
            any |= changed == next;
            Part { name, text, changed }
        });
        self.parts = Some(parts);
        if any {
            self.version = next;
        }
        self.version
    }

    /// Forgets the parts: nobody looks any more.
    pub(super) fn clear(&mut self) {
        self.parts = None;
    }

    /// Whether anything is known.
    pub(super) fn is_empty(&self) -> bool {
        self.parts.is_none()
    }

    /// What has changed after a version, as JSON, and the version that there is now. Nothing where nothing is known.
    /// `at` is the moment of it, as JSON.
    pub(super) fn since(&self, version: u64, at: &str) -> Option<(String, u64)> {
        let mut text = format!("{{\"at\":{at}");
        for part in self.parts.as_ref()?.iter().filter(|part| part.changed > version) {
            text.push_str(&format!(",\"{}\":{}", part.name, part.text));
        }
        text.push('}');
        Some((text, self.version))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(numbers: [u8; PARTS]) -> Parts {
        let mut names = ["a", "b", "c", "d", "e"].into_iter();
        numbers.map(|number| (names.next().unwrap(), number.to_string()))
    }

    #[test]
    fn who_holds_a_version_is_given_what_is_not_as_it_was_then() {
        let mut board = Board::default();
        assert_eq!(board.since(0, "1"), None);
        assert_eq!(board.put(parts([1, 1, 1, 1, 1])), 1);
        assert_eq!(board.since(0, "1").unwrap(), (r#"{"at":1,"a":1,"b":1,"c":1,"d":1,"e":1}"#.to_owned(), 1));
        assert_eq!(board.put(parts([1, 1, 1, 1, 1])), 1, "nothing has changed");
        assert_eq!(board.put(parts([1, 2, 1, 1, 1])), 2);
        assert_eq!(board.put(parts([1, 2, 3, 1, 1])), 3);
        assert_eq!(board.since(1, "2").unwrap(), (r#"{"at":2,"b":2,"c":3}"#.to_owned(), 3));
        assert_eq!(board.since(2, "2").unwrap().0, r#"{"at":2,"c":3}"#);
        assert_eq!(board.since(3, "2").unwrap().0, r#"{"at":2}"#);
    }

    #[test]
    fn a_version_is_never_given_twice() {
        let mut board = Board::default();
        board.put(parts([1, 1, 1, 1, 1]));
        board.clear();
        assert_eq!(board.since(0, "1"), None);
        assert_eq!(board.put(parts([1, 1, 1, 1, 1])), 2);
        assert_eq!(board.since(1, "1").unwrap().0, r#"{"at":1,"a":1,"b":1,"c":1,"d":1,"e":1}"#);
    }
}
