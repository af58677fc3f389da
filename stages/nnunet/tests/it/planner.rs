//! Plans against those of nnU-Net 2.8.1, and the method of 2018 against calculations by hand.

mod limits;
mod synthetic;
mod v2;
mod y2018;
