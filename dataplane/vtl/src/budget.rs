//! What a render may cost.

/// Bounds of one render. The data plane fills it from the table of limits, whose rows have the same names with
/// `template-` before them; the defaults are those of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Rounds of one `#foreach`; the loop ends quietly behind them (QUO-072).
    pub iterations: u32,
    /// Everything that is done: a reference, a directive, an operator, 256 bytes of text handled.
    pub steps: u64,
    /// Bytes of output.
    pub output: usize,
    /// Bytes of values made on the way.
    pub memory: usize,
    /// How deep blocks, macros, `#define`d blocks, calls, expressions and printed lists stand in each other.
    pub depth: u32,
    /// How deep JSON that the template reads by `$util.parseJson` may nest. The body has a bound of its own:
    /// [`Document::with_depth`](crate::Document::with_depth).
    pub json_depth: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Budget {
            iterations: 1000,
            steps: 1_000_000,
            output: 10 << 20,
            memory: 32 << 20,
            depth: 64,
            json_depth: crate::json::DEPTH,
        }
    }
}
