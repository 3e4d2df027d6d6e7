//! Query strings: parameters in order, names and values as they were sent.

/// The parameters of a query, encoded as they are; a parameter without `=` has an empty value.
pub fn parameters(query: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    query
        .split(|b| *b == b'&')
        .filter(|part| !part.is_empty())
        .map(|part| match memchr::memchr(b'=', part) {
            Some(at) => (&part[..at], &part[at + 1..]),
            None => (part, &b""[..]),
        })
}

/// The values of a parameter in order, encoded as they are. Names are case-sensitive (OBV-283).
pub fn all<'q>(query: &'q [u8], name: &[u8]) -> impl Iterator<Item = &'q [u8]> {
    parameters(query)
        .filter(move |(known, _)| *known == name || *tidegate_plan::path::decode(known, true) == *name)
        .map(|(_, value)| value)
}

/// The last value of a parameter (OBV-282), encoded as it is.
pub fn last<'q>(query: &'q [u8], name: &[u8]) -> Option<&'q [u8]> {
    all(query, name).last()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// OBV-282, OBV-283.
    #[test]
    fn the_last_of_several_counts_and_case_matters() {
        assert_eq!(last(b"a=1&b=2&a=3", b"a"), Some(&b"3"[..]));
        assert_eq!(last(b"a=1&A=2", b"A"), Some(&b"2"[..]));
        assert_eq!(last(b"x%20y=1&&z", b"x y"), Some(&b"1"[..]));
        assert_eq!(last(b"&z&", b"z"), Some(&b""[..]));
        assert_eq!(last(b"", b"z"), None);
    }
}
