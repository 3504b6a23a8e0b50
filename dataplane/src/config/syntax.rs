//! TOML that is broken in places: finds every such place, and the rest of the document.
//!
//! The TOML reader goes on after an error, but guesses what was meant, and a guess causes mistakes nobody made.
//! So the damaged lines are blanked instead, and the rest is read again until it is sound.
//! A damaged `[[header]]` takes its block along, a damaged value of several lines all of its lines.

use std::{borrow::Cow, collections::BTreeSet, ops::Range};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::topology::Mistake;

/// Times a document is read again: errors of one reading are blanked together, so more than a few are junk.
const READINGS: usize = 16;

/// What the TOML reader says of a key or table that is there twice; the one thing it says of a sound syntax.
const DUPLICATE: &str = "duplicate key";

/// Offsets and lines of a text.
pub(super) struct Lines(Vec<usize>);

impl Lines {
    pub(super) fn of(text: &str) -> Self {
        Self(text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(at, _)| at).collect())
    }

    /// The line of an offset, from 1.
    pub(super) fn at(&self, offset: usize) -> u32 {
        u32::try_from(self.0.partition_point(|&newline| newline < offset) + 1).unwrap_or(u32::MAX)
    }
}

/// A text without its damaged lines.
pub(super) struct Sound<'a> {
    /// Has every line and offset of the original.
    pub text: Cow<'a, str>,
    pub mistakes: Vec<Mistake>,
    /// The lines that were blanked.
    pub blanked: BTreeSet<u32>,
}

/// Blanks what is no TOML.
pub(super) fn sound<'a>(text: &'a str, lines: &Lines) -> Sound<'a> {
    let mut sound = Sound { text: Cow::Borrowed(text), mistakes: Vec::new(), blanked: BTreeSet::new() };
    for _ in 0..READINGS {
        let (document, errors) = DeTable::parse_recoverable(&sound.text);
        if errors.is_empty() {
            return sound;
        }
        let mut values = Vec::new();
        spans(document.get_ref().values(), &sound.text, &mut values);
        values.sort_unstable_by_key(|value| value.start);
        let mut damaged = Vec::new();
        let before = sound.blanked.len();
        for error in errors {
            let at = error.span().map_or(0, |span| span.start).min(text.len());
            let around = values.partition_point(|value| value.start < at).checked_sub(1);
            let around = around.map(|i| &values[i]).filter(|value| at <= value.end);
            damaged.push((lines.at(at), around.cloned(), error.message().to_owned()));
        }
        // After damage a key can seem to be there twice: that is told of what is sound otherwise.
        if damaged.iter().any(|(.., message)| message != DUPLICATE) {
            damaged.retain(|(.., message)| message != DUPLICATE);
        }
        // In the order of lines; what lies in a place that is blanked already follows from its first mistake.
        damaged.sort_by_key(|(line, ..)| *line);
        let mut open = None;
        for (line, around, message) in &damaged {
            if let Some(value) = around
                && (message.starts_with("unclosed") || message.starts_with("invalid multi-line"))
            {
                let start = lines.at(value.start);
                if start < *line && open.is_none_or(|(first, _)| start < first) {
                    open = Some((start, lines.at(value.end)));
                }
            }
        }
        if let Some((start, end)) = open {
            damaged.retain(|(line, ..)| *line < start);
            let message = "the value that begins here has no end: a bracket or quote is missing";
            sound.mistakes.push(Mistake { line: start, message: message.to_owned() });
            sound.blanked.extend(start..=end);
        }
        let text_lines: Vec<&str> = sound.text.split('\n').collect();
        for (line, around, message) in damaged {
            if sound.blanked.contains(&line) {
                continue;
            }
            sound.mistakes.push(Mistake { line, message });
            match around.map(|value| lines.at(value.start)..=lines.at(value.end)) {
                Some(value) if value.start() < value.end() => sound.blanked.extend(value),
                _ => sound.blanked.extend(block(&text_lines, line)),
            }
        }
        if sound.blanked.len() == before {
            break;
        }
        sound.text = Cow::Owned(without(&sound.text, &sound.blanked));
    }
    // Junk that blanking does not mend: what was found is told, and nothing is read from the rest.
    sound.text = Cow::Owned(String::new());
    sound
}

/// The places of values, inner ones and the tables under a header left out: none lies in another.
fn spans<'a, 'i: 'a>(
    values: impl IntoIterator<Item = &'a Spanned<DeValue<'i>>>,
    text: &str,
    out: &mut Vec<Range<usize>>,
) {
    let is_headed = |v: &Spanned<DeValue<'_>>| {
        v.get_ref().is_table() && text.get(v.span().start..).is_some_and(is_header)
    };
    for value in values {
        match value.get_ref() {
            DeValue::Table(inner) if is_headed(value) => spans(inner.values(), text, out),
            DeValue::Array(all) if all.iter().any(is_headed) => spans(all.iter(), text, out),
            _ => out.push(value.span()),
        }
    }
}

pub(super) fn is_header(line: &str) -> bool {
    line.trim_start().starts_with('[')
}

/// The line alone, or with all up to the next header where it is one itself.
fn block(text: &[&str], line: u32) -> Range<u32> {
    let rest = text.get(line as usize - 1..).unwrap_or_default();
    let body = match rest.split_first() {
        Some((first, body)) if is_header(first) => body.iter().take_while(|line| !is_header(line)).count(),
        _ => 0,
    };
    line..line + 1 + u32::try_from(body).unwrap_or(u32::MAX - line - 1)
}

fn without(text: &str, blanked: &BTreeSet<u32>) -> String {
    let mut out = String::with_capacity(text.len());
    for (line, number) in text.split_inclusive('\n').zip(1..) {
        if blanked.contains(&number) {
            let end = line.ends_with('\n');
            out.extend(std::iter::repeat_n(' ', line.len() - usize::from(end)));
            out.push_str(if end { "\n" } else { "" });
        } else {
            out.push_str(line);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> (Vec<(u32, String)>, String) {
        let sound = sound(text, &Lines::of(text));
        (sound.mistakes.into_iter().map(|m| (m.line, m.message)).collect(), sound.text.into_owned())
    }

    #[test]
    fn a_sound_text_is_left_alone() {
        let text = "# a\r\n[[port]]\r\nname = \"ä\"\r\n";
        assert_eq!(found(text), (vec![], text.to_owned()));
    }

    #[test]
    fn only_the_damaged_lines_are_blanked() {
        let (mistakes, rest) = found("a = 1\nb\nc = \"x\nd = 15oo\ne = 2\n");
        assert_eq!(mistakes.iter().map(|m| m.0).collect::<Vec<_>>(), [2, 3, 4], "{mistakes:?}");
        assert_eq!(rest.split_whitespace().collect::<String>(), "a=1e=2");
    }

    #[test]
    fn a_damaged_header_takes_its_block_along() {
        let (mistakes, rest) = found("[[a]]\nx = 1\n[[b\nx = 2\ny = 3\n\n[[c]]\nx = 4\n");
        assert_eq!(mistakes.iter().map(|m| m.0).collect::<Vec<_>>(), [3], "{mistakes:?}");
        assert_eq!(rest.split_whitespace().collect::<String>(), "[[a]]x=1[[c]]x=4");
    }

    #[test]
    fn a_key_that_is_there_twice_is_a_mistake_of_its_own() {
        let (mistakes, rest) = found("a = 1\na = 2\nb\n[[c]]\nx = 1\nx = 2\n[c.d]\n[e]\n[[e]]\ny = 1\n");
        assert_eq!(mistakes.iter().map(|m| m.0).collect::<Vec<_>>(), [3, 2, 6, 9], "{mistakes:?}");
        assert_eq!(rest.split_whitespace().collect::<String>(), "a=1[[c]]x=1[c.d][e]");
    }

    #[test]
    fn a_value_without_an_end_is_one_mistake_where_it_begins() {
        for open in ["[1,\n2", "\"\"\"x\n", "[\n\"x\","] {
            let (mistakes, rest) = found(&format!("a = 1\nb = {open}\n[[c]]\nx = 4\n[[d]]\ny = 5\n"));
            assert_eq!(mistakes.iter().map(|m| m.0).collect::<Vec<_>>(), [2], "{open}: {mistakes:?}");
            assert!(rest.starts_with("a = 1\n"), "{rest}");
        }
    }

    #[test]
    fn a_mistake_inside_a_value_of_several_lines_has_its_own_line() {
        let (mistakes, rest) = found("a = [\n  1,\n  x,\n  2,\n]\nb = 2\n");
        assert_eq!(mistakes.iter().map(|m| m.0).collect::<Vec<_>>(), [3], "{mistakes:?}");
        assert_eq!(rest.split_whitespace().collect::<String>(), "b=2");
    }
}
