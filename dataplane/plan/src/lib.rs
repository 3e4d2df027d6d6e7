//! Paths, route tries, plans and limits: what both planes agree on, without I/O.
