//! Numbers as Java reads, computes and prints them.

/// A number to compute with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Number {
    Int(i64),
    Double(f64),
}

impl Number {
    /// Reads a JSON number or a text that is one; whole numbers beyond 64 bits become doubles.
    pub(crate) fn read(text: &str) -> Option<Number> {
        if let Ok(int) = text.parse() {
            return Some(Number::Int(int));
        }
        // `parse` knows words such as `inf`, which are no numbers here.
        let is_number = text.bytes().all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b));
        let double = is_number.then(|| text.parse::<f64>().ok())??;
        Some(Number::Double(double))
    }

    pub(crate) fn as_double(self) -> f64 {
        match self {
            Number::Int(int) => int as f64,
            Number::Double(double) => double,
        }
    }

    /// Towards zero, within 64 bits, as Java's `longValue`.
    pub(crate) fn as_int(self) -> i64 {
        match self {
            Number::Int(int) => int,
            Number::Double(double) => double as i64,
        }
    }

    pub(crate) fn compare(self, other: Number) -> Option<std::cmp::Ordering> {
        match (self, other) {
            (Number::Int(left), Number::Int(right)) => Some(left.cmp(&right)),
            (left, right) => left.as_double().partial_cmp(&right.as_double()),
        }
    }
}

/// A double as Java's `Double.toString` prints it: the fewest digits that read back as the same, with a fraction,
/// and an exponent from 10^7 on and below 10^-3.
pub(crate) fn java_double(double: f64) -> String {
    if double.is_nan() {
        return "NaN".to_owned();
    }
    if double.is_infinite() {
        return if double > 0.0 { "Infinity" } else { "-Infinity" }.to_owned();
    }
    let size = double.abs();
    if size == 0.0 || (1e-3..1e7).contains(&size) {
        let mut text = format!("{double}");
        if !text.contains('.') {
            text.push_str(".0");
        }
        return text;
    }
    let text = format!("{double:e}");
    match text.split_once('e') {
        Some((digits, exponent)) if !digits.contains('.') => format!("{digits}.0E{exponent}"),
        Some((digits, exponent)) => format!("{digits}E{exponent}"),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_print_as_java_prints_them() {
        for (double, text) in [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (1.0, "1.0"),
            (249.99, "249.99"),
            (0.1 + 0.2, "0.30000000000000004"),
            (0.001, "0.001"),
            (0.0001, "1.0E-4"),
            (9_999_999.0, "9999999.0"),
            (1e7, "1.0E7"),
            (-1.25e30, "-1.25E30"),
            (f64::INFINITY, "Infinity"),
            (f64::NAN, "NaN"),
        ] {
            assert_eq!(java_double(double), text);
        }
    }

    #[test]
    fn texts_are_read_as_the_smallest_kind_that_holds_them() {
        for (text, number) in [
            ("1", Some(Number::Int(1))),
            ("-9223372036854775808", Some(Number::Int(i64::MIN))),
            (
                "9223372036854775808",
                Some(Number::Double(9_223_372_036_854_775_808.0)),
            ),
            ("1.0", Some(Number::Double(1.0))),
            ("1e3", Some(Number::Double(1000.0))),
            ("inf", None),
            ("NaN", None),
            ("", None),
            ("1 ", None),
        ] {
            assert_eq!(Number::read(text), number, "{text}");
        }
    }
}
