//! Java's regular expressions on an engine of linear time (VTL-247).
//!
//! What needs backtracking (references back, looking around, possessive and atomic groups) is refused: no pattern can
//! stall a shard.

use std::borrow::Cow;
use std::sync::OnceLock;

use regex::{Regex, RegexBuilder};

/// A compiled pattern.
#[derive(Debug, Clone)]
pub(crate) struct JavaRegex {
    regex: Regex,
    /// The same pattern for whole texts, made when first asked for.
    whole: OnceLock<Option<Regex>>,
}

/// The longest pattern, in bytes.
const LENGTH: usize = 4096;
/// The largest compiled pattern, in bytes.
const SIZE: usize = 1 << 18;

/// Why a replacement text fails.
pub(crate) const BAD_REPLACEMENT: &str =
    "in a replacement `$` names a group of the pattern, and a backslash takes a character as it is";

impl JavaRegex {
    pub(crate) fn compile(pattern: &str, ignores_case: bool) -> Result<JavaRegex, String> {
        if pattern.len() > LENGTH {
            return Err(format!("the pattern has more than {LENGTH} bytes"));
        }
        let mut builder = RegexBuilder::new(&translate(pattern)?);
        builder
            .case_insensitive(ignores_case)
            .size_limit(SIZE)
            .dfa_size_limit(SIZE)
            .nest_limit(64);
        match builder.build() {
            Ok(regex) => Ok(JavaRegex {
                regex,
                whole: OnceLock::new(),
            }),
            // The last line says what is wrong; those before it draw the place.
            Err(error) => Err(error
                .to_string()
                .lines()
                .last()
                .unwrap_or_default()
                .trim()
                .to_owned()),
        }
    }

    /// Whether the whole text is a match, as Java's `matches` asks.
    pub(crate) fn matches_whole(&self, text: &str) -> bool {
        match self.regex.find(text) {
            Some(found) if found.range() == (0..text.len()) => true,
            // The first match may be a short one where another alternative reaches to the end.
            Some(_) => {
                let whole = || Regex::new(&format!(r"\A(?:{})\z", self.regex.as_str())).ok();
                self.whole
                    .get_or_init(whole)
                    .as_ref()
                    .is_some_and(|whole| whole.is_match(text))
            }
            None => false,
        }
    }

    /// Replaces the first or every match; `$1` and `${name}` in the replacement are the pattern's groups.
    pub(crate) fn replace(
        &self,
        text: &str,
        replacement: &str,
        all: bool,
        limit: usize,
    ) -> Result<String, &'static str> {
        let parts = self.replacement(replacement)?;
        let mut out = String::with_capacity(text.len());
        let mut from = 0;
        for captures in self
            .regex
            .captures_iter(text)
            .take(if all { usize::MAX } else { 1 })
        {
            let Some(found) = captures.get(0) else { break };
            out.push_str(&text[from..found.start()]);
            for part in &parts {
                match part {
                    Part::Text(text) => out.push_str(text),
                    Part::Group(group) => {
                        out.push_str(captures.get(*group).map_or("", |group| group.as_str()))
                    }
                }
            }
            from = found.end();
            if out.len() > limit {
                break;
            }
        }
        out.push_str(&text[from..]);
        Ok(out)
    }

    /// Splits as Java's `split`: with limit 0 empty parts at the end are left out, as is one before an empty match
    /// at the start.
    pub(crate) fn split<'t>(&self, text: &'t str, limit: i64) -> Vec<&'t str> {
        let mut parts = Vec::new();
        let mut from = 0;
        for found in self.regex.find_iter(text) {
            if limit > 0 && parts.len() as i64 == limit - 1 {
                break;
            }
            if found.end() == 0 || found.is_empty() && found.start() == text.len() {
                continue;
            }
            parts.push(&text[from..found.start()]);
            from = found.end();
        }
        parts.push(&text[from..]);
        if limit == 0 {
            while parts.len() > 1 && parts.last().is_some_and(|part| part.is_empty()) {
                parts.pop();
            }
            // A text that is nothing but separators has no parts at all.
            if from > 0 && parts.iter().all(|part| part.is_empty()) {
                parts.clear();
            }
        }
        parts
    }

    fn replacement(&self, text: &str) -> Result<Vec<Part>, &'static str> {
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut characters = text.chars().peekable();
        while let Some(character) = characters.next() {
            match character {
                '\\' => plain.push(characters.next().ok_or(BAD_REPLACEMENT)?),
                '$' => {
                    parts.push(Part::Text(std::mem::take(&mut plain)));
                    let group = if characters.next_if_eq(&'{').is_some() {
                        let name: String = characters.by_ref().take_while(|c| *c != '}').collect();
                        self.regex.capture_names().position(|known| known == Some(&name))
                    } else {
                        let mut group = characters
                            .next()
                            .and_then(|c| c.to_digit(10))
                            .map(|digit| digit as usize);
                        // Further digits belong to the number as long as there is such a group.
                        while let Some(at) = group
                            && let Some(digit) = characters.peek().and_then(|c| c.to_digit(10))
                            && at * 10 + (digit as usize) < self.regex.captures_len()
                        {
                            group = Some(at * 10 + digit as usize);
                            characters.next();
                        }
                        group.filter(|group| *group < self.regex.captures_len())
                    };
                    parts.push(Part::Group(group.ok_or(BAD_REPLACEMENT)?));
                }
                other => plain.push(other),
            }
        }
        parts.push(Part::Text(plain));
        Ok(parts)
    }
}

enum Part {
    Text(String),
    Group(usize),
}

/// Puts a Java pattern into the words of the `regex` crate.
fn translate(pattern: &str) -> Result<Cow<'_, str>, String> {
    if !pattern.bytes().any(|b| b"\\+[(*?}".contains(&b)) {
        return Ok(Cow::Borrowed(pattern));
    }
    let mut out = String::with_capacity(pattern.len() + 16);
    let mut rest = pattern.chars().peekable();
    let mut in_class = 0_usize;
    while let Some(character) = rest.next() {
        match character {
            '\\' => {
                let escaped = rest.next().ok_or("a backslash ends the pattern")?;
                match escape(escaped, in_class > 0) {
                    Some(text) => out.push_str(text),
                    None if escaped == 'Q' => {
                        let mut quoted = String::new();
                        while let Some(character) = rest.next() {
                            if character == '\\' && rest.next_if_eq(&'E').is_some() {
                                break;
                            }
                            quoted.push(character);
                        }
                        out.push_str(&regex::escape(&quoted));
                    }
                    None if matches!(escaped, '1'..='9' | 'k') => {
                        return Err("a reference back to a group has no linear time".to_owned());
                    }
                    None if matches!(escaped, 'p' | 'P') => {
                        let name: String = match rest.next() {
                            Some('{') => rest.by_ref().take_while(|c| *c != '}').collect(),
                            letter => letter.into_iter().collect(),
                        };
                        let class =
                            property(&name).ok_or_else(|| format!("`\\p{{{name}}}` is not known here"))?;
                        let negation = if escaped == 'P' { "^" } else { "" };
                        out.push_str(&format!("[{negation}{class}]"));
                    }
                    // Java takes any other sign behind a backslash as it is.
                    None if !escaped.is_ascii_alphanumeric() => {
                        out.push_str(&regex::escape(escaped.encode_utf8(&mut [0; 4])));
                    }
                    None => {
                        out.push('\\');
                        out.push(escaped);
                    }
                }
            }
            '[' => {
                in_class += 1;
                out.push('[');
                if rest.next_if_eq(&'^').is_some() {
                    out.push('^');
                }
            }
            ']' if in_class > 0 => {
                in_class -= 1;
                out.push(']');
            }
            // Signs of sets that Java has not.
            '~' | '-' if in_class > 0 && rest.peek() == Some(&character) => {
                out.push('\\');
                out.push(character);
            }
            '(' if in_class == 0 => {
                out.push('(');
                if rest.peek() == Some(&'?') {
                    let mut ahead = rest.clone().skip(1);
                    match (ahead.next(), ahead.next()) {
                        (Some('=' | '!'), _) | (Some('<'), Some('=' | '!')) => {
                            return Err("looking ahead or behind has no linear time".to_owned());
                        }
                        (Some('>'), _) => return Err("atomic groups have no linear time".to_owned()),
                        _ => {}
                    }
                }
            }
            '*' | '?' | '+' | '}' if in_class == 0 => {
                out.push(character);
                if rest.peek() == Some(&'+') {
                    return Err(
                        "possessive quantifiers have no linear time; leave the second `+` out".to_owned(),
                    );
                }
            }
            other => out.push(other),
        }
    }
    Ok(Cow::Owned(out))
}

/// Java's classes hold ASCII only.
fn escape(letter: char, in_class: bool) -> Option<&'static str> {
    Some(match (letter, in_class) {
        ('d', false) => "[0-9]",
        ('d', true) => "0-9",
        ('D', _) => "[^0-9]",
        ('w', false) => "[0-9A-Za-z_]",
        ('w', true) => "0-9A-Za-z_",
        ('W', _) => "[^0-9A-Za-z_]",
        ('s', false) => r"[ \t\n\x0B\f\r]",
        ('s', true) => r" \t\n\x0B\f\r",
        ('S', _) => r"[^ \t\n\x0B\f\r]",
        ('h', false) => r"[ \t\x{A0}]",
        ('h', true) => r" \t\x{A0}",
        ('R', false) => r"(?:\r\n|[\n\x0B\f\r\x{85}\x{2028}\x{2029}])",
        ('e', _) => r"\x1B",
        ('Z', false) => r"\n?\z",
        ('b', false) => r"(?-u:\b)",
        _ => return None,
    })
}

fn property(name: &str) -> Option<&'static str> {
    Some(match name {
        "Alpha" | "IsAlphabetic" => "A-Za-z",
        "Digit" | "IsDigit" => "0-9",
        "Alnum" => "0-9A-Za-z",
        "Upper" | "Lu" | "IsUppercase" => "A-Z",
        "Lower" | "Ll" | "IsLowercase" => "a-z",
        "L" | "IsL" => "A-Za-z\\x{AA}-\\x{2AF}\\x{370}-\\x{1FFF}\\x{3040}-\\x{D7FF}",
        "Punct" => "!-/:-@\\[-`{-~",
        "Space" => " \\t\\n\\x0B\\f\\r",
        "Blank" => " \\t",
        "XDigit" => "0-9A-Fa-f",
        "Cntrl" => "\\x00-\\x1F\\x7F",
        "Graph" => "!-~",
        "Print" => " -~",
        "ASCII" => "\\x00-\\x7F",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// VTL-247
    #[test]
    fn patterns_mean_what_they_mean_in_java() {
        for (pattern, text, replacement, result) in [
            (r"\\'", r"it\'s", "'", "it's"),
            (r"[aeiou]", "template", "-", "t-mpl-t-"),
            (r"(\w+)@(\w+)", "a@b c@d", "$2 at $1", "b at a d at c"),
            (r"\Qa.b\E", "a.b axb", "!", "! axb"),
            (r"\d", "1\u{661}2", "#", "#\u{661}#"),
            (r"\/", "a/b", "|", "a|b"),
            (r"[\w-]+", "a-b c", "x", "x x"),
            (r"(?<n>a)", "cat", "<${n}>", "c<a>t"),
            (r"\.", "1.2.3", r"\$", "1$2$3"),
            (r"(?i)A", "aA", "b", "bb"),
            (r"\p{Punct}", "a,b!", "", "ab"),
            (r"x*", "ab", "-", "-a-b-"),
        ] {
            let regex = JavaRegex::compile(pattern, false).unwrap();
            assert_eq!(
                regex.replace(text, replacement, true, usize::MAX).as_deref(),
                Ok(result),
                "{pattern}"
            );
        }
    }

    /// VTL-247: what would need backtracking is refused, and says so.
    #[test]
    fn patterns_without_linear_time_are_refused() {
        for pattern in [
            r"(a)\1", "(?=a)b", "(?<!a)b", "(?>a)b", "a*+b", "a++", "(a", "*", "[a", r"\p{Han}",
        ] {
            assert!(JavaRegex::compile(pattern, false).is_err(), "{pattern}");
        }
        assert!(JavaRegex::compile(&"a".repeat(LENGTH + 1), false).is_err());
        assert!(JavaRegex::compile("((a{100}){100}){100}", false).is_err());
    }

    #[test]
    fn bad_replacements_are_refused() {
        let regex = JavaRegex::compile("a", false).unwrap();
        for replacement in ["$1", "$x", "${n}", "\\", "$"] {
            assert_eq!(regex.replace("a", replacement, true, 100), Err(BAD_REPLACEMENT));
        }
    }

    #[test]
    fn texts_are_split_as_java_splits_them() {
        for (pattern, text, limit, parts) in [
            (",", "a,b,,c,,", 0, &["a", "b", "", "c"][..]),
            (",", "a,b,,", -1, &["a", "b", "", ""]),
            (",", "a,b,c", 2, &["a", "b,c"]),
            (",", "", 0, &[""]),
            (",", ",", 0, &[]),
            (",", ",a", 0, &["", "a"]),
            ("", "abc", 0, &["a", "b", "c"]),
            (r"\s*,\s*", "a , b", 0, &["a", "b"]),
        ] {
            assert_eq!(
                JavaRegex::compile(pattern, false).unwrap().split(text, limit),
                parts,
                "{pattern} {text}"
            );
        }
    }

    #[test]
    fn a_whole_match_is_wanted_where_java_wants_one() {
        for (pattern, text, is_match) in [
            ("a|ab", "ab", true),
            ("a", "ab", false),
            ("", "", true),
            ("a*", "aaa", true),
        ] {
            assert_eq!(
                JavaRegex::compile(pattern, false).unwrap().matches_whole(text),
                is_match
            );
        }
    }
}
