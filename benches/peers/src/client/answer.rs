//! How much of a stream of bytes is an answer.

use anyhow::{Context, Result, bail};

/// The length of the answer that these bytes begin with, head and body; `None` while its head is not whole.
pub(crate) fn length(bytes: &[u8]) -> Result<Option<usize>> {
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut fields);
    let httparse::Status::Complete(head) = response.parse(bytes)? else {
        return Ok(None);
    };
    let code = response.code.unwrap_or_default();
    if code != 200 {
        bail!("answered {code}");
    }
    let field = response
        .headers
        .iter()
        .find(|field| field.name.eq_ignore_ascii_case("content-length"))
        .context("an answer without a length")?;
    let body: usize = std::str::from_utf8(field.value)?.parse()?;
    Ok(Some(head + body))
}

/// Reads one answer whole.
pub(crate) fn read(stream: &mut impl std::io::Read) -> Result<()> {
    let mut bytes = [0_u8; 16 * 1024];
    let mut head = Vec::new();
    let mut have = 0;
    let mut length_told = None;
    while length_told.is_none_or(|length| have < length) {
        let count = stream.read(&mut bytes)?;
        if count == 0 {
            bail!("closed within an answer");
        }
        have += count;
        if length_told.is_none() {
            head.extend_from_slice(&bytes[..count]);
            length_told = length(&head)?;
        }
    }
    if length_told != Some(have) {
        bail!("more than an answer");
    }
    Ok(())
}
