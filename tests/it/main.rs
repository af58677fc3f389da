//! The tests that look at nnflow from outside: one binary, one module a subject.

mod tidy;
