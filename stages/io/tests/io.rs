//! Readers against files that other programs wrote, and against what those programs make of them.

mod odd_nifti;
