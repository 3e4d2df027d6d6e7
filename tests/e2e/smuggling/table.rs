//! The tables' format. A case begins with `= expectation : name`; its lines follow up to the next case, end to end. `#`
//! begins a comment. Within a line `\r`, `\n`, `\t`, `\0`, `\\` and `\x41` stand for bytes, `{12*ab}` for a repetition,
//! and `{post}`, `{host}`, `{target}` for what the caller says.

use anyhow::{Context as _, Result, bail, ensure};

/// One case, not filled in yet.
#[derive(Debug, Clone)]
pub(super) struct Case<'t> {
    /// What must come of it, in words.
    pub(super) expected: Vec<&'t str>,
    /// What it shows.
    pub(super) name: &'t str,
    /// Its lines, as they stand in the table.
    pub(super) lines: Vec<&'t str>,
}

/// All cases of a table.
pub(super) fn cases(text: &str) -> Result<Vec<Case<'_>>> {
    let mut cases: Vec<Case<'_>> = Vec::new();
    for line in text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        if let Some(head) = line.strip_prefix("= ") {
            let (expected, name) = head
                .split_once(" : ")
                .with_context(|| format!("a case without a name: {line}"))?;
            cases.push(Case {
                expected: expected.split(' ').collect(),
                name,
                lines: Vec::new(),
            });
        } else {
            cases
                .last_mut()
                .with_context(|| format!("a line before the first case: {line}"))?
                .lines
                .push(line);
        }
    }
    for (at, case) in cases.iter().enumerate() {
        ensure!(!case.lines.is_empty(), "nothing is sent: {}", case.name);
        ensure!(
            cases[..at].iter().all(|other| other.name != case.name),
            "two cases have the name {:?}",
            case.name
        );
    }
    Ok(cases)
}

/// The bytes of a line. `words` are those that stand in braces, and what they stand for.
pub(super) fn bytes(line: &str, words: &[(&str, &str)]) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    let mut rest = line;
    while let Some(at) = rest.find(['\\', '{']) {
        out.extend(&rest.as_bytes()[..at]);
        let what = &rest[at + 1..];
        if rest.as_bytes()[at] == b'\\' {
            let (byte, length) = match what.as_bytes().first() {
                Some(b'r') => (b'\r', 1),
                Some(b'n') => (b'\n', 1),
                Some(b't') => (b'\t', 1),
                Some(b'0') => (0, 1),
                Some(b'\\') => (b'\\', 1),
                Some(b'x') => (
                    u8::from_str_radix(what.get(1..3).context(line.to_owned())?, 16)?,
                    3,
                ),
                _ => bail!("an unknown escape in {line:?}"),
            };
            out.push(byte);
            rest = &what[length..];
            continue;
        }
        let (word, behind) = what.split_once('}').context(line.to_owned())?;
        if let Some((_, value)) = words.iter().find(|(name, _)| *name == word) {
            out.extend(value.as_bytes());
        } else {
            let (times, text) = word
                .split_once('*')
                .with_context(|| format!("an unknown word in {line:?}"))?;
            out.extend(text.repeat(times.parse()?).as_bytes());
        }
        rest = behind;
    }
    out.extend(rest.as_bytes());
    Ok(out)
}
