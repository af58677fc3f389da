//! Limits of plans, and the method of 2018, against calculations by hand.

mod limits;
mod synthetic;
mod y2018;
