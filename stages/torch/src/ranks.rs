//! Training by several processes: one for each GPU, or on a CPU as many as are asked for.
//!
//! The worker that got the task starts them, as `nnflow-torch rank`, and trains nothing itself ([`hub`]). Each process runs
//! the stage like a worker of its own ([`member`]) and differs in two things: it is given its share of each batch, and what
//! goes over all samples goes over all processes. The first one speaks for all of them: it writes checkpoints and the
//! model, and tells how far they have come.
//!
//! Every process is joined with the worker by one socket, its standard input. What the processes give each other goes
//! through the worker, which waits until all have given something, and then hands everything to everybody. That makes it
//! the one who knows whether all are alive: as soon as one is gone or fails, it ends the others, also those that wait for
//! it on a GPU, where nothing can tell them.

mod frame;
mod hub;
mod member;

pub(crate) use hub::train_together;
pub(crate) use member::serve;
