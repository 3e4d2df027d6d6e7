//! The seam to the io_uring runtime.
